"""The table of builtin functions, filled by the `builtins_*` modules: one declaration each."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.span import Span
from .values import Partial, Staged, TypeMistake, is_function

CONSTANTS: dict[str, float] = {
    "pi": math.pi,
    "e": math.e,
    "inf": math.inf,
    "nan": math.nan,
    "None": None,  # type: ignore[dict-item]
}
REQUIRED = object()


@dataclass(frozen=True)
class ByKeyword:
    """A `wrt` given by keyword, told from the first argument of the function in `grad(f, x)`."""

    value: Any


@dataclass(frozen=True)
class BuiltinFunction:
    """A builtin: its signature as `(name, default or REQUIRED)` pairs, and what it does.

    run(low, span, **arguments) gets staged values; `rest` collects further positional ones
    where the signature ends with `*rest`.
    """

    name: str
    doc: str
    signature: tuple[tuple[str, Any], ...]
    variadic: bool
    run: Callable[..., Staged]
    functions: int = 0  # leading function arguments; with only those given, a Partial results

    def call(
        self, low: Any, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """Apply to staged arguments."""
        if self.functions and len(args) == self.functions and all(map(is_function, args)):
            return Partial(self.name, tuple(args), named)
        return self.run(low, span, **self.bind(args, named, span))

    def apply(
        self,
        low: Any,
        functions: Sequence[Staged],
        args: Sequence[Staged],
        named: dict[str, Staged],
        span: Span,
    ) -> Staged:
        """Apply a partial application to its remaining arguments."""
        return self.run(low, span, **self.bind([*functions, *args], named, span))

    def bind(
        self, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> dict[str, Any]:
        """Arguments by name, or TypeMistake."""
        names = [n for n, _ in self.signature]
        bound: dict[str, Any] = dict(zip(names, args))
        extra = list(args[len(names) :])
        unknown = [n for n in named if n not in names or n in bound]
        missing = [n for n, d in self.signature if d is REQUIRED and n not in bound and n not in named]
        if (extra and not self.variadic) or unknown or missing:
            found = f"without {missing[0]}" if missing else f"'{unknown[0]}'" if unknown else f"{len(args)} arguments"
            raise TypeMistake(
                f"'{self.name}' does not take these arguments", span, expected=self.text(), found=found
            )
        for name, default in self.signature:
            if name == "wrt" and name in named:
                bound[name] = ByKeyword(named[name])
            bound.setdefault(name, named.get(name, default))
        if self.variadic:
            bound["rest"] = extra
        return bound

    def text(self) -> str:
        """The signature for people."""
        parts = [n if d is REQUIRED else f"{n}={_show(d)}" for n, d in self.signature]
        return f"{self.name}({', '.join([*parts, *(['...'] if self.variadic else [])])})"


def _show(default: Any) -> str:
    return str(getattr(default, "value", default)).lower() if default is not None else "None"


BUILTINS: dict[str, BuiltinFunction] = {}


def builtin(name: str, *signature: Any, variadic: bool = False, functions: int = 0) -> Callable[[Any], Any]:
    """Declare a builtin; `signature` items are names, or (name, default) pairs."""
    pairs = tuple((p, REQUIRED) if isinstance(p, str) else p for p in signature)

    def add(run: Callable[..., Staged]) -> Callable[..., Staged]:
        doc = (run.__doc__ or "").strip()
        BUILTINS[name] = BuiltinFunction(name, doc, pairs, variadic, run, functions)
        return run

    return add


for _module in ("math", "arrays", "linalg", "functional", "random"):
    importlib.import_module(f".builtins_{_module}", __package__)

BUILTIN_NAMES = frozenset({*BUILTINS, *CONSTANTS})
