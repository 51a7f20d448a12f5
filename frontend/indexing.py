"""`x[...]` and `x[...] = v`: static slices, run-time indices, index arrays.

Each index becomes one step on one axis; static steps merge into one `slice` op, run-time
scalars into one `dynamic_slice`, index arrays into `gather`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, I64
from .arithmetic import Arithmetic
from .values import SizeMistake, Staged, Static, Tensor, TypeMistake, describe


@dataclass(frozen=True, slots=True)
class Cut:
    """A static slice of an axis."""

    start: int
    stop: int
    step: int


@dataclass(frozen=True, slots=True)
class At:
    """A static index: a slice of one element whose axis goes away."""

    index: int


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A run-time scalar index (clamped to the axis)."""

    index: Value


@dataclass(frozen=True, slots=True)
class Gather:
    """A run-time array of indices (clamped to the axis)."""

    index: Value


@dataclass(frozen=True, slots=True)
class New:
    """A new axis of size 1."""


Step = Cut | At | Dynamic | Gather | New
NEW_AXIS = New()


def slice_step(
    start: int | None, stop: int | None, step: int | None, size: int, span: Span
) -> Cut:
    """A slice with Python's rules for missing and negative bounds; the step is positive."""
    if step is not None and step <= 0:
        raise TypeMistake("a slice needs a positive step", span, found=str(step), hint="use flip")
    low, high, stride = slice(start, stop, step).indices(size)
    return Cut(low, max(low, high), stride)


def index_step(a: Arithmetic, index: Staged, axis: int, size: int, span: Span) -> Step:
    """The step of an index that is a value."""
    if isinstance(index, Static) and isinstance(index.value, int) and not isinstance(index.value, bool):
        at = index.value
        if not -size <= at < size:
            raise SizeMistake(
                f"index {at} is out of range",
                span,
                expected=f"{-size} to {size - 1} (axis {axis} has size {size})",
            )
        return At(at % size)
    if not isinstance(index, Tensor):
        raise TypeMistake("this cannot be an index", span, found=describe(index))
    if index.type.dtype not in (I32, I64):
        hint = "use where(mask, a, b)" if index.type.dtype.name == "bool" else "convert it: i32(...)"
        raise TypeMistake("an index must be an integer", span, found=str(index.type), hint=hint)
    if size == 0:
        raise SizeMistake("an empty axis has no elements", span, found=f"axis {axis} of size 0")
    return Gather(index.value) if index.type.rank else Dynamic(index.value)


def read(a: Arithmetic, x: Value, steps: Sequence[Step], span: Span) -> Value:
    """`x[steps]`; axes beyond the steps are taken whole."""
    b, shape = a.b, a.type(x).shape
    real = [s for s in steps if not isinstance(s, New)]
    full = [*real, *(Cut(0, n, 1) for n in shape[len(real) :])]
    x = _static_part(a, x, full)
    x = _dynamic_part(a, x, full)
    gathers = [i for i, s in enumerate(full) if isinstance(s, Gather)]
    if len(gathers) > 1:
        x = _joint_gather(a, x, full, gathers, span)
    elif gathers:
        (axis,) = gathers
        step = full[axis]
        assert isinstance(step, Gather)
        x = b.gather(x, step.index, axis=axis, batch=0)
    return _final_shape(a, x, steps, full, gathers)


def _static_part(a: Arithmetic, x: Value, full: Sequence[Step]) -> Value:
    start, limit, stride = [], [], []
    for step, size in zip(full, a.type(x).shape):
        low, high, by = 0, size, 1
        if isinstance(step, Cut):
            low, high, by = step.start, step.stop, step.step
        elif isinstance(step, At):
            low, high = step.index, step.index + 1
        start.append(low)
        limit.append(high)
        stride.append(by)
    if tuple(limit) == a.type(x).shape and not any(start) and set(stride) <= {1}:
        return x
    return a.b.slice(x, start=tuple(start), limit=tuple(limit), stride=tuple(stride))


def _dynamic_part(a: Arithmetic, x: Value, full: Sequence[Step]) -> Value:
    if not any(isinstance(s, Dynamic) for s in full):
        return x
    zero = a.b.const(0, I32)
    starts = [s.index if isinstance(s, Dynamic) else zero for s in full]
    sizes = tuple(1 if isinstance(s, Dynamic) else n for s, n in zip(full, a.type(x).shape))
    return a.b.dynamic_slice(x, *starts, sizes=sizes)


