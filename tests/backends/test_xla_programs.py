"""Control flow, keys and whole programs on XLA beside the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from wengert.backends.xla.lower import XlaExecutable
from wengert.ir import random as draws
from wengert.ir.builder import Builder, function_block
from wengert.ir.core import Block, Function, Module, Value
from wengert.ir.interp import run
from wengert.ir.types import BOOL, F32, F64, I32, KEY, TensorType, scalar


def module_of(types: list[TensorType], make: Callable[..., Any]) -> Module:
    """A module whose entry is what `make(builder, *params)` writes."""
    block, b = function_block(types)
    out = make(b, *block.params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return Module({"f": Function("f", block)}, "f")


def check(module: Module, *args: Any) -> list[Any]:
    """XLA's results, equal to the interpreter's."""
    args = tuple(np.asarray(a) for a in args)
    ours = [np.asarray(x) for x in XlaExecutable(module)(args)]
    for a, b in zip(ours, run(module, args), strict=True):
        if b.dtype == np.uint64:
            b = b.reshape(*b.shape, 1).view(np.uint32)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    return ours


def loop(
    b: Builder, carries: list[Value], streams: list[Value], trips: int, body: Any, **attrs: Any
) -> Any:
    """A `for` whose body is `body(builder, i, carries, elements) -> (carries, outputs)`."""
    rows = [TensorType(b.type(s).dtype, b.type(s).shape[1:]) for s in streams]
    block, inner = function_block([scalar(I32), *(c.type for c in carries), *rows])
    i, *rest = block.params
    state, outputs = body(inner, i, rest[: len(carries)], rest[len(carries) :])
    block.results = [*state, *outputs]
    return b.op("for", [*carries, *streams], [block], trips=trips, carries=len(carries), **attrs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("trips", [0, 1, 3, 9])
def test_for_with_carries_streams_and_outputs(trips: int, reverse: bool) -> None:
    def body(b: Builder, i: Value, carries: list[Value], elements: list[Value]) -> Any:
        step = b.add(b.mul(carries[0], elements[0]), b.convert(i, dtype=F32))
        return [step], [b.mul(step, step), i]

    module = module_of(
        [scalar(F32), TensorType(F32, (trips,))],
        lambda b, x, xs: loop(b, [x], [xs], trips, body, reverse=reverse),
    )
    check(module, np.float32(0.5), np.linspace(-1, 1, trips, dtype=np.float32))


def test_for_without_carries_uses_values_around_it() -> None:
    def make(b: Builder, x: Value, k: Value) -> Any:
        return loop(b, [], [], 6, lambda c, i, s, e: ([], [c.add(c.mul(i, i), k), x]))

    check(module_of([scalar(F32), scalar(I32)], make), np.float32(2), np.int32(7))


def test_keys_are_carried_streamed_and_stacked() -> None:
    def body(b: Builder, i: Value, carries: list[Value], elements: list[Value]) -> Any:
        return [b.threefry(carries[0], elements[0])], [draws.fold_in(b, elements[0], i)]

    def make(b: Builder, key: Value) -> Any:
        return loop(b, [key], [draws.split(b, key, 5)], 5, body)

    check(module_of([scalar(KEY)], make), np.uint64(2**63 + 12345))


@pytest.mark.parametrize("flag", [True, False])
def test_if_yields_keys_and_numbers(flag: bool) -> None:
    def make(b: Builder, c: Value, x: Value, key: Value) -> Any:
        then, other = Block(), Block()
        t = Builder(then)
        then.results = [t.exp(x), draws.fold_in(t, key, t.const(3, I32))]
        other.results = [x, key]
        return b.op("if", [c], [then, other])

    module = module_of([scalar(BOOL), scalar(F32), scalar(KEY)], make)
    check(module, np.bool_(flag), np.float32(0.5), np.uint64(99))


@pytest.mark.parametrize("index", [-5, 0, 1, 2, 3, 100])
def test_switch_clamps(index: int) -> None:
    def make(b: Builder, i: Value, x: Value) -> Any:
        regions = []
        for factor in (1.0, 10.0, 100.0):
            region = Block()
            r = Builder(region)
            region.results = [r.mul(x, r.const(factor, x))]
            regions.append(region)
        return b.op("switch", [i], regions)

    check(module_of([scalar(I32), scalar(F32)], make), np.int32(index), np.float32(2))


@pytest.mark.parametrize("limit", [0, 1, 4])
@pytest.mark.parametrize("start", [0.5, 50.0])
def test_while_with_and_without_a_bound(limit: int, start: float) -> None:
    def make(b: Builder, x: Value, n: Value) -> Any:
        types = [x.type, n.type]
        test, t = function_block(types)
        test.results = [t.lt(test.params[0], t.const(20.0, x))]
        body, s = function_block(types)
        body.results = [
            s.add(body.params[0], body.params[0]),
            s.add(body.params[1], s.const(1, n)),
        ]
        return b.op("while", [x, n], [test, body], max_trips=limit)

    check(module_of([scalar(F32), scalar(I32)], make), np.float32(start), np.int32(0))


def test_nested_loops_see_outer_values() -> None:
    def outer(b: Builder, i: Value, carries: list[Value], elements: list[Value]) -> Any:
        def inner(c: Builder, j: Value, state: list[Value], _: list[Value]) -> Any:
            both = c.convert(c.add(i, j), dtype=F64)
            return [c.add(state[0], c.mul(both, elements[0]))], []

        return list(loop(b, carries, [], 4, inner)), []

    module = module_of(
        [scalar(F64), TensorType(F64, (3,))], lambda b, x, xs: loop(b, [x], [xs], 3, outer)
    )
    (out,) = check(module, 1.0, np.array([0.1, 0.2, 0.3]))
    assert out.dtype == np.float64


DRAWS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "split": (lambda b, k: draws.split(b, k, 7), lambda k: jax.random.split(k, 7)),
    "bits": (lambda b, k: draws.bits(b, k, (3, 5)), lambda k: jax.random.bits(k, (3, 5))),
    "uniform": (
        lambda b, k: draws.uniform(b, k, (33,), F32),
        lambda k: jax.random.uniform(k, (33,)),
    ),
    "permutation": (
        lambda b, k: draws.permutation(b, k, 50),
        lambda k: jax.random.permutation(k, 50),
    ),
    "randint": (
        lambda b, k: draws.randint(b, k, (20,), -3, 11),
        lambda k: jax.random.randint(k, (20,), -3, 11),
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_jax(name: str) -> None:
    make, peer = DRAWS[name]
    module = module_of([scalar(KEY)], make)
    key = jax.random.PRNGKey(42)
    (ours,) = XlaExecutable(module)([np.asarray(key)])
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(peer(key)))


def test_packed_and_split_keys_are_both_taken() -> None:
    module = module_of([TensorType(KEY, (3,))], lambda b, k: b.threefry(k, k))
    packed = np.arange(3, dtype=np.uint64) * np.uint64(2**40 + 1)
    words = packed.reshape(3, 1).view(np.uint32)
    a, b = (np.asarray(XlaExecutable(module)([x])[0]) for x in (packed, words))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wide", [False, True])
def test_f64_leaves_the_setting_alone(wide: bool) -> None:
    """Whether JAX itself makes 64-bit numbers, before and after calls that work and that fail."""
    module = module_of([scalar(F64)], lambda b, x: b.exp(x))
    before = jax.config.read("jax_enable_x64")
    with jax.enable_x64(wide):
        (out,) = XlaExecutable(module)([np.float64(1)])
        assert out.dtype == np.float64 and abs(float(out) - np.e) < 1e-15
        assert jax.numpy.ones(()).dtype == (np.float64 if wide else np.float32)
        with pytest.raises(ValueError, match="shorter"):
            XlaExecutable(module)([])
        assert jax.numpy.ones(()).dtype == (np.float64 if wide else np.float32)
    assert jax.config.read("jax_enable_x64") == before


def test_texts_show_both_levels() -> None:
    module = module_of(
        [TensorType(F32, (4,)), scalar(KEY)], lambda b, x, k: (b.tanh(x), b.key_lo(k))
    )
    executable = XlaExecutable(module)
    assert "stablehlo.tanh" in executable.stablehlo()
    assert "HloModule" in executable.hlo()


def test_result_that_is_a_parameter_or_constant() -> None:
    module = module_of([TensorType(F32, (2,))], lambda b, x: (x, x, b.const(3, I32)))
    check(module, np.ones(2, np.float32))
