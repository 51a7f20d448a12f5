"""The cone of Becker, Lew et al. (PLDI 2024): the bounds of table 4, and the speed of the loop.

Values: 5 000 steps of 64 samples by plain gradient ascent of rate 1e-3, then the mean of 5 000
samples; a bound is reached if its value is not below the paper's by more than three standard
errors. Speed: the whole loop, compiled, beside hand-written JAX and NumPyro in turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness import alternate, bar, finish
from peers import cone_jax
from wengert.runtime.keys import split_key

import wengert as wg

SOURCE = Path(__file__).parent.parent / "examples" / "cone.wg"
PUBLISHED = {"elbo": -8.08, "iwelbo": -7.67, "hvi": -9.75, "iwhvi": -8.18, "diwhvi": -7.30}
STARTS = {"elbo": cone_jax.INITIAL, "iwelbo": cone_jax.INITIAL}
STEPS, SAMPLES, RATE, OBSERVED = 5000, 64, 1e-3, 5.0
EVALUATED = 5000


def fit(program: wg.Program, name: str, key: int = 0) -> wg.FitResult:
    """One fit as the paper runs it."""
    start = np.array(STARTS.get(name, (0.0, 0.0)), np.float32)
    return wg.fit(
        getattr(program, name),
        {"phi": start},
        z=OBSERVED,
        key=wg.key(key),
        samples=SAMPLES,
        steps=STEPS,
        optimizer=wg.sgd(RATE),
        maximize=True,
        progress=False,
    )


def values(program: wg.Program) -> None:
    """Every bound of table 4 with its standard error."""
    for name, published in PUBLISHED.items():
        phi = fit(program, name).params["phi"]
        keys = split_key(wg.key(123), EVALUATED)
        runs = getattr(program, name).batched(
            phi, OBSERVED, key=keys, axes={"phi": None, "z": None}
        )
        mean, error = runs.mean(), runs.std(ddof=1) / np.sqrt(EVALUATED)
        print(f"  {name:<8} {mean:8.4f} +- {error:.4f}  (paper {published})")
        bar(f"cone_{name}_value", float(mean + 3 * error), ">=", published)


def speed(program: wg.Program) -> None:
    """The ELBO loop beside the peers'."""
    z = np.float32(OBSERVED)
    phi = jax.numpy.asarray(cone_jax.INITIAL)
    by_jax = cone_jax.make_fit()
    candidates: dict[str, Any] = {
        "llvm": lambda: fit(program, "elbo"),
        "jax": lambda: jax.block_until_ready(by_jax(phi, z, jax.random.PRNGKey(0))),
    }
    try:
        from peers import cone_numpyro
    except ImportError:
        print("  numpyro is not installed (pip install -e '.[bench]'): left out")
    else:
        by_numpyro = cone_numpyro.make_fit()
        candidates["numpyro"] = lambda: jax.block_until_ready(
            by_numpyro(phi, z, jax.random.PRNGKey(0))
        )
    losses = by_jax(phi, z, jax.random.PRNGKey(0))[1]  # of the negative ELBO
    ours, theirs = fit(program, "elbo").losses[-500:].mean(), -np.asarray(losses)[-500:].mean()
    assert abs(ours - theirs) < 0.05, "the loops find different optima"
    times = alternate(candidates, rounds=15, seconds=3.0)
    bar("cone_jax_over_llvm", times["jax"] / times["llvm"], ">=", 6.0)
    if "numpyro" in times:
        bar("cone_numpyro_over_llvm", times["numpyro"] / times["llvm"], ">=", 12.0)


def main() -> None:
    """Values, then speed."""
    program = wg.load(SOURCE)
    values(program)
    speed(program)
    finish()


if __name__ == "__main__":
    main()
