"""The passes by name, the pipelines that order them, and what runs one."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.core import Module
from ..ir.errors import CompilerBug, WengertError
from .nesting import NestedTooDeeply, check_nesting

Transform = Callable[[Module], Module]


@dataclass(frozen=True)
class Pass:
    """A transformation Module -> Module.

    where: the module and function that implement it, imported at first use.
    removes: what no module has afterwards.
    """

    name: str
    doc: str
    where: tuple[str, str]
    removes: str = ""

    def run(self, module: Module) -> Module:
        """Apply to `module`, which stays as it is."""
        function: Transform = getattr(
            importlib.import_module(f".{self.where[0]}", __package__), self.where[1]
        )
        return function(module)


PASSES: dict[str, Pass] = {
    p.name: p
    for p in (
        Pass(
            "trees",
            "trees become arrays, in the form that each encoding asks for or that costs least",
            ("trees", "trees"),
            removes="tree.*",
        ),
        Pass(
            "shapes",
            "fields of shape programs become calls of functions of a point",
            ("shapes", "shapes"),
            removes="shape.*",
        ),
        Pass(
            "densities",
            "traces of programs become calls of functions that return choices and scores",
            ("densities", "densities"),
            removes="prob.trace, prob.assess",
        ),
        Pass(
            "estimators",
            "choices become unbiased estimators, by the strategy of each",
            ("estimators", "estimators"),
            removes="prob.sample, prob.rest, prob.expect",
        ),
        Pass("inline", "calls without custom derivative replaced by bodies", ("inline", "inline")),
        Pass(
            "expand_diff",
            "derivative requests and custom rules become plain functions",
            ("expand_diff", "expand_diff"),
            removes="diff.*, call, linear_call",
        ),
        Pass("streams", "x[i] in a loop over i becomes a streamed operand", ("streams", "streams")),
        Pass("vectorize", "loops without carries become batched ops", ("vectorize", "vectorize")),
        Pass(
            "intervals",
            "the entry becomes a function of boxes, where that is asked for",
            ("intervals", "intervals"),
        ),
        Pass("scalarize", "small arrays become scalars", ("scalarize", "scalarize")),
        Pass("simplify", "canonical forms, algebra, folding, CSE, DCE", ("simplify", "simplify")),
        Pass(
            "bufferize",
            "tensors become buffers, ops fused loop nests",
            ("bufferize", "bufferize"),
            removes="tensor ops of rank above 0",
        ),
    )
}

FRONT = (
    "trees",
    "shapes",
    "densities",
    "estimators",
    "inline",
    "expand_diff",
    "streams",
    "vectorize",
    "simplify",
)
BOXES = ("intervals", "simplify")
LOOPS = ("bufferize",)


def run_pipeline(
    module: Module,
    passes: Sequence[str],
    on_dump: Callable[[str, Module], None] | None = None,
    verify: bool = False,
) -> Module:
    """Run `passes` in order; `on_dump(name, module)` sees the module after each.

    verify: check the IR after every pass. A failure that is not the user's becomes a
    CompilerBug that names the pass and the file with the IR before it.
    """
    for name in passes:
        before = module
        try:
            module = PASSES[name].run(module)
            check_nesting(module)
            if verify:
                from ..ir.verify import verify as check

                check(module)
        except (WengertError, MemoryError) as error:
            if type(error).__name__ != "IRError":
                raise
            raise _bug(name, before, error) from error
        except RecursionError:
            raise NestedTooDeeply("the program nests too deeply to compile") from None
        except Exception as error:
            raise _bug(name, before, error) from error
        if on_dump is not None:
            on_dump(name, module)
    return module


def _bug(name: str, before: Module, error: Exception) -> CompilerBug:
    """The IR before a failed pass written to a file, and an error that says where."""
    from ..ir.printer import print_module

    handle, path = tempfile.mkstemp(prefix=f"wengert-before-{name}-", suffix=".ir")
    with os.fdopen(handle, "w") as file:
        file.write(print_module(before, spans=True))
    return CompilerBug(
        f"pass '{name}' failed: {type(error).__name__}: {error}\nIR before it: {path}"
    )
