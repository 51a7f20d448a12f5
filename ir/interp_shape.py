"""What the shape dialect means, by running programs: no pass is asked.

The field at a point is found by running the program at that point: every draw notes a distance
and a part, and the notes of a block are joined when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .core import Block, Function, Op
from .interp import Env, Interpreter, rule
from .opdef import Array
from .shape import DRAWS, UNNAMED, callee, draws, parts_of, requirements_of
from .types import TensorType

Draw = tuple[Array, int]  # a distance and the number of a part


@rule("shape.field")
def _field(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    program = callee(interp.module, op)
    parts = {part: i for i, part in enumerate(parts_of(interp.module, program))}
    drawing = _Drawing(interp, parts, UNNAMED, operands[-1])
    drawing.block(program.body, operands[:-1], {})
    distance, part = drawing.united()
    type = op.results[0].type
    assert isinstance(type, TensorType)
    return [np.asarray(distance, type.dtype.numpy), np.array(part, np.int32)]


@rule("shape.check")
def _check(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    checking = _Checking(interp)
    checking.program(callee(interp.module, op), operands)
    return [np.array(checking.held, np.bool_)]


class _Drawing(Interpreter):
    """Runs a block at a point and notes what it draws.

    plain: runs everything else; parts: numbers by part; part: of what is drawn now.
    """

    def __init__(
        self,
        plain: Interpreter,
        parts: dict[tuple[str, str], int],
        part: tuple[str, str],
        point: Array,
    ) -> None:
        super().__init__(plain.module)
        self.plain = plain
        self.parts = parts
        self.part = part
        self.point = point
        self.drawn: list[Draw] = []

    def op(self, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
        """Run one op."""
        match op.name:
            case "shape.draw":
                (distance,) = self.function(op, "distance", [*operands, self.point])
                self.note(op, operands, (distance, self.parts[self.part]))
            case "shape.place":
                self.note(op, operands, self.place(op, operands, env))
            case "shape.combine":
                inner = self.inside(self.part, self.point, op.regions[0], env)
                self.note(op, operands, self.joined(op, operands, inner.drawn))
            case "shape.part":
                part = (op.attrs["part"], op.attrs["color"])
                inner = self.inside(part, self.point, op.regions[0], env)
                self.drawn.append(inner.united())
            case "shape.call":
                inner = _Drawing(self.plain, self.parts, self.part, self.point)
                inner.block(callee(self.module, op).body, operands, {})
                self.drawn.append(inner.united())
            case _ if any(map(draws, op.regions)):
                return super().op(op, operands, env)
            case _:
                return self.plain.op(op, operands, env)
        return []

    def function(self, op: Op, key: str, args: Sequence[Any]) -> list[Array]:
        """Call a function that an op names."""
        return self.plain.call(self.module.functions[op.attrs[key]], args)

    def inside(self, part: tuple[str, str], point: Array, block: Block, env: Env) -> _Drawing:
        """Run a region at a point."""
        inner = _Drawing(self.plain, self.parts, part, point)
        inner.block(block, [], env)
        return inner

    def note(self, op: Op, operands: list[Any], draw: Draw) -> None:
        """Add a draw, or an empty one where a requirement fails."""
        ok = not op.attrs["valid"] or all(self.function(op, "valid", operands))
        self.drawn.append(draw if ok else (np.asarray(np.inf), draw[1]))

    def place(self, op: Op, operands: list[Any], env: Env) -> Draw:
        """The region, moved."""
        point = self.point
        if op.attrs["back"]:
            (point,) = self.function(op, "back", [*operands, point])
        distance, part = self.inside(self.part, point, op.regions[0], env).united()
        if op.attrs["distance"]:
            distance = distance.astype(point.dtype)
            (distance,) = self.function(op, "distance", [*operands, distance, self.point])
        return distance, part

    def joined(self, op: Op, operands: list[Any], drawn: Sequence[Draw]) -> Draw:
        """The draws of a region, joined in order."""
        if not drawn:
            return np.asarray(np.inf), -1
        distance, part = drawn[0]
        for other, number in drawn[1:]:
            pair = [np.asarray(d, self.point.dtype) for d in (distance, other)]
            (kept,) = self.function(op, "first", [*operands, *pair])
            (distance,) = self.function(op, "join", [*operands, *pair])
            part = part if kept else number
        return distance, part

    def united(self) -> Draw:
        """The union of what was drawn."""
        nearest: Draw = (np.asarray(np.inf), -1)
        for i, (distance, part) in enumerate(self.drawn):
            if i == 0:
                nearest = distance, part
            else:
                kept = bool(nearest[0] <= distance)
                nearest = np.minimum(nearest[0], distance), nearest[1] if kept else part
        return nearest


class _Checking(Interpreter):
    """Runs a program without drawing, and notes which requirements hold."""

    def __init__(self, plain: Interpreter) -> None:
        super().__init__(plain.module)
        self.plain = plain
        self.held: list[bool] = []
        self.first: dict[Op, int] = {}

    def program(self, function: Function, args: Sequence[Any]) -> None:
        """Check a program."""
        start = len(self.held)
        self.held += [True] * len(requirements_of(self.module, function))
        self.number(function.body, start)
        self.block(function.body, args, {})

    def number(self, block: Block, at: int) -> int:
        """Number the requirements of a block's ops from `at` on; the number after the last."""
        for op in block.ops:
            self.first[op] = at
            if op.name == "shape.call":
                at += len(requirements_of(self.module, callee(self.module, op)))
            at += len(op.attrs.get("needs", ())) if op.name in DRAWS else 0
            for region in op.regions:
                at = self.number(region, at)
        return at

    def op(self, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
        """Run one op."""
        at = self.first[op]
        if op.name == "shape.call":
            inner = _Checking(self.plain)
            inner.program(callee(self.module, op), operands)
            self.note(at, inner.held)
        elif op.name in DRAWS:
            if op.attrs.get("valid"):
                self.note(at, self.plain.call(self.module.functions[op.attrs["valid"]], operands))
            for region in op.regions:
                self.block(region, [], env)
        elif any(map(draws, op.regions)):
            return super().op(op, operands, env)
        else:
            return self.plain.op(op, operands, env)
        return []

    def note(self, at: int, held: Sequence[Any]) -> None:
        """And the results of checks to those noted from number `at` on."""
        for i, one in enumerate(held, at):
            self.held[i] &= bool(one)
