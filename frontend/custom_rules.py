"""`@jvp(rule)` and `@vjp(forward, backward)`: a function's own derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.core import Block, Function, Value
from ..ir.span import Span
from ..ir.types import TensorType
from . import syntax as s
from .values import Staged, Tuple, TypeMistake, UserFunction, describe, rebuild, tensors

if TYPE_CHECKING:
    from .program import SourceModule
    from .session import Session


def reserve_rules(
    session: Session, decl: s.FunctionDecl, module: SourceModule
) -> dict[str, str]:
    """Fresh IR names for the rules of `decl`: `jvp`, or `fwd` and `bwd`."""
    names = {}
    for kind, f in _rules(decl, module).items():
        names[kind] = session.module.fresh_name(f"{f.decl.name}_rule")
        session.module.functions[names[kind]] = Function(names[kind], Block())
    return names


def lower_rules(
    session: Session,
    decl: s.FunctionDecl,
    module: SourceModule,
    bound: dict[str, Staged],
    names: dict[str, str],
    span: Span,
) -> None:
    """Lower the rules of `decl` at these arguments under the reserved names.

    `@jvp(rule)`: rule(arguments..., tangents...) -> (value, tangent of the value), with a
    tangent for every float argument. `@vjp(forward, backward)`: forward(arguments...) ->
    (value, residuals); backward(residuals, cotangent) -> a tuple of cotangents, one for every
    float argument.
    """
    rules = _rules(decl, module)
    if "jvp" in rules:
        blocks = {"jvp": _jvp_rule(session, rules["jvp"], bound, span)}
    else:
        forward, backward = _vjp_rules(session, rules["fwd"], rules["bwd"], bound, span)
        blocks = {"fwd": forward, "bwd": backward}
    for kind, block in blocks.items():
        session.module.functions[names[kind]] = Function(names[kind], block, span)


def _rules(decl: s.FunctionDecl, module: SourceModule) -> dict[str, UserFunction]:
    """The functions that the decorator names, by kind."""
    decorator = decl.decorators[0]
    assert isinstance(decorator.function, s.Name)
    kinds = ("jvp",) if decorator.function.name == "jvp" else ("fwd", "bwd")
    functions = [_function(module, a.value) for a in decorator.arguments]
    if len(functions) != len(kinds):
        need = "one function" if len(kinds) == 1 else "two functions"
        raise TypeMistake(f"@{decorator.function.name} takes {need}", decorator.span)
    return dict(zip(kinds, functions))


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


def _is_float(value: Staged) -> bool:
    return any(t.type.dtype.is_float for t in tensors(value))


def _jvp_rule(session: Session, f: UserFunction, bound: dict[str, Staged], span: Span) -> Block:
    args = list(bound.values())
    block, result = _lower(session, f, [*args, *(a for a in args if _is_float(a))], span)
    if not isinstance(result, Tuple) or len(result.items) != 2:
        raise TypeMistake(
            "a jvp rule returns (value, tangent)", f.decl.span, found=describe(result)
        )
    value, tangent = (_float_types(x) for x in result.items)
    if tangent != value:
        raise TypeMistake(
            "the tangent that a jvp rule returns must be like its value",
            f.decl.span,
            expected=_types(value),
            found=_types(tangent),
        )
    return block


def _vjp_rules(
    session: Session,
    forward: UserFunction,
    backward: UserFunction,
    bound: dict[str, Staged],
    span: Span,
) -> tuple[Block, Block]:
    args = list(bound.values())
    block, result = _lower(session, forward, args, span)
    if not isinstance(result, Tuple) or len(result.items) != 2:
        raise TypeMistake(
            "a forward rule returns (value, residuals)", forward.decl.span, found=describe(result)
        )
    value, residuals = result.items
    back, cotangents = _lower(session, backward, [residuals, value], span)
    wanted = [t for a in args for t in _float_types(a)]
    found = [t.type for t in tensors(cotangents)]
    if found != wanted:
        raise TypeMistake(
            "a backward rule returns a cotangent for every float argument",
            backward.decl.span,
            expected=_types(wanted),
            found=_types(found),
        )
    return block, back


def _float_types(value: Staged) -> list[TensorType]:
    return [t.type for t in tensors(value) if t.type.dtype.is_float]


def _types(types: list[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


