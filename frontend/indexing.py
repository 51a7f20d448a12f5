"""`x[...]`, `x[...] = v` and `x[index array] += v` on IR values.

Each index is one step on one axis: static steps merge into one `slice` op, run-time scalars
and windows into one `dynamic_slice`, index arrays into `gather` or `scatter_add`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, I32, I64
from .arithmetic import Arithmetic
from .type_errors import DTypeMistake, IndexMistake, SizeMistake
from .values import Staged, Static, Tensor, describe


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
class Window:
    """A slice of static size from a run-time start (clamped so that it fits)."""

    start: Value
    size: int


@dataclass(frozen=True, slots=True)
class Gather:
    """A run-time array of indices (clamped to the axis)."""

    index: Value


@dataclass(frozen=True, slots=True)
class New:
    """A new axis of size 1."""


Step = Cut | At | Dynamic | Window | Gather | New
NEW_AXIS = New()


def slice_step(start: int | None, stop: int | None, step: int | None, size: int, span: Span) -> Cut:
    """A slice with Python's rules for missing and negative bounds; the step is positive."""
    if step is not None and step <= 0:
        raise IndexMistake("a slice needs a positive step", span, found=str(step), hint="use flip")
    low, high, stride = slice(start, stop, step).indices(size)
    return Cut(low, max(low, high), stride)


def index_step(index: Staged, axis: int, size: int, span: Span) -> Step:
    """The step of an index that is a value."""
    if isinstance(index, Static) and type(index.value) is int:
        at = index.value
        if not -size <= at < size:
            bounds = f"{-size} to {size - 1}" if size else "nothing"
            raise IndexMistake(
                f"index {at} is out of range",
                span,
                expected=f"{bounds} (axis {axis} has size {size})",
            )
        return At(at % size)
    if not isinstance(index, Tensor):
        raise IndexMistake("this cannot be an index", span, found=describe(index))
    dtype = index.type.dtype
    if dtype is BOOL:
        raise DTypeMistake(
            "a mask cannot be an index: the size of the result would not be known",
            span,
            found=str(index.type),
            hint="use where(mask, a, b), or sum(where(mask, x, 0))",
        )
    if dtype not in (I32, I64):
        raise DTypeMistake(
            "an index must be an integer", span, found=str(index.type), hint="convert it: i32(...)"
        )
    if size == 0:
        raise IndexMistake("an empty axis has no elements", span, found=f"axis {axis} of size 0")
    return Gather(index.value) if index.type.rank else Dynamic(index.value)


def window_step(start: Staged, size: int, axis_size: int, span: Span) -> Window:
    """The step of `start : start + size` with a run-time start."""
    if not isinstance(start, Tensor) or start.type.rank or start.type.dtype not in (I32, I64):
        raise IndexMistake("a slice must start at one integer", span, found=describe(start))
    if not 0 <= size <= axis_size:
        raise IndexMistake(
            "the slice is longer than the axis", span, expected=f"0 to {axis_size}", found=str(size)
        )
    return Window(start.value, size)


def read(a: Arithmetic, x: Value, steps: Sequence[Step], span: Span) -> Value:
    """`x[steps]`; axes beyond the steps are taken whole."""
    full = _all_axes(a, x, steps)
    x = _static_part(a, x, full)
    x = _dynamic_part(a, x, full)
    gathers = [i for i, s in enumerate(full) if isinstance(s, Gather)]
    if gathers:
        x, index = _joined(a, x, full, gathers, span)
        x = a.b.gather(x, index, axis=gathers[0], batch=0)
    return _final_shape(a, x, steps, full, gathers)


def _all_axes(a: Arithmetic, x: Value, steps: Sequence[Step]) -> list[Step]:
    """One step an axis: new axes left out, missing ones taken whole."""
    real = [s for s in steps if not isinstance(s, New)]
    return [*real, *(Cut(0, n, 1) for n in a.type(x).shape[len(real) :])]


