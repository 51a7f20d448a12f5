"""One transpose rule an op that is linear in some operands.

A rule gets (b, op, env, ct, linear): builder, op, a function from old to new values for the
operands that are known, the cotangent of the (single) result, and whether each operand is
linear. It returns a cotangent an operand, None for known ones and for zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.linalg import free_axes
from ..ir.opdef import RuleTable
from .jvp_rules import shape_of

Known = Callable[[Value], Value]
Cotangents = Sequence[Value | None]
Rule = Callable[[Any, Op, Known, Value, Sequence[bool]], Cotangents]
TRANSPOSE: RuleTable[Rule] = RuleTable("transpose")
Into = Callable[[Any, Op, Known, Value, Value], Value]
# How the cotangent of a few elements is added to the total of their array, without a second
# array of zeros: (b, op, env, ct, total) -> total. In a loop this is an update in place.
ACCUMULATE: RuleTable[Into] = RuleTable("accumulation")


@TRANSPOSE.register("add")
def _add(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [ct if one else None for one in linear]


@TRANSPOSE.register("sub")
def _sub(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [ct if linear[0] else None, b.neg(ct) if linear[1] else None]


@TRANSPOSE.register("neg")
def _neg(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.neg(ct)]


@TRANSPOSE.register("mul")
def _mul(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    x, y = op.operands
    return [b.mul(ct, known(y)), None] if linear[0] else [None, b.mul(ct, known(x))]


@TRANSPOSE.register("div")
def _div(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.div(ct, known(op.operands[1])), None]


@TRANSPOSE.register("select")
def _select(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    test, zero = known(op.operands[0]), b.const(0, ct)
    left = b.select(test, ct, zero) if linear[1] else None
    return [None, left, b.select(test, zero, ct) if linear[2] else None]


@TRANSPOSE.register("convert")
def _convert(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.convert(ct, dtype=Builder.type(op.operands[0]).dtype)]


@TRANSPOSE.register("broadcast")
def _broadcast(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    new = tuple(i for i in range(len(op.attrs["shape"])) if i not in op.attrs["axes"])
    return [b.reduce_sum(ct, axes=new) if new else ct]


@TRANSPOSE.register("reshape")
def _reshape(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.reshape(ct, shape=shape_of(op.operands[0]))]


@TRANSPOSE.register("transpose")
def _transpose(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    perm = op.attrs["perm"]
    return [b.transpose(ct, perm=tuple(perm.index(i) for i in range(len(perm))))]


@TRANSPOSE.register("reverse")
def _reverse(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.reverse(ct, axes=op.attrs["axes"])]


@TRANSPOSE.register("slice")
def _slice(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    shape = shape_of(op.operands[0])
    start, stride = op.attrs["start"], op.attrs["stride"]
    reach = [max(0, n - 1) * s + (n > 0) for n, s in zip(shape_of(ct), stride)]
    high = tuple(n - lo - r for n, lo, r in zip(shape, start, reach))
    interior = tuple(s - 1 for s in stride)
    zero = b.const(0, Builder.type(ct).dtype)
    return [b.pad(ct, zero, low=start, high=high, interior=interior)]


@TRANSPOSE.register("pad")
def _pad(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    low, interior = op.attrs["low"], op.attrs["interior"]
    shape = shape_of(op.operands[0])
    stride = tuple(i + 1 for i in interior)
    reach = [max(0, n - 1) * s + (n > 0) for n, s in zip(shape, stride)]
    limit = tuple(lo + r for lo, r in zip(low, reach))
    inside = b.slice(ct, start=low, limit=limit, stride=stride)
    fill = None
    if linear[1]:
        every = tuple(range(len(shape)))
        fill = b.sub(b.reduce_sum(ct, axes=every), b.reduce_sum(inside, axes=every))
    return [inside if linear[0] else None, fill]


@TRANSPOSE.register("concatenate")
def _concatenate(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    axis, rank = op.attrs["axis"], len(shape_of(ct))
    out: list[Value | None] = []
    at = 0
    for x, one in zip(op.operands, linear):
        size = shape_of(x)[axis]
        start = tuple(at if i == axis else 0 for i in range(rank))
        limit = tuple(at + size if i == axis else n for i, n in enumerate(shape_of(ct)))
        out.append(b.slice(ct, start=start, limit=limit, stride=(1,) * rank) if one else None)
        at += size
    return out


@TRANSPOSE.register("dynamic_slice")
def _dynamic_slice(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    starts = [known(i) for i in op.operands[1:]]
    zeros = b.const(0, op.operands[0])
    return [b.dynamic_update(zeros, ct, *starts), *[None] * len(starts)]


@ACCUMULATE.register("dynamic_slice")
def _add_slice(b: Any, op: Op, known: Known, ct: Value, total: Value) -> Value:
    starts = [known(i) for i in op.operands[1:]]
    before = b.dynamic_slice(total, *starts, sizes=op.attrs["sizes"])
    return b.dynamic_update(total, b.add(before, ct), *starts)


@TRANSPOSE.register("dynamic_update")
def _dynamic_update(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    starts = [known(i) for i in op.operands[2:]]
    whole = part = None
    if linear[0]:
        whole = b.dynamic_update(ct, b.const(0, op.operands[1]), *starts)
    if linear[1]:
        part = b.dynamic_slice(ct, *starts, sizes=shape_of(op.operands[1]))
    return [whole, part, *[None] * len(starts)]


@TRANSPOSE.register("gather")
def _gather(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    zeros = b.const(0, op.operands[0])
    return [b.scatter_add(zeros, known(op.operands[1]), ct, **op.attrs), None]


@ACCUMULATE.register("gather")
def _add_gather(b: Any, op: Op, known: Known, ct: Value, total: Value) -> Value:
    return b.scatter_add(total, known(op.operands[1]), ct, **op.attrs)


@TRANSPOSE.register("scatter_add")
def _scatter_add(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    update = b.gather(ct, known(op.operands[1]), **op.attrs) if linear[2] else None
    return [ct if linear[0] else None, None, update]


@TRANSPOSE.register("reduce_sum")
def _reduce_sum(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    shape = shape_of(op.operands[0])
    kept = tuple(i for i in range(len(shape)) if i not in op.attrs["axes"])
    return [b.broadcast(ct, shape=shape, axes=kept)]


@TRANSPOSE.register("cumsum")
def _cumsum(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    return [b.cumsum(ct, axis=op.attrs["axis"], reverse=not op.attrs["reverse"])]


@TRANSPOSE.register("dot_general")
def _dot(b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]) -> Cotangents:
    if linear[0]:
        return [_dot_side(b, op, known(op.operands[1]), ct, left=True), None]
    return [None, _dot_side(b, op, known(op.operands[0]), ct, left=False)]


def _dot_side(b: Any, op: Op, other: Value, ct: Value, left: bool) -> Value:
    """The cotangent of one side: ct contracted with the other side's free axes.

    Whichever of the two stands first, the axes of the product should need no other order.
    """
    mine, theirs = ("lhs", "rhs") if left else ("rhs", "lhs")
    my_batch, my_contract = op.attrs[f"{mine}_batch"], op.attrs[f"{mine}_contract"]
    their_batch, their_contract = op.attrs[f"{theirs}_batch"], op.attrs[f"{theirs}_contract"]
    my_rank = len(shape_of(op.operands[0 if left else 1]))
    their_free = free_axes(len(shape_of(other)), their_batch, their_contract)
    my_free = free_axes(my_rank, my_batch, my_contract)
    n = len(my_batch)
    # Axes of ct: batch, free axes of the left side, free axes of the right side.
    first = n + (len(my_free) if left else 0)
    contract = tuple(range(first, first + len(their_free)))
    order = sorted(range(len(their_contract)), key=lambda i: their_contract[i])
    contracted = [my_contract[i] for i in order]  # the axes left of `other`
    sides = [(ct, tuple(range(n)), contract), (other, their_batch, tuple(their_free))]
    names = [*my_batch, *my_free, *contracted]
    turned = [*my_batch, *contracted, *my_free]
    if names != sorted(names) and turned == sorted(turned):
        sides, names = sides[::-1], turned
    (left_side, lb, lc), (right_side, rb, rc) = sides
    out = b.dot_general(
        left_side, right_side, lhs_batch=lb, rhs_batch=rb, lhs_contract=lc, rhs_contract=rc
    )
    perm = tuple(names.index(i) for i in range(my_rank))
    return out if perm == tuple(range(my_rank)) else b.transpose(out, perm=perm)


@TRANSPOSE.register("triangular_solve")
def _triangular_solve(
    b: Any, op: Op, known: Known, ct: Value, linear: Sequence[bool]
) -> Cotangents:
    attrs = op.attrs | {"trans": not op.attrs["trans"]}
    return [None, b.triangular_solve(known(op.operands[0]), ct, **attrs)]
