"""Checks of what shape programs require of the parameters of primitives and of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..ir.builder import Builder
from ..ir.clone import Env, renamed
from ..ir.core import Block, Module, Op, Value
from ..ir.shape import DRAWS, callee, draws, requirements_of
from ..ir.types import BOOL, TensorType


class Owner(Protocol):
    """What rewrites the module around."""

    def plain_op(self, b: Builder, op: Op, env: Env) -> None:
        """Write an op that draws nothing."""

    def check(self, name: str) -> str:
        """The function that checks a program."""


class Checks:
    """Writes whether the requirements of a block hold, one bool each, in order."""

    def __init__(self, module: Module, owner: Owner, b: Builder, env: Env) -> None:
        self.module = module
        self.owner = owner
        self.b = b
        self.env = env

    def block(self, block: Block) -> list[Value]:
        """The bools of a block, whose parameters are in the environment already."""
        held: list[Value] = []
        for op in block.ops:
            self.b.span = op.span
            if op.name in DRAWS:
                held += self.drawing(op)
            elif any(map(draws, op.regions)):
                held += self.control(op)
            else:
                self.owner.plain_op(self.b, op, self.env)
        return held

    def drawing(self, op: Op) -> list[Value]:
        """Those of an op that draws, then of its region."""
        held: list[Value] = []
        operands = [self.env.get(v, v) for v in op.operands]
        if op.attrs.get("valid"):
            fn = self.module.functions[op.attrs["valid"]]
            types = tuple(r.type for r in fn.results)
            held += self.b.op("call", operands, fn=fn.name, types=types)
        if op.name == "shape.call":
            held += self.program(op, operands)
        for region in op.regions:
            held += self.block(region)
        return held

    def program(self, op: Op, operands: Sequence[Value]) -> list[Value]:
        """Those of a program drawn here."""
        program = callee(self.module, op)
        count = len(requirements_of(self.module, program))
        if not count:
            return []
        fn = self.owner.check(program.name)
        types = (TensorType(BOOL, (count,)),)
        (all_held,) = self.b.op("call", operands, fn=fn, types=types)
        return [self.b.row(all_held, i) for i in range(count)]

    def control(self, op: Op) -> list[Value]:
        """Those of regions: they hold where they are not met, and in every trip."""
        b = self.b
        found = []
        for region in op.regions:
            out = Block(renamed(region.params, self.env))
            inner = Checks(self.module, self.owner, Builder(out, op.span), self.env)
            held = inner.block(region)
            out.results = [self.env.get(v, v) for v in region.results]
            found.append((out, held))
        operands = [self.env.get(v, v) for v in op.operands]
        counts = [len(held) for _, held in found]
        own = len(op.results)
        if op.name == "for":
            ((body, held),) = found
            body.results += held
            results = b.op("for", operands, [body], **op.attrs)
            self.env.update(zip(op.results, results))
            return [
                b.reduce_min(v, axes=(0,)) if op.attrs["trips"] else self.true(b)
                for v in results[own:]
            ]
        if op.name == "while":
            return self.while_loop(op, operands, found)
        for i, (out, held) in enumerate(found):
            inner_b = Builder(out, op.span)
            for k, other in enumerate(counts):
                out.results += held if k == i else [self.true(inner_b) for _ in range(other)]
        results = b.op(op.name, operands, [out for out, _ in found], **op.attrs)
        self.env.update(zip(op.results, results))
        return list(results[own:])

    def while_loop(
        self, op: Op, operands: Sequence[Value], found: Sequence[tuple[Block, list[Value]]]
    ) -> list[Value]:
        """Those of a loop with a condition, carried."""
        (cond, _), (body, held) = found
        flags = [[Value(TensorType(BOOL), "held") for _ in held] for _ in found]
        inner = Builder(body, op.span)
        body.results += [inner.and_(old, new) for old, new in zip(flags[1], held)]
        cond.params += flags[0]
        body.params += flags[1]
        start = [self.true(self.b) for _ in held]
        out = self.b.op("while", [*operands, *start], [cond, body], **op.attrs)
        self.env.update(zip(op.results, out))
        return list(out[len(op.results) :])

    @staticmethod
    def true(b: Builder) -> Value:
        """What holds."""
        return b.const(True, TensorType(BOOL))
