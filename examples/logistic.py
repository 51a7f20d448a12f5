"""Logistic regression on scikit-learn's breast cancer data, with honest uncertainty."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent


def breast_cancer() -> tuple[Any, Any]:
    """Standardised features `[569, 30]`, and whether each tumour is benign."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y.astype(bool)


def infer(x: Any, y: Any, **options: Any) -> Any:
    """The posterior by a full-rank guide."""
    program = wg.load(HERE / "logistic.wg", real="f64")
    return wg.infer.vi(program.logistic, {"y": y}, x, **options)


def chances(posterior: Any, x: Any, n: int = 500) -> Any:
    """Posterior predictive probabilities of true labels: means over n draws."""
    chance = posterior.guide.problem.model.program.chance
    return chance.batched(**posterior.sample(n), x=x, axes={"x": None}).mean(axis=0)


def main() -> int:
    """Fit on 400 tumours, predict the others; 1 if fewer than 95 % are right."""
    try:
        x, y = breast_cancer()
    except ImportError:
        print("skipped: pip install 'wengert[data]'")
        return 0
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:400], order[400:]
    posterior = infer(x[train], y[train])
    print(posterior.summary())
    predicted = chances(posterior, x[test])
    accuracy = float(np.mean((predicted > 0.5) == y[test]))
    unsure = np.mean((predicted > 0.1) & (predicted < 0.9))
    print(f"{accuracy:.1%} of {len(test)} test labels right, {unsure:.0%} of predictions unsure")
    return 0 if accuracy >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
