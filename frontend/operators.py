"""The operators of the language on staged values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL
from .arithmetic import Arithmetic, is_weak
from .type_errors import DTypeMistake, SizeMistake, TypeMistake
from .values import Staged, Static, Tensor, Tuple, describe, is_none, is_number

LARGEST_POWER = 16  # whole powers up to here are multiplied out
_COMPARE = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod"}


def binary(a: Arithmetic, op: str, left: Staged, right: Staged, span: Span) -> Staged:
    """`left op right`: operands promoted and broadcast; static operands fold; tuples join."""
    if isinstance(left, Static) and isinstance(right, Static):
        return fold(op, left.value, right.value, span)
    if op in ("==", "!=") and (is_none(left) or is_none(right)):
        return Static((op == "==") == (is_none(left) and is_none(right)))
    if op == "+" and isinstance(left, Tuple) and isinstance(right, Tuple):
        return Tuple(left.items + right.items)
    if op == "@":
        return Tensor(matmul(a, left, right, span), is_weak(left, right))
    if op == "^":
        return Tensor(power(a, left, right, span), is_weak(left, right))
    if op in ("and", "or"):
        return Tensor(logical(a, op, left, right, span))
    what = f"'{op}'"
    pair = a.broadcast(a.promote([left, right], span, what), span, what)
    if op in ("==", "!="):
        return Tensor(a.b.op(_COMPARE[op], pair)[0])
    dtype = a.type(pair[0]).dtype
    if not dtype.is_number:
        raise DTypeMistake(f"'{op}' needs numbers", span, found=str(a.type(pair[0])))
    if op in _COMPARE:
        return Tensor(a.b.op(_COMPARE[op], pair)[0])
    if op == "/" and dtype.is_int:
        pair = [a.b.convert(x, dtype=a.real) for x in pair]
    return Tensor(a.b.op(_ARITHMETIC[op], pair)[0], is_weak(left, right))


def logical(a: Arithmetic, op: str, left: Staged, right: Staged, span: Span) -> Value:
    """`and` / `or` of bools; both sides are computed."""
    for side in (left, right):
        array = isinstance(side, Tensor) and side.type.dtype is BOOL
        if not array and not (isinstance(side, Static) and isinstance(side.value, bool)):
            raise DTypeMistake(f"'{op}' needs bools", span, found=describe(side))
    what = f"'{op}'"
    return a.b.op(op, a.broadcast(a.promote([left, right], span, what), span, what))[0]


def fold(op: str, a: Any, b: Any, span: Span) -> Static:
    """An operator on values known now."""
    if op in ("and", "or"):
        if not (isinstance(a, bool) and isinstance(b, bool)):
            raise DTypeMistake(f"'{op}' needs bools", span, found=f"{a!r} and {b!r}")
        return Static(a and b if op == "and" else a or b)
    if op in ("==", "!="):
        return Static((a == b) == (op == "=="))
    if op not in _FOLD or not (is_number(Static(a)) and is_number(Static(b))):
        raise TypeMistake(f"'{op}' cannot be applied here", span, found=f"{a!r} and {b!r}")
    try:
        out = _FOLD[op](a, b)
    except ZeroDivisionError:
        raise TypeMistake("division by zero", span, found=f"{a} {op} {b}") from None
    except OverflowError:
        out = math.inf
    if isinstance(out, complex):
        raise TypeMistake("a negative number has no such power", span, found=f"{a} {op} {b}")
    if type(out) is int and not -(2**63) <= out < 2**63:
        raise SizeMistake("this whole number overflows 64 bits", span, found=f"{a} {op} {b}")
    return Static(out)


def unary(a: Arithmetic, op: str, value: Staged, span: Span) -> Staged:
    """`-x`, `+x`, `not x`."""
    if isinstance(value, Static):
        if op == "not" and isinstance(value.value, bool):
            return Static(not value.value)
        if op != "not" and is_number(value):
            return Static(-value.value if op == "-" else value.value)
    x = a.tensor(value, span)
    dtype = a.type(x).dtype
    if op == "not":
        if dtype is not BOOL:
            raise DTypeMistake("'not' needs a bool", span, found=str(a.type(x)))
        return Tensor(a.b.not_(x))
    if not dtype.is_number:
        raise DTypeMistake(f"'{op}' needs a number", span, found=str(a.type(x)))
    if op == "-" and x in a.dense:
        return Tensor(a.dense_constant(-a.dense[x], a.type(x)), is_weak(value))
    return Tensor(a.b.neg(x) if op == "-" else x, is_weak(value))


def power(a: Arithmetic, left: Staged, right: Staged, span: Span) -> Value:
    """`left ^ right`; small whole powers multiply, others go through `pow`."""
    if isinstance(left, Tensor) and isinstance(right, Static) and is_number(right):
        short = _small_power(a, left, right.value)
        if short is not None:
            return short
    pair = a.broadcast(a.promote([left, right], span, "'^'"), span, "'^'")
    if not a.type(pair[0]).dtype.is_number:
        raise DTypeMistake("'^' needs numbers", span, found=str(a.type(pair[0])))
    if not a.type(pair[0]).dtype.is_float:
        pair = [a.b.convert(x, dtype=a.real) for x in pair]
    return a.b.pow(*pair)


def _small_power(a: Arithmetic, left: Tensor, exponent: int | float) -> Value | None:
    """The power without `pow`, where the exponent allows it."""
    dtype = left.type.dtype
    if exponent == 0.5 and dtype.is_float:
        return a.b.sqrt(left.value)
    if not float(exponent).is_integer() or abs(exponent) > LARGEST_POWER:
        return None
    count = int(exponent)
    if dtype.is_float or (dtype.is_int and isinstance(exponent, int) and count >= 0):
        if count >= 0:
            return _multiply_out(a, left.value, count)
        one = a.b.const(1, left.type)
        return a.b.div(one, _multiply_out(a, left.value, -count))
    return None


def _multiply_out(a: Arithmetic, x: Value, count: int) -> Value:
    """x to a whole power by repeated squaring."""
    if count == 0:
        return a.b.const(1, x)
    out: Value | None = None
    square = x
    while True:
        if count & 1:
            out = square if out is None else a.b.mul(out, square)
        count >>= 1
        if not count:
            assert out is not None
            return out
        square = a.b.mul(square, square)


def matmul(a: Arithmetic, left: Staged, right: Staged, span: Span) -> Value:
    """`left @ right`: vectors, matrices, and stacks of matrices, as NumPy's matmul."""
    x, y = a.promote([left, right], span, "'@'")
    tx, ty = a.type(x), a.type(y)
    if not tx.rank or not ty.rank or not tx.dtype.is_number:
        hint = "scalars multiply with '*'" if not tx.rank or not ty.rank else None
        raise TypeMistake("'@' needs arrays of numbers", span, found=f"{tx} @ {ty}", hint=hint)
    contract = max(0, ty.rank - 2)
    if tx.shape[-1] != ty.shape[contract]:
        raise SizeMistake(
            "'@' of sizes that do not match",
            span,
            expected=f"size {tx.shape[-1]} in axis {contract} of the right side",
            found=f"{tx} @ {ty}",
            hint="transpose one side: x.T" if tx.shape[-1] in ty.shape else None,
        )
    if tx.rank <= 2 or ty.rank <= 2:
        return _plain_dot(a, x, y, contract)
    lead = a.common_shape([tx.with_shape(tx.shape[:-2]), ty.with_shape(ty.shape[:-2])], span, "'@'")
    x = a.b.expand(x, (*lead, *tx.shape[-2:]))
    y = a.b.expand(y, (*lead, *ty.shape[-2:]))
    batch, n = tuple(range(len(lead))), len(lead)
    return dot(a, x, y, batch, batch, (n + 1,), (n,))


