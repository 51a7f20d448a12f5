"""Types of IR values: arrays of static shape, trees, and buffers of the loop level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """A scalar type. `numpy` is what the reference interpreter computes with.

    `key` is a threefry key: two 32-bit words packed into 64 bits, word 0 (what
    `jax.random.key_data` shows first) in the low half, so that a little-endian array of
    keys has the same bytes as a `uint32[..., 2]` array.
    """

    name: str
    numpy: np.dtype[Any]

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        """Whether values are real numbers, hence differentiable."""
        return self.name in ("f32", "f64")

    @property
    def is_int(self) -> bool:
        """Whether values are integers (signed or not); `bool` and `key` are not."""
        return self.name in ("i32", "i64", "u32")

    @property
    def is_number(self) -> bool:
        """Whether arithmetic is defined."""
        return self.is_float or self.is_int

    @property
    def itemsize(self) -> int:
        """Bytes per element in memory."""
        return self.numpy.itemsize


F32 = DType("f32", np.dtype(np.float32))
F64 = DType("f64", np.dtype(np.float64))
I32 = DType("i32", np.dtype(np.int32))
I64 = DType("i64", np.dtype(np.int64))
U32 = DType("u32", np.dtype(np.uint32))
BOOL = DType("bool", np.dtype(np.bool_))
KEY = DType("key", np.dtype(np.uint64))

DTYPES: dict[str, DType] = {t.name: t for t in (F32, F64, I32, I64, U32, BOOL, KEY)}


def dtype_of(array: np.ndarray[Any, np.dtype[Any]]) -> DType:
    """The IR dtype of a NumPy array; KeyError where the IR has none."""
    return _BY_NUMPY[array.dtype]


_BY_NUMPY = {t.numpy: t for t in DTYPES.values()}


@dataclass(frozen=True, slots=True)
class TensorType:
    """An array of `dtype` with a static shape; a scalar has the empty shape."""

    dtype: DType
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]" if self.shape else self.dtype.name

    def __repr__(self) -> str:
        return str(self)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense array."""
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        """The same dtype with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another dtype."""
        return TensorType(dtype, self.shape)


@dataclass(frozen=True, slots=True)
class BufferType:
    """Memory of the loop level: a row-major contiguous array that is loaded and stored."""

    dtype: DType
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"&{TensorType(self.dtype, self.shape)}"

    def __repr__(self) -> str:
        return str(self)

    @property
    def tensor(self) -> TensorType:
        """The type of the array that the buffer holds."""
        return TensorType(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class TreeType:
    """A sum of weighted binary trees (see tree.py): a vector of `fillers` numbers at every place.

    depth: how many levels it has at most; a single node has depth 1, nothing depth 0.
    """

    dtype: DType
    depth: int
    fillers: int

    def __str__(self) -> str:
        return f"tree.{self.dtype}[{self.depth},{self.fillers}]"

    def __repr__(self) -> str:
        return str(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """A tree is one value: it has no axes."""
        return ()

    @property
    def places(self) -> int:
        """How many places there are for nodes."""
        return int(2**self.depth - 1)

    def with_depth(self, depth: int) -> TreeType:
        """The same with another depth."""
        return TreeType(self.dtype, depth, self.fillers)


Type = TensorType | BufferType | TreeType


def scalar(dtype: DType) -> TensorType:
    """The scalar type of `dtype`."""
    return TensorType(dtype)
