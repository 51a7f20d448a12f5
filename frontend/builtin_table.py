"""The table of builtin functions, filled by the `builtins_*` modules: one declaration each."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.span import Span
from .type_errors import CallMistake
from .values import NONE, Partial, Staged, Static, Tuple, describe, is_function

if TYPE_CHECKING:
    from .lower import Lowering

CONSTANTS: dict[str, float | None] = {
    "pi": math.pi,
    "e": math.e,
    "inf": math.inf,
    "nan": math.nan,
    "None": None,
    "nil": None,
}


@dataclass(frozen=True)
class BuiltinFunction:
    """A builtin function.

    text: the signature as documented, `clip(x, low, high)`; doc: what it does.
    names, defaults: its parameters and the values of those that may be left out.
    keywords: parameters that are given by name only (those after `*args`).
    rest, named: the names that collect further arguments, or None.
    run: `run(low, span, **arguments)` on staged values.
    functions: how many leading arguments are functions; with these alone, a Partial results.
    program: its first argument is a probabilistic program (see programs.py).
    """

    text: str
    doc: str
    name: str
    names: tuple[str, ...]
    defaults: dict[str, Staged]
    keywords: tuple[str, ...]
    rest: str | None
    named: str | None
    run: Callable[..., Staged]
    functions: int
    program: bool = False

    def call(
        self, low: Lowering, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """Apply to staged arguments; CallMistake where they do not fit the signature."""
        partial = len(args) == self.functions and all(map(is_function, args))
        if self.functions and partial and (self.rest or len(args) < len(self.names)):
            return Partial(self.name, tuple(args), named)
        return self.complete(low, args, named, span)

    def complete(
        self, low: Lowering, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """Apply to all arguments there will be."""
        return self.run(low, span, **self.bind(args, named, span))

    def bind(self, args: Sequence[Staged], named: dict[str, Staged], span: Span) -> dict[str, Any]:
        """Arguments by name."""
        bound: dict[str, Any] = dict(zip(self.names, args))
        rest = tuple(args[len(self.names) :])
        known = {*self.names[len(args) :], *self.keywords}
        unknown = {k: v for k, v in named.items() if k not in known}
        missing = [n for n in self.names[len(args) :] if n not in named and n not in self.defaults]
        if (rest and self.rest is None) or (unknown and self.named is None) or missing:
            raise CallMistake(
                f"'{self.name}' does not take these arguments",
                span,
                expected=self.text,
                found=_given(args, named, missing),
                hint=self.doc.splitlines()[0],
            )
        bound |= {n: named.get(n, self.defaults.get(n, NONE)) for n in known}
        if self.rest:
            bound[self.rest] = rest
        if self.named:
            bound[self.named] = unknown
        return bound


def _given(args: Sequence[Staged], named: dict[str, Staged], missing: list[str]) -> str:
    parts = [describe(a) for a in args] + [f"{k}={describe(v)}" for k, v in named.items()]
    found = ", ".join(parts) or "no arguments"
    return f"{found}, without {', '.join(missing)}" if missing else found


BUILTINS: dict[str, BuiltinFunction] = {}


def builtin(
    signature: str, doc: str = "", *, functions: int = 0, program: bool = False
) -> Callable[[Any], Any]:
    """Declare a builtin by its signature, `uniform(key, shape=(), low=0.0, high=1.0)`.

    The decorated `run(low, span, ...)` gets staged values under the signature's names. Its
    docstring is the documentation unless `doc` is given.
    """
    name, _, _ = signature.partition("(")
    tree = ast.parse(f"def {signature}: pass").body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments = tree.args
    names = tuple(a.arg for a in arguments.args)
    keywords = tuple(a.arg for a in arguments.kwonlyargs)
    given = [*zip(reversed(names), reversed(arguments.defaults))]
    given += [(k, d) for k, d in zip(keywords, arguments.kw_defaults) if d is not None]
    defaults = {n: _static(ast.literal_eval(d)) for n, d in given}

    def add(run: Callable[..., Staged]) -> Callable[..., Staged]:
        BUILTINS[name] = BuiltinFunction(
            _spelled(signature),
            doc or (run.__doc__ or "").strip(),
            name,
            names,
            defaults,
            keywords,
            arguments.vararg.arg if arguments.vararg else None,
            arguments.kwarg.arg if arguments.kwarg else None,
            run,
            functions,
            program,
        )
        return run

    return add


def _static(value: Any) -> Staged:
    return Tuple(tuple(map(_static, value))) if isinstance(value, tuple) else Static(value)


def _spelled(signature: str) -> str:
    """A signature in the language's own spelling of its literals."""
    return signature.replace("True", "true").replace("False", "false")


MODULES = (
    "math",
    "reduce",
    "make",
    "shape",
    "linalg",
    "derivatives",
    "functional",
    "random",
    "programs",
    "shapes",
    "trees",
)
for _module in MODULES:
    importlib.import_module(f".builtins_{_module}", __package__)

BUILTIN_NAMES = frozenset({*BUILTINS, *CONSTANTS})
