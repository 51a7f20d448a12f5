"""Calling a compiled function inside `jax.jit`, `jax.vmap` or `jax.grad`.

The function is lowered to JAX operations with a custom JVP: the derivative that wengert's
passes computed, lowered the same way. JAX transposes that for reverse mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..backends.xla.lower import lower
from ..frontend import syntax
from ..ir.struct import Struct
from ..ir.types import KEY, TensorType
from .binding import Static, match_parameters
from .requests import Request, float_leaves
from .values import as_fields, unflatten

if TYPE_CHECKING:
    from .function import CompiledFunction
    from .specialization import Specialization


def call_in_jax(function: CompiledFunction, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of `function` as traced JAX values."""
    values = match_parameters(function.decl, args, kwargs)
    annotations = {p.name: p.annotation for p in function.decl.parameters}
    signature: list[tuple[str, Struct | Static]] = []
    traced: list[Any] = []
    shadow: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(annotations[name], syntax.StaticType):
            shadow[name] = value
        else:
            shadow[name] = _shadow(value, traced)
    bound = function._bound((), shadow)
    signature = list(bound.signature)
    special = function._specialize(type(bound)(tuple(signature), ()))
    cast = [_cast(x, p.type) for x, p in zip(traced, special.lowered.module.main.params)]
    out = _differentiable(special)(*cast)
    return unflatten(special.lowered.result, iter(out), lambda x: x)


def _shadow(value: Any, traced: list[Any]) -> Any:
    """Zeros of the shapes of traced values, to find the signature; the values go to `traced`."""
    fields = as_fields(value)
    if fields is not None:
        return {k: _shadow(v, traced) for k, v in fields.items()}
    if isinstance(value, tuple):
        return tuple(_shadow(v, traced) for v in value)
    array = jnp.asarray(value) if not str(getattr(value, "dtype", "")).startswith("key<") else None
    if array is None:
        value = jax.random.key_data(value)
        array = value
    traced.append(array)
    return np.zeros(array.shape, array.dtype)


def _cast(x: Any, type: Any) -> Any:
    assert isinstance(type, TensorType)
    return x if type.dtype is KEY else x.astype(type.dtype.numpy)


def _differentiable(special: Specialization) -> Any:
    """The JAX function of a specialisation, made once."""
    cached = getattr(special, "_jax", None)
    if cached is not None:
        return cached
    params = special.params
    wrt = tuple(name for name, s in params if float_leaves(s))
    primal = lower(special.module(Request()))
    call = jax.custom_jvp(primal)
    tangent = lower(special.module(Request("jvp", wrt))) if wrt else None
    count = len(special.lowered.module.main.results)

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

    special._jax = call  # type: ignore[attr-defined]
    return call


def _float0(x: Any) -> Any:
    return np.zeros(x.shape, jax.dtypes.float0)


