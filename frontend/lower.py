"""Statements to IR: a `Lowering` writes the ops of one block.

Branches and loops lower their bodies with Lowerings of their own, over a copy of the names;
what was rebound comes back as results. After an error the names that a statement would have
set are poisoned, and lowering goes on, so that several errors are found in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Block, Value
from ..ir.errors import IRError, WengertError
from ..ir.span import Span
from ..ir.types import TensorType
from . import calls, expressions, shapes
from . import syntax as s
from .arithmetic import Arithmetic, SizedBuilder
from .branches import condition, lower_if
from .draws import Draws
from .indexing import add_at
from .loop_statements import lower_for, lower_while
from .operators import binary
from .programs import lower_sample
from .scopes import assigned, has_return, target_names
from .signatures import annotated
from .type_errors import AssertionFailed, IndexMistake, Poisoned, StaticNeeded, TypeMistake
from .values import (
    Closure,
    Record,
    Staged,
    Static,
    Tensor,
    Tuple,
    Unbound,
    describe,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .program import SourceModule
    from .session import Session

Env = dict[str, Staged]
MOST_UNPACKED = 64


class Lowering:
    """Lowers code of one source file into `block`, with names in `env`.

    b: the builder; a: arithmetic over it; module: the file that names are looked up in;
    copies: how many copies of this code early returns have made; kind: of the function it is in
    ("fn", "model"...); draws: the keys of random choices, None where none can be made; point: the
    type of the points of a shape program, None where nothing can be drawn.
    """

    def __init__(self, session: Session, module: SourceModule, env: Env, block: Block) -> None:
        self.copies = 1
        self.session = session
        self.module = module
        self.env = env
        self.b = SizedBuilder(block)
        self.a = Arithmetic(self.b, session.real)
        self.kind = "fn"
        self.draws: Draws | None = None
        self.point: TensorType | None = None

    def inner(self, block: Block) -> Lowering:
        """A Lowering of a region of this block, over a copy of the names."""
        low = Lowering(self.session, self.module, dict(self.env), block)
        low.b.span = self.b.span
        low.copies = self.copies
        low.kind = self.kind
        low.draws = self.draws.branch() if self.draws else None
        low.point = self.point
        low.a.lenient = self.a.lenient
        return low

    def elsewhere(self, module: SourceModule, env: Env, block: Block | None = None) -> Lowering:
        """A Lowering into this block (or another) of code with names of its own."""
        low = Lowering(self.session, module, env, block or self.b.block)
        low.b.span = self.b.span
        low.kind, low.draws, low.point = self.kind, self.draws, self.point
        low.a.lenient = self.a.lenient and module is self.module
        return low

    # What other modules do for it

    def expr(self, expr: s.Expr) -> Staged:
        """The value of an expression."""
        return expressions.evaluate(self, expr)

    def apply(
        self, function: Staged, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """`function(*args, **named)` on staged values."""
        return calls.apply(self, function, args, named, span)

    def condition(self, value: Staged, span: Span) -> Value:
        """A run-time condition as a bool scalar."""
        return condition(value, span)

    def stack(self, items: Sequence[Staged], span: Span) -> Staged:
        """Values of one structure stacked along a new first axis."""
        return expressions.stack(self, items, span)

    def rows(self, value: Tensor, span: Span) -> list[Staged]:
        """The elements of an array along its first axis."""
        return expressions.rows(self, value, span)

    def is_builtin(self, name: str) -> bool:
        """Whether `name` is a builtin function or a type."""
        return expressions.is_builtin(name)

    def each(self, value: Staged, change: Callable[[Value], Value]) -> Staged:
        """`value` with every array changed."""
        return rebuild(value, iter([change(t.value) for t in tensors(value)]))

    # Statements

    def returned(self, body: Sequence[s.Stmt], name: str, span: Span) -> Staged:
        """The value that a function body returns."""
        result = self.body(body)
        if result is None:
            raise TypeMistake(f"'{name}' can end without returning a value", span)
        return result

    def body(self, body: Sequence[s.Stmt]) -> Staged | None:
        """Lower statements in order; the returned value, or None where control falls through.

        Errors are reported to the session. Raises Poisoned where one hits the returned value.
        """
        for at, stmt in enumerate(body):
            self.b.span = stmt.span
            try:
                match stmt:
                    case s.Return(_, value):
                        return self.expr(value)
                    case s.If():
                        done, result = lower_if(self, stmt, body, at)
                        if done:
                            return result
                    case _:
                        self.statement(stmt)
            except Poisoned:
                self._poison(stmt)
            except WengertError as error:
                self.session.report(_explained(error, stmt.span))
                self._poison(stmt)
        return None

    def _poison(self, stmt: s.Stmt) -> None:
        """Leave what a failed statement would have set undefined; a `return` has no way on."""
        if has_return([stmt]):
            raise Poisoned
        self.env.update({name: Unbound() for name in assigned([stmt])})

    def statement(self, stmt: s.Stmt) -> None:
        """Lower a statement that neither returns nor branches."""
        match stmt:
            case s.Assign(span, target, value, None):
                self.assign(target, self.expr(value), span)
            case s.Assign():
                self._augmented(stmt)
            case s.For():
                lower_for(self, stmt)
            case s.While():
                lower_while(self, stmt)
            case s.Assert():
                self._assert(stmt)
            case s.Sample():
                lower_sample(self, stmt)
            case s.Drawing():
                shapes.lower_drawing(self, stmt)
            case s.FieldDrawing():
                shapes.lower_field(self, stmt)
            case s.ExprStmt():
                shapes.lower_draw(self, stmt)
            case s.LocalFunction(span, f):
                env = dict(self.env)
                closure = Closure(f.name, f.parameters, f.result, f.body, env, self.module, span)
                env[f.name] = self.env[f.name] = closure

    def _assert(self, stmt: s.Assert) -> None:
        """A check when compiling."""
        test = self.expr(stmt.condition)
        if not isinstance(test, Static):
            raise StaticNeeded(
                "assert checks what is known when compiling",
                stmt.condition.span,
                found=describe(test),
            )
        if not self.a.static_bool(test, stmt.condition.span, "the condition of an assert"):
            message = self.expr(stmt.message) if stmt.message else Static("the assertion fails")
            text = message.value if isinstance(message, Static) else describe(message)
            raise AssertionFailed(str(text), stmt.span)

    # Assignment

    def assign(self, target: s.Target, value: Staged, span: Span) -> None:
        """Bind `target` to `value`."""
        match target:
            case s.NameTarget(_, name, annotation):
                if annotation is not None:
                    value = annotated(self, value, annotation, self.env, name, span)
                if isinstance(value, Tensor) and not value.value.name:
                    value.value.name = name
                self.env[name] = value
            case s.TupleTarget(_, items):
                parts = self.unpack(value, len(items), span)
                for item, part in zip(items, parts):
                    self.assign(item, part, span)
            case s.UpdateTarget(_, root, path):
                new = self.updated(path, value, span)
                if isinstance(new, Tensor) and not new.value.name:
                    new.value.name = root
                self.env[root] = new

    def _augmented(self, stmt: s.Assign) -> None:
        """`target op= value`; at index arrays `+=` and `-=` add up equal indices."""
        span, target = stmt.span, stmt.target
        assert stmt.op is not None
        if isinstance(target, s.UpdateTarget) and isinstance(target.path, s.Subscript):
            new = self._scattered(target.path, stmt)
            if new is not None:
                path = target.path.value
                nested = isinstance(path, s.Subscript | s.Attribute)
                self.env[target.root] = self.updated(path, new, span) if nested else new
                return
        if isinstance(target, s.TupleTarget):
            raise TypeMistake("several names cannot be updated at once", target.span)
        name = target_names(target)[0]
        old = self.expr(
            target.path if isinstance(target, s.UpdateTarget) else s.Name(target.span, name)
        )
        value = self.expr(stmt.value)
        self.b.span = span
        self.assign(target, binary(self.a, stmt.op, old, value, span), span)

    def _scattered(self, path: s.Subscript, stmt: s.Assign) -> Staged | None:
        """The array after `x[index array] += value`; None where no index is an array."""
        base = self.expr(path.value)
        if not isinstance(base, Tensor):
            return None
        written = len(self.b.block.ops)
        steps = expressions.index_steps(self, base.type, path.indices, path.span)
        if not expressions.gathers(steps):
            del self.b.block.ops[written:]  # the plain way writes them again
            return None
        if stmt.op not in ("+", "-"):
            raise IndexMistake(
                f"'{stmt.op}=' at an index array has no one meaning",
                stmt.span,
                hint="only += and -= do: equal indices add up",
            )
        old, value = self.a.promote([base, self.expr(stmt.value)], stmt.span, f"'{stmt.op}='")
        self.b.span = stmt.span
        update = self.b.neg(value) if stmt.op == "-" else value
        return Tensor(add_at(self.a, old, steps, update, stmt.span))

    def unpack(self, value: Staged, count: int, span: Span) -> Sequence[Staged]:
        """The parts of a tuple, or the rows of an array."""
        if isinstance(value, Tuple):
            parts: Sequence[Staged] = value.items
        elif isinstance(value, Tensor) and value.type.rank and value.type.shape[0] <= MOST_UNPACKED:
            parts = self.rows(value, span) if value.type.shape[0] == count else ()
            if value.type.shape[0] != count:
                parts = [value] * value.type.shape[0]
        else:
            raise TypeMistake("this cannot be unpacked", span, found=describe(value))
        if len(parts) != count:
            raise TypeMistake(
                "the number of names does not match",
                span,
                expected=f"{len(parts)} names for {describe(value)}",
                found=f"{count} names",
            )
        return parts

    def updated(self, path: s.Expr, value: Staged, span: Span) -> Staged:
        """The root value of `path` with the place at the end of `path` replaced."""
        assert isinstance(path, s.Attribute | s.Subscript)
        old = self.expr(path.value)
        new: Staged
        if isinstance(path, s.Attribute):
            if not isinstance(old, Record) or path.name not in old.fields:
                raise TypeMistake(
                    f"there is no field '{path.name}' to set", path.span, found=describe(old)
                )
            new = Record(old.name, old.fields | {path.name: value})
        else:
            new = expressions.write_index(self, old, path, value, span)
        if isinstance(path.value, s.Subscript | s.Attribute):
            return self.updated(path.value, new, span)
        return new


def _explained(error: WengertError, span: Span) -> WengertError:
    """An op's own complaint as one about the program."""
    if isinstance(error, IRError):
        return TypeMistake(error.summary, error.span or span)
    return error
