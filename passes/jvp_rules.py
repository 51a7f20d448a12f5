"""One JVP rule an op: the tangent of its result from the tangents of its operands.

A rule gets (b, op, xs, ys, ts): builder, op, primal operands, primal results, and tangents,
None standing for zero. It returns the tangents of the results, None where zero. Rules write
ops with `b`; what depends on a tangent is linear in it, which reverse mode relies on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import RuleTable, dialect_ops
from ..ir.types import I32

Tangents = Sequence[Value | None]
Rule = Callable[[Any, Op, Sequence[Value], Sequence[Value], Tangents], Tangents]
JVP: RuleTable[Rule] = RuleTable("jvp")


def shape_of(v: Value) -> tuple[int, ...]:
    """The shape of a tensor value."""
    return Builder.type(v).shape


def add(b: Any, x: Value | None, y: Value | None) -> Value | None:
    """x + y where None is zero."""
    if x is None or y is None:
        return x if y is None else y
    return b.add(x, y)


def zero_if_none(b: Any, t: Value | None, like: Value) -> Value:
    """t, or zeros like `like`."""
    return b.const(0, like) if t is None else t


def _unary(name: str, derivative: Callable[[Any, Value, Value], Value]) -> None:
    """A rule t * derivative(x, y)."""

    def rule(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
        return [b.mul(ts[0], derivative(b, xs[0], ys[0]))]

    JVP.set(name, rule)


def _c(b: Any, value: float, like: Value) -> Value:
    return b.const(value, like)


def _one_minus_square(b: Any, y: Value) -> Value:
    return b.sub(_c(b, 1, y), b.mul(y, y))


def _gauss(scale: float) -> Callable[[Any, Value, Value], Value]:
    return lambda b, x, y: b.mul(_c(b, scale, x), b.exp(b.neg(b.mul(x, x))))


_ROOT_PI = math.sqrt(math.pi)

_unary("exp", lambda b, x, y: y)
_unary("expm1", lambda b, x, y: b.add(y, _c(b, 1, y)))
_unary("sqrt", lambda b, x, y: b.div(_c(b, 0.5, y), y))
_unary("rsqrt", lambda b, x, y: b.mul(_c(b, -0.5, y), b.div(y, x)))
_unary("sin", lambda b, x, y: b.cos(x))
_unary("cos", lambda b, x, y: b.neg(b.sin(x)))
_unary("tan", lambda b, x, y: b.add(_c(b, 1, y), b.mul(y, y)))
_unary("asin", lambda b, x, y: b.rsqrt(_one_minus_square(b, x)))
_unary("acos", lambda b, x, y: b.neg(b.rsqrt(_one_minus_square(b, x))))
_unary("atan", lambda b, x, y: b.div(_c(b, 1, x), b.add(_c(b, 1, x), b.mul(x, x))))
_unary("sinh", lambda b, x, y: b.cosh(x))
_unary("cosh", lambda b, x, y: b.sinh(x))
_unary("tanh", lambda b, x, y: _one_minus_square(b, y))
_unary("asinh", lambda b, x, y: b.rsqrt(b.add(b.mul(x, x), _c(b, 1, x))))
_unary("acosh", lambda b, x, y: b.rsqrt(b.mul(b.sub(x, _c(b, 1, x)), b.add(x, _c(b, 1, x)))))
_unary("atanh", lambda b, x, y: b.div(_c(b, 1, x), _one_minus_square(b, x)))
_unary("sigmoid", lambda b, x, y: b.mul(y, b.sub(_c(b, 1, y), y)))
_unary("softplus", lambda b, x, y: b.sigmoid(x))
_unary("erf", _gauss(2 / _ROOT_PI))
_unary("erfc", _gauss(-2 / _ROOT_PI))
_unary("erfinv", lambda b, x, y: b.mul(_c(b, _ROOT_PI / 2, y), b.exp(b.mul(y, y))))
_unary("lgamma", lambda b, x, y: b.digamma(x))
_unary("digamma", lambda b, x, y: b.trigamma(x))
_unary("abs", lambda b, x, y: b.sign(x))


@JVP.register("log")
def _log(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [b.div(ts[0], xs[0])]


@JVP.register("log1p")
def _log1p(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [b.div(ts[0], b.add(xs[0], _c(b, 1, xs[0])))]


@JVP.register("down", "up")
def _outward(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """A bound moves with what it bounds."""
    return [ts[0]]


@JVP.register("neg")
def _neg(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [b.neg(ts[0])]


@JVP.register("sign", "floor", "ceil", "round", "trunc", "floordiv", "stop_gradient")
def _flat(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [None]


@JVP.register("is_finite", "eq", "ne", "lt", "le", "gt", "ge", "argmax", "argmin", "bitcast")
def _discrete(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [None]


@JVP.register("add")
def _add(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return [add(b, ts[0], ts[1])]


@JVP.register("sub")
def _sub(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    if ts[0] is not None and ts[1] is not None:
        return [b.sub(ts[0], ts[1])]
    return [ts[0] if ts[1] is None else b.neg(ts[1])]


@JVP.register("mul")
def _mul(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    if xs[0] is xs[1] and ts[0] is not None:
        # Transposed, the factor 2 meets the cotangent first, often a broadcast that it sinks into.
        return [b.mul(b.mul(ts[0], xs[0]), _c(b, 2, xs[0]))]
    left = None if ts[0] is None else b.mul(ts[0], xs[1])
    right = None if ts[1] is None else b.mul(ts[1], xs[0])
    return [add(b, left, right)]


@JVP.register("div")
def _div(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """By the reciprocal: one division serves both sides, and none is left where y is fixed."""
    if ts[0] is None and ts[1] is None:
        return [None]
    reciprocal = b.div(b.const(1.0, xs[1]), xs[1])
    left = None if ts[0] is None else b.mul(ts[0], reciprocal)
    right = None if ts[1] is None else b.mul(ts[1], b.neg(b.mul(ys[0], reciprocal)))
    return [add(b, left, right)]


@JVP.register("mod")
def _mod(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    right = None if ts[1] is None else b.mul(ts[1], b.neg(b.floor(b.div(xs[0], xs[1]))))
    return [add(b, ts[0], right)]


@JVP.register("pow")
def _pow(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    x, y = xs
    left = right = None
    if ts[0] is not None:
        zero = _c(b, 0, y)
        # At y = 0 the power is constant; x^-1 there would give 0 * inf at x = 0.
        slope = b.mul(y, b.pow(x, b.sub(y, _c(b, 1, y))))
        left = b.mul(ts[0], b.select(b.eq(y, zero), zero, slope))
    if ts[1] is not None:
        # 0^y is flat in y; a negative base has no derivative in y: NaN.
        nonzero = b.select(b.eq(x, _c(b, 0, x)), _c(b, 1, x), x)
        right = b.mul(ts[1], b.mul(ys[0], b.log(nonzero)))
    return [add(b, left, right)]


@JVP.register("atan2")
def _atan2(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    y, x = xs
    square = b.add(b.mul(x, x), b.mul(y, y))
    left = None if ts[0] is None else b.mul(ts[0], b.div(x, square))
    right = None if ts[1] is None else b.mul(ts[1], b.neg(b.div(y, square)))
    return [add(b, left, right)]


@JVP.register("max", "min")
def _extreme(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """The larger side's tangent; at a tie half of each."""
    x, y = xs
    wins = b.gt(x, y) if op.name == "max" else b.lt(x, y)
    half = b.select(b.eq(x, y), _c(b, 0.5, x), _c(b, 0, x))
    weight = b.select(wins, _c(b, 1, x), half)
    left = None if ts[0] is None else b.mul(ts[0], weight)
    right = None if ts[1] is None else b.mul(ts[1], b.sub(_c(b, 1, x), weight))
    return [add(b, left, right)]


