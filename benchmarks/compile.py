"""Compile time of the GMM gradient: cold, and from the cache.

Each measurement is a fresh process: import wengert and the libraries that its LLVM backend
uses (llvmlite, SciPy's BLAS; by compiling a matrix product of another program), then the
clock runs from loading the source to the first gradient. Bars: cold at most 1 s; from the
cache at most 50 ms.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import bar, finish

SOURCE = Path(__file__).parent.parent / "examples" / "gmm.wg"
CHILD = """
import sys, time
import numpy as np
import wengert as wg
wg.compile("fn f(x: f32[n, n]): return x @ x").f(np.ones((64, 64), np.float32))
rng = np.random.default_rng(0)
n, d, k = 1000, 10, 10
m = {"alphas": rng.normal(size=k), "means": rng.normal(size=(k, d)),
     "icf": rng.normal(size=(k, d + d * (d - 1) // 2))}
m = {a: b.astype(np.float32) for a, b in m.items()}
x = rng.normal(size=(n, d)).astype(np.float32)
start = time.perf_counter()
g = wg.load(sys.argv[1]).objective.grad(m, x, 1.0, 1.0)
seconds = time.perf_counter() - start
assert np.isfinite(g["means"]).all()
print(seconds)
"""


def first_gradient(cache: str) -> float:
    """Seconds from source to first gradient in a new process with that cache folder."""
    environment = os.environ | {"WENGERT_CACHE_DIR": cache}
    out = subprocess.run(
        [sys.executable, "-c", CHILD, str(SOURCE)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(out.stdout)


def main() -> None:
    """Five cold and five warm processes; medians."""
    cold, warm = [], []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(first_gradient(folder))
            warm.append(first_gradient(folder))
    print("  cold", [round(t, 3) for t in cold], "s; from the cache", [round(t, 4) for t in warm])
    bar("compile_gmm_gradient_cold_s", statistics.median(cold), "<=", 1.0)
    bar("compile_gmm_gradient_cached_ms", statistics.median(warm) * 1e3, "<=", 50.0)
    finish()


if __name__ == "__main__":
    main()
