"""The table of the simplifier's rules by op name, and what every rule asks of its operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.core import Op, Value

if TYPE_CHECKING:
    from .simplify import Simplifier

Found = Sequence[Value] | None
Rule = Callable[["Simplifier", Sequence[Value], dict[str, Any]], Found]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule of each of the ops `names`."""

    def add(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return add


def made(b: Simplifier, v: Value, name: str) -> Op | None:
    """The op that defines v, where its name is `name`."""
    op = b.maker(v)
    return op if op is not None and op.name == name else None


def shape_of(v: Value) -> tuple[int, ...]:
    """The shape of v."""
    return Builder.type(v).shape
