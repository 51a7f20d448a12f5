"""Lowering of statements, control flow and functions, against NumPy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import FunctionRef, Static, specialize
from wengert.ir.core import walk
from wengert.ir.types import F32, F64, TensorType

X = [0.5, -1.5, 2.0]
M = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def ops(lowered: Any) -> list[str]:
    return [op.name for f in lowered.module.functions.values() for op in walk(f.body)]


# Arithmetic


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("x + 1", lambda x, m: x + 1),
        ("2 * x - x / 4", lambda x, m: 2 * x - x / 4),
        ("-x^2", lambda x, m: -(x**2)),
        ("x^3", lambda x, m: x**3),
        ("x^-2", lambda x, m: x**-2.0),
        ("(x^2)^0.5", lambda x, m: np.abs(x)),
        ("(x^2)^1.25", lambda x, m: np.abs(x) ** 2.5),
        ("m + x", lambda x, m: m + x),
        ("m[:, None, :] * x[:, None]", lambda x, m: m[:, None, :] * x[:, None]),
        ("m @ x", lambda x, m: m @ x),
        ("m @ m.T", lambda x, m: m @ m.T),
        ("x @ x", lambda x, m: x @ x),
        ("m.T @ m", lambda x, m: m.T @ m),
        ("x // 1", lambda x, m: x // 1),
        ("x % 1", lambda x, m: x % 1),
        ("x > 0 and x < 1", lambda x, m: (x > 0) & (x < 1)),
        ("0 < x < 1", lambda x, m: (x > 0) & (x < 1)),
        ("not (x > 0) or x == 2", lambda x, m: ~(x > 0) | (x == 2)),
        ("x if true else m", lambda x, m: x),
        ("x if sum(x) > 0 else -x", lambda x, m: x),
        ("[x, 2 * x]", lambda x, m: np.stack([x, 2 * x])),
        ("[[1, 2.5], [3, 4]] @ m", lambda x, m: np.array([[1, 2.5], [3, 4]], np.float32) @ m),
        ("x + n * d", lambda x, m: x + 6),
        ("x * (n / d)", lambda x, m: x * np.float32(2 / 3)),
        ("x + f32(2 ^ 3 % 5)", lambda x, m: x + 3),
    ],
)
def test_expressions_are_numpy(run: Any, expression: str, expected: Any) -> None:
    text = f"fn f(x: f32[d], m: f32[n, d]):\n    return {expression}\n"
    x, m = np.array(X, np.float32), np.array(M, np.float32)
    out = run(text, x=x, m=m)
    want = expected(x, m)
    np.testing.assert_allclose(out, want, rtol=2e-6)
    assert out.dtype == np.asarray(want).dtype and out.shape == np.shape(want)


@pytest.mark.parametrize(
    ("left", "right"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)),
     ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((3,), (5, 3, 2)),
     ((5, 2, 3), (3,))],
)  # fmt: skip
def test_matmul_is_numpys(run: Any, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=left), rng.normal(size=right)
    out = run("fn f(a, b): return a @ b\n", a=a, b=b)
    np.testing.assert_allclose(out, a @ b, rtol=1e-12)


def test_literals_take_the_type_they_meet(run: Any) -> None:
    text = "fn f(x, i): return x * 2 + 0.5, i + 1, i / 2, i * 0.5, 3, 2.0, true\n"
    out = run(text, x=np.array(X), i=np.array([1, 2], np.int32))
    assert [o.dtype.name for o in out] == [
        "float64", "int32", "float32", "float32", "int32", "float32", "bool",
    ]  # fmt: skip
    np.testing.assert_array_equal(out[2], [0.5, 1.0])


def test_weak_values_adapt_too(run: Any) -> None:
    text = """
fn f(x: f64[n], c: bool):
    sign = 1 if c else -1
    weights = [1, 2, 3]
    count = 0
    for v in x:
        count += 1
    return sign * x, weights * x, x / count, zeros(n) + x
