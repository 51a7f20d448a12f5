"""Derivatives inside programs: higher order, custom rules, and that no `diff.*` op is left."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import F64, I32, TensorType
from wengert.passes.expand_diff import expand_diff
from wengert.passes.jvp import NotDifferentiable

SCALAR = TensorType(F64)
NO_RULE = {"jvp": "", "fwd": "", "bwd": ""}


def add(module, name, types, make):
    """Add a function; types are shapes of f64 arrays or tensor types."""
    types = [t if isinstance(t, TensorType) else TensorType(F64, tuple(t)) for t in types]
    block = Block([Value(t, f"x{i}") for i, t in enumerate(types)])
    out = make(Builder(block), *block.params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return module.add(Function(name, block))


def result_types(module, name):
    """Types of a function's results."""
    return [r.type for r in module.functions[name].results]


def call(b, module, name, *args, **rules):
    """Results of a call, with the derivative rules given."""
    return b.op("call", args, fn=name, types=result_types(module, name), **(NO_RULE | rules))


def pull(b, module, name, args, cts, wrt):
    """Results and cotangents: a diff.vjp op."""
    types = [*result_types(module, name), *(args[i].type for i in wrt)]
    return b.op("diff.vjp", [*args, *cts], fn=name, wrt=wrt, types=types)


def push(b, module, name, args, ts, wrt):
    """Results and tangents: a diff.jvp op."""
    types = result_types(module, name)
    floats = [t for t in types if t.dtype.is_float]
    return b.op("diff.jvp", [*args, *ts], fn=name, wrt=wrt, types=[*types, *floats])


def gradient(module, name, of):
    """Add function `name`: the gradient of the scalar function `of` in its first argument."""
    types = [p.type for p in module.functions[of].params]

    def make(b, *args):
        return pull(b, module, of, args, [b.const(1.0, F64)], (0,))[-1]

    return add(module, name, types, make)


def expanded(module, *args):
    """The entry's results after expansion, which must leave no derivative or call."""
    out = expand_diff(module)
    names = {op.name for op in walk(out.main.body)}
    assert not {n for n in names if n.startswith("diff.") or n in ("call", "linear_call")}
    return run(out, [np.asarray(a) for a in args])


def quartic(module):
    """f(x, w) = sum(tanh(x)^2 w x) + prod-like coupling, over x: [3]."""

    def make(b, x, w):
        t = b.tanh(x)
        first = b.reduce_sum(b.mul(b.mul(t, t), b.mul(w, x)), axes=(0,))
        return b.add(first, b.exp(b.reduce_sum(b.mul(b.sin(x), w), axes=(0,))))

    add(module, "f", [(3,), (3,)], make)


def jax_quartic(x, w):
    import jax.numpy as jnp

    return jnp.sum(jnp.tanh(x) ** 2 * w * x) + jnp.exp(jnp.sum(jnp.sin(x) * w))


X = np.array([0.3, -0.8, 1.1])
W = np.array([0.5, 0.2, -0.4])
V = np.array([1.0, -2.0, 0.5])


@pytest.fixture
def jax64():
    """JAX computing in f64."""
    import jax

    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        yield jax


def test_gradient_equals_jax(jax64):
    m = Module({}, "g")
    quartic(m)
    gradient(m, "g", "f")
    np.testing.assert_allclose(expanded(m, X, W)[0], jax64.grad(jax_quartic)(X, W), rtol=1e-12)


def test_hessian_vector_product_each_way_equals_jax(jax64):
    want = jax64.hessian(jax_quartic)(X, W) @ V
    m = Module({}, "forward_over_reverse")
    quartic(m)
    gradient(m, "g", "f")
    add(
        m,
        "forward_over_reverse",
        [(3,), (3,), (3,)],
        lambda b, x, w, v: push(b, m, "g", [x, w], [v], (0,))[1],
    )
    np.testing.assert_allclose(expanded(m, X, W, V)[0], want, rtol=1e-11)

    add(
        m,
        "reverse_over_reverse",
        [(3,), (3,), (3,)],
        lambda b, x, w, v: pull(b, m, "g", [x, w], [v], (0,))[1],
    )
    m.entry = "reverse_over_reverse"
    np.testing.assert_allclose(expanded(m, X, W, V)[0], want, rtol=1e-11)

    add(m, "slope", [(3,), (3,), (3,)], lambda b, x, w, v: push(b, m, "f", [x, w], [v], (0,))[1])
    add(
        m,
        "reverse_over_forward",
        [(3,), (3,), (3,)],
        lambda b, x, w, v: pull(b, m, "slope", [x, w, v], [b.const(1.0, F64)], (0,))[1],
    )
    m.entry = "reverse_over_forward"
    np.testing.assert_allclose(expanded(m, X, W, V)[0], want, rtol=1e-11)


