"""Typed operations on staged values: promotion of literals, broadcasting, operators."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, F64, I32, I64, KEY, DType, TensorType
from .values import Record, SizeMistake, Staged, Static, StaticNeeded, Tensor, Tuple, TypeMistake, describe

MOST_ELEMENTS = 2**40


class Arithmetic:
    """Operations over a builder. `real` is the default float type of the program."""

    def __init__(self, builder: Builder, real: DType) -> None:
        self.b = builder
        self.real = real

    def tensor(self, value: Staged, span: Span, dtype: DType | None = None) -> Value:
        """`value` as an IR value; a static number becomes a constant of `dtype` or its own type."""
        match value:
            case Tensor(v):
                return v
            case Static(bool() | int() | float() as number):
                return self.constant(number, dtype, span)
        raise TypeMistake(
            "a number or an array is needed here", span, found=describe(value)
        )

    def constant(self, number: bool | int | float, dtype: DType | None, span: Span) -> Value:
        """A scalar constant; raises where `dtype` cannot hold the number."""
        if dtype is None:
            dtype = BOOL if isinstance(number, bool) else I32 if isinstance(number, int) else self.real
        if isinstance(number, bool) and dtype is not BOOL:
            raise TypeMistake("a bool is not a number", span, hint=f"convert it: {dtype}(...)")
        if dtype is BOOL and not isinstance(number, bool):
            raise TypeMistake("a number is not a bool", span, hint="compare it: x != 0")
        if dtype.is_int:
            if isinstance(number, float):
                raise TypeMistake(f"{number} is not an integer", span, expected=str(dtype))
            info_bits = dtype.itemsize * 8 - (dtype.name != "u32")
            low = 0 if dtype.name == "u32" else -(2**info_bits)
            if not low <= number < 2**info_bits:
                raise TypeMistake(f"{number} does not fit in {dtype}", span, hint="use i64(...)")
        if dtype is KEY:
            raise TypeMistake("a number is not a random key", span, hint="make one: key(seed)")
        return self.b.const(number, dtype)

    def type(self, value: Value) -> TensorType:
        """The tensor type of an IR value."""
        return Builder.type(value)

    def promote(self, values: Sequence[Staged], span: Span, what: str) -> list[Value]:
        """Operands of one dtype: statics take the dtype of the arrays they meet.

        Arrays of different dtypes are an error: nothing is converted silently.
        """
        dtypes = [v.type.dtype for v in values if isinstance(v, Tensor)]
        target = self.common_dtype(dtypes, values, span, what)
        out = []
        for v in values:
            x = self.tensor(v, span, target if isinstance(v, Static) else None)
            if self.type(x).dtype is not target:
                x = self.b.convert(x, dtype=target)
            out.append(x)
        return out

    def common_dtype(
        self, dtypes: list[DType], values: Sequence[Staged], span: Span, what: str
    ) -> DType:
        """The dtype in which `values` meet."""
        kinds = list(dict.fromkeys(dtypes))
        if len(kinds) > 1:
            raise TypeMistake(
                f"{what} needs operands of one type",
                span,
                found=" and ".join(describe(v) for v in values),
                hint=f"convert one: {max(kinds, key=_rank)}(...)",
            )
        floats = any(isinstance(v, Static) and isinstance(v.value, float) for v in values)
        if kinds:
            return self.real if floats and kinds[0].is_int else kinds[0]
        if floats:
            return self.real
        return BOOL if all(isinstance(v, Static) and v.value in (True, False) and isinstance(v.value, bool) for v in values) else I32

    def broadcast(self, values: Sequence[Value], span: Span, what: str) -> list[Value]:
        """Values stretched to their common NumPy-style shape."""
        shape = self.common_shape([self.type(v) for v in values], span, what)
        return [self.b.expand(v, shape) for v in values]

    def common_shape(self, types: Sequence[TensorType], span: Span, what: str) -> tuple[int, ...]:
        """The shape that all broadcast to, or SizeMistake."""
        rank = max(t.rank for t in types)
        shape = []
        for axis in range(rank):
            sizes = {t.shape[axis - rank + t.rank] for t in types if axis - rank + t.rank >= 0}
            wide = sizes - {1}
            if len(wide) > 1:
                raise SizeMistake(
                    f"{what} of shapes that do not broadcast",
                    span,
                    expected=f"axis {axis - rank} of one size (or 1)",
                    found=" and ".join(str(t) for t in types),
                )
            shape.append(next(iter(wide or sizes)))
        return tuple(shape)

    def binary(self, op: str, left: Staged, right: Staged, span: Span) -> Staged:
        """`left op right` for an operator of the language."""
        if isinstance(left, Static) and isinstance(right, Static):
            return self.fold(op, left.value, right.value, span)
        if op == "@":
            return Tensor(self.matmul(left, right, span))
        if op == "^":
            return Tensor(self.power(left, right, span))
        if op in ("and", "or"):
            return Tensor(self.logical(op, left, right, span))
        pair = self.broadcast(self.promote([left, right], span, f"'{op}'"), span, f"'{op}'")
        return Tensor(self._operator(op, pair, span))

    def _operator(self, op: str, pair: list[Value], span: Span) -> Value:
        dtype = self.type(pair[0]).dtype
        if op in ("==", "!="):
            return self.b.op(_COMPARE[op], pair)[0]
        if not dtype.is_number:
            raise TypeMistake(f"'{op}' needs numbers", span, found=str(self.type(pair[0])))
        if op in _COMPARE:
            return self.b.op(_COMPARE[op], pair)[0]
        if op == "/" and dtype.is_int:
            pair = [self.b.convert(x, dtype=self.real) for x in pair]
        return self.b.op(_ARITHMETIC[op], pair)[0]

    def logical(self, op: str, left: Staged, right: Staged, span: Span) -> Value:
        """`and` / `or` of bools; both sides are computed."""
        for side in (left, right):
            if not (isinstance(side, Tensor) and side.type.dtype is BOOL) and not (
                isinstance(side, Static) and isinstance(side.value, bool)
            ):
                raise TypeMistake(f"'{op}' needs bools", span, found=describe(side))
        pair = self.broadcast(self.promote([left, right], span, f"'{op}'"), span, f"'{op}'")
        return self.b.op(op, pair)[0]

    def fold(self, op: str, a: Any, b: Any, span: Span) -> Static:
        """An operator on values known now."""
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
        if op in ("and", "or"):
            if not (isinstance(a, bool) and isinstance(b, bool)):
                raise TypeMistake(f"'{op}' needs bools", span, found=f"{a!r} and {b!r}")
            return Static(a and b if op == "and" else a or b)
        if op in ("==", "!="):
            return Static((a == b) == (op == "=="))
        if op not in _FOLD or not numbers:
            raise TypeMistake(f"'{op}' cannot be applied here", span, found=f"{a!r} and {b!r}")
        try:
            out = _FOLD[op](a, b)
        except ZeroDivisionError:
            raise TypeMistake("division by zero", span, found=f"{a} {op} {b}") from None
        except OverflowError:
            out = math.inf
        if isinstance(out, complex):
            raise TypeMistake("a negative number has no such power", span, found=f"{a} {op} {b}")
        if isinstance(out, int) and not isinstance(out, bool) and abs(out) >= 2**63:
            raise SizeMistake("this whole number overflows 64 bits", span, found=f"{a} {op} {b}")
        return Static(out)

    def unary(self, op: str, value: Staged, span: Span) -> Staged:
        """`-x`, `+x`, `not x`."""
        if isinstance(value, Static):
            if op == "not" and isinstance(value.value, bool):
                return Static(not value.value)
            if op != "not" and isinstance(value.value, int | float) and not isinstance(value.value, bool):
                return Static(-value.value if op == "-" else value.value)
        x = self.tensor(value, span)
        dtype = self.type(x).dtype
        if op == "not":
            if dtype is not BOOL:
                raise TypeMistake("'not' needs a bool", span, found=str(self.type(x)))
            return Tensor(self.b.not_(x))
        if not dtype.is_number:
            raise TypeMistake(f"'{op}' needs a number", span, found=str(self.type(x)))
        return Tensor(self.b.neg(x) if op == "-" else x)

    def power(self, left: Staged, right: Staged, span: Span) -> Value:
        """`left ^ right`; small whole powers multiply, others go through `pow`."""
        if isinstance(right, Static) and isinstance(left, Tensor):
            exponent = right.value
            if isinstance(exponent, int | float) and float(exponent).is_integer():
                count = int(exponent)
                whole = isinstance(exponent, int) or left.type.dtype.is_float
                if whole and 0 <= count <= 16 and left.type.dtype.is_number:
                    return self._multiply_out(left.value, count)
                if whole and -16 <= count < 0 and left.type.dtype.is_float:
                    one = self.b.const(1, left.type)
                    return self.b.div(one, self._multiply_out(left.value, -count))
            if exponent == 0.5 and left.type.dtype.is_float:
                return self.b.sqrt(left.value)
        pair = self.broadcast(self.promote([left, right], span, "'^'"), span, "'^'")
        if not self.type(pair[0]).dtype.is_float:
            pair = [self.b.convert(x, dtype=self.real) for x in pair]
        return self.b.pow(*pair)

    def _multiply_out(self, x: Value, count: int) -> Value:
        """x to a whole power by repeated squaring."""
        if count == 0:
            return self.b.const(1, x)
        out: Value | None = None
        square = x
        while True:
            if count & 1:
                out = square if out is None else self.b.mul(out, square)
            count >>= 1
            if not count:
                assert out is not None
                return out
            square = self.b.mul(square, square)

    def matmul(self, left: Staged, right: Staged, span: Span) -> Value:
        """`left @ right`: vectors, matrices, and stacks of matrices, as NumPy's matmul."""
        a, b = self.promote([left, right], span, "'@'")
        ta, tb = self.type(a), self.type(b)
        if not ta.rank or not tb.rank or not ta.dtype.is_number:
            raise TypeMistake("'@' needs arrays of numbers", span, found=f"{ta} and {tb}")
        contract_b = max(0, tb.rank - 2)
        if ta.shape[-1] != tb.shape[contract_b]:
            raise SizeMistake(
                "'@' of sizes that do not match",
                span,
                expected=f"{ta.shape[-1]} in axis {contract_b} of the right side",
                found=f"{ta} @ {tb}",
            )
        if ta.rank <= 2 or tb.rank <= 2:
            return self._plain_dot(a, b, contract_b)
        lead = self.common_shape(
            [ta.with_shape(ta.shape[:-2]), tb.with_shape(tb.shape[:-2])], span, "'@'"
        )
        a = self.b.expand(a, (*lead, *ta.shape[-2:]))
        b = self.b.expand(b, (*lead, *tb.shape[-2:]))
        batch, n = tuple(range(len(lead))), len(lead)
        return self.dot(a, b, batch, batch, (n + 1,), (n,))

    def _plain_dot(self, a: Value, b: Value, contract_b: int) -> Value:
        """A product where one side is at most a matrix: its free axis goes last as in NumPy."""
        rank_a, rank_b = self.type(a).rank, self.type(b).rank
        out = self.dot(a, b, (), (), (rank_a - 1,), (contract_b,))
        if rank_b > 2 and rank_a == 2:
            lead = rank_b - 2
            perm = (*range(1, lead + 1), 0, lead + 1)
            return self.b.transpose(out, perm=perm)
        return out

    def dot(
        self,
        a: Value,
        b: Value,
        lhs_batch: Sequence[int],
        rhs_batch: Sequence[int],
        lhs_contract: Sequence[int],
        rhs_contract: Sequence[int],
    ) -> Value:
        """A dot_general op."""
        return self.b.dot_general(
            a,
            b,
            lhs_batch=tuple(lhs_batch),
            rhs_batch=tuple(rhs_batch),
            lhs_contract=tuple(lhs_contract),
            rhs_contract=tuple(rhs_contract),
        )

    def static_int(self, value: Staged, span: Span, what: str) -> int:
        """`value` as a whole number known now, or StaticNeeded."""
        if isinstance(value, Static) and isinstance(value.value, int) and not isinstance(value.value, bool):
            return value.value
        raise StaticNeeded(
            f"{what} must be a whole number known when compiling",
            span,
            found=describe(value),
            hint="use a size variable, a literal, or a 'static int' parameter",
        )

    def shape_of(self, value: Staged, span: Span) -> tuple[int, ...]:
        """A shape argument: a whole number or a tuple of them, sane in size."""
        items = value.items if isinstance(value, Tuple) else (value,)
        shape = tuple(self.static_int(i, span, "a size") for i in items)
        if any(n < 0 for n in shape):
            raise SizeMistake("a size is negative", span, found=str(list(shape)))
        if math.prod(shape) > MOST_ELEMENTS:
            raise SizeMistake(
                "the array would be too large",
                span,
                expected=f"at most {MOST_ELEMENTS} elements",
                found=f"{list(shape)}: {math.prod(shape)}",
            )
        return shape

    def materialise(self, value: Staged, span: Span) -> Staged:
        """`value` with its static numbers made tensors of their own types."""
        match value:
            case Static():
                return Tensor(self.tensor(value, span))
            case Tuple(items):
                return Tuple(tuple(self.materialise(i, span) for i in items))
            case Record(name, fields):
                return Record(name, {k: self.materialise(v, span) for k, v in fields.items()})
            case Tensor():
                return value
        raise TypeMistake("a run-time value is needed here", span, found=describe(value))

    def convert(self, value: Staged, dtype: DType, span: Span) -> Staged:
        """`dtype(value)`."""
        if isinstance(value, Static) and isinstance(value.value, bool | int | float):
            number = value.value
            if dtype is BOOL:
                return Tensor(self.constant(bool(number), BOOL, span))
            if dtype.is_int and isinstance(number, float) and not math.isfinite(number):
                raise TypeMistake(f"{number} is not an integer", span, expected=str(dtype))
            return Tensor(self.constant(int(number) if dtype.is_int else float(number), dtype, span))
        x = self.tensor(value, span)
        if self.type(x).dtype is dtype:
            return Tensor(x)
        if self.type(x).dtype is KEY or dtype is KEY:
            raise TypeMistake("a random key does not convert", span)
        return Tensor(self.b.convert(x, dtype=dtype))


def _rank(dtype: DType) -> int:
    return [BOOL, I32, I64].index(dtype) if dtype in (BOOL, I32, I64) else 4 + (dtype is F64)


_COMPARE = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod"}


def _bounded_power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 64 and abs(a) > 1:
        return 2**63 if b % 2 == 0 or a > 0 else -(2**63)  # reported as an overflow
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
