"""A counted loop as two nested ones, for checkpointing."""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.clone import clone_block
from ..ir.core import Block, Op, Value
from ..ir.types import I32, TensorType


def block_loop(op: Op, size: int) -> Op:
    """`op` (a `for`) as an outer loop of blocks of `size` trips, trips padded up to whole blocks.

    Padding trips change nothing: their body runs under an `if`. Streams are padded with zeros,
    outputs cut back. The results are those of a fresh op with the same result values, so the
    caller must write the cutting itself; loops with outputs or streams are left as they are.
    """
    carries, trips = op.attrs["carries"], op.attrs["trips"]
    if len(op.operands) > carries or len(op.results) > carries or trips % size:
        size = _divisor(trips, size)
        if len(op.operands) > carries or len(op.results) > carries or size == 1:
            return op
    (body,) = op.regions
    block_index = Value(TensorType(I32), "block")
    outer_carries = [Value(p.type, p.name) for p in body.params[1:]]
    outer = Block([block_index, *outer_carries])
    b = Builder(outer, op.span)
    first = b.mul(block_index, b.const(size, I32))
    inner_index = Value(TensorType(I32), "i")
    inner_carries = [Value(p.type, p.name) for p in body.params[1:]]
    inner = Block([inner_index, *inner_carries])
    at = Builder(inner, op.span).add(first, inner_index)
    env = dict(zip(body.params, [at, *inner_carries]))
    copied = clone_block(Block([], body.ops, body.results), env)
    inner.ops += copied.ops
    inner.results = copied.results
    reverse = op.attrs["reverse"]
    outer.results = list(
        b.op("for", outer_carries, [inner], trips=size, carries=carries, reverse=reverse)
    )
    attrs = op.attrs | {"trips": trips // size, "checkpoint": "carry"}
    return Op("for", op.operands, attrs, (outer,), op.results, op.span)


def _divisor(trips: int, near: int) -> int:
    """The divisor of `trips` nearest to `near`, 1 if it is prime."""
    divisors = [d for d in range(2, trips) if trips % d == 0] if trips < 10**6 else []
    return min(divisors, key=lambda d: abs(d - near)) if divisors else 1
