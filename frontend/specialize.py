"""A function of a program, for given argument types, as typed IR."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..ir.core import Block, Function, Module, Value
from ..ir.struct import Struct, leaves
from ..ir.types import F32, DType
from . import syntax as s
from .lower import Lowering
from .program import Program
from .session import Session
from .values import Staged, UserFunction, from_struct, tensors, to_struct
from .values import Static as StagedStatic

STACK = 20_000  # Python frames: deep static recursion in a program nests the lowering


@dataclass(frozen=True)
class Static:
    """A compile-time argument: a number, bool, string, or a FunctionRef."""

    value: Any


@dataclass(frozen=True)
class FunctionRef:
    """A function of a program, as an argument."""

    program: Program
    name: str


Arg = Struct | Static


@dataclass(frozen=True)
class Lowered:
    """A specialised function.

    module: its IR; the entry takes the tensors of `params` in order.
    params: the run-time parameters with their structures.
    result: the structure of what it returns.
    """

    module: Module
    params: tuple[tuple[str, Struct], ...]
    result: Struct


def specialize(
    program: Program, name: str, args: Mapping[str, Arg], real: DType = F32
) -> Lowered:
    """Lower function `name` for `args`: every type and size is checked here.

    Parameters with defaults may be left out. Raises TypeMistake and its kin.
    """
    decl = program.functions[name]
    session = Session(real)
    params = tuple((n, a) for n, a in args.items() if not isinstance(a, Static))
    # Arguments arrive through a scratch block, so that checks are those of any call.
    block = Block([Value(t, n) for n, p in params for _, t in leaves(p)])
    low = Lowering(session, program.main, {}, block)
    low.b.span = decl.span
    values = iter(block.params)
    staged: dict[str, Staged] = {}
    for key, arg in args.items():
        staged[key] = _static(arg) if isinstance(arg, Static) else from_struct(arg, values)
    with _deep_stack():
        if decl.decorators:
            entry, result = _calling(session, low, decl, program, staged)
            session.module.entry = entry
            return Lowered(session.module, params, to_struct(result))
        bound = session.bind(low, decl.name, decl.parameters, [], staged, decl.span, program.main)
        bound = session.coerce_arguments(low, decl, program.main, bound, decl.span)
        entry, result = session.specialised(decl, program.main, bound, object(), decl.span)
    defaulted = [n for n in bound if n not in args and list(tensors(bound[n]))]
    if defaulted:
        _bake_defaults(session, low, entry, bound, set(defaulted))
    session.module.entry = entry
    return Lowered(session.module, params, to_struct(result))


def _calling(
    session: Session,
    low: Lowering,
    decl: s.FunctionDecl,
    program: Program,
    staged: dict[str, Staged],
) -> tuple[str, Staged]:
    """A function that calls `decl`, whose own derivative rules a call carries."""
    result = session.call_declared(low, decl, program.main, [], staged, decl.span)
    low.b.block.results = [t.value for t in tensors(result)]
    name = session.module.fresh_name(decl.name)
    session.module.add(Function(name, low.b.block, decl.span))
    return name, result


def _bake_defaults(
    session: Session, low: Lowering, entry: str, bound: dict[str, Staged], defaulted: set[str]
) -> None:
    """Compute defaulted run-time arguments inside the entry instead of taking them."""
    from ..ir.clone import clone_into

    inner = session.module.functions[entry]
    args = [t.value for v in bound.values() for t in tensors(v)]
    results = clone_into(low.b, inner.body, args, {})
    low.b.block.results = results
    session.module.add(Function(entry, low.b.block, inner.span))


def _static(arg: Static) -> Staged:
    if isinstance(arg.value, FunctionRef):
        ref = arg.value
        return UserFunction(ref.program.functions[ref.name], ref.program.main)
    return StagedStatic(arg.value)


@contextmanager
def _deep_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, STACK))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


