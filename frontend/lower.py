"""Statements to IR: blocks, branches, loops, assignments.

A `Lowering` writes ops into one block. Branches and loops lower their bodies into regions
with a Lowering of their own, over a copy of the names; what was rebound comes back as results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Block, Value
from ..ir.errors import IRError
from ..ir.span import Span
from ..ir.types import BOOL, I32, TensorType
from . import syntax as s
from .arithmetic import Arithmetic
from .expressions import Expressions
from .resolve import returns
from .values import (
    Closure,
    Record,
    Staged,
    Static,
    StaticNeeded,
    Tensor,
    Tuple,
    TypeMistake,
    Unbound,
    describe,
    is_function,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .program import SourceModule
    from .session import Session

Env = dict[str, Staged]


class Lowering(Expressions):
    """Lowers statements of one function body into `block`, with names in `env`."""

    def __init__(
        self, session: Session, module: SourceModule, env: Env, block: Block, in_loop: bool = False
    ) -> None:
        self.session = session
        self.module = module
        self.env = env
        self.b = Builder(block)
        self.a = Arithmetic(self.b, session.real)
        self.in_loop = in_loop

    def inner(self, block: Block, *, in_loop: bool = False) -> Lowering:
        """A Lowering of a region of this block, over a copy of the names."""
        return Lowering(
            self.session, self.module, dict(self.env), block, self.in_loop or in_loop
        )

    def body(self, body: Sequence[s.Stmt]) -> Staged | None:
        """Lower statements in order; the returned value, or None where control falls through."""
        for i, stmt in enumerate(body):
            self.b.span = stmt.span
            try:
                if isinstance(stmt, s.Return):
                    return self.return_(stmt)
                if isinstance(stmt, s.If):
                    done, value = self.if_(stmt, body[i + 1 :])
                    if done:
                        return value
                else:
                    self.statement(stmt)
            except IRError as error:
                raise TypeMistake(error.summary, error.span or stmt.span) from None
        return None

    def return_(self, stmt: s.Return) -> Staged:
        """The value of a `return`."""
        if self.in_loop:
            raise TypeMistake(
                "a run-time loop cannot be left by 'return'",
                stmt.span,
                hint="assign the result to a name and return it after the loop",
            )
        return self.expr(stmt.value)

    def statement(self, stmt: s.Stmt) -> None:
        """Lower a statement that neither returns nor branches."""
        match stmt:
            case s.Assign(span, target, value, None):
                self.assign(target, self.expr(value, _hint(target)), span)
            case s.Assign(span, target, value, op):
                assert op is not None
                old = self.expr(_as_expr(target))
                self.assign(target, self.a.binary(op, old, self.expr(value), span), span)
            case s.For():
                self.for_(stmt)
            case s.While():
                self.while_(stmt)
            case s.Assert():
                self.assert_(stmt)
            case s.LocalFunction(span, f):
                closure = Closure(f.name, f.parameters, f.body, self.env, self.module, span)
                self.env[f.name] = closure

    def assert_(self, stmt: s.Assert) -> None:
        """A compile-time check."""
        condition = self.expr(stmt.condition)
        if not isinstance(condition, Static):
            raise StaticNeeded("assert checks what is known when compiling", stmt.condition.span)
        if not condition.value:
            message = self.expr(stmt.message) if stmt.message else Static("assertion failed")
            raise TypeMistake(str(message.value if isinstance(message, Static) else ""), stmt.span)

    # Assignment

    def assign(self, target: s.Target, value: Staged, span: Span) -> None:
        """Bind `target` to `value`."""
        match target:
            case s.NameTarget(_, name, annotation):
                if annotation is not None:
                    value = self.session.coerce(self, value, annotation, self.env, span)
                if isinstance(value, Tensor) and not value.value.name:
                    value.value.name = name
                self.env[name] = value
            case s.TupleTarget(_, items):
                parts = self.unpack(value, len(items), span)
                for item, part in zip(items, parts):
                    self.assign(item, part, span)
            case s.UpdateTarget(_, root, path):
                assert isinstance(path, s.Subscript | s.Attribute)
                self.env[root] = self.updated(path, value, span)

    def unpack(self, value: Staged, count: int, span: Span) -> Sequence[Staged]:
        """The parts of a tuple, or the rows of an array."""
        if isinstance(value, Tuple):
            parts: Sequence[Staged] = value.items
        elif isinstance(value, Tensor) and value.type.rank and value.type.shape[0] <= 64:
            parts = [self.index_value(value, [Static(i)], span) for i in range(value.type.shape[0])]
        else:
            raise TypeMistake("this cannot be unpacked", span, found=describe(value))
        if len(parts) != count:
            raise TypeMistake(
                "the number of names does not match", span, expected=str(len(parts)), found=str(count)
            )
        return parts

    def updated(self, path: s.Subscript | s.Attribute, value: Staged, span: Span) -> Staged:
        """The root value of `path` with the place at the end of `path` replaced."""
        old = self.expr(path.value)
        new: Staged
        if isinstance(path, s.Attribute):
            if not isinstance(old, Record) or path.name not in old.fields:
                raise TypeMistake(f"there is no field '{path.name}' to set", path.span, found=describe(old))
            new = Record(old.name, old.fields | {path.name: value})
        else:
            new = self.write_index(old, path, value, span)
        if isinstance(path.value, s.Subscript | s.Attribute):
            return self.updated(path.value, new, span)
        return new

    # Branches

    def if_(self, stmt: s.If, rest: Sequence[s.Stmt]) -> tuple[bool, Staged | None]:
        """Lower an `if`; (True, value) where it used up the rest of the body."""
        condition = self.expr(stmt.condition)
        if isinstance(condition, Static):
            chosen = stmt.body if condition.value else stmt.orelse
            if has_return(chosen):
                return True, self.body([*chosen, *rest])
            self.body(chosen)
            return False, None
        test = self.condition(condition, stmt.condition.span)
        if has_return(stmt.body) or has_return(stmt.orelse):
            return True, self.returning_if(stmt, rest, test)
        self.rebinding_if(stmt, test)
        return False, None

    def condition(self, value: Staged, span: Span) -> Value:
        """A run-time condition as a bool scalar."""
        if isinstance(value, Tensor) and value.type == TensorType(BOOL):
            return value.value
        raise TypeMistake(
            "a condition must be one bool",
            span,
            found=describe(value),
            hint="use where(mask, a, b), any(...) or all(...) for arrays",
        )

    def returning_if(self, stmt: s.If, rest: Sequence[s.Stmt], test: Value) -> Staged:
        """An `if` that returns: what follows it goes into the branches that fall through."""
        first = list(stmt.body) if returns(stmt.body) else [*stmt.body, *rest]
        second = list(stmt.orelse) if returns(stmt.orelse) else [*stmt.orelse, *rest]
        blocks = (Block(), Block())
        lowerings = [self.inner(block) for block in blocks]
        values = [low.body(part) for low, part in zip(lowerings, (first, second))]
        if values[0] is None or values[1] is None:
            raise TypeMistake("only one branch returns a value", stmt.span)
        return self.join(lowerings, blocks, [values[0]], [values[1]], test, stmt.span, ["result"])[0]

    def rebinding_if(self, stmt: s.If, test: Value) -> None:
        """An `if` whose branches rebind names."""
        blocks = (Block(), Block())
        lowerings = [self.inner(block) for block in blocks]
        lowerings[0].body(stmt.body)
        lowerings[1].body(stmt.orelse)
        names: list[str] = []
        for name in dict.fromkeys([*lowerings[0].env, *lowerings[1].env]):
            first, second = (low.env.get(name) for low in lowerings)
            if first is second:
                continue
            if first is None or second is None or isinstance(first, Unbound) or isinstance(second, Unbound):
                self.env[name] = Unbound(f"only one branch of the 'if' at line {stmt.span.line} sets it")
            elif is_function(first) or is_function(second):
                self.env[name] = Unbound("it is another function in each branch")
            else:
                names.append(name)
        values = [[low.env[n] for n in names] for low in lowerings]
        out = self.join(lowerings, blocks, values[0], values[1], test, stmt.span, names)
        self.env.update(zip(names, out))

    def join(
        self,
        lowerings: Sequence[Lowering],
        blocks: tuple[Block, Block],
        first: Sequence[Staged],
        second: Sequence[Staged],
        test: Value,
        span: Span,
        names: Sequence[str],
    ) -> list[Staged]:
        """Finish an `if`: values of both branches made of one type and yielded."""
        joined = [
            self.unify(lowerings, x, y, span, name) for x, y, name in zip(first, second, names)
        ]
        for block, side in zip(blocks, (0, 1)):
            block.results = [t.value for pair in joined for t in tensors(pair[side])]
        self.b.span = span
        results = iter(self.b.op("if", [test], list(blocks)))
        return [rebuild(pair[0], results) for pair in joined]

    def unify(
        self, lowerings: Sequence[Lowering], x: Staged, y: Staged, span: Span, name: str
    ) -> tuple[Staged, Staged]:
        """Both branches' values of a name with one structure and type."""
        if isinstance(x, Static) and isinstance(y, Static) and key_equal(x, y):
            return x, y
        if isinstance(x, Tuple) and isinstance(y, Tuple) and len(x.items) == len(y.items):
            parts = [self.unify(lowerings, i, j, span, name) for i, j in zip(x.items, y.items)]
            return Tuple(tuple(p[0] for p in parts)), Tuple(tuple(p[1] for p in parts))
        if isinstance(x, Record) and isinstance(y, Record) and list(x.fields) == list(y.fields):
            pairs = {
                k: self.unify(lowerings, x.fields[k], y.fields[k], span, f"{name}.{k}")
                for k in x.fields
            }
            return (
                Record(x.name, {k: p[0] for k, p in pairs.items()}),
                Record(y.name, {k: p[1] for k, p in pairs.items()}),
            )
        if isinstance(x, Tensor | Static) and isinstance(y, Tensor | Static):
            dtype = None
            dtypes = [v.type.dtype for v in (x, y) if isinstance(v, Tensor)]
            if len(dtypes) < 2:
                dtype = self.a.common_dtype(dtypes, [x, y], span, f"'{name}'")
            a = lowerings[0].a.tensor(x, span, dtype)
            b = lowerings[1].a.tensor(y, span, dtype)
            if isinstance(x, Static) and a.type != b.type:
                a = lowerings[0].b.expand(a, self.a.type(b).shape)
            if isinstance(y, Static) and a.type != b.type:
                b = lowerings[1].b.expand(b, self.a.type(a).shape)
            if a.type == b.type:
                return Tensor(a), Tensor(b)
        raise TypeMistake(
            f"'{name}' has another type in each branch",
            span,
            found=f"{describe(x)} and {describe(y)}",
        )

    # Loops

    def for_(self, stmt: s.For) -> None:
        """A `for` statement."""
        if isinstance(stmt.source, s.Range):
            start, stop = self.expr(stmt.source.start), self.expr(stmt.source.stop)
            if isinstance(start, Static) and isinstance(stop, Static):
                low = self.a.static_int(start, stmt.source.start.span, "the start of a range")
                high = self.a.static_int(stop, stmt.source.stop.span, "the end of a range")
                self.counted(stmt, low, max(0, high - low), None)
            else:
                self.dynamic_range(stmt, start, stop)
            return
        source = self.expr(stmt.source)
        if isinstance(source, Tuple):
            for item in source.items:
                self.assign(stmt.target, item, stmt.span)
                self.body(stmt.body)
            return
        self.counted(stmt, 0, self.length(source, stmt.source.span), source)

    def length(self, value: Staged, span: Span) -> int:
        """The common first size of the arrays of `value`, to iterate over."""
        sizes = {t.type.shape[0] if t.type.rank else -1 for t in tensors(value)}
        if len(sizes) != 1 or -1 in sizes:
            raise TypeMistake("this cannot be iterated over", span, found=describe(value))
        return sizes.pop()

    def counted(self, stmt: s.For, low: int, trips: int, source: Staged | None) -> None:
        """A `for` with a known number of trips, over a range or the rows of arrays."""
        names = [n for n in assigned(stmt.body) if n in self.env and self.carried(n)]
        streams = [t.value for t in tensors(source)] if source is not None else []
        carries: list[Staged] = [self.env[n] for n in names]
        for _ in range(4):
            starts = [self.a.materialise(c, stmt.span) for c in carries]
            block, low_ = self._loop_block(starts, names, streams, stmt, low, source)
            low_.body(stmt.body)
            ends = [low_.env[n] for n in names]
            again = self._strengthen(starts, ends, carries, names, stmt.span, low_)
            if again is None:
                break
            carries = again
        inits = [t.value for c in starts for t in tensors(c)]
        out = self.b.op(
            "for",
            [*inits, *streams],
            [block],
            trips=trips,
            carries=len(inits),
            checkpoint="" if stmt.checkpoint == "all" else stmt.checkpoint,
        )
        self._after_loop(names, starts, out, low_, stmt.span.line)

    def carried(self, name: str) -> bool:
        """Whether a name can be carried by a loop: it has a run-time form."""
        value = self.env[name]
        return not isinstance(value, Unbound) and not is_function(value)

    def _loop_block(
        self,
        starts: Sequence[Staged],
        names: Sequence[str],
        streams: Sequence[Value],
        stmt: s.For,
        low: int,
        source: Staged | None,
    ) -> tuple[Block, Lowering]:
        """The body block of a loop, with names bound to its parameters."""
        index = Value(TensorType(I32), "i")
        params = [Value(t.type, n) for n, c in zip(names, starts) for t in tensors(c)]
        rows = [Value(self.a.type(v).with_shape(self.a.type(v).shape[1:]), "row") for v in streams]
        block = Block([index, *params, *rows])
        inner = self.inner(block, in_loop=True)
        inner.b.span = stmt.span
        values = iter(params)
        for name, start in zip(names, starts):
            inner.env[name] = rebuild(start, values)
        element: Staged = Tensor(index)
        if source is not None:
            element = rebuild(source, iter(rows))
        elif low:
            element = Tensor(inner.b.add(index, inner.b.const(low, I32)))
        inner.assign(stmt.target, element, stmt.span)
        return block, inner

    def _strengthen(
        self,
        starts: Sequence[Staged],
        ends: Sequence[Staged],
        given: Sequence[Staged],
        names: Sequence[str],
        span: Span,
        inner: Lowering,
    ) -> list[Staged] | None:
        """Close the loop: None if the carried types are stable (the block then yields them).

        Else the initial values to try again with: a static number takes the type that the body
        gives its name.
        """
        again: list[Staged] = []
        stable = True
        results: list[Value] = []
        for start, end, first, name in zip(starts, ends, given, names):
            new, outs = self._strengthen_one(start, end, first, name, span, inner)
            again.append(new)
            stable = stable and new is first
            results += outs
        inner.b.block.results = results
        return None if stable else again

    def _strengthen_one(
        self, start: Staged, end: Staged, first: Staged, name: str, span: Span, inner: Lowering
    ) -> tuple[Staged, list[Value]]:
        if isinstance(start, Tensor) and isinstance(end, Tensor | Static):
            out = inner.a.tensor(end, span, start.type.dtype if isinstance(end, Static) else None)
            if out.type == start.type:
                return first, [out]
            if isinstance(end, Static) and self.a.type(out).dtype is start.type.dtype:
                return first, [inner.b.expand(out, start.type.shape)]
            if isinstance(first, Static):
                wanted = self.a.type(out)
                constant = self.a.constant(first.value, wanted.dtype, span)
                return Tensor(self.b.expand(constant, wanted.shape)), []
        if isinstance(start, Tuple) and isinstance(end, Tuple) and isinstance(first, Tuple) and len(start.items) == len(end.items):
            parts = [
                self._strengthen_one(x, y, z, name, span, inner)
                for x, y, z in zip(start.items, end.items, first.items)
            ]
            outs = [v for p in parts for v in p[1]]
            if all(p[0] is z for p, z in zip(parts, first.items)):
                return first, outs
            return Tuple(tuple(p[0] for p in parts)), outs
        if isinstance(start, Record) and isinstance(end, Record) and isinstance(first, Record) and list(start.fields) == list(end.fields):
            found = {
                k: self._strengthen_one(start.fields[k], end.fields[k], first.fields[k], f"{name}.{k}", span, inner)
                for k in start.fields
            }
            outs = [v for p in found.values() for v in p[1]]
            if all(found[k][0] is first.fields[k] for k in found):
                return first, outs
            return Record(first.name, {k: p[0] for k, p in found.items()}), outs
        raise TypeMistake(
            f"'{name}' changes its type in the loop",
            span,
            expected=describe(start),
            found=describe(end),
            hint="give it its final shape and type before the loop",
        )

    def _after_loop(
        self, names: Sequence[str], starts: Sequence[Staged], out: Sequence[Value], inner: Lowering, line: int
    ) -> None:
        """Bind carried names to the loop's results; names first set inside are gone."""
        values = iter(out)
        for name in inner.env:
            if name not in self.env:
                self.env[name] = Unbound(f"it is only set inside the loop at line {line}")
        for name, start in zip(names, starts):
            self.env[name] = rebuild(start, values)

    def dynamic_range(self, stmt: s.For, start: Staged, stop: Staged) -> None:
        """A `for` whose bounds are run-time values: a `while` that counts."""
        assert isinstance(stmt.source, s.Range)
        span = stmt.span
        counter = f" i{span.line}"
        limit = self.a.tensor(stop, stmt.source.stop.span, I32)
        self.env[counter] = Tensor(self.a.tensor(start, stmt.source.start.span, I32))
        end = f" n{span.line}"
        self.env[end] = Tensor(limit)
        step = s.Assign(span, s.NameTarget(span, counter), s.Binary(span, "+", s.Name(span, counter), s.Number(span, 1)))
        first = s.Assign(span, stmt.target, s.Name(span, counter))
        test = s.Binary(span, "<", s.Name(span, counter), s.Name(span, end))
        self.while_(s.While(span, test, (first, *stmt.body, step)))
        del self.env[counter], self.env[end]

    def while_(self, stmt: s.While) -> None:
        """A `while` statement; its condition must depend on run-time values."""
        limit = 0
        if stmt.max_trips is not None:
            limit = self.a.static_int(self.expr(stmt.max_trips), stmt.max_trips.span, "the bound after 'max'")
            if limit <= 0:
                raise TypeMistake("the bound after 'max' must be positive", stmt.max_trips.span)
        names = [n for n in assigned(stmt.body) if n in self.env and self.carried(n)]
        carries: list[Staged] = [self.env[n] for n in names]
        for _ in range(4):
            starts = [self.a.materialise(c, stmt.span) for c in carries]
            block, inner = self._while_block(names, starts)
            inner.b.span = stmt.span
            inner.body(stmt.body)
            ends = [inner.env[n] for n in names]
            again = self._strengthen(starts, ends, carries, names, stmt.span, inner)
            if again is None:
                break
            carries = again
        test_block, test = self._while_block(names, starts)
        condition = test.expr(stmt.condition)
        test_block.results = [test.a.tensor(condition, stmt.condition.span)] if isinstance(condition, Static) else [test.condition(condition, stmt.condition.span)]
        inits = [t.value for c in starts for t in tensors(c)]
        self.b.span = stmt.span
        out = self.b.op("while", inits, [test_block, block], max_trips=limit)
        self._after_loop(names, starts, out, inner, stmt.span.line)

    def _while_block(self, names: Sequence[str], starts: Sequence[Staged]) -> tuple[Block, Lowering]:
        params = [Value(t.type, n) for n, c in zip(names, starts) for t in tensors(c)]
        block = Block(params)
        inner = self.inner(block, in_loop=True)
        values = iter(params)
        for name, start in zip(names, starts):
            inner.env[name] = rebuild(start, values)
        return block, inner


