"""Compiled functions inside JAX: jit, vmap, grad, higher orders, export, several devices."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import wengert as wg

jax = pytest.importorskip("jax")
jnp = jax.numpy

SOURCE = """
record Line:
    w: real[d]
    b: real

fn loss(line: Line, x: real[n, d], y: real[n]) -> real:
    return mean((x @ line.w + line.b - y)^2)

fn poly(x: real) -> real:
    return x^3 * sin(x)

fn both(x: real, n: i32) -> (real, i32):
    return (x * x * real(n), n + 1)

fn noisy(mu: real, key: key) -> real:
    return normal(key, ()) * mu

fn walk(x: real) -> real:
    total = 0.0
    for i in 0..5:
        total = total + sin(total + x)
    return total

fn power(x: real, times: static int) -> real:
    out = 1.0
    for i in 0..times:
        out = out * x
    return out

fn root(a: real) -> real:
    x = 0.5 * (a + 1.0)
    while abs(x * x - a) > 1e-6 max 40:
        x = 0.5 * (x + a / x)
    return x

@jvp(odd_rule)
fn odd(x: real) -> real:
    return x * x

fn odd_rule(x: real, dx: real) -> (real, real):
    return (x * x, 10.0 * dx)
"""


@pytest.fixture(scope="module")
def program() -> Any:
    return wg.compile(SOURCE.split("@jvp")[0])


def poly(x: Any) -> Any:
    """The same function in JAX."""
    return x**3 * jnp.sin(x)


def test_jit_grad_vmap_and_their_compositions(program: Any) -> None:
    xs = jnp.linspace(-2, 2, 9)
    for ours, peer in (
        (jax.jit(program.poly), jax.jit(poly)),
        (jax.grad(program.poly), jax.grad(poly)),
        (jax.jit(jax.value_and_grad(program.poly)), jax.value_and_grad(poly)),
    ):
        np.testing.assert_allclose(ours(1.5), peer(1.5), rtol=1e-5)
    for f, g in (
        (jax.vmap(program.poly), jax.vmap(poly)),
        (jax.vmap(jax.grad(program.poly)), jax.vmap(jax.grad(poly))),
        (jax.jit(jax.vmap(jax.jacfwd(program.poly))), jax.vmap(jax.jacfwd(poly))),
    ):
        np.testing.assert_allclose(f(xs), g(xs), rtol=1e-4, atol=1e-5)


def test_higher_order_derivatives(program: Any) -> None:
    for order in (jax.grad(jax.grad(program.poly)), jax.hessian(program.poly)):
        np.testing.assert_allclose(order(0.7), jax.grad(jax.grad(poly))(0.7), rtol=1e-4)
    third = jax.grad(jax.grad(jax.grad(program.poly)))(0.7)
    np.testing.assert_allclose(third, jax.grad(jax.grad(jax.grad(poly)))(0.7), rtol=1e-3)


def test_records_and_arrays(program: Any) -> None:
    rng = np.random.default_rng(0)
    line = {"w": jnp.asarray(rng.normal(size=3), jnp.float32), "b": jnp.float32(0.5)}
    x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
    y = jnp.asarray(rng.normal(size=8), jnp.float32)

    def peer(line: Any, x: Any, y: Any) -> Any:
        return jnp.mean((x @ line["w"] + line["b"] - y) ** 2)

    ours, theirs = jax.jit(jax.grad(program.loss))(line, x, y), jax.grad(peer)(line, x, y)
    for name in line:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        jax.grad(program.loss, argnums=1)(line, x, y),
        jax.grad(peer, argnums=1)(line, x, y),
        rtol=1e-4,
    )


def test_loops_reverse(program: Any) -> None:
    def peer(x: Any) -> Any:
        total = 0.0
        for _ in range(5):
            total = total + jnp.sin(total + x)
        return total

    np.testing.assert_allclose(jax.grad(program.walk)(0.3), jax.grad(peer)(0.3), rtol=1e-4)


def test_bounded_while_reverses_and_stops_early(program: Any) -> None:
    np.testing.assert_allclose(jax.jit(program.root)(9.0), 3, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(program.root)(9.0), 1 / 6, rtol=1e-4)
    np.testing.assert_allclose(jax.jacfwd(program.root)(9.0), 1 / 6, rtol=1e-4)
    many = jax.vmap(jax.grad(program.root))(jnp.array([1.0, 4.0, 100.0]))
    np.testing.assert_allclose(many, [0.5, 0.25, 0.05], rtol=1e-4)


def test_f64_needs_64_bit_mode(program: Any) -> None:
    poly64 = program.with_options(real="f64").poly
    with pytest.raises(wg.CallError, match="64-bit mode"):
        jax.jit(poly64)(1.5)
    with jax.enable_x64(True):
        assert jax.jit(jax.grad(poly64))(1.5).dtype == jnp.float64
        np.testing.assert_allclose(jax.grad(poly64)(1.5), jax.grad(poly)(1.5), rtol=1e-12)


def test_integers_have_no_derivative(program: Any) -> None:
    value, grad = jax.value_and_grad(lambda x: program.both(x, jnp.int32(3))[0])(2.0)
    assert float(value) == 12 and float(grad) == 12
    n = jax.jit(lambda n: program.both(2.0, n)[1])(jnp.int32(4))
    assert int(n) == 5


def test_keys_of_both_kinds(program: Any) -> None:
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    want = 2 * jax.random.normal(new)
    for key in (old, new):
        np.testing.assert_allclose(jax.jit(program.noisy)(2.0, key), want, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(program.noisy)(2.0, old), want / 2, rtol=1e-5)
    keys = jax.random.split(new, 4)
    np.testing.assert_allclose(
        jax.vmap(program.noisy, (None, 0))(1.0, keys), jax.vmap(jax.random.normal)(keys), rtol=1e-5
    )


def test_static_arguments(program: Any) -> None:
    np.testing.assert_allclose(jax.jit(lambda x: program.power(x, 3))(2.0), 8.0)


def test_the_derivative_is_ours() -> None:
    try:
        odd = wg.compile("@jvp" + SOURCE.split("@jvp")[1]).odd
    except wg.WengertError as error:
        pytest.fail(f"custom rules: {error}")
    assert float(jax.grad(odd)(3.0)) == 10.0
    assert float(jax.jit(odd)(3.0)) == 9.0


def test_a_reverse_rule_is_kept() -> None:
    text = """
