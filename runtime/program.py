"""A loaded program: its functions as attributes, and the options they compile with."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from typing import Any

from ..frontend import program as front
from ..frontend import syntax
from ..frontend.trees import TreeOptions
from ..ir.types import F32, F64, DType
from .cache import compile_text, load_program
from .compiler import BACKENDS
from .errors import BackendError, CallError
from .function import CompiledFunction
from .values import Converter

_REALS: dict[str, DType] = {"f32": F32, "f64": F64}


class Program:
    """Functions of a `.wg` file, each an attribute: `program.loss(x)`.

    backend: "llvm" (default), "xla" or "interp" (the reference interpreter).
    real: "f32" (default) or "f64": the type that `real` and plain float literals have.
    trees: how trees come into the program (`wg.trees.options`).
    """

    def __init__(
        self,
        source: front.Program,
        backend: str = "llvm",
        real: str = "f32",
        trees: TreeOptions | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise BackendError(f"no backend is called {backend!r}", expected=", ".join(BACKENDS))
        if not isinstance(real, str) or real not in _REALS:
            raise CallError(f"real cannot be {real!r}", expected="f32 or f64")
        self.source = source
        self.backend = backend
        self.real = _REALS[real]
        self.trees = trees
        self._functions: dict[str, CompiledFunction] = {}
        self._converter = Converter(_records(source), self.real, _device_arrays(backend), trees)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions that the file declares, in order."""
        return tuple(n for n in self.source.functions if "." not in n)

    def __getattr__(self, name: str) -> CompiledFunction:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._functions.get(name)
        if found is None:
            decl = self.source.functions.get(name)
            if decl is None:
                raise AttributeError(self._no_such(name))
            found = self._functions[name] = self._function(decl)
        return found

    def _function(self, decl: syntax.FunctionDecl) -> CompiledFunction:
        if decl.kind != "tree":
            return CompiledFunction(self, decl)
        from .trees.function import TreeFunction

        return TreeFunction(self, decl)

    def _no_such(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.functions, 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"the program has no function '{name}'{hint} (it has: {', '.join(self.functions)})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.functions]

    def __repr__(self) -> str:
        return f"<wengert program with {', '.join(self.functions) or 'no functions'}>"

    @property
    def options(self) -> dict[str, Any]:
        """`backend`, `real` and `trees` as they are given to `load`."""
        return {"backend": self.backend, "real": self.real.name, "trees": self.trees}

    def with_options(self, **options: Any) -> Program:
        """The same program under another `backend` or `real`."""
        return Program(self.source, **(self.options | options))

    def converter(self, decl: syntax.FunctionDecl) -> Converter:
        """What turns Python arguments of `decl` into arrays."""
        return self._converter

    def plain_converter(self) -> Converter:
        """The converter for values that belong to no declaration, such as tangents."""
        return self._converter


def _device_arrays(backend: str) -> type | None:
    """The class of arrays that stay on the device of a backend."""
    if backend != "xla":
        return None
    import jax

    return jax.Array


def _records(source: front.Program) -> dict[str, syntax.RecordDecl]:
    """Record types by the names that the root file has for them: `Network`, `nn.Linear`."""
    declared = source.main.declarations.values()
    found = {d.name: d for d in declared if isinstance(d, syntax.RecordDecl)}
    for name, module in source.main.imports.items():
        for decl in module.declarations.values():
            if isinstance(decl, syntax.RecordDecl):
                fields = tuple(
                    replace(f, annotation=_qualified(f.annotation, name, module))
                    for f in decl.fields
                )
                found[f"{name}.{decl.name}"] = replace(decl, fields=fields)
    return found


def _qualified(
    type: syntax.TypeExpr | None, prefix: str, module: front.SourceModule
) -> syntax.TypeExpr | None:
    """A type written in an imported file, as the importing file would write it."""
    match type:
        case syntax.NamedType(_, name) if name in module.declarations:
            return replace(type, name=f"{prefix}.{name}")
        case syntax.TupleType(_, items):
            inside = [_qualified(item, prefix, module) for item in items]
            return replace(type, items=tuple(item for item in inside if item is not None))
    return type


def load(path: str | os.PathLike[str], **options: Any) -> Program:
    """Read and check a `.wg` file (and what it imports); compiling waits for the first call.

    Options: `backend` and `real` of `Program`. Raises WengertError subclasses with
    the place of each mistake; several at once as an ErrorGroup.
    """
    return Program(load_program(os.fspath(path)), **options)


def compile(text: str, path: str = "<text>", **options: Any) -> Program:
    """Check a program given as text; options and errors as for `load`."""
    if not isinstance(text, str):
        raise CallError("compile takes the text of a program", found=type(text).__name__)
    return Program(compile_text(text, path), **options)
