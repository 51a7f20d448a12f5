"""LLVM values of one scalar or of many lanes, and arithmetic that is written once for both."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ll

from ...ir.types import BOOL, F32, F64, I32, I64, KEY, U32, DType

POINTER = ll.PointerType()
I1, I8, INT32, INT64 = ll.IntType(1), ll.IntType(8), ll.IntType(32), ll.IntType(64)
VOID = ll.VoidType()

REGISTER: dict[DType, ll.Type] = {
    F32: ll.FloatType(),
    F64: ll.DoubleType(),
    I32: INT32,
    I64: INT64,
    U32: INT32,
    BOOL: I1,
    KEY: INT64,
}
MEMORY: dict[DType, ll.Type] = {**REGISTER, BOOL: I8}


def vector(type: ll.Type, lanes: int) -> ll.Type:
    """`type` itself for 0 lanes, else a vector of it."""
    return ll.VectorType(type, lanes) if lanes else type


def lanes_of(value: Any) -> int:
    """The number of lanes, 0 for a scalar."""
    return value.type.count if isinstance(value.type, ll.VectorType) else 0


def element(value: Any) -> ll.Type:
    """The scalar type of a value."""
    return value.type.element if isinstance(value.type, ll.VectorType) else value.type


def constant(like: Any, number: Any) -> Any:
    """`number` in every lane of the type of `like` (a value or a type)."""
    type = like if isinstance(like, ll.Type) else like.type
    if isinstance(type, ll.VectorType):
        return ll.Constant(type, [number] * type.count)
    return ll.Constant(type, number)


def splat(b: ll.IRBuilder, value: Any, lanes: int) -> Any:
    """A scalar in every lane."""
    if not lanes or isinstance(value.type, ll.VectorType):
        return value
    if isinstance(value, ll.Constant):
        return ll.Constant(ll.VectorType(value.type, lanes), [value.constant] * lanes)
    undef = ll.Constant(ll.VectorType(value.type, lanes), ll.Undefined)
    one = b.insert_element(undef, value, ll.Constant(INT32, 0))
    mask = ll.Constant(ll.VectorType(INT32, lanes), [0] * lanes)
    return b.shuffle_vector(one, undef, mask)


@functools.cache
def _suffix(type: ll.Type) -> str:
    if isinstance(type, ll.VectorType):
        return f"v{type.count}{_suffix(type.element)}"
    if isinstance(type, ll.FloatType):
        return "f32"
    if isinstance(type, ll.DoubleType):
        return "f64"
    return f"i{type.width}"


def intrinsic(b: ll.IRBuilder, name: str, result: ll.Type, *args: Any, overload: Any = None) -> Any:
    """A call of `llvm.NAME` overloaded on the type of its first argument (or `overload`)."""
    types = overload if overload is not None else (args[0].type,)
    full = f"llvm.{name}." + ".".join(_suffix(t) for t in types)
    module = b.module
    function = module.globals.get(full)
    if function is None:
        function = ll.Function(module, ll.FunctionType(result, [a.type for a in args]), full)
    return b.call(function, list(args))


class Num:
    """A float value with operators, so that polynomials read as they are written."""

    def __init__(self, b: ll.IRBuilder, value: Any) -> None:
        self.b = b
        self.value = value

    def of(self, other: Any) -> Any:
        """A Num, a number or a raw value as a raw value of this type."""
        if isinstance(other, Num):
            return other.value
        if isinstance(other, int | float):
            return constant(self.value, float(other))
        return other

    def _new(self, value: Any) -> Num:
        return Num(self.b, value)

    def __add__(self, other: Any) -> Num:
        return self._new(self.b.fadd(self.value, self.of(other)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Num:
        return self._new(self.b.fsub(self.value, self.of(other)))

    def __rsub__(self, other: Any) -> Num:
        return self._new(self.b.fsub(self.of(other), self.value))

    def __mul__(self, other: Any) -> Num:
        return self._new(self.b.fmul(self.value, self.of(other)))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Num:
        return self._new(self.b.fdiv(self.value, self.of(other)))

    def __rtruediv__(self, other: Any) -> Num:
        return self._new(self.b.fdiv(self.of(other), self.value))

    def __neg__(self) -> Num:
        return self._new(self.b.fneg(self.value))

    def fma(self, factor: Any, term: Any) -> Num:
        """self * factor + term, rounded once."""
        return self._new(
            intrinsic(self.b, "fma", self.value.type, self.value, self.of(factor), self.of(term))
        )

    def call(self, name: str) -> Num:
        """A unary intrinsic: fabs, floor, sqrt, rint..."""
        return self._new(intrinsic(self.b, name, self.value.type, self.value))

    def compare(self, op: str, other: Any) -> Any:
        """An ordered comparison (false at NaN), as a raw i1 value."""
        return self.b.fcmp_ordered(op, self.value, self.of(other))

    def where(self, test: Any, other: Any) -> Num:
        """self where `test` holds, else `other`."""
        return self._new(self.b.select(test, self.value, self.of(other)))

    def is_nan(self) -> Any:
        """Whether it is NaN."""
        return self.b.fcmp_unordered("uno", self.value, self.value)

    def poly(self, coefficients: Sequence[float]) -> Num:
        """The polynomial with these coefficients, highest first, by Horner's rule."""
        out = self._new(constant(self.value, coefficients[0]))
        for c in coefficients[1:]:
            out = out.fma(self, c)
        return out

    @property
    def wide(self) -> bool:
        """Whether lanes are f64."""
        return isinstance(element(self.value), ll.DoubleType)

    def bits(self) -> Any:
        """The same bits as integers."""
        kind = INT64 if self.wide else INT32
        return self.b.bitcast(self.value, vector(kind, lanes_of(self.value)))

    def from_bits(self, bits: Any) -> Num:
        """Integers read as floats of this type."""
        return self._new(self.b.bitcast(bits, self.value.type))
