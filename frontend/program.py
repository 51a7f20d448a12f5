"""Loading a program: the file, what it imports, and every name resolved."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.errors import ErrorGroup, WengertError
from ..ir.span import Span, register_source
from . import syntax
from .errors import DuplicateName, ImportMistake, SourceError
from .parse import parse
from .resolve import resolve_file
from .stack import deep_stack

CHOICES = "choices "  # the parameter of `p.logpdf`, named as no program's parameter can be
PRELUDE = ("distributions", "strategies", "inference")  # of programs that make choices
SHAPES = ("shapes",)  # of programs that draw


@dataclass
class SourceModule:
    """One file of a program: its declarations by name, its imports by the name they have here.

    prelude: files of the library whose declarations are known here without an import: the
        distributions and strategies, in files that declare programs.
    """

    path: str
    file: syntax.File
    declarations: dict[str, syntax.Decl]
    imports: dict[str, SourceModule] = field(default_factory=dict)
    prelude: tuple[SourceModule, ...] = ()

    def function(self, name: str) -> syntax.FunctionDecl | None:
        """The function declared here as `name`."""
        found = self.declarations.get(name)
        return found if isinstance(found, syntax.FunctionDecl) else None


@dataclass
class Program:
    """A checked program. `sources` are the texts that it was made of, by path, for caches."""

    main: SourceModule
    sources: dict[str, str]

    @property
    def root(self) -> syntax.File:
        """The file that was asked for."""
        return self.main.file

    @property
    def functions(self) -> dict[str, syntax.FunctionDecl]:
        """Functions of the root file by name, in order; strategies are none."""
        found = self.main.declarations.items()
        return {
            n: d for n, d in found if isinstance(d, syntax.FunctionDecl) and d.kind != "strategy"
        }


def load(path: str) -> Program:
    """Read `path` and what it imports.

    Raises SourceError for unreadable files, and whatever is wrong in them (an ErrorGroup for
    several mistakes).
    """
    return compile_text(read_source(Path(path), None), str(path))


def compile_text(
    text: str, path: str = "<text>", known: Mapping[str, Program] | None = None
) -> Program:
    """A program from text; imports are looked up beside `path`, then in the standard library.

    known: programs that are there already, by the path that an import of theirs would have.
    """
    loader = _Loader()
    for name, program in (known or {}).items():
        loader.know(name, program)
    try:
        with deep_stack():
            main = loader.module(path, text, ())
    except RecursionError:
        raise SourceError(f"{path} nests too deeply to be read") from None
    if loader.errors:
        raise loader.errors[0] if len(loader.errors) == 1 else ErrorGroup(loader.errors)
    return Program(main, loader.sources)


@functools.cache
def library(name: str) -> Program:
    """A file of the standard library on its own, read once."""
    text = (importlib.resources.files("wengert.stdlib") / f"{name}.wg").read_text("utf-8")
    return compile_text(text, f"<stdlib>/{name}.wg")


def register_sources(program: Program) -> None:
    """Make the texts of a program known to error messages, after it came from a cache."""
    for path, text in program.sources.items():
        register_source(path, text)


def read_source(path: Path, span: Span | None) -> str:
    """The text of a file, or SourceError (at `span`, the import that asked for it)."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start})", span) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", span) from None


PARSED: dict[str, syntax.File] = {}  # files of the library read so far, by path


def _parsed(text: str, path: str) -> syntax.File:
    """The syntax tree of a file; those of the library are kept."""
    if not path.startswith("<stdlib>/"):
        return parse(text, path)
    if path not in PARSED:
        PARSED[path] = parse(text, path)
    register_source(path, text)
    return PARSED[path]


def _prelude(decl: syntax.Decl) -> tuple[str, ...]:
    """The files of the library that a declaration knows without an import."""
    kind = decl.kind if isinstance(decl, syntax.FunctionDecl) else ""
    return SHAPES if kind == "shape" else PRELUDE if kind in syntax.PROGRAM_KINDS else ()


