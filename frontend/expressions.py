"""Expressions to staged values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Block, Value
from ..ir.span import Span
from ..ir.types import DTYPES, I32, TensorType
from . import syntax as s
from .arithmetic import Arithmetic
from .builtin_table import BUILTINS, CONSTANTS
from .indexing import NEW_AXIS, Cut, Step, index_step, read, slice_step, write
from .values import (
    Builtin,
    Closure,
    ModuleRef,
    Partial,
    Record,
    RecordType,
    Staged,
    Static,
    Tensor,
    Tuple,
    TypeMistake,
    Unbound,
    UnboundName,
    UserFunction,
    describe,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .program import SourceModule
    from .session import Session


class Expressions:
    """The expression half of a Lowering."""

    session: Session
    module: SourceModule
    env: dict[str, Staged]
    b: Builder
    a: Arithmetic

    def inner(self, block: Block, *, in_loop: bool = False) -> Any:
        """A Lowering of a region; see `Lowering.inner`."""
        raise NotImplementedError

    def expr(self, expr: s.Expr, name: str = "") -> Staged:
        """The value of an expression; `name` is a hint for the value it defines."""
        self.b.span = expr.span
        match expr:
            case s.Number(_, value) | s.Bool(_, value) | s.String(_, value):
                return Static(value)
            case s.Name(span, text):
                return self.name(text, span)
            case s.Binary(span, op, left, right):
                x, y = self.expr(left), self.expr(right)
                self.b.span = span
                return self.a.binary(op, x, y, span)
            case s.Unary(span, op, operand):
                return self.a.unary(op, self.expr(operand), span)
            case s.Call():
                return self.call(expr)
            case s.Subscript():
                return self.subscript(expr)
            case s.Attribute():
                return self.attribute(expr)
            case s.Conditional():
                return self.conditional(expr)
            case s.TupleLiteral(_, items):
                return Tuple(tuple(self.expr(i) for i in items))
            case s.ListLiteral():
                return self.list_literal(expr)
            case s.RecordLiteral(_, fields):
                return Record("", {f.name: self.expr(f.value) for f in fields})
            case s.Comprehension(span, element, generators):
                return self.comprehension(element, list(generators), span)
            case s.Lambda(span, parameters, body):
                return Closure("lambda", parameters, body, self.env, self.module, span)
        raise TypeMistake("this has no value here", expr.span, hint="a range belongs after 'in'")

    def name(self, name: str, span: Span) -> Staged:
        """What a name denotes: a local, a declaration, or a builtin."""
        found = self.env.get(name)
        if found is not None:
            if isinstance(found, Unbound):
                raise UnboundName(f"'{name}' may have no value here", span, found=found.reason)
            return found
        declared = self.module.declarations.get(name)
        if declared is not None:
            return self.session.declared(self, self.module, declared, span)
        if name in CONSTANTS:
            return Static(CONSTANTS[name])
        if name in BUILTINS or name in DTYPES or name == "real":
            return Builtin(name)
        raise UnboundName(f"'{name}' has no value here", span)

    def attribute(self, expr: s.Attribute) -> Staged:
        """`record.field`, `module.member`, `array.T`, `array.shape`."""
        value = self.expr(expr.value)
        match value:
            case Record(_, fields) if expr.name in fields:
                return fields[expr.name]
            case ModuleRef(module):
                return self.session.declared(self, module, module.declarations[expr.name], expr.span)
            case Tensor(v) if expr.name == "T":
                return Tensor(self.b.transpose(v, perm=tuple(reversed(range(value.type.rank)))))
            case Tensor() if expr.name == "shape":
                return Tuple(tuple(Static(n) for n in value.type.shape))
        known = ", ".join(value.fields) if isinstance(value, Record) else "T, shape"
        raise TypeMistake(
            f"there is no '{expr.name}' here", expr.span, expected=known, found=describe(value)
        )

    def conditional(self, expr: s.Conditional) -> Staged:
        """`a if c else b`: an `if` op for a scalar condition, `select` is `where`."""
        condition = self.expr(expr.condition)
        if isinstance(condition, Static):
            return self.expr(expr.then if condition.value else expr.other)
        low: Any = self
        test = low.condition(condition, expr.condition.span)
        blocks = (Block(), Block())
        inner = [self.inner(block) for block in blocks]
        values = [i.expr(e) for i, e in zip(inner, (expr.then, expr.other))]
        out = low.join(inner, blocks, [values[0]], [values[1]], test, expr.span, ["value"])
        return out[0]  # type: ignore[no-any-return]

    def list_literal(self, expr: s.ListLiteral) -> Staged:
        """`[a, b]`: items stacked along a new first axis."""
        items = [self.expr(i) for i in expr.items]
        if not items:
            raise TypeMistake("an empty list has no type", expr.span, hint="use zeros((0,))")
        return self.stack(items, expr.span)

    def stack(self, items: Sequence[Staged], span: Span) -> Staged:
        """Values of one structure stacked along a new first axis."""
        first = items[0]
        if isinstance(first, Tuple):
            rows = [i.items for i in items if isinstance(i, Tuple)]
            return Tuple(tuple(self.stack(column, span) for column in zip(*rows, strict=True)))
        if isinstance(first, Record):
            if not all(isinstance(i, Record) and list(i.fields) == list(first.fields) for i in items):
                raise TypeMistake("the records of a list have other fields", span)
            return Record(
                first.name,
                {k: self.stack([i.fields[k] for i in items if isinstance(i, Record)], span) for k in first.fields},
            )
        self.b.span = span
        values = self.a.promote(items, span, "a list")
        values = self.a.broadcast(values, span, "a list")
        shape = self.a.type(values[0]).shape
        rows_ = [self.b.reshape(v, shape=(1, *shape)) for v in values]
        return Tensor(self.b.concatenate(*rows_, axis=0) if len(rows_) > 1 else rows_[0])

    def comprehension(
        self, element: s.Expr, generators: list[s.Generator], span: Span
    ) -> Staged:
        """`[element for ...]`: a `for` op without carries, one nested in the other."""
        generator, *rest = generators
        source, low, trips = self._generator(generator)
        streams = [t.value for t in tensors(source)] if source is not None else []
        index = Value(TensorType(I32), "i")
        rows = [Value(self.a.type(v).with_shape(self.a.type(v).shape[1:]), "row") for v in streams]
        block = Block([index, *rows])
        inner = self.inner(block, in_loop=True)
        inner.b.span = span
        bound: Staged = Tensor(index)
        if source is not None:
            bound = rebuild(source, iter(rows))
        elif low:
            bound = Tensor(inner.b.add(index, inner.b.const(low, I32)))
        inner.assign(generator.target, bound, generator.span)
        value = inner.comprehension(element, rest, span) if rest else inner.expr(element)
        value = inner.a.materialise(value, element.span)
        block.results = [t.value for t in tensors(value)]
        self.b.span = span
        out = self.b.op("for", streams, [block], trips=trips)
        return rebuild(value, iter(out))

    def _generator(self, generator: s.Generator) -> tuple[Staged | None, int, int]:
        """(array source or None, first index, length) of a generator."""
        if isinstance(generator.source, s.Range):
            low = self.a.static_int(self.expr(generator.source.start), generator.source.start.span, "the start of a range")
            high = self.a.static_int(self.expr(generator.source.stop), generator.source.stop.span, "the end of a range")
            return None, low, max(0, high - low)
        source = self.expr(generator.source)
        any_self: Any = self
        return source, 0, any_self.length(source, generator.source.span)

    # Indexing

    def subscript(self, expr: s.Subscript) -> Staged:
        """`value[indices]`."""
        value = self.expr(expr.value)
        if isinstance(value, Tuple):
            return self._tuple_item(value, expr)
        if isinstance(value, Record):  # a struct of arrays: index each field
            fields = {k: self._index_expr(v, expr) for k, v in value.fields.items()}
            return Record(value.name, fields)
        return self._index_expr(value, expr)

    def _tuple_item(self, value: Tuple, expr: s.Subscript) -> Staged:
        if len(expr.indices) == 1 and isinstance(expr.indices[0], s.Expr):
            at = self.a.static_int(self.expr(expr.indices[0]), expr.span, "the index of a tuple")
            if not -len(value.items) <= at < len(value.items):
                raise TypeMistake(f"the tuple has no item {at}", expr.span, found=describe(value))
            return value.items[at]
        raise TypeMistake("a tuple takes one index", expr.span)

    def _index_expr(self, value: Staged, expr: s.Subscript) -> Staged:
        if not isinstance(value, Tensor):
            raise TypeMistake("this cannot be indexed", expr.value.span, found=describe(value))
        steps = self.steps(value.type, expr.indices, expr.span)
        self.b.span = expr.span
        return Tensor(read(self.a, value.value, steps, expr.span))

    def index_value(self, value: Tensor, indices: Sequence[Staged], span: Span) -> Tensor:
        """`value[indices]` for indices that are values already."""
        shape = value.type.shape
        steps = [index_step(self.a, i, axis, shape[axis], span) for axis, i in enumerate(indices)]
        return Tensor(read(self.a, value.value, steps, span))

    def write_index(self, old: Staged, path: s.Subscript, value: Staged, span: Span) -> Staged:
        """A copy of `old` with `old[indices]` replaced."""
        if isinstance(old, Tuple):
            at = self.a.static_int(self.expr(path.indices[0]), span, "the index of a tuple")  # type: ignore[arg-type]
            items = list(old.items)
            items[at] = value
            return Tuple(tuple(items))
        if not isinstance(old, Tensor):
            raise TypeMistake("this cannot be assigned to by index", path.span, found=describe(old))
        steps = self.steps(old.type, path.indices, path.span)
        self.b.span = span
        return Tensor(write(self.a, old.value, steps, value, span))

    def steps(self, type: TensorType, indices: Sequence[s.Index], span: Span) -> list[Step]:
        """One step an axis for the written indices, `...` filled in."""
        used = sum(not isinstance(i, s.NewAxis | s.Ellipsis) for i in indices)
        if used > type.rank:
            raise TypeMistake(f"{used} indices for an array of {type.rank} axes", span, found=str(type))
        out: list[Step] = []
        axis = 0
        for index in indices:
            if isinstance(index, s.NewAxis):
                out.append(NEW_AXIS)
            elif isinstance(index, s.Ellipsis):
                for _ in range(type.rank - used):
                    out.append(Cut(0, type.shape[axis], 1))
                    axis += 1
            else:
                out.append(self._step(index, axis, type.shape[axis]))
                axis += 1
        return out

    def _step(self, index: s.Expr | s.SliceIndex, axis: int, size: int) -> Step:
        if isinstance(index, s.SliceIndex):
            bounds = [
                None if e is None else self.a.static_int(self.expr(e), e.span, "a slice bound")
                for e in (index.start, index.stop, index.step)
            ]
            return slice_step(bounds[0], bounds[1], bounds[2], size, index.span)
        return index_step(self.a, self.expr(index), axis, size, index.span)

    # Calls

    def call(self, expr: s.Call) -> Staged:
        """A call: of a function, a builtin, a record type."""
        function = self.expr(expr.function)
        positional = [self.expr(x.value) for x in expr.arguments if x.name is None]
        named = {x.name: self.expr(x.value) for x in expr.arguments if x.name is not None}
        self.b.span = expr.span
        return self.apply(function, positional, named, expr.span)

    def apply(
        self, function: Staged, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """`function(*args, **named)` on staged values."""
        match function:
            case UserFunction(decl, module):
                return self.session.call_declared(self, decl, module, args, named, span)
            case Closure():
                return self.session.call_closure(self, function, args, named, span)
            case RecordType(decl, module):
                return self.session.make_record(self, decl, args, named, span)
            case Partial(name, functions, options):
                return BUILTINS[name].apply(self, functions, args, options | named, span)
            case Builtin(name) if name in DTYPES or name == "real":
                if len(args) != 1 or named:
                    raise TypeMistake(f"'{name}' converts one value", span)
                dtype = self.session.real if name == "real" else DTYPES[name]
                if name == "key":
                    return BUILTINS["key"].call(self, args, named, span)
                return self.a.convert(args[0], dtype, span)
            case Builtin(name):
                return BUILTINS[name].call(self, args, named, span)
        raise TypeMistake("this cannot be called", span, found=describe(function))
