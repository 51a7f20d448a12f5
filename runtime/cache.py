"""Compiled code kept on disk between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..passes.pipeline import LOOPS, run_pipeline
from .compiler import Executable
from .requests import Request

if TYPE_CHECKING:
    from .specialization import Specialization


def cached_llvm(special: Specialization, request: Request) -> Executable:
    """The LLVM executable for `request`."""
    from .llvm import LlvmRunner

    return LlvmRunner.compile(
        run_pipeline(special.module(request), LOOPS), special.program.threads
    )