def _static_part(a: Arithmetic, x: Value, full: Sequence[Step]) -> Value:
    shape = a.type(x).shape
    cuts = [_static_cut(step, size) for step, size in zip(full, shape)]
    if all(cut == Cut(0, size, 1) for cut, size in zip(cuts, shape)):
        return x
    bounds = {
        "start": tuple(c.start for c in cuts),
        "limit": tuple(c.stop for c in cuts),
        "stride": tuple(c.step for c in cuts),
    }
    return a.b.slice(x, **bounds)


def _static_cut(step: Step, size: int) -> Cut:
    if isinstance(step, Cut):
        return step
    return Cut(step.index, step.index + 1, 1) if isinstance(step, At) else Cut(0, size, 1)


def _dynamic_part(a: Arithmetic, x: Value, full: Sequence[Step]) -> Value:
    if not any(isinstance(s, Dynamic | Window) for s in full):
        return x
    zero = a.b.const(0, I32)
    starts, sizes = [], []
    for step, size in zip(full, a.type(x).shape):
        match step:
            case Dynamic(index):
                starts.append(index)
                sizes.append(1)
            case Window(start, length):
                starts.append(start)
                sizes.append(length)
            case _:
                starts.append(zero)
                sizes.append(size)
    return a.b.dynamic_slice(x, *starts, sizes=tuple(sizes))


def _joined(
    a: Arithmetic, x: Value, full: Sequence[Step], gathers: list[int], span: Span
) -> tuple[Value, Value]:
    """x with the indexed axes made one, and the index into that axis."""
    indices = [s.index for s in full if isinstance(s, Gather)]
    if len(gathers) == 1:
        return x, indices[0]
    first, last = gathers[0], gathers[-1]
    if gathers != list(range(first, last + 1)):
        raise IndexMistake(
            "index arrays must stand on neighbouring axes", span, hint="use moveaxis"
        )
    b, shape = a.b, a.type(x).shape
    indices = [b.convert(i, dtype=I32) if a.type(i).dtype is not I32 else i for i in indices]
    indices = a.broadcast(indices, span, "index arrays")
    like = a.type(indices[0])
    flat: Value | None = None
    for index, size in zip(indices, shape[first : last + 1]):
        inside = b.max(b.min(index, b.const(size - 1, like)), b.const(0, like))
        flat = inside if flat is None else b.add(b.mul(flat, b.const(size, like)), inside)
    assert flat is not None
    joined = math.prod(shape[first : last + 1])
    return b.reshape(x, shape=(*shape[:first], joined, *shape[last + 1 :])), flat


def _final_shape(
    a: Arithmetic, x: Value, steps: Sequence[Step], full: Sequence[Step], gathers: list[int]
) -> Value:
    """Drop the axes of scalar indices, add the new ones."""
    sizes = iter(a.type(x).shape)
    index_rank = a.type(x).rank - (len(full) - len(gathers)) if gathers else 0
    written = sum(not isinstance(s, New) for s in steps)
    shape: list[int] = []
    placed = False
    for step in [*steps, *full[written:]]:
        match step:
            case New():
                shape.append(1)
            case Gather():
                if not placed:
                    shape += [next(sizes) for _ in range(index_rank)]
                placed = True
            case Cut() | Window():
                shape.append(next(sizes))
            case _:
                next(sizes)
    if tuple(shape) == a.type(x).shape:
        return x
    return a.b.reshape(x, shape=tuple(shape))


def write(a: Arithmetic, x: Value, steps: Sequence[Step], value: Staged, span: Span) -> Value:
    """A copy of x with `x[steps]` replaced by `value`, broadcast to that part's shape."""
    b, type = a.b, a.type(x)
    full = _all_axes(a, x, steps)
    if any(isinstance(s, Gather) for s in full) or any(isinstance(s, New) for s in steps):
        raise IndexMistake(
            "an index array cannot be assigned to",
            span,
            hint="x[index] += v adds at index arrays; one element is x[i] = v",
        )
    part = tuple(_length(s) for s in full)
    kept = tuple(n for n, s in zip(part, full) if isinstance(s, Cut | Window))
    v = fitted(a, type.dtype, kept, value, span)
    if any(isinstance(s, Cut) and s.step != 1 for s in full):
        return _strided_write(a, x, full, v, span)
    if part == type.shape and all(isinstance(s, Cut) for s in full):
        return v
    v = b.reshape(v, shape=part) if kept != part else v
    return b.dynamic_update(x, v, *(_start(a, s) for s in full))