def _joint_gather(
    a: Arithmetic, x: Value, full: Sequence[Step], gathers: list[int], span: Span
) -> Value:
    """Index arrays on neighbouring axes, broadcast together: one gather over the joined axis."""
    if gathers != list(range(gathers[0], gathers[-1] + 1)):
        raise TypeMistake("index arrays must stand on neighbouring axes", span)
    b, shape = a.b, a.type(x).shape
    first, last = gathers[0], gathers[-1]
    indices = [s.index for s in full if isinstance(s, Gather)]
    indices = [b.convert(i, dtype=I32) if a.type(i).dtype is not I32 else i for i in indices]
    indices = a.broadcast(indices, span, "index arrays")
    flat = None
    for index, size in zip(indices, shape[first : last + 1]):
        high = b.const(size - 1, a.type(index))
        index = b.max(b.min(index, high), b.const(0, a.type(index)))
        flat = index if flat is None else b.add(b.mul(flat, b.const(size, a.type(index))), index)
    joined = 1
    for size in shape[first : last + 1]:
        joined *= size
    x = b.reshape(x, shape=(*shape[:first], joined, *shape[last + 1 :]))
    return b.gather(x, flat, axis=first, batch=0)


def _final_shape(
    a: Arithmetic, x: Value, steps: Sequence[Step], full: Sequence[Step], gathers: list[int]
) -> Value:
    """Drop the axes of scalar indices, add the new ones."""
    sizes = iter(a.type(x).shape)
    index_rank = a.type(x).rank - (len(full) - len(gathers)) if gathers else 0
    shape: list[int] = []
    rest = list(full)
    position = 0
    placed = False
    for step in [*steps, *full[len([s for s in steps if not isinstance(s, New)]) :]]:
        if isinstance(step, New):
            shape.append(1)
            continue
        step = rest[position]
        position += 1
        if isinstance(step, Gather):
            if not placed:
                shape += [next(sizes) for _ in range(index_rank)]
                placed = True
            continue
        size = next(sizes)
        if isinstance(step, Cut):
            shape.append(size)
    return x if tuple(shape) == a.type(x).shape else a.b.reshape(x, shape=tuple(shape))


def write(a: Arithmetic, x: Value, steps: Sequence[Step], value: Staged, span: Span) -> Value:
    """A copy of x with `x[steps]` replaced by `value`, broadcast to that part's shape."""
    b, type = a.b, a.type(x)
    full = [*steps, *(Cut(0, n, 1) for n in type.shape[len(steps) :])]
    if any(isinstance(s, New | Gather) for s in full):
        raise TypeMistake("an index array cannot be assigned to", span, hint="use scatter_add")
    part = tuple(_length(s) for s in full)
    kept = tuple(n for n, s in zip(part, full) if isinstance(s, Cut))
    v = a.promote([Tensor(x), value], span, "the assignment")[1]
    if a.type(v).dtype is not type.dtype:
        raise TypeMistake("the assigned value has another type", span, expected=str(type.dtype), found=str(a.type(v)))
    try:
        v = b.expand(v, kept)
    except Exception:
        raise SizeMistake(
            "the assigned value does not fit", span, expected=str(type.with_shape(kept)), found=str(a.type(v))
        ) from None
    if any(isinstance(s, Cut) and s.step != 1 for s in full):
        return _strided_write(a, x, full, v)
    v = b.reshape(v, shape=part) if kept != part else v
    starts = [
        s.index if isinstance(s, Dynamic) else b.const(s.start if isinstance(s, Cut) else s.index, I32)
        for s in full
        if isinstance(s, Cut | At | Dynamic)
    ]
    if not starts:
        return v
    return b.dynamic_update(x, v, *starts)


def _length(step: Step) -> int:
    if isinstance(step, Cut):
        return -(-(step.stop - step.start) // step.step)
    return 1


def _strided_write(a: Arithmetic, x: Value, full: Sequence[Step], v: Value) -> Value:
    """A write with steps above 1: place the values by padding, choose by a mask."""
    b, type = a.b, a.type(x)
    low, high, interior, part = [], [], [], []
    for step, size in zip(full, type.shape):
        if isinstance(step, Dynamic):
            raise TypeMistake("a stepped slice cannot be assigned next to a run-time index", b.span)
        begin = step.start if isinstance(step, Cut) else step.index  # type: ignore[union-attr]
        count, by = _length(step), step.step if isinstance(step, Cut) else 1
        reach = max(0, count - 1) * by + (1 if count else 0)
        low.append(begin)
        high.append(size - begin - reach)
        interior.append(by - 1)
        part.append(count)
    v = b.reshape(v, shape=tuple(part))
    widths = {"low": tuple(low), "high": tuple(high), "interior": tuple(interior)}
    placed = b.pad(v, b.const(0, type.dtype), **widths)
    ones = b.const(1, a.type(v).with_dtype(I32))
    mask = b.pad(ones, b.const(0, I32), **widths)
    return b.select(b.ne(mask, b.const(0, mask)), placed, x)
