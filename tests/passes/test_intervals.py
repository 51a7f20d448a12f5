"""Intervals: every rule on random boxes, and what the bounds of whole programs promise."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value
from wengert.ir.interp import run
from wengert.ir.opdef import OPS
from wengert.ir.types import BOOL, F32, F64, I32, I64, KEY, U32, DType, TensorType
from wengert.ir.verify import verify
from wengert.passes.batch import batch_function
from wengert.passes.intervals import INTERVAL, NoInterval, interval_function
from wengert.passes.simplify import simplify
from wengert.runtime.compiler import Dumps, compile_module

import wengert as wg
from wengert.cli import run as run_command

SAMPLES = 40


def t(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


def module_of(types: Sequence[TensorType], make: Callable[..., Any]) -> Module:
    params = [Value(type, f"x{i}") for i, type in enumerate(types)]
    block = Block(params)
    out = make(Builder(block), *params)
    block.results = [out] if isinstance(out, Value) else list(out)
    return Module({"f": Function("f", block)}, "f")


def boxed(module: Module, places: Sequence[int]) -> Module:
    """The module whose entry is the function on boxes."""
    out = Module(dict(module.functions), module.entry)
    out.entry = interval_function(out, module.entry, places)
    verify(out)
    return out


def random_box(rng: np.random.Generator, type: TensorType) -> tuple[Any, Any]:
    """Corners: wide, narrow, single numbers, around special numbers."""
    shape = type.shape
    if type.dtype is BOOL:
        x, y = rng.uniform(size=(2, *shape)) < 0.5
        return x & y, x | y
    centre = rng.normal(size=shape) * rng.choice([0.3, 3.0, 50.0], size=shape)
    special = rng.choice([0.0, 0.5, 1.0, -1.0, 1.4616, np.pi / 2, np.pi, 2.0, -3.0], size=shape)
    centre = np.where(rng.uniform(size=shape) < 0.4, special, centre)
    if type.dtype.is_float:
        width = rng.choice(
            [0.0, 1e-6, 0.1, 2.0, 100.0], size=(2, *shape), p=[0.2, 0.2, 0.3, 0.2, 0.1]
        )
        low, high = centre - width[0] * rng.uniform(), centre + width[1] * rng.uniform()
        return low.astype(type.dtype.numpy), high.astype(type.dtype.numpy)
    width = rng.integers(0, 5, size=shape)
    huge = np.iinfo(type.dtype.numpy)
    centre = np.where(rng.uniform(size=shape) < 0.1, huge.max - 6, centre)
    top = float(huge.max - 6) if type.dtype is not I64 else 2.0**62
    low = np.clip(centre, 0 if type.dtype is U32 else huge.min, top).astype(type.dtype.numpy)
    return low, low + width.astype(type.dtype.numpy)


def random_point(rng: np.random.Generator, low: Any, high: Any) -> Any:
    low, high = np.asarray(low), np.asarray(high)
    if low.dtype == bool:
        return np.where(rng.uniform(size=low.shape) < 0.5, low, high)
    if low.dtype.kind in "iu":
        return np.asarray(low + rng.integers(0, high.astype(np.int64) - low + 1), low.dtype)
    share = rng.choice([0.0, 1.0, rng.uniform()], size=low.shape)
    point = low + (high.astype(np.float64) - low) * share
    return np.clip(point, low, high).astype(low.dtype)


def assert_inside(value: Any, lo: Any, hi: Any, what: object = "") -> None:
    assert lo.shape == hi.shape == value.shape and lo.dtype == hi.dtype == value.dtype
    with np.errstate(all="ignore"):
        unknown = np.isnan(lo) | np.isnan(hi) if lo.dtype.kind == "f" else False
        inside = (lo <= value) & (value <= hi)
    assert (inside | unknown).all(), (what, value, lo, hi)


def check(module: Module, places: Sequence[int], seed: int, points: int = SAMPLES) -> None:
    """Results at random points of a random box are within its bounds."""
    rng = np.random.default_rng(seed)
    box = [random_box(rng, p.type) for p in module.main.params]
    box = [b if i in places else (b[0], b[0]) for i, b in enumerate(box)]
    flat = [v for i, b in enumerate(box) for v in b[: 1 + (i in places)]]
    bounds = run(boxed(module, places), flat)
    for _ in range(points):
        point = [random_point(rng, *b) for b in box]
        with np.errstate(all="ignore"):
            out = run(module, point)
        for value, lo, hi in zip(out, bounds[::2], bounds[1::2], strict=True):
            assert_inside(np.asarray(value), lo, hi, (box, point))


@dataclass(frozen=True)
class Case:
    """An op on parameters of `types`; `places` become boxes (all by default)."""

    name: str
    types: tuple[TensorType, ...]
    make: Callable[..., Any]
    places: tuple[int, ...] | None = None


def op(name: str, *types: TensorType, places: tuple[int, ...] | None = None, **attrs: Any) -> Case:
    return Case(name, types, lambda b, *xs: b.op(name, xs, **attrs), places)


CASES: list[Case] = []
for _name, _definition in OPS.items():
    if not _definition.elementwise or _name in INTERVAL.without:
        continue
    for _dtype in (F32, F64, I32, I64, U32, BOOL):
        if _name in ("down", "up"):
            if _dtype.is_float:
                CASES.append(op(_name, t(_dtype, 60), ulps=4))
            continue
        if _name in ("select", "convert", "bitcast", "threefry", "key_make", "key_lo", "key_hi"):
            continue
        try:
            _types = [t(_dtype, 60)] * (_definition.arity or 1)
            module_of(_types, lambda b, *xs, _name=_name: b.op(_name, xs))
        except wg.WengertError:
            continue
        CASES.append(op(_name, *_types))
for _from in (F32, F64, I32, I64, U32, BOOL):
    for _to in (F32, F64, I32, I64, U32, BOOL):
        CASES.append(op("convert", t(_from, 40), dtype=_to))
for _dtype in (F32, I32, BOOL):
    CASES.append(op("select", t(BOOL, 20), t(_dtype, 20), t(_dtype, 20)))
CASES += [
    op("bitcast", t(F32, 9), dtype=I32),
    op("bitcast", t(I32, 9), dtype=F32),
    Case("mul", (t(F32, 60),), lambda b, x: b.mul(x, x)),
    Case("mul", (t(F32, 60), t(F32, 60)), lambda b, x, y: b.mul(b.abs(x), b.exp(y))),
    Case("mul", (t(F32, 60), t(F32, 60)), lambda b, x, y: b.mul(b.abs(x), y)),
    Case("mul", (t(F32, 60),), lambda b, x: b.mul(x, b.const(-1.7, x))),
    Case("div", (t(F32, 60),), lambda b, x: b.div(x, b.const(-1.7, x))),
    Case("mod", (t(F32, 60),), lambda b, x: b.mod(x, b.const(0.7, x))),
    Case("mod", (t(F32, 60), t(F32, 60)), lambda b, x, y: b.mod(x, y), (0,)),
    Case("floordiv", (t(F64, 60),), lambda b, x: b.floordiv(x, b.const(-0.3, x))),
    *(Case("pow", (t(F64, 60),), lambda b, x, n=n: b.pow(x, b.const(n, x))) for n in (5, 6, -3, -2, 0.5, -1.5)),
    Case("pow", (t(F64, 60), t(F64, 60)), lambda b, x, y: b.pow(b.abs(x), y)),
    op("broadcast", t(F32, 3), shape=(2, 3), axes=(1,)),
    op("reshape", t(F32, 2, 3), shape=(3, 2)),
    op("transpose", t(F32, 2, 3), perm=(1, 0)),
    op("slice", t(F32, 5), start=(1,), limit=(5,), stride=(2,)),
    op("reverse", t(F32, 5), axes=(0,)),
    op("concatenate", t(F32, 2), t(F32, 3), axis=0),
    op("pad", t(F32, 2), t(F32), low=(1,), high=(2,), interior=(1,)),
    *(op(n, t(F32, 3, 4), axes=(1,)) for n in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")),
    op("reduce_sum", t(I32, 3, 4), axes=(0, 1)),
    op("reduce_max", t(BOOL, 3, 4), axes=(0,)),
    op("cumsum", t(F32, 3, 4), axis=1, reverse=True),
    op("cumsum", t(I32, 5), axis=0),
    *(op(n, t(F32, 3, 4), axis=1) for n in ("argmax", "argmin")),
    op("sort", t(F32, 6), axis=0),
    op("sort", t(F32, 6), t(I32, 6), axis=0),
    op("dot_general", t(F32, 3, 4), t(F32, 4, 5), lhs_contract=(1,), rhs_contract=(0,)),
    op("dot_general", t(F32, 3, 4), t(F32, 4, 5), places=(1,), lhs_contract=(1,), rhs_contract=(0,)),
    op("dot_general", t(F64, 2, 3, 30), t(F64, 2, 30), lhs_batch=(0,), rhs_batch=(0,), lhs_contract=(2,), rhs_contract=(1,)),
    op("dot_general", t(F32, 30, 3), t(F32, 30), places=(0,), lhs_contract=(0,), rhs_contract=(0,)),
    op("gather", t(F32, 4, 3), t(I32, 2), axis=1, batch=0),
    op("gather", t(F32, 2, 5), t(I32, 2, 3), axis=1, batch=1),
    op("gather", t(F32, 5), t(I32, 2), places=(0,), axis=0, batch=0),
    op("dynamic_slice", t(F32, 5, 4), t(I32), t(I32), sizes=(2, 4)),
    op("dynamic_slice", t(F32, 5, 4), t(I32), t(I32), places=(0,), sizes=(2, 1)),
    op("dynamic_update", t(F32, 5), t(F32, 2), t(I32)),
    op("dynamic_update", t(F32, 5), t(F32, 2), t(I32), places=(0, 1)),
    op("scatter_add", t(F32, 5), t(I32, 4), t(F32, 4), places=(0, 2), axis=0, batch=0),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{'-'.join(map(str, c.types))}")
def test_values_are_within_the_bounds_of_each_op(case: Case) -> None:
    module = module_of(case.types, case.make)
    places = range(len(case.types)) if case.places is None else case.places
    for seed in range(3):
        check(module, places, seed)


def test_every_op_has_a_rule_or_a_reason() -> None:
    core = [n for n in OPS if not n.startswith("loop.")]
    assert INTERVAL.missing(core) == []


def test_every_rule_has_a_case() -> None:
    elsewhere = {"if", "switch", "for", "while", "cholesky", "triangular_solve"}
    elsewhere |= {"threefry", "key_make", "key_lo", "key_hi"}
    assert sorted(set(INTERVAL.rules) - {c.name for c in CASES} - elsewhere) == []


SMOOTH = """
fn f(x: real, y: real):
    a = sin(x * 3.0) * cos(y) + exp(-x * x) / (1.0 + y * y)
    b = sqrt(x * x + y * y + 0.1) + atan2(y, x + 4.0) + tanh(a)
    c = maximum(a, b) - abs(x - y) + log(2.0 + x * x) + (x + 3.0)^2.5 + y^3
    return c * b + minimum(a, 0.3) + sigmoid(b) + erf(x) + lgamma(x + 3.0) + tan(0.2 * x)
