"""One XLA lowering an op, in public JAX.

A rule gets (attrs, *operands) and returns the result or a tuple. Keys travel as pairs of
uint32 arrays (`KeyPair`), since XLA has no 64-bit integers unless asked; ops that only move
elements work on each half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry2x32_p

from ...ir.opdef import OPS, RuleTable, dialect_ops
from ...ir.reductions import identity
from ...ir.types import BOOL, DTYPES, KEY, DType

Rule = Callable[..., Any]
LOWER: RuleTable[Rule] = RuleTable("xla lowering")
IR_DTYPES = {t.numpy: t for t in DTYPES.values()}


class KeyPair(NamedTuple):
    """Keys as their words: `lo` is what `jax.random.key_data` shows first."""

    lo: Any
    hi: Any


def dtype_of(dtype: DType) -> Any:
    """The JAX dtype of an IR one (keys excepted)."""
    return jnp.dtype(dtype.numpy)


def _each_half(rule: Rule) -> Rule:
    """A rule that moves elements, applied to both halves of keys."""

    def run(attrs: Any, *xs: Any) -> Any:
        if any(isinstance(x, KeyPair) for x in xs):
            halves = [
                rule(attrs, *(x[i] if isinstance(x, KeyPair) else x for x in xs)) for i in (0, 1)
            ]
            return KeyPair(*halves)
        return rule(attrs, *xs)

    return run


def _moves(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        for name in names:
            LOWER.set(name, _each_half(rule))
        return rule

    return add


def _plain(name: str, function: Callable[..., Any]) -> None:
    LOWER.set(name, lambda attrs, *xs: function(*xs))


def _sign(x: Any) -> Any:
    return lax.sign(x)


_PLAIN: dict[str, Callable[..., Any]] = {
    "exp": lax.exp,
    "expm1": lax.expm1,
    "log": lax.log,
    "log1p": lax.log1p,
    "sqrt": lax.sqrt,
    "rsqrt": lax.rsqrt,
    "sin": lax.sin,
    "cos": lax.cos,
    "tan": lax.tan,
    "asin": lax.asin,
    "acos": lax.acos,
    "atan": lax.atan,
    "sinh": lax.sinh,
    "cosh": lax.cosh,
    "tanh": lax.tanh,
    "asinh": lax.asinh,
    "acosh": lax.acosh,
    "atanh": lax.atanh,
    "sigmoid": lax.logistic,
    "softplus": lambda x: jnp.where(x < 0, 0, x) + lax.log1p(lax.exp(-lax.abs(x))),
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erfinv": lax.erf_inv,
    "lgamma": lambda x: jnp.where(x == -jnp.inf, x, lax.lgamma(x)),
    "digamma": lambda x: jnp.where(x == 0, -1 / x, lax.digamma(x)),
    "trigamma": lambda x: jnp.where(x == jnp.inf, 0, lax.polygamma(jnp.ones_like(x), x)),
    "floor": lax.floor,
    "ceil": lax.ceil,
    "round": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "trunc": jnp.trunc,
    "is_finite": lax.is_finite,
    "neg": lambda x: lax.neg(x),
    "abs": lambda x: x if x.dtype == jnp.uint32 else lax.abs(x),
    "sign": _sign,
    "not": lax.bitwise_not,
    "add": lax.add,
    "sub": lax.sub,
    "div": lax.div,
    "pow": lax.pow,
    "atan2": lax.atan2,
    "max": lax.max,
    "min": lax.min,
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
    "lt": lax.lt,
    "le": lax.le,
    "gt": lax.gt,
    "ge": lax.ge,
}
for _name, _function in _PLAIN.items():
    _plain(_name, _function)


@_moves("stop_gradient")
def _stop_gradient(attrs: Any, x: Any) -> Any:
    return lax.stop_gradient(x)


def _outward(direction: float) -> Rule:
    def rule(attrs: Any, x: Any) -> Any:
        info = np.finfo(x.dtype)
        held = lax.max(x, -info.max) if direction > 0 else lax.min(x, info.max)
        step = lax.abs(held) * x.dtype.type(attrs["ulps"] * info.eps) + info.tiny
        return held + x.dtype.type(direction) * step

    return rule


LOWER.set("mul", lambda attrs, x, y: lax.mul(x, y))
LOWER.set("down", _outward(-1.0))
LOWER.set("up", _outward(1.0))


@LOWER.register("floordiv")
def _floordiv(attrs: Any, a: Any, b: Any) -> Any:
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.floor_divide(a, b)
    safe = jnp.where(b == 0, 1, b)
    return jnp.where(b == 0, 0, jnp.floor_divide(a, safe)).astype(a.dtype)


@LOWER.register("mod")
def _mod(attrs: Any, a: Any, b: Any) -> Any:
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.mod(a, b)
    safe = jnp.where(b == 0, 1, b)
    return jnp.where(b == 0, 0, jnp.mod(a, safe)).astype(a.dtype)


def _shift(op: Callable[[Any, Any], Any]) -> Rule:
    def run(attrs: Any, a: Any, b: Any) -> Any:
        width = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < width)
        return jnp.where(inside, op(a, jnp.where(inside, b, 0).astype(a.dtype)), 0).astype(a.dtype)

    return run


LOWER.set("shl", _shift(lax.shift_left))
LOWER.set("shr", _shift(lax.shift_right_logical))


@LOWER.register("eq")
def _eq(attrs: Any, a: Any, b: Any) -> Any:
    return (a.lo == b.lo) & (a.hi == b.hi) if isinstance(a, KeyPair) else lax.eq(a, b)


@LOWER.register("ne")
def _ne(attrs: Any, a: Any, b: Any) -> Any:
    return (a.lo != b.lo) | (a.hi != b.hi) if isinstance(a, KeyPair) else lax.ne(a, b)


@_moves("select")
def _select(attrs: Any, c: Any, a: Any, b: Any) -> Any:
    return lax.select(c, a, b)


@LOWER.register("convert")
def _convert(attrs: Any, x: Any) -> Any:
    target: DType = attrs["dtype"]
    if target is BOOL:
        return x != 0
    if target.is_int and jnp.issubdtype(x.dtype, jnp.floating):
        info = np.iinfo(target.numpy)
        least, most = target.numpy.type(info.min), target.numpy.type(info.max)
        whole = jnp.trunc(jnp.where(jnp.isnan(x), 0, x))
        high, low = x.dtype.type(float(info.max)), x.dtype.type(float(info.min))
        inside = (whole < high) & (whole > low)
        cast = jnp.where(inside, whole, 0).astype(dtype_of(target))
        return jnp.where(inside, cast, jnp.where(whole >= high, most, least))
    return x.astype(dtype_of(target))


@LOWER.register("bitcast")
def _bitcast(attrs: Any, x: Any) -> Any:
    target: DType = attrs["dtype"]
    if isinstance(x, KeyPair):
        words = jnp.stack([x.lo, x.hi], axis=-1)
        return lax.bitcast_convert_type(words, dtype_of(target))
    if target is KEY:
        words = lax.bitcast_convert_type(x, jnp.uint32)
        return KeyPair(words[..., 0], words[..., 1])
    return lax.bitcast_convert_type(x, dtype_of(target))


@LOWER.register("threefry")
def _threefry(attrs: Any, key: KeyPair, counter: KeyPair) -> KeyPair:
    """JAX's own cipher: written out in ops, XLA would fuse a copy of it into every reader."""
    return KeyPair(*threefry2x32_p.bind(key.lo, key.hi, counter.lo, counter.hi))


