"""Bad and odd input on both backends: a clear error or the right result, never anything else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wengert.backends import memory
from wengert.backends.llvm import kernels
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.types import F32, TensorType
from wengert.passes.bufferize import bufferize
from wengert.passes.nesting import DEEPEST

import wengert as wg

BACKENDS = ("llvm", "xla")
TEXT = """
record Params:
    w: real[n]
    b: real

fn double(x: f32[n]): return x * 2
fn wide(x: f64[n]): return x * 2
fn matrix(x: real[n, q]): return x * 2
fn scaled(x: real[n], k: real): return x * k
fn free(x): return x
fn both(x: real[n], y: real[n]): return x + y
fn beside(x: real[n], y: real[n, 2]): return x @ y
fn count(n: i32): return n + 1
fn long(n: i64): return n + 1
fn flag(b: bool): return not b
fn model(p: Params): return sum(p.w) + p.b
fn pair(t: (real, real[n])): return t[0] + t[1]
fn times(x: real, n: static int): return x * n
fn raised(x: real, a: static float): return x * a
fn filled(n: static int): return zeros(n)
fn drawn(k: key): return normal(k, (3,))
fn total(x: real[n]): return sum(x^2)
fn sorted(x: real[n]): return sort(x)
"""
X = np.array([1.0, 2.0, 3.0], np.float32)
M = np.arange(6, dtype=np.float32).reshape(2, 3)
Call = Callable[[Any], Any]


@pytest.fixture(scope="module", params=BACKENDS)
def program(request: pytest.FixtureRequest) -> Any:
    return wg.compile(TEXT, backend=request.param)


def circular() -> dict[str, Any]:
    inside: dict[str, Any] = {}
    inside["again"] = inside
    return inside


REFUSED: dict[str, tuple[Call, str]] = {
    # shapes and sizes
    "too many axes": (lambda p: p.double(M), "has 2 axes"),
    "too few axes": (lambda p: p.double(np.array(2.0)), "has 0 axes"),
    "an array for a number": (lambda p: p.scaled(X, [2.0]), "has 1 axes"),
    "sizes that differ": (lambda p: p.both(X, X[:2]), "n = 3, as in 'x'"),
    "sizes that differ in one axis": (lambda p: p.beside(X, np.ones((4, 2))), "n = 4 in 'y'"),
    "another size than declared": (lambda p: p.beside(X, np.ones((3, 3))), "expected: 2\n"),
    "sizes in a record": (lambda p: p.model({"w": M, "b": 1.0}), "'Params.w'"),
    "a batch of two lengths": (lambda p: p.both.batched(M, M[:1]), "one length"),
    "a tangent of another shape": (lambda p: p.total.jvp((X,), X[:2]), "wrong shape"),
    # arguments
    "missing": (lambda p: p.scaled(X), "misses 1 argument 'k'"),
    "none at all": (lambda p: p.scaled(), "misses 2 arguments"),
    "extra": (lambda p: p.double(X, X), "too many arguments"),
    "unknown keyword": (lambda p: p.scaled(X, kk=1.0), "did you mean 'k'?"),
    "given twice": (lambda p: p.scaled(X, 1.0, x=X), "twice"),
    "missing field": (lambda p: p.model({"w": X}), "fields w, b"),
    "extra field": (lambda p: p.model({"w": X, "b": 1.0, "c": 2}), "fields w, b"),
    "fields that are no names": (lambda p: p.model({1: X, "b": 1.0}), "fields 1, b"),
    "a record with numbers as names": (lambda p: p.free({1: X}), "names as keys"),
    "a list for a record": (lambda p: p.model([X, 1.0]), "a list of 2 items"),
    "a tuple of another length": (lambda p: p.pair((1.0,)), "a tuple of 2 items"),
    "a value that contains itself": (lambda p: p.free(circular()), "nests without end"),
    "derivative by a number": (lambda p: p.total.grad(X, wrt=0), "names one parameter"),
    "derivative by nothing": (lambda p: p.total.grad(X, wrt=[]), "once"),
    "primals without a tuple": (lambda p: p.total.jvp(X, X), "primals as a tuple"),
    "tangents without a tuple": (lambda p: p.scaled.jvp((X, 1.0), 1.0, wrt=("x", "k")), "tangents as a tuple"),
    "axes without a dict": (lambda p: p.scaled.batched(M, X[:2], axes=["k"]), "a dict by argument"),
    # dtypes
    "objects": (lambda p: p.double(np.array([1.0, 2.0], object)), "dtype object"),
    "text": (lambda p: p.double("abc"), "not a number"),
    "text in a list": (lambda p: p.double(["1"]), "not numeric"),
    "bytes": (lambda p: p.double(b"abc"), "not a number"),
    "nothing": (lambda p: p.double(None), "not a number"),
    "a function": (lambda p: p.free(lambda x: x), "not a number"),
    "a set": (lambda p: p.free({1.0}), "not numeric"),
    "dates": (lambda p: p.double(np.array(["2020-01-01"], "datetime64[D]")), "not numeric"),
    "complex numbers": (lambda p: p.double(X + 1j), "complex"),
    "ragged lists": (lambda p: p.double([[1.0], [1.0, 2.0]]), "rectangular"),
    "arrays of two lengths": (lambda p: p.free([X, M]), "rectangular"),
    "gaps": (lambda p: p.double(np.ma.masked_array(X, [True, False, False])), "x.filled"),
    "a bool for an integer": (lambda p: p.count(True), "wrong dtype"),
    "a bool for a float": (lambda p: p.scaled(X, True), "wrong dtype"),
    "an integer for a bool": (lambda p: p.flag(1), "wrong dtype"),
    "a float for an integer": (lambda p: p.count(1.0), "wrong dtype"),
    "bfloat16": (lambda p: p.free(jnp.ones(2, jnp.bfloat16)), "bfloat16"),
    "a seed for a key": (lambda p: p.drawn(3), "wg.key(seed)"),
    "three words for a key": (lambda p: p.drawn(np.zeros(3, np.uint32)), "not a random key"),
    "two keys for one": (lambda p: p.drawn(np.zeros((2, 2), np.uint32)), "has 1 axes"),
    "a float for a static integer": (lambda p: p.times(1.0, 2.0), "static int"),
    # numbers that do not fit
    "i32": (lambda p: p.count(2**31), "overflows"),
    "i64": (lambda p: p.long(2**63), "overflows"),
    "unsigned to i64": (lambda p: p.long(np.uint64(2**63)), "overflows"),
    "an integer of a hundred bits": (lambda p: p.scaled(X, 2**99), "100 bits"),
    "an integer that Python does not print": (lambda p: p.count(10**5000), "bits"),
    "integers in a list": (lambda p: p.double([2**99]), "100 bits"),
    "integers with too many digits for f32": (lambda p: p.double([2**53 + 1]), "exactly"),
    "integers with too many digits for f64": (lambda p: p.wide(np.array([2**62 + 1])), "exactly"),
    "the largest integer as f64": (lambda p: p.wide(np.array([2**63 - 1])), "exactly"),
    "a static integer": (lambda p: p.times(1.0, 2**63), "64 bits"),
    "a static float": (lambda p: p.raised(1.0, 10**400), "64 bits"),
    "a size": (lambda p: p.filled(2**62), "too large"),
    "a size below zero": (lambda p: p.filled(-1), "negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_an_argument_is_told(program: Any, name: str) -> None:
    call, text = REFUSED[name]
    with pytest.raises(wg.WengertError) as error:
        call(program)
    assert text in str(error.value)
    np.testing.assert_array_equal(program.double(X), 2 * X)


def frozen(x: Any) -> Any:
    out = x.copy()
    out.flags.writeable = False
    return out


def unaligned(x: Any) -> Any:
    return np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)


TAKEN: dict[str, Callable[[Any], Any]] = {
    "f64": lambda x: x.astype(np.float64),
    "half": lambda x: x.astype(np.float16),
    "quadruple": lambda x: x.astype(np.longdouble),
    "integers": lambda x: x.astype(np.int64),
    "unsigned": lambda x: x.astype(np.uint8),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian integers": lambda x: x.astype(">i8"),
    "Fortran order": np.asfortranarray,
    "Fortran order in f64": lambda x: np.asfortranarray(x.astype(np.float64)),
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "every second element": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strides of zero": lambda x: np.broadcast_to(x[:1], x.shape),
    "read-only": frozen,
    "unaligned": unaligned,
    "lists": lambda x: x.tolist(),
    "a list of arrays": list,
    "a JAX array": jnp.asarray,
    "a transposed JAX array": lambda x: jnp.asarray(x.T).T,
    "a list of JAX arrays": lambda x: [jnp.asarray(row) for row in x],
}


@pytest.mark.parametrize("form", TAKEN)
def test_arrays_of_any_form_are_read_right(program: Any, form: str) -> None:
    given = TAKEN[form](M)
    want = 2 * np.array(given, np.float32)
    np.testing.assert_array_equal(program.matrix(given), want)
    np.testing.assert_array_equal(np.array(given, np.float32) * 2, want)  # it is not written to


def test_numbers_of_any_form_are_read_right(program: Any) -> None:
    for k in (3.0, 3, np.float32(3), np.float64(3), np.array(3.0), np.int8(3), jnp.float32(3)):
        np.testing.assert_array_equal(program.scaled(X, k), 3 * X)
    for n in (5, np.int64(5), np.array(5, ">i8"), np.uint64(5), jnp.int32(5)):
        assert program.count(n) == 6
    assert int(program.long(2**63 - 2)) == 2**63 - 1


def test_keys_at_odd_addresses_draw_the_same(program: Any) -> None:
    words = np.concatenate([np.zeros(1, np.uint32), wg.key(7)])
    np.testing.assert_array_equal(program.drawn(words[1:]), program.drawn(wg.key(7)))


def test_bad_seeds_are_told() -> None:
    for seed in ("a", 1.0, None, True, 2**64, -(2**63) - 1):
        with pytest.raises(wg.CallError, match="a seed"):
            wg.key(seed)  # type: ignore[arg-type]
    np.testing.assert_array_equal(wg.key(2**64 - 1), [2**32 - 1, 2**32 - 1])


def test_bad_programs_and_options_are_told(tmp_path: Path) -> None:
    for text in (None, b"fn f(x): return x", 3):
        with pytest.raises(wg.CallError, match="text of a program"):
            wg.compile(text)  # type: ignore[arg-type]
    for options in ({"real": "f16"}, {"real": ["f64"]}, {"backend": "cuda"}, {"backend": None}):
        with pytest.raises(wg.WengertError):
            wg.compile("fn f(x): return x", **options)
    (tmp_path / "bytes.wg").write_bytes(b"fn f(x): return \xff")
    for path in (tmp_path / "bytes.wg", tmp_path / "none.wg", tmp_path):
        with pytest.raises(wg.WengertError, match=str(path)):
            wg.load(path)


def test_inside_jax_mistakes_are_told(program: Any) -> None:
    with pytest.raises(wg.WengertError, match="n = 3, as in 'x'"):
        jax.jit(program.both)(X, X[:2])
    with pytest.raises(wg.WengertError, match="has 2 axes"):
        jax.jit(program.double)(M)


# Empty arrays, NaN and infinities

EMPTY = """
fn f(x: real[n], y: real[n, q]):
    return {
        total: sum(x), product: prod(x), every: all(x > 0.0), sorted: sort(x), running: cumsum(x),
        scaled: x * 2, matrix: y @ y.T, other: y.T @ y, rows: sum(y, axis=1), best: max(y, axis=1),
        lower: cholesky(y @ y.T), taken: take([1.0, 2.0], argsort(x)), joined: concat((x, [1.0])),
        folded: fold(lambda c, v: c + v, 3.0, x), mapped: map(lambda v: sin(v), x),
    }
