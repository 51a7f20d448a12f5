"""Bodies of thousands of ops are emitted in parts, without a change in any bit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from wengert.backends.llvm import parts

import wengert as wg

FORMS = [
    "v{a} * {c}",
    "v{a} + v{b}",
    "v{a} - {c}",
    "min(v{a}, v{b})",
    "max(v{a}, v{b})",
    "v{a} * v{b}",
    "sin(v{b}) + v{a}",
]


def text(operations: int) -> str:
    rng = np.random.default_rng(0)
    lines = ["fn f(x: real, y: real) -> real:", "    v0 = x", "    v1 = y"]
    for i in range(2, operations + 2):
        a, b = i - 1, int(rng.integers(max(0, i - 30), i))
        form = FORMS[int(rng.integers(len(FORMS)))]
        lines.append(f"    v{i} = " + form.format(a=a, b=b, c=f"{rng.uniform(0.3, 0.7):.4f}"))
    return "\n".join([*lines, f"    return v{operations + 1}", ""])


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 1000)).astype(np.float32)
    results = []
    for size in (10**9, 40):
        monkeypatch.setattr(parts, "PART_OPS", size)
        monkeypatch.setenv("WENGERT_CACHE_DIR", "")
        f = wg.compile(text(600)).f
        results.append(f.batched(x, y))
        count = len(re.findall(r"^define .*@part", f.llvm(0.1, 0.2), re.M))
        assert (count > 3) == (size == 40)
    np.testing.assert_array_equal(*results)
    want = wg.compile(text(600), backend="interp").f.batched(x[:50], y[:50])
    np.testing.assert_allclose(results[0][:50], want, rtol=2e-3, atol=1e-5)
