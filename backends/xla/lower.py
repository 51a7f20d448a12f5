"""A tensor-level function as a Python function over JAX arrays, and its compiled form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...ir.core import Block, Module, Op, Value, walk
from ...ir.errors import CompilerBug
from ...ir.types import KEY, TensorType
from ..memory import ASKED_FROM, require
from .rules import LOWER, KeyPair, dtype_of

UNROLL_AT_MOST = 4


class Env(dict[Value, Any]):
    """JAX values by IR value. `transposable`: whether JAX will transpose what is lowered."""

    def __init__(self, values: dict[Value, Any], transposable: bool) -> None:
        super().__init__(values)
        self.transposable = transposable

    def inner(self) -> Env:
        """A copy for a region, which sees the values around it."""
        return Env(self, self.transposable)


def _types(module: Module) -> list[TensorType]:
    body = module.main.body
    values = [*body.params, *(r for op in walk(body) for r in op.results)]
    return [v.type for v in values if isinstance(v.type, TensorType)]


def needs_x64(module: Module) -> bool:
    """Whether a 64-bit type occurs, which JAX computes with only when told to."""
    return any(t.dtype.name in ("f64", "i64") for t in _types(module))


def x64_context(module: Module) -> AbstractContextManager[Any]:
    """The context in which the module's function is traced and called."""
    return jax.enable_x64(True) if needs_x64(module) else nullcontext()


def lower(module: Module, *, transposable: bool = False) -> Callable[..., tuple[Any, ...]]:
    """The entry as a function of flat JAX arrays; keys are `uint32[..., 2]`.

    transposable: make every bounded `while` a scan, which JAX can run backwards; it costs as
        many trips as the bound allows.
    """
    main = module.main

    def function(*args: Any) -> tuple[Any, ...]:
        env = Env({}, transposable)
        values = [_enter(p, x) for p, x in zip(main.params, args, strict=True)]
        return tuple(_leave(v) for v in _block(main.body, values, env))

    function.__name__ = main.name
    return function


def _enter(param: Value, x: Any) -> Any:
    assert isinstance(param.type, TensorType)
    if param.type.dtype is KEY:
        return KeyPair(x[..., 0], x[..., 1])
    return jnp.asarray(x, dtype_of(param.type.dtype))


def _leave(value: Any) -> Any:
    return jnp.stack(value, axis=-1) if isinstance(value, KeyPair) else value


def _block(block: Block, args: Sequence[Any], env: Env) -> list[Any]:
    env.update(zip(block.params, args, strict=True))
    for op in block.ops:
        operands = [env[v] for v in op.operands]
        control = CONTROL.get(op.name)
        if control is not None:
            results = control(op, operands, env)
        else:
            rule = LOWER.get(op.name)
            if rule is None:
                raise CompilerBug(f"no XLA lowering for {op.name}")
            out = rule(op.attrs, *operands)
            results = out if isinstance(out, tuple) and not isinstance(out, KeyPair) else (out,)
        env.update(zip(op.results, results, strict=True))
    return [env[v] for v in block.results]


def _if(op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    then, other = op.regions
    out = lax.cond(
        operands[0],
        lambda: tuple(_block(then, [], env.inner())),
        lambda: tuple(_block(other, [], env.inner())),
    )
    return tuple(out)


def _switch(op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    branches = [lambda r=r: tuple(_block(r, [], env.inner())) for r in op.regions]
    return tuple(lax.switch(operands[0], branches))


def _for(op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    (body,) = op.regions
    carries, trips = op.attrs["carries"], op.attrs["trips"]

    def step(state: Any, rows: Any) -> Any:
        index, elements = rows
        out = _block(body, [index, *state, *elements], env.inner())
        return tuple(out[:carries]), tuple(out[carries:])

    indices = jnp.arange(trips, dtype=jnp.int32)
    state, stacked = lax.scan(
        step,
        tuple(operands[:carries]),
        (indices, tuple(operands[carries:])),
        length=trips,
        reverse=op.attrs["reverse"],
        unroll=trips if 0 < trips <= UNROLL_AT_MOST else 1,
    )
    return (*state, *stacked)


def _while(op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    cond, body = op.regions
    limit = op.attrs["max_trips"]
    if limit and env.transposable:
        return _scanned_while(op, operands, env)

    def go(state: Any) -> Any:
        count, values = state
        (alive,) = _block(cond, values, env.inner())
        return alive & (count < limit) if limit else alive

    def step(state: Any) -> Any:
        count, values = state
        return count + 1, tuple(_block(body, values, env.inner()))

    _, out = lax.while_loop(go, step, (jnp.int32(0), tuple(operands)))
    return tuple(out)


def _scanned_while(op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    """A bounded `while` as a scan whose trips do nothing once the condition failed."""
    cond, body = op.regions

    def step(state: Any, _: None) -> Any:
        alive, values = state
        alive = alive & _block(cond, values, env.inner())[0]
        go = lambda xs: tuple(_block(body, xs, env.inner()))  # noqa: E731
        return (alive, lax.cond(alive, go, tuple, values)), None

    start = (jnp.bool_(True), tuple(operands))
    (_, out), _ = lax.scan(step, start, None, length=op.attrs["max_trips"])
    return tuple(out)


CONTROL: dict[str, Callable[[Op, list[Any], Env], Sequence[Any]]] = {
    "if": _if,
    "switch": _switch,
    "for": _for,
    "while": _while,
}


class XlaExecutable:
    """A module compiled by XLA for the default device.

    `__call__` takes flat NumPy or JAX arrays (keys packed as uint64 or as `uint32[..., 2]`)
    and returns JAX arrays, keys as `uint32[..., 2]`; it does not wait for the result.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.wide = needs_x64(module)
        self.jitted = jax.jit(lower(module))
        self.types = [p.type for p in module.main.params]
        large = any(t.nbytes >= ASKED_FROM for t in _types(module))
        self.asks = large and jax.default_backend() == "cpu"

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """Run once. Raises MemoryError where results and temporaries do not fit."""
        if self.asks:
            require(self.needs)
        if not self.wide:
            return list(self.jitted(*map(_words, arrays)))
        with x64_context(self.module):
            return list(self.jitted(*map(_words, arrays)))

    @functools.cached_property
    def needs(self) -> int:
        """Bytes of results and temporaries. XLA would find out while it runs, too late to tell:
        a result that failed is an array whose use raises an error or ends the process.
        """
        with x64_context(self.module):
            found = self._lowered().compile().memory_analysis()
        return int(found.output_size_in_bytes + found.temp_size_in_bytes) if found else 0

    def _lowered(self) -> Any:
        shapes = []
        for type in self.types:
            assert isinstance(type, TensorType)
            if type.dtype is KEY:
                shapes.append(jax.ShapeDtypeStruct((*type.shape, 2), jnp.uint32))
            else:
                shapes.append(jax.ShapeDtypeStruct(type.shape, dtype_of(type.dtype)))
        return self.jitted.lower(*shapes)

    def stablehlo(self) -> str:
        """The StableHLO text."""
        with x64_context(self.module):
            return str(self._lowered().as_text())

    def hlo(self) -> str:
        """The optimised HLO text of the device."""
        with x64_context(self.module):
            return str(self._lowered().compile().as_text())


def _words(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype == np.uint64:
        return x.reshape(*x.shape, 1).view(np.uint32)
    return x
