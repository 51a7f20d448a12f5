"""A function at one signature: its lowered IR and the executables made from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..frontend import syntax
from ..frontend.specialize import FunctionRef, Lowered, specialize
from ..frontend.specialize import Static as StaticArg
from ..frontend.stack import deep_stack
from ..ir.core import Module
from ..ir.pause import paused_collection
from ..ir.struct import Struct
from ..ir.types import TensorType
from .binding import Static
from .compiler import Dumps, Executable, build, compile_module
from .errors import CallError
from .requests import TILED, Request, wrt_indices

if TYPE_CHECKING:
    from ..passes.tiles import Tiles
    from .program import Program

Signature = tuple[tuple[str, Struct | Static], ...]


class Specialization:
    """One signature of one function. Lowering and compiling happen when first needed."""

    def __init__(self, program: Program, decl: syntax.FunctionDecl, signature: Signature) -> None:
        self.program = program
        self.decl = decl
        self.signature = signature
        self._lowered: Lowered | None = None
        self._executables: dict[tuple[Request, str], Executable] = {}
        self._tiles: dict[tuple[str, ...], Tiles] = {}
        self._lock = threading.Lock()

    @property
    def params(self) -> tuple[tuple[str, Struct], ...]:
        """The run-time parameters of the signature."""
        return tuple((n, s) for n, s in self.signature if not isinstance(s, Static))

    @property
    def lowered(self) -> Lowered:
        """The typed IR of the function for this signature, before any pass."""
        if self._lowered is None:
            args = {name: _argument(item) for name, item in self.signature}
            with paused_collection():
                self._lowered = specialize(
                    self.program.source,
                    self.decl.name,
                    args,
                    real=self.program.real,
                    trees=self.program.trees,
                )
        return self._lowered

    def module(self, request: Request, dumps: Dumps | None = None) -> Module:
        """The simplified tensor-level module for `request`."""
        with deep_stack():
            if request.kind in TILED:
                return self._tiled(request)
            return build(
                self.lowered,
                request,
                self.decl.name,
                dumps or Dumps(),
                one_key=self.decl.kind == "objective",
            )

    def _tiled(self, request: Request) -> Module:
        """A program that samples the function on a grid; both are made from one analysis."""
        tiles = self._tiles.get(request.wrt)
        if tiles is None:
            from ..passes.tiles import Tiles

            (place,) = wrt_indices(self.params, request.wrt)
            plain = build(self.lowered, Request(), self.decl.name, Dumps())
            tiles = self._tiles[request.wrt] = Tiles(plain, place)
        return tiles.cells() if request.kind == "cells" else tiles.points()

    def executable(self, request: Request, backend: str | None = None) -> Executable:
        """The compiled code for `request`, made once."""
        where = (request, backend or self.program.backend)
        found = self._executables.get(where)
        if found is None:
            with self._lock:
                found = self._executables.get(where)
                if found is None:
                    with paused_collection(), deep_stack():
                        found = self._compile(*where)
                    self._executables[where] = found
        return found

    def _compile(self, request: Request, backend: str) -> Executable:
        if backend == "llvm":
            from .cache import cached_llvm

            return cached_llvm(self, request)
        return compile_module(self.module(request), backend, Dumps())

    def run(self, request: Request, arrays: Sequence[Any]) -> list[Any]:
        """Run `request` on flat arrays."""
        return self.executable(request).run(arrays)

    def scalar_entry(self, count: int) -> Callable[..., Any] | None:
        """A direct entry for `count` Python floats and one float result, if the backend has one."""
        result = self.lowered.result
        types = [s for _, s in self.params]
        scalars = all(isinstance(t, TensorType) and not t.shape and t.dtype.is_float for t in types)
        if len(types) != count or not scalars or not isinstance(result, TensorType) or result.shape:
            return None
        entry = getattr(self.executable(Request()), "scalar_entry", None)
        raw = entry() if entry is not None else None
        if raw is None or not result.dtype.is_float:
            return None
        return _numpy_result(raw, result.dtype.numpy.type)

    def dump(self, request: Request, after: str, spans: bool) -> str:
        """The IR text after stage `after` ("all": every stage with a heading)."""
        dumps = Dumps(wanted=True, spans=spans)
        module = self.module(request, dumps)
        if after not in dumps.texts:
            from ..passes.pipeline import LOOPS, run_pipeline

            run_pipeline(module, LOOPS, on_dump=dumps)
        if after == "all":
            return "\n".join(f"// after {name}\n{text}" for name, text in dumps.texts.items())
        stages = [s for s in dumps.texts if s == after or s.startswith(f"{after}#")]
        if not stages:
            raise CallError(
                f"there is no stage called '{after}'", expected=", ".join([*dumps.texts, "all"])
            )
        return dumps.texts[stages[-1]]


def _numpy_result(raw: Callable[..., float], type: type) -> Callable[..., Any]:
    """`raw` with its float wrapped as the NumPy scalar that the general path returns."""

    def call(*args: float) -> Any:
        return type(raw(*args))

    return call


def _argument(item: Struct | Static) -> Any:
    if not isinstance(item, Static):
        return item
    from .function import CompiledFunction

    if isinstance(item.value, CompiledFunction):
        return StaticArg(FunctionRef(item.value.program.source, item.value.decl.name))
    return StaticArg(item.value)
