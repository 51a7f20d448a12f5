"""What the batching rules share: the writer of batched ops and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Op, Value, free_values
from ..ir.errors import CompilerBug
from ..ir.opdef import RuleTable
from ..ir.types import TensorType


def wider(v: Value, size: int) -> TensorType:
    """The type of v with a new first axis of `size`."""
    type = Builder.type(v)
    return type.with_shape((size, *type.shape))


class Batcher:
    """Writes the batched form of ops. `env` maps old values to new; `mapped` have the axis."""

    def __init__(self, b: Builder, size: int, env: dict[Value, Value]) -> None:
        self.b: Any = b
        self.size = size
        self.env = env
        self.mapped: set[Value] = set()

    def run(self, block: Block) -> None:
        """Write every op of `block`."""
        for op in block.ops:
            self.b.span = op.span
            captured = [v for r in op.regions for v in free_values(r)]
            if not any(v in self.mapped for v in (*op.operands, *captured)):
                clone_op(self.b, op, self.env)
                continue
            rule = BATCH.get(op.name)
            if rule is None:
                raise CompilerBug(f"no batching rule for {op.name}")
            results = rule(self, op)
            self.env.update(zip(op.results, results, strict=True))
            self.mapped.update(op.results)

    def has(self, v: Value) -> bool:
        """Whether v has the batch axis."""
        return v in self.mapped

    def value(self, v: Value) -> Value:
        """The new value of v, with the axis if it is mapped."""
        return self.env.get(v, v)

    def wide(self, v: Value) -> Value:
        """The new value of v with the axis, repeated where v is shared."""
        new = self.value(v)
        return new if v in self.mapped else self.spread(new)

    def spread(self, new: Value) -> Value:
        """A value repeated along a new first axis."""
        shape = Builder.type(new).shape
        axes = tuple(range(1, len(shape) + 1))
        return self.b.broadcast(new, shape=(self.size, *shape), axes=axes)


Rule = Callable[[Batcher, Op], Sequence[Value]]
BATCH: RuleTable[Rule] = RuleTable("batching")
