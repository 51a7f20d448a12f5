"""`fit`: the compiled loop on every backend, interrupts, resuming, bad losses, bad calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wengert.runtime import fit as driving
from wengert.runtime import training
from wengert.runtime.errors import ArtifactError, CallError
from wengert.runtime.fit import FitResult, NonFiniteLoss

import wengert as wg

SOURCE = """
record Line:
    w: real[d]
    b: real

fn loss(line: Line, x: real[n, d], y: real[n]) -> real:
    return mean((x @ line.w + line.b - y)^2)

fn weighted(line: Line, x: real[n, d], y: real[n], prior: real[d], scale: real) -> real:
    return mean((x @ line.w + line.b - y)^2) + scale * sum((line.w - prior)^2)

fn noisy(mu: real, key: key) -> real:
    return (normal(key, ()) + mu - 3.0)^2

fn hill(u: real) -> real:
    return 2.0 - (u - 1.0)^2

fn draw(u: real, key: key) -> real:
    return u * normal(key, ())

fn cliff(u: real) -> real:
    return log(u)

fn edge(u: real) -> real:
    return sqrt(u)

fn vector(u: real[n]) -> real[n]:
    return u * 2.0
"""
BACKENDS = ("interp", "llvm", "xla")


def problem(n: int = 40) -> dict[str, Any]:
    """Points near a plane."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([1, -2, 3], np.float32) + np.float32(0.5)}


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    return {b: wg.compile(SOURCE, backend=b) for b in BACKENDS}


@pytest.fixture(scope="module")
def program(programs: dict[str, Any]) -> Any:
    return programs["interp"]


START = {"w": np.zeros(3, np.float32), "b": 0.0}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [None, 16])
def test_finds_the_plane(programs: dict[str, Any], backend: str, batch: int | None) -> None:
    loss = programs[backend].loss
    result = wg.fit(
        loss, {"line": START}, steps=400, optimizer=wg.adam(0.05), batch_size=batch, **problem()
    )
    np.testing.assert_allclose(result.params["line"]["w"], [1, -2, 3], atol=1e-3)
    np.testing.assert_allclose(result.params["line"]["b"], 0.5, atol=1e-3)
    assert result.losses.shape == (400,) and result.steps == 400 and result.stopped == "steps"
    assert result.losses.dtype == np.float32 and not result.interrupted


def test_steps_are_those_of_a_plain_loop(program: Any) -> None:
    data = problem()
    result = wg.fit(program.loss, {"line": START}, steps=30, optimizer=wg.momentum(0.02), **data)
    line, losses = {k: np.asarray(v, np.float32) for k, v in START.items()}, []
    speed = {k: np.zeros_like(v) for k, v in line.items()}
    for _ in range(30):
        value, grad = program.loss.value_and_grad(line, **data)
        losses.append(value)
        speed = {k: np.float32(0.9) * speed[k] + grad[k] for k in line}
        line = {k: line[k] - np.float32(0.02) * speed[k] for k in line}
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(result.params["line"]["w"], line["w"], rtol=1e-5)


def test_an_epoch_sees_every_row_once(program: Any) -> None:
    n, batch = 20, 5
    text = "fn f(u: real, row: real[n]) -> real:\n    return u * 0.0 + sum(row)\n"
    f = wg.compile(text, backend="interp").f
    row = (2.0 ** np.arange(n)).astype(np.float32)
    result = wg.fit(f, {"u": 0.0}, row=row, steps=12, batch_size=batch, key=wg.key(3))
    sets = [int(v) for v in result.losses]
    for epoch in range(3):
        bits = sets[4 * epoch : 4 * epoch + 4]
        assert sum(bits) == 2**n - 1
        assert all(v.bit_count() == batch for v in bits)
    assert sets[:4] != sets[4:8]


def test_only_named_rows_are_split(program: Any) -> None:
    data = problem() | {"prior": np.zeros(3, np.float32), "scale": 0.1}
    with pytest.raises(CallError, match="one length"):
        wg.fit(program.weighted, {"line": START}, steps=1, batch_size=8, **data)
    result = wg.fit(
        program.weighted, {"line": START}, steps=5, batch_size=8, rows=["x", "y"], **data
    )
    assert result.steps == 5


def test_fresh_keys_and_samples(programs: dict[str, Any]) -> None:
    losses = {}
    for backend, program in programs.items():
        result = wg.fit(
            program.noisy, {"mu": 0.0}, steps=150, samples=8, optimizer=wg.sgd(0.05), key=wg.key(7)
        )
        assert abs(result.params["mu"] - 3) < 0.3
        losses[backend] = result.losses
    assert len(np.unique(losses["interp"][-20:])) == 20
    for backend in ("llvm", "xla"):
        np.testing.assert_allclose(losses[backend], losses["interp"], rtol=2e-3, atol=1e-4)


