"""`xs[i]` in a loop over i becomes a stream: the loop hands out elements in order.

Streams are cheap to differentiate: their cotangents are stacked, where those of an indexed
array would be a whole array added up in every trip.
"""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value


def streams(module: Module) -> Module:
    """Every function with indexed reads in loops turned to streams where they are in bounds."""
    out = Module({}, module.entry)
    for name, f in module.functions.items():
        out.functions[name] = Function(name, _block(f.body, {}), f.span, dict(f.attrs))
    return out


def _block(block: Block, env: Env) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    env.update(zip(block.params, params))
    out = Block(params)
    b = Builder(out)
    for op in block.ops:
        regions = tuple(_block(r, env) for r in op.regions)
        operands = tuple(env.get(v, v) for v in op.operands)
        results = tuple(Value(v.type, v.name) for v in op.results)
        new = Op(op.name, operands, op.attrs, regions, results, op.span)
        env.update(zip(op.results, results))
        b.span = op.span
        out.ops.append(_streamed(new, b) if op.name == "for" else new)
    out.results = [env.get(v, v) for v in block.results]
    return out


def _streamed(op: Op, b: Builder) -> Op:
    """`op` with reads at its index as further streams, prepared by ops that `b` writes."""
    (body,) = op.regions
    index = body.params[0]
    inside = set(body.params) | {r for inner in body.ops for r in inner.results}
    extra: dict[tuple[Value, int], Value] = {}
    rows: list[Value] = []
    ops: list[Op] = []
    for inner in body.ops:
        axis = _streamed_axis(inner, index, inside, op.attrs["trips"])
        if axis is None:
            ops.append(inner)
            continue
        source = inner.operands[0]
        key = (source, axis)
        if key not in extra:
            extra[key] = _rows_first(b, source, axis, op.attrs["trips"])
            type = Builder.type(extra[key])
            rows.append(Value(type.with_shape(type.shape[1:]), source.name or "row"))
        row = rows[list(extra).index(key)]
        ops.append(
            Op("reshape", (row,), {"shape": inner.attrs["sizes"]}, (), inner.results, inner.span)
        )
    if not extra:
        return op
    new = Block([*body.params, *rows], ops, body.results)
    return Op("for", (*op.operands, *extra.values()), op.attrs, (new,), op.results, op.span)


def _streamed_axis(op: Op, index: Value, inside: set[Value], trips: int) -> int | None:
    """The axis that `op` reads at the loop's index, if that is all it does."""
    if op.name != "dynamic_slice" or op.operands[0] in inside:
        return None
    shape, sizes = Builder.type(op.operands[0]).shape, op.attrs["sizes"]
    moving = [i for i, (n, m) in enumerate(zip(shape, sizes)) if n != m or n == 1]
    axes = [i for i in moving if op.operands[1 + i] is index]
    others = [i for i in moving if i not in axes and shape[i] != 1]
    if len(axes) != 1 or others or sizes[axes[0]] != 1 or shape[axes[0]] < trips:
        return None
    return axes[0]


def _rows_first(b: Builder, x: Value, axis: int, trips: int) -> Value:
    """The first `trips` rows of x along `axis`, that axis first."""
    shape = Builder.type(x).shape
    if shape[axis] != trips:
        limit = tuple(trips if i == axis else n for i, n in enumerate(shape))
        x = b.op("slice", [x], start=(0,) * len(shape), limit=limit, stride=(1,) * len(shape))[0]
    if axis:
        perm = (axis, *(i for i in range(len(shape)) if i != axis))
        x = b.op("transpose", [x], perm=perm)[0]
    return x
