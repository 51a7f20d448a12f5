"""Builtins that reduce, accumulate and order arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, I32
from .arithmetic import is_weak
from .builtin_table import BUILTINS, builtin
from .builtins_math import counted, float_tensor, number_tensor
from .operators import binary
from .type_errors import CallMistake, DTypeMistake, IndexMistake, SizeMistake
from .values import Staged, Static, Tensor, Tuple, describe, is_none

if TYPE_CHECKING:
    from .lower import Lowering


def axes_of(low: Lowering, axis: Staged, rank: int, span: Span) -> tuple[int, ...]:
    """An `axis=` argument as sorted axes: None means all, negative ones count from the end."""
    if is_none(axis):
        return tuple(range(rank))
    items = axis.items if isinstance(axis, Tuple) else (axis,)
    axes = tuple(one_axis(low, i, rank, span) for i in items)
    if len(set(axes)) != len(axes):
        raise IndexMistake("an axis is named twice", span, found=str(list(axes)))
    return tuple(sorted(axes))


def one_axis(low: Lowering, axis: Staged, rank: int, span: Span) -> int:
    """One axis number, made non-negative."""
    n = low.a.static_int(axis, span, "an axis")
    if not -rank <= n < rank:
        expected = f"{-rank} to {rank - 1}" if rank else "no axis: it is a scalar"
        raise IndexMistake(f"there is no axis {n}", span, expected=expected)
    return n % rank


def keep_axes(low: Lowering, v: Value, shape: tuple[int, ...], axes: tuple[int, ...]) -> Value:
    """A reduced value with the reduced `axes` of `shape` back as size 1."""
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    return low.b.reshape(v, shape=kept) if kept != low.a.type(v).shape else v


def reduce(
    low: Lowering, op: str, v: Value, axes: tuple[int, ...], keepdims: Staged, span: Span
) -> Value:
    """A reduction op, with the reduced axes kept as size 1 if asked."""
    shape = low.a.type(v).shape
    out = low.b.op(op, [v], axes=axes)[0] if axes else v
    keep = low.a.static_bool(keepdims, span, "keepdims")
    return keep_axes(low, out, shape, axes) if keep else out


def need_elements(low: Lowering, v: Value, axes: tuple[int, ...], span: Span, what: str) -> None:
    """Raise SizeMistake where an axis to be reduced is empty."""
    if any(low.a.type(v).shape[i] == 0 for i in axes):
        raise SizeMistake(f"'{what}' of no elements has no value", span, found=str(low.a.type(v)))


@builtin("sum(x, axis=None, keepdims=False)")
def _sum(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Sum of elements (of trues, for bools); axis: a number or a tuple of them."""
    v = number_tensor(low, Tensor(counted(low, low.a.tensor(x, span)), is_weak(x)), span, "sum")
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    return Tensor(reduce(low, "reduce_sum", v, axes, keepdims, span), is_weak(x))