def test_a_step_key_is_folded_from_the_root(program: Any) -> None:
    jax = pytest.importorskip("jax")
    result = wg.fit(program.draw, {"u": 1.0}, steps=3, optimizer=wg.sgd(0.0), key=wg.key(5))
    root = jax.random.fold_in(jax.random.PRNGKey(5), 0)
    draws = [jax.random.normal(jax.random.fold_in(root, s)) for s in range(3)]
    np.testing.assert_allclose(result.losses, draws, rtol=1e-5)


def test_a_given_key_stays_the_same(program: Any) -> None:
    result = wg.fit(
        program.draw, {"u": 1.0}, data={"key": wg.key(9)}, steps=4, optimizer=wg.sgd(0.0)
    )
    assert len(np.unique(result.losses)) == 1


def test_maximize(program: Any) -> None:
    result = wg.fit(program.hill, {"u": 0.0}, maximize=True, steps=200, optimizer=wg.sgd(0.1))
    assert abs(result.params["u"] - 1) < 1e-4
    assert abs(result.loss - 2) < 1e-6


def test_f64(program: Any) -> None:
    hill = program.with_options(real="f64").hill
    result = wg.fit(hill, {"u": 0.0}, maximize=True, steps=200, optimizer=wg.sgd(0.1))
    assert result.params["u"].dtype == np.float64 and result.losses.dtype == np.float64
    assert abs(result.params["u"] - 1) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_resume_is_bit_identical(programs: dict[str, Any], backend: str, tmp_path: Path) -> None:
    options = {"optimizer": wg.adam(0.05), "batch_size": 8, "key": wg.key(1), **problem()}
    loss = programs[backend].loss
    whole = wg.fit(loss, {"line": START}, steps=57, **options)
    part = wg.fit(loss, {"line": START}, steps=23, **options)
    part.save(tmp_path / "part.npz")
    part = FitResult.load(tmp_path / "part.npz")
    options["key"] = None
    rest = wg.fit(loss, {"line": START}, steps=57, resume=part, **options)
    np.testing.assert_array_equal(rest.losses, whole.losses)
    np.testing.assert_array_equal(rest.params["line"]["w"], whole.params["line"]["w"])
    assert rest.steps == 57


def test_interrupt_loses_nothing(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "CHUNK_SECONDS", 0.0)
    options = {"steps": 300, "optimizer": wg.adam(0.05), **problem()}
    calls = []

    def press(result: FitResult) -> None:
        calls.append(result.steps)
        if len(calls) == 3:
            raise KeyboardInterrupt

    part = wg.fit(program.loss, {"line": START}, callback=press, **options)
    monkeypatch.undo()
    assert part.interrupted and part.steps == calls[-1] == len(part.losses) < 300
    whole = wg.fit(program.loss, {"line": START}, **options)
    rest = wg.fit(program.loss, {"line": START}, resume=part, **options)
    np.testing.assert_array_equal(rest.losses, whole.losses)


def test_interrupt_inside_a_chunk(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = driving.Driver.advance, []

    def advance(self: Any, since: Any, count: int) -> Any:
        calls.append(count)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, since, count)

    monkeypatch.setattr(driving.Driver, "advance", advance)
    part = wg.fit(program.loss, {"line": START}, steps=300, **problem())
    assert part.interrupted and part.steps == calls[1] == len(part.losses)


def test_callback_can_stop(program: Any) -> None:
    result = wg.fit(program.hill, {"u": 0.0}, steps=500, callback=lambda r: r.steps >= 8)
    assert result.stopped == "callback" and 8 <= result.steps < 500


def test_tolerance_stops_at_a_whole_window(program: Any) -> None:
    result = wg.fit(
        program.hill, {"u": 0.0}, maximize=True, steps=10_000, tolerance=1e-6, optimizer=wg.sgd(0.1)
    )
    assert result.stopped == "tolerance" and result.steps == 300


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_loss_keeps_the_last_good_parameters(programs: dict[str, Any], backend: str) -> None:
    options: dict[str, Any] = {"steps": 2000, "optimizer": wg.sgd(0.1)}
    with pytest.raises(NonFiniteLoss, match="at step") as info:
        wg.fit(programs[backend].cliff, {"u": 2.0}, **options)
    good, step = info.value.result, info.value.step
    assert good.steps == step - 1 == len(good.losses)
    assert good.params["u"] > 0 and np.isfinite(good.losses).all()
    stopped = wg.fit(programs[backend].cliff, {"u": 2.0}, on_nonfinite="stop", **options)
    assert stopped.stopped == "nonfinite" and stopped.params == good.params
    ignored = wg.fit(programs[backend].cliff, {"u": 2.0}, on_nonfinite="ignore", **options)
    assert ignored.steps == 2000 and np.isnan(ignored.losses[step])


