"""The syntax tree of a `.wg` file: plain records, each with the span of its text."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.span import Span


@dataclass(frozen=True, slots=True)
class Node:
    """Anything with a place in the source."""

    span: Span


# Expressions


@dataclass(frozen=True, slots=True)
class Expr(Node):
    """An expression."""


@dataclass(frozen=True, slots=True)
class Number(Expr):
    """`3`, `2.5`, `1e-3`, `90deg`: an int stays an int; `deg` is folded in as a factor."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Bool(Expr):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class String(Expr):
    """`"text"`: static only."""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Expr):
    """A variable, function, constant, record or module."""

    name: str


@dataclass(frozen=True, slots=True)
class Attribute(Expr):
    """`value.name`: a record field, a member of a module, or `.T` and `.shape` of an array."""

    value: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument of a call; `name` is None for a positional one."""

    name: str | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """`function(arguments)`; also the construction of a record."""

    function: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class SliceIndex(Node):
    """`start:stop:step` in an index; any part may be missing."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class NewAxis(Node):
    """`None` in an index."""


@dataclass(frozen=True, slots=True)
class Ellipsis(Node):
    """`...` in an index."""


Index = Expr | SliceIndex | NewAxis | Ellipsis


@dataclass(frozen=True, slots=True)
class Subscript(Expr):
    """`value[indices]`."""

    value: Expr
    indices: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    """`op` is "-", "+" or "not"."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """`op` is one of `+ - * / // % @ ^ == != < <= > >= and or` (`**` reads as `^`)."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Conditional(Expr):
    """`then if condition else other`."""

    condition: Expr
    then: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Range(Expr):
    """`start..stop` (stop excluded)."""

    start: Expr
    stop: Expr


@dataclass(frozen=True, slots=True)
class Generator(Node):
    """`for target in source` of a comprehension; the source is a Range or an array."""

    target: Target
    source: Expr


@dataclass(frozen=True, slots=True)
class Comprehension(Expr):
    """`[element for i in 0..n for x in xs]`: an array with a new axis a generator."""

    element: Expr
    generators: tuple[Generator, ...]