"""


@pytest.mark.parametrize("real,tiny", [("f32", 2e-4), ("f64", 1e-12)])
@settings(max_examples=20, deadline=None)
@given(x=st.floats(-1, 1, width=32), y=st.floats(-1, 1, width=32))
def test_bounds_nest_and_shrink_to_the_value(real: str, tiny: float, x: float, y: float) -> None:
    f = wg.compile(SMOOTH, backend="interp", real=real).f
    value = float(f(x, y))
    before = None
    for width in (1.0, 0.1, 1e-2, 1e-3, 0.0):
        lo, hi = f.interval((x - width, y - width), (x + width, y + width), wrt=("x", "y"))
        assert lo <= value <= hi
        if before is not None:
            assert before[0] <= lo and hi <= before[1]
        before = lo, hi
    assert before is not None and before[1] - before[0] < tiny * (1 + abs(value))


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_compiled_bounds_hold_compiled_values(backend: str) -> None:
    """Rounding of backends included, boxes as a batch; f32 values and exact ones are inside."""
    f = wg.compile(SMOOTH, backend=backend).f
    exact = wg.compile(SMOOTH, real="f64").f
    rng = np.random.default_rng(0)
    low = rng.uniform(-1, 1, (2, 200)).astype(np.float32)
    high = low + (rng.uniform(0, 1, (2, 200)) ** 8).astype(np.float32)
    bounds = f.interval(tuple(low), tuple(high), wrt=("x", "y"), batched=True)
    for share in np.linspace(0, 1, 9):
        x, y = np.clip(low + (high - low) * np.float32(share), low, high)
        for values in (f.batched(x, y), exact.batched(x.astype(float), y.astype(float))):
            assert (np.asarray(bounds.lo) <= values).all() and (
                values <= np.asarray(bounds.hi)
            ).all()


CONTROL = """
fn branch(x: real):
    y = 0.0
    if x > 0.5:
        y = x * 2.0
    elif x > -0.5:
        y = sin(x)
    else:
        y = -x
    return y