@vjp(forward, backward)
fn f(x: real) -> real:
    return x * x

fn forward(x: real) -> (real, real):
    return (x * x, x)

fn backward(x: real, dy: real) -> real:
    return 100.0 * x * dy

fn outer(x: real, k: i32) -> real:
    return 2.0 * f(x) + real(k)
"""
    outer = wg.compile(text).outer
    assert float(jax.jit(outer)(3.0, 1)) == 19
    grad = jax.jit(jax.grad(outer))
    assert float(grad(3.0, 1)) == 600
    np.testing.assert_allclose(jax.vmap(grad, (0, None))(jnp.array([1.0, 2.0]), 1), [200, 400])


def test_export_round_trip(program: Any) -> None:
    from jax import export

    exported = export.export(jax.jit(program.walk))(jax.ShapeDtypeStruct((), jnp.float32))
    np.testing.assert_allclose(exported.call(jnp.float32(0.3)), program.walk(0.3), rtol=1e-6)
    pytest.importorskip("flatbuffers")  # JAX serialises with it, and does not depend on it
    again = export.deserialize(exported.serialize())
    np.testing.assert_allclose(again.call(jnp.float32(0.3)), program.walk(0.3), rtol=1e-6)


def test_errors_are_ours(program: Any) -> None:
    with pytest.raises(wg.WengertError, match="'x' of 'poly' has 1 axes"):
        jax.jit(program.poly)(jnp.ones((2,)))
    with pytest.raises(wg.CallError, match="too many arguments"):
        jax.jit(program.poly)(jnp.int32(1), 2)


SHARDED = """
import jax, numpy as np, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import wengert as wg
assert len(jax.devices()) == 4
program = wg.compile({source!r})
mesh = Mesh(np.array(jax.devices()), ("rows",))
rng = np.random.default_rng(0)
x, y = rng.normal(size=(16, 3)).astype("f"), rng.normal(size=16).astype("f")
line = {{"w": jnp.ones(3), "b": jnp.float32(0)}}
rows = NamedSharding(mesh, P("rows"))
step = jax.jit(jax.grad(program.loss))
alone = step(line, x, y)
xs, ys = jax.device_put(x, rows), jax.device_put(y, rows)
spread = step(jax.device_put(line, NamedSharding(mesh, P())), xs, ys)
for name in line:
    np.testing.assert_allclose(alone[name], spread[name], rtol=1e-5, atol=1e-6)
text = step.lower(line, xs, ys).compile().as_text()
assert "all-reduce" in text, text
print("ok")
"""


def test_data_parallel_over_four_devices() -> None:
    code = SHARDED.format(source=SOURCE.split("fn poly")[0])
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True
    )
    assert done.stdout.strip() == "ok", done.stderr[-2000:]
