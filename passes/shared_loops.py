"""Reductions that share one loop: many sums over the same elements, computed side by side.

A gradient by many parameters is many sums over all elements of one shape, of values that come from
each other by elementwise ops. In one loop these stay scalars; apart, each value that two sums need
would be an array in memory. This analysis of a block finds such reductions, and the order of ops
in which all that they need comes before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value, used_values
from ..ir.opdef import OPS

LEAST = 1024  # elements reduced to one
MOST_RESULTS = 64
WORTH = 8  # ops that would be done twice, or stored
MOST_LOOPS = 3  # in which a value is computed again, rather than stored once
SHARED = frozenset({"reduce_sum", "reduce_prod", "reduce_max", "reduce_min"})
MOVED = frozenset({"reshape", "stop_gradient"})  # every element once, at another index

Key = tuple[tuple[int, ...], tuple[int, ...], int]


@dataclass
class SharedLoops:
    """order: the ops of a block; group: of the result of each reduction that shares a loop;
    fused: values that only few such loops, and results of the block, need: computed in each.
    """

    order: list[Op]
    group: dict[Value, Key] = field(default_factory=dict)
    fused: set[Value] = field(default_factory=set)


def shared_loops(block: Block) -> SharedLoops:
    """The reductions of a block that share loops; the order as it is where there are none."""
    members = {op for op in block.ops if _fits(op)}
    makers = {r: op for op in block.ops for r in op.results}
    members = {op for op in members if op.operands[0] in makers}
    for _ in range(2):
        if len(members) < 2:
            return SharedLoops(block.ops)
        level = _levels(block, members)
        keys = {op: _key(op, level) for op in members}
        sinks = _sinks(block, keys)
        members = _worth(keys, sinks)
    if len(members) < 2:
        return SharedLoops(block.ops)
    level = _levels(block, members)
    keys = {op: _key(op, level) for op in members}
    sinks = _sinks(block, keys)
    order = sorted(block.ops, key=lambda op: (level[op], op in members))
    group = {op.results[0]: key for op, key in keys.items()}
    return SharedLoops(order, group, {v for v, ends in sinks.items() if _fused(ends)})


def _fits(op: Op) -> bool:
    if op.name not in SHARED:
        return False
    size, out = Builder.type(op.operands[0]).size, Builder.type(op.results[0]).size
    return 0 < out <= MOST_RESULTS and size // out >= LEAST


def _key(op: Op, level: dict[Op, int]) -> Key:
    return Builder.type(op.operands[0]).shape, tuple(op.attrs["axes"]), level[op]


def _levels(block: Block, members: set[Op]) -> dict[Op, int]:
    """For every op how many of `members` lie on the longest way to it."""
    level: dict[Op, int] = {}
    of_value: dict[Value, int] = {}
    for op in block.ops:
        level[op] = max((of_value.get(v, 0) for v in used_values(op)), default=0)
        for r in op.results:
            of_value[r] = level[op] + (op in members)
    return level


Ends = frozenset[Hashable]  # keys of reductions, and results of the block
NOWHERE: Ends = frozenset([None])  # where an end is neither of them


def _sinks(block: Block, keys: dict[Op, Key]) -> dict[Value, Ends]:
    """Where each elementwise value ends, by elementwise ops alone."""
    sinks: dict[Value, Ends] = {v: frozenset([v]) for v in block.results}
    for op in reversed(block.ops):
        through = op.name in MOVED or OPS[op.name].elementwise
        for v in used_values(op):
            ends = NOWHERE
            if op in keys:
                ends = frozenset([keys[op]])
            elif through and Builder.type(v).size == Builder.type(op.results[0]).size:
                ends = sinks.get(op.results[0], frozenset())
            ends |= sinks.get(v, frozenset())
            sinks[v] = ends if len(ends) <= MOST_LOOPS else NOWHERE
    return sinks


def _fused(ends: Ends) -> bool:
    return None not in ends and any(isinstance(end, tuple) for end in ends)


def _worth(keys: dict[Op, Key], sinks: dict[Value, Ends]) -> set[Op]:
    """The members of groups of several that share enough."""
    members = Counter(keys.values())
    shared = Counter(end for ends in sinks.values() if _fused(ends) for end in ends)
    return {op for op, k in keys.items() if members[k] > 1 and shared[k] >= WORTH}