LOWER.set("key_make", lambda attrs, lo, hi: KeyPair(lo, hi))
LOWER.set("key_lo", lambda attrs, key: key.lo)
LOWER.set("key_hi", lambda attrs, key: key.hi)


@LOWER.register("const")
def _const(attrs: Any) -> Any:
    type = attrs["type"]
    if type.dtype is KEY:
        packed = np.full(type.shape, attrs["value"], np.uint64)
        words = packed.reshape(*type.shape, 1).view(np.uint32)
        return KeyPair(jnp.asarray(words[..., 0]), jnp.asarray(words[..., 1]))
    if getattr(attrs["value"], "ndim", 0):
        return jnp.asarray(attrs["value"], dtype_of(type.dtype))
    return jnp.full(type.shape, attrs["value"], dtype_of(type.dtype))


@LOWER.register("iota")
def _iota(attrs: Any) -> Any:
    type = attrs["type"]
    return lax.broadcasted_iota(dtype_of(type.dtype), type.shape, attrs["axis"])


@_moves("broadcast")
def _broadcast(attrs: Any, x: Any) -> Any:
    return lax.broadcast_in_dim(x, attrs["shape"], attrs["axes"])


@_moves("reshape")
def _reshape(attrs: Any, x: Any) -> Any:
    return lax.reshape(x, attrs["shape"])


@_moves("transpose")
def _transpose(attrs: Any, x: Any) -> Any:
    return lax.transpose(x, attrs["perm"])


@_moves("slice")
def _slice(attrs: Any, x: Any) -> Any:
    return lax.slice(x, attrs["start"], attrs["limit"], attrs["stride"])


@_moves("dynamic_slice")
def _dynamic_slice(attrs: Any, x: Any, *starts: Any) -> Any:
    return lax.dynamic_slice(x, _in_range(starts, x.shape, attrs["sizes"]), attrs["sizes"])


