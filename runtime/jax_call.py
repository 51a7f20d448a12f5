"""Calling a compiled function inside `jax.jit`, `jax.vmap` or `jax.grad`.

The function is lowered to JAX operations with a custom JVP: the derivative that wengert's
passes computed, lowered the same way. JAX transposes that for reverse mode. Functions that have
a derivative in reverse mode only (@vjp rules) get a custom VJP instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..backends.xla.lower import lower
from ..frontend import syntax
from ..ir.struct import RecordStruct, Struct, TupleStruct
from ..ir.types import KEY, TensorType
from ..passes.jvp import NotDifferentiable
from .binding import match_parameters
from .errors import CallError
from .requests import Request, float_leaves
from .values import as_fields, unflatten

if TYPE_CHECKING:
    from .function import CompiledFunction
    from .specialization import Specialization


def call_in_jax(function: CompiledFunction, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of `function` as traced JAX values."""
    values = match_parameters(function.decl, args, kwargs)
    static = {
        p.name for p in function.decl.parameters if isinstance(p.annotation, syntax.StaticType)
    }
    shadow = {n: v if n in static else _shadow(v) for n, v in values.items()}
    special = function._specialize(replace(function._bound((), shadow), arrays=()))
    params = special.lowered.params
    traced = [x for name, struct in params for x in _flatten(struct, values[name])]
    cast = [_cast(x, p.type) for x, p in zip(traced, special.lowered.module.main.params)]
    out = _differentiable(special)(*cast)
    return unflatten(special.lowered.result, iter(out), lambda x: x)


def _shadow(value: Any) -> Any:
    """Zeros of the shapes and dtypes of traced values, to find the signature."""
    fields = as_fields(value)
    if fields is not None:
        return {k: _shadow(v) for k, v in fields.items()}
    if isinstance(value, tuple):
        return tuple(_shadow(v) for v in value)
    if callable(value):
        return value  # a function given as an argument
    array = _as_jax(value)
    return np.zeros(array.shape, array.dtype)


def _flatten(struct: Struct, value: Any) -> list[Any]:
    """The arrays of `value` in the order of `struct`: JAX reorders the fields of dicts."""
    match struct:
        case TensorType():
            return [_as_jax(value)]
        case TupleStruct(items):
            return [x for s, v in zip(items, value, strict=True) for x in _flatten(s, v)]
        case RecordStruct(_, fields):
            given = as_fields(value)
            assert given is not None
            return [x for name, s in fields for x in _flatten(s, given[name])]


def _as_jax(value: Any) -> Any:
    """A JAX array; a typed key as its words."""
    if str(getattr(value, "dtype", "")).startswith("key<"):
        return jax.random.key_data(value)
    return jnp.asarray(value)


def _cast(x: Any, type: Any) -> Any:
    assert isinstance(type, TensorType)
    if type.dtype is KEY:
        return x
    if type.dtype.itemsize == 8 and not jax.config.read("jax_enable_x64"):
        raise CallError(
            f"a {type.dtype} program inside a JAX transformation needs JAX's 64-bit mode",
            hint='jax.config.update("jax_enable_x64", True)',
        )
    return x.astype(type.dtype.numpy)


def _differentiable(special: Specialization) -> Any:
    """The JAX function of a specialisation, made once."""
    cached = getattr(special, "_jax", None)
    if cached is None:
        primal = lower(special.module(Request()))
        wrt = tuple(name for name, s in special.lowered.params if float_leaves(s))
        try:
            cached = _with_jvp(special, primal, wrt)
        except NotDifferentiable:
            cached = _with_vjp(special, primal, wrt)
        special._jax = cached  # type: ignore[attr-defined]
    return cached


def _with_jvp(special: Specialization, primal: Any, wrt: tuple[str, ...]) -> Any:
    """`primal` with our forward derivative, which JAX can transpose."""
    tangent = None
    if wrt:
        tangent = lower(special.module(Request("jvp", wrt)), transposable=True)
    count = len(special.lowered.module.main.results)
    call = jax.custom_jvp(primal)

    @call.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        if tangent is None:
            out = primal(*primals)
            return out, tuple(_float0(x) for x in out)
        given = [t for t in tangents if getattr(t, "dtype", None) != jax.dtypes.float0]
        both = tangent(*primals, *given)
        derived = iter(both[count:])
        return both[:count], tuple(
            next(derived) if jnp.issubdtype(x.dtype, jnp.floating) else _float0(x)
            for x in both[:count]
        )

    return call


def _with_vjp(special: Specialization, primal: Any, wrt: tuple[str, ...]) -> Any:
    """`primal` with our reverse derivative: what functions with a @vjp rule have."""
    pullback: list[Any] = []  # lowered at first use: some functions have no derivative at all
    call = jax.custom_vjp(primal)

    def forward(*args: Any) -> Any:
        return primal(*args), args

    def backward(args: Any, cotangents: Any) -> Any:
        if not pullback:
            pullback.append(lower(special.module(Request("vjp", wrt)), transposable=True))
        given = [c for c in cotangents if c.dtype != jax.dtypes.float0]
        derived = iter(pullback[0](*args, *given))
        return tuple(
            next(derived) if jnp.issubdtype(x.dtype, jnp.floating) else _float0(x) for x in args
        )

    call.defvjp(forward, backward)
    return call


def _float0(x: Any) -> Any:
    return np.zeros(x.shape, jax.dtypes.float0)
