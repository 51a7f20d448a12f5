"""A function apart from the derivation of its keys, so that a loop can derive those of many trips
at once: one key after another is a chain of ciphers, which nothing hides in a short step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.clone import Env, clone_op
from ..ir.core import Block, Function, Op, Value, walk
from ..ir.types import KEY, TensorType

MOST_DERIVED = 64  # keys that are worth deriving for many trips ahead


@dataclass(frozen=True)
class Derivation:
    """How keys follow from `roots`: scalar `threefry` ops in order, and the keys that are used."""

    roots: tuple[Value, ...]
    ops: tuple[Op, ...]
    constants: dict[Value, int]
    used: tuple[Value, ...]

    def many(self, b: Builder, roots: Sequence[Value]) -> list[Value]:
        """The keys used, `[n]` each, from arrays of roots `[n]`."""
        env: Env = dict(zip(self.roots, roots, strict=True))
        for op in self.ops:
            key = env[op.operands[0]]
            counter = b.const(self.constants[op.operands[1]], key)
            env[op.result] = b.threefry(key, counter)
        return [env[v] for v in self.used]


def split_keys(function: Function, positions: Sequence[int]) -> tuple[Function, Derivation] | None:
    """`function` with the keys that it uses as its last parameters instead of the scalar keys at
    `positions`, and how they are derived; None where there is nothing to derive, or too much.
    """
    roots = [function.params[i] for i in positions]
    constants: dict[Value, int] = {}
    derived: dict[Value, Op] = {}
    for op in function.body.ops:
        if op.name == "const" and op.result.type == TensorType(KEY):
            constants[op.result] = int(op.attrs["value"])
        elif op.name == "threefry" and op.result.type == TensorType(KEY):
            key, counter = op.operands
            if (key in roots or key in derived) and counter in constants:
                derived[op.result] = op
    if not derived or len(derived) > MOST_DERIVED:
        return None
    used = _used_elsewhere(function, [*roots, *derived], set(derived.values()))
    derivation = Derivation(tuple(roots), tuple(derived.values()), constants, tuple(used))
    return _without(function, derivation), derivation


def _used_elsewhere(function: Function, keys: Sequence[Value], deriving: set[Op]) -> list[Value]:
    found = set(function.results)
    for op in walk(function.body):
        if op not in deriving:
            found.update(op.operands)
        found.update(v for region in op.regions for v in region.results)
    return [k for k in keys if k in found]


def _without(function: Function, derivation: Derivation) -> Function:
    kept = [p for p in function.params if p not in derivation.roots]
    params = [Value(p.type, p.name) for p in (*kept, *derivation.used)]
    env: Env = dict(zip([*kept, *derivation.used], params))
    block = Block(params)
    b = Builder(block, function.span)
    gone = set(derivation.ops)
    for op in function.body.ops:
        if op not in gone:
            clone_op(b, op, env)
    block.results = [env.get(v, v) for v in function.results]
    return Function(f"{function.name}_on_keys", block, function.span, dict(function.attrs))
