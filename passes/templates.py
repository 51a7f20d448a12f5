"""The form of a few scalar ops, without their constants: what many terms of a union share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Op, Value
from ..ir.opdef import OPS
from ..ir.types import DType
from .choices import Choices

Ref = tuple[str, Any]  # ("op", step), ("const", slot) or ("value", outer value)
Step = tuple[str, tuple[tuple[str, Any], ...], tuple[Ref, ...]]  # name, attributes, operands


@dataclass(frozen=True)
class Template:
    """Steps with numbered constants. form: what makes two of them one loop."""

    steps: tuple[Step, ...]
    result: Ref
    constants: tuple[tuple[Any, DType], ...]

    @property
    def form(self) -> Any:
        """Equal for templates that differ in their constants only."""
        return self.steps, self.result, tuple(d for _, d in self.constants)

    @classmethod
    def of(cls, ops: Sequence[Op], result: Value, choices: Choices) -> Template | None:
        """The form of `ops`, all elementwise on scalars; None for others."""
        reader = _Reader(choices)
        for op in ops:
            if not OPS[op.name].elementwise or Builder.type(op.results[0]).shape:
                return None
            reader.add(op)
        return cls(tuple(reader.steps), reader.ref(result), tuple(reader.constants))

    def write(
        self, b: Builder, constants: Mapping[int, Any], outer: Callable[[Value], Value]
    ) -> Value:
        """The ops again. constants: a value or a literal for each slot."""
        made: list[Value] = []
        literals: dict[int, Value] = {}

        def operand(ref: Ref) -> Value:
            kind, which = ref
            if kind == "op":
                return made[which]
            if kind == "value":
                return outer(which)
            given = constants[which]
            if isinstance(given, Value):
                return given
            if which not in literals:
                literals[which] = b.const(given, self.constants[which][1])
            return literals[which]

        for name, attrs, refs in self.steps:
            made.append(b.op(name, [operand(r) for r in refs], **dict(attrs))[0])
        return operand(self.result)


class _Reader:
    """Numbers ops and constants in the order in which they are read."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.steps: list[Step] = []
        self.constants: list[tuple[Any, DType]] = []
        self.known: dict[Value, Ref] = {}

    def add(self, op: Op) -> Ref:
        refs = tuple(self.ref(v) for v in op.operands)
        attrs = self.choices.again_attrs(op) if op in self.choices.again else op.attrs
        self.steps.append((op.name, tuple(sorted(attrs.items())), refs))
        self.known[op.results[0]] = ("op", len(self.steps) - 1)
        return self.known[op.results[0]]

    def ref(self, v: Value) -> Ref:
        found = self.known.get(v)
        if found is not None:
            return found
        op = self.choices.makers.get(v)
        if op is not None and op.name == "const":
            # A slot for every use: that two are one number is chance.
            self.constants.append((op.attrs["value"], Builder.type(v).dtype))
            return "const", len(self.constants) - 1
        if op is not None and op in self.choices.again:
            return self.add(op)
        self.known[v] = ("value", v)
        return self.known[v]


def alike(forms: Sequence[Template]) -> tuple[dict[int, tuple[Any, DType]], dict[int, Any]]:
    """The constants of templates of one form: tables of those that differ, the others' values."""
    tables: dict[int, tuple[Any, DType]] = {}
    same: dict[int, Any] = {}
    for slot, (value, dtype) in enumerate(forms[0].constants):
        column = np.array([f.constants[slot][0] for f in forms], dtype.numpy)
        if column.tobytes() == column[:1].tobytes() * len(column):
            same[slot] = value
        else:
            tables[slot] = column, dtype
    return tables, same