fn loop(x: real, w: real[n]):
    s = x
    t = 0.0
    for v in w:
        s = s * v + x
        t += abs(s)
        if s > t:
            t = s
    return s, t

fn bounded(x: real):
    s = x
    n = 0
    while s < 5.0 max 30:
        s = s * 1.5 + 0.1
        n += 1
    return s, n

fn counted(x: real, k: i32):
    s = x
    i = 0
    while i < k:
        s = s * 0.5 + 1.0
        i += 1
    return s

fn endless(x: real):
    s = x
    while s < 5.0:
        s = s * 1.5 + 0.1
    return s

fn cell(x: real, table: real[n]): return table[i32(floor(x))]
fn sign(x: real): return x > 0.0, x < 2.0 and x != 0.5, i32(floor(x))
fn drawn(k: key, x: real): return x * normal(k)
fn shaken(x: real): return normal(key(i32(x)))
"""


@pytest.fixture(scope="module")
def control() -> wg.Program:
    return wg.compile(CONTROL)


@pytest.mark.parametrize("low,high", [(-2, 2), (0, 0.4), (0.6, 0.7), (0.5, 0.5), (-0.6, 0.1)])
def test_branches_join_where_the_condition_is_uncertain(
    control: Any, low: float, high: float
) -> None:
    lo, hi = control.branch.interval(low, high)
    values = control.branch.batched(np.linspace(low, high, 50).astype(np.float32))
    assert lo <= values.min() and values.max() <= hi
    if (low, high) == (0.6, 0.7):
        assert hi - lo < 0.21  # the branch is certain


def test_loops_carry_bounds(control: Any) -> None:
    w = np.array([0.5, -0.3, 1.2], np.float32)
    bounds = control.loop.interval(0.1, 0.3, w=w)
    for x in np.linspace(0.1, 0.3, 9):
        for value, lo, hi in zip(control.loop(x, w), bounds.lo, bounds.hi):
            assert lo <= value <= hi


def test_a_while_of_uncertain_length_joins_the_states_it_may_end_in(control: Any) -> None:
    lo, hi = control.bounded.interval(0.1, 0.4)
    runs = [control.bounded(x) for x in np.linspace(0.1, 0.4, 40)]
    for value, trips in runs:
        assert lo[0] <= value <= hi[0] and lo[1] <= trips <= hi[1]
    assert lo[1] == min(n for _, n in runs) and hi[1] == max(n for _, n in runs)


def test_a_while_of_known_length_stays_one(control: Any) -> None:
    lo, hi = control.counted.interval(0.0, 1.0, k=3)
    assert lo <= control.counted(0.0, 3) and control.counted(1.0, 3) <= hi and hi - lo < 0.126


def test_what_has_no_bounds_says_why(control: Any) -> None:
    with pytest.raises(NoInterval, match="may never end") as error:
        control.endless.interval(0.0, 1.0)
    assert "while s < 5.0" in str(error.value) and "max 100" in str(error.value)
    with pytest.raises(NoInterval, match="key"):
        control.shaken.interval(0.0, 3.0)


def test_draws_from_a_given_key_are_known(control: Any) -> None:
    key = wg.key(3)
    lo, hi = control.drawn.interval(1.0, 2.0, wrt="x", k=key)
    for x in (1.0, 1.5, 2.0):
        assert lo <= control.drawn(key, x) <= hi


def test_reads_at_uncertain_places_give_the_hull(control: Any) -> None:
    table = np.array([5.0, 1.0, 7.0, 2.0], np.float32)
    assert control.cell.interval(1.2, 2.9, table=table) == (1.0, 7.0)
    assert control.cell.interval(1.2, 1.9, table=table) == (1.0, 1.0)


def test_bools_are_certain_or_possible(control: Any) -> None:
    lo, hi = control.sign.interval(0.5, 1.0)
    assert lo == (True, False, 0) and hi == (True, True, 1)
    lo, hi = control.sign.interval(-3.5, -1.5)
    assert lo == (False, True, -4) and hi == (False, True, -2)


def test_nothing_is_known_where_the_value_may_be_nan() -> None:
    f = wg.compile("fn f(x: real): return log(x), 1.0 / x, x / x, x > sqrt(x)").f
    lo, hi = f.interval(-1.0, 2.0)
    assert np.isnan([lo[0], lo[2]]).all() and (lo[1], hi[1]) == (-np.inf, np.inf)
    assert (bool(lo[3]), bool(hi[3])) == (False, True)
    lo, hi = f.interval(2.0, 3.0)
    assert lo[0] <= np.log(2) and bool(lo[3]) and bool(hi[3])


def test_integers_that_may_wrap_can_be_anything() -> None:
    f = wg.compile("fn f(x: real): return i32(x) * 3").f
    assert f.interval(1.0, 2.5) == (3, 6)
    top = 2.0**31
    assert f.interval(0.0, top) == (-(2**31), 2**31 - 1)


def test_contraction_cannot_leave_the_bounds() -> None:
    """p q + x in one rounding, on known factors, where nearly everything cancels."""
    f = wg.compile("fn f(x: real, p: real, q: real): return p * q + x").f
    p, q = np.float32(1.0000001), np.float32(1.0000002)
    x = -p * q
    lo, hi = f.interval(x, x, p=p, q=q)
    assert lo <= float(p) * float(q) + float(x) <= hi and lo <= f(x, p, q) <= hi


def test_bounds_batch_and_verify() -> None:
    """The function on boxes is an ordinary one: it simplifies, batches and compiles."""
    module = module_of(
        [t(F32, 2), t(F32)], lambda b, x, r: b.sub(b.sqrt(b.reduce_sum(b.mul(x, x), axes=(0,))), r)
    )
    box = simplify(boxed(module, [0]))
    name = batch_function(box, box.entry, [0, 0, None], 3)
    many = Module(dict(box.functions), name)
    verify(many)
    low = np.float32([[0, 0], [1, 1], [-1, 2]])
    high = low + np.float32(0.5)
    for backend in ("interp", "llvm", "xla"):
        lo, hi = compile_module(many, backend, Dumps()).run([low, high, np.float32(0.5)])
        for k in range(3):
            one = run(box, [low[k], high[k], np.float32(0.5)])
            np.testing.assert_allclose([lo[k], hi[k]], one, rtol=1e-6)


def test_factors_of_known_matrices_are_taken_as_computed() -> None:
    text = "fn f(x: real[n], a: real[n, n]): return sum(solve_triangular(cholesky(a), a[0]) * x)"
    f = wg.compile(text, backend="interp", real="f64").f
    a = np.array([[4.0, 1.0], [1.0, 3.0]])
    lo, hi = f.interval([0.0, 1.0], [0.5, 2.0], a=a)
    assert lo <= f([0.25, 1.5], a) <= hi
    with pytest.raises(NoInterval, match=r"matrix"):
        wg.compile("fn f(a: real[n, n]): return sum(cholesky(a))").f.interval(a, a)


def test_keys_stay_points() -> None:
    module = module_of(
        [t(KEY), t(F32)], lambda b, k, x: [b.mul(x, b.convert(b.key_lo(k), dtype=F32))]
    )
    out = run(boxed(module, [1]), [np.uint64(7), np.float32(1), np.float32(2)])
    assert out[0] <= 7 <= 14 <= out[1]


def test_a_box_needs_corners_in_order_and_of_one_shape() -> None:
    f = wg.compile("fn f(x: real[n], y: real): return sum(x) * y").f
    with pytest.raises(wg.WengertError, match="the box of 'x' is empty"):
        f.interval([0.0, 1.0], [1.0, 0.5], y=1.0)
    with pytest.raises(wg.WengertError, match="differ in shape"):
        f.interval([0.0, 1.0], [1.0], y=1.0)
    with pytest.raises(wg.WengertError, match="no parameter 'z'"):
        f.interval(0.0, 1.0, z=1.0, y=1.0)
    with pytest.raises(wg.WengertError, match="2 bounds a corner"):
        f.interval((1.0,), (1.0,), wrt=("x", "y"))
    assert f.interval(([0.0], 1.0), ([1.0], 2.0), wrt=("x", "y")).hi >= 2


def test_dump_shows_the_function_on_boxes() -> None:
    f = wg.compile("fn f(x: real): return x * x").f
    text = f.ir(1.0, after="intervals")
    assert "%x_lo: f32, %x_hi: f32" in text and "down" in text


def test_command_line_shows_the_function_on_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f.wg"
    path.write_text("fn f(p: real[2], r: real) -> real: return norm(p) - r\n")
    arguments = ["ir", str(path), "f", "p=[0, 0]", "r=1", "--after", "intervals"]
    assert run_command(arguments) == 0
    assert "%p_lo: f32[2], %p_hi: f32[2], %r: f32" in capsys.readouterr().out
    assert run_command([*arguments, "--wrt", "r"]) == 0
    assert "%p: f32[2], %r_lo: f32, %r_hi: f32" in capsys.readouterr().out


def test_documented_calls_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "intervals.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)
    assert code
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    assert names["lo"] <= -0.6 and names["hi"] >= 1.01
