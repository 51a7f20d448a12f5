"""Large reductions in two stages, so that threads share them whatever their number is.

A sum of n numbers to few results becomes sums of chunks, then a sum of those: the same
additions in the same order on any number of threads. The sum of the products of two arrays is
such a sum, too, as others over the same elements are.
"""

from __future__ import annotations

from collections import Counter

from ..ir.builder import Builder
from ..ir.clone import Env, clone_with, rewritten
from ..ir.core import Block, Function, Op, Value
from ..ir.opdef import OPS

LARGE = 131_072  # elements reduced in all
SMALL = 4096
WORK = 16_000_000  # scalar operations on the elements of a smaller reduction
FEW = 4096  # results
CHUNKS = 64
SPLIT = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"})


def split_reductions(function: Function) -> Function:
    """`function` with its large outer-axis reductions split, those in loops and branches too."""
    body = _split(function.body, {})
    return Function(function.name, body, function.span, dict(function.attrs))


def _split(block: Block, env: Env) -> Block:
    work = _work(block)

    def write(b: Builder, op: Op, env: Env) -> None:
        if _is_dot(op):
            op = _summed(b, op, env)
        chunks = _chunks(op, work) if op.name in SPLIT else 0
        if chunks:
            env[op.results[0]] = _staged(b, op, env.get(op.operands[0], op.operands[0]), chunks)
        else:
            clone_with(b, op, env, _split)

    return rewritten(block, env, write)


def _is_dot(op: Op) -> bool:
    """Whether an op is the sum of the products of two arrays of one shape."""
    if op.name != "dot_general" or Builder.type(op.results[0]).shape:
        return False
    rank = Builder.type(op.operands[0]).rank
    same = op.attrs["lhs_contract"] == op.attrs["rhs_contract"]
    return same and op.attrs["lhs_contract"] == tuple(range(rank))


def _summed(b: Builder, op: Op, env: Env) -> Op:
    """Such an op as a plain sum of products."""
    x, y = (env.get(v, v) for v in op.operands)
    (product,) = b.op("mul", [x, y])
    attrs = {"axes": op.attrs["lhs_contract"]}
    return Op("reduce_sum", (product,), attrs, (), op.results, op.span)


def _staged(b: Builder, op: Op, source: Value, chunks: int) -> Value:
    shape, axes = Builder.type(source).shape, op.attrs["axes"]
    first = axes[0]
    parts = (*shape[:first], chunks, shape[first] // chunks, *shape[first + 1 :])
    inner = (first + 1, *(a + 1 for a in axes[1:]))
    (wide,) = b.op("reshape", [source], shape=parts)
    (partial,) = b.op(op.name, [wide], axes=inner)
    return b.op(op.name, [partial], axes=(first,))[0]


def _work(block: Block) -> Counter[int]:
    """For each size how many elementwise ops have results of it."""
    elementwise = (op for op in block.ops if OPS[op.name].elementwise)
    return Counter(Builder.type(op.results[0]).size for op in elementwise)


def _chunks(op: Op, work: Counter[int]) -> int:
    """How many chunks to split the first reduced axis in; 0 for none."""
    source = Builder.type(op.operands[0])
    axes = op.attrs["axes"]
    if not axes or Builder.type(op.results[0]).size > FEW:
        return 0
    heavy = source.size >= SMALL and source.size * work[source.size] >= WORK
    if source.size < LARGE and not heavy:
        return 0
    size = source.shape[axes[0]]
    for chunks in range(CHUNKS, 1, -1):
        if size % chunks == 0 and size // chunks > 1:
            return chunks
    return 0