def test_third_derivative(jax64):
    m = Module({}, "f3")

    def make(b, x):
        body = Block([Value(TensorType(I32), "i"), Value(SCALAR, "c")])
        inner = Builder(body)
        body.results = [inner.sin(inner.mul(body.params[1], x))]
        return b.op("for", [x], [body], trips=3, carries=1)

    add(m, "f", [()], make)
    for k in range(1, 4):
        gradient(m, f"f{k}", "f" if k == 1 else f"f{k - 1}")

    def reference(x):
        c = x
        for _ in range(3):
            c = jax64.numpy.sin(c * x)
        return c

    want = jax64.grad(jax64.grad(jax64.grad(reference)))(0.7)
    np.testing.assert_allclose(expanded(m, 0.7)[0], want, rtol=1e-9)


def test_gradient_inside_the_function_differentiated(jax64):
    """h(x) = g'(x)^2 in a loop; its derivative needs the inner request expanded first."""
    m = Module({}, "dh")
    add(m, "g", [()], lambda b, x: b.mul(b.exp(x), b.sin(x)))
    gradient(m, "dg", "g")

    def make(b, x):
        body = Block([Value(TensorType(I32), "i"), Value(SCALAR, "c")])
        inner = Builder(body)
        (slope,) = call(inner, m, "dg", body.params[1])
        body.results = [inner.mul(inner.const(0.1, F64), inner.mul(slope, slope))]
        return b.op("for", [x], [body], trips=2, carries=1)

    add(m, "h", [()], make)
    gradient(m, "dh", "h")
    slope = jax64.grad(lambda x: jax64.numpy.exp(x) * jax64.numpy.sin(x))

    def reference(x):
        return 0.1 * slope(0.1 * slope(x) ** 2) ** 2

    np.testing.assert_allclose(expanded(m, 0.4)[0], jax64.grad(reference)(0.4), rtol=1e-11)


def with_jvp_rule(m):
    """cube(x) = x^3 whose own rule gives 30 times the slope for x > 0, to be told apart."""
    add(m, "cube", [()], lambda b, x: b.mul(x, b.mul(x, x)))

    def rule(b, x, t):
        (y,) = call(b, m, "cube", x, jvp="cube_rule")
        test = b.gt(x, b.const(0, F64))

        def branch(scale):
            block = Block()
            inner = Builder(block)
            slope = inner.mul(inner.const(scale, F64), inner.mul(x, x))
            block.results = [inner.mul(t, slope)]
            return block

        (dy,) = b.op("if", [test], [branch(30.0), branch(3.0)])
        return [y, dy]

    add(m, "cube_rule", [(), ()], rule)
    add(m, "f", [()], lambda b, x: b.sin(call(b, m, "cube", x, jvp="cube_rule")[0]))


@pytest.mark.parametrize(("x", "scale"), [(0.7, 30.0), (-0.7, 3.0)])
def test_custom_jvp_serves_both_modes(x, scale):
    m = Module({}, "g")
    with_jvp_rule(m)
    want = np.cos(x**3) * scale * x**2
    gradient(m, "g", "f")
    np.testing.assert_allclose(expanded(m, x)[0], want, rtol=1e-12)
    add(m, "j", [(), ()], lambda b, x, t: push(b, m, "f", [x], [t], (0,))[1])
    m.entry = "j"
    np.testing.assert_allclose(expanded(m, x, 2.0)[0], 2 * want, rtol=1e-12)


def test_custom_jvp_at_second_order():
    """The rule calls the function itself, whose rule holds again one order up."""
    m = Module({}, "h")
    with_jvp_rule(m)
    gradient(m, "g", "f")
    gradient(m, "h", "g")
    x = 0.7
    slope = 30 * x**2
    want = -np.sin(x**3) * slope * slope + np.cos(x**3) * 60 * x
    np.testing.assert_allclose(expanded(m, x)[0], want, rtol=1e-12)