def test_nan_at_the_first_step(program: Any) -> None:
    with pytest.raises(NonFiniteLoss, match="at step 0") as info:
        wg.fit(program.cliff, {"u": -1.0}, steps=10)
    assert info.value.result.params["u"] == -1 and info.value.result.steps == 0


def test_infinite_gradient_of_the_last_step(program: Any) -> None:
    with pytest.raises(NonFiniteLoss, match="made a parameter") as info:
        wg.fit(program.edge, {"u": 0.0}, steps=1, optimizer=wg.sgd(0.1))
    assert info.value.result.params["u"] == 0


def test_nonfinite_at_the_start_of_a_chunk(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = None
    for first in (1, 2, 3, 5, 64):
        monkeypatch.setattr(driving, "FIRST_CHUNK", first)
        monkeypatch.setattr(driving, "CHUNK_SECONDS", 0.0)
        with pytest.raises(NonFiniteLoss) as info:
            wg.fit(program.cliff, {"u": 0.5}, steps=300, optimizer=wg.sgd(0.1))
        found = (info.value.step, float(info.value.result.params["u"]), info.value.result.steps)
        expected = expected or found
        assert found == expected


def test_zero_steps(program: Any, tmp_path: Path) -> None:
    result = wg.fit(program.hill, {"u": 0.25}, steps=0)
    assert result.params == {"u": 0.25} and result.losses.shape == (0,) and np.isnan(result.loss)
    result.save(tmp_path / "zero.npz")
    assert FitResult.load(tmp_path / "zero.npz").steps == 0


def test_the_start_is_not_changed(programs: dict[str, Any]) -> None:
    start = {"w": np.zeros(3, np.float32), "b": np.float32(0)}
    for program in programs.values():
        wg.fit(program.loss, {"line": start}, steps=5, **problem())
        np.testing.assert_array_equal(start["w"], 0)


def test_second_fit_reuses_the_compiled_loop(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wg.fit(program.hill, {"u": 0.0}, steps=3, optimizer=wg.sgd(0.011))
    monkeypatch.setattr(training, "build_loop", lambda *a: pytest.fail("compiled again"))
    wg.fit(program.hill, {"u": 1.0}, steps=5, optimizer=wg.sgd(0.011))


def test_saved_file_is_whole_or_absent(program: Any, tmp_path: Path) -> None:
    result = wg.fit(program.loss, {"line": START}, steps=5, **problem())
    path = tmp_path / "fit.npz"
    result.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]
    again = FitResult.load(path)
    assert again.stopped == "steps" and again.key == result.key
    np.testing.assert_array_equal(again.params["line"]["w"], result.params["line"]["w"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="damaged"):
        FitResult.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ArtifactError):
        FitResult.load(path)
    path.write_text("hello")
    with pytest.raises(ArtifactError):
        FitResult.load(path)


def test_a_damaged_file_is_told_or_read_right(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    result = wg.fit(program.loss, {"line": START}, steps=5, **problem())
    result.save(path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    told = 0
    for place in rng.integers(0, len(data), 300):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            again = FitResult.load(path)
        except ArtifactError:
            told += 1
            continue
        np.testing.assert_array_equal(again.losses, result.losses)
        np.testing.assert_array_equal(again.params["line"]["w"], result.params["line"]["w"])
        assert (again.steps, again.key, again.stopped) == (5, result.key, "steps")
    assert told > 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {}}, "start values"),
        ({"params": 3.0}, "start values"),
        ({"params": {"linee": START}}, "no parameter"),
        ({"steps": -1}, "steps is a count"),
        ({"steps": 1.5}, "steps is a count"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 41}, "more than the 40 rows"),
        ({"batch_size": 4, "rows": ["z"]}, "rows names 'z'"),
        ({"on_nonfinite": "cry"}, "on_nonfinite"),
        ({"samples": 4}, "no random key"),
        ({"y": np.zeros(40, np.float32), "line": START}, "both"),
        ({"z": 1.0}, "no parameter 'z'"),
        ({"steps": True}, "steps is a count"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 4, "rows": 3}, "cannot use this rows"),
        ({"optimizer": "adam"}, "cannot use this optimizer"),
        ({"optimizer": wg.adam}, "cannot use this optimizer"),
        ({"resume": "fit.npz"}, "cannot use this resume"),
        ({"callback": 3}, "cannot use this callback"),
        ({"data": [1.0]}, "cannot use this data"),
        ({"tolerance": "small"}, "tolerance is a number"),
        ({"tolerance": -1.0}, "tolerance must not be negative"),
        ({"key": 3}, "not a random key"),
    ],
)
def test_bad_calls(program: Any, change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"params": {"line": START}, "steps": 1, **problem(), **change}
    with pytest.raises((CallError, wg.ArgumentError), match=message):
        wg.fit(program.loss, **options)


