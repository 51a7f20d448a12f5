"""Ops that make, move and index elements without computing on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core import Attrs, Block, Value
from .opdef import Array, OpDef, declare, need, tensor
from .types import I32, I64, TensorType, Type


def _const_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    value, type = attrs["value"], attrs["type"]
    if isinstance(value, np.ndarray):
        need(value.shape == type.shape, f"const of {value.shape} cannot be {type}")
    return [type]


def _const(attrs: Attrs) -> Array:
    type: TensorType = attrs["type"]
    return np.full(type.shape, attrs["value"], type.dtype.numpy)


declare(
    OpDef(
        "const",
        "a literal: one number for every element, or a dense array",
        _const_infer,
        _const,
        attrs=(("value", "array"), ("type", "type")),
        arity=0,
    )
)


def _iota_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type, axis = attrs["type"], attrs["axis"]
    need(type.dtype.is_number, f"iota counts in numbers, not {type.dtype}")
    need(0 <= axis < type.rank, f"iota along axis {axis} of {type}")
    return [type]


def _iota(attrs: Attrs) -> Array:
    type, axis = attrs["type"], attrs["axis"]
    line = np.arange(type.shape[axis], dtype=type.dtype.numpy)
    where = [1] * type.rank
    where[axis] = -1
    return np.broadcast_to(line.reshape(where), type.shape).copy()


declare(
    OpDef(
        "iota",
        "0, 1, 2, ... along `axis`, the same across the others",
        _iota_infer,
        _iota,
        attrs=(("axis", "int"), ("type", "type")),
        arity=0,
    )
)


def _broadcast_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    source, shape, axes = tensor(operands[0]), attrs["shape"], attrs["axes"]
    need(len(axes) == source.rank, f"broadcast of {source} names {len(axes)} axes")
    need(list(axes) == sorted(set(axes)), f"broadcast axes {axes} must increase")
    for size, axis in zip(source.shape, axes):
        need(
            0 <= axis < len(shape) and shape[axis] == size,
            f"broadcast of {source} does not fit axis {axis} of {list(shape)}",
        )
    return [source.with_shape(shape)]


def _broadcast(attrs: Attrs, x: Array) -> Array:
    shape, axes = attrs["shape"], attrs["axes"]
    inner = [1] * len(shape)
    for size, axis in zip(x.shape, axes):
        inner[axis] = size
    return np.broadcast_to(x.reshape(inner), shape).copy()


declare(
    OpDef(
        "broadcast",
        "repeat x along new axes: x's axis i is the result's axis axes[i]; no size 1 stretches",
        _broadcast_infer,
        _broadcast,
        attrs=(("shape", "ints"), ("axes", "ints")),
        arity=1,
    )
)


def _reshape_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    result = source.with_shape(attrs["shape"])
    need(result.size == source.size, f"reshape of {source} to {list(attrs['shape'])}")
    return [result]


declare(
    OpDef(
        "reshape",
        "the same elements in row-major order under another shape",
        _reshape_infer,
        lambda attrs, x: x.reshape(attrs["shape"]),
        attrs=(("shape", "ints"),),
        arity=1,
    )
)


def _transpose_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    source, perm = tensor(operands[0]), attrs["perm"]
    need(sorted(perm) == list(range(source.rank)), f"transpose of {source} by {list(perm)}")
    return [source.with_shape(tuple(source.shape[p] for p in perm))]


declare(
    OpDef(
        "transpose",
        "axes in another order: the result's axis i is x's axis perm[i]",
        _transpose_infer,
        lambda attrs, x: x.transpose(attrs["perm"]).copy(order="C"),
        attrs=(("perm", "ints"),),
        arity=1,
    )
)


def _slice_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    start, limit, stride = attrs["start"], attrs["limit"], attrs["stride"]
    need(
        len(start) == len(limit) == len(stride) == source.rank,
        f"slice of {source} needs {source.rank} bounds",
    )
    shape = []
    for lo, hi, step, size in zip(start, limit, stride, source.shape):
        need(0 <= lo <= hi <= size and step > 0, f"slice {lo}:{hi}:{step} of an axis of {size}")
        shape.append(-(-(hi - lo) // step))
    return [source.with_shape(tuple(shape))]


def _slice(attrs: Attrs, x: Array) -> Array:
    where = tuple(slice(*s) for s in zip(attrs["start"], attrs["limit"], attrs["stride"]))
    return x[where].copy()


declare(
    OpDef(
        "slice",
        "elements start, start + stride, ... below limit of each axis",
        _slice_infer,
        _slice,
        attrs=(("start", "ints"), ("limit", "ints"), ("stride", "ints")),
        arity=1,
    )
)


def _need_indices(indices: Sequence[Value], rank: int, name: str) -> None:
    need(len(indices) == rank, f"{name} needs {rank} start indices, found {len(indices)}")
    for index in indices:
        type = tensor(index)
        need(
            type.dtype in (I32, I64) and type.shape == (),
            f"{name} needs i32 or i64 scalars as indices, not {type}",
        )


def _dynamic_slice_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    source, sizes = tensor(operands[0]), attrs["sizes"]
    _need_indices(operands[1:], source.rank, "dynamic_slice")
    need(
        len(sizes) == source.rank and all(0 <= n <= m for n, m in zip(sizes, source.shape)),
        f"dynamic_slice of {list(sizes)} from {source}",
    )
    return [source.with_shape(sizes)]


def _window(
    shape: tuple[int, ...], sizes: tuple[int, ...], starts: Sequence[Array]
) -> tuple[slice, ...]:
    begin = [max(0, min(int(s), n - m)) for s, n, m in zip(starts, shape, sizes)]
    return tuple(slice(b, b + m) for b, m in zip(begin, sizes))


declare(
    OpDef(
        "dynamic_slice",
        "a block of `sizes` from run-time start indices, one an axis, clamped to fit",
        _dynamic_slice_infer,
        lambda attrs, x, *starts: x[_window(x.shape, attrs["sizes"], starts)].copy(),
        attrs=(("sizes", "ints"),),
    )
)


def _dynamic_update_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    source, update = tensor(operands[0]), tensor(operands[1])
    _need_indices(operands[2:], source.rank, "dynamic_update")
    need(
        update.dtype is source.dtype
        and update.rank == source.rank
        and all(n <= m for n, m in zip(update.shape, source.shape)),
        f"dynamic_update of {source} by {update}",
    )
    return [source]


def _dynamic_update(attrs: Attrs, x: Array, update: Array, *starts: Array) -> Array:
    out = x.copy()
    out[_window(x.shape, update.shape, starts)] = update
    return out


declare(
    OpDef(
        "dynamic_update",
        "x with the block at run-time start indices (clamped to fit) replaced: x, update, indices",
        _dynamic_update_infer,
        _dynamic_update,
    )
)


def _gather_shape(source: TensorType, index: TensorType, attrs: Attrs) -> tuple[int, ...]:
    axis, batch = attrs["axis"], attrs["batch"]
    need(index.dtype in (I32, I64), f"gather needs i32 or i64 indices, not {index}")
    need(batch <= axis < source.rank, f"gather along axis {axis} of {source}")
    need(source.shape[:batch] == index.shape[:batch], f"gather batches {source} by {index}")
    need(source.shape[axis] > 0 or index.size == 0, f"gather from an empty axis of {source}")
    return source.shape[:axis] + index.shape[batch:] + source.shape[axis + 1 :]


def _gather_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    return [source.with_shape(_gather_shape(source, tensor(operands[1]), attrs))]


def _gather(attrs: Attrs, x: Array, index: Array) -> Array:
    axis, batch = attrs["axis"], attrs["batch"]
    index = np.clip(index, 0, max(0, x.shape[axis] - 1))
    if batch == 0:
        return np.take(x, index, axis=axis)
    rows = [_gather({"axis": axis - 1, "batch": batch - 1}, a, i) for a, i in zip(x, index)]
    shape = x.shape[:axis] + index.shape[batch:] + x.shape[axis + 1 :]
    return np.stack(rows) if rows else np.zeros(shape, x.dtype)


declare(
    OpDef(
        "gather",
        "elements of x along `axis` at run-time indices (clamped), whose shape replaces that axis; "
        "the first `batch` axes of both go together",
        _gather_infer,
        _gather,
        attrs=(("axis", "int"), ("batch", "int")),
        arity=2,
    )
)


def _scatter_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source, index, update = (tensor(v) for v in operands)
    shape = _gather_shape(source, index, attrs)
    need(source.dtype.is_number, f"scatter_add adds numbers, not {source.dtype}")
    need(
        update == source.with_shape(shape),
        f"scatter_add into {source} at {index} needs {source.with_shape(shape)}, not {update}",
    )
    return [source]


def _scatter_add(attrs: Attrs, x: Array, index: Array, update: Array) -> Array:
    axis, batch = attrs["axis"], attrs["batch"]
    index = np.clip(index, 0, max(0, x.shape[axis] - 1))
    out = x.copy()
    if batch == 0:
        middle = index.ndim
        front = tuple(range(axis, axis + middle)) + tuple(range(axis))
        order = front + tuple(range(axis + middle, update.ndim))
        np.add.at(np.moveaxis(out, axis, 0), index, update.transpose(order))
        return out
    for row in range(x.shape[0]):
        inner = {"axis": axis - 1, "batch": batch - 1}
        out[row] = _scatter_add(inner, x[row], index[row], update[row])
    return out


declare(
    OpDef(
        "scatter_add",
        "x plus updates at the places that `gather` would read: x, index, update",
        _scatter_infer,
        _scatter_add,
        attrs=(("axis", "int"), ("batch", "int")),
        arity=3,
    )
)


def _concatenate_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    axis = attrs["axis"]
    need(len(operands) > 0, "concatenate needs an operand")
    types = [tensor(v) for v in operands]
    first = types[0]
    need(0 <= axis < first.rank, f"concatenate along axis {axis} of {first}")
    for t in types:
        same = t.shape[:axis] + t.shape[axis + 1 :] == first.shape[:axis] + first.shape[axis + 1 :]
        need(t.dtype is first.dtype and t.rank == first.rank and same, f"concatenate {first}, {t}")
    total = sum(t.shape[axis] for t in types)
    return [first.with_shape(first.shape[:axis] + (total,) + first.shape[axis + 1 :])]


declare(
    OpDef(
        "concatenate",
        "arrays end to end along `axis`",
        _concatenate_infer,
        lambda attrs, *xs: np.concatenate(xs, axis=attrs["axis"]),
        attrs=(("axis", "int"),),
    )
)


def _pad_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source, fill = tensor(operands[0]), tensor(operands[1])
    low, high, interior = attrs["low"], attrs["high"], attrs["interior"]
    need(fill == TensorType(source.dtype), f"pad of {source} with {fill}")
    need(
        len(low) == len(high) == len(interior) == source.rank
        and all(v >= 0 for v in (*low, *high, *interior)),
        f"pad of {source} needs {source.rank} widths, none negative",
    )
    shape = tuple(
        a + b + n + max(0, n - 1) * i for a, b, i, n in zip(low, high, interior, source.shape)
    )
    return [source.with_shape(shape)]


def _pad(attrs: Attrs, x: Array, fill: Array) -> Array:
    low, high, interior = attrs["low"], attrs["high"], attrs["interior"]
    shape = [a + b + n + max(0, n - 1) * i for a, b, i, n in zip(low, high, interior, x.shape)]
    out = np.full(shape, fill, x.dtype)
    where = tuple(
        slice(a, a + n + max(0, n - 1) * i, i + 1) for a, i, n in zip(low, interior, x.shape)
    )
    out[where] = x
    return out


declare(
    OpDef(
        "pad",
        "x with `fill` before, after and between its elements: x, fill",
        _pad_infer,
        _pad,
        attrs=(("low", "ints"), ("high", "ints"), ("interior", "ints")),
        arity=2,
    )
)


def _reverse_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    need(all(0 <= a < source.rank for a in attrs["axes"]), f"reverse axes of {source}")
    return [source]


declare(
    OpDef(
        "reverse",
        "x with the order along `axes` turned round",
        _reverse_infer,
        lambda attrs, x: np.flip(x, attrs["axes"]).copy(),
        attrs=(("axes", "ints"),),
        arity=1,
    )
)