@JVP.register("select")
def _select(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    x, y = (zero_if_none(b, t, v) for t, v in zip(ts[1:], xs[1:]))
    return [b.select(xs[0], x, y)]


@JVP.register("convert")
def _convert(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    target = op.attrs["dtype"]
    return [b.convert(ts[0], dtype=target) if target.is_float else None]


@JVP.register("broadcast", "reshape", "transpose", "slice", "reverse", "reduce_sum", "cumsum")
def _same_op(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """Linear in its only operand: the op applied to the tangent."""
    return b.op(op.name, [ts[0]], **op.attrs)


@JVP.register("dynamic_slice", "gather")
def _indexed(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    return b.op(op.name, [ts[0], *xs[1:]], **op.attrs)


@JVP.register("dynamic_update")
def _dynamic_update(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    x, u = (zero_if_none(b, t, v) for t, v in zip(ts[:2], xs[:2]))
    return [b.dynamic_update(x, u, *xs[2:])]


@JVP.register("scatter_add")
def _scatter_add(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    if ts[2] is None:
        return [ts[0]]
    return [b.scatter_add(zero_if_none(b, ts[0], xs[0]), xs[1], ts[2], **op.attrs)]


@JVP.register("concatenate")
def _concatenate(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    parts = [zero_if_none(b, t, x) for t, x in zip(ts, xs)]
    return [b.concatenate(*parts, axis=op.attrs["axis"])]


@JVP.register("pad")
def _pad(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    x, fill = (zero_if_none(b, t, v) for t, v in zip(ts, xs))
    return [b.pad(x, fill, **op.attrs)]


@JVP.register("reduce_max", "reduce_min")
def _reduce_extreme(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """The tangents at the extreme elements, averaged over ties."""
    axes, shape = op.attrs["axes"], shape_of(xs[0])
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    best = b.eq(xs[0], b.broadcast(ys[0], shape=shape, axes=kept))
    count = b.reduce_sum(b.convert(best, dtype=Builder.type(xs[0]).dtype), axes=axes)
    total = b.reduce_sum(b.select(best, ts[0], _c(b, 0, ts[0])), axes=axes)
    return [b.div(total, count)]


@JVP.register("reduce_prod")
def _reduce_prod(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """The product rule up a tree of halves: right where elements are zero, unlike y t / x."""
    shape, axes = shape_of(xs[0]), op.attrs["axes"]
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    size = math.prod(shape[i] for i in axes)
    flat = (*(shape[i] for i in kept), size)
    x, t = (b.reshape(b.transpose(v, perm=kept + tuple(axes)), shape=flat) for v in (xs[0], ts[0]))
    if size == 0:
        return [None]
    while size > 1:
        half = size // 2
        (xa, xb, xr), (ta, tb, tr) = (_thirds(b, v, half, size) for v in (x, t))
        x = _join(b, b.mul(xa, xb), xr)
        t = _join(b, b.add(b.mul(ta, xb), b.mul(tb, xa)), tr)
        size -= half
    return [b.reshape(t, shape=flat[:-1])]


def _thirds(b: Any, v: Value, half: int, size: int) -> tuple[Value, Value, Value | None]:
    """The first half of the last axis, the second, and the odd element if any."""
    *lead, _ = shape_of(v)

    def part(low: int, high: int) -> Value:
        n = len(lead)
        return b.slice(v, start=(0,) * n + (low,), limit=(*lead, high), stride=(1,) * (n + 1))

    return part(0, half), part(half, 2 * half), part(2 * half, size) if size % 2 else None


def _join(b: Any, v: Value, rest: Value | None) -> Value:
    return v if rest is None else b.concatenate(v, rest, axis=len(shape_of(v)) - 1)


@JVP.register("sort")
def _sort(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """Tangents carried along: gathered by the order that sorts the keys."""
    axis = op.attrs["axis"]
    type = Builder.type(xs[0]).with_dtype(I32)
    order = b.op("sort", [xs[0], b.iota(type=type, axis=axis)], axis=axis)[1]
    rank = type.rank
    perm = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(perm.index(i) for i in range(rank))
    last = b.transpose(order, perm=perm)
    out: list[Value | None] = []
    for t in ts:
        if t is None:
            out.append(None)
            continue
        moved = b.gather(b.transpose(t, perm=perm), last, axis=rank - 1, batch=rank - 1)
        out.append(b.transpose(moved, perm=back))
    return out


@JVP.register("dot_general")
def _dot(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    left = None if ts[0] is None else b.dot_general(ts[0], xs[1], **op.attrs)
    right = None if ts[1] is None else b.dot_general(xs[0], ts[1], **op.attrs)
    return [add(b, left, right)]


def matmul(b: Any, x: Value, y: Value, tx: bool = False, ty: bool = False) -> Value:
    """Product of stacks of matrices, either one transposed."""
    n = len(shape_of(x)) - 2
    batch = tuple(range(n))
    return b.dot_general(
        x,
        y,
        lhs_batch=batch,
        rhs_batch=batch,
        lhs_contract=(n + (not tx),),
        rhs_contract=(n + ty,),
    )


def triangle_mask(b: Any, like: Value, lower: bool, strict: bool = False) -> Value:
    """1 in a triangle of the last two axes, 0 elsewhere."""
    type = Builder.type(like)
    rows = b.iota(type=type.with_dtype(I32), axis=type.rank - 2)
    cols = b.iota(type=type.with_dtype(I32), axis=type.rank - 1)
    first, second = (rows, cols) if lower else (cols, rows)
    inside = b.gt(first, second) if strict else b.ge(first, second)
    return b.convert(inside, dtype=type.dtype)


@JVP.register("cholesky")
def _cholesky(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """dL = L phi(L^-1 dA L^-T), phi the lower triangle with its diagonal halved (Murray 2016)."""
    factor = ys[0]
    rank = len(shape_of(factor))
    swap = (*range(rank - 2), rank - 1, rank - 2)
    lower = triangle_mask(b, factor, lower=True)
    strict = triangle_mask(b, factor, lower=True, strict=True)
    full = b.add(b.mul(ts[0], lower), b.transpose(b.mul(ts[0], strict), perm=swap))
    left = b.triangular_solve(factor, full, lower=True, trans=False)
    both = b.triangular_solve(factor, b.transpose(left, perm=swap), lower=True, trans=False)
    half = b.mul(b.add(lower, strict), b.const(0.5, lower))
    return [matmul(b, factor, b.mul(b.transpose(both, perm=swap), half))]


@JVP.register("triangular_solve")
def _triangular_solve(b: Any, op: Op, xs: Any, ys: Any, ts: Any) -> Tangents:
    """dx = a^-1 (db - da x)."""
    right = ts[1]
    if ts[0] is not None:
        inside = b.mul(ts[0], triangle_mask(b, xs[0], op.attrs["lower"]))
        term = b.neg(matmul(b, inside, ys[0], tx=op.attrs["trans"]))
        right = add(b, right, term)
    return [b.triangular_solve(xs[0], right, **op.attrs)]


JVP.none("its derivative, polygamma of order 2, is not an op", "trigamma")
JVP.none(
    "it has no float operand",
    *("const", "iota", "not", "and", "or", "xor", "shl", "shr"),
    *("threefry", "key_make", "key_lo", "key_hi"),
)
JVP.none("control flow has a rule of its own in jvp.py", "if", "switch", "for", "while", "call")
JVP.none(
    "a pass expands it first",
    *dialect_ops(),
)
JVP.none("it is a cotangent rule: reverse mode only, and once", "linear_call")