def asked_of(decl: syntax.Decl) -> list[syntax.FunctionDecl]:
    """What Python can ask of a model or guide `p`, as functions that no program can name:
    `p.simulate(arguments, key)`, a trace, and `p.logpdf(choices, arguments)`.
    """
    if not isinstance(decl, syntax.FunctionDecl) or decl.kind not in ("model", "guide"):
        return []
    at = decl.span
    parameters = tuple(p for p in decl.parameters if not isinstance(p.default, syntax.FreshKey))
    keys = tuple(p for p in decl.parameters if isinstance(p.default, syntax.FreshKey))
    given = tuple(syntax.Argument(at, None, syntax.Name(at, p.name)) for p in parameters)
    program = syntax.Argument(at, None, syntax.Call(at, syntax.Name(at, decl.name), given))
    choices = syntax.Argument(at, None, syntax.Name(at, CHOICES))

    def function(
        name: str, kind: str, parameters: tuple[syntax.Parameter, ...], *args: syntax.Argument
    ) -> syntax.FunctionDecl:
        value = syntax.Call(at, syntax.Name(at, name), args)
        body = (syntax.Return(at, value),)
        full = f"{decl.name}.{'simulate' if name == 'draw' else name}"
        return syntax.FunctionDecl(at, full, parameters, None, body, decl.doc, (), kind)

    simulate = function("draw", "objective", (*parameters, *keys), program)
    logpdf = function(
        "logpdf", "fn", (syntax.Parameter(at, CHOICES), *parameters), program, choices
    )
    return [simulate, logpdf]


class _Loader:
    def __init__(self) -> None:
        self.modules: dict[str, SourceModule] = {}
        self.known: dict[str, SourceModule] = {}
        self.sources: dict[str, str] = {}
        self.errors: list[WengertError] = []

    def know(self, name: str, program: Program) -> None:
        """Let `import "name"` find a program, and share the files that it was made of."""
        self.sources |= program.sources
        self.known[name] = program.main
        pending = [program.main]
        while pending:
            module = pending.pop()
            if module.path not in self.modules:
                self.modules[module.path] = module
                pending += [*module.imports.values(), *module.prelude]

    def module(self, path: str, text: str, above: tuple[str, ...]) -> SourceModule:
        """Parse one file, then its imports, then resolve its names."""
        self.sources[path] = text
        try:
            file = _parsed(text, path)
        except ErrorGroup as group:
            self.errors += group.errors
            file = syntax.File(path, ())
        except WengertError as error:
            self.errors.append(error)
            file = syntax.File(path, ())
        failed = bool(self.errors)
        module = self.modules[path] = SourceModule(path, file, {})
        for decl in file.declarations:
            self._declare(module, decl, (*above, path))
        for decl in file.declarations:
            module.declarations |= {d.name: d for d in asked_of(decl)}
        needed = [n for names in map(_prelude, file.declarations) for n in names]
        known = [n for n in dict.fromkeys(needed) if f"<stdlib>/{n}.wg" not in (*above, path)]
        module.prelude = tuple(self._library(f"{name}.wg", (*above, path)) for name in known)
        if not failed:
            self.errors += resolve_file(module)
        return module

    def _library(self, name: str, above: tuple[str, ...]) -> SourceModule:
        """A file of the standard library."""
        path = f"<stdlib>/{name}"
        if path in self.modules:
            return self.modules[path]
        text = (importlib.resources.files("wengert.stdlib") / name).read_text("utf-8")
        return self.module(path, text, above)

    def _declare(self, module: SourceModule, decl: syntax.Decl, above: tuple[str, ...]) -> None:
        if decl.name in module.declarations:
            first = module.declarations[decl.name].span
            self.errors.append(
                DuplicateName(
                    f"'{decl.name}' is declared twice", decl.span, hint=f"first at {first}"
                )
            )
            return
        module.declarations[decl.name] = decl
        if isinstance(decl, syntax.ImportDecl):
            try:
                module.imports[decl.name] = self._import(decl, module.path, above)
            except WengertError as error:
                self.errors.append(error)

    def _import(
        self, decl: syntax.ImportDecl, importer: str, above: tuple[str, ...]
    ) -> SourceModule:
        if decl.path in self.known:
            return self.known[decl.path]
        path, text = self._find(decl, importer)
        if path in above:
            chain = " -> ".join([*above[above.index(path) :], path])
            raise ImportMistake("this import comes back to its own file", decl.span, found=chain)
        if path in self.modules:
            return self.modules[path]
        return self.module(path, text, above)

    def _find(self, decl: syntax.ImportDecl, importer: str) -> tuple[str, str]:
        name = decl.path if decl.path.endswith(".wg") else f"{decl.path}.wg"
        beside = Path(importer).parent / name
        if beside.is_file():
            return str(beside), read_source(beside, decl.span)
        library = importlib.resources.files("wengert.stdlib")
        found = library / name
        if "/" not in name and found.is_file():
            return f"<stdlib>/{name}", found.read_text("utf-8")
        known = sorted(e.name[:-3] for e in library.iterdir() if e.name.endswith(".wg"))
        raise ImportMistake(
            f"nothing called '{decl.path}' can be imported",
            decl.span,
            expected=f"{beside}, or one of the library: {', '.join(known)}",
        )
