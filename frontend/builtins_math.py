"""Builtins on elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..ir.span import Span
from ..ir.types import BOOL
from .builtin_table import builtin
from .values import Staged, Static, Tensor, TypeMistake, describe

_FLOAT_OPS: dict[str, Callable[[float], float] | None] = {
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": None,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "asinh": math.asinh,
    "acosh": math.acosh,
    "atanh": math.atanh,
    "sigmoid": None,
    "erf": math.erf,
    "erfc": math.erfc,
    "erfinv": None,
    "lgamma": math.lgamma,
    "digamma": None,
    "trigamma": None,
}
_ROUNDING: dict[str, Callable[[float], float]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "trunc": math.trunc,
}


def float_tensor(low: Any, x: Staged, span: Span, what: str) -> Any:
    """`x` as a float IR value; whole-number literals become floats, integer arrays do not."""
    if isinstance(x, Static) and isinstance(x.value, int) and not isinstance(x.value, bool):
        x = Static(float(x.value))
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_float:
        raise TypeMistake(
            f"'{what}' needs floats", span, found=str(low.a.type(v)), hint="convert it: real(x)"
        )
    return v


def _declare_float(name: str, fold: Callable[[float], float] | None) -> None:
    def run(low: Any, span: Span, x: Staged) -> Staged:
        if fold is not None and isinstance(x, Static) and isinstance(x.value, int | float):
            try:
                return Static(float(fold(x.value)))
            except (ValueError, OverflowError):
                pass  # outside the domain: the op gives the inf or NaN
        return Tensor(low.b.op(name, [float_tensor(low, x, span, name)])[0])

    run.__doc__ = f"Elementwise `{name}`; see docs/ir.md."
    builtin(name, "x")(run)


for _name, _fold in _FLOAT_OPS.items():
    _declare_float(_name, _fold)


def _declare_rounding(name: str, fold: Callable[[float], float]) -> None:
    def run(low: Any, span: Span, x: Staged) -> Staged:
        if isinstance(x, Static) and isinstance(x.value, int | float) and math.isfinite(x.value):
            return Static(fold(x.value))
        v = low.a.tensor(x, span)
        return Tensor(v if low.a.type(v).dtype.is_int else low.b.op(name, [v])[0])

    run.__doc__ = f"Elementwise `{name}` to a whole number (of the same type for arrays)."
    builtin(name, "x")(run)


for _name, _fold in _ROUNDING.items():
    _declare_rounding(_name, _fold)


def _numbers(low: Any, x: Staged, span: Span, what: str) -> Any:
    v = low.a.tensor(x, span)
    if not low.a.type(v).dtype.is_number:
        raise TypeMistake(f"'{what}' needs numbers", span, found=describe(x))
    return v


@builtin("abs", "x")
def _abs(low: Any, span: Span, x: Staged) -> Staged:
    """Absolute value."""
    if isinstance(x, Static) and isinstance(x.value, int | float):
        return Static(abs(x.value))
    return Tensor(low.b.abs(_numbers(low, x, span, "abs")))


@builtin("sign", "x")
def _sign(low: Any, span: Span, x: Staged) -> Staged:
    """-1, 0 or 1."""
    return Tensor(low.b.sign(_numbers(low, x, span, "sign")))


@builtin("square", "x")
def _square(low: Any, span: Span, x: Staged) -> Staged:
    """x * x."""
    return low.a.binary("*", x, x, span)  # type: ignore[no-any-return]


@builtin("isfinite", "x")
def _isfinite(low: Any, span: Span, x: Staged) -> Staged:
    """Whether x is neither infinite nor NaN."""
    return Tensor(low.b.is_finite(float_tensor(low, x, span, "isfinite")))


@builtin("isnan", "x")
def _isnan(low: Any, span: Span, x: Staged) -> Staged:
    """Whether x is NaN."""
    v = float_tensor(low, x, span, "isnan")
    return Tensor(low.b.ne(v, v))


@builtin("stop_gradient", "x")
def _stop_gradient(low: Any, span: Span, x: Staged) -> Staged:
    """x itself, a constant to derivatives."""
    return Tensor(low.b.stop_gradient(low.a.tensor(x, span)))


def elementwise(low: Any, op: str, values: list[Staged], span: Span) -> Staged:
    """A core elementwise op on promoted, broadcast operands."""
    operands = low.a.broadcast(low.a.promote(values, span, f"'{op}'"), span, f"'{op}'")
    return Tensor(low.b.op(op, operands)[0])


@builtin("pow", "x", "y")
def _pow(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """x ^ y."""
    return low.a.binary("^", x, y, span)  # type: ignore[no-any-return]


@builtin("atan2", "y", "x")
def _atan2(low: Any, span: Span, y: Staged, x: Staged) -> Staged:
    """The angle of the point (x, y)."""
    if isinstance(y, Static) and isinstance(x, Static):
        return Static(math.atan2(y.value, x.value))
    return elementwise(low, "atan2", [y, x], span)


@builtin("maximum", "x", "y")
def _maximum(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """The larger of x and y, elementwise."""
    if isinstance(x, Static) and isinstance(y, Static):
        return Static(max(x.value, y.value))
    return elementwise(low, "max", [x, y], span)


@builtin("minimum", "x", "y")
def _minimum(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """The smaller of x and y, elementwise."""
    if isinstance(x, Static) and isinstance(y, Static):
        return Static(min(x.value, y.value))
    return elementwise(low, "min", [x, y], span)


@builtin("clip", "x", "low_", "high")
def _clip(low: Any, span: Span, x: Staged, low_: Staged, high: Staged) -> Staged:
    """x held between two bounds."""
    return _minimum(low, span, _maximum(low, span, x, low_), high)  # type: ignore[no-any-return]


@builtin("where", "condition", "x", "y")
def _where(low: Any, span: Span, condition: Staged, x: Staged, y: Staged) -> Staged:
    """x where the condition holds, else y; all three broadcast. Both sides are computed."""
    if isinstance(condition, Static):
        return x if condition.value else y
    test = low.a.tensor(condition, span)
    if low.a.type(test).dtype is not BOOL:
        raise TypeMistake("'where' needs a bool condition", span, found=describe(condition))
    a, b = low.a.promote([x, y], span, "'where'")
    shape = low.a.common_shape([low.a.type(v) for v in (test, a, b)], span, "'where'")
    return Tensor(low.b.select(*(low.b.expand(v, shape) for v in (test, a, b))))


@builtin("logaddexp", "x", "y")
def _logaddexp(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """log(exp(x) + exp(y)), without overflow."""
    a, b = low.a.broadcast(low.a.promote([x, y], span, "'logaddexp'"), span, "'logaddexp'")
    b_ = low.b
    top = b_.stop_gradient(b_.max(a, b))
    safe = b_.select(b_.is_finite(top), top, b_.const(0, top))
    total = b_.add(b_.exp(b_.sub(a, safe)), b_.exp(b_.sub(b, safe)))
    return Tensor(b_.add(b_.log(total), safe))


@builtin("softplus", "x")
def _softplus(low: Any, span: Span, x: Staged) -> Staged:
    """log(1 + exp(x)), without overflow."""
    v = float_tensor(low, x, span, "softplus")
    b = low.b
    zero = b.const(0, v)
    return Tensor(b.add(b.max(v, zero), b.log1p(b.exp(b.neg(b.abs(v))))))


