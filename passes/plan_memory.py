"""Places in one arena for the buffers of a function, shared by those never alive together."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.core import Block, Function, Op, Value

ALIGNMENT = 64
ALIASES = frozenset({"loop.view", "loop.subview"})


@dataclass
class Life:
    """When a buffer is in use: the first and last of the function's numbered top-level ops."""

    first: int
    last: int


def plan_memory(function: Function) -> Function:
    """Give every `loop.alloc` an offset, and the function its `arena` size.

    An op with regions counts as one moment: what its body uses is alive all through it.
    """
    lives: dict[Value, Life] = {}
    owner: dict[Value, Value] = {}
    for at, op in enumerate(function.body.ops):
        _note(op, at, lives, owner)
    _drop_unused(function.body, lives)
    offsets: dict[Value, int] = {}
    arena = 0
    for v in sorted(lives, key=lambda v: (-_size(v), lives[v].first)):
        offsets[v] = _first_fit(v, lives, offsets)
        arena = max(arena, offsets[v] + _size(v))
    _assign(function.body, offsets)
    attrs = dict(function.attrs) | {"arena": arena}
    return Function(function.name, function.body, function.span, attrs)


def _note(op: Op, at: int, lives: dict[Value, Life], owner: dict[Value, Value]) -> None:
    """Extend the lives of the buffers that `op` makes or uses to moment `at`."""
    if op.name == "loop.alloc":
        owner[op.results[0]] = op.results[0]
        return
    for v in op.operands:
        root = owner.get(v)
        if root is None:
            continue
        if op.name in ALIASES:  # a name for memory, which is not yet used by it
            owner[op.results[0]] = root
        else:
            lives.setdefault(root, Life(at, at)).last = at
    for region in op.regions:
        for inner in region.ops:
            _note(inner, at, lives, owner)


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


def _first_fit(v: Value, lives: dict[Value, Life], offsets: dict[Value, int]) -> int:
    """The lowest offset that no buffer alive at the same time occupies."""
    life = lives[v]
    busy = sorted(
        (offset, offset + _size(o))
        for o, offset in offsets.items()
        if lives[o].first <= life.last and life.first <= lives[o].last
    )
    at = 0
    for start, end in busy:
        if at + _size(v) <= start:
            break
        at = max(at, end)
    return at


def _assign(block: Block, offsets: dict[Value, int]) -> None:
    for op in block.ops:
        if op.name == "loop.alloc":
            op.attrs = op.attrs | {"offset": offsets[op.results[0]]}
        for region in op.regions:
            _assign(region, offsets)
