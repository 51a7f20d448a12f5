"""Rules of the simplifier for reductions and products: sums of products become contractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.linalg import free_axes
from .rewrite_layouts import inverse, with_leading
from .rewrite_table import Found, Rule, made, rule, shape_of

if TYPE_CHECKING:
    from .simplify import Simplifier

MOST_PARTS = 16  # of a concatenation that are summed one by one
LEAST_CONTRACTED = 512  # products summed, below which a fused loop beats a matrix product


def _reduction(name: str, special: Rule) -> None:
    @rule(name)
    def reduce(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
        (x,) = xs
        axes = tuple(attrs["axes"])
        if not axes:
            return [x]
        return (
            _of_single(b, name, x, axes)
            or special(b, xs, attrs)
            or _of_reduction(b, name, x, axes)
            or _of_moved(b, name, x, axes)
        )


def _of_single(b: Simplifier, name: str, x: Value, axes: tuple[int, ...]) -> Found:
    """Axes of size 1 have nothing to reduce."""
    shape = shape_of(x)
    ones = [a for a in axes if shape[a] == 1]
    if not ones:
        return None
    kept = [i for i in range(len(shape)) if i not in ones]
    small = b.reshape(x, shape=tuple(shape[i] for i in kept))
    rest = tuple(kept.index(a) for a in axes if a not in ones)
    return b.op(name, [small], axes=rest)


def _of_reduction(b: Simplifier, name: str, x: Value, axes: tuple[int, ...]) -> Found:
    inner = made(b, x, name)
    if inner is None:
        return None
    rank = len(shape_of(inner.operands[0]))
    left = [i for i in range(rank) if i not in inner.attrs["axes"]]
    joined = tuple(sorted((*inner.attrs["axes"], *(left[a] for a in axes))))
    return b.op(name, [inner.operands[0]], axes=joined)


def _of_moved(b: Simplifier, name: str, x: Value, axes: tuple[int, ...]) -> Found:
    """A reduction over everything needs no reshape; any reduction comes before a transpose."""
    op = b.maker(x)
    if op is None:
        return None
    if op.name == "reshape" and len(axes) == len(shape_of(x)):
        source = op.operands[0]
        if 1 in shape_of(source):
            return None  # the reshape is what dropped those axes
        return b.op(name, [source], axes=tuple(range(len(shape_of(source)))))
    if op.name == "transpose":
        perm = op.attrs["perm"]
        kept = [p for i, p in enumerate(perm) if i not in axes]
        (out,) = b.op(name, [op.operands[0]], axes=tuple(sorted(perm[a] for a in axes)))
        return [b.transpose(out, perm=tuple(sorted(kept).index(p) for p in kept))]
    return None


def _new_axes(spread: Op, axes: tuple[int, ...]) -> list[int]:
    return [a for a in axes if a not in spread.attrs["axes"]]


def _without(b: Simplifier, spread: Op, new: Sequence[int]) -> tuple[Value, list[int]]:
    """The broadcast without its axes `new`, and the axes that are left."""
    shape = spread.attrs["shape"]
    kept = [i for i in range(len(shape)) if i not in new]
    axes = tuple(kept.index(a) for a in spread.attrs["axes"])
    small = b.broadcast(spread.operands[0], shape=tuple(shape[i] for i in kept), axes=axes)
    return small, kept


def _extreme(name: str) -> Rule:
    def extreme(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
        """The largest of copies is any of them."""
        spread = made(b, xs[0], "broadcast")
        axes = tuple(attrs["axes"])
        if spread is None or not Builder.type(xs[0]).size:
            return None
        new = _new_axes(spread, axes)
        if not new:
            return None
        small, kept = _without(b, spread, new)
        rest = tuple(kept.index(a) for a in axes if a not in new)
        return b.op(name, [small], axes=rest)

    return extreme


def _sum(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    (x,) = xs
    type, axes = Builder.type(x), tuple(attrs["axes"])
    value = b.splat(x)
    if value is not None:
        count = math.prod(type.shape[a] for a in axes)
        shape = tuple(n for i, n in enumerate(type.shape) if i not in axes)
        small = b.const(value, type.with_shape(shape))
        return [b.mul(small, b.const(count, small))] if count else [b.const(0, small)]
    for find in (
        _sum_of_broadcast,
        _sum_of_negation,
        _sum_of_pads,
        _sum_of_parts,
        _sum_of_batch,
        _sum_of_dot,
        _contraction,
    ):
        found = find(b, x, axes)
        if found is not None:
            return found
    return None


def _sum_of_broadcast(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """Summing over axes that a broadcast made multiplies by their size."""
    spread = made(b, x, "broadcast")
    if spread is None or not Builder.type(x).size:
        return None
    new = _new_axes(spread, axes)
    if not new:
        return None
    small, kept = _without(b, spread, new)
    count = math.prod(shape_of(x)[a] for a in new)
    scaled = b.mul(small, b.const(count, small))
    rest = tuple(kept.index(a) for a in axes if a not in new)
    return [b.reduce_sum(scaled, axes=rest)]


def _sum_of_negation(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    op = made(b, x, "neg")
    return None if op is None else [b.neg(b.reduce_sum(op.operands[0], axes=axes))]


def _sum_of_pads(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """Sums of arrays put beside each other (as gradients of slices are): each is summed first."""
    op = b.maker(x)
    if op is None or not axes:
        return None
    if op.name == "add" and _is_padded(b, x, axes):
        return [b.add(*(b.reduce_sum(v, axes=axes) for v in op.operands))]
    if op.name != "pad" or not _is_padded(b, x, axes):
        return None
    source, fill = op.operands
    rest = [i for i in range(len(shape_of(x))) if i not in axes]
    kept = {k: tuple(op.attrs[k][i] for i in rest) for k in ("low", "high", "interior")}
    return [b.pad(b.reduce_sum(source, axes=axes), fill, **kept)]


def _sum_of_parts(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """The sum along a concatenation of a few arrays is the sum of theirs."""
    op = made(b, x, "concatenate")
    if op is None or op.attrs["axis"] not in axes or len(op.operands) > MOST_PARTS:
        return None
    total, *rest = [b.reduce_sum(v, axes=axes) for v in op.operands]
    for v in rest:
        total = b.add(total, v)
    return [total]


def _is_padded(b: Simplifier, x: Value, axes: tuple[int, ...]) -> bool:
    """Whether x is a sum of arrays padded by zeros along other axes than these."""
    op = b.maker(x)
    if op is None:
        return False
    if op.name == "add":
        return all(_is_padded(b, v, axes) for v in op.operands)
    if op.name != "pad" or b.splat(op.operands[1]) != 0:
        return False
    return not any(op.attrs[k][a] for k in ("low", "high", "interior") for a in axes)


def _sum_of_batch(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """Outer products summed over batch axes contract them: gradients of shared weights do so."""
    op = made(b, x, "dot_general")
    if op is None or op.attrs["lhs_contract"]:
        return None
    new: dict[str, tuple[int, ...]] = {}
    batch = len(op.attrs["lhs_batch"])
    summed = [i for i in range(batch) if i in axes]
    if not summed:
        return None
    for side in ("lhs", "rhs"):
        old = op.attrs[f"{side}_batch"]
        new[f"{side}_batch"] = tuple(a for i, a in enumerate(old) if i not in summed)
        new[f"{side}_contract"] = tuple(old[i] for i in summed)
    left = [i for i in range(len(shape_of(x))) if i not in summed]
    rest = tuple(left.index(a) for a in axes if a not in summed)
    return [b.reduce_sum(b.dot_general(*op.operands, **new), axes=rest)]


def _sum_of_dot(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """A matrix product summed over free axes: the operands are summed before they meet.

    Gradients of parameters that broadcast over points have this form; it saves the product.
    """
    op = made(b, x, "dot_general")
    if op is None or not axes:
        return None
    at = op.attrs
    batch = len(at["lhs_batch"])
    if any(a < batch for a in axes):
        return None
    new: dict[str, tuple[int, ...]] = {}
    operands = []
    first = batch
    for v, side in zip(op.operands, ("lhs", "rhs")):
        rank = len(shape_of(v))
        free = free_axes(rank, at[f"{side}_batch"], at[f"{side}_contract"])
        summed = [f for i, f in enumerate(free) if first + i in axes]
        first += len(free)
        kept = [i for i in range(rank) if i not in summed]
        operands.append(b.reduce_sum(v, axes=tuple(summed)) if summed else v)
        for kind in ("batch", "contract"):
            new[f"{side}_{kind}"] = tuple(kept.index(a) for a in at[f"{side}_{kind}"])
    return [b.dot_general(*operands, **new)]


def _contraction(b: Simplifier, x: Value, axes: tuple[int, ...]) -> Found:
    """The sum of a product whose sides each lack an axis of the other is a matrix product."""
    product = made(b, x, "mul")
    if product is None:
        return None
    sides = [made(b, v, "broadcast") for v in product.operands]
    left, right = sides
    if left is None or right is None or Builder.type(x).size < LEAST_CONTRACTED:
        return None
    have_l, have_r = left.attrs["axes"], right.attrs["axes"]
    if not all(a in have_l and a in have_r for a in axes):
        return None
    kept = [i for i in range(len(shape_of(x))) if i not in axes]
    both = [a for a in kept if a in have_l and a in have_r]
    only_l = [a for a in kept if a in have_l and a not in have_r]
    only_r = [a for a in kept if a in have_r and a not in have_l]
    if not only_l or not only_r or len(both) + len(only_l) + len(only_r) < len(kept):
        return None
    out = b.dot_general(
        left.operands[0],
        right.operands[0],
        lhs_batch=tuple(have_l.index(a) for a in both),
        rhs_batch=tuple(have_r.index(a) for a in both),
        lhs_contract=tuple(have_l.index(a) for a in axes),
        rhs_contract=tuple(have_r.index(a) for a in axes),
    )
    order = [*both, *only_l, *only_r]
    return [b.transpose(out, perm=tuple(order.index(a) for a in kept))]


def _nothing(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    return None


_reduction("reduce_sum", _sum)
_reduction("reduce_prod", _nothing)
_reduction("reduce_max", _extreme("reduce_max"))
_reduction("reduce_min", _extreme("reduce_min"))


@rule("dot_general")
def _dot(b: Simplifier, xs: Sequence[Value], attrs: dict[str, Any]) -> Found:
    """Operands whose axes are named where they come from: before a transpose, in a broadcast."""
    operands = list(xs)
    new = dict(attrs)
    changed = False
    for i, side in enumerate(("lhs", "rhs")):
        batch, contract = new[f"{side}_batch"], new[f"{side}_contract"]
        found = _untransposed(b, operands[i], (*batch, *contract))
        if found is None:
            found = with_leading(b, operands[i], batch)
        if found is None:
            continue
        changed = True
        operands[i], perm = found
        new[f"{side}_batch"] = tuple(perm.index(a) for a in batch)
        new[f"{side}_contract"] = tuple(perm.index(a) for a in contract)
    return [b.dot_general(*operands, **new)] if changed else None


def _untransposed(
    b: Simplifier, x: Value, taken: Sequence[int]
) -> tuple[Value, Sequence[int]] | None:
    """What x is the transpose of, and where x's axes are there; the free axes keep their order."""
    op = made(b, x, "transpose")
    if op is None:
        return None
    perm = op.attrs["perm"]
    free = [p for a, p in enumerate(perm) if a not in taken]
    return (op.operands[0], inverse(perm)) if free == sorted(free) else None
