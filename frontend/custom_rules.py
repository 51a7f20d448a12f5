"""`@jvp(rule)` and `@vjp(forward, backward)`: a function's own derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..ir.builder import Builder
from ..ir.clone import clone_block
from ..ir.core import Block, Function
from ..ir.span import Span
from ..ir.types import TensorType
from . import syntax as s
from .type_errors import DerivativeMistake
from .values import Staged, Tuple, UserFunction, describe, named_params, rebuild, tensors

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule


def rules_of(
    low: Lowering,
    function: UserFunction,
    bound: dict[str, Staged],
    result: Staged,
    key: Any,
    span: Span,
) -> dict[str, str]:
    """The `jvp`, or `fwd` and `bwd`, attributes of a call of `function` at these arguments.

    `@jvp(rule)`: rule(arguments..., tangents...) -> (value, tangent of the value), with a
    tangent for every argument that has floats. `@vjp(forward, backward)`: forward(arguments...)
    -> (value, residuals); backward(residuals, cotangent) -> the cotangent of the one argument
    that has floats, or a tuple with one for each of several. Rules are lowered once a
    specialisation, named by `key`; their names stand before, so that a rule may call the
    function itself.
    """
    session = low.session
    if key not in session.rules:
        rules = _rules(function)
        names = {}
        for kind, f in rules.items():
            names[kind] = session.module.fresh_name(f"{f.decl.name}_rule")
            session.module.functions[names[kind]] = Function(names[kind], Block())
        session.rules[key] = names
        args = list(bound.values())
        if "jvp" in rules:
            blocks = {"jvp": _jvp_rule(low, rules["jvp"], args, result, span)}
        else:
            blocks = _vjp_rules(low, rules["fwd"], rules["bwd"], args, result, span)
        for kind, block in blocks.items():
            session.module.functions[names[kind]] = Function(names[kind], block, span)
    return session.rules[key]


def _rules(function: UserFunction) -> dict[str, UserFunction]:
    """The functions that the decorator names, by kind."""
    decorator = function.decl.decorators[0]
    assert isinstance(decorator.function, s.Name)
    functions = [_function(function.module, a.value) for a in decorator.arguments]
    kinds = ("jvp",) if decorator.function.name == "jvp" else ("fwd", "bwd")
    if len(functions) != len(kinds) or len(function.decl.decorators) != 1:
        raise DerivativeMistake(
            f"'{function.decl.name}' needs one derivative rule",
            decorator.span,
            expected="@jvp(rule) or @vjp(forward, backward)",
        )
    return dict(zip(kinds, functions))


def _function(module: SourceModule, expr: s.Expr) -> UserFunction:
    found = module.function(expr.name) if isinstance(expr, s.Name) else None
    if found is None:
        raise DerivativeMistake("a derivative rule is a function of this file", expr.span)
    return UserFunction(found, module)


def _lower(
    low: Lowering, f: UserFunction, args: Sequence[Staged], span: Span
) -> tuple[Block, Staged]:
    """A block that calls `f`: its parameters are the tensors of `args`."""
    block = Block()
    staged = []
    for arg, p in zip(args, f.decl.parameters):
        params = named_params(p.name, arg)
        block.params += params
        staged.append(rebuild(arg, iter(params)))
    if len(args) != len(f.decl.parameters):
        raise DerivativeMistake(
            f"the rule '{f.decl.name}' is given {len(args)} arguments",
            f.decl.span,
            expected=", ".join(describe(a) for a in args),
            found=f"{len(f.decl.parameters)} parameters",
        )
    inner = low.elsewhere(f.module, {}, block)
    inner.b.span = span
    result = inner.a.materialise(inner.apply(f, staged, {}, span), span)
    block.results = [t.value for t in tensors(result)]
    return block, result


def _floats(value: Staged) -> list[TensorType]:
    return [t.type for t in tensors(value) if t.type.dtype.is_float]


def _pair(f: UserFunction, result: Staged, what: str) -> tuple[Staged, Staged]:
    if isinstance(result, Tuple) and len(result.items) == 2:
        return result.items[0], result.items[1]
    found = describe(result)
    raise DerivativeMistake(f"'{f.decl.name}' must return {what}", f.decl.span, found=found)


def _same_types(
    f: UserFunction, what: str, found: Sequence[TensorType], wanted: Sequence[TensorType]
) -> None:
    """Raise DerivativeMistake unless what a rule returns has the types that it must have."""
    if list(found) != list(wanted):
        raise DerivativeMistake(
            f"{what} of '{f.decl.name}' has the wrong type",
            f.decl.span,
            expected=", ".join(map(str, wanted)) or "nothing",
            found=", ".join(map(str, found)) or "nothing",
        )


def _jvp_rule(
    low: Lowering, f: UserFunction, args: list[Staged], result: Staged, span: Span
) -> Block:
    block, given = _lower(low, f, [*args, *(a for a in args if _floats(a))], span)
    value, tangent = _pair(f, given, "(value, tangent)")
    wanted = [t.type for t in tensors(result)]
    _same_types(f, "the value", [t.type for t in tensors(value)], wanted)
    _same_types(f, "the tangent", _floats(tangent), _floats(result))
    values = [t.value for t in tensors(value)]
    block.results = [*values, *(t.value for t in tensors(tangent) if t.type.dtype.is_float)]
    return _float_tangents(block, args)


def _float_tangents(block: Block, args: list[Staged]) -> Block:
    """A jvp rule without tangents of integers in records: the integers stand for them."""
    params = iter(block.params)
    primal = [[next(params) for _ in tensors(a)] for a in args]
    twins = [p for ps, a in zip(primal, args) if _floats(a) for p in ps]
    tangents = dict(zip(params, twins, strict=True))
    env = {t: p for t, p in tangents.items() if not Builder.type(t).dtype.is_float}
    if not env:
        return block
    out = clone_block(Block([], block.ops, block.results), env)
    out.params = [p for p in block.params if p not in env]
    return out


def _vjp_rules(
    low: Lowering,
    forward: UserFunction,
    backward: UserFunction,
    args: list[Staged],
    result: Staged,
    span: Span,
) -> dict[str, Block]:
    block, given = _lower(low, forward, args, span)
    value, residuals = _pair(forward, given, "(value, residuals)")
    wanted = [t.type for t in tensors(result)]
    _same_types(forward, "the value", [t.type for t in tensors(value)], wanted)
    back, cotangents = _lower(low, backward, [residuals, value], span)
    _same_types(
        backward,
        "the result (a cotangent for every float argument)",
        [t.type for t in tensors(cotangents)],
        [t for a in args for t in _floats(a)],
    )
    return {"fwd": block, "bwd": _float_cotangents(back, residuals, value, span)}


def _float_cotangents(block: Block, residuals: Staged, value: Staged, span: Span) -> Block:
    """A backward rule without cotangents of integers: zeros stand for them."""
    first = len(list(tensors(residuals)))
    wide = [p for p, t in zip(block.params[first:], tensors(value)) if not t.type.dtype.is_float]
    if not wide:
        return block
    front = Builder(Block(), span)
    env = {p: front.zeros(p) for p in wide}
    out = clone_block(Block([], block.ops, block.results), env)
    out.params = [p for p in block.params if p not in env]
    out.ops = front.block.ops + out.ops
    return out
