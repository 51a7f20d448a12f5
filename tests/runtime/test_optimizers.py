"""Optimisers and schedules, emitted as IR and interpreted, beside optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import function_block
from wengert.ir.core import Function, Module
from wengert.ir.interp import run
from wengert.ir.types import F32, F64, TensorType, scalar
from wengert.runtime import optimizers, schedules
from wengert.runtime.errors import CallError

optax = pytest.importorskip("optax")
SHAPES = ((3,), (2, 4), ())


def step_function(optimizer: optimizers.Optimizer, types: list[TensorType]) -> Callable[..., Any]:
    """(params, grads, state, step) -> (params, state) by the interpreter."""
    state = optimizer.state(types)
    step_type = scalar(max((t.dtype for t in types), key=lambda d: d.itemsize))
    block, b = function_block([*types, *types, *state, step_type])
    n = len(types)
    params, grads = block.params[:n], block.params[n : 2 * n]
    new, kept = optimizer.update(b, params, grads, block.params[2 * n : -1], block.params[-1])
    block.results = [*new, *kept]
    module = Module({"step": Function("step", block)}, "step")

    def call(params: Any, grads: Any, state: Any, step: int) -> Any:
        number = np.array(step, step_type.dtype.numpy)
        out = run(module, [*params, *grads, *state, number])
        return out[:n], out[n:]

    return call


CASES = {
    "sgd": (optimizers.sgd(0.1), lambda: optax.sgd(0.1)),
    "sgd_decay": (
        optimizers.sgd(0.1, weight_decay=0.01),
        lambda: optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1)),
    ),
    "momentum": (optimizers.momentum(0.05, 0.9), lambda: optax.sgd(0.05, momentum=0.9)),
    "nesterov": (
        optimizers.momentum(0.05, 0.8, nesterov=True),
        lambda: optax.sgd(0.05, momentum=0.8, nesterov=True),
    ),
    "adam": (optimizers.adam(0.01), lambda: optax.adam(0.01)),
    "adamw": (optimizers.adamw(0.01, 0.02), lambda: optax.adamw(0.01, weight_decay=0.02)),
    "rmsprop": (optimizers.rmsprop(0.01), lambda: optax.rmsprop(0.01)),
    "lion": (optimizers.lion(0.001), lambda: optax.lion(0.001)),
    "clip": (
        optimizers.adam(0.01, clip=0.5),
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01)),
    ),
    "clip_value": (
        optimizers.sgd(0.01, clip_value=0.1),
        lambda: optax.chain(optax.clip(0.1), optax.sgd(0.01)),
    ),
    "scheduled": (
        optimizers.adam(schedules.cosine_decay(0.1, 30, 0.01)),
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 30, 0.1)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_equal_optax(name: str) -> None:
    import jax

    ours, peer = CASES[name][0], CASES[name][1]()
    rng = np.random.default_rng(1)
    params = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
    theirs = tuple(params)
    kept = peer.init(theirs)
    update = jax.jit(peer.update)
    types = [TensorType(F32, s) for s in SHAPES]
    step = step_function(ours, types)
    state = [np.zeros(t.shape, t.dtype.numpy) for t in ours.state(types)]
    for i in range(50):
        grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        params, state = step(params, grads, state, i)
        moves, kept = update(tuple(grads), kept, theirs)
        theirs = optax.apply_updates(theirs, moves)
    for a, b in zip(params, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


SCHEDULES = {
    "constant": (schedules.constant(0.3), lambda: optax.constant_schedule(0.3)),
    "linear": (schedules.linear(0.1, 0.5, 20), lambda: optax.linear_schedule(0.1, 0.5, 20)),
    "cosine": (
        schedules.cosine_decay(0.5, 25, 0.05),
        lambda: optax.cosine_decay_schedule(0.5, 25, 0.1),
    ),
    "exponential": (
        schedules.exponential_decay(0.5, 0.7, 6),
        lambda: optax.exponential_decay(0.5, 6, 0.7),
    ),
    "staircase": (
        schedules.exponential_decay(0.5, 0.7, 6, staircase=True),
        lambda: optax.exponential_decay(0.5, 6, 0.7, staircase=True),
    ),
    "piecewise": (
        schedules.piecewise((5, 12), (1.0, 0.1, 0.01)),
        lambda: optax.piecewise_constant_schedule(1.0, {5: 0.1, 12: 0.1}),
    ),
    "warmup_cosine": (
        schedules.warmup_cosine(1.0, 10, 40, end=0.1),
        lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 40, 0.1),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_optax(name: str) -> None:
    ours, make = SCHEDULES[name]
    peer = make()
    at = [0, 1, 4, 5, 6, 9, 10, 11, 12, 13, 20, 25, 39, 40, 50]
    np.testing.assert_allclose(
        [ours(s) for s in at], [float(peer(s)) for s in at], rtol=2e-5, atol=1e-7
    )


def test_mixed_precision_keeps_each_dtype() -> None:
    types = [TensorType(F32, (2,)), TensorType(F64, (3,))]
    optimizer = optimizers.adam(0.1, clip=1.0)
    step = step_function(optimizer, types)
    values = [np.ones(t.shape, t.dtype.numpy) for t in types]
    state = [np.zeros(t.shape, t.dtype.numpy) for t in optimizer.state(types)]
    params, state = step(values, values, state, 0)
    assert [p.dtype for p in params] == [np.float32, np.float64]
    np.testing.assert_allclose(params[1], 0.9, rtol=1e-6)


def test_zero_gradients_with_clipping_move_nothing() -> None:
    types = [TensorType(F32, (2,))]
    step = step_function(optimizers.sgd(0.1, clip=1.0), types)
    params, _ = step([np.ones(2, np.float32)], [np.zeros(2, np.float32)], [], 0)
    np.testing.assert_array_equal(params[0], 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.adam("fast"),
        lambda: optimizers.adam(float("nan")),
        lambda: optimizers.adam(b1=1.0),
        lambda: optimizers.sgd(clip=0.0),
        lambda: optimizers.sgd(clip_value=-1.0),
        lambda: schedules.cosine_decay(0.1, 0),
        lambda: schedules.warmup_cosine(0.1, 10, 10),
        lambda: schedules.piecewise((3,), (0.1,)),
        lambda: schedules.piecewise((5, 3), (0.1, 0.2, 0.3)),
        lambda: schedules.exponential_decay(0.1, -1.0, 5),
        lambda: optimizers.adam(10**400),
        lambda: optimizers.adam(eps="small"),
        lambda: optimizers.sgd(clip="all"),
        lambda: optimizers.momentum(momentum=None),
        lambda: optimizers.adamw(weight_decay=float("inf")),
        lambda: schedules.linear("a", "b", 5),
        lambda: schedules.cosine_decay(0.1, "many"),
        lambda: schedules.warmup_cosine(0.1, "a", 10),
        lambda: schedules.constant(float("nan")),
    ],
)
def test_bad_settings(make: Callable[[], Any]) -> None:
    with pytest.raises(CallError):
        make()


def test_optimizers_are_values() -> None:
    assert optimizers.adam(0.1) == optimizers.adam(0.1)
    assert hash(optimizers.adam(schedules.cosine_decay(0.1, 5))) == hash(
        optimizers.adam(schedules.cosine_decay(0.1, 5))
    )
    assert optimizers.adam(0.1) != optimizers.adam(0.2)
