"""A function of a program, for given argument types, as typed IR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..ir.core import Block, Function, Module, Value
from ..ir.errors import WengertError
from ..ir.struct import Struct
from ..ir.types import F32, DType
from .calls import call_declared
from .lower import Lowering
from .program import Program
from .scopes import first_return
from .session import Session, TooManyErrors
from .signatures import bind, coerce_arguments
from .stack import deep_stack
from .trees import TreeOptions, decoded
from .type_errors import Poisoned
from .values import Staged, Tree, UserFunction, from_struct, named_params, tensors, to_struct
from .values import Static as StagedStatic


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
    trees: which of its tensors are trees: the fillers of all places.
    """

    module: Module
    params: tuple[tuple[str, Struct], ...]
    result: Struct
    trees: frozenset[int] = frozenset()


def specialize(
    program: Program,
    name: str,
    args: Mapping[str, Arg],
    real: DType = F32,
    trees: TreeOptions | None = None,
) -> Lowered:
    """Lower function `name` for `args`: every type and size is checked here.

    Parameters with defaults may be left out. `real` is the default float type, `trees` says how
    trees are encoded: where one is declared, its labels and places are given. Raises a Mistake
    (`type_errors.py`), or an ErrorGroup of several.
    """
    session = Session(real, trees)
    function = UserFunction(program.functions[name], program.main)
    params = tuple((n, a) for n, a in args.items() if not isinstance(a, Static))
    found: tuple[Staged, frozenset[int]] | None = None
    with deep_stack():
        try:
            found = _entry(session, function, args)
        except (Poisoned, TooManyErrors):
            pass
        except WengertError as error:
            session.errors.append(error)
    session.finish()
    assert found is not None
    session.prune()
    return Lowered(session.module, params, to_struct(found[0]), found[1])


def _entry(
    session: Session, function: UserFunction, args: Mapping[str, Arg]
) -> tuple[Staged, frozenset[int]]:
    """Lower the entry function: its parameters are the tensors of the run-time arguments.

    Defaults and converted arguments are computed inside it. Gives the result and the numbers of
    those of its tensors that are trees, decoded.
    """
    decl, block = function.decl, Block()
    staged: dict[str, Staged] = {}
    for key, arg in args.items():
        if isinstance(arg, Static):
            staged[key] = _static(arg)
        else:
            shaped = from_struct(arg, _types(arg))
            values = named_params(key, shaped)
            block.params += values
            staged[key] = from_struct(arg, iter(values))
    name = session.module.fresh_name(decl.name)
    session.module.add(Function(name, block, decl.span))
    session.module.entry = name
    low = Lowering(session, function.module, {}, block)
    low.b.span = decl.span
    if decl.decorators:  # a call, so that the function's own derivative is kept
        result = call_declared(low, function, [], staged, decl.span)
    else:
        home, parameters = function.module, decl.parameters
        bound = bind(low, decl.name, parameters, [], staged, decl.span, home)
        bound = coerce_arguments(low, parameters, home, bound, decl.span)
        with session.entering(object(), decl.name, None):
            result = session.run_body(function, bound, block)
    last = first_return(decl.body)
    result = low.a.materialise(result, last.value.span if last else decl.span)
    trees = frozenset(i for i, v in enumerate(tensors(result)) if isinstance(v, Tree))
    result = decoded(low, result)
    block.results = [t.value for t in tensors(result)]
    return result, trees


def _types(struct: Struct) -> Iterator[Value]:
    """Values of the leaves' types, to build a pattern from."""
    from ..ir.struct import leaves

    return iter([Value(t) for _, t in leaves(struct)])


def _static(arg: Static) -> Staged:
    if isinstance(arg.value, FunctionRef):
        ref = arg.value
        return UserFunction(ref.program.functions[ref.name], ref.program.main)
    return StagedStatic(arg.value)