def test_batch_size_and_rows_of_other_kinds(program: Any) -> None:
    options = {"steps": 12, "optimizer": wg.adam(0.05), **problem()}
    want = wg.fit(program.loss, {"line": START}, batch_size=8, rows=["x", "y"], **options)
    found = wg.fit(program.loss, {"line": START}, batch_size=np.int64(8), **options)
    np.testing.assert_array_equal(found.losses, want.losses)
    f = wg.compile("fn f(u: real, row: real[n]): return u * sum(row)", backend="interp").f
    assert wg.fit(f, {"u": 1.0}, row=np.ones(9), batch_size=3, rows="row", steps=2).losses[0] == 3


def test_result_must_be_scalar(program: Any) -> None:
    with pytest.raises(CallError, match="not a scalar function"):
        wg.fit(program.vector, {"u": np.zeros(3, np.float32)}, steps=1)


def test_resume_with_another_optimizer(program: Any) -> None:
    result = wg.fit(program.hill, {"u": 0.0}, steps=3, optimizer=wg.adam())
    with pytest.raises(CallError, match="another optimizer"):
        wg.fit(program.hill, {"u": 0.0}, steps=5, optimizer=wg.sgd(), resume=result)


def test_fit_wants_a_function_of_a_program() -> None:
    with pytest.raises(CallError, match="function of a program"):
        wg.fit(lambda u: u, {"u": 0.0})


MOVING = """
objective f(p: real, b: real):
    x ~ bernoulli(1.0 / (1.0 + exp(-p))) by reinforce(baseline=b)
    return where(x, 11.0, 10.0)
"""


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_an_average_follows_the_objective(backend: str) -> None:
    """The moving average is a baseline: the same expected steps with far less noise."""
    program = wg.compile(MOVING, backend=backend)
    options: dict[str, Any] = {"samples": 4, "steps": 200, "optimizer": wg.sgd(0.1), "b": 0.0}

    def ends(**more: Any) -> list[wg.FitResult]:
        keys = [wg.key(seed) for seed in range(6)]
        return [
            wg.fit(program.f, {"p": 0.0}, maximize=True, key=k, **options, **more) for k in keys
        ]

    kept, plain = ends(averages={"b": 0.9}), ends()
    want = 0.0
    for value in kept[0].losses:
        want = 0.9 * want + 0.1 * float(value)
    assert float(kept[0].state[-1]) == pytest.approx(want, rel=1e-4)
    found = np.array([r.params["p"] for r in kept])
    # dp/dt = s (1 - s) / 10, s = sigmoid(p), from 0: exp(p) + 2 p - exp(-p) = 20 after 200 steps
    assert abs(found.mean() - 2.69) < 0.3
    assert found.std() < 0.5 * np.std([r.params["p"] for r in plain])


def test_an_average_resumes() -> None:
    program = wg.compile(MOVING)
    options: dict[str, Any] = {"optimizer": wg.sgd(0.1), "averages": {"b": 0.9}, "b": 1.0}
    whole = wg.fit(program.f, {"p": 0.0}, steps=60, key=wg.key(2), **options)
    part = wg.fit(program.f, {"p": 0.0}, steps=25, key=wg.key(2), **options)
    again = wg.fit(program.f, {"p": 0.0}, steps=60, key=wg.key(2), resume=part, **options)
    assert again.params["p"] == whole.params["p"] and again.state[-1] == whole.state[-1]


@pytest.mark.parametrize("averages", [{"p": 0.9}, {"nothing": 0.9}, {"b": 1.5}])
def test_bad_averages_are_told(averages: dict[str, float]) -> None:
    with pytest.raises(CallError, match="averages"):
        wg.fit(wg.compile(MOVING).f, {"p": 0.0}, steps=1, b=0.0, averages=averages)