def _in_range(starts: Any, shape: Any, sizes: Any) -> list[Any]:
    """Start indices clamped here: JAX would count negative ones from the end."""
    return [jnp.clip(s, 0, n - m) for s, n, m in zip(starts, shape, sizes)]


@_moves("dynamic_update")
def _dynamic_update(attrs: Any, x: Any, update: Any, *starts: Any) -> Any:
    return lax.dynamic_update_slice(x, update, _in_range(starts, x.shape, update.shape))


@_moves("gather")
def _gather(attrs: Any, x: Any, index: Any) -> Any:
    axis, batch = attrs["axis"], attrs["batch"]
    index = jnp.clip(index, 0, max(0, x.shape[axis] - 1))

    def take(a: Any, i: Any) -> Any:
        return jnp.take(a, i, axis=axis - batch, mode="clip")

    for _ in range(batch):
        take = jax.vmap(take)
    return take(x, index)


@LOWER.register("scatter_add")
def _scatter_add(attrs: Any, x: Any, index: Any, update: Any) -> Any:
    axis, batch = attrs["axis"] - attrs["batch"], attrs["batch"]
    index = jnp.clip(index, 0, max(0, x.shape[attrs["axis"]] - 1))

    def one(a: Any, i: Any, u: Any) -> Any:
        where = (slice(None),) * axis + (i,)
        return a.at[where].add(u, mode="promise_in_bounds")

    for _ in range(batch):
        one = jax.vmap(one)
    return one(x, index, update)


@_moves("concatenate")
def _concatenate(attrs: Any, *xs: Any) -> Any:
    return lax.concatenate(xs, attrs["axis"])


@_moves("pad")
def _pad(attrs: Any, x: Any, fill: Any) -> Any:
    widths = list(zip(attrs["low"], attrs["high"], attrs["interior"]))
    return lax.pad(x, fill, widths)


@_moves("reverse")
def _reverse(attrs: Any, x: Any) -> Any:
    return lax.rev(x, attrs["axes"])


LOWER.set("reduce_sum", lambda attrs, x: jnp.sum(x, axis=attrs["axes"], dtype=x.dtype))
LOWER.set("reduce_prod", lambda attrs, x: jnp.prod(x, axis=attrs["axes"], dtype=x.dtype))


def _extreme(kind: str, largest: bool) -> Rule:
    def run(attrs: Any, x: Any) -> Any:
        if x.dtype == jnp.bool_:
            return (jnp.any if largest else jnp.all)(x, axis=attrs["axes"])
        start = identity(kind, IR_DTYPES[np.dtype(x.dtype)])
        return (jnp.max if largest else jnp.min)(x, axis=attrs["axes"], initial=start)

    return run


LOWER.set("reduce_max", _extreme("max", True))
LOWER.set("reduce_min", _extreme("min", False))
LOWER.set("argmax", lambda attrs, x: lax.argmax(x, attrs["axis"], jnp.int32))
LOWER.set("argmin", lambda attrs, x: lax.argmin(x, attrs["axis"], jnp.int32))
LOWER.set("cumsum", lambda attrs, x: lax.cumsum(x, attrs["axis"], reverse=attrs["reverse"]))


@LOWER.register("sort")
def _sort(attrs: Any, *xs: Any) -> Any:
    flat = [half for x in xs for half in (x if isinstance(x, KeyPair) else (x,))]
    moved = iter(lax.sort(flat, dimension=attrs["axis"], is_stable=True, num_keys=1))
    return tuple(
        KeyPair(next(moved), next(moved)) if isinstance(x, KeyPair) else next(moved) for x in xs
    )


@LOWER.register("dot_general")
def _dot(attrs: Any, a: Any, b: Any) -> Any:
    numbers = (
        (attrs["lhs_contract"], attrs["rhs_contract"]),
        (attrs["lhs_batch"], attrs["rhs_batch"]),
    )
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(a, b, numbers, precision=precision)


@LOWER.register("cholesky")
def _cholesky(attrs: Any, a: Any) -> Any:
    lower = jnp.tril(a)
    whole = lower + jnp.swapaxes(jnp.tril(lower, -1), -1, -2)
    factor = lax.linalg.cholesky(whole, symmetrize_input=False)
    failed = jnp.isnan(factor).any(axis=(-2, -1), keepdims=True)
    return jnp.where(failed, jnp.nan, factor)


@LOWER.register("triangular_solve")
def _triangular_solve(attrs: Any, a: Any, b: Any) -> Any:
    return lax.linalg.triangular_solve(
        a, b, left_side=True, lower=attrs["lower"], transpose_a=attrs["trans"]
    )


LOWER.none("control flow is lowered in lower.py", "if", "switch", "for", "while")
LOWER.none("passes remove it", "call", "linear_call")
LOWER.none("passes remove it", *dialect_ops())
LOWER.none("the loop level is not for XLA", *(n for n in OPS if n.startswith("loop.")))
