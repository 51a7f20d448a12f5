"""Posterior means by full-rank guides beside long NUTS runs of NumPyro.

Bars: every mean within 0.1 posterior standard deviations. `..._draws` are means of the guide's
own draws, the others those that `Posterior.mean` gives: of draws with smoothed importance weights.
A normal guide of eight schools is too narrow for tau, whose posterior is far from log-normal.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import bar, finish
from peers.posteriors_numpyro import eight_schools, logistic, nuts

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
DRAWS = 40_000  # for means with an error of 0.005 deviations

Draws = dict[str, Any]


def compare(name: str, posterior: Any, draws: Draws, reference: Draws) -> None:
    """Print where means differ most, and the bars."""
    weights = posterior.weights(DRAWS)
    worst = {"weighted": 0.0, "draws": 0.0}
    for key, known in reference.items():
        mean, deviation = known.mean(axis=0), known.std(axis=0)
        found = {
            "weighted": np.tensordot(weights, draws[key], axes=1),
            "draws": draws[key].mean(axis=0),
        }
        gaps = {k: float(np.max(np.abs(v - mean) / deviation)) for k, v in found.items()}
        print(f"  {key:<10} {gaps['weighted']:.3f} weighted, {gaps['draws']:.3f} plain")
        worst = {k: max(worst[k], gaps[k]) for k in worst}
    print(f"  k-hat {posterior.khat:.2f}, {posterior.fit.seconds:.2f} s of fit")
    bar(f"{name}_full_rank", worst["weighted"], "<=", 0.1)
    bar(f"{name}_full_rank_draws", worst["draws"], "<=", 0.1)


def timed_nuts(*args: Any, **options: Any) -> Draws:
    """A run, and how long it took on standard output."""
    start = time.perf_counter()
    found = nuts(*args, **options)
    print(f"  NUTS took {time.perf_counter() - start:.1f} s")
    return found


def main() -> None:
    """Both models."""
    import eight_schools as schools
    import logistic as regression

    print("eight schools")
    reference = timed_nuts(eight_schools, schools.ESTIMATES, schools.ERRORS, draws=20_000)
    posterior = schools.infer(steps=5000, samples=32)
    draws = posterior.sample(DRAWS) | {"effect": posterior.returned(DRAWS)}
    compare("eight_schools", posterior, draws, reference)

    print("logistic regression")
    x, y = regression.breast_cancer()
    reference = timed_nuts(logistic, y.astype(np.float64), x, draws=5000)
    posterior = regression.infer(x, y, steps=5000)
    compare("logistic", posterior, posterior.sample(DRAWS), reference)
    finish()


if __name__ == "__main__":
    main()
