"""Guarded functions: what flags switch off is what nobody needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wengert.ir.core import Module, walk
from wengert.ir.interp import run
from wengert.ir.verify import verify
from wengert.passes import choices, guards
from wengert.passes.guards import Guarded, guarded
from wengert.passes.intervals import interval_function
from wengert.runtime.requests import Request

import wengert as wg

FORMS = [
    "{a} * {c}", "{a} + {b}", "{a} - {c}", "min({a}, {b})", "max({a}, {b})", "min({a}, {b})",
    "max({a}, {b})", "{a} * {a}", "abs({a} - {c})", "sin({a} * 3.0)",
    "min({a}, {b}) - max(0.1 - abs({a} - {b}), 0.0)^2", "{a} if {b} > {c} else {b}",
]  # fmt: skip


def random_text(rng: np.random.Generator) -> str:
    """Straight-line code; each line combines some of the last twelve."""
    lines = ["fn f(x: real, y: real) -> real:", "    v0 = x", "    v1 = y"]
    count = int(rng.integers(10, 70))
    for i in range(2, count):
        a, b = rng.integers(max(0, i - 12), i, 2)
        form = FORMS[int(rng.integers(len(FORMS)))]
        lines.append(
            f"    v{i} = " + form.format(a=f"v{a}", b=f"v{b}", c=f"{rng.uniform(-1, 1):.3f}")
        )
    return "\n".join([*lines, f"    return v{count - 1}", ""])


def plain(text: str) -> Module:
    f = wg.compile(text, backend="interp").f
    f(0.1, 0.2)
    assert f._last is not None
    return f._last.module(Request())


def both(module: Module) -> tuple[Guarded, Module, str]:
    """The guarded function, a module with it as `g`, and the name of its form on boxes."""
    made = guarded(module.main, "g")
    out = Module({"g": made.function}, "g")
    verify(out)
    name = interval_function(out, "g", [0, 1])
    verify(out)
    return made, out, name


def bounds_of(out: Module, box: str, corners: Any, flags: Any) -> Any:
    """Bounds over a box given as x_lo, x_hi, y_lo, y_hi."""
    return run(out, [*np.float32(corners), flags], box)


def left(made: Guarded, flags: Any, bounds: Any) -> Any:
    """The flags of a box, from those of the box around it."""
    _, _, terms, _, _, bests = bounds
    return flags & ~(terms > bests[list(made.group)])


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards for terms however cheap, loops for two terms of one form."""
    monkeypatch.setattr(choices, "LEAST_COST", 1)
    monkeypatch.setattr(choices, "LEAST_INSIDE", 1)
    monkeypatch.setattr(guards, "ROLL", 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_smaller_boxes_need_less_and_values_stay(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if seed % 3:
            patch.setattr(choices, "LEAST_COST", 1)
            patch.setattr(choices, "LEAST_INSIDE", 1)
            patch.setattr(choices, "MOST_EDGES", 1 + seed % 5)
            patch.setattr(guards, "ROLL", 2)
        rng = np.random.default_rng(seed)
        module = plain(random_text(rng))
        made, out, box = both(module)
    flags = np.ones(len(made.group), bool)
    low = rng.uniform(-1, 1, 2).astype(np.float32)
    high = low + np.float32(rng.choice([2, 0.5, 0.05]))
    for _ in range(3):
        bounds = bounds_of(out, box, [low[0], high[0], low[1], high[1]], flags)
        flags = left(made, flags, bounds)
        for _ in range(3):
            x, y = (low + (high - low) * rng.uniform(size=2)).astype(np.float32)
            want, got = run(module, [x, y])[0], run(out, [x, y, flags], "g")[0]
            np.testing.assert_array_equal(got, want)
            assert (bounds[0] <= want <= bounds[1]) or np.isnan(bounds[:2]).any()
        high = low + (high - low) * np.float32(0.3)


UNION = "fn f(x: real, y: real) -> real:\n    d = 9.0\n" + "".join(
    f"    d = min(d, max(abs((x - {i / 10 + 0.1}) * 0.6 + y * 0.8) - 0.1, abs(y * {1.1 + i / 7:.3f} - {i % 3 + 1}) - 0.{i + 1:02d}))\n"
    for i in range(12)
) + "    return d\n"  # fmt: skip


def test_terms_of_one_form_become_one_loop() -> None:
    made, out, box = both(plain(UNION))
    loops = [op for op in walk(made.function.body) if op.name == "for"]
    assert len(loops) == 1 and loops[0].attrs["trips"] == 12 == len(made.group)
    assert sum(1 for _ in walk(made.function.body)) < 60
    every = np.ones(12, bool)
    far = left(made, every, bounds_of(out, box, [0.99, 1, 1.99, 2], every))
    assert 0 < far.sum() < 12


def test_decided_terms_do_not_run(eager: None) -> None:
    """A smooth union has two edges to each side: the maximum decides them together."""
    text = """
fn f(x: real, y: real) -> real:
    a = sqrt(x * x + y * y) - 1.0
    b = sqrt((x - 5.0)^2 + y * y) - 1.0
    h = max(0.5 - abs(a - b), 0.0)
    return min(a, b) - h * h
"""
    made, out, box = both(plain(text))
    every = np.ones(len(made.group), bool)
    flags = left(made, every, bounds_of(out, box, [0.0, 0.1, 0.0, 0.1], every))
    assert flags.sum() == 1  # a's; neither b's nor the blend's
    want = run(plain(text), [np.float32(0.05), np.float32(0.02)])
    assert run(out, [np.float32(0.05), np.float32(0.02), flags], "g")[0] == want[0]


def test_products_written_again_are_rounded_by_themselves() -> None:
    """(x - 0.5)^2 is used by many terms and written again in each: never joined with their sums."""
    terms = ", ".join(f"sqrt((x - 0.5)^2 + (y - {i + 1})^2) - 0.1" for i in range(6))
    text = f"fn f(x: real, y: real) -> real:\n    t = ({terms})\n    d = t[0]\n"
    text += "".join(f"    d = min(d, t[{i}])\n" for i in range(1, 6)) + "    return d\n"
    made = guarded(plain(text).main, "g")
    products = [op for op in walk(made.function.body) if op.name == "mul"]
    assert sorted(op.attrs["rounded"] for op in products) == [False, True]


def test_what_always_counts_has_no_flags() -> None:
    made = guarded(plain("fn f(x: real, y: real) -> real: return sin(x) + max(x, y)\n").main, "g")
    assert len(made.group) == 1 and not any(op.name == "if" for op in walk(made.function.body))


def test_nan_terms_stay() -> None:
    """Where a term may be NaN nothing is known, so it stays flagged and the value is NaN too."""
    text = "fn f(x: real, y: real) -> real: return min(sqrt(x) * 3.0 + exp(x * y), sin(y) * 2.0 + exp(y - 9.0))\n"
    module = plain(text)
    made, out, box = both(module)
    every = np.ones(len(made.group), bool)
    flags = left(made, every, bounds_of(out, box, [-1.0, 1.0, 0.0, 0.1], every))
    assert flags.all()
    assert np.isnan(run(out, [np.float32(-0.5), np.float32(0.05), flags], "g")[0])
