"""The XLA backend as the runtime sees it, and compiled functions inside JAX programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backends.xla.lower import XlaExecutable
from ..ir.core import Module


class XlaRunner:
    """An executable of the XLA backend; results are JAX arrays."""

    def __init__(self, module: Module) -> None:
        self.executable = XlaExecutable(module)

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run once, without waiting for the device."""
        return self.executable(arrays)

    def stablehlo(self) -> str:
        """The StableHLO text."""
        return self.executable.stablehlo()
