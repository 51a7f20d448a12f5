"""A staged function as a function of the IR module, for ops that name functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.clone import clone_block
from ..ir.core import Block, Function, Value, free_values
from ..ir.span import Span
from .values import Builtin, Closure, Partial, Staged, UserFunction, named_params, rebuild, tensors

if TYPE_CHECKING:
    from .lower import Lowering


@dataclass(frozen=True, slots=True)
class Lifted:
    """An IR function: its parameters are the tensors of the arguments, then `captured`.

    result: the pattern of what it returns, made of tensors only.
    """

    name: str
    captured: list[Value]
    result: Staged


def lift(low: Lowering, function: Staged, args: Sequence[Staged], span: Span) -> Lifted:
    """An IR function that applies `function` to arguments like `args`.

    What the function uses of the blocks around it becomes extra parameters.
    """
    names = parameter_names(function)
    block = Block()
    staged = []
    for i, arg in enumerate(args):
        params = named_params(names[i] if i < len(names) else f"x{i}", arg)
        block.params += params
        staged.append(rebuild(arg, iter(params)))
    inner = low.elsewhere(low.module, {}, block)
    inner.b.span = span
    result = inner.a.materialise(inner.apply(function, staged, {}, span), span)
    block.results = [t.value for t in tensors(result)]
    captured = free_values(block)
    fresh = [Value(v.type, v.name) for v in captured]
    if captured:
        block = clone_block(block, dict(zip(captured, fresh)))
        block.params += fresh
    name = low.session.module.fresh_name(stem(function))
    low.session.module.add(Function(name, block, span))
    return Lifted(name, captured, result)


def parameter_names(function: Staged) -> list[str]:
    """The names of a function's parameters, where they are known."""
    match function:
        case UserFunction(decl, _):
            return [p.name for p in decl.parameters]
        case Closure(_, parameters):
            return [p.name for p in parameters]
    return []


def stem(function: Staged) -> str:
    """A name for the IR function of a staged one."""
    match function:
        case UserFunction(decl, _):
            return f"{decl.name}_at"
        case Closure(name):
            return name
        case Builtin(name):
            return name
        case Partial(name, functions):
            return f"{name}_{stem(functions[0])}"
    return "function"
