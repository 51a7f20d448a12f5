"""Calls from Python: arguments, results, derivatives, and what bad ones get."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wengert as wg

TEXT = """
record Params:
    w: real[n]
    b: real
    step: i32

fn f(x: real[n], k: real) -> real: return sum(sin(x) * k)
fn scalar(x: f32, y: f32, z: f32) -> f32: return sin(x) * y + exp(-z * z)
fn model(p: Params, x: real[m, n]) -> real[m]: return x @ p.w + p.b
fn loss(p: Params, x: real[m, n]) -> real: return mean(model(p, x)^2)
fn pair(x: real[n]): return {double: x * 2, parts: (sum(x), argmax(x))}
fn counted(x: real, n: static int): return x * n
fn same(x: real[n], y: real[n]): return x + y
fn count(n: i32): return n
fn flag(b: bool): return not b
"""
X = np.array([0.1, 0.7, -0.4], np.float32)


@pytest.fixture(scope="module")
def program():
    return wg.compile(TEXT)


def test_many_forms_of_one_argument(program):
    want = program.f(X, 2.0)
    for form in (X.tolist(), tuple(X.tolist()), X.astype(np.float64), jnp.asarray(X)):
        np.testing.assert_allclose(program.f(form, 2.0), want, rtol=1e-6)
    strided = np.repeat(X, 2)[::2]
    frozen = X.copy()
    frozen.flags.writeable = False
    swapped = X.astype(">f4")
    for form in (strided, frozen, swapped, X[::-1][::-1]):
        np.testing.assert_allclose(program.f(form, np.float32(2)), want, rtol=1e-6)


def test_results_are_nested_as_the_program_returns_them(program):
    out = program.pair(X)
    np.testing.assert_allclose(out["double"], 2 * X)
    assert out["parts"][1] == 1 and out["parts"][1].dtype == np.int32


def test_gradients_have_the_structure_of_the_parameter(program):
    p = {"w": X, "b": 0.5, "step": 3}
    x = np.ones((2, 3), np.float32)
    value, grad = program.loss.value_and_grad(p, x)
    assert set(grad) == {"w", "b", "step"} and grad["step"] is None
    np.testing.assert_allclose(grad["b"], 2 * (X.sum() + 0.5), rtol=1e-5)
    gp, gx = program.loss.grad(p, x, wrt=("p", "x"))
    assert gx.shape == x.shape and value == program.loss(p, x)


def test_jvp_vjp_hessian_and_batched(program):
    value, tangent = program.f.jvp((X, 2.0), np.ones(3))
    np.testing.assert_allclose(tangent, (2 * np.cos(X)).sum(), rtol=1e-5)
    value, pullback = program.f.vjp(X, 2.0)
    np.testing.assert_allclose(pullback(3.0), 6 * np.cos(X), rtol=1e-5)
    np.testing.assert_allclose(
        program.f.hessian(X, 2.0), np.diag(-2 * np.sin(X)), rtol=1e-5, atol=1e-7
    )
    rows = np.stack([X, 2 * X])
    out = program.f.batched(rows, 2.0, axes={"k": None})
    np.testing.assert_allclose(out, [program.f(r, 2.0) for r in rows], rtol=1e-5)


def test_scalar_calls_are_right_however_they_are_made(program):
    slow = program.scalar(np.float32(0.3), np.float32(1.5), np.float32(0.7))
    for _ in range(3):
        fast = program.scalar(0.3, 1.5, 0.7)
        assert isinstance(fast, np.float32)
        np.testing.assert_allclose(fast, slow)


BAD_CALLS = {
    "missing": (lambda p: p.f(X), "misses 1 argument 'k'"),
    "extra": (lambda p: p.f(X, 1.0, 2.0), "too many arguments"),
    "unknown": (lambda p: p.f(X, 1.0, z=2), "no parameter 'z'"),
    "twice": (lambda p: p.f(X, 1.0, x=X), "twice"),
    "rank": (lambda p: p.f(np.ones((2, 2)), 1.0), "has 2 axes"),
    "sizes": (lambda p: p.same(X, np.ones(4)), "size"),
    "text": (lambda p: p.f("abc", 1.0), "not a number"),
    "none": (lambda p: p.f(None, 1.0), "not a number"),
    "complex": (lambda p: p.f(X + 1j, 1.0), "complex"),
    "ragged": (lambda p: p.f([[1.0], [1.0, 2.0]], 1.0), "rectangular"),
    "float_for_int": (lambda p: p.count(1.5), "wrong dtype"),
    "overflow": (lambda p: p.count(2**40), "overflows"),
    "number_for_bool": (lambda p: p.flag(1), "wrong dtype"),
    "not_static": (lambda p: p.counted(1.0, 2.5), "static int"),
    "fields": (lambda p: p.loss({"w": X}, np.ones((2, 3))), "fields w, b, step"),
    "wrt": (lambda p: p.f.grad(X, 1.0, wrt="q"), "float parameters: x, k"),
    "not_scalar": (lambda p: p.same.grad(X, X), "not a scalar function"),
    "samples": (lambda p: p.f(X, 1.0, samples=3), "no random key"),
    "negative_samples": (lambda p: p.f.grad(X, 1.0, samples=-1), "count"),
    "batch": (lambda p: p.same.batched(np.ones((2, 3)), np.ones((4, 3))), "one length"),
    "tangent": (lambda p: p.f.jvp((X, 1.0), np.ones(4)), "wrong shape"),
    "stage": (lambda p: p.f.ir(X, 1.0, after="nothing"), "no stage"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_are_told(name, program):
    call, text = BAD_CALLS[name]
    with pytest.raises(wg.WengertError) as error:
        call(program)
    assert text in str(error.value)


def test_unknown_names_suggest(program):
    with pytest.raises(AttributeError, match="did you mean 'loss'"):
        program.los
    with pytest.raises(wg.BackendError):
        wg.compile(TEXT, backend="cuda")


def test_inside_jax(program):
    f = lambda x: program.f(x, 2.0)
    x = jnp.asarray(X)
    np.testing.assert_allclose(jax.jit(f)(x), program.f(X, 2.0), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(f)(x), 2 * np.cos(X), rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(f)(x), np.diag(-2 * np.sin(X)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(f)(jnp.stack([x, x])), [program.f(X, 2.0)] * 2, rtol=1e-6)


def test_dumps_parse_and_run_again(program):
    from wengert.ir.analysis import to_dot
    from wengert.ir.interp import run
    from wengert.ir.parser import parse_module
    from wengert.ir.printer import print_module

    text = program.loss.ir(
        {"w": X, "b": 0.5, "step": 1}, np.ones((2, 3)), derivative="grad", after="all"
    )
    stages = dict(part.split("\n", 1) for part in text.split("// after ")[1:])
    assert "simplify" in stages and len(stages) > 5
    for name, body in stages.items():
        module = parse_module(body)
        assert print_module(module).strip() == body.strip(), name
        if name == "simplify":
            args = [X, np.float32(0.5), np.int32(1), np.ones((2, 3), np.float32)]
            want = program.loss.grad({"w": X, "b": 0.5, "step": 1}, np.ones((2, 3)))
            np.testing.assert_allclose(run(module, args)[0], want["w"], rtol=1e-5)
    assert to_dot(module).startswith("digraph")
    assert "define" in program.f.llvm(X, 1.0) and "stablehlo" in program.f.stablehlo(X, 1.0)
    assert program.f.asm(X, 1.0)


def test_calls_from_many_threads(program):
    x = np.random.default_rng(0).normal(size=(400, 300)).astype(np.float32)
    p = {"w": np.ones(300, np.float32), "b": 0.0, "step": 0}
    want = program.model(p, x)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(program.model(p, x), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


FORKED = """
import os, numpy as np, wengert as wg
f = wg.compile("fn f(x: real[n]): return sum(exp(sin(x)))").f
x = np.ones(3_000_000, np.float32)
want = f(x)
child = os.fork()
if child == 0:
    os._exit(0 if f(x) == want else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_child_can_call():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


LONG = """
import sys, time
import wengert as wg
f = wg.compile(sys.argv[1]).f
print("ready", flush=True)
try:
    f(1.0)
except KeyboardInterrupt:
    used = time.process_time()
    time.sleep(0.5)
    print("interrupted", "busy" if time.process_time() - used > 0.2 else "idle", flush=True)
"""
ENDLESS = {
    "while": "fn f(x: real):\n    while x > 0.0:\n        x = x + sin(x) * 0.0 + 1.0\n    return x\n",
    "for": "fn f(x: real):\n    for i in 0..2000000000:\n        x = x * 0.5 + 1.0\n    return x\n",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_ctrl_c_stops_a_run_and_nothing_goes_on(kind):
    child = subprocess.Popen(
        [sys.executable, "-c", LONG, ENDLESS[kind]], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline().strip() == "ready"
    time.sleep(1.5)
    os.kill(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert out.strip() == "interrupted idle"


def test_too_much_memory_is_an_error_not_a_crash():
    f = wg.compile("fn f(x: real): return zeros((1000000, 1000000)) + x").f
    with pytest.raises(MemoryError):
        f(1.0)
