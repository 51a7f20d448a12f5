"""`@jvp(rule)` and `@vjp(forward, backward)`: a function's own derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.core import Block, Value
from ..ir.span import Span
from ..ir.types import TensorType
from . import syntax as s
from .values import Staged, Tuple, TypeMistake, UserFunction, describe, rebuild, tensors

if TYPE_CHECKING:
    from .program import SourceModule
    from .session import Session


def rules_of(
    session: Session,
    decl: s.FunctionDecl,
    module: SourceModule,
    bound: dict[str, Staged],
    span: Span,
) -> dict[str, str]:
    """The `jvp`, or `fwd` and `bwd`, attributes of a call of `decl` at these arguments.

    `@jvp(rule)`: rule(arguments..., tangents...) -> (value, tangent of the value), with a
    tangent for every float argument. `@vjp(forward, backward)`: forward(arguments...) ->
    (value, residuals); backward(residuals, cotangent) -> a tuple of cotangents, one for every
    float argument.
    """
    decorator = decl.decorators[0]
    assert isinstance(decorator.function, s.Name)
    functions = [_function(module, a.value) for a in decorator.arguments]
    if decorator.function.name == "jvp":
        if len(functions) != 1:
            raise TypeMistake("@jvp takes one function", decorator.span)
        return {"jvp": _jvp_rule(session, functions[0], bound, span)}
    if len(functions) != 2:
        raise TypeMistake("@vjp takes two functions", decorator.span)
    return _vjp_rules(session, functions[0], functions[1], bound, span)


def _function(module: SourceModule, expr: s.Expr) -> UserFunction:
    found = module.function(expr.name) if isinstance(expr, s.Name) else None
    if found is None:
        raise TypeMistake("a derivative rule is a function of this file", expr.span)
    return UserFunction(found, module)


def _lower(
    session: Session, f: UserFunction, args: list[Staged], span: Span
) -> tuple[Block, Staged]:
    """A block that calls `f`: its parameters are the tensors of `args`."""
    from .lower import Lowering

    block = Block()
    staged = []
    for arg in args:
        params = [Value(t.type, t.value.name) for t in tensors(arg)]
        block.params += params
        staged.append(rebuild(arg, iter(params)))
    low = Lowering(session, f.module, {}, block)
    low.b.span = span
    result = low.a.materialise(low.apply(f, staged, {}, span), span)
    block.results = [t.value for t in tensors(result)]
    return block, result


def _add(session: Session, stem: str, block: Block, span: Span) -> str:
    from ..ir.core import Function

    name = session.module.fresh_name(stem)
    session.module.add(Function(name, block, span))
    return name


def _is_float(value: Staged) -> bool:
    return any(t.type.dtype.is_float for t in tensors(value))


def _jvp_rule(session: Session, f: UserFunction, bound: dict[str, Staged], span: Span) -> str:
    args = list(bound.values())
    block, result = _lower(session, f, [*args, *(a for a in args if _is_float(a))], span)
    if not isinstance(result, Tuple) or len(result.items) != 2:
        raise TypeMistake(
            "a jvp rule returns (value, tangent)", f.decl.span, found=describe(result)
        )
    return _add(session, f"{f.decl.name}_rule", block, span)


def _vjp_rules(
    session: Session, forward: UserFunction, backward: UserFunction, bound: dict[str, Staged], span: Span
) -> dict[str, str]:
    args = list(bound.values())
    block, result = _lower(session, forward, args, span)
    if not isinstance(result, Tuple) or len(result.items) != 2:
        raise TypeMistake(
            "a forward rule returns (value, residuals)", forward.decl.span, found=describe(result)
        )
    value, residuals = result.items
    back, cotangents = _lower(session, backward, [residuals, value], span)
    wanted = [t.type for a in args for t in tensors(a) if t.type.dtype.is_float]
    found = [t.type for t in tensors(cotangents)]
    if found != wanted:
        raise TypeMistake(
            "a backward rule returns a cotangent for every float argument",
            backward.decl.span,
            expected=_types(wanted),
            found=_types(found),
        )
    fwd = _add(session, f"{forward.decl.name}_rule", block, span)
    return {"fwd": fwd, "bwd": _add(session, f"{backward.decl.name}_rule", back, span)}


def _types(types: list[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


