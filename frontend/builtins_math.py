"""Builtins on elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, I32
from .arithmetic import is_weak
from .builtin_table import builtin
from .operators import binary
from .type_errors import DTypeMistake
from .values import Dist, ProgramCall, Staged, Static, Tensor, describe, is_number

if TYPE_CHECKING:
    from .lower import Lowering

_FLOAT_OPS: dict[str, tuple[str, Callable[[float], float] | None]] = {
    "exp": ("e to the power x.", math.exp),
    "expm1": ("exp(x) - 1, exact near 0.", math.expm1),
    "log": ("Natural logarithm; -inf at 0, NaN below.", math.log),
    "log1p": ("log(1 + x), exact near 0.", math.log1p),
    "sqrt": ("Square root; NaN below 0.", math.sqrt),
    "rsqrt": ("1 / sqrt(x).", None),
    "sin": ("Sine of x radians.", math.sin),
    "cos": ("Cosine of x radians.", math.cos),
    "tan": ("Tangent of x radians.", math.tan),
    "asin": ("Inverse sine, in [-pi/2, pi/2].", math.asin),
    "acos": ("Inverse cosine, in [0, pi].", math.acos),
    "atan": ("Inverse tangent, in [-pi/2, pi/2].", math.atan),
    "sinh": ("Hyperbolic sine.", math.sinh),
    "cosh": ("Hyperbolic cosine.", math.cosh),
    "tanh": ("Hyperbolic tangent.", math.tanh),
    "asinh": ("Inverse hyperbolic sine.", math.asinh),
    "acosh": ("Inverse hyperbolic cosine.", math.acosh),
    "atanh": ("Inverse hyperbolic tangent.", math.atanh),
    "sigmoid": ("1 / (1 + exp(-x)), without overflow.", None),
    "softplus": ("log(1 + exp(x)), without overflow.", None),
    "erf": ("Error function.", math.erf),
    "erfc": ("1 - erf(x), exact for large x.", math.erfc),
    "erfinv": ("Inverse of erf on (-1, 1).", None),
    "lgamma": ("Log of |gamma(x)|.", math.lgamma),
    "digamma": ("Derivative of lgamma.", None),
    "trigamma": ("Derivative of digamma.", None),
}


def float_tensor(low: Lowering, x: Staged, span: Span, what: str) -> Value:
    """`x` as a float IR value; whole-number literals become floats, integer arrays do not."""
    weak = is_weak(x) and not (isinstance(x, Static) and isinstance(x.value, bool))
    if weak and not (isinstance(x, Tensor) and not x.type.dtype.is_int):
        return low.a.tensor(x, span, low.session.real)
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_float:
        raise DTypeMistake(
            f"'{what}' needs floats", span, found=str(low.a.type(v)), hint="convert it: real(x)"
        )
    return v


def number_tensor(low: Lowering, x: Staged, span: Span, what: str) -> Value:
    """`x` as an IR value of numbers, or DTypeMistake."""
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_number:
        raise DTypeMistake(f"'{what}' needs numbers", span, found=describe(x))
    return v


def _declare_float(name: str, doc: str, exact: Callable[[float], float] | None) -> None:
    def run(low: Lowering, span: Span, x: Staged) -> Staged:
        if exact is not None and isinstance(x, Static) and is_number(x):
            try:
                return Static(float(exact(x.value)))
            except (ValueError, OverflowError):
                pass  # outside the domain: the op gives the inf or NaN
        return Tensor(low.b.op(name, [float_tensor(low, x, span, name)])[0], is_weak(x))

    builtin(f"{name}(x)", doc)(run)


for _name, (_doc, _exact) in _FLOAT_OPS.items():
    _declare_float(_name, _doc, _exact)


def _declare_rounding(name: str, exact: Callable[[float], float], doc: str) -> None:
    def run(low: Lowering, span: Span, x: Staged) -> Staged:
        if isinstance(x, Static) and is_number(x) and math.isfinite(x.value):
            return Static(exact(x.value))
        v = number_tensor(low, x, span, name)
        return Tensor(v if low.a.type(v).dtype.is_int else low.b.op(name, [v])[0], is_weak(x))

    builtin(f"{name}(x)", f"{doc}; arrays keep their type, a literal becomes a static integer.")(
        run
    )


_declare_rounding("floor", math.floor, "Largest whole number not above x")
_declare_rounding("ceil", math.ceil, "Smallest whole number not below x")
_declare_rounding("round", round, "Nearest whole number, halves to even")
_declare_rounding("trunc", math.trunc, "x without its fraction")


@builtin("abs(x)")
def _abs(low: Lowering, span: Span, x: Staged) -> Staged:
    """Absolute value."""
    if isinstance(x, Static) and is_number(x):
        return Static(abs(x.value))
    return Tensor(low.b.abs(number_tensor(low, x, span, "abs")), is_weak(x))


@builtin("sign(x)")
def _sign(low: Lowering, span: Span, x: Staged) -> Staged:
    """-1, 0 or 1; NaN at NaN."""
    return Tensor(low.b.sign(number_tensor(low, x, span, "sign")), is_weak(x))


@builtin("square(x)")
def _square(low: Lowering, span: Span, x: Staged) -> Staged:
    """x * x."""
    return binary(low.a, "*", x, x, span)


@builtin("isfinite(x)")
def _isfinite(low: Lowering, span: Span, x: Staged) -> Staged:
    """Whether x is neither infinite nor NaN."""
    return Tensor(low.b.is_finite(float_tensor(low, x, span, "isfinite")))


@builtin("isnan(x)")
def _isnan(low: Lowering, span: Span, x: Staged) -> Staged:
    """Whether x is NaN."""
    v = float_tensor(low, x, span, "isnan")
    return Tensor(low.b.ne(v, v))


@builtin("isinf(x)")
def _isinf(low: Lowering, span: Span, x: Staged) -> Staged:
    """Whether x is inf or -inf."""
    v = float_tensor(low, x, span, "isinf")
    return Tensor(low.b.and_(low.b.not_(low.b.is_finite(v)), low.b.eq(v, v)))


@builtin("stop_gradient(x)")
def _stop_gradient(low: Lowering, span: Span, x: Staged) -> Staged:
    """x itself (also a tuple, a record, a trace or a program), a constant to derivatives."""
    value = x if isinstance(x, ProgramCall | Dist) else low.a.materialise(x, span)
    return low.each(value, lambda v: low.b.stop_gradient(v))


def elementwise(low: Lowering, name: str, op: str, values: list[Staged], span: Span) -> Staged:
    """A core elementwise op on promoted, broadcast operands."""
    what = f"'{name}'"
    operands = low.a.broadcast(low.a.promote(values, span, what), span, what)
    dtype = low.a.type(operands[0]).dtype
    if not dtype.is_number:
        raise DTypeMistake(f"{what} needs numbers", span, found=str(low.a.type(operands[0])))
    return Tensor(low.b.op(op, operands)[0], is_weak(*values))


def _declare_extreme(name: str, op: str, exact: Callable[..., Any], doc: str) -> None:
    def run(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
        if isinstance(x, Static) and isinstance(y, Static) and is_number(x) and is_number(y):
            return Static(exact(x.value, y.value))
        return elementwise(low, name, op, [x, y], span)

    builtin(f"{name}(x, y)", doc)(run)


_declare_extreme("maximum", "max", max, "The larger of x and y, elementwise; NaN if either is.")
_declare_extreme("minimum", "min", min, "The smaller of x and y, elementwise; NaN if either is.")


@builtin("clip(x, low, high)")
def _clip(cx: Lowering, span: Span, x: Staged, low: Staged, high: Staged) -> Staged:
    """x held between two bounds."""
    return elementwise(
        cx, "clip", "min", [elementwise(cx, "clip", "max", [x, low], span), high], span
    )


@builtin("pow(x, y)")
def _pow(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """x ^ y."""
    return binary(low.a, "^", x, y, span)


@builtin("atan2(y, x)")
def _atan2(low: Lowering, span: Span, y: Staged, x: Staged) -> Staged:
    """The angle of the point (x, y), in [-pi, pi]."""
    if isinstance(y, Static) and isinstance(x, Static) and is_number(x) and is_number(y):
        return Static(math.atan2(y.value, x.value))
    pair = [float_tensor(low, v, span, "atan2") for v in (y, x) if not is_weak(v)]
    dtype = low.a.type(pair[0]).dtype if pair else low.session.real
    values = [Tensor(low.a.tensor(v, span, dtype)) if is_weak(v) else v for v in (y, x)]
    return elementwise(low, "atan2", "atan2", values, span)


@builtin("where(condition, x, y)")
def _where(low: Lowering, span: Span, condition: Staged, x: Staged, y: Staged) -> Staged:
    """x where the condition holds, else y; all three broadcast. Both sides are computed."""
    test = low.a.tensor(condition, span)
    if low.a.type(test).dtype is not BOOL:
        raise DTypeMistake("'where' needs a bool condition", span, found=describe(condition))
    pair = low.a.promote([x, y], span, "'where'")
    shape = low.a.common_shape([low.a.type(v) for v in (test, *pair)], span, "'where'")
    chosen = low.b.select(*(low.b.expand(v, shape) for v in (test, *pair)))
    return Tensor(chosen, is_weak(x, y))


@builtin("logaddexp(x, y)")
def _logaddexp(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """log(exp(x) + exp(y)), without overflow."""
    b = low.b
    values = low.a.promote([x, y], span, "'logaddexp'")
    floats = [float_tensor(low, Tensor(v), span, "logaddexp") for v in values]
    left, right = low.a.broadcast(floats, span, "'logaddexp'")
    top = b.stop_gradient(b.max(left, right))
    safe = b.select(b.is_finite(top), top, b.const(0, top))
    total = b.add(b.exp(b.sub(left, safe)), b.exp(b.sub(right, safe)))
    return Tensor(b.add(b.log(total), safe))


@builtin("xor(x, y)")
def _xor(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """Exclusive or of bools, or of the bits of integers."""
    pair = low.a.broadcast(low.a.promote([x, y], span, "'xor'"), span, "'xor'")
    dtype = low.a.type(pair[0]).dtype
    if not dtype.is_int and dtype is not BOOL:
        raise DTypeMistake("'xor' needs bools or integers", span, found=describe(x))
    return Tensor(low.b.xor(*pair))


def counted(low: Lowering, v: Value) -> Value:
    """Bools as i32, to be summed."""
    if low.a.type(v).dtype is BOOL:
        return low.b.convert(v, dtype=I32)
    return v
