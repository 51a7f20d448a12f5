"""Builtins that make arrays, and those that tell about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ir.span import Span
from ..ir.types import I32, TensorType
from .arithmetic import is_weak
from .builtin_table import builtin
from .operators import binary
from .type_errors import DTypeMistake, SizeMistake, TypeMistake
from .values import Record, Staged, Static, Tensor, Tuple, Zip, describe, is_none, tensors

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("zeros(*shape)")
def _zeros(low: Lowering, span: Span, shape: tuple[Staged, ...]) -> Staged:
    """An array of 0.0: zeros(n, d) or zeros((n, d)); it takes the float type it meets."""
    return _filled(low, span, _joined(shape), Static(0.0))


@builtin("ones(*shape)")
def _ones(low: Lowering, span: Span, shape: tuple[Staged, ...]) -> Staged:
    """An array of 1.0: ones(n, d) or ones((n, d)); it takes the float type it meets."""
    return _filled(low, span, _joined(shape), Static(1.0))


def _joined(shape: Sequence[Staged]) -> Staged:
    return shape[0] if len(shape) == 1 else Tuple(tuple(shape))


@builtin("full(shape, value)")
def _full(low: Lowering, span: Span, shape: Staged, value: Staged) -> Staged:
    """An array with one value everywhere."""
    return _filled(low, span, shape, value)


def _filled(low: Lowering, span: Span, shape: Staged, value: Staged) -> Staged:
    sizes = low.a.shape_of(shape, span)
    v = low.a.tensor(value, span)
    type = low.a.type(v)
    if type.rank:
        raise TypeMistake("an array is filled with one value", span, found=describe(value))
    if isinstance(value, Static):
        return Tensor(low.a.dense_constant(np.asarray(value.value), type.with_shape(sizes)), True)
    return Tensor(low.b.expand(v, sizes), is_weak(value))


@builtin("zeros_like(x)")
def _zeros_like(low: Lowering, span: Span, x: Staged) -> Staged:
    """Zeros of the shape and type of x (an array, a tuple or a record)."""
    return low.each(low.a.materialise(x, span), lambda v: low.b.zeros(low.a.type(v)))


@builtin("ones_like(x)")
def _ones_like(low: Lowering, span: Span, x: Staged) -> Staged:
    """Ones of the shape and type of x (an array, a tuple or a record)."""
    return low.each(low.a.materialise(x, span), lambda v: low.b.const(1, low.a.type(v)))


@builtin("eye(n)")
def _eye(low: Lowering, span: Span, n: Staged) -> Staged:
    """The identity matrix; it takes the float type it meets."""
    size = low.a.count_of(n, span)
    kind = TensorType(I32, (size, size))
    same = low.b.eq(low.b.iota(type=kind, axis=0), low.b.iota(type=kind, axis=1))
    return Tensor(low.b.convert(same, dtype=low.session.real), weak=True)


@builtin("arange(start, stop=None)")
def _arange(low: Lowering, span: Span, start: Staged, stop: Staged) -> Staged:
    """i32 numbers start, start + 1, ... below stop; arange(n) counts from 0."""
    first = low.a.static_int(start, span, "a bound")
    if is_none(stop):
        first, last = 0, first
    else:
        last = low.a.static_int(stop, span, "a bound")
    if max(abs(first), abs(last)) >= 2**31:
        raise SizeMistake("arange counts in i32", span, found=f"{first} to {last}")
    line = low.b.iota(type=TensorType(I32, (max(0, last - first),)), axis=0)
    return Tensor(low.b.add(line, low.b.const(first, line)) if first else line)


@builtin("linspace(start, stop, count)")
def _linspace(low: Lowering, span: Span, start: Staged, stop: Staged, count: Staged) -> Staged:
    """`count` evenly spaced numbers from start to stop, both included."""
    n = low.a.count_of(count, span)
    line = low.b.iota(type=TensorType(low.session.real, (n,)), axis=0)
    part = Tensor(low.b.div(line, low.b.const(float(max(1, n - 1)), line)), weak=True)
    width = binary(low.a, "-", stop, start, span)
    return binary(low.a, "+", start, binary(low.a, "*", part, width, span), span)


@builtin("one_hot(index, n)")
def _one_hot(low: Lowering, span: Span, index: Staged, n: Staged) -> Staged:
    """1.0 at the index along a new last axis of size n, 0.0 elsewhere."""
    v = low.a.tensor(index, span)
    if not low.a.type(v).dtype.is_int:
        raise DTypeMistake("'one_hot' needs integer indices", span, found=describe(index))
    shape = (*low.a.type(v).shape, low.a.count_of(n, span))
    wide = low.b.broadcast(v, shape=shape, axes=tuple(range(len(shape) - 1)))
    places = low.b.iota(type=low.a.type(wide), axis=len(shape) - 1)
    return Tensor(low.b.convert(low.b.eq(wide, places), dtype=low.session.real), weak=True)


@builtin("len(x)")
def _len(low: Lowering, span: Span, x: Staged) -> Staged:
    """The size of the first axis, or the number of items of a tuple; known when compiling."""
    if isinstance(x, Tuple):
        return Static(len(x.items))
    sizes = {t.type.shape[0] for t in tensors(x) if t.type.rank}
    if isinstance(x, Tensor | Record) and len(sizes) == 1:
        return Static(sizes.pop())
    raise TypeMistake("this has no length", span, found=describe(x))


@builtin("shape(x)")
def _shape(low: Lowering, span: Span, x: Staged) -> Staged:
    """The sizes of all axes, known when compiling; also x.shape."""
    return Tuple(tuple(Static(n) for n in low.a.type(low.a.tensor(x, span)).shape))


@builtin("size(x)")
def _size(low: Lowering, span: Span, x: Staged) -> Staged:
    """The number of elements, known when compiling."""
    return Static(low.a.type(low.a.tensor(x, span)).size)


@builtin("rank(x)")
def _rank(low: Lowering, span: Span, x: Staged) -> Staged:
    """The number of axes, known when compiling."""
    return Static(low.a.type(low.a.tensor(x, span)).rank)


@builtin("zip(*xs)")
def _zip(low: Lowering, span: Span, xs: tuple[Staged, ...]) -> Staged:
    """Arrays (or tuples) of one length to iterate over together: for a, b in zip(xs, ys)."""
    return Zip(xs)


@builtin("enumerate(xs)")
def _enumerate(low: Lowering, span: Span, xs: Staged) -> Staged:
    """An array (or tuple) to iterate over with its index: for i, x in enumerate(xs)."""
    return Zip((None, xs))
