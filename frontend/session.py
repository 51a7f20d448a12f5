"""What all functions of one specialisation share: the module being built, errors, caches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.core import Block, Function, Module, walk
from ..ir.errors import ErrorGroup, WengertError
from ..ir.opdef import symbols
from ..ir.span import Span
from ..ir.types import DTYPES, DType, TensorType
from . import syntax as s
from .draws import Draws
from .lower import Lowering
from .signatures import Sizes, annotated
from .type_errors import Mistake, Poisoned, RecursionMistake, TypeMistake
from .values import (
    Dist,
    DistributionType,
    ModuleRef,
    RecordType,
    Staged,
    Static,
    ToolType,
    Unbound,
    UserFunction,
    key_of,
    named_params,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .program import SourceModule
    from .trees import TreeOptions

DEEPEST_CALLS = 500
MOST_ERRORS = 20


class TooManyErrors(Exception):
    """Enough was found: lowering stops."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A function being lowered: what it is, and the place of the call (None: from outside)."""

    key: Any
    name: str
    span: Span | None


class Session:
    """One `specialize` call."""

    def __init__(self, real: DType, trees: TreeOptions | None = None) -> None:
        self.real = real
        self.trees = trees
        self.module = Module()
        self.errors: list[WengertError] = []
        self.cache: dict[Any, tuple[str, Staged] | None] = {}
        self.rules: dict[Any, dict[str, str]] = {}
        self.outlined: dict[Any, Any] = {}  # functions of distributions, see distributions.py
        self.chosen: dict[str, list[TensorType]] = {}  # what strategies pass on, by their name
        self.dists: dict[str, Dist] = {}  # what samplers draw from, by their name
        self.stack: list[Frame] = []
        self.constants: dict[tuple[str, str], Static] = {}

    def dtype(self, name: str) -> DType:
        """The dtype that a type name stands for."""
        return self.real if name == "real" else DTYPES[name]

    # Errors

    def report(self, error: WengertError) -> None:
        """Keep an error, with the calls around it, and go on; a repeated one is dropped."""
        if isinstance(error, Mistake) and not error.calls:
            error.calls = tuple(f.span for f in reversed(self.stack) if f.span is not None)
        if not any(e.span == error.span and e.summary == error.summary for e in self.errors):
            self.errors.append(error)
        if len(self.errors) >= MOST_ERRORS:
            raise TooManyErrors

    def finish(self) -> None:
        """Raise what was reported: one error, or an ErrorGroup."""
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else ErrorGroup(self.errors)

    @contextmanager
    def entering(self, key: Any, name: str, span: Span | None) -> Iterator[None]:
        """Note a function being lowered; raise where it is inside itself for good."""
        endless = any(f.key == key for f in self.stack)
        if endless or len(self.stack) >= DEEPEST_CALLS:
            chain = [f.name for f in self.stack][-4:]
            raise RecursionMistake(
                f"'{name}' calls itself without end"
                if endless
                else f"calls nest deeper than {DEEPEST_CALLS}",
                span,
                found=" -> ".join([*(["..."] if len(self.stack) > 4 else []), *chain, name]),
                hint="recursion must shrink a static argument; use a loop for run-time counts",
            )
        self.stack.append(Frame(key, name, span))
        try:
            yield
        except RecursionError:
            raise RecursionMistake(f"'{name}' nests too deeply to compile", span) from None
        except Mistake as error:
            if not error.calls:
                error.calls = tuple(f.span for f in reversed(self.stack) if f.span is not None)
            raise
        finally:
            self.stack.pop()

    # Declarations

    def declared(self, low: Lowering, module: SourceModule, decl: s.Decl, span: Span) -> Staged:
        """What a top-level declaration denotes."""
        match decl:
            case s.FunctionDecl():
                return UserFunction(decl, module)
            case s.RecordDecl():
                return RecordType(decl, module)
            case s.DistributionDecl():
                return DistributionType(decl, module)
            case s.ShapeTool():
                return ToolType(decl, module)
            case s.ImportDecl():
                return ModuleRef(module.imports[decl.name])
            case s.ConstDecl():
                return self._constant(low, module, decl, span)
        raise TypeMistake(f"'{decl.name}' has no value", span)

    def _constant(
        self, low: Lowering, module: SourceModule, decl: s.ConstDecl, span: Span
    ) -> Staged:
        """The value of a constant; array ones are computed where they are used."""
        key = (module.path, decl.name)
        if key in self.constants:
            return self.constants[key]
        with self.entering(("const", *key), decl.name, span):
            inner = low.elsewhere(module, {})
            value = inner.expr(decl.value)
            if decl.annotation is not None:
                value = annotated(inner, value, decl.annotation, {}, decl.name, decl.span)
        if isinstance(value, Static):
            self.constants[key] = value
        return value

    # Functions

    def specialised(
        self, function: UserFunction, bound: dict[str, Staged], key: Any, span: Span
    ) -> tuple[str, Staged] | None:
        """(IR function name, pattern of its result) for these arguments, made once.

        The pattern may hold static parts. None: the result holds a closure, so that the body
        must be lowered where it is called. Raises Poisoned where it failed before.
        """
        if key in self.cache:
            found = self.cache[key]
            if found is not None and isinstance(found[1], Unbound):
                raise Poisoned
            return found
        decl = function.decl
        with self.entering(key, decl.name, span):
            name = self.module.fresh_name(decl.name)
            self.module.functions[name] = Function(name, Block())  # holds the name meanwhile
            block = Block()
            env: dict[str, Staged] = {}
            for p in decl.parameters:
                params = named_params(p.name, bound[p.name])
                block.params += params
                env[p.name] = rebuild(bound[p.name], iter(params))
            try:
                result = self.run_body(function, env, block)
            except (Poisoned, WengertError):
                self.cache[key] = (name, Unbound())  # later calls are silent
                raise
        if has_closure(result):
            del self.module.functions[name]
            self.cache[key] = None
            return None
        block.results = [t.value for t in tensors(result)]
        self.module.functions[name] = Function(name, block, decl.span)
        self.cache[key] = (name, result)
        return name, result

    def run_body(self, function: UserFunction, env: dict[str, Staged], block: Block) -> Staged:
        """Lower a function body over `env` (its sizes are added) and check its result."""
        decl = function.decl
        low = Lowering(self, function.module, env, block)
        low.b.span = decl.span
        if decl.kind in s.PROGRAM_KINDS:
            low.kind = decl.kind
            low.draws = Draws(low.a.tensor(env["key"], decl.span))
        Sizes(low, decl.name, {}).parameters(decl.parameters, env)
        known = dict(env)
        result = low.returned(decl.body, decl.name, decl.span)
        low.b.span = decl.span
        if decl.result is not None:
            known = {n: v for n, v in known.items() if isinstance(v, Static)}
            span = decl.result.span
            result = annotated(low, result, decl.result, known, f"the result of {decl.name}", span)
        return result

    def prune(self) -> None:
        """Drop functions that the entry does not reach."""
        kept: set[str] = set()
        pending = [self.module.entry]
        while pending:
            name = pending.pop()
            if name not in kept:
                kept.add(name)
                ops = walk(self.module.functions[name].body)
                pending += [callee for op in ops for callee in symbols(op)]
        functions = self.module.functions
        self.module.functions = {n: f for n, f in functions.items() if n in kept}


def has_closure(value: Staged) -> bool:
    """Whether `value` holds functions that need the values of the body they were made in."""
    return key_of(value) is None