@dataclass(frozen=True, slots=True)
class ListLiteral(Expr):
    """`[a, b, c]`: items of one type stacked along a new first axis."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class TupleLiteral(Expr):
    """`(a, b)`; `()` and `(a,)` too."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`name: value` of a record literal; `name` alone means `name: name`."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class RecordLiteral(Expr):
    """`{a: 1.0, b}`: a record known by its fields."""

    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Lambda(Expr):
    """`lambda x, y: body`: a static function that may use the names around it."""

    parameters: tuple[Parameter, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class FreshKey(Expr):
    """The random key of the program being run, folded with the place of use; never written."""


# Types as written


@dataclass(frozen=True, slots=True)
class TypeExpr(Node):
    """A type annotation."""


@dataclass(frozen=True, slots=True)
class NamedType(TypeExpr):
    """`f32`, `real[n, d]`, `Params`, `nn.Linear`: sizes are expressions over size variables."""

    name: str
    sizes: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class TupleType(TypeExpr):
    """`(f32, i32[n])`."""

    items: tuple[TypeExpr, ...]


@dataclass(frozen=True, slots=True)
class StaticType(TypeExpr):
    """`static int`, `static fn`, `static bool`, `static float`, `static str`."""

    kind: str


# Statements


@dataclass(frozen=True, slots=True)
class Target(Node):
    """The left side of an assignment or of `for ... in`."""


@dataclass(frozen=True, slots=True)
class NameTarget(Target):
    """`x`, with an annotation in `x: f32[n] = ...`."""

    name: str
    annotation: TypeExpr | None = None


@dataclass(frozen=True, slots=True)
class TupleTarget(Target):
    """`a, b` or `(a, (b, c))`."""

    items: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class UpdateTarget(Target):
    """`x[i] = ...` or `p.field = ...`: rebinds `root` to a copy with that part replaced.

    `path` is the subscript or attribute expression whose innermost value is Name(root).
    """

    root: str
    path: Expr


@dataclass(frozen=True, slots=True)
class Stmt(Node):
    """A statement."""


@dataclass(frozen=True, slots=True)
class Assign(Stmt):
    """`target = value`, or `target op= value` with `op` one of `+ - * / // % @ ^`."""

    target: Target
    value: Expr
    op: str | None = None


@dataclass(frozen=True, slots=True)
class Sample(Stmt):
    """`name ~ program by strategy`: a choice, or a run of another program, at address `name`."""

    target: Target
    program: Expr
    strategy: Expr | None


@dataclass(frozen=True, slots=True)
class Return(Stmt):
    """`return value`."""

    value: Expr


@dataclass(frozen=True, slots=True)
class If(Stmt):
    """`if` with its `elif`s nested in `orelse`."""

    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """`for target in source:`; the source is a Range, an array, or a static list."""

    target: Target
    source: Expr
    body: tuple[Stmt, ...]
    checkpoint: str = "all"  # `for i in 0..n checkpoint sqrt:`


@dataclass(frozen=True, slots=True)
class While(Stmt):
    """`while condition:`, or `while condition max 100:` which reverse mode needs."""

    condition: Expr
    body: tuple[Stmt, ...]
    max_trips: Expr | None = None


@dataclass(frozen=True, slots=True)
class Pass(Stmt):
    """`pass`."""


@dataclass(frozen=True, slots=True)
class Assert(Stmt):
    """`assert condition, "message"`: checked when compiled, hence static."""

    condition: Expr
    message: Expr | None


# Declarations

PROGRAM_KINDS = ("model", "guide", "objective")  # what makes choices


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """A parameter; without annotation it takes whatever the call gives."""

    name: str
    annotation: TypeExpr | None = None
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Decl(Node):
    """A top-level declaration."""

    name: str


@dataclass(frozen=True, slots=True)
class FunctionDecl(Decl):
    """`fn name(parameters) -> result:`; nested ones inside functions are allowed too.

    kind: "fn", or "model", "guide", "objective" (programs that make choices; their last
        parameter is the key), "strategy", or "shape" (which draws).
    decorators: custom derivatives, `@jvp(rule)` and `@vjp(forward, backward)` above an `fn`, and
        `@biased("why")` above a strategy.
    """

    parameters: tuple[Parameter, ...]
    result: TypeExpr | None
    body: tuple[Stmt, ...]
    doc: str = ""
    decorators: tuple[Call, ...] = ()
    kind: str = "fn"


@dataclass(frozen=True, slots=True)
class DistributionDecl(Decl):
    """`distribution name(parameters):` with its support and its methods."""

    parameters: tuple[Parameter, ...]
    support: Expr
    methods: tuple[FunctionDecl, ...]
    doc: str = ""

    def method(self, name: str) -> FunctionDecl | None:
        """The method called `name`."""
        return next((m for m in self.methods if m.name == name), None)


@dataclass(frozen=True, slots=True)
class LocalFunction(Stmt):
    """A function declared inside another; it may use the names around it."""

    function: FunctionDecl


@dataclass(frozen=True, slots=True)
class ExprStmt(Stmt):
    """An expression alone; allowed only where a dialect gives it a meaning."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Require(Node):
    """`require condition, "message"` of a shape tool."""

    condition: Expr
    message: str


@dataclass(frozen=True, slots=True)
class ShapeTool(Decl):
    """`primitive`, `transform` or `combinator` (the kind), for shape programs to draw with."""

    kind: str
    parameters: tuple[Parameter, ...]
    requires: tuple[Require, ...]
    methods: tuple[FunctionDecl, ...]
    doc: str = ""

    def method(self, name: str) -> FunctionDecl | None:
        """The method called `name`."""
        return next((m for m in self.methods if m.name == name), None)


@dataclass(frozen=True, slots=True)
class Drawing(Stmt):
    """`head: body` of a shape program: what the body draws, placed, combined or named."""

    head: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class FieldDrawing(Stmt):
    """`field(p) = value` of a shape program: where an expression of the point is negative."""

    point: str
    value: Expr


@dataclass(frozen=True, slots=True)
class RecordDecl(Decl):
    """`record Params:` with a field a line."""

    fields: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class ConstDecl(Decl):
    """`const name = expression`."""

    value: Expr
    annotation: TypeExpr | None = None


@dataclass(frozen=True, slots=True)
class ImportDecl(Decl):
    """`import nn`, `import "parts/legs.wg" as legs`: `name` is what the file calls it."""

    path: str


@dataclass(frozen=True, slots=True)
class File:
    """A parsed source file."""

    path: str
    declarations: tuple[Decl, ...]
    errors: tuple[Exception, ...] = field(default=())
