"""Batching calls that have a derivative of their own: the function and its rule are batched.

So a parallel loop becomes array code before it is differentiated, whatever the loop calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.opdef import OPS
from ..ir.types import TensorType
from .batcher import Batcher, wider

# what moves elements as loops go, without memory of its own
FUSED = ("const", "iota", "broadcast", "reshape", "transpose", "slice", "concatenate", "reverse")


class BatchedCalls:
    """Batched forms of the functions of `module`, added to it once for each set of arguments."""

    def __init__(self, module: Module, size: int) -> None:
        self.module = module
        self.size = size
        self.made: dict[tuple[str, tuple[bool, ...]], str] = {}

    def call(self, w: Batcher, op: Op) -> Sequence[Value]:
        """The call of `op` with the operands that `w` has batched; it has a `jvp` rule."""
        mapped = tuple(w.has(v) for v in op.operands)
        floats = tuple(m for m, v in zip(mapped, op.operands) if Builder.type(v).dtype.is_float)
        attrs = dict(op.attrs) | {
            "fn": self.function(op.attrs["fn"], mapped),
            "jvp": self.function(op.attrs["jvp"], mapped + floats),
            "types": tuple(wider(r, self.size) for r in op.results),
        }
        return w.b.op("call", [w.value(v) for v in op.operands], **attrs)

    def function(self, name: str, mapped: tuple[bool, ...]) -> str:
        """The form of a function for which these arguments, and every result, are batched."""
        key = (name, mapped)
        if key not in self.made:
            source = self.module.functions[name]
            self.made[key] = fresh = self.module.fresh_name(f"{name}_batch")
            self.module.functions[fresh] = source  # holds the name: a rule calls its function
            self.module.functions[fresh] = self.written(source, fresh, mapped)
        return self.made[key]

    def written(self, source: Function, name: str, mapped: Sequence[bool]) -> Function:
        """The batched form of `source`."""
        params = [
            Value(wider(p, self.size) if m else p.type, p.name)
            for p, m in zip(source.params, mapped, strict=True)
        ]
        block = Block(params)
        w = Batcher(Builder(block, source.span), self.size, dict(zip(source.params, params)))
        w.calls = self.call
        w.mapped.update(p for p, m in zip(source.params, mapped) if m)
        w.run(source.body)
        block.results = [w.wide(v) for v in source.results]
        return Function(name, block, source.span, dict(source.attrs))


def size_of_calls(module: Module, op: Op, seen: set[str]) -> int | None:
    """The bytes of all values in the functions that `op` calls; None where they have loops of
    unknown length, or calls without a `jvp` rule."""
    if not op.attrs["jvp"]:
        return None
    total = 0
    for name in (op.attrs["fn"], op.attrs["jvp"]):
        if name in seen:
            continue
        seen.add(name)
        found = size_of(module, module.functions[name].body, seen)
        if found is None:
            return None
        total += found
    return total


def _pointwise(op: Op) -> bool:
    return (
        op.name in FUSED
        or OPS[op.name].elementwise
        or (op.name == "for" and not op.attrs["carries"])
    )


def size_of(module: Module, block: Block, seen: set[str]) -> int | None:
    """The bytes of all values of a block, as `size_of_calls` counts them.

    Those of its results alone where it computes element by element: nothing else needs memory.
    """
    if all(map(_pointwise, walk(block))):
        return sum(r.type.nbytes for r in block.results if isinstance(r.type, TensorType))
    total = 0
    for op in block.ops:
        if op.name in ("while", "linear_call") or op.name.startswith("diff."):
            return None
        parts = [size_of(module, r, seen) for r in op.regions]
        if op.name == "call":
            parts.append(size_of_calls(module, op, seen))
        for part in parts:
            if part is None:
                return None
            total += part
        total += sum(r.type.nbytes for r in op.results if isinstance(r.type, TensorType))
    return total
