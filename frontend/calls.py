"""Calls: of declared functions, closures, builtins, record types, partial applications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.span import Span
from ..ir.types import DTYPES
from . import distributions, programs, strategies
from . import syntax as s
from .builtin_table import BUILTINS
from .builtins_derivatives import pull_back
from .custom_rules import rules_of
from .signatures import Sizes, annotated, bind, coerce_arguments, make_record
from .type_errors import CallMistake, DerivativeMistake
from .values import (
    Builtin,
    Closure,
    DistributionType,
    Method,
    Partial,
    Pullback,
    RecordType,
    Rest,
    Staged,
    Static,
    UserFunction,
    describe,
    key_of,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering


def apply(
    low: Lowering,
    function: Staged,
    args: Sequence[Staged],
    named: dict[str, Staged],
    span: Span,
) -> Staged:
    """`function(*args, **named)` on staged values."""
    match function:
        case UserFunction(decl) if decl.kind in programs.SUSPENDED:
            return programs.suspended(low, function, args, named, span)
        case UserFunction():
            return call_declared(low, function, args, named, span)
        case Closure():
            return call_closure(low, function, args, named, span)
        case RecordType(decl, module):
            bound = bind(low, decl.name, decl.fields, args, named, span, module)
            return make_record(low, decl, module, bound, span)
        case DistributionType():
            return distributions.make(low, function, args, named, span)
        case Method(dist, name):
            return distributions.call_method(low, dist, name, args, named, span)
        case Rest():
            return strategies.call_rest(low, function, args, span)
        case Partial(name, functions, options):
            every = [*functions, *args]
            return BUILTINS[name].complete(low, every, options | named, span)
        case Pullback():
            return pull_back(low, function, args, span)
        case Builtin(name) if (name in DTYPES or name == "real") and name != "key":
            if len(args) != 1 or named:
                raise CallMistake(f"'{name}' converts one value", span, expected=f"{name}(x)")
            return low.a.convert(args[0], low.session.dtype(name), span)
        case Builtin(name):
            return BUILTINS[name].call(low, args, named, span)
    raise CallMistake("this cannot be called", span, found=describe(function))


def call_declared(
    low: Lowering,
    function: UserFunction,
    args: Sequence[Staged],
    named: dict[str, Staged],
    span: Span,
) -> Staged:
    """Call a declared function: its specialisation for these arguments, made once.

    Closures among the arguments or in the result make its body part of the caller's.
    """
    decl, module, session = function.decl, function.module, low.session
    bound = bind(low, decl.name, decl.parameters, args, named, span, module)
    bound = coerce_arguments(low, decl.parameters, module, bound, span)
    keys = tuple(key_of(v) for v in bound.values())
    if None in keys:
        return inline(low, function, bound, span)
    key = (module.path, decl.name, keys)
    found = session.specialised(function, bound, key, span)
    if found is None:
        return inline(low, function, bound, span)
    name, pattern = found
    types = tuple(t.type for t in tensors(pattern))
    if not types:
        return pattern
    operands = [t.value for v in bound.values() for t in tensors(v)]
    rules = rules_of(low, function, bound, pattern, key, span) if decl.decorators else {}
    out = low.b.op("call", operands, (), (), fn=name, types=types, **rules)
    return rebuild(pattern, iter(out))


def inline(low: Lowering, function: UserFunction, bound: dict[str, Staged], span: Span) -> Staged:
    """Lower a function's body at the place of the call."""
    decl = function.decl
    if decl.decorators:
        raise DerivativeMistake(
            f"'{decl.name}' has a derivative rule, so it takes only declared functions",
            span,
            hint="declare the function that is passed at the top level",
        )
    with low.session.entering(object(), decl.name, span):
        result = low.session.run_body(function, dict(bound), low.b.block)
    low.b.span = span
    return result


def call_closure(
    low: Lowering, f: Closure, args: Sequence[Staged], named: dict[str, Staged], span: Span
) -> Staged:
    """Call a lambda or local function: its body is lowered in place."""
    bound = bind(low, f.name, f.parameters, args, named, span, f.module)
    bound = coerce_arguments(low, f.parameters, f.module, bound, span)
    inner = low.elsewhere(f.module, dict(f.env) | bound)
    with low.session.entering(object(), f.name, span):
        if isinstance(f.body, s.Expr):
            return inner.expr(f.body)
        Sizes(inner, f.name, {}).parameters(f.parameters, inner.env)
        known = {n: v for n, v in inner.env.items() if isinstance(v, Static)}
        result = inner.returned(f.body, f.name, f.span)
        if f.result is not None:
            what = f"the result of {f.name}"
            result = annotated(inner, result, f.result, known, what, f.result.span)
        return result
