"""Elementwise ops: every operand has the result's shape, every element stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core import Attrs, Block, Value
from .opdef import Array, InferRule, OpDef, declare, need, tensor
from .threefry import threefry2x32
from .types import BOOL, KEY, U32, DType, Type


def _floats(dtype: DType) -> bool:
    return dtype.is_float


def _ints(dtype: DType) -> bool:
    return dtype.is_int


def _numbers(dtype: DType) -> bool:
    return dtype.is_number


def _bits(dtype: DType) -> bool:
    return dtype.is_int or dtype is BOOL


def _any(dtype: DType) -> bool:
    return True


_KIND: dict[Callable[[DType], bool], str] = {
    _floats: "float",
    _ints: "integer",
    _numbers: "number",
    _bits: "integer or bool",
}


def _same_type(name: str, accepts: Callable[[DType], bool], result: DType | None) -> InferRule:
    """All operands of one type that `accepts` allows; the result is of `result` or that type."""

    def infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
        first = tensor(operands[0])
        for other in operands[1:]:
            need(
                other.type == first,
                f"{name} needs operands of one type, not {first} and {other.type}",
            )
        need(accepts(first.dtype), f"{name} needs {_KIND.get(accepts, 'any')}s, not {first}")
        return [first.with_dtype(result) if result else first]

    return infer


def _declare(
    name: str,
    arity: int,
    accepts: Callable[[DType], bool],
    doc: str,
    reference: Callable[..., Any],
    *,
    result: DType | None = None,
    commutative: bool = False,
    attrs: tuple[tuple[str, str], ...] = (),
) -> None:
    def run(attrs: Attrs, *arrays: Array) -> Array:
        with np.errstate(all="ignore"):
            out = np.asarray(reference(*arrays))
        return out.astype(result.numpy if result else arrays[0].dtype, copy=False)

    declare(
        OpDef(
            name,
            doc,
            _same_type(name, accepts, result),
            run,
            attrs=attrs,
            arity=arity,
            elementwise=True,
            commutative=commutative,
        )
    )


def _special(function: str, *, order: int | None = None) -> Callable[[Array], Array]:
    """A SciPy special function, imported at first use: `import wengert` must stay light."""

    def call(x: Array) -> Array:
        from scipy import special

        f = getattr(special, function)
        # SciPy has float32 loops that lose digits; the reference rounds the f64 result.
        wide = x.astype(np.float64)
        return np.asarray(f(wide) if order is None else f(order, wide))

    return call


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _sign(x: Array) -> Array:
    return np.sign(x)


def _floordiv(a: Array, b: Array) -> Array:
    """Floored quotient; x // 0 is 0 for integers."""
    return np.floor_divide(a, b)


def _shift(op: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def run(a: Array, b: Array) -> Array:
        width = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < width)
        return np.where(inside, op(a, np.where(inside, b, 0)), np.zeros_like(a))

    return run


def _logical_right(a: Array, b: Array) -> Array:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return (a.view(unsigned) >> b.view(unsigned)).view(a.dtype)


def _np(function: Any) -> Callable[..., Array]:
    return lambda *xs: np.asarray(function(*xs))


