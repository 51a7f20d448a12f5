"""Places in one arena for the buffers of a function, shared by those never alive together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..ir.core import Block, Function, Op, Value

ALIGNMENT = 64
ALIASES = frozenset({"loop.view", "loop.subview"})


@dataclass
class Life:
    """When a buffer is in use: the first and last moment."""

    first: int
    last: int


def plan_memory(function: Function) -> Function:
    """Give every `loop.alloc` an offset, and the function its `arena` size.

    Ops are moments in the order of the text. Memory that is made in a region is new each time the
    region runs; what a region uses from around it is alive all through the op.
    """
    lives = _Lives()
    lives.block(function.body, 0)
    _drop_unused(function.body, lives.found)
    offsets, arena = _placed(lives.found)
    _assign(function.body, offsets)
    attrs = dict(function.attrs) | {"arena": arena}
    return Function(function.name, function.body, function.span, attrs)


@dataclass
class _Lives:
    """Notes the lives of buffers.

    found: them; owner: whose memory a value names; home: how many regions deep that is made.
    opened: by depth, the moment that the op around began at, and the buffers from that depth or
    above that its regions use.
    """

    found: dict[Value, Life] = field(default_factory=dict)
    owner: dict[Value, Value] = field(default_factory=dict)
    home: dict[Value, int] = field(default_factory=dict)
    opened: list[tuple[int, dict[Value, None]]] = field(default_factory=list)
    now: int = 0

    def block(self, block: Block, depth: int) -> None:
        """Note what the ops of a block make and use, `depth` regions deep."""
        for op in block.ops:
            self.now += 1
            if op.name == "loop.alloc":
                self.owner[op.results[0]] = op.results[0]
                self.home[op.results[0]] = depth
                continue
            self.operands(op, depth)
            if op.regions:
                self.opened.append((self.now, {}))
                for region in op.regions:
                    self.block(region, depth + 1)
                _, used = self.opened.pop()
                for root in used:
                    self.found[root].last = self.now

    def operands(self, op: Op, depth: int) -> None:
        """Note that an op uses its operands now."""
        for v in op.operands:
            root = self.owner.get(v)
            if root is None:
                continue
            if op.name in ALIASES:  # a name for memory, which is not yet used by it
                self.owner[op.results[0]] = root
                continue
            home = self.home[root]
            first = self.now
            if home < depth:
                first, used = self.opened[home]
                used[root] = None
            self.found.setdefault(root, Life(first, first)).last = self.now


def _drop_unused(block: Block, lives: dict[Value, Life]) -> None:
    """Remove memory that nothing writes or reads, and names for it."""
    gone: set[Value] = set()
    kept = []
    for op in block.ops:
        unused = op.name == "loop.alloc" and op.results[0] not in lives
        if unused or (op.name in ALIASES and op.operands[0] in gone):
            gone.update(op.results)
        else:
            kept.append(op)
            for region in op.regions:
                _drop_unused(region, lives)
    block.ops[:] = kept


def _size(v: Value) -> int:
    return -(-v.type.tensor.nbytes // ALIGNMENT) * ALIGNMENT  # type: ignore[union-attr]


def _placed(lives: dict[Value, Life]) -> tuple[dict[Value, int], int]:
    """Offsets of buffers, the largest first, each as low as those alive with it allow; the end."""
    sizes = {v: _size(v) for v in lives}
    order = sorted(lives, key=lambda v: (-sizes[v], lives[v].first))
    first, last, start, end = np.zeros((4, len(order)), np.int64)
    for i, v in enumerate(order):
        life = lives[v]
        met = np.flatnonzero((first[:i] <= life.last) & (last[:i] >= life.first))
        start[i] = _first_gap(start[met], end[met], sizes[v])
        first[i], last[i], end[i] = life.first, life.last, start[i] + sizes[v]
    offsets = {v: int(start[i]) for i, v in enumerate(order)}
    return offsets, int(end.max(initial=0))


def _first_gap(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
    """The lowest place of `size` bytes outside of intervals."""
    order = np.argsort(starts, kind="stable")
    free = np.maximum.accumulate(np.concatenate([[0], ends[order]]))
    (wide,) = np.nonzero(starts[order] - free[:-1] >= size)
    return int(free[wide[0]] if wide.size else free[-1])


def _assign(block: Block, offsets: dict[Value, int]) -> None:
    for op in block.ops:
        if op.name == "loop.alloc":
            op.attrs = op.attrs | {"offset": offsets[op.results[0]]}
        for region in op.regions:
            _assign(region, offsets)
