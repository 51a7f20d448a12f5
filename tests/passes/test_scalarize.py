"""Small arrays taken apart: the same values, and no small array left where none is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Module, walk
from wengert.ir.interp import run
from wengert.ir.verify import verify
from wengert.passes.scalarize import scalarize
from wengert.passes.simplify import simplify
from wengert.runtime.requests import Request

import wengert as wg

BODIES = {
    "norm": "return norm(p) + sum(p * p)",
    "rotation": "r = [[cos(a), -sin(a), 0.0], [sin(a), cos(a), 0.0], [0.0, 0.0, 1.0]]\n    q = r @ (p - 0.5)\n    return q[0] * q[1] + max(q) + prod(q) + min(abs(q))",
    "outer": "m = p[:, None] * p[None, :]\n    return trace(m @ m.T) + sum(m[1:, ::2]) + sum(flip(m, axis=1)[0])",
    "bools": "return 1.0 if all(p > a) else sum(where(p > a, p, -p))",
    "indices": "return sum(p * real(arange(3))) + p[i32(floor(a)) + 1]",
    "whole": "s = 0.0\n    for v in p:\n        s = sin(s + v) + norm(p)\n    return s",
}


def module_of(body: str, *args: Any) -> Module:
    f = wg.compile(f"fn f(p: real[3], a: real):\n    {body}\n", backend="interp", real="f64").f
    f(*args)
    assert f._last is not None
    return f._last.module(Request())


@pytest.mark.parametrize("name", BODIES)
def test_values_stay(name: str) -> None:
    rng = np.random.default_rng(0)
    args = [rng.normal(size=3), np.float64(0.7)]
    module = module_of(BODIES[name], *args)
    changed = scalarize(module)
    verify(changed)
    np.testing.assert_allclose(run(changed, args), run(module, args), rtol=1e-14)
    np.testing.assert_allclose(run(simplify(changed), args), run(module, args), rtol=1e-14)


def test_nothing_small_is_computed_with() -> None:
    module = simplify(scalarize(module_of(BODIES["rotation"], np.ones(3), 0.5)))
    shaped = [op.name for op in walk(module.main.body) for r in op.results if Builder.type(r).shape]
    assert set(shaped) == {"slice"}


def test_large_arrays_and_what_only_picks_stay() -> None:
    f = wg.compile("fn f(x: real[n]): return sum(x * x)\nfn g(p: real[3]): return p[0] * p[1]").f
    f(np.ones(40))
    module = f._last.module(Request())
    assert scalarize(module) is module
    g = f.program.g
    g(np.ones(3))
    module = g._last.module(Request())
    assert scalarize(module) is module


def test_batched_functions_of_small_arrays_agree(on_every_backend: Any) -> None:
    rng = np.random.default_rng(1)
    text = f"fn f(p: real[3], a: real):\n    {BODIES['rotation']}\n"
    out = on_every_backend(
        text, "f", rng.normal(size=(33, 3)), rng.normal(size=33), method="batched"
    )
    assert out.shape == (33,)
