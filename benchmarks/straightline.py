"""10 000 straight-line scalar operations in one function, over a million points.

Bars: compiled (text to first result) in under 5 s on LLVM; evaluated at 30 GFLOP/s or more.
"""

from __future__ import annotations

import os
import tempfile
import time

import numpy as np
from harness import alternate, bar, finish

import wengert as wg

OPERATIONS = 10_000
POINTS = 1_000_000


def program_text(operations: int) -> str:
    """A function whose every line is one addition or multiplication of earlier values."""
    rng = np.random.default_rng(0)
    lines = ["fn f(x: f32[n], y: f32[n]) -> f32[n]:", "    v0 = x + y", "    v1 = x * y"]
    for i in range(2, operations):
        # Alternate a shrinking product and a sum, so that values stay of size 1.
        if i % 2:
            lines.append(f"    v{i} = v{i - 1} * {rng.uniform(0.3, 0.7):.4f}")
        else:
            lines.append(f"    v{i} = v{i - 1} + {'xy'[int(rng.integers(2))]}")
    return "\n".join([*lines, f"    return v{operations - 1}", ""])


def reference(text: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same lines run by Python on a few points in f64."""
    names = {"x": x.astype(np.float64), "y": y.astype(np.float64)}
    for line in text.splitlines()[1:]:
        line = line.strip()
        if line.startswith("return"):
            return np.asarray(names[line.split()[1]])
        target, expression = line.split(" = ")
        names[target] = eval(expression, {}, names)
    raise AssertionError("no return")


def main() -> None:
    """Compile without a cache, check a few points, then measure."""
    text = program_text(OPERATIONS)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0.1, 1, (2, POINTS)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WENGERT_CACHE_DIR"] = folder
        start = time.perf_counter()
        f = wg.compile(text).f
        out = f(x, y)
        seconds = time.perf_counter() - start
    expected = reference(text, x[:64], y[:64])
    assert np.allclose(out[:64], expected, rtol=1e-3), (out[:4], expected[:4])
    times = alternate({"1e4 operations x 1e6 points": lambda: f(x, y)}, rounds=5, seconds=2.0)
    rate = OPERATIONS * POINTS / times["1e4 operations x 1e6 points"] / 1e9
    bar("straightline_compile_s", seconds, "<=", 5.0)
    bar("straightline_gflops", rate, ">=", 30.0)
    finish()


if __name__ == "__main__":
    main()
