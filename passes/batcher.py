"""What the batching rules share: the writer of batched ops and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Op, Value, free_values, walk
from ..ir.errors import CompilerBug
from ..ir.opdef import RuleTable
from ..ir.types import U32, TensorType


def wider(v: Value, size: int) -> TensorType:
    """The type of v with a new first axis of `size`."""
    type = Builder.type(v)
    return type.with_shape((size, *type.shape))


class Batcher:
    """Writes the batched form of ops. `env` maps old values to new; `mapped` have the axis.

    draws: `threefry` ops whose bits differ by example though their keys do not, and how many
        counters each takes for one example.
    """

    def __init__(
        self,
        b: Builder,
        size: int,
        env: dict[Value, Value],
        draws: Mapping[Op, int] = MappingProxyType({}),
    ) -> None:
        self.b: Any = b
        self.size = size
        self.env = env
        self.draws = draws
        self.mapped: set[Value] = set()
        self.numbers: dict[Value, Op] = {}  # constants that one number fills
        self.filled: dict[Value, Value] = {}  # the same with the axis, once written
        self.calls: Rule | None = None  # the rule for `call`, where there is one

    def inside(self, b: Builder) -> Batcher:
        """A batcher that writes elsewhere, with the values of this one."""
        inner = Batcher(b, self.size, dict(self.env), self.draws)
        inner.mapped = set(self.mapped)
        inner.numbers = self.numbers
        inner.filled = dict(self.filled)
        inner.calls = self.calls
        return inner

    def run(self, block: Block) -> None:
        """Write every op of `block`."""
        for op in block.ops:
            self.b.span = op.span
            captured = [v for r in op.regions for v in free_values(r)]
            if op in self.draws:
                self.draw(op)
                continue
            if not self.has_draws(op) and not any(
                v in self.mapped for v in (*op.operands, *captured)
            ):
                clone_op(self.b, op, self.env)
                if op.name == "const" and not isinstance(op.attrs["value"], np.ndarray):
                    self.numbers[op.results[0]] = op
                continue
            rule = self.calls if op.name == "call" else BATCH.get(op.name)
            if rule is None:
                raise CompilerBug(f"no batching rule for {op.name}")
            results = rule(self, op)
            self.env.update(zip(op.results, results, strict=True))
            self.mapped.update(op.results)

    def has_draws(self, op: Op) -> bool:
        """Whether a draw stands in a region of op."""
        return bool(self.draws) and any(o in self.draws for r in op.regions for o in walk(r))

    def draw(self, op: Op) -> None:
        """Bits of one shape as bits of that shape for every example, by longer counters."""
        b, stride = self.b, self.draws[op]
        counter = self.spread(self.value(op.operands[1]))
        shape = Builder.type(counter).shape
        example = b.iota(type=TensorType(U32, shape), axis=0)
        offset = b.mul(example, b.const(stride, example)) if stride > 1 else example
        counter = b.key_make(b.key_lo(counter), b.add(b.key_hi(counter), offset))
        self.env[op.result] = b.threefry(self.wide(op.operands[0]), counter)
        self.mapped.add(op.result)

    def has(self, v: Value) -> bool:
        """Whether v has the batch axis."""
        return v in self.mapped

    def value(self, v: Value) -> Value:
        """The new value of v, with the axis if it is mapped."""
        return self.env.get(v, v)

    def wide(self, v: Value) -> Value:
        """The new value of v with the axis, repeated where v is shared."""
        new = self.value(v)
        if v in self.mapped:
            return new
        number = self.numbers.get(v)
        if number is not None:
            if v not in self.filled:
                self.filled[v] = self.b.const(number.attrs["value"], wider(v, self.size))
            return self.filled[v]
        return self.spread(new)

    def spread(self, new: Value) -> Value:
        """A value repeated along a new first axis."""
        shape = Builder.type(new).shape
        axes = tuple(range(1, len(shape) + 1))
        return self.b.broadcast(new, shape=(self.size, *shape), axes=axes)


Rule = Callable[[Batcher, Op], Sequence[Value]]
BATCH: RuleTable[Rule] = RuleTable("batching")