fn total(x: real[n]) -> real: return sum(x^2)
fn largest(x: real[n]): return max(x)
fn place(x: real[n]): return argmax(x)
fn average(x: real[n]): return mean(x)
fn first(x: real[n], i: i32): return x[i]
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_arrays(backend: str) -> None:
    program = wg.compile(EMPTY, backend=backend)
    out = program.f([], np.zeros((0, 2)))
    assert (out["total"], out["product"], out["every"], out["folded"]) == (0, 1, True, 3)
    for name in ("sorted", "running", "scaled", "rows", "best", "taken", "mapped"):
        assert out[name].shape == (0,)
    np.testing.assert_array_equal(out["other"], np.zeros((2, 2)))
    assert out["matrix"].shape == out["lower"].shape == (0, 0)
    np.testing.assert_array_equal(out["joined"], [1.0])
    assert program.total.grad([]).shape == (0,)
    assert program.total.batched(np.zeros((0, 3))).shape == (0,)
    assert program.total.hessian([]).shape == (0, 0)


@pytest.mark.parametrize("name", ["largest", "place", "average"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_reductions_that_need_an_element_say_so(backend: str, name: str) -> None:
    function = getattr(wg.compile(EMPTY, backend=backend), name)
    with pytest.raises(wg.WengertError, match="no elements has no value"):
        function([])
    with pytest.raises(wg.WengertError, match="an empty axis has no elements"):
        wg.compile(EMPTY, backend=backend).first([], 0)


ODD = """
fn f(x: real[n]):
    return {
        total: sum(x), largest: max(x), smallest: min(x), place: argmax(x), sorted: sort(x),
        order: argsort(x), smooth: logsumexp(x), root: sqrt(x), log: log(x), halved: x / 2.0,
        over: 1.0 / x, below: x < 1.0, same: x == x, held: clip(x, -1.0, 1.0), whole: i32(x),
        chosen: where(isfinite(x), x, 0.0), sign: sign(x), product: x @ x, up: maximum(x, 0.0),
        loop: fold(lambda c, v: maximum(c, v), 0.0, x),
    }
fn slope(x: real[n]) -> real: return sum(where(x > 0.0, sqrt(x), x^2))
"""
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "x", [[1.0, NAN, -2.0], [INF, 0.0, 1.0], [INF, -INF, 2.0], [-0.0, 0.0, -INF], [NAN, INF, NAN]]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinities_mean_what_the_reference_says(backend: str, x: list[float]) -> None:
    want, found = (wg.compile(ODD, backend=b) for b in ("interp", backend))
    expected = want.f(x)
    for name, value in found.f(x).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
    value, grad = found.slope.value_and_grad(x)
    np.testing.assert_allclose(value, want.slope(x), rtol=1e-6)
    np.testing.assert_allclose(grad, want.slope.grad(x), rtol=1e-6)


# Sizes and depths beyond bounds

TOO_MUCH = {
    "elements": ("fn f(x: real): return zeros(1048576, 1048576, 2) + x", "2^40"),
    "one size": ("fn f(x: real): return zeros(9223372036854775807) + x", "2^40"),
    "one size of an empty array": ("fn f(x: real): return zeros(0, 9223372036854775807) + x", "2^40"),
    "a product": ("fn f(x: real): return (zeros(2097152, 1) + x) @ (zeros(1, 2097152) + x)", "2^40"),
    "a broadcast": ("fn f(x: real):\n    y = zeros(2097152) + x\n    return y[:, None] * y", "2^40"),
    "copies": ("fn f(x: real): return tile(zeros(1024) + x, 4294967296)", "2^40"),
    "a range": ("fn f(x: real): return sum(arange(2147483648)) * x", "i32"),
    "a loop": ("fn f(x: real):\n    for i in 0..2147483648:\n        x = x * 0.5\n    return x", "i32"),
    "arithmetic": ("fn f(x: real): return zeros(10 ^ 30) + x", "overflows 64 bits"),
    "a literal": ("fn f(n: i32): return n + 2147483648", "does not fit in i32"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_that_overflow_are_told(backend: str, name: str) -> None:
    text, message = TOO_MUCH[name]
    with pytest.raises(wg.WengertError) as error:
        wg.compile(text, backend=backend).f(1)
    assert message in str(error.value)


@pytest.mark.parametrize("k", [2**31 - 1, 2**31])
def test_products_beyond_what_blas_counts_are_loops(k: int) -> None:
    params = [Value(TensorType(F32, s)) for s in ((2, k), (k, 2))]
    block = Block(params)
    axes = {"lhs_batch": (), "rhs_batch": (), "lhs_contract": (1,), "rhs_contract": (0,)}
    b: Any = Builder(block)
    block.results = [b.dot_general(*params, **axes)]
    loops = bufferize(Module({"f": Function("f", block)}, "f"))
    names = [op.name for op in walk(loops.main.body)]
    assert ("loop.gemm" in names) == (k < 2**31)


def chain(links: int) -> str:
    """An `if` with `links` conditions, each in the `else` of the one before."""
    rest = "".join(f"    elif x > {links - i}.5:\n        y = {i}.0\n" for i in range(1, links))
    return f"fn f(x: real) -> real:\n    y = -1.0\n    if x > 999.5:\n        y = 0.0\n{rest}    return y * x\n"


@pytest.mark.parametrize("backend", BACKENDS)
def test_deep_nesting_compiles_or_is_told(backend: str) -> None:
    f = wg.compile(chain(DEEPEST - 1), backend=backend).f
    assert f(5.0) == 5 * (DEEPEST - 5) and f.grad(0.25) == -1
    for text in (chain(DEEPEST + 1), chain(400)):
        with pytest.raises(wg.WengertError, match="nest deeper than 100"):
            wg.compile(text, backend=backend).f(5.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_recursion_without_end_is_told(backend: str) -> None:
    text = "fn f(x: real, n: static int = 0): return x if n < 0 else f(x, n + 1)"
    with pytest.raises(wg.WengertError, match="nest deeper than 500"):
        wg.compile(text, backend=backend).f(1.0)
    with pytest.raises(wg.WengertError, match="calls itself without end"):
        wg.compile("fn f(x: real): return f(x)", backend=backend).f(1.0)
    deep = "fn f(x: real, n: static int = 300): return x if n == 0 else f(x, n - 1) if x > n else x"
    with pytest.raises(wg.WengertError, match="nest deeper than 100"):
        wg.compile(deep, backend=backend).f(1.0)


# Memory

HUGE = """
import sys
import numpy as np
import wengert as wg
p = wg.compile('''
fn result(x: real): return zeros(1048576, 1048576) + x
fn table(x: real): return [[sin(x * real(i) * real(j)) for i in 0..524288] for j in 0..524288]
fn between(x: real): return cholesky(eye(524288) * x)[0, 0]
fn small(x: real): return x * 2
''', backend=sys.argv[1])
for name in ("result", "table", "between"):
    try:
        np.asarray(getattr(p, name)(1.0))
    except MemoryError as error:
        print(name, "bytes of memory" in str(error), float(p.small(1.0)))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_does_not_fit_in_memory_is_refused(backend: str) -> None:
    command = [sys.executable, "-c", HUGE, backend]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:3] == [f"{n} True 2.0" for n in ("result", "table", "between")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_that_is_not_free_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that the system would promise memory, and then be ended for using it."""
    f = wg.compile("fn f(x: real): return zeros(8388608) + x", backend=backend, real="f64").f
    monkeypatch.setattr(memory, "ASKED_FROM", 2**20)
    monkeypatch.setattr("wengert.backends.xla.lower.ASKED_FROM", 2**20)
    monkeypatch.setattr(memory, "available", lambda: 2**26)
    with pytest.raises(MemoryError, match="67,108,8"):
        f(1.0)
    monkeypatch.setattr(memory, "available", lambda: 2**28)
    assert np.asarray(f(1.0)).sum() == 8388608


def test_free_memory_is_known() -> None:
    free = memory.available()
    assert free is None or 2**20 < free < 2**50


def test_a_sort_without_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code calls Python to sort, and nothing raised there may be lost."""
    f = wg.compile("fn f(x: real[n]): return sort(x) + 1.0").f
    np.testing.assert_array_equal(f([3.0, 1.0]), [2.0, 4.0])

    def fails(*args: Any) -> None:
        raise MemoryError("no room to sort")

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_sort_rows", fails)
        with pytest.raises(MemoryError, match="no room to sort"):
            f([3.0, 1.0])
    np.testing.assert_array_equal(f([3.0, 1.0]), [2.0, 4.0])


# Ctrl-C

SORTING = """
import numpy as np
import wengert as wg
f = wg.compile("fn f(x: real[n]): return sort(x)").f
x = np.random.default_rng(0).normal(size=1_000_000).astype("f")
want = np.sort(x)
f(x)
print("ready", flush=True)
try:
    while True:
        assert np.array_equal(f(x), want), "a sort that was interrupted gave a result"
except KeyboardInterrupt:
    print("interrupted", np.array_equal(f(x), want))
"""


def interrupted(code: str, *args: str, wait: float) -> str:
    """What a process prints that gets a Ctrl-C some time after it said "ready"."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline().strip() == "ready"
        time.sleep(wait)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0 and not errors, errors
    return out.strip()


def test_ctrl_c_in_a_sort_is_neither_lost_nor_half_a_result() -> None:
    assert interrupted(SORTING, wait=0.5) == "interrupted True"


NESTED = """
import wengert as wg
f = wg.compile('''
fn f(x: real):
    for i in 0..50:
        while x > 0.0:
            x = x + sin(x) * 0.0 + 1.0
    return x
''').f
f(-1.0)
print("ready", flush=True)
try:
    f(1.0)
except KeyboardInterrupt:
    print("interrupted", float(f(-1.0)))
"""


def test_ctrl_c_stops_a_loop_inside_a_short_one() -> None:
    assert interrupted(NESTED, wait=0.5) == "interrupted -1.0"


COMPILING = """
import os, signal, sys, time
import numpy as np
import wengert as wg

def text(k):
    return '''
record P:
    w: real[d, h]
    v: real[h]
fn loss(p: P, x: real[n, d]) -> real:
    s = 0.0
    for i in 0..20:
        s += mean(tanh(x @ p.w) @ p.v) * sin(s) + logsumexp(sort(x[:, 0]) * 0.5) + %d
    return s
''' % k

def press(*_):
    raise KeyboardInterrupt

rng = np.random.default_rng(0)
args = {"w": rng.normal(size=(4, 5)), "v": rng.normal(size=5)}, rng.normal(size=(7, 4))
backend, moments = sys.argv[1], int(sys.argv[2])
wg.compile(text(-1), backend=backend).loss.grad(*args)
began = time.perf_counter()
wg.compile(text(-2), backend=backend).loss.grad(*args)
whole = time.perf_counter() - began
signal.signal(signal.SIGALRM, press)
pressed = 0
for k in range(moments):
    loss = wg.compile(text(k), backend=backend).loss
    want = wg.compile(text(k), backend="interp").loss.grad(*args)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, whole * (k + 0.5) / moments)
            loss.grad(*args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pressed += 1
    got = loss.grad(*args)
    for name in want:
        np.testing.assert_allclose(np.asarray(got[name]), want[name], rtol=1e-3, atol=1e-6)
assert sys.getrecursionlimit() < 30_000
print(pressed)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_in_a_compile_leaves_nothing_half_done(backend: str) -> None:
    """The call after an interrupted one compiles again and gives the right result."""
    command = [sys.executable, "-c", COMPILING, backend, "12"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 3  # of the 12: some compiles end before
