"""Builtins that reduce, make and rearrange arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, I32, I64, TensorType
from .builtin_table import builtin
from .builtins_math import float_tensor
from .values import SizeMistake, Staged, Static, Tensor, Tuple, TypeMistake, describe

NONE = Static(None)
FALSE = Static(False)
ZERO = Static(0)


def axes_of(low: Any, axis: Staged, rank: int, span: Span) -> tuple[int, ...]:
    """An `axis=` argument as sorted axes: None means all, negative ones count from the end."""
    if isinstance(axis, Static) and axis.value is None:
        return tuple(range(rank))
    items = axis.items if isinstance(axis, Tuple) else (axis,)
    axes = tuple(one_axis(low, i, rank, span) for i in items)
    if len(set(axes)) != len(axes):
        raise TypeMistake("an axis is named twice", span, found=str(list(axes)))
    return tuple(sorted(axes))


def one_axis(low: Any, axis: Staged, rank: int, span: Span) -> int:
    """One axis number, made non-negative."""
    n = low.a.static_int(axis, span, "an axis")
    if not -rank <= n < rank:
        raise TypeMistake(f"there is no axis {n}", span, expected=f"{-rank} to {rank - 1}")
    return int(n % rank)


def reduce(low: Any, op: str, v: Value, axes: tuple[int, ...], keepdims: Staged) -> Value:
    """A reduction op, with the reduced axes kept as size 1 if asked."""
    shape = low.a.type(v).shape
    out = low.b.op(op, [v], axes=axes)[0] if axes else v
    if isinstance(keepdims, Static) and keepdims.value:
        out = low.b.reshape(out, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))
    return out  # type: ignore[no-any-return]


def _counted(low: Any, v: Value) -> Value:
    """Bools as i32, to be summed."""
    return low.b.convert(v, dtype=I32) if low.a.type(v).dtype is BOOL else v  # type: ignore[no-any-return]


def _need_elements(low: Any, v: Value, axes: tuple[int, ...], span: Span, what: str) -> None:
    if any(low.a.type(v).shape[i] == 0 for i in axes):
        raise SizeMistake(f"'{what}' of no elements has no value", span, found=str(low.a.type(v)))


@builtin("sum", "x", ("axis", NONE), ("keepdims", FALSE))
def _sum(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Sum of elements (of trues, for bools)."""
    v = _counted(low, low.a.tensor(x, span))
    return Tensor(reduce(low, "reduce_sum", v, axes_of(low, axis, low.a.type(v).rank, span), keepdims))