@builtin("prod(x, axis=None, keepdims=False)")
def _prod(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Product of elements."""
    v = number_tensor(low, x, span, "prod")
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    return Tensor(reduce(low, "reduce_prod", v, axes, keepdims, span), is_weak(x))


def _declare_extreme(name: str, op: str, pair: str) -> None:
    def run(
        low: Lowering,
        span: Span,
        x: Staged,
        rest: tuple[Staged, ...],
        axis: Staged,
        keepdims: Staged,
    ) -> Staged:
        array = isinstance(x, Tensor) and x.type.rank > 0
        if len(rest) == 1 and not (array and isinstance(rest[0], Static | Tuple)):
            return BUILTINS[pair].complete(low, [x, rest[0]], {}, span)
        if len(rest) > 1:
            raise CallMistake(
                f"'{name}' takes an array, or two values", span, expected=BUILTINS[name].text
            )
        v = low.a.tensor(x, span)
        if not low.a.type(v).dtype.is_number:
            raise DTypeMistake(f"'{name}' needs numbers", span, found=describe(x))
        axes = axes_of(low, rest[0] if rest else axis, low.a.type(v).rank, span)
        need_elements(low, v, axes, span, name)
        return Tensor(reduce(low, op, v, axes, keepdims, span), is_weak(x))

    doc = f"The {name}imum of elements along `axis`; {name}(a, b): of two values, as {pair}."
    builtin(f"{name}(x, *rest, axis=None, keepdims=False)", doc)(run)


_declare_extreme("max", "reduce_max", "maximum")
_declare_extreme("min", "reduce_min", "minimum")


@builtin("mean(x, axis=None, keepdims=False)")
def _mean(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Mean of elements; integers and bools give `real`."""
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_float:
        v = low.b.convert(
            number_tensor(low, Tensor(counted(low, v)), span, "mean"), dtype=low.session.real
        )
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    need_elements(low, v, axes, span, "mean")
    count = math.prod(low.a.type(v).shape[i] for i in axes)
    total = reduce(low, "reduce_sum", v, axes, keepdims, span)
    return Tensor(low.b.div(total, low.b.const(float(count), total)))


@builtin("var(x, axis=None, keepdims=False, correction=0)")
def _var(
    low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged, correction: Staged
) -> Staged:
    """Variance of elements: the sum of squared deviations over (count - correction)."""
    centre = _mean(low, span, x, axis, Static(True))
    deviation = binary(low.a, "-", x, centre, span)
    square = low.a.tensor(binary(low.a, "*", deviation, deviation, span), span)
    axes = axes_of(low, axis, low.a.type(square).rank, span)
    count = math.prod(low.a.type(square).shape[i] for i in axes)
    count -= low.a.static_int(correction, span, "the correction")
    if count <= 0:
        raise SizeMistake("too few elements for a variance", span, found=describe(x))
    total = reduce(low, "reduce_sum", square, axes, keepdims, span)
    return Tensor(low.b.div(total, low.b.const(float(count), total)))


@builtin("std(x, axis=None, keepdims=False, correction=0)")
def _std(
    low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged, correction: Staged
) -> Staged:
    """Standard deviation of elements: the square root of `var`."""
    return Tensor(low.b.sqrt(low.a.tensor(_var(low, span, x, axis, keepdims, correction), span)))


def _declare_bool(name: str, op: str, doc: str) -> None:
    def run(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
        v = low.a.tensor(x, span)
        if low.a.type(v).dtype is not BOOL:
            raise DTypeMistake(f"'{name}' needs bools", span, found=describe(x))
        axes = axes_of(low, axis, low.a.type(v).rank, span)
        return Tensor(reduce(low, op, v, axes, keepdims, span))

    builtin(f"{name}(x, axis=None, keepdims=False)", doc)(run)


_declare_bool("any", "reduce_max", "Whether an element holds.")
_declare_bool("all", "reduce_min", "Whether every element holds.")


def _declare_arg(name: str) -> None:
    def run(low: Lowering, span: Span, x: Staged, axis: Staged) -> Staged:
        v = number_tensor(low, x, span, name)
        if is_none(axis):
            v = low.b.reshape(v, shape=(low.a.type(v).size,))
            axis = Static(0)
        n = one_axis(low, axis, low.a.type(v).rank, span)
        need_elements(low, v, (n,), span, name)
        return Tensor(low.b.op(name, [v], axis=n)[0])

    doc = f"Index (i32) of the first {name[3:]}imum along an axis, or of the flat array."
    builtin(f"{name}(x, axis=None)", doc)(run)


_declare_arg("argmax")
_declare_arg("argmin")


@builtin("logsumexp(x, axis=None, keepdims=False)")
def _logsumexp(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """log(sum(exp(x))), without overflow; -inf where all are -inf."""
    v = float_tensor(low, x, span, "logsumexp")
    b, shape = low.b, low.a.type(v).shape
    axes = axes_of(low, axis, len(shape), span)
    need_elements(low, v, axes, span, "logsumexp")
    top = b.stop_gradient(b.reduce_max(v, axes=axes))
    top = b.select(b.is_finite(top), top, b.const(0, top))
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    shifted = b.sub(v, b.broadcast(top, shape=shape, axes=kept))
    out = b.add(b.log(b.reduce_sum(b.exp(shifted), axes=axes)), top)
    keep = low.a.static_bool(keepdims, span, "keepdims")
    return Tensor(keep_axes(low, out, shape, axes) if keep else out)


@builtin("cumsum(x, axis=0, reverse=False)")
def _cumsum(low: Lowering, span: Span, x: Staged, axis: Staged, reverse: Staged) -> Staged:
    """Running sum along an axis, from its end if `reverse`."""
    v = number_tensor(low, Tensor(counted(low, low.a.tensor(x, span))), span, "cumsum")
    n = one_axis(low, axis, low.a.type(v).rank, span)
    return Tensor(low.b.cumsum(v, axis=n, reverse=low.a.static_bool(reverse, span, "reverse")))


@builtin("sort(x, axis=-1)")
def _sort(low: Lowering, span: Span, x: Staged, axis: Staged) -> Staged:
    """Elements in ascending order along an axis, NaN last."""
    v = number_tensor(low, x, span, "sort")
    return Tensor(low.b.op("sort", [v], axis=one_axis(low, axis, low.a.type(v).rank, span))[0])


@builtin("argsort(x, axis=-1)")
def _argsort(low: Lowering, span: Span, x: Staged, axis: Staged) -> Staged:
    """Indices (i32) that sort x along an axis; equal elements keep their order."""
    v = number_tensor(low, x, span, "argsort")
    n = one_axis(low, axis, low.a.type(v).rank, span)
    index = low.b.iota(type=low.a.type(v).with_dtype(I32), axis=n)
    return Tensor(low.b.op("sort", [v, index], axis=n)[1])


@builtin("norm(x, axis=None, keepdims=False)")
def _norm(low: Lowering, span: Span, x: Staged, axis: Staged, keepdims: Staged) -> Staged:
    """Square root of the sum of squares."""
    v = float_tensor(low, x, span, "norm")
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    return Tensor(low.b.sqrt(reduce(low, "reduce_sum", low.b.mul(v, v), axes, keepdims, span)))
