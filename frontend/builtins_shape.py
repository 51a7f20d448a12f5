"""Builtins that rearrange arrays and pick elements from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, I64
from .arithmetic import is_weak
from .builtin_table import builtin
from .builtins_reduce import axes_of, one_axis
from .indexing import fitted
from .type_errors import DTypeMistake, IndexMistake, SizeMistake, TypeMistake
from .values import Staged, Tensor, Tuple, describe

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("reshape(x, *shape)")
def _reshape(low: Lowering, span: Span, x: Staged, shape: tuple[Staged, ...]) -> Staged:
    """The same elements in row-major order: reshape(x, (n, -1)); one size may be -1."""
    v = low.a.tensor(x, span)
    items = shape
    if len(shape) == 1 and isinstance(shape[0], Tuple):
        items = shape[0].items
    sizes = [low.a.static_int(i, span, "a size") for i in items]
    size = low.a.type(v).size
    if sizes.count(-1) == 1:
        known = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = size // known if known else 0
    if math.prod(sizes) != size or any(n < 0 for n in sizes):
        raise SizeMistake(
            "reshape keeps the number of elements",
            span,
            expected=f"{size} elements, as in {low.a.type(v)}",
            found=f"{[low.a.static_int(i, span, 'a size') for i in items]}",
        )
    return Tensor(low.b.reshape(v, shape=tuple(sizes)), is_weak(x))


@builtin("flatten(x)")
def _flatten(low: Lowering, span: Span, x: Staged) -> Staged:
    """The elements in row-major order along one axis."""
    v = low.a.tensor(x, span)
    return Tensor(low.b.reshape(v, shape=(low.a.type(v).size,)), is_weak(x))


@builtin("broadcast_to(x, shape)")
def _broadcast_to(low: Lowering, span: Span, x: Staged, shape: Staged) -> Staged:
    """x repeated along new leading axes and axes of size 1."""
    v = low.a.tensor(x, span)
    sizes, type = low.a.shape_of(shape, span), low.a.type(v)
    lead = len(sizes) - type.rank
    if lead < 0 or any(n not in (1, m) for n, m in zip(type.shape, sizes[lead:])):
        raise SizeMistake(
            "x does not broadcast to that shape", span, expected=str(list(sizes)), found=str(type)
        )
    return Tensor(low.b.expand(v, sizes), is_weak(x))


@builtin("squeeze(x, axis)")
def _squeeze(low: Lowering, span: Span, x: Staged, axis: Staged) -> Staged:
    """x without axes of size 1."""
    v = low.a.tensor(x, span)
    shape = low.a.type(v).shape
    axes = axes_of(low, axis, len(shape), span)
    if any(shape[i] != 1 for i in axes):
        raise SizeMistake("only axes of size 1 can go", span, found=str(low.a.type(v)))
    kept = tuple(n for i, n in enumerate(shape) if i not in axes)
    return Tensor(low.b.reshape(v, shape=kept), is_weak(x))


@builtin("transpose(x, axes=None)")
def _transpose(low: Lowering, span: Span, x: Staged, axes: Staged) -> Staged:
    """Axes in another order; reversed without `axes`. For a matrix also x.T."""
    v = low.a.tensor(x, span)
    rank = low.a.type(v).rank
    perm = tuple(reversed(range(rank)))
    if isinstance(axes, Tuple):
        perm = tuple(one_axis(low, i, rank, span) for i in axes.items)
    if sorted(perm) != list(range(rank)):
        raise IndexMistake("transpose needs every axis once", span, found=str(list(perm)))
    return Tensor(low.b.transpose(v, perm=perm), is_weak(x))


@builtin("swapaxes(x, first, second)")
def _swapaxes(low: Lowering, span: Span, x: Staged, first: Staged, second: Staged) -> Staged:
    """Two axes exchanged."""
    v = low.a.tensor(x, span)
    rank = low.a.type(v).rank
    i, j = one_axis(low, first, rank, span), one_axis(low, second, rank, span)
    perm = list(range(rank))
    perm[i], perm[j] = perm[j], perm[i]
    return Tensor(low.b.transpose(v, perm=tuple(perm)), is_weak(x))


@builtin("moveaxis(x, source, target)")
def _moveaxis(low: Lowering, span: Span, x: Staged, source: Staged, target: Staged) -> Staged:
    """One axis moved to another position, the others in their order."""
    v = low.a.tensor(x, span)
    rank = low.a.type(v).rank
    i, j = one_axis(low, source, rank, span), one_axis(low, target, rank, span)
    perm = [n for n in range(rank) if n != i]
    perm.insert(j, i)
    return Tensor(low.b.transpose(v, perm=tuple(perm)), is_weak(x))


def _parts(low: Lowering, items: Staged, what: str, span: Span) -> list[Value]:
    if isinstance(items, Tensor) and items.type.rank:
        items = Tuple(tuple(low.rows(items, span)))
    if not isinstance(items, Tuple) or not items.items:
        raise TypeMistake(f"'{what}' takes a tuple of arrays", span, found=describe(items))
    return low.a.promote(items.items, span, f"'{what}'")


@builtin("concat(items, axis=0)")
def _concat(low: Lowering, span: Span, items: Staged, axis: Staged) -> Staged:
    """Arrays of a tuple end to end along an axis."""
    values = _parts(low, items, "concat", span)
    types = [low.a.type(v) for v in values]
    n = one_axis(low, axis, types[0].rank, span)
    rest = [(*t.shape[:n], *t.shape[n + 1 :]) for t in types]
    if any(r != rest[0] for r in rest) or any(t.rank != types[0].rank for t in types):
        raise SizeMistake(
            "'concat' needs arrays that agree in all other axes",
            span,
            expected=f"shapes equal but for axis {n}",
            found=", ".join(map(str, types)),
        )
    return Tensor(low.b.concatenate(*values, axis=n))


@builtin("stack(items, axis=0)")
def _stack(low: Lowering, span: Span, items: Staged, axis: Staged) -> Staged:
    """Arrays of a tuple along a new axis."""
    values = _parts(low, items, "stack", span)
    types = [low.a.type(v) for v in values]
    if any(t != types[0] for t in types):
        found = ", ".join(map(str, types))
        raise SizeMistake("'stack' needs arrays of one shape", span, found=found)
    shape = types[0].shape
    n = one_axis(low, axis, len(shape) + 1, span)
    rows = [low.b.reshape(v, shape=(*shape[:n], 1, *shape[n:])) for v in values]
    return Tensor(low.b.concatenate(*rows, axis=n))


@builtin("flip(x, axis=None)")
def _flip(low: Lowering, span: Span, x: Staged, axis: Staged) -> Staged:
    """The order along axes turned round."""
    v = low.a.tensor(x, span)
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    return Tensor(low.b.reverse(v, axes=axes), is_weak(x))


@builtin("roll(x, shift, axis=0)")
def _roll(low: Lowering, span: Span, x: Staged, shift: Staged, axis: Staged) -> Staged:
    """Elements moved along an axis, those pushed off the end coming back in front."""
    v = low.a.tensor(x, span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    size = low.a.type(v).shape[n]
    cut = -low.a.static_int(shift, span, "a shift") % size if size else 0
    if not cut:
        return Tensor(v)
    return Tensor(low.b.concatenate(_part(low, v, n, cut, size), _part(low, v, n, 0, cut), axis=n))


def _part(low: Lowering, v: Value, axis: int, start: int, stop: int) -> Value:
    shape = low.a.type(v).shape
    begin = tuple(start if i == axis else 0 for i in range(len(shape)))
    end = tuple(stop if i == axis else n for i, n in enumerate(shape))
    return low.b.slice(v, start=begin, limit=end, stride=(1,) * len(shape))


@builtin("repeat(x, count, axis=0)")
def _repeat(low: Lowering, span: Span, x: Staged, count: Staged, axis: Staged) -> Staged:
    """Every element along an axis `count` times in a row."""
    return _copies(low, span, x, count, axis, after=True)


@builtin("tile(x, count, axis=0)")
def _tile(low: Lowering, span: Span, x: Staged, count: Staged, axis: Staged) -> Staged:
    """The whole array `count` times along an axis."""
    return _copies(low, span, x, count, axis, after=False)


def _copies(
    low: Lowering, span: Span, x: Staged, count: Staged, axis: Staged, after: bool
) -> Staged:
    v = low.a.tensor(x, span)
    shape = low.a.type(v).shape
    n = one_axis(low, axis, len(shape), span)
    times = low.a.count_of(count, span)
    at = n + 1 if after else n
    wide = (*shape[:at], times, *shape[at:])
    axes = tuple(i if i < at else i + 1 for i in range(len(shape)))
    out = low.b.broadcast(v, shape=wide, axes=axes)
    return Tensor(low.b.reshape(out, shape=(*shape[:n], shape[n] * times, *shape[n + 1 :])))


@builtin("pad(x, widths, value=0)")
def _pad(low: Lowering, span: Span, x: Staged, widths: Staged, value: Staged) -> Staged:
    """x with `value` around it; widths: a (before, after) pair for every axis."""
    v = low.a.tensor(x, span)
    pairs = widths.items if isinstance(widths, Tuple) else ()
    if low.a.type(v).rank == 1 and len(pairs) == 2 and not isinstance(pairs[0], Tuple):
        pairs = (widths,)
    sizes = [low.a.shape_of(p, span) for p in pairs]
    if len(sizes) != low.a.type(v).rank or any(len(s) != 2 for s in sizes):
        raise TypeMistake(
            "'pad' takes a (before, after) pair for every axis", span, found=describe(widths)
        )
    fill = low.a.tensor(value, span, low.a.type(v).dtype)
    if low.a.type(fill).rank or low.a.type(fill).dtype is not low.a.type(v).dtype:
        raise TypeMistake("'pad' fills with one value of x's type", span, found=describe(value))
    before, behind = (tuple(s[i] for s in sizes) for i in range(2))
    return Tensor(low.b.pad(v, fill, low=before, high=behind, interior=(0,) * len(sizes)))


def index_array(low: Lowering, index: Staged, what: str, span: Span) -> Value:
    """An index argument as integers, or DTypeMistake."""
    i = low.a.tensor(index, span)
    if low.a.type(i).dtype not in (I32, I64):
        raise DTypeMistake(f"'{what}' needs integer indices", span, found=describe(index))
    return i


@builtin("take(x, index, axis=0)")
def _take(low: Lowering, span: Span, x: Staged, index: Staged, axis: Staged) -> Staged:
    """Elements along an axis at run-time indices (clamped), whose shape replaces that axis."""
    v, i = low.a.tensor(x, span), index_array(low, index, "take", span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    if low.a.type(v).shape[n] == 0 and low.a.type(i).size:
        raise SizeMistake("an empty axis has no elements", span, found=str(low.a.type(v)))
    return Tensor(low.b.gather(v, i, axis=n, batch=0))


@builtin("take_along(x, index)")
def _take_along(low: Lowering, span: Span, x: Staged, index: Staged) -> Staged:
    """x[..., index[...]]: one element of the last axis for every index of the others."""
    v, i = low.a.tensor(x, span), index_array(low, index, "take_along", span)
    shape = low.a.type(v).shape
    if not shape or low.a.type(i).shape != shape[:-1]:
        raise SizeMistake(
            "'take_along' needs an index for all but the last axis",
            span,
            expected=f"i32{list(shape[:-1])} for {low.a.type(v)}",
            found=describe(index),
        )
    if shape[-1] == 0 and low.a.type(i).size:
        raise SizeMistake("an empty axis has no elements", span, found=str(low.a.type(v)))
    rank = len(shape) - 1
    return Tensor(low.b.gather(v, i, axis=rank, batch=rank))


@builtin("scatter_add(x, index, update, axis=0)")
def _scatter(
    low: Lowering, span: Span, x: Staged, index: Staged, update: Staged, axis: Staged
) -> Staged:
    """x plus updates at run-time indices (clamped) along an axis; equal indices add up."""
    v, u = low.a.promote([x, update], span, "'scatter_add'")
    if not low.a.type(v).dtype.is_number:
        raise DTypeMistake("'scatter_add' adds numbers", span, found=describe(x))
    i = index_array(low, index, "scatter_add", span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    shape = low.a.type(v).shape
    part = (*shape[:n], *low.a.type(i).shape, *shape[n + 1 :])
    u = fitted(low.a, low.a.type(v).dtype, part, Tensor(u), span)
    return Tensor(low.b.scatter_add(v, i, u, axis=n, batch=0))


def _declare_triangle(name: str, compare: str, side: str) -> None:
    def run(low: Lowering, span: Span, x: Staged, offset: Staged) -> Staged:
        v = low.a.tensor(x, span)
        kind = low.a.type(v)
        if kind.rank < 2:
            raise TypeMistake(f"'{name}' needs matrices", span, found=str(kind))
        reach = kind.shape[-1] + kind.shape[-2]  # beyond that an offset changes nothing
        k = min(max(low.a.static_int(offset, span, "the offset"), -reach), reach)
        rows = low.b.iota(type=kind.with_dtype(I32), axis=kind.rank - 2)
        columns = low.b.iota(type=kind.with_dtype(I32), axis=kind.rank - 1)
        rows = low.b.add(rows, low.b.const(k, rows)) if k else rows
        kept = low.b.op(compare, [rows, columns])[0]
        return Tensor(low.b.select(kept, v, low.b.const(0, v)), is_weak(x))

    doc = f"Matrices with zeros {side} the diagonal that is `offset` right of the main one."
    builtin(f"{name}(x, offset=0)", doc)(run)


_declare_triangle("tril", "ge", "above")
_declare_triangle("triu", "le", "below")