def fitted(
    a: Arithmetic, dtype: object, shape: tuple[int, ...], value: Staged, span: Span
) -> Value:
    """`value` as an array of `dtype` and `shape`; literals adapt, sizes 1 stretch."""
    weak = isinstance(value, Static) or (isinstance(value, Tensor) and value.weak)
    v = a.tensor(value, span, dtype if weak else None)  # type: ignore[arg-type]
    type = a.type(v)
    if type.dtype is not dtype:
        raise DTypeMistake(
            "the assigned value has another type",
            span,
            expected=str(dtype),
            found=str(type),
            hint=f"convert it: {dtype}(...)",
        )
    lead = len(shape) - type.rank
    if lead < 0 or any(n not in (1, m) for n, m in zip(type.shape, shape[lead:])):
        wanted = type.with_shape(shape)
        raise SizeMistake(
            "the assigned value does not fit", span, expected=str(wanted), found=str(type)
        )
    return a.b.expand(v, shape)


def _length(step: Step) -> int:
    match step:
        case Cut(start, stop, by):
            return -(-(stop - start) // by)
        case Window(_, size):
            return size
    return 1


def _start(a: Arithmetic, step: Step) -> Value:
    match step:
        case Dynamic(index):
            return index
        case Window(start, _):
            return start
        case Cut(start, _, _):
            return a.b.const(start, I32)
        case At(at):
            return a.b.const(at, I32)
    raise AssertionError(step)


def _strided_write(a: Arithmetic, x: Value, full: Sequence[Step], v: Value, span: Span) -> Value:
    """A write with steps above 1: place the values by padding, choose by a mask."""
    b, type = a.b, a.type(x)
    low, high, interior, part = [], [], [], []
    for step, size in zip(full, type.shape):
        if isinstance(step, Dynamic | Window):
            raise IndexMistake("a stepped slice cannot be set beside a run-time index", span)
        cut = _static_cut(step, size)
        count = _length(cut)
        reach = max(0, count - 1) * cut.step + (1 if count else 0)
        low.append(cut.start)
        high.append(size - cut.start - reach)
        interior.append(cut.step - 1)
        part.append(count)
    if 0 in part:
        return x
    v = b.reshape(v, shape=tuple(part))
    widths = {"low": tuple(low), "high": tuple(high), "interior": tuple(interior)}
    placed = b.pad(v, b.zeros(type.with_shape(())), **widths)
    mask = b.pad(b.const(1, a.type(v).with_dtype(I32)), b.const(0, I32), **widths)
    return b.select(b.ne(mask, b.const(0, mask)), placed, x)


def add_at(a: Arithmetic, x: Value, steps: Sequence[Step], value: Value, span: Span) -> Value:
    """A copy of x with `value` added at index arrays; equal indices add up.

    `value` has x's dtype and broadcasts to the shape of `x[steps]`.
    """
    full = _all_axes(a, x, steps)
    whole = [Cut(0, n, 1) if isinstance(s, Gather) else s for s, n in zip(full, a.type(x).shape)]
    part = read(a, x, whole, span)
    inner: list[Step] = []  # steps on `part`, whose scalar axes are gone
    for step in full:
        if isinstance(step, Cut | Window):
            inner.append(Cut(0, _length(step), 1))
        elif isinstance(step, Gather):
            inner.append(step)
    gathers = [i for i, s in enumerate(inner) if isinstance(s, Gather)]
    joined, index = _joined(a, part, inner, gathers, span)
    axis, shape = gathers[0], a.type(joined).shape
    update = (*shape[:axis], *a.type(index).shape, *shape[axis + 1 :])
    v = fitted(a, a.type(x).dtype, update, Tensor(value), span)
    added = a.b.scatter_add(joined, index, v, axis=axis, batch=0)
    added = a.b.reshape(added, shape=a.type(part).shape)
    return write(a, x, whole, Tensor(added), span)