for _name, _doc, _ref in [
    ("exp", "e to the power x", _np(np.exp)),
    ("expm1", "exp(x) - 1, exact near 0", _np(np.expm1)),
    ("log", "natural logarithm; -inf at 0, NaN below", _np(np.log)),
    ("log1p", "log(1 + x), exact near 0", _np(np.log1p)),
    ("sqrt", "square root; NaN below 0", _np(np.sqrt)),
    ("rsqrt", "1 / sqrt(x)", lambda x: 1 / np.sqrt(x)),
    ("sin", "sine of x radians", _np(np.sin)),
    ("cos", "cosine of x radians", _np(np.cos)),
    ("tan", "tangent of x radians", _np(np.tan)),
    ("asin", "inverse sine, in [-pi/2, pi/2]", _np(np.arcsin)),
    ("acos", "inverse cosine, in [0, pi]", _np(np.arccos)),
    ("atan", "inverse tangent, in [-pi/2, pi/2]", _np(np.arctan)),
    ("sinh", "hyperbolic sine", _np(np.sinh)),
    ("cosh", "hyperbolic cosine", _np(np.cosh)),
    ("tanh", "hyperbolic tangent", _np(np.tanh)),
    ("asinh", "inverse hyperbolic sine", _np(np.arcsinh)),
    ("acosh", "inverse hyperbolic cosine", _np(np.arccosh)),
    ("atanh", "inverse hyperbolic tangent", _np(np.arctanh)),
    ("sigmoid", "1 / (1 + exp(-x)), without overflow", _sigmoid),
    ("softplus", "log(1 + exp(x)), without overflow", lambda x: np.logaddexp(x, np.zeros_like(x))),
    ("erf", "error function", _special("erf")),
    ("erfc", "1 - erf(x), exact for large x", _special("erfc")),
    ("erfinv", "inverse of erf on (-1, 1); infinite at the ends", _special("erfinv")),
    ("lgamma", "log of |gamma(x)|", _special("gammaln")),
    ("digamma", "derivative of lgamma", _special("digamma")),
    ("trigamma", "derivative of digamma", _special("polygamma", order=1)),
    ("floor", "largest whole number not above x", _np(np.floor)),
    ("ceil", "smallest whole number not below x", _np(np.ceil)),
    ("round", "nearest whole number, halves to even", _np(np.rint)),
    ("trunc", "x without its fraction", _np(np.trunc)),
]:
    _declare(_name, 1, _floats, _doc, _ref)

_declare("is_finite", 1, _floats, "whether x is neither infinite nor NaN", np.isfinite, result=BOOL)
_declare("neg", 1, _numbers, "-x; integers wrap", _np(np.negative))
_declare("abs", 1, _numbers, "absolute value; integers wrap", _np(np.abs))
_declare("sign", 1, _numbers, "-1, 0 or 1; NaN at NaN", _sign)
_declare("not", 1, _bits, "bitwise complement; logical for bool", _np(np.invert))
_declare("stop_gradient", 1, _any, "x itself, with derivative zero", lambda x: x)

_ARITHMETIC: list[tuple[str, str, Any, bool]] = [
    ("add", "a + b; integers wrap", np.add, True),
    ("sub", "a - b; integers wrap", np.subtract, False),
    ("floordiv", "floored quotient; integers: 0 where b is 0", _floordiv, False),
    (
        "mod",
        "a - b * floor(a / b), sign of b; integers: 0 where b is 0",
        np.mod,
        False,
    ),
    ("max", "larger of a and b; NaN if either is", np.maximum, True),
    ("min", "smaller of a and b; NaN if either is", np.minimum, True),
]
for _name, _doc, _ref, _commutes in _ARITHMETIC:
    _declare(_name, 2, _numbers, _doc, _ref, commutative=_commutes)

_declare(
    "mul",
    2,
    _numbers,
    "a * b; integers wrap. A backend may join it with a sum that alone uses it, rounding once, "
    "unless `rounded`",
    np.multiply,
    commutative=True,
    attrs=(("rounded", "bool"),),
)
_declare("div", 2, _floats, "a / b", np.divide)
_declare("pow", 2, _floats, "a to the power b", np.power)
_declare("atan2", 2, _floats, "angle of the point (b, a), in [-pi, pi]", np.arctan2)
_declare("and", 2, _bits, "bitwise and", np.bitwise_and, commutative=True)
_declare("or", 2, _bits, "bitwise or", np.bitwise_or, commutative=True)
_declare("xor", 2, _bits, "bitwise exclusive or", np.bitwise_xor, commutative=True)
_declare("shl", 2, _ints, "a shifted left by b bits; 0 past the width", _shift(np.left_shift))
_declare("shr", 2, _ints, "a shifted right by b, zeros enter", _shift(_logical_right))

_declare("eq", 2, _any, "a == b", np.equal, result=BOOL, commutative=True)
_declare("ne", 2, _any, "a != b", np.not_equal, result=BOOL, commutative=True)
_ORDER: list[tuple[str, str, Any]] = [
    ("lt", "a < b; false at NaN", np.less),
    ("le", "a <= b; false at NaN", np.less_equal),
    ("gt", "a > b; false at NaN", np.greater),
    ("ge", "a >= b; false at NaN", np.greater_equal),
]
for _name, _doc, _ref in _ORDER:
    _declare(_name, 2, _numbers, _doc, _ref, result=BOOL)