def test_custom_jvp_in_a_loop_with_a_constant_argument():
    m = Module({}, "g")
    add(m, "scale", [(), ()], lambda b, x, y: b.mul(x, y))

    def rule(b, x, y, dx, dy):
        (z,) = call(b, m, "scale", x, y)
        twice = b.add(b.mul(dx, y), b.mul(dy, x))
        return [z, b.mul(twice, b.const(2.0, F64))]

    add(m, "scale_rule", [(), (), (), ()], rule)

    def make(b, x):
        body = Block([Value(TensorType(I32), "i"), Value(SCALAR, "c")])
        inner = Builder(body)
        half = inner.const(0.5, F64)
        body.results = list(call(inner, m, "scale", body.params[1], half, jvp="scale_rule"))
        return b.op("for", [x], [body], trips=3, carries=1)

    add(m, "f", [()], make)
    gradient(m, "g", "f")
    np.testing.assert_allclose(expanded(m, 0.3)[0], (2 * 0.5) ** 3)


def with_vjp_rule(m):
    """norm(x) = |x|^2 with residuals kept by hand; its rule gives 5 x instead of 2 x."""
    add(m, "norm", [(3,)], lambda b, x: b.reduce_sum(b.mul(x, x), axes=(0,)))
    rules = {"fwd": "forward", "bwd": "backward"}
    add(m, "forward", [(3,)], lambda b, x: [*call(b, m, "norm", x, **rules), x])

    def backward(b, x, ct):
        return b.mul(b.mul(b.const(5.0, x), x), b.broadcast(ct, shape=(3,), axes=()))

    add(m, "backward", [(3,), ()], backward)

    def make(b, x):
        (y,) = call(b, m, "norm", b.sin(x), **rules)
        return b.exp(y)

    add(m, "f", [(3,)], make)


def test_custom_vjp():
    m = Module({}, "g")
    with_vjp_rule(m)
    gradient(m, "g", "f")
    want = np.exp(np.sum(np.sin(X) ** 2)) * 5 * np.sin(X) * np.cos(X)
    np.testing.assert_allclose(expanded(m, X)[0], want, rtol=1e-12)


def test_custom_vjp_twice():
    m = Module({}, "h")
    with_vjp_rule(m)
    gradient(m, "g", "f")
    add(m, "h", [(3,), (3,)], lambda b, x, v: pull(b, m, "g", [x], [v], (0,))[1])
    m.entry = "h"

    # The forward rule calls norm itself, so the factor is 5, not 2, one order up too.
    s, c = np.sin(X), np.cos(X)
    value = np.exp(np.sum(s**2))
    want = value * 5 * s * c * np.sum(V * 5 * s * c) + value * 5 * (c * c - s * s) * V
    np.testing.assert_allclose(expanded(m, X, V)[0], want, rtol=1e-12)


def test_custom_vjp_has_no_forward_mode():
    m = Module({}, "j")
    with_vjp_rule(m)
    add(m, "j", [(3,), (3,)], lambda b, x, t: push(b, m, "f", [x], [t], (0,))[1])
    with pytest.raises(NotDifferentiable, match="no forward-mode.*\n.*@jvp"):
        expand_diff(m)


def test_the_module_given_is_left_alone():
    m = Module({}, "g")
    quartic(m)
    gradient(m, "g", "f")
    before = (list(m.functions), [op.name for op in walk(m.main.body)])
    expand_diff(m)
    assert (list(m.functions), [op.name for op in walk(m.main.body)]) == before


def test_integer_arguments_and_results():
    m = Module({}, "g")

    def f(b, x, n):
        scaled = b.mul(x, b.convert(n, dtype=F64))
        return [b.add(n, n), b.mul(scaled, scaled)]

    add(m, "f", [(), TensorType(I32)], f)
    add(
        m,
        "g",
        [(), TensorType(I32)],
        lambda b, x, n: pull(b, m, "f", [x, n], [b.const(1.0, F64)], (0,)),
    )
    doubled, value, slope = expanded(m, 0.5, np.int32(3))
    assert (doubled, value, slope) == (6, 2.25, 9.0)


def test_ten_thousand_ops_in_a_second():
    import time

    m = Module({}, "g")

    def f(b, x):
        y = x
        for k in range(2500):
            y = b.sub(b.sin(b.mul(y, b.const(1.0 + k * 1e-4, F64))), x)
        return y

    add(m, "f", [()], f)
    from wengert.passes.derivatives import vjp_function

    start = time.process_time()
    name = vjp_function(m, "f", (0,))
    assert time.process_time() - start < 1.0
    (value, slope) = run(m, [np.array(0.3), np.array(1.0)], name)
    step = 1e-7
    above, below = (run(m, [np.array(0.3 + d)], "f")[0] for d in (step, -step))
    assert np.isfinite(value)
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-4)
