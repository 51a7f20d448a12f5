"""The XLA backend as the runtime sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from ..backends.xla.lower import XlaExecutable
from ..ir.core import Module, parameter_types
from .errors import BackendError


class XlaRunner:
    """An executable of the XLA backend; results are JAX arrays."""

    def __init__(self, module: Module) -> None:
        self.executable = XlaExecutable(module)
        self.types = parameter_types(module)

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run once, without waiting for the device.

        Raises MemoryError where the device has no room, BackendError for other failures.
        """
        try:
            return self.executable(arrays)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise MemoryError("the device has no room for this program") from error
            raise BackendError("XLA failed", found=str(error).splitlines()[0]) from error

    def stablehlo(self) -> str:
        """The StableHLO text."""
        return self.executable.stablehlo()

    def hlo(self) -> str:
        """The HLO text after XLA's own passes for the device."""
        return self.executable.hlo()
