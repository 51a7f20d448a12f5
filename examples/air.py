"""Attend-Infer-Repeat on small canvases: pictures explained as up to three objects.

python examples/air.py [enum | mvd | hybrid | reinforce]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent
CANVAS, DIGIT = 20, 8


def canvases(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Images `[n, 20, 20]` of none, one or two of scikit-learn's digits, and how many."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    digits = load_digits().images / 16
    images = np.zeros((n, CANVAS, CANVAS), np.float32)
    counts = rng.integers(0, 3, n)
    for image, count in zip(images, counts):
        for i, left in enumerate(rng.permutation([0, 12])[:count]):
            top, left = rng.integers(0, 13), left + rng.integers(-1, 2) * (i == 0)
            window = image[top : top + DIGIT, max(0, left) :][:, :DIGIT]
            window[:] = digits[rng.integers(len(digits))][:, : window.shape[1]]
    return images, counts


def train(images: Any, how: str = "mvd", **options: Any) -> tuple[wg.Program, wg.FitResult]:
    """The program, and a fit of its networks by the ELBO."""
    program = wg.load(HERE / "air.wg", backend="xla")
    start = program.init(CANVAS, DIGIT, 10, 64, 64, wg.key(0))
    options = {"steps": 1000, "batch_size": 64, "optimizer": wg.adam(1e-3)} | options
    options["data"] = {"images": images, "how": how}
    return program, wg.fit(program.loss, {"net": start}, rows=["images"], **options)


def main() -> int:
    """Fit by the estimator that is named, and say how far the ELBO rose; 1 if it did not."""
    how = sys.argv[1] if len(sys.argv) > 1 else "mvd"
    try:
        images, _ = canvases(2000)
    except ImportError:
        print("skipped: pip install 'wengert[data]'")
        return 0
    _, fit = train(images, how)
    first, last = -fit.losses[:20].mean(), -fit.losses[-20:].mean()
    print(f"ELBO by {how}: {first:.1f} -> {last:.1f} nats")
    return 0 if last > first + 10 else 1


if __name__ == "__main__":
    sys.exit(main())