def _outward(direction: int) -> Callable[[Attrs, Array], Array]:
    """x moved down (-1) or up (1) by `ulps` units in the last place and the least normal number."""

    def run(attrs: Attrs, x: Array) -> Array:
        info = np.finfo(x.dtype)
        with np.errstate(all="ignore"):
            held = np.maximum(x, -info.max) if direction > 0 else np.minimum(x, info.max)
            step = np.abs(held) * (attrs["ulps"] * info.eps) + info.tiny
            return np.asarray(held + direction * step, x.dtype)

    return run


for _name, _doc, _direction in [
    ("down", "a number below x: by `ulps` units in the last place and the least normal number", -1),
    ("up", "a number above x: by `ulps` units in the last place and the least normal number", 1),
]:
    declare(
        OpDef(
            _name,
            f"{_doc}; an infinity on the other side becomes finite",
            _same_type(_name, _floats, None),
            _outward(_direction),
            attrs=(("ulps", "int"),),
            arity=1,
            elementwise=True,
        )
    )


def _select_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    c, a, b = (tensor(v) for v in operands)
    need(c.dtype is BOOL, f"select needs a bool condition, not {c}")
    need(a == b, f"select needs two values of one type, not {a} and {b}")
    need(c.shape == a.shape, f"select needs one shape, not {c} and {a}")
    return [a]


declare(
    OpDef(
        "select",
        "a where the condition holds, else b: select c, a, b",
        _select_infer,
        lambda attrs, c, a, b: np.where(c, a, b),
        arity=3,
        elementwise=True,
    )
)


def _convert_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    need(source.dtype is not KEY and attrs["dtype"] is not KEY, "a key does not convert")
    return [source.with_dtype(attrs["dtype"])]


def _convert(attrs: Attrs, x: Array) -> Array:
    target: DType = attrs["dtype"]
    if target is BOOL:
        return np.asarray(x != 0)
    if target.is_int and x.dtype.kind == "f":
        info = np.iinfo(target.numpy)
        whole = np.trunc(np.where(np.isnan(x), 0, x).astype(np.float64))
        out = np.where(whole >= float(info.max), info.max, info.min).astype(target.numpy)
        inside = (whole > float(info.min)) & (whole < float(info.max))
        return np.where(inside, np.where(inside, whole, 0).astype(target.numpy), out)
    return x.astype(target.numpy)


declare(
    OpDef(
        "convert",
        "x as another dtype; float to integer drops the fraction, saturates, NaN gives 0",
        _convert_infer,
        _convert,
        attrs=(("dtype", "dtype"),),
        arity=1,
        elementwise=True,
    )
)


def _bitcast_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    target: DType = attrs["dtype"]
    need(
        source.dtype.itemsize == target.itemsize and BOOL not in (source.dtype, target),
        f"bitcast needs types of one width, not {source.dtype} and {target}",
    )
    return [source.with_dtype(target)]


declare(
    OpDef(
        "bitcast",
        "the same bits read as another dtype of the same width",
        _bitcast_infer,
        lambda attrs, x: np.ascontiguousarray(x).view(attrs["dtype"].numpy).reshape(x.shape),
        attrs=(("dtype", "dtype"),),
        arity=1,
        elementwise=True,
    )
)


def _is_key(dtype: DType) -> bool:
    return dtype is KEY


def _is_u32(dtype: DType) -> bool:
    return dtype is U32


_KIND |= {_is_key: "key", _is_u32: "u32"}


def _make_key(lo: Array, hi: Array) -> Array:
    return lo.astype(np.uint64) | (hi.astype(np.uint64) << np.uint64(32))


def _threefry(key: Array, counter: Array) -> Array:
    word = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    lo, hi = threefry2x32(key & word, key >> shift, counter & word, counter >> shift)
    return _make_key(lo, hi)


_declare("threefry", 2, _is_key, "threefry2x32 of a key and a counter pair", _threefry)
_declare("key_make", 2, _is_u32, "the key with words lo, hi", _make_key, result=KEY)
_declare("key_lo", 1, _is_key, "word 0 of a key", lambda k: k & np.uint64(0xFFFFFFFF), result=U32)
_declare("key_hi", 1, _is_key, "word 1 of a key", lambda k: k >> np.uint64(32), result=U32)
