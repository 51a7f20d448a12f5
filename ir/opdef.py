"""How an op is declared: one record with its type rule and its reference semantics.

Rules keyed by op (derivative, batching, lowering...) live in tables beside the pass or the
backend that uses them; `RuleTable.missing` is the completeness check that tests call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .core import Attrs, Block, Op, Value
from .errors import IRError
from .types import TensorType, Type

Array = np.ndarray[Any, np.dtype[Any]]
InferRule = Callable[[Sequence[Value], Attrs, Sequence[Block]], list[Type]]
Reference = Callable[..., Any]


@dataclass(frozen=True)
class OpDef:
    """The declaration of an op.

    name: as written in the text form; dialect ops have a prefix (`loop.load`).
    doc: one line for `docs/ir.md`.
    infer: (operands, attrs, regions) -> result types; raises IRError on a misfit, so that
        builder and verifier share one rule.
    reference: NumPy semantics `f(attrs, *arrays) -> array or tuple`; None for ops whose
        meaning is structural (regions, calls), which the interpreter knows itself.
    attrs: names of the attributes the op takes, in printing order, with their kinds:
        "int", "ints", "bool", "float", "str", "strs", "dtype", "type", "symbol", "symbols",
        "array".
    arity: number of operands; None for any.
    regions: names of the regions, as printed; "*" marks any number.
    elementwise: same shape in and out, each element on its own.
    commutative: operands may be swapped.
    pure: no effect but its results (all but the loop level's stores).
    """

    name: str
    doc: str
    infer: InferRule
    reference: Reference | None = None
    attrs: tuple[tuple[str, str], ...] = ()
    arity: int | None = None
    regions: tuple[str, ...] = ()
    elementwise: bool = False
    commutative: bool = False
    pure: bool = True


OPS: dict[str, OpDef] = {}


def declare(definition: OpDef) -> OpDef:
    """Add an op to the registry; its name must be new."""
    if definition.name in OPS:
        raise ValueError(f"op {definition.name!r} is declared twice")
    OPS[definition.name] = definition
    return definition


R = TypeVar("R")


class RuleTable(Generic[R]):
    """Rules of one kind keyed by op name, with the ops that have none and why."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.rules: dict[str, R] = {}
        self.without: dict[str, str] = {}

    def register(self, *names: str) -> Callable[[R], R]:
        """Decorator: the rule for each of `names`."""

        def add(rule: R) -> R:
            for name in names:
                self.set(name, rule)
            return rule

        return add

    def set(self, name: str, rule: R) -> None:
        """Add one rule; a second one for the same op is a mistake."""
        if name in self.rules or name in self.without:
            raise ValueError(f"op {name!r} has two {self.kind} rules")
        self.rules[name] = rule

    def none(self, reason: str, *names: str) -> None:
        """Declare that `names` have no such rule, and why; the reason shows in errors."""
        for name in names:
            if name in self.rules or name in self.without:
                raise ValueError(f"op {name!r} has two {self.kind} rules")
            self.without[name] = reason

    def get(self, name: str) -> R | None:
        """The rule of op `name`, or None."""
        return self.rules.get(name)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` with neither a rule nor a reason for having none."""
        return [n for n in names if n not in self.rules and n not in self.without]


DIALECTS = ("diff.", "prob.", "shape.", "tree.")  # whose ops passes expand before any backend


def dialect_ops() -> list[str]:
    """The names of all ops that passes expand; rules for tensor ops need none for them."""
    return [name for name in OPS if name.startswith(DIALECTS)]


def tensor(value: Value) -> TensorType:
    """The tensor type of an operand; anything else there is an IRError."""
    if not isinstance(value.type, TensorType):
        raise IRError(f"an array is needed, not {value.type}")
    return value.type


def need(condition: bool, message: str) -> None:
    """Raise IRError(message) unless `condition` holds."""
    if not condition:
        raise IRError(message)


def symbols(op: Op) -> list[str]:
    """The functions that an op names."""
    kinds = OPS[op.name].attrs
    named = [op.attrs.get(k) for k, kind in kinds if kind == "symbol"]
    named += [name for k, kind in kinds if kind == "symbols" for name in op.attrs.get(k, ())]
    return [name for name in named if name]