def key_equal(x: Static, y: Static) -> bool:
    """Whether two static values are the same, type included (1 is not 1.0 or true)."""
    return type(x.value) is type(y.value) and bool(x.value == y.value)


def has_return(body: Sequence[s.Stmt]) -> bool:
    """Whether `body` holds a `return` outside loops."""
    return any(
        isinstance(stmt, s.Return)
        or (isinstance(stmt, s.If) and (has_return(stmt.body) or has_return(stmt.orelse)))
        for stmt in body
    )


def assigned(body: Sequence[s.Stmt]) -> list[str]:
    """Names that `body` binds, in order, without those of nested functions."""
    names: dict[str, None] = {}

    def target(node: s.Target) -> None:
        match node:
            case s.NameTarget(_, name):
                names[name] = None
            case s.TupleTarget(_, items):
                for item in items:
                    target(item)
            case s.UpdateTarget(_, root):
                names[root] = None

    for stmt in body:
        match stmt:
            case s.Assign(_, node):
                target(node)
            case s.If(_, _, then, orelse):
                names |= dict.fromkeys([*assigned(then), *assigned(orelse)])
            case s.For(_, node, _, inside):
                target(node)
                names |= dict.fromkeys(assigned(inside))
            case s.While(_, _, inside):
                names |= dict.fromkeys(assigned(inside))
    return list(names)


def _hint(target: s.Target) -> str:
    return target.name if isinstance(target, s.NameTarget) else ""


def _as_expr(target: s.Target) -> Any:
    match target:
        case s.NameTarget(span, name):
            return s.Name(span, name)
        case s.UpdateTarget(_, _, path):
            return path
    raise TypeMistake("several names cannot be updated at once", target.span)
