"""A limit on how deeply loops and branches nest: passes and backends go down by recursion."""

from __future__ import annotations

from ..ir.core import Module
from ..ir.errors import WengertError

DEEPEST = 100  # beyond a few hundred XLA overflows its stack, which ends the process


class NestedTooDeeply(WengertError):
    """Loops and branches inside each other, in calls too, beyond what can be compiled."""


def check_nesting(module: Module) -> None:
    """Raise NestedTooDeeply where regions of a function nest deeper than DEEPEST."""
    level = [op for f in module.functions.values() for op in f.body.ops if op.regions]
    for _ in range(DEEPEST):
        level = [o for op in level for region in op.regions for o in region.ops if o.regions]
    if level:
        raise NestedTooDeeply(
            f"loops and branches nest deeper than {DEEPEST}",
            level[0].span,
            hint="a chain of 'elif' nests too; `switch` on a number computed before does not",
        )
