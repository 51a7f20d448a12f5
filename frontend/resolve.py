"""Name resolution: every name has a declaration before anything is typed or run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..ir.errors import WengertError
from ..ir.span import Span
from ..ir.types import DTYPES
from . import syntax as s
from .builtin_table import BUILTIN_NAMES
from .errors import (
    DuplicateName,
    MisplacedStatement,
    MissingReturn,
    UnknownName,
    UnknownType,
    WrongArguments,
)
from .programs import DERIVED
from .scopes import children, find_record, names_of, record_sizes, returns, suggest
from .shapes import PART, TOOLS

if TYPE_CHECKING:
    from .program import SourceModule

TYPE_NAMES = frozenset({*DTYPES, "real"})


def resolve_file(module: SourceModule) -> list[WengertError]:
    """Every mistake of naming in a file, in order of its text."""
    resolver = _Resolver(module)
    for decl in module.file.declarations:
        resolver.declaration(decl)
    return resolver.errors


class _Resolver:
    def __init__(self, module: SourceModule) -> None:
        self.module = module
        self.errors: list[WengertError] = []
        self.globals = {*module.declarations, *BUILTIN_NAMES, *TYPE_NAMES, *DERIVED}
        for library in module.prelude:
            self.globals |= set(library.declarations)
        self.kind = "fn"

    def declaration(self, decl: s.Decl) -> None:
        match decl:
            case s.FunctionDecl():
                self.kind = decl.kind
                self.function(decl, set())
            case s.DistributionDecl():
                self.distribution(decl)
            case s.ShapeTool():
                self.shape_tool(decl)
            case s.RecordDecl(_, _, fields):
                self.unique([(f.name, f.span) for f in fields], "field")
                for f in fields:
                    self.type(f.annotation, bind=None)
            case s.ConstDecl(_, _, value, annotation):
                self.expr(value, set())
                self.type(annotation, bind=None)

    def distribution(self, decl: s.DistributionDecl) -> None:
        """A distribution: what it must have, and its methods."""
        self.methods(decl, f"the distribution '{decl.name}'", ("sample", "logpdf"))

    def shape_tool(self, decl: s.ShapeTool) -> None:
        """A primitive, transform or combinator: what it must and may have, and its methods."""
        needed, possible = TOOLS[decl.kind]
        conditions = [r.condition for r in decl.requires]
        self.methods(decl, f"the {decl.kind} '{decl.name}'", needed, conditions)
        for method in decl.methods:
            if method.name not in (*needed, *possible):
                self.errors.append(
                    UnknownName(
                        f"a {decl.kind} has no method '{method.name}'",
                        method.span,
                        expected=", ".join((*needed, *possible)),
                    )
                )

    def methods(
        self,
        decl: s.DistributionDecl | s.ShapeTool,
        what: str,
        needed: Sequence[str],
        conditions: Sequence[s.Expr] = (),
    ) -> None:
        """Parameters, and the conditions and methods that see them."""
        self.kind = "fn"
        self.unique([(p.name, p.span) for p in decl.parameters], "parameter")
        self.unique([(m.name, m.span) for m in decl.methods], "method")
        scope: set[str] = set()
        for p in decl.parameters:
            self.type(p.annotation, bind=scope)
            if p.default is not None:
                self.expr(p.default, set())
        scope |= {p.name for p in decl.parameters}
        for condition in conditions:
            self.expr(condition, scope)
        for method in decl.methods:
            self.function(method, scope)
        for name in needed:
            if decl.method(name) is None:
                self.errors.append(MissingReturn(f"{what} has no '{name}'", decl.span))

    def function(self, decl: s.FunctionDecl, outer: set[str]) -> None:
        self.unique([(p.name, p.span) for p in decl.parameters], "parameter")
        known = ("biased",) if decl.kind == "strategy" else ("jvp", "vjp")
        for decorator in decl.decorators:
            assert isinstance(decorator.function, s.Name)
            if decorator.function.name not in known:
                self.errors.append(
                    UnknownName(
                        f"no decorator is called '@{decorator.function.name}'",
                        decorator.span,
                        expected='@biased("why")'
                        if decl.kind == "strategy"
                        else "@jvp(rule) or @vjp(forward, backward)",
                    )
                )
            for argument in decorator.arguments:
                self.expr(argument.value, outer)
        scope = set(outer) | {decl.name}
        for p in decl.parameters:
            self.type(p.annotation, bind=scope)
            if p.default is not None:
                self.expr(p.default, outer)
        scope |= {p.name for p in decl.parameters}
        self.type(decl.result, bind=scope)
        self.body(decl.body, scope)
        if not returns(decl.body):
            self.errors.append(
                MissingReturn(
                    f"'{decl.name}' can end without returning a value",
                    decl.span,
                    hint="end it with: return value",
                )
            )

    def unique(self, names: Iterable[tuple[str, Span]], what: str) -> None:
        seen: set[str] = set()
        for name, span in names:
            if name in seen:
                self.errors.append(DuplicateName(f"two {what}s are called '{name}'", span))
            seen.add(name)

    def type(self, type: s.TypeExpr | None, bind: set[str] | None) -> None:
        """Check a type; bare names in its sizes are size variables, added to `bind`."""
        match type:
            case s.NamedType(span, name, sizes):
                if name not in TYPE_NAMES and name != "tree":
                    self.record_type(name, span, bind)
                for size in sizes:
                    if bind is not None:
                        bind |= set(names_of(size)) - self.globals
            case s.TupleType(_, items):
                for item in items:
                    self.type(item, bind)
            case s.StaticType(span, kind):
                if kind not in ("int", "float", "bool", "str", "fn"):
                    self.errors.append(
                        UnknownType(
                            f"nothing static is called '{kind}'",
                            span,
                            expected="static int, float, bool, str or fn",
                        )
                    )

    def record_type(self, name: str, span: Span, bind: set[str] | None) -> None:
        """Check the name of a record type; size variables of this file's go to `bind`."""
        found = find_record(self.module, name)
        if found is not None:
            if bind is not None and found[1] is self.module:
                bind |= record_sizes(*found) - self.globals
            return
        places = [("", self.module), *((f"{n}.", m) for n, m in self.module.imports.items())]
        records = [
            prefix + n
            for prefix, module in places
            for n, d in module.declarations.items()
            if isinstance(d, s.RecordDecl)
        ]
        self.errors.append(
            UnknownType(
                f"no type is called '{name}'", span, hint=suggest(name, [*TYPE_NAMES, *records])
            )
        )

    def body(self, body: tuple[s.Stmt, ...], scope: set[str]) -> None:
        for i, stmt in enumerate(body):
            self.stmt(stmt, scope)
            if returns((stmt,)) and i + 1 < len(body):
                self.errors.append(MisplacedStatement("this line can never run", body[i + 1].span))
                return

    def stmt(self, stmt: s.Stmt, scope: set[str]) -> None:
        match stmt:
            case s.Assign(_, target, value, op):
                self.expr(value, scope)
                if op is not None and isinstance(target, s.NameTarget):
                    self.name(target.name, target.span, scope)
                self.target(target, scope)
            case s.Sample(span, target, program, strategy):
                if self.kind not in s.PROGRAM_KINDS:
                    self.errors.append(
                        MisplacedStatement(
                            "only models, guides and objectives make choices",
                            span,
                            hint="declare it with: model name(...):",
                        )
                    )
                self.expr(program, scope)
                if isinstance(strategy, s.Call):  # its name is of a kind of its own
                    for argument in strategy.arguments:
                        self.expr(argument.value, scope)
                self.target(target, scope)
            case s.Return(_, value):
                self.expr(value, scope)
            case s.If(_, condition, then, orelse):
                self.expr(condition, scope)
                first, second = set(scope), set(scope)
                self.body(then, first)
                self.body(orelse, second)
                scope |= first | second
            case s.For(_, target, source, body, _):
                self.expr(source, scope)
                self.target(target, scope)
                self.body(body, scope)
            case s.While(_, condition, body, limit):
                self.expr(condition, scope)
                if limit is not None:
                    self.expr(limit, scope)
                self.body(body, scope)
            case s.Assert(_, condition, message):
                self.expr(condition, scope)
                if message is not None:
                    self.expr(message, scope)
            case s.LocalFunction(_, function):
                self.function(function, scope)
                scope.add(function.name)
            case s.Drawing(span, head, body):
                self.drawing(span)
                self.head(head, scope)
                self.body(body, set(scope))
            case s.FieldDrawing(span, point, value):
                self.drawing(span)
                self.expr(value, scope | {point})
            case s.ExprStmt(_, value) if self.kind == "shape":
                self.head(value, scope)
            case s.ExprStmt(span, _):
                self.errors.append(
                    MisplacedStatement(
                        "the value of this line is not used",
                        span,
                        hint="assign it: name = ..., or return it",
                    )
                )

    def drawing(self, span: Span) -> None:
        """A statement that draws."""
        if self.kind != "shape":
            self.errors.append(
                MisplacedStatement(
                    "only shape programs draw", span, hint="declare it with: shape name(...):"
                )
            )

    def head(self, head: s.Expr, scope: set[str]) -> None:
        """What draws: `part` is no name but a word there."""
        match head:
            case s.Call(_, s.Name(_, name), arguments) if name == PART and PART not in scope:
                for argument in arguments:
                    self.expr(argument.value, scope)
            case _:
                self.expr(head, scope)

    def target(self, target: s.Target, scope: set[str]) -> None:
        match target:
            case s.NameTarget(_, name, annotation):
                self.type(annotation, bind=None)
                scope.add(name)
            case s.TupleTarget(_, items):
                for item in items:
                    self.target(item, scope)
            case s.UpdateTarget(_, _, path):
                self.expr(path, scope)

    def expr(self, expr: s.Node | None, scope: set[str]) -> None:
        match expr:
            case s.FreshKey():
                return
            case s.Name(span, name):
                self.name(name, span, scope)
            case s.Attribute(span, s.Name(_, base), member) if (
                base in self.module.imports and base not in scope
            ):
                self.member(base, member, span)
            case s.Call():
                self.call(expr, scope)
            case s.Comprehension(_, element, generators):
                inner = set(scope)
                for g in generators:
                    self.expr(g.source, inner)
                    self.target(g.target, inner)
                self.expr(element, inner)
            case s.Lambda(_, parameters, body):
                self.expr(body, scope | {p.name for p in parameters})
            case s.RecordLiteral(_, fields):
                self.unique([(f.name, f.span) for f in fields], "field")
                for f in fields:
                    self.expr(f.value, scope)
            case s.Node():
                for child in children(expr):
                    self.expr(child, scope)

    def name(self, name: str, span: Span, scope: set[str]) -> None:
        if name not in scope and name not in self.globals:
            self.errors.append(
                UnknownName(
                    f"nothing is called '{name}' here",
                    span,
                    hint=suggest(name, [*scope, *self.globals, "true", "false"]),
                )
            )

    def member(self, base: str, member: str, span: Span) -> None:
        known = self.module.imports[base].declarations
        if member not in known:
            self.errors.append(
                UnknownName(
                    f"'{base}' declares nothing called '{member}'",
                    span,
                    hint=suggest(member, list(known)),
                )
            )

    def call(self, call: s.Call, scope: set[str]) -> None:
        self.expr(call.function, scope)
        for argument in call.arguments:
            if argument.name != "keep":  # addresses of `marginal`, not names
                self.expr(argument.value, scope)
        decl = self.callee(call.function, scope)
        if decl is None:
            return
        names = [p.name for p in decl.parameters]
        given = [a for a in call.arguments if a.name is None]
        named = [a for a in call.arguments if a.name is not None]
        for argument in named:
            if argument.name not in names:
                self.errors.append(
                    WrongArguments(
                        f"'{decl.name}' has no parameter '{argument.name}'",
                        argument.span,
                        expected=f"{decl.name}({', '.join(names)})",
                        hint=suggest(argument.name or "", names),
                    )
                )
        filled = set(names[: len(given)]) | {a.name for a in named}
        required = [p.name for p in decl.parameters if p.default is None]
        missing = [n for n in required if n not in filled]
        if len(given) > len(names) or missing:
            found = f"{len(call.arguments)} arguments"
            if missing:
                found += f", without {', '.join(missing)}"
            self.errors.append(
                WrongArguments(
                    f"'{decl.name}' does not take these arguments",
                    call.span,
                    expected=f"{decl.name}({', '.join(names)})",
                    found=found,
                )
            )

    def callee(self, function: s.Expr, scope: set[str]) -> s.FunctionDecl | None:
        """The declared function that a call names for certain, if any."""
        match function:
            case s.Name(_, name) if name not in scope:
                return self.module.function(name)
            case s.Attribute(_, s.Name(_, base), member) if (
                base in self.module.imports and base not in scope
            ):
                return self.module.imports[base].function(member)
        return None
