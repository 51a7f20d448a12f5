"""Where broadcasts and transposes stand: after the ops that can do without them.

A transpose of a large array is a copy of it. It moves down through elementwise ops to a
reduction, a product or a broadcast, where it vanishes or is done on fewer elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.opdef import OPS
from .rewrite_table import Found, made, shape_of

if TYPE_CHECKING:
    from .simplify import Simplifier

DEEPEST = 4  # elementwise ops in a row that are written again under another order of axes


def sink_broadcast(b: Simplifier, name: str, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """f(broadcast(x), broadcast(y)) as broadcast(f(x, y)): fewer elements are computed."""
    shape = shape_of(xs[0])
    if not shape:
        return None
    axes: tuple[int, ...] | None = None
    for x in xs:
        op = made(b, x, "broadcast")
        if op is not None and (axes is None or op.attrs["axes"] == axes):
            axes = op.attrs["axes"]
        elif b.splat(x) is None:
            return None
    if axes is None:
        return None
    small = tuple(shape[a] for a in axes)
    inner = []
    for x in xs:
        op = made(b, x, "broadcast")
        if op is not None:
            inner.append(op.operands[0])
        else:
            inner.append(b.const(b.splat(x), Builder.type(x).with_shape(small)))
    (out,) = b.op(name, inner, **attrs)
    return [b.broadcast(out, shape=shape, axes=axes)]


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that undoes `perm`."""
    return tuple(perm.index(i) for i in range(len(perm)))


def sink_transpose(b: Simplifier, name: str, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """f(transpose(x), y) as transpose(f(x, y')), where y' costs no copy of y."""
    for x in xs:
        op = made(b, x, "transpose")
        if op is not None:
            break
    else:
        return None
    perm = op.attrs["perm"]
    inner = [permuted(b, x, inverse(perm)) for x in xs]
    if any(v is None for v in inner):
        return None
    (out,) = b.op(name, [v for v in inner if v is not None], **attrs)
    return [b.transpose(out, perm=perm)]


def permuted(b: Simplifier, x: Value, perm: tuple[int, ...], depth: int = 0) -> Value | None:
    """x with its axes in the order `perm` where that copies no array of x's size, or None.

    depth: how many elementwise ops may be written a second time on the way to such arrays.
    """
    if b.splat(x) is not None:
        return b.transpose(x, perm=perm)
    op = b.maker(x)
    if op is None:
        return None
    if op.name == "transpose" and op.attrs["perm"] == inverse(perm):
        return op.operands[0]
    if op.name == "broadcast" and Builder.type(op.operands[0]).size < Builder.type(x).size:
        return b.transpose(x, perm=perm)
    if depth and OPS[op.name].elementwise:
        inner = [permuted(b, v, perm, depth - 1) for v in op.operands]
        if all(v is not None for v in inner):
            return b.op(op.name, [v for v in inner if v is not None], **op.attrs)[0]
    return None


def with_leading(b: Simplifier, x: Value, axes: Sequence[int]) -> tuple[Value, list[int]] | None:
    """x with `axes` in front, written again from what it is broadcast from; the new order."""
    rest = [i for i in range(len(shape_of(x))) if i not in axes]
    perm = [*axes, *rest]
    if perm == sorted(perm):
        return None
    found = permuted(b, x, tuple(perm), DEEPEST)
    return None if found is None else (found, perm)
