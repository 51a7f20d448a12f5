"""Staged numbers as IR values: constants, promotion of literals, broadcasting, conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Block, Value
from ..ir.opdef import Array
from ..ir.span import Span
from ..ir.types import BOOL, F64, I32, I64, KEY, DType, TensorType
from .type_errors import DTypeMistake, SizeMistake, StaticNeeded, TypeMistake
from .values import Record, Staged, Static, Tensor, Trace, Tree, Tuple, describe

MOST_ELEMENTS = 2**40


class SizedBuilder(Builder):
    """A builder that refuses arrays no machine can hold."""

    def op(
        self,
        name: str,
        operands: Sequence[Value] = (),
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """As `Builder.op`; raises SizeMistake for a result of more than 2^40 elements."""
        results = super().op(name, operands, regions, names, **attrs)
        for value in results:
            shape = value.type.shape
            if shape and math.prod(shape) > MOST_ELEMENTS:
                raise too_large(shape, self.span)
        return results


def too_large(shape: Sequence[int], span: Span | None) -> SizeMistake:
    """The error of an array of `shape`, which no machine can hold."""
    return SizeMistake(
        "the array would be too large",
        span,
        expected=f"at most 2^40 = {MOST_ELEMENTS} elements",
        found=f"{list(shape)}: {math.prod(shape)} elements",
    )


class Arithmetic:
    """Operations over a builder. `real` is the default float type of the program.

    `dense` remembers the contents of constant arrays, so that nested lists become one constant.
    `lenient` lets whole numbers become `real` where they meet it, as in shape programs.
    """

    lenient = False

    def __init__(self, builder: Builder, real: DType) -> None:
        self.b = builder
        self.real = real
        self.dense: dict[Value, Array] = {}

    def type(self, value: Value) -> TensorType:
        """The tensor type of an IR value."""
        return Builder.type(value)

    def tensor(self, value: Staged, span: Span, dtype: DType | None = None) -> Value:
        """`value` as an IR value; literals take `dtype` if given, else their own type."""
        match value:
            case Tensor(v, weak):
                return self._adapt(v, dtype, span) if weak and dtype is not None else v
            case Static(bool() | int() | float() as number):
                return self.constant(number, dtype, span)
        raise TypeMistake("a number or an array is needed here", span, found=describe(value))

    def _adapt(self, value: Value, dtype: DType, span: Span) -> Value:
        """A weak array as `dtype`; a float one does not become an integer."""
        source = self.type(value).dtype
        if source is dtype:
            return value
        if not (source.is_number and dtype.is_number) or (source.is_float and not dtype.is_float):
            raise DTypeMistake(
                "this value has another type",
                span,
                expected=str(dtype),
                found=str(self.type(value)),
                hint=_conversion_hint(dtype),
            )
        if value in self.dense:
            return self.dense_constant(self.dense[value], self.type(value).with_dtype(dtype))
        return self.b.convert(value, dtype=dtype)

    def dense_constant(self, data: Array, type: TensorType) -> Value:
        """A constant array: `data` has its shape, or is one number for every element."""
        value = self.b.const(data if data.ndim else data.item(), type)
        self.dense[value] = data
        return value

    def constant(self, number: bool | int | float, dtype: DType | None, span: Span) -> Value:
        """A scalar constant; raises where `dtype` cannot hold the number."""
        if dtype is None:
            dtype = self.literal_dtype([number])
        self.check_fits(number, dtype, span)
        return self.b.const(number, dtype)

    def check_fits(self, number: bool | int | float, dtype: DType, span: Span) -> None:
        """Raise DTypeMistake or SizeMistake where `dtype` cannot hold the number."""
        if isinstance(number, bool) and dtype is not BOOL:
            raise DTypeMistake("a bool is not a number", span, hint=_conversion_hint(dtype))
        if dtype is BOOL and not isinstance(number, bool):
            raise DTypeMistake("a number is not a bool", span, hint="compare it: x != 0")
        if dtype is KEY:
            raise DTypeMistake("a number is not a random key", span, hint="make one: key(seed)")
        if dtype.is_int:
            _check_integer(number, dtype, span)
        elif isinstance(number, int) and abs(number) >= 2**1023:
            raise SizeMistake(f"{number} does not fit in {dtype}", span)
        elif dtype.is_float and math.isfinite(number) and abs(number) > _largest(dtype):
            raise SizeMistake(f"{number} does not fit in {dtype}", span, hint="use f64, or inf")

    def literal_dtype(self, numbers: Sequence[Any]) -> DType:
        """The dtype of literals that meet nothing else."""
        if any(isinstance(n, float) for n in numbers):
            return self.real
        return BOOL if all(isinstance(n, bool) for n in numbers) else I32

    def promote(self, values: Sequence[Staged], span: Span, what: str) -> list[Value]:
        """Operands of one dtype: literals take the dtype of the arrays they meet.

        Arrays of different dtypes are an error: nothing is converted silently.
        """
        strong = {v.type.dtype: None for v in values if isinstance(v, Tensor) and not v.weak}
        target = self.common_dtype(list(strong), values, span, what)
        out = []
        for v in values:
            weak = isinstance(v, Static) or (isinstance(v, Tensor) and v.weak)
            x = self.tensor(v, span, target if weak else None)
            if self.type(x).dtype is not target:
                x = self.b.convert(x, dtype=target)
            out.append(x)
        return out

    def common_dtype(
        self, strong: Sequence[DType], values: Sequence[Staged], span: Span, what: str
    ) -> DType:
        """The dtype in which `values` meet; `strong` are the dtypes of those not literal."""
        if self.lenient and set(strong) == {I32, self.real}:
            return self.real
        if len(strong) > 1:
            widest = max(strong, key=_rank)
            raise DTypeMistake(
                f"{what} needs operands of one type",
                span,
                found=" and ".join(describe(v) for v in values),
                hint=_conversion_hint(widest) if widest.is_number else None,
            )
        literals = [v.value for v in values if isinstance(v, Static)]
        weak = [v.type.dtype for v in values if isinstance(v, Tensor) and v.weak]
        floats = any(isinstance(n, float) for n in literals) or any(t.is_float for t in weak)
        if strong:
            return self.real if floats and strong[0].is_int else strong[0]
        if floats:
            return self.real
        if any(t is I64 for t in weak):
            return I64
        bools = all(t is BOOL for t in weak) and all(isinstance(n, bool) for n in literals)
        return BOOL if bools else I32

    def broadcast(self, values: Sequence[Value], span: Span, what: str) -> list[Value]:
        """Values stretched to their common NumPy-style shape."""
        first = self.type(values[0]).shape
        if all(self.type(v).shape == first for v in values):
            return list(values)
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

    def static_int(self, value: Staged, span: Span, what: str) -> int:
        """`value` as a whole number known now, or StaticNeeded."""
        if isinstance(value, Static) and type(value.value) is int:
            return value.value
        raise StaticNeeded(
            f"{what} must be a whole number known when compiling",
            span,
            found=describe(value),
            hint="use a size variable, a literal, or a 'static int' parameter",
        )

    def static_bool(self, value: Staged, span: Span, what: str) -> bool:
        """`value` as a bool known now, or StaticNeeded."""
        if isinstance(value, Static) and isinstance(value.value, bool):
            return value.value
        raise StaticNeeded(f"{what} must be true or false", span, found=describe(value))

    def shape_of(self, value: Staged, span: Span) -> tuple[int, ...]:
        """A shape argument: a whole number or a tuple of them, sane in size."""
        items = value.items if isinstance(value, Tuple) else (value,)
        shape = tuple(self.static_int(i, span, "a size") for i in items)
        if any(n < 0 for n in shape):
            raise SizeMistake("a size is negative", span, found=str(list(shape)))
        if max(math.prod(shape), *shape, 0) > MOST_ELEMENTS:
            raise too_large(shape, span)
        return shape

    def count_of(self, value: Staged, span: Span) -> int:
        """One size as an argument, sane in size."""
        self.static_int(value, span, "a size")
        (count,) = self.shape_of(value, span)
        return count

    def materialise(self, value: Staged, span: Span) -> Staged:
        """`value` with its literals made arrays of their own types."""
        match value:
            case Static():
                return Tensor(self.tensor(value, span))
            case Tuple(items):
                return Tuple(tuple([self.materialise(i, span) for i in items]))
            case Record(name, fields):
                return Record(name, {k: self.materialise(v, span) for k, v in fields.items()})
            case Trace(choices, score, result, supports):
                choices, score, result = (
                    self.materialise(v, span) for v in (choices, score, result)
                )
                return Trace(choices, score, result, supports)
            case Tensor(v):
                return Tensor(v)
            case Tree():
                return value
        raise TypeMistake("a run-time value is needed here", span, found=describe(value))

    def convert(self, value: Staged, dtype: DType, span: Span) -> Staged:
        """`dtype(value)`: floats to integers drop their fraction; numbers to bool test `!= 0`."""
        if isinstance(value, Static) and isinstance(value.value, bool | int | float):
            number = value.value
            if dtype is BOOL:
                return Tensor(self.constant(bool(number), BOOL, span))
            if dtype.is_int and isinstance(number, float) and not math.isfinite(number):
                raise DTypeMistake(f"{number} is not an integer", span, expected=str(dtype))
            number = int(number) if dtype.is_int or isinstance(number, bool) else number
            return Tensor(self.constant(number, dtype, span))
        x = self.tensor(value, span)
        if self.type(x).dtype is dtype:
            return Tensor(x)
        if self.type(x).dtype is KEY or dtype is KEY:
            raise DTypeMistake("a random key does not convert", span)
        return Tensor(self.b.convert(x, dtype=dtype))


def is_weak(*values: Staged) -> bool:
    """Whether a result of `values` comes from literals alone."""
    return all(isinstance(v, Static) or (isinstance(v, Tensor) and v.weak) for v in values)


def _check_integer(number: int | float, dtype: DType, span: Span) -> None:
    if isinstance(number, float):
        raise DTypeMistake(
            f"{number} is not an integer",
            span,
            expected=str(dtype),
            hint=f"round it towards zero: {dtype}(...)",
        )
    info = np.iinfo(dtype.numpy)
    if not int(info.min) <= number <= int(info.max):
        hint = "use i64(...)" if dtype is I32 and abs(number) < 2**63 else None
        raise SizeMistake(f"{number} does not fit in {dtype}", span, hint=hint)


def _largest(dtype: DType) -> float:
    return float(np.finfo(dtype.numpy).max)


def _rank(dtype: DType) -> int:
    return [BOOL, I32, I64].index(dtype) if dtype in (BOOL, I32, I64) else 4 + (dtype is F64)


def _conversion_hint(dtype: DType) -> str:
    return f"convert it: {dtype}(...)"
