"""Reductions, cumulative sums and sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core import Attrs, Block, Value
from .opdef import Array, OpDef, declare, need, tensor
from .types import BOOL, I32, DType, TensorType, Type, dtype_of


def identity(kind: str, dtype: DType) -> Any:
    """The neutral element of a reduction: what an empty one gives.

    `kind` is "add", "mul", "max" or "min".
    """
    if kind in ("add", "mul"):
        return dtype.numpy.type(kind == "mul")
    low = kind == "max"
    if dtype is BOOL:
        return np.bool_(not low)
    if dtype.is_float:
        return dtype.numpy.type(-np.inf if low else np.inf)
    info = np.iinfo(dtype.numpy)
    return dtype.numpy.type(info.min if low else info.max)


def _declare_reduction(name: str, kind: str, function: Any, doc: str, bools: bool) -> None:
    def infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
        source, axes = tensor(operands[0]), attrs["axes"]
        need(
            source.dtype.is_number or (bools and source.dtype is BOOL),
            f"{name} of {source.dtype}",
        )
        need(
            list(axes) == sorted(set(axes)) and all(0 <= a < source.rank for a in axes),
            f"{name} over axes {list(axes)} of {source}",
        )
        shape = tuple(n for i, n in enumerate(source.shape) if i not in axes)
        return [source.with_shape(shape)]

    def run(attrs: Attrs, x: Array) -> Array:
        start = identity(kind, dtype_of(x))
        with np.errstate(all="ignore"):
            return np.asarray(function(x, axis=tuple(attrs["axes"]), initial=start, dtype=x.dtype))

    declare(OpDef(name, doc, infer, run, attrs=(("axes", "ints"),), arity=1))


_declare_reduction("reduce_sum", "add", np.add.reduce, "sum over `axes`", False)
_declare_reduction("reduce_prod", "mul", np.multiply.reduce, "product over `axes`", False)
_declare_reduction(
    "reduce_max", "max", np.maximum.reduce, "largest over `axes` (any, for bool)", True
)
_declare_reduction(
    "reduce_min", "min", np.minimum.reduce, "smallest over `axes` (all, for bool)", True
)


def _arg_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source, axis = tensor(operands[0]), attrs["axis"]
    need(source.dtype.is_number, f"argmax of {source.dtype}")
    need(
        0 <= axis < source.rank and source.shape[axis] > 0, f"argmax along axis {axis} of {source}"
    )
    return [TensorType(I32, source.shape[:axis] + source.shape[axis + 1 :])]


def _declare_arg(name: str, function: Callable[..., Any], doc: str) -> None:
    declare(
        OpDef(
            name,
            doc,
            _arg_infer,
            lambda attrs, x: np.asarray(function(x, axis=attrs["axis"])).astype(np.int32),
            attrs=(("axis", "int"),),
            arity=1,
        )
    )


_declare_arg(
    "argmax", np.argmax, "index of the first largest element along `axis` (NaN is largest)"
)
_declare_arg(
    "argmin", np.argmin, "index of the first smallest element along `axis` (NaN is smallest)"
)


def _cumsum_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = tensor(operands[0])
    need(source.dtype.is_number, f"cumsum of {source.dtype}")
    need(0 <= attrs["axis"] < source.rank, f"cumsum along axis {attrs['axis']} of {source}")
    return [source]


def _cumsum(attrs: Attrs, x: Array) -> Array:
    axis = attrs["axis"]
    if attrs["reverse"]:
        flipped = np.cumsum(np.flip(x, axis), axis=axis, dtype=x.dtype)
        return np.ascontiguousarray(np.flip(flipped, axis))
    return np.cumsum(x, axis=axis, dtype=x.dtype)


declare(
    OpDef(
        "cumsum",
        "running sum along `axis`, from the end if `reverse`",
        _cumsum_infer,
        _cumsum,
        attrs=(("axis", "int"), ("reverse", "bool")),
        arity=1,
    )
)


def _sort_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(len(operands) > 0, "sort needs an operand")
    types = [tensor(v) for v in operands]
    need(types[0].dtype.is_number, f"sort by {types[0].dtype}")
    need(0 <= attrs["axis"] < types[0].rank, f"sort along axis {attrs['axis']} of {types[0]}")
    for t in types:
        need(t.shape == types[0].shape, f"sort of {types[0]} and {t} together")
    return list(types)


def _sort(attrs: Attrs, *arrays: Array) -> tuple[Array, ...]:
    order = np.argsort(arrays[0], axis=attrs["axis"], kind="stable")
    return tuple(np.take_along_axis(x, order, attrs["axis"]) for x in arrays)


declare(
    OpDef(
        "sort",
        "operands reordered along `axis` so that the first ascends; stable, NaN last",
        _sort_infer,
        _sort,
        attrs=(("axis", "int"),),
    )
)