def _plain_dot(a: Arithmetic, x: Value, y: Value, contract: int) -> Value:
    """A product where one side is at most a matrix; axes are ordered as NumPy orders them."""
    rank_x, rank_y = a.type(x).rank, a.type(y).rank
    out = dot(a, x, y, (), (), (rank_x - 1,), (contract,))
    if rank_y > 2 and rank_x == 2:  # the row axis goes behind the stack of matrices
        lead = rank_y - 2
        return a.b.transpose(out, perm=(*range(1, lead + 1), 0, lead + 1))
    return out


def dot(
    a: Arithmetic,
    x: Value,
    y: Value,
    lhs_batch: Sequence[int],
    rhs_batch: Sequence[int],
    lhs_contract: Sequence[int],
    rhs_contract: Sequence[int],
) -> Value:
    """A dot_general op."""
    return a.b.dot_general(
        x,
        y,
        lhs_batch=tuple(lhs_batch),
        rhs_batch=tuple(rhs_batch),
        lhs_contract=tuple(lhs_contract),
        rhs_contract=tuple(rhs_contract),
    )


def _bounded_power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 64 and abs(a) > 1:
        return 2**63 if b % 2 == 0 or a > 0 else -(2**63) - 1  # reported as an overflow
    return a**b


_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "^": _bounded_power,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
