"""Batching: a function of one example as a function of many, along a new first axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Function, Module, Op, Value, free_values
from ..ir.errors import CompilerBug
from ..ir.opdef import OPS, RuleTable
from ..ir.types import I32, TensorType
from .dce import dce_function
from .inline import inline_function


def batch_function(module: Module, name: str, axes: Sequence[int | None], size: int) -> str:
    """Add function `name` mapped over `size` examples, and return its name.

    axes: 0 for parameters that have a new first axis of `size`, None for those shared. Every
    result gets a new first axis. Calls, those with custom derivatives too, are inlined.
    """
    source = inline_function(module, name, custom=True)
    params = [
        Value(p.type if a is None else _wider(p, size), p.name)
        for p, a in zip(source.params, axes, strict=True)
    ]
    block = Block(params)
    b = Builder(block, source.span)
    batcher = Batcher(b, size, dict(zip(source.params, params)))
    batcher.mapped.update(p for p, a in zip(source.params, axes) if a is not None)
    batcher.run(source.body)
    block.results = [batcher.wide(v) for v in source.results]
    function = Function(module.fresh_name(f"{name}_batch"), block, source.span)
    return module.add(dce_function(function)).name


def _wider(v: Value, size: int) -> TensorType:
    type = Builder.type(v)
    return type.with_shape((size, *type.shape))


class Batcher:
    """Writes the batched form of ops. `env` maps old values to new; `mapped` have the axis."""

    def __init__(self, b: Builder, size: int, env: dict[Value, Value]) -> None:
        self.b: Any = b
        self.size = size
        self.env = env
        self.mapped: set[Value] = set()

    def run(self, block: Block) -> None:
        """Write every op of `block`."""
        for op in block.ops:
            self.b.span = op.span
            captured = [v for r in op.regions for v in free_values(r)]
            if not any(v in self.mapped for v in (*op.operands, *captured)):
                clone_op(self.b, op, self.env)
                continue
            rule = BATCH.get(op.name)
            if rule is None:
                raise CompilerBug(f"no batching rule for {op.name}")
            results = rule(self, op)
            self.env.update(zip(op.results, results, strict=True))
            self.mapped.update(op.results)

    def has(self, v: Value) -> bool:
        """Whether v has the batch axis."""
        return v in self.mapped

    def value(self, v: Value) -> Value:
        """The new value of v, with the axis if it is mapped."""
        return self.env.get(v, v)

    def wide(self, v: Value) -> Value:
        """The new value of v with the axis, repeated where v is shared."""
        new = self.value(v)
        return new if v in self.mapped else self.spread(new)

    def spread(self, new: Value) -> Value:
        """A value repeated along a new first axis."""
        shape = Builder.type(new).shape
        axes = tuple(range(1, len(shape) + 1))
        return self.b.broadcast(new, shape=(self.size, *shape), axes=axes)  # type: ignore[no-any-return]


Rule = Callable[[Batcher, Op], Sequence[Value]]
BATCH: RuleTable[Rule] = RuleTable("batching")


def _rank(v: Value) -> int:
    return Builder.type(v).rank


def _elementwise(w: Batcher, op: Op) -> Sequence[Value]:
    return w.b.op(op.name, [w.wide(v) for v in op.operands], **op.attrs)  # type: ignore[no-any-return]


for _name, _definition in OPS.items():
    if _definition.elementwise:
        BATCH.set(_name, _elementwise)


@BATCH.register("broadcast")
def _broadcast(w: Batcher, op: Op) -> Sequence[Value]:
    axes = (0, *(a + 1 for a in op.attrs["axes"]))
    shape = (w.size, *op.attrs["shape"])
    return [w.b.broadcast(w.value(op.operands[0]), shape=shape, axes=axes)]


@BATCH.register("reshape")
def _reshape(w: Batcher, op: Op) -> Sequence[Value]:
    return [w.b.reshape(w.value(op.operands[0]), shape=(w.size, *op.attrs["shape"]))]


@BATCH.register("transpose")
def _transpose(w: Batcher, op: Op) -> Sequence[Value]:
    perm = (0, *(p + 1 for p in op.attrs["perm"]))
    return [w.b.transpose(w.value(op.operands[0]), perm=perm)]


@BATCH.register("slice")
def _slice(w: Batcher, op: Op) -> Sequence[Value]:
    start, limit = (0, *op.attrs["start"]), (w.size, *op.attrs["limit"])
    stride = (1, *op.attrs["stride"])
    return [w.b.slice(w.value(op.operands[0]), start=start, limit=limit, stride=stride)]


@BATCH.register("reverse", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
def _axes(w: Batcher, op: Op) -> Sequence[Value]:
    axes = tuple(a + 1 for a in op.attrs["axes"])
    return w.b.op(op.name, [w.value(op.operands[0])], axes=axes)  # type: ignore[no-any-return]


@BATCH.register("argmax", "argmin", "cumsum", "concatenate", "sort")
def _axis(w: Batcher, op: Op) -> Sequence[Value]:
    attrs = op.attrs | {"axis": op.attrs["axis"] + 1}
    return w.b.op(op.name, [w.wide(v) for v in op.operands], **attrs)  # type: ignore[no-any-return]


@BATCH.register("cholesky", "triangular_solve")
def _stacked(w: Batcher, op: Op) -> Sequence[Value]:
    return _elementwise(w, op)


@BATCH.register("pad")
def _pad(w: Batcher, op: Op) -> Sequence[Value]:
    x, fill = op.operands
    attrs = {k: (0, *op.attrs[k]) for k in ("low", "high", "interior")}
    if not w.has(fill):
        return [w.b.pad(w.wide(x), w.value(fill), **attrs)]
    zero = w.b.const(0, Builder.type(fill).dtype)
    placed = w.b.pad(w.wide(x), zero, **attrs)
    ones = w.b.const(1, TensorType(I32, (w.size, *Builder.type(x).shape)))
    inside = w.b.pad(ones, w.b.const(0, I32), **attrs)
    shape = Builder.type(placed).shape
    around = w.b.broadcast(w.value(fill), shape=shape, axes=(0,))
    return [w.b.select(w.b.ne(inside, w.b.const(0, inside)), placed, around)]


def take(w: Batcher, x: Value, has_x: bool, index: Value, has_index: bool, axis: int) -> Value:
    """gather of new values along `axis` (counted without the batch axis), batch axis first."""
    b = w.b
    if has_x and has_index:
        return b.gather(x, index, axis=axis + 1, batch=1)  # type: ignore[no-any-return]
    if has_x:
        return b.gather(x, index, axis=axis + 1, batch=0)  # type: ignore[no-any-return]
    out = b.gather(x, index, axis=axis, batch=0)
    rank = _rank(out)
    return b.transpose(out, perm=(axis, *(i for i in range(rank) if i != axis)))  # type: ignore[no-any-return]


@BATCH.register("gather")
def _gather(w: Batcher, op: Op) -> Sequence[Value]:
    x, index = op.operands
    axis, batch = op.attrs["axis"], op.attrs["batch"]
    if batch == 0:
        return [take(w, w.value(x), w.has(x), w.value(index), w.has(index), axis)]
    return [w.b.gather(w.wide(x), w.wide(index), axis=axis + 1, batch=batch + 1)]


@BATCH.register("scatter_add")
def _scatter_add(w: Batcher, op: Op) -> Sequence[Value]:
    attrs = {"axis": op.attrs["axis"] + 1, "batch": op.attrs["batch"] + 1}
    return [w.b.scatter_add(*(w.wide(v) for v in op.operands), **attrs)]


def _clamped(w: Batcher, start: Value, limit: int) -> Value:
    """A new start index (batched or not) held to 0 .. limit."""
    b = w.b
    return b.max(b.min(start, b.const(limit, start)), b.const(0, start))  # type: ignore[no-any-return]


@BATCH.register("dynamic_slice")
def _dynamic_slice(w: Batcher, op: Op) -> Sequence[Value]:
    x, *starts = op.operands
    sizes, shape = op.attrs["sizes"], Builder.type(x).shape
    new, has = w.value(x), w.has(x)
    if not any(w.has(s) for s in starts):
        zero = w.b.const(0, I32)
        fixed = [w.value(s) for s in starts]
        return [w.b.dynamic_slice(new, zero, *fixed, sizes=(w.size, *sizes))]
    for axis, (start, size) in enumerate(zip(starts, sizes)):
        if size == shape[axis]:
            continue
        first = _clamped(w, w.value(start), shape[axis] - size)
        index = _window(w, first, w.has(start), size)
        if has or w.has(start):
            new, has = take(w, new, has, index, w.has(start), axis), True
        else:
            new = w.b.gather(new, index, axis=axis, batch=0)
    return [new]


def _window(w: Batcher, first: Value, has: bool, size: int) -> Value:
    """Indices first, first + 1, ...: `[size]`, or `[batch, size]` for a batched start."""
    shape = (w.size, size) if has else (size,)
    type = TensorType(Builder.type(first).dtype, shape)
    line = w.b.iota(type=type, axis=len(shape) - 1)
    return w.b.add(w.b.broadcast(first, shape=shape, axes=(0,) if has else ()), line)  # type: ignore[no-any-return]


@BATCH.register("dynamic_update")
def _dynamic_update(w: Batcher, op: Op) -> Sequence[Value]:
    x, update, *starts = op.operands
    if not any(w.has(s) for s in starts):
        zero = w.b.const(0, I32)
        fixed = [w.value(s) for s in starts]
        return [w.b.dynamic_update(w.wide(x), w.wide(update), zero, *fixed)]
    b, old = w.b, w.wide(x)
    shape, sizes = Builder.type(x).shape, Builder.type(update).shape
    new: Value = w.wide(update)
    inside: Value | None = None
    for axis, (start, size) in enumerate(zip(starts, sizes)):
        if size == shape[axis]:
            continue
        first = _clamped(w, w.value(start), shape[axis] - size)
        has = w.has(start)
        spots = (w.size, shape[axis]) if has else (shape[axis],)
        type = TensorType(Builder.type(first).dtype, spots)
        places = b.iota(type=type, axis=len(spots) - 1)
        offset = b.sub(places, b.broadcast(first, shape=spots, axes=(0,) if has else ()))
        hit = b.and_(b.ge(offset, b.const(0, offset)), b.lt(offset, b.const(size, offset)))
        new = take(w, new, True, _clamped(w, offset, size - 1), has, axis)
        axes = (0, axis + 1) if has else (axis + 1,)
        wide = b.broadcast(hit, shape=(w.size, *shape), axes=axes)
        inside = wide if inside is None else b.and_(inside, wide)
    return [new if inside is None else b.select(inside, new, old)]


@BATCH.register("dot_general")
def _dot(w: Batcher, op: Op) -> Sequence[Value]:
    x, y = op.operands
    la, lb, ca, cb = (
        op.attrs[k] for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )

    def up(axes: Sequence[int], has: bool) -> tuple[int, ...]:
        return tuple(a + 1 for a in axes) if has else tuple(axes)

    hx, hy = w.has(x), w.has(y)
    both = (0,) if hx and hy else ()
    out = w.b.dot_general(
        w.value(x),
        w.value(y),
        lhs_batch=both + up(la, hx),
        rhs_batch=both + up(lb, hy),
        lhs_contract=up(ca, hx),
        rhs_contract=up(cb, hy),
    )
    if both:
        return [out]
    # One side is mapped: its axis is the first of that side's free axes.
    at = len(la) if hx else _rank(out) - (_rank(w.value(y)) - len(lb) - len(cb))
    if not at:
        return [out]
    return [w.b.transpose(out, perm=(at, *(i for i in range(_rank(out)) if i != at)))]


def _inner(w: Batcher, block: Block, params: Sequence[Value], mapped: set[Value]) -> Batcher:
    """A batcher of a region whose parameters become `params`."""
    out = Block(list(params))
    inner = Batcher(Builder(out, w.b.span), w.size, dict(w.env))
    inner.env.update(zip(block.params, params))
    inner.mapped = set(w.mapped) | mapped
    return inner


@BATCH.register("if", "switch")
def _branches(w: Batcher, op: Op) -> Sequence[Value]:
    selector = op.operands[0]
    if w.has(selector):
        return _select_branches(w, op)
    regions = []
    for region in op.regions:
        inner = _inner(w, region, [], set())
        inner.run(region)
        inner.b.block.results = [inner.wide(v) for v in region.results]
        regions.append(inner.b.block)
    return w.b.op(op.name, [w.value(selector)], regions)  # type: ignore[no-any-return]


def _select_branches(w: Batcher, op: Op) -> Sequence[Value]:
    """A choice that differs by example: every branch runs, elements are selected."""
    options = []
    for region in op.regions:
        inner = Batcher(w.b, w.size, dict(w.env))
        inner.mapped = set(w.mapped)
        inner.run(region)
        options.append([inner.wide(v) for v in region.results])
    test = w.value(op.operands[0])
    if op.name == "if":
        return [_choose(w, test, x, y) for x, y in zip(*options)]
    out = options[-1]
    for k in range(len(options) - 2, -1, -1):
        here = w.b.le(test, w.b.const(k, test))
        out = [_choose(w, here, x, y) for x, y in zip(options[k], out)]
    return out


def _choose(w: Batcher, test: Value, x: Value, y: Value) -> Value:
    wide = w.b.broadcast(test, shape=Builder.type(x).shape, axes=(0,))
    return w.b.select(wide, x, y)  # type: ignore[no-any-return]


@BATCH.register("for")
def _for(w: Batcher, op: Op) -> Sequence[Value]:
    (body,) = op.regions
    carries = op.attrs["carries"]
    index, params = body.params[0], body.params[1:]
    mapped = {i for i, v in enumerate(op.operands) if w.has(v)}
    while True:
        wide = {params[i] for i in mapped}
        new = [
            Value(_wider(p, w.size) if p in wide else p.type, p.name) for p in body.params
        ]
        inner = _inner(w, body, new, wide)
        inner.mapped.discard(index)
        inner.run(body)
        more = {i for i in range(carries) if inner.has(body.results[i])} - mapped
        if not more:
            break
        mapped |= more
    inner.b.block.results = [
        inner.wide(v) if i >= carries or i in mapped else inner.value(v)
        for i, v in enumerate(body.results)
    ]
    operands = []
    for i, v in enumerate(op.operands):
        x = w.wide(v) if i in mapped else w.value(v)
        operands.append(_swapped(w, x) if i >= carries and i in mapped else x)
    results = w.b.op("for", operands, [inner.b.block], **op.attrs)
    return [
        _swapped(w, r) if i >= carries else (r if i in mapped else w.spread(r))
        for i, r in enumerate(results)
    ]


def _swapped(w: Batcher, x: Value) -> Value:
    """The first two axes exchanged."""
    return w.b.transpose(x, perm=(1, 0, *range(2, _rank(x))))  # type: ignore[no-any-return]


@BATCH.register("while")
def _while(w: Batcher, op: Op) -> Sequence[Value]:
    """Every example goes on until the last one is done; finished ones keep their values."""
    cond, body = op.regions
    types = [_wider(p, w.size) for p in body.params]
    test_params = [Value(t, p.name) for t, p in zip(types, cond.params)]
    test = _inner(w, cond, test_params, set(cond.params))
    test.run(cond)
    alive = test.wide(cond.results[0])
    test.b.block.results = [test.b.reduce_max(alive, axes=(0,))]
    new = [Value(t, p.name) for t, p in zip(types, body.params)]
    inner = _inner(w, body, new, set(body.params))
    again = Batcher(inner.b, w.size, dict(w.env) | dict(zip(cond.params, new)))
    again.mapped = set(w.mapped) | set(cond.params)
    again.run(cond)
    keep = again.wide(cond.results[0])
    inner.run(body)
    inner.b.block.results = [
        _choose(inner, keep, inner.wide(v), old) for v, old in zip(body.results, new)
    ]
    operands = [w.wide(v) for v in op.operands]
    return w.b.op("while", operands, [test.b.block, inner.b.block], **op.attrs)  # type: ignore[no-any-return]


BATCH.none("it has no operand that could be mapped", "const", "iota")
BATCH.none("calls are inlined and derivatives expanded first", "call", "linear_call", "diff.jvp", "diff.vjp")
