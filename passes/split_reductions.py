"""Large reductions in two stages, so that threads share them whatever their number is.

A sum of n numbers to few results becomes sums of chunks, then a sum of those: the same
additions in the same order on any number of threads.
"""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Function, Op, Value

LARGE = 131_072  # elements reduced in all
FEW = 4096  # results
CHUNKS = 64


def split_reductions(function: Function) -> Function:
    """`function` with its large outer-axis reductions split (top level only)."""
    body = function.body
    params = [Value(p.type, p.name) for p in body.params]
    out = Block(params)
    b = Builder(out)
    env = dict(zip(body.params, params))
    for op in body.ops:
        b.span = op.span
        chunks = _chunks(op) if op.name in SPLIT else 0
        if not chunks:
            clone_op(b, op, env)
            continue
        source = env.get(op.operands[0], op.operands[0])
        shape, axes = Builder.type(source).shape, op.attrs["axes"]
        first = axes[0]
        parts = (*shape[:first], chunks, shape[first] // chunks, *shape[first + 1 :])
        inner = (first + 1, *(a + 1 for a in axes[1:]))
        (wide,) = b.op("reshape", [source], shape=parts)
        (partial,) = b.op(op.name, [wide], axes=inner)
        (total,) = b.op(op.name, [partial], axes=(first,))
        env[op.results[0]] = total
    out.results = [env.get(v, v) for v in body.results]
    return Function(function.name, out, function.span, dict(function.attrs))


SPLIT = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"})


def _chunks(op: Op) -> int:
    """How many chunks to split the first reduced axis in; 0 for none."""
    source = Builder.type(op.operands[0])
    axes = op.attrs["axes"]
    if not axes or source.size < LARGE or Builder.type(op.results[0]).size > FEW:
        return 0
    size = source.shape[axes[0]]
    for chunks in range(CHUNKS, 1, -1):
        if size % chunks == 0 and size // chunks > 1:
            return chunks
    return 0