@builtin("prod", "x", ("axis", NONE), ("keepdims", FALSE))
def _prod(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Product of elements."""
    v = low.a.tensor(x, span)
    return Tensor(reduce(low, "reduce_prod", v, axes_of(low, axis, low.a.type(v).rank, span), keepdims))


def _extreme(name: str, op: str, pair: str) -> None:
    def run(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged, rest: list[Staged]) -> Staged:
        if rest:
            raise TypeMistake(f"'{name}' takes an array, or two values", span)
        if isinstance(x, Tensor) and not x.type.rank and axis is not NONE:
            return _two(low, span, x, axis)
        if isinstance(x, Static) or (isinstance(axis, Tensor)):
            return _two(low, span, x, axis)
        v = low.a.tensor(x, span)
        axes = axes_of(low, axis, low.a.type(v).rank, span)
        _need_elements(low, v, axes, span, name)
        return Tensor(reduce(low, op, v, axes, keepdims))

    def _two(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
        from .builtin_table import BUILTINS

        return BUILTINS[pair].call(low, [x, y], {}, span)

    run.__doc__ = f"The {name}imum of elements, or of two scalars: {name}(a, b)."
    builtin(name, "x", ("axis", NONE), ("keepdims", FALSE), variadic=True)(run)


_extreme("max", "reduce_max", "maximum")
_extreme("min", "reduce_min", "minimum")


@builtin("mean", "x", ("axis", NONE), ("keepdims", FALSE))
def _mean(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Mean of elements; integers give `real`."""
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_float:
        v = low.b.convert(v, dtype=low.session.real)
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    _need_elements(low, v, axes, span, "mean")
    count = math.prod(low.a.type(v).shape[i] for i in axes)
    total = reduce(low, "reduce_sum", v, axes, keepdims)
    return Tensor(low.b.div(total, low.b.const(float(count), total)))


@builtin("var", "x", ("axis", NONE), ("keepdims", FALSE))
def _var(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Variance of elements (divided by their count)."""
    centred = low.a.binary("-", x, _mean(low, span, x, axis, Static(True)), span)
    return _mean(low, span, low.a.binary("*", centred, centred, span), axis, keepdims)  # type: ignore[no-any-return]


@builtin("std", "x", ("axis", NONE), ("keepdims", FALSE))
def _std(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Standard deviation of elements."""
    return Tensor(low.b.sqrt(_var(low, span, x, axis, keepdims).value))


def _bool_reduction(name: str, op: str) -> None:
    def run(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
        v = low.a.tensor(x, span)
        if low.a.type(v).dtype is not BOOL:
            raise TypeMistake(f"'{name}' needs bools", span, found=describe(x))
        return Tensor(reduce(low, op, v, axes_of(low, axis, low.a.type(v).rank, span), keepdims))

    run.__doc__ = f"Whether {name} of the elements hold{'s' if name == 'any' else ''}."
    builtin(name, "x", ("axis", NONE), ("keepdims", FALSE))(run)


_bool_reduction("any", "reduce_max")
_bool_reduction("all", "reduce_min")


def _arg_reduction(name: str) -> None:
    def run(low: Any, span: Span, x: Staged, axis: Staged) -> Staged:
        v = low.a.tensor(x, span)
        if isinstance(axis, Static) and axis.value is None:
            v = low.b.reshape(v, shape=(low.a.type(v).size,))
            axis = ZERO
        n = one_axis(low, axis, low.a.type(v).rank, span)
        _need_elements(low, v, (n,), span, name)
        return Tensor(low.b.op(name, [v], axis=n)[0])

    run.__doc__ = f"Index of the first {name[3:]}imum along an axis (of the flat array without one)."
    builtin(name, "x", ("axis", NONE))(run)


_arg_reduction("argmax")
_arg_reduction("argmin")


@builtin("logsumexp", "x", ("axis", NONE), ("keepdims", FALSE))
def _logsumexp(low: Any, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """log(sum(exp(x))), without overflow; -inf where all are -inf."""
    v = float_tensor(low, x, span, "logsumexp")
    b, shape = low.b, low.a.type(v).shape
    axes = axes_of(low, axis, len(shape), span)
    _need_elements(low, v, axes, span, "logsumexp")
    top = b.stop_gradient(b.reduce_max(v, axes=axes))
    top = b.select(b.is_finite(top), top, b.const(0, top))
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    shifted = b.sub(v, b.broadcast(top, shape=shape, axes=kept))
    out = b.add(b.log(b.reduce_sum(b.exp(shifted), axes=axes)), top)
    if isinstance(keepdims, Static) and keepdims.value:
        out = b.reshape(out, shape=tuple(1 if i in axes else n for i, n in enumerate(shape)))
    return Tensor(out)


@builtin("cumsum", "x", ("axis", ZERO), ("reverse", FALSE))
def _cumsum(low: Any, span: Span, x: Staged, axis: Staged, reverse: Staged) -> Staged:
    """Running sum along an axis."""
    v = _counted(low, low.a.tensor(x, span))
    n = one_axis(low, axis, low.a.type(v).rank, span)
    return Tensor(low.b.cumsum(v, axis=n, reverse=bool(getattr(reverse, "value", False))))


@builtin("sort", "x", ("axis", Static(-1)))
def _sort(low: Any, span: Span, x: Staged, axis: Staged) -> Staged:
    """Elements in ascending order along an axis, NaN last."""
    v = low.a.tensor(x, span)
    return Tensor(low.b.op("sort", [v], axis=one_axis(low, axis, low.a.type(v).rank, span))[0])


@builtin("argsort", "x", ("axis", Static(-1)))
def _argsort(low: Any, span: Span, x: Staged, axis: Staged) -> Staged:
    """Indices that sort x along an axis; equal elements keep their order."""
    v = low.a.tensor(x, span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    index = low.b.iota(type=low.a.type(v).with_dtype(I32), axis=n)
    return Tensor(low.b.op("sort", [v, index], axis=n)[1])


# Making arrays


@builtin("zeros", "shape", variadic=True)
def _zeros(low: Any, span: Span, shape: Staged, rest: list[Staged]) -> Staged:
    """An array of 0.0 of the default float type; zeros((n, d)) or zeros(n, d)."""
    return _full(low, span, _joined(shape, rest), Static(0.0))  # type: ignore[no-any-return]


@builtin("ones", "shape", variadic=True)
def _ones(low: Any, span: Span, shape: Staged, rest: list[Staged]) -> Staged:
    """An array of 1.0 of the default float type."""
    return _full(low, span, _joined(shape, rest), Static(1.0))  # type: ignore[no-any-return]


def _joined(shape: Staged, rest: Sequence[Staged]) -> Staged:
    return Tuple((shape, *rest)) if rest else shape


@builtin("full", "shape", "value")
def _full(low: Any, span: Span, shape: Staged, value: Staged) -> Staged:
    """An array with one value everywhere."""
    sizes = low.a.shape_of(shape, span)
    return Tensor(low.b.expand(low.a.tensor(value, span), sizes))


@builtin("zeros_like", "x")
def _zeros_like(low: Any, span: Span, x: Staged) -> Staged:
    """Zeros of the shape and type of x."""
    return Tensor(low.b.const(0, low.a.type(low.a.tensor(x, span))))


@builtin("ones_like", "x")
def _ones_like(low: Any, span: Span, x: Staged) -> Staged:
    """Ones of the shape and type of x."""
    return Tensor(low.b.const(1, low.a.type(low.a.tensor(x, span))))


@builtin("eye", "n")
def _eye(low: Any, span: Span, n: Staged) -> Staged:
    """The identity matrix."""
    size = low.a.shape_of(n, span)[0]
    kind = TensorType(I32, (size, size))
    same = low.b.eq(low.b.iota(type=kind, axis=0), low.b.iota(type=kind, axis=1))
    return Tensor(low.b.convert(same, dtype=low.session.real))


@builtin("arange", "start", ("stop", NONE))
def _arange(low: Any, span: Span, start: Staged, stop: Staged) -> Staged:
    """i32 numbers start, start + 1, ... below stop; arange(n) counts from 0."""
    first = low.a.static_int(start, span, "a bound")
    low_, high = (0, first) if stop is NONE else (first, low.a.static_int(stop, span, "a bound"))
    line = low.b.iota(type=TensorType(I32, (max(0, high - low_),)), axis=0)
    return Tensor(low.b.add(line, low.b.const(low_, line)) if low_ else line)


@builtin("linspace", "start", "stop", "count")
def _linspace(low: Any, span: Span, start: Staged, stop: Staged, count: Staged) -> Staged:
    """`count` evenly spaced numbers from start to stop, both included."""
    n = low.a.shape_of(count, span)[0]
    line = low.b.iota(type=TensorType(low.session.real, (n,)), axis=0)
    part = Tensor(low.b.div(line, low.b.const(float(max(1, n - 1)), line)))
    width = low.a.binary("-", stop, start, span)
    return low.a.binary("+", start, low.a.binary("*", part, width, span), span)  # type: ignore[no-any-return]


@builtin("one_hot", "index", "n")
def _one_hot(low: Any, span: Span, index: Staged, n: Staged) -> Staged:
    """1.0 at the index along a new last axis of size n, 0.0 elsewhere."""
    v = low.a.tensor(index, span)
    if not low.a.type(v).dtype.is_int:
        raise TypeMistake("'one_hot' needs integer indices", span, found=describe(index))
    shape = (*low.a.type(v).shape, low.a.shape_of(n, span)[0])
    wide = low.b.broadcast(v, shape=shape, axes=tuple(range(len(shape) - 1)))
    places = low.b.iota(type=low.a.type(wide), axis=len(shape) - 1)
    return Tensor(low.b.convert(low.b.eq(wide, places), dtype=low.session.real))


# Rearranging


@builtin("reshape", "x", "shape")
def _reshape(low: Any, span: Span, x: Staged, shape: Staged) -> Staged:
    """The same elements in row-major order; one size may be -1."""
    v = low.a.tensor(x, span)
    items = shape.items if isinstance(shape, Tuple) else (shape,)
    sizes = [low.a.static_int(i, span, "a size") for i in items]
    size = low.a.type(v).size
    if sizes.count(-1) == 1:
        known = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = size // known if known else 0
    if math.prod(sizes) != size or any(n < 0 for n in sizes):
        raise SizeMistake(
            "reshape keeps the number of elements", span, expected=f"{size} elements", found=str(sizes)
        )
    return Tensor(low.b.reshape(v, shape=tuple(sizes)))


@builtin("transpose", "x", ("axes", NONE))
def _transpose(low: Any, span: Span, x: Staged, axes: Staged) -> Staged:
    """Axes in another order; reversed without `axes`."""
    v = low.a.tensor(x, span)
    rank = low.a.type(v).rank
    perm = tuple(reversed(range(rank)))
    if isinstance(axes, Tuple):
        perm = tuple(one_axis(low, i, rank, span) for i in axes.items)
    if sorted(perm) != list(range(rank)):
        raise TypeMistake("transpose needs every axis once", span, found=str(list(perm)))
    return Tensor(low.b.transpose(v, perm=perm))


@builtin("swapaxes", "x", "first", "second")
def _swapaxes(low: Any, span: Span, x: Staged, first: Staged, second: Staged) -> Staged:
    """Two axes exchanged."""
    v = low.a.tensor(x, span)
    rank = low.a.type(v).rank
    i, j = one_axis(low, first, rank, span), one_axis(low, second, rank, span)
    perm = list(range(rank))
    perm[i], perm[j] = perm[j], perm[i]
    return Tensor(low.b.transpose(v, perm=tuple(perm)))


@builtin("concat", "items", ("axis", ZERO))
def _concat(low: Any, span: Span, items: Staged, axis: Staged) -> Staged:
    """Arrays of a tuple end to end along an axis."""
    if not isinstance(items, Tuple) or not items.items:
        raise TypeMistake("'concat' takes a tuple of arrays", span, found=describe(items))
    values = low.a.promote(items.items, span, "'concat'")
    n = one_axis(low, axis, low.a.type(values[0]).rank, span)
    return Tensor(low.b.concatenate(*values, axis=n))


@builtin("stack", "items", ("axis", ZERO))
def _stack(low: Any, span: Span, items: Staged, axis: Staged) -> Staged:
    """Arrays of a tuple along a new axis."""
    if not isinstance(items, Tuple) or not items.items:
        raise TypeMistake("'stack' takes a tuple of arrays", span, found=describe(items))
    values = low.a.promote(items.items, span, "'stack'")
    shape = low.a.type(values[0]).shape
    n = one_axis(low, axis, len(shape) + 1, span)
    rows = [low.b.reshape(v, shape=(*shape[:n], 1, *shape[n:])) for v in values]
    return Tensor(low.b.concatenate(*rows, axis=n))


@builtin("flip", "x", ("axis", NONE))
def _flip(low: Any, span: Span, x: Staged, axis: Staged) -> Staged:
    """The order along axes turned round."""
    v = low.a.tensor(x, span)
    return Tensor(low.b.reverse(v, axes=axes_of(low, axis, low.a.type(v).rank, span)))


@builtin("roll", "x", "shift", ("axis", ZERO))
def _roll(low: Any, span: Span, x: Staged, shift: Staged, axis: Staged) -> Staged:
    """Elements moved along an axis, those pushed off the end coming back in front."""
    v = low.a.tensor(x, span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    size = low.a.type(v).shape[n]
    cut = -low.a.static_int(shift, span, "a shift") % size if size else 0
    if not cut:
        return Tensor(v)
    return Tensor(low.b.concatenate(_part(low, v, n, cut, size), _part(low, v, n, 0, cut), axis=n))


def _part(low: Any, v: Value, axis: int, start: int, stop: int) -> Value:
    shape = low.a.type(v).shape
    begin = tuple(start if i == axis else 0 for i in range(len(shape)))
    end = tuple(stop if i == axis else n for i, n in enumerate(shape))
    return low.b.slice(v, start=begin, limit=end, stride=(1,) * len(shape))  # type: ignore[no-any-return]


@builtin("repeat", "x", "count", ("axis", ZERO))
def _repeat(low: Any, span: Span, x: Staged, count: Staged, axis: Staged) -> Staged:
    """Every element along an axis `count` times in a row."""
    return _copies(low, span, x, count, axis, after=True)


@builtin("tile", "x", "count", ("axis", ZERO))
def _tile(low: Any, span: Span, x: Staged, count: Staged, axis: Staged) -> Staged:
    """The whole array `count` times along an axis."""
    return _copies(low, span, x, count, axis, after=False)


def _copies(low: Any, span: Span, x: Staged, count: Staged, axis: Staged, after: bool) -> Staged:
    v = low.a.tensor(x, span)
    shape = low.a.type(v).shape
    n = one_axis(low, axis, len(shape), span)
    times = low.a.shape_of(count, span)[0]
    at = n + 1 if after else n
    wide = (*shape[:at], times, *shape[at:])
    axes = tuple(i if i < at else i + 1 for i in range(len(shape)))
    out = low.b.broadcast(v, shape=wide, axes=axes)
    return Tensor(low.b.reshape(out, shape=(*shape[:n], shape[n] * times, *shape[n + 1 :])))


@builtin("pad", "x", "widths", ("value", ZERO))
def _pad(low: Any, span: Span, x: Staged, widths: Staged, value: Staged) -> Staged:
    """x with `value` around it; widths: a (before, after) pair an axis."""
    v = low.a.tensor(x, span)
    pairs = widths.items if isinstance(widths, Tuple) else ()
    if len(pairs) != low.a.type(v).rank:
        raise TypeMistake("'pad' takes a (before, after) pair for every axis", span)
    sizes = [low.a.shape_of(p, span) for p in pairs]
    if any(len(s) != 2 for s in sizes):
        raise TypeMistake("'pad' takes a (before, after) pair for every axis", span)
    fill = low.a.tensor(value, span, low.a.type(v).dtype)
    return Tensor(
        low.b.pad(
            v,
            fill,
            low=tuple(s[0] for s in sizes),
            high=tuple(s[1] for s in sizes),
            interior=(0,) * len(sizes),
        )
    )


@builtin("take", "x", "index", ("axis", ZERO))
def _take(low: Any, span: Span, x: Staged, index: Staged, axis: Staged) -> Staged:
    """Elements along an axis at run-time indices (clamped)."""
    v, i = low.a.tensor(x, span), low.a.tensor(index, span)
    if low.a.type(i).dtype not in (I32, I64):
        raise TypeMistake("'take' needs integer indices", span, found=describe(index))
    return Tensor(low.b.gather(v, i, axis=one_axis(low, axis, low.a.type(v).rank, span), batch=0))


@builtin("take_along", "x", "index")
def _take_along(low: Any, span: Span, x: Staged, index: Staged) -> Staged:
    """x[..., index[...]]: one element of the last axis for every index of the others."""
    v, i = low.a.tensor(x, span), low.a.tensor(index, span)
    shape = low.a.type(v).shape
    if low.a.type(i).dtype not in (I32, I64) or low.a.type(i).shape != shape[:-1]:
        raise TypeMistake(
            "'take_along' needs an integer index for all but the last axis", span, found=describe(index)
        )
    rank = len(shape) - 1
    return Tensor(low.b.gather(v, i, axis=rank, batch=rank))


@builtin("scatter_add", "x", "index", "update", ("axis", ZERO))
def _scatter(low: Any, span: Span, x: Staged, index: Staged, update: Staged, axis: Staged) -> Staged:
    """x plus updates at run-time indices (clamped) along an axis; equal indices add up."""
    v, i = low.a.tensor(x, span), low.a.tensor(index, span)
    n = one_axis(low, axis, low.a.type(v).rank, span)
    u = low.a.promote([x, update], span, "'scatter_add'")[1]
    shape = low.a.type(v).shape
    u = low.b.expand(u, (*shape[:n], *low.a.type(i).shape, *shape[n + 1 :]))
    return Tensor(low.b.scatter_add(v, i, u, axis=n, batch=0))


@builtin("len", "x")
def _len(low: Any, span: Span, x: Staged) -> Staged:
    """The size of the first axis, or the number of items of a tuple; known when compiling."""
    if isinstance(x, Tuple):
        return Static(len(x.items))
    if isinstance(x, Tensor) and x.type.rank:
        return Static(x.type.shape[0])
    raise TypeMistake("this has no length", span, found=describe(x))


@builtin("shape", "x")
def _shape(low: Any, span: Span, x: Staged) -> Staged:
    """The sizes of all axes, known when compiling."""
    return Tuple(tuple(Static(n) for n in low.a.type(low.a.tensor(x, span)).shape))


def _triangle(name: str, compare: str) -> None:
    def run(low: Any, span: Span, x: Staged, offset: Staged) -> Staged:
        v = low.a.tensor(x, span)
        kind = low.a.type(v)
        if kind.rank < 2:
            raise TypeMistake(f"'{name}' needs matrices", span, found=str(kind))
        k = low.a.static_int(offset, span, "the offset")
        rows = low.b.iota(type=kind.with_dtype(I32), axis=kind.rank - 2)
        cols = low.b.iota(type=kind.with_dtype(I32), axis=kind.rank - 1)
        rows = low.b.add(rows, low.b.const(k, rows)) if k else rows
        return Tensor(low.b.select(low.b.op(compare, [rows, cols])[0], v, low.b.const(0, v)))

    side = "above" if name == "tril" else "below"
    run.__doc__ = f"Matrices with zeros {side} the diagonal moved by `offset`."
    builtin(name, "x", ("offset", ZERO))(run)


_triangle("tril", "ge")
_triangle("triu", "le")
