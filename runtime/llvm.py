"""The LLVM backend as the runtime sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.llvm.executable import Executable, assembly, llvm_text
from ..ir.core import Module
from ..ir.types import TensorType


class LlvmRunner:
    """An executable of the LLVM backend; results are new NumPy arrays.

    module: the loop-level module, or a function that makes it again for dumps.
    """

    def __init__(self, executable: Executable, module: Callable[[], Module]) -> None:
        self.executable = executable
        self._module = module

    @classmethod
    def compile(cls, loops: Module) -> LlvmRunner:
        """Compile a loop-level module."""
        return cls(Executable.compile(loops), lambda: loops)

    @property
    def types(self) -> list[TensorType]:
        """The types of the arrays that `run` takes."""
        inputs = len(self.executable.types) - self.executable.outputs
        return [t.tensor for t in self.executable.types[:inputs]]

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run once; JAX arrays are taken as NumPy ones."""
        return self.executable([a if isinstance(a, np.ndarray) else np.asarray(a) for a in arrays])

    def scalar_entry(self) -> Callable[..., float] | None:
        """See Executable.scalar_entry."""
        return self.executable.scalar_entry()

    def llvm(self) -> str:
        """The optimised LLVM IR."""
        return llvm_text(self._module())

    def asm(self) -> str:
        """The machine code as assembly."""
        return assembly(self._module())
