"""Huge bodies emitted as functions of thousands of ops: LLVM's time grows faster than a body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import llvmlite.ir as ll

from ...ir.core import Op, Value, used_values
from ...ir.loops import INDEX
from .emit import Emitter, Val, scalar_dtype
from .lanes import INT32, REGISTER, vector
from .scalar_ops import EMIT

PART_OPS = 2500  # ops of a part


def in_parts(e: Emitter, ops: Sequence[Op]) -> None:
    """Emit ops after which nothing follows; very many as functions of PART_OPS each.

    What a later part uses of an earlier one goes through a frame in memory, and is loaded where
    it is used first.
    """
    parts = _parts(ops)
    if len(parts) == 1:
        e.ops(ops)
        return
    frame = _Frame(parts, e.lanes)
    slot = e.alloca(frame.type)
    for part in parts:

        def write(inner: Emitter, more: Sequence[Any], part: Sequence[Op] = part) -> None:
            frame.run(inner, more[0], part)

        e.part(frame.outside(part), [slot], write)


def _parts(ops: Sequence[Op]) -> list[list[Op]]:
    """Runs of PART_OPS ops; a product stays with the sum that it may be joined with."""
    parts: list[list[Op]] = []
    rest = list(ops)
    while len(rest) > 2 * PART_OPS:
        part, rest = rest[:PART_OPS], rest[PART_OPS:]
        here = {v for op in part for v in used_values(op)}
        late = [op for op in part if op.name == "mul" and op.results[0] not in here]
        moved = set(late)
        parts.append([op for op in part if op not in moved])
        rest = late + rest
    return [*parts, rest]


class _Frame:
    """Memory for the values that parts of a body share; constants and indices are made again.

    places: the fields of values.
    """

    def __init__(self, parts: Sequence[Sequence[Op]], lanes: int) -> None:
        last = {v: i for i, part in enumerate(parts) for op in part for v in used_values(op)}
        self.again: dict[Value, Op] = {}
        self.places: dict[Value, int] = {}
        kinds: list[ll.Type] = []
        for i, part in enumerate(parts):
            for op in part:
                for r in op.results:
                    if op.name == "const" or (r.type == INDEX and op.name in EMIT.rules):
                        self.again[r] = op
                    elif last.get(r, i) > i:
                        self.places[r] = len(kinds)
                        kinds.append(vector(REGISTER[scalar_dtype(r)], lanes))
        self.type = ll.LiteralStructType(kinds)

    def outside(self, part: Sequence[Op]) -> Iterator[Value]:
        """The values that a part needs from around the body."""
        pending = [v for op in part for v in used_values(op)]
        seen: set[Value] = set()
        while pending:
            v = pending.pop()
            if v in self.again and v not in seen:
                seen.add(v)
                pending += self.again[v].operands
            elif v not in self.again:
                yield v

    def run(self, e: Emitter, base: Any, ops: Sequence[Op]) -> None:
        """Emit the ops of a part: loads before first uses, stores after the ops."""
        for op in ops:
            for v in used_values(op):
                self._bring(e, base, v)
            e.op(op)
            for r in op.results:
                if r in self.places:
                    address = _field(e, base, self.type, self.places[r])
                    e.b.store(e.wide(e.env[r]), address, align=8)

    def _bring(self, e: Emitter, base: Any, v: Value) -> None:
        if v in e.env:
            return
        if v in self.again:
            for operand in self.again[v].operands:
                self._bring(e, base, operand)
            e.op(self.again[v])
        elif v in self.places:
            at = self.places[v]
            address = _field(e, base, self.type, at)
            e.env[v] = Val(e.b.load(address, align=8, typ=self.type.elements[at]))


def _field(e: Emitter, base: Any, frame: ll.Type, i: int) -> Any:
    """The address of a field of a struct."""
    index = [ll.Constant(INT32, 0), ll.Constant(INT32, i)]
    return e.b.gep(base, index, inbounds=True, source_etype=frame)