"""
    x = np.array(X)
    out = run(text, x=x, c=False)
    for got, want in zip(out, (-x, x * [1, 2, 3], x / 3, x), strict=True):
        np.testing.assert_allclose(got, want)
        assert got.dtype == np.float64


def test_real_is_the_default_float(run: Any) -> None:
    text = "fn f(x: real[n]) -> real[n]: return x * 0.1\n"
    assert run(text, x=X).dtype == np.float32
    assert run(text, real=F64, x=X).dtype == np.float64


# Names, records, updates


def test_static_arithmetic_stays_static(run: Any) -> None:
    text = """
fn triangle(d: static int):
    return d * (d + 1) // 2
fn f(x: f32[n]) -> f32[n * (n + 1) // 2]:
    size = triangle(n)
    assert size == triangle(len(x)) and max(n, 2) == n, "sizes"
    return zeros((size,)) + x[min(n - 1, 1)]
"""
    np.testing.assert_array_equal(run(text, x=X), np.full(6, -1.5))


def test_records_tuples_and_updates(run: Any) -> None:
    text = """
record Inner:
    w: f32[n, m]
    b: f32[m]
record Net:
    first: Inner
    second: Inner
    count: i32

fn make(x: f32[n], m: static int) -> Inner:
    return Inner(w=x[:, None] * ones(m), b={z: zeros(m)}.z)

fn f(x: f32[n]):
    net = Net(make(x, 2), make(x[:2], 4), 0)
    net.first.w[0, 1] = 7.0
    net.second.b += 1
    net.count += n
    a, (b, c) = 1.0, (net.first.b, net.second)
    t = (a, b)
    t[0] = 5
    return net, t, c.b
"""
    net, t, b = run(text, x=X)
    w = np.tile(np.array(X)[:, None], (1, 2))
    w[0, 1] = 7
    np.testing.assert_array_equal(net["first"]["w"], w)
    np.testing.assert_array_equal(net["second"]["b"], np.ones(4))
    assert int(net["count"]) == 3 and int(t[0]) == 5
    np.testing.assert_array_equal(b, np.ones(4))


def test_two_records_of_one_type_keep_their_own_sizes(run: Any) -> None:
    text = """
record Layer:
    w: f32[n, m]
    b: f32[m]
fn through(l: Layer, x: f32[k, n]) -> f32[k, m]:
    return x @ l.w + l.b
fn f(one: Layer, two: Layer, x: f32[k, i]):
    return through(two, through(one, x))
"""
    rng = np.random.default_rng(1)
    one = {"w": rng.normal(size=(3, 4)).astype("f4"), "b": rng.normal(size=4).astype("f4")}
    two = {"w": rng.normal(size=(4, 2)).astype("f4"), "b": rng.normal(size=2).astype("f4")}
    x = np.array(M, np.float32)
    want = (x @ one["w"] + one["b"]) @ two["w"] + two["b"]
    np.testing.assert_allclose(run(text, one=one, two=two, x=x), want, rtol=1e-5)


def test_shadowing_by_rebinding(run: Any) -> None:
    text = """
fn f(x: f32[n]):
    y = x
    g = lambda v: v + y[0]
    y = y * 100
    y += 1
    n = g(1.0)
    return n, y
"""
    n, y = run(text, x=X)
    assert n == 1.5
    np.testing.assert_array_equal(y, np.array(X, np.float32) * 100 + 1)


# Control flow


def test_if_rebinds_names(run: Any) -> None:
    text = """
fn f(x: f32):
    y = 0
    z = (x, 1)
    if x > 1:
        y = x * 2
        z = (2 * x, 2)
        t = x
    elif x > 0:
        y = 3
        t = -x
    else:
        t = 0.5
    return y, z, t
"""
    for x, want in [(2.0, (4, (4, 2), 2)), (0.5, (3, (0.5, 1), -0.5)), (-1.0, (0, (-1, 1), 0.5))]:
        y, z, t = run(text, x=x)
        assert (y, (z[0], z[1]), t) == want
        assert y.dtype == np.float32 and z[1].dtype == np.int32


def test_a_static_condition_lowers_one_branch(run: Any) -> None:
    text = """
fn f(x: f32[n], flag: static bool):
    if n > 2 and flag:
        return x[2]
    y = x[0] if n == 1 else x[1]
    if false:
        y = nonsense_of_types(x) + "text"
    return y
fn nonsense_of_types(x): return x @ x @ x
"""
    assert run(text, x=X, flag=Static(True)) == 2
    assert run(text, x=[1.0, 7.0], flag=Static(True)) == 7
    assert run(text, x=[1.0], flag=Static(False)) == 1


def test_early_returns(run: Any) -> None:
    text = """
fn f(x: f32, y: f32) -> f32:
    if x > 10:
        return 1
    z = x * 2
    if x > 5:
        if y > 0:
            return z
        z = z + 100
    elif y > 1000:
        return 3.0
    else:
        z -= 1
    return z + y
"""

    def want(x: float, y: float) -> float:
        if x > 10:
            return 1
        z = x * 2
        if x > 5:
            if y > 0:
                return z
            z = z + 100
        elif y > 1000:
            return 3
        else:
            z -= 1
        return z + y

    for x in (11.0, 6.0, 1.0):
        for y in (-1.0, 2.0, 2000.0):
            assert run(text, x=x, y=y) == want(x, y)


def test_loops_carry_what_they_rebind(run: Any) -> None:
    text = """
fn f(x: f32[n]):
    s = 0
    p = 1.0
    v = 0.0
    ys = zeros(n)
    for i in 0..n:
        t = x[i] * f32(i)
        s += t
        p *= x[i]
        v = v + x
        ys[i] = s
    for i in 2..5:
        s += f32(i)
    return s, p, v, ys, i_free(n)
fn i_free(n: static int):
    total = 0
    for i in 0..n:
        for j in i_range(n):
            total += i * j
    return total
fn i_range(n: static int): return arange(n)
"""
    x = np.array(X, np.float32)
    s, p, v, ys, total = run(text, x=x)
    np.testing.assert_allclose(s, np.sum(x * np.arange(3)) + 9)
    np.testing.assert_allclose(p, np.prod(x))
    np.testing.assert_allclose(v, 3 * x)
    np.testing.assert_allclose(ys, np.cumsum(x * np.arange(3)))
    assert total == 9


def test_loop_types_strengthen_through_nesting_and_structure(run: Any) -> None:
    text = """
fn f(x: f64[n, d]):
    acc = (0, {best: 0.0, at: 0})
    for i in 0..n:
        inner = 0
        for v in x[i]:
            inner += v
        better = inner > acc[1].best
        acc = (acc[0] + inner, {best: inner if better else acc[1].best, at: i if better else acc[1].at})
    return acc
"""
    x = np.array(M)
    total, best = run(text, x=x)
    assert total.dtype == np.float64 and best["at"].dtype == np.int32
    assert (total, best["best"], best["at"]) == (21, 15, 1)


def test_a_name_may_have_another_type_inside_a_loop(run: Any) -> None:
    text = """
fn f(x: f32[n]):
    t = true
    s = 0.0
    for i in 0..n:
        t = x[i]
        s += t
    return s
"""
    assert run(text, x=X) == 1.0


def test_loops_over_arrays_tuples_and_zips(run: Any) -> None:
    text = """
fn f(x: f32[n, d], y: f32[n]):
    s = 0.0
    for row in x:
        s += sum(row)
    for row, v in zip(x, y):
        s += row[0] * v
    for i, v in enumerate(y):
        s += f32(i) * v
    for g in (sin, cos, lambda v: v * 100):
        s += g(1.0)
    for k, w in zip((1, 2), (x[0], y)):
        s += k * len(w)
    p = {a: y, b: x}
    for r in p:
        s += r.a + sum(r.b)
    return s
"""
    x, y = np.array(M, np.float32), np.array([3.0, 4.0], np.float32)
    want = 21 + (3 + 16) + 4 + np.sin(1) + np.cos(1) + 100 + (3 + 4) + 7 + 21
    np.testing.assert_allclose(run(text, x=x, y=y), want, rtol=1e-6)


def test_while_and_run_time_ranges(run: Any, lower: Any) -> None:
    text = """
fn f(x: f32, k: i32):
    steps = 0
    while x > 1 max 50:
        x = x / 2
        steps += 1
    total = 0
    for i in steps..k:
        total += i
    for i in 0..i64(k):
        total += 1
    return x, steps, total
"""
    x, steps, total = run(text, x=20.0, k=8)
    assert (x, steps, total) == (0.625, 5, 5 + 6 + 7 + 8)
    (limited, *_) = [
        o for o in walk(lower(text, x=20.0, k=8).module.main.body) if o.name == "while"
    ]
    assert limited.attrs["max_trips"] == 50


def test_checkpoint_policy_reaches_the_op(lower: Any) -> None:
    text = "fn f(x: f32):\n    for i in 0..3 checkpoint sqrt:\n        x = x * x\n    return x\n"
    (loop,) = [o for o in walk(lower(text, x=1.0).module.main.body) if o.name == "for"]
    assert loop.attrs["checkpoint"] == "sqrt"


def test_comprehensions(run: Any) -> None:
    text = """
fn f(x: f32[n], m: f32[k, n]):
    a = [v * 2 for v in x]
    b = [i * 10 + j for i in 0..2 for j in 1..4]
    c = [{s: sum(r), t: (r[0], r)} for r in m]
    d = [g(x[0]) for g in (sin, cos)]
    e = [u + v for u, v in zip(x, m[0])]
    return a, b, c, d, e, [0.0 for i in 0..0]
"""
    x, m = np.array(X, np.float32), np.array(M, np.float32)
    a, b, c, d, e, empty = run(text, x=x, m=m)
    np.testing.assert_allclose(a, 2 * x)
    np.testing.assert_array_equal(b, [[1, 2, 3], [11, 12, 13]])
    np.testing.assert_allclose(c["s"], m.sum(1))
    np.testing.assert_allclose(c["t"][0], m[:, 0])
    np.testing.assert_allclose(c["t"][1], m)
    np.testing.assert_allclose(d, [np.sin(0.5), np.cos(0.5)], rtol=1e-6)
    np.testing.assert_allclose(e, x + m[0])
    assert empty.shape == (0,)


# Functions


def test_functions_are_specialised_once_an_argument_type(lower: Any) -> None:
    text = """
fn sq(x): return x * x
fn f(x: f32[n], y: f32):
    return sq(x) + sq(y) + sq(x + 1) + sq(2.0) + sq(3.0)
"""
    lowered = lower(text, x=X, y=1.0)
    assert sorted(lowered.module.functions) == ["f", "sq", "sq_2", "sq_3"]
    assert ops(lowered).count("call") == 5


def test_defaults_keywords_and_function_parameters(run: Any) -> None:
    text = """
const scale = 10.0
fn apply(g: static fn, x, times: static int = 2, shift = scale):
    for i in 0..times:
        x = g(x)
    return x + shift
fn double(x): return 2 * x
fn f(x: f32, y: f32 = 3.0):
    return apply(double, x), apply(lambda v: v + y, x, shift=0, times=3), apply(g=sin, x=x)
"""
    a, b, c = run(text, x=1.0)
    np.testing.assert_allclose([a, b, c], [14, 10, np.sin(np.sin(1)) + 10], rtol=1e-6)


def test_local_functions_close_over_values(run: Any) -> None:
    text = """
fn f(x: f32[n]):
    k = 2.0
    fn inner(v: f32[m], power: static int) -> f32[m]:
        if power == 0:
            return ones(m)
        return inner(v, power - 1) * v * k
    total = [inner(x * f32(i), 2) for i in 0..3]
    return total
"""
    x = np.array(X, np.float32)
    want = np.stack([4 * (x * i) ** 2 for i in range(3)])
    np.testing.assert_allclose(run(text, x=x), want)


def test_functions_may_return_functions(run: Any) -> None:
    text = """
fn compose(f: static fn, g: static fn): return lambda x: f(g(x))
fn pick(n: static int): return sin if n == 1 else cos
fn adder(y): return lambda x: x + y
fn f(x: f32): return compose(pick(1), adder(x * 2))(x), pick(2)(x)
"""
    a, b = run(text, x=0.3)
    np.testing.assert_allclose([a, b], [np.sin(0.9), np.cos(0.3)], rtol=1e-6)


def test_static_recursion(run: Any) -> None:
    text = """
fn fact(n: static int):
    return 1 if n == 0 else n * fact(n - 1)
fn tree(x: f32[n]):
    if n == 1:
        return x[0]
    return tree(x[:n // 2]) + tree(x[n // 2:])
fn down(n: static int, x): return x if n == 0 else down(n - 1, x + 1)
fn f(x: f32[n]): return fact(5) + tree(x) + down(200, 0.0)
"""
    np.testing.assert_allclose(run(text, x=X), 120 + 1 + 200)


def test_function_arguments_from_outside(run: Any) -> None:
    text = "fn twice(g: static fn, x: f32): return g(g(x))\n"
    other = compile_text("fn inc(v): return v + 1\n", "other.wg")
    ref = FunctionRef(other, "inc")
    assert run(text, "twice", g=Static(ref), x=1.0) == 3


def test_defaults_of_the_entry_are_computed_inside(run: Any) -> None:
    text = "fn f(x: f32[n], y: f32 = 2.0, k: static int = 3):\n    return x * y + k\n"
    np.testing.assert_array_equal(run(text, x=X), np.array(X, np.float32) * 2 + 3)
    np.testing.assert_array_equal(run(text, x=X, k=Static(0)), np.array(X, np.float32) * 2)


def test_results_may_leave_sizes_open(run: Any) -> None:
    text = "fn f(x: f32[n, d]) -> (f32[m], f32[m]): return flatten(x), flatten(x)\n"
    assert run(text, x=M)[0].shape == (6,)


def test_unused_functions_and_names_of_values(lower: Any) -> None:
    text = """
fn helper(v): return v
fn f(x: f32[n]):
    total = sum(x)
    return total * 2
"""
    lowered = lower(text, x=X)
    assert list(lowered.module.functions) == ["f"]
    assert [p.name for p in lowered.module.main.params] == ["x"]
    assert "total" in {v.name for op in lowered.module.main.body.ops for v in op.results}
    assert lowered.params == (("x", TensorType(F32, (3,))),)


def test_ops_carry_the_place_of_their_expression(lower: Any) -> None:
    text = "fn f(x: f32):\n    y = exp(x)\n    return y + 1\n"
    spans = {op.name: str(op.span) for op in lower(text, x=1.0).module.main.body.ops}
    assert spans["exp"] == "test.wg:2:9" and spans["add"] == "test.wg:3:12"


# Speed


def test_ten_thousand_statements_lower_quickly() -> None:
    lines = ["fn f(x: f32[n], y: f32[n]):", "    v0 = x + y", "    v1 = x * y"]
    lines += [f"    v{i} = v{i - 1} * 0.5 + v{i - 2}" for i in range(2, 10_000)]
    program = compile_text("\n".join([*lines, "    return v9999", ""]))
    vector = TensorType(F32, (100,))
    start = time.process_time()
    lowered = specialize(program, "f", {"x": vector, "y": vector})
    taken = time.process_time() - start
    assert len(lowered.module.main.body.ops) > 20_000
    assert taken < 4.0  # 0.7 s where it was written


def test_long_sums_do_not_nest(run: Any) -> None:
    text = "fn f(x: f32): return " + " + ".join(["x"] * 5000) + "\n"
    assert run(text, x=1.0) == 5000


def test_record_types_of_imported_files(run: Any, seed: Any) -> None:
    text = """
import nn
record Net:
    first: nn.Linear
    scale: real[h]
fn sizes(net: Net, layer: nn.Linear, x: real[n, d]): return n * 10 + d, h
fn f(k: key, x: real[b, d]):
    layer = nn.linear_init(k, d, 5)
    net = Net(layer, ones(7))
    return nn.dense(net.first, x), sizes(net, layer, x)
"""
    out, (both, h) = run(text, k=seed(0), x=M)
    assert out.shape == (2, 5) and int(both) == 23 and int(h) == 7
