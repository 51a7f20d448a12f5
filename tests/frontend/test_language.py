"""What programs mean, run by the reference interpreter on the lowered IR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wengert.frontend.parse import parse
from wengert.ir import WengertError

import wengert as wg


def call(text: str, *args, **kwargs):
    return wg.compile(text, backend="interp").f(*args, **kwargs)


X = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "index",
    [
        "0",
        "-1",
        "1:",
        ":-1",
        "0:3:2",
        "1, 2",
        ":, 1",
        "..., -1",
        "None, 0",
        ":, None, 1:3",
        "1:2, 0:4:3",
    ],
)
def test_static_indexing_is_numpys(index):
    want = eval(f"X[{index}]")
    np.testing.assert_array_equal(call(f"fn f(x: real[n, m]): return x[{index}]", X), want)


def test_run_time_indices_gather_and_clamp():
    i = np.array([2, 0, 7], np.int32)
    np.testing.assert_array_equal(call("fn f(x, i): return x[i]", X, i), X[[2, 0, 2]])
    np.testing.assert_array_equal(call("fn f(x, i): return x[:, i]", X, i), X[:, [2, 0, 3]])
    np.testing.assert_array_equal(call("fn f(x, i): return x[i, i]", X, i), X[[2, 0, 2], [2, 0, 3]])
    assert call("fn f(x, i: i32): return x[i, 1]", X, 9) == X[2, 1]


def test_index_assignment_copies():
    text = "fn f(x):\n    y = x\n    y[1] = 7.0\n    y[:, 0] += 1.0\n    y[0, 1:4:2] = 0.0\n    return x, y"
    x, y = call(text, X)
    want = X.copy()
    want[1] = 7
    want[:, 0] += 1
    want[0, 1:4:2] = 0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, want)


def test_records_tuples_and_shadowing():
    text = """
record Point:
    x: real
    y: real[n]

fn moved(p: Point, by: real) -> Point:
    p.x = p.x + by
    return p

fn f(p: Point, q):
    a, (b, c) = 1.0, (q.u, q.v[0])
    p = moved(p, a + b)
    return {p, sum: p.x + c, pair: (p.y, a)}
"""
    out = call(text, {"x": 1, "y": [1, 2, 3]}, {"u": 2.0, "v": np.ones(2, np.float32)})
    assert out["p"]["x"] == 4 and out["sum"] == 5
    np.testing.assert_array_equal(out["pair"][0], [1, 2, 3])


def test_static_parameters_recursion_and_functions_as_arguments():
    text = """
fn power(x: real, n: static int) -> real:
    if n == 0: return 1.0
    return x * power(x, n - 1)
fn apply(g: static fn, x): return g(g(x))
fn f(x: real, n: static int): return apply(lambda v: power(v, n) + x, x)
"""
    assert call(text, 2.0, 3) == (2**3 + 2) ** 3 + 2


def test_literals_take_the_type_they_meet():
    text = (
        "fn f(x: f64, i: i32): return (x * 2 + 1, i * 2 + 1, 1 / 3, 7 // 2, 2 ^ 3, -7 % 3, i / 2)"
    )
    out = call(text, 1.5, 3)
    assert [np.asarray(v).dtype.name for v in out[:2]] == ["float64", "int32"]
    np.testing.assert_allclose(out, [4, 7, 1 / 3, 3, 8, 2, 1.5], rtol=1e-6)


def test_loops_widen_literal_carries():
    text = "fn f(x: real[n, m]):\n    s = 0\n    for row in x:\n        s = s + row\n    return s"
    np.testing.assert_array_equal(call(text, X), X.sum(axis=0))


def test_run_time_bounds_and_while():
    text = "fn f(n: i32):\n    s = 0\n    for i in 1..n:\n        s += i\n    while s > 10:\n        s -= 10\n    return s"
    assert call(text, 6) == 5


def test_derivatives_in_the_language():
    text = """
fn g(x: real[n], y: real): return sum(x^2) * y
fn f(x: real[n]):
    v, slope = value_and_grad(g, x, 3.0)
    both = grad(g, wrt=(0, 1))(x, 2.0)
    h = hessian(lambda z: sum(z^3), x)
    out, t = jvp(sin, (x,), (x,))
    j = jacobian(lambda z: z * z[0], x)
    return v, slope, both, h, t, j
"""
    x = np.array([1.0, 2.0], np.float32)
    v, slope, both, h, t, j = call(text, x)
    assert v == 15 and both[1] == 5
    np.testing.assert_allclose(slope, 6 * x)
    np.testing.assert_allclose(h, np.diag(6 * x))
    np.testing.assert_allclose(t, np.cos(x) * x, rtol=1e-6)
    np.testing.assert_allclose(j, [[2, 0], [2, 1]])


def test_library_layers_match_their_definitions():
    text = """
import nn
fn f(x: real[n, m], labels: i32[n]):
    return nn.softmax(x), nn.cross_entropy(x, labels), nn.layer_norm(x, 1.0, 0.0), nn.gelu(x)
"""
    soft, loss, norm, gelu = call(text, X, np.array([0, 1, 3]))
    want = np.exp(X - X.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    np.testing.assert_allclose(soft, want, rtol=1e-5)
    np.testing.assert_allclose(loss, -np.log(want[range(3), [0, 1, 3]]), rtol=1e-5)
    np.testing.assert_allclose(norm.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(gelu[0, 1], 0.8413447, rtol=1e-5)


def test_constants_imports_and_degrees(tmp_path):
    (tmp_path / "parts.wg").write_text("const side = 2.0\nfn area(h): return side * h\n")
    (tmp_path / "main.wg").write_text(
        'import "parts.wg" as parts\nconst turn = 90deg\nfn f(h: real): return parts.area(h) + sin(turn) + parts.side\n'
    )
    assert wg.load(tmp_path / "main.wg", backend="interp").f(3.0) == 9.0


def test_import_circles_are_named(tmp_path):
    (tmp_path / "a.wg").write_text("import b\nfn f(x): return x\n")
    (tmp_path / "b.wg").write_text("import a\nfn g(x): return x\n")
    with pytest.raises(WengertError, match="comes back to its own file"):
        wg.load(tmp_path / "a.wg")


def test_unreadable_files_are_told(tmp_path):
    with pytest.raises(WengertError, match="cannot read"):
        wg.load(tmp_path / "none.wg")
    (tmp_path / "bytes.wg").write_bytes(b"fn f(x): return \xff\n")
    with pytest.raises(WengertError, match="not UTF-8"):
        wg.load(tmp_path / "bytes.wg")
    with pytest.raises(WengertError, match="NUL"):
        wg.compile("fn f(x): return x\0")
    with pytest.raises(WengertError, match="nested"):
        wg.compile("fn f(x): return " + "(" * 500 + "x" + ")" * 500)


@settings(max_examples=60, deadline=None)
@given(
    st.text(
        alphabet="fn xy():=+-*/[]{}.,0123456789 \n\t\"'#if else for in return while", max_size=60
    )
)
def test_any_text_parses_or_gets_a_message(text):
    try:
        parse(text)
    except WengertError as error:
        assert error.render()
