"""A mixture with discrete choices: the guide is for what is continuous, the rest is enumerated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent


def old_faithful() -> Any:
    """Eruption minutes and waiting minutes of 272 eruptions."""
    return np.loadtxt(HERE / "data" / "old_faithful.csv", delimiter=",", skiprows=1)


def infer(x: Any, **options: Any) -> Any:
    """The posterior of shares, means and scales by a full-rank guide."""
    program = wg.load(HERE / "discrete_mixture.wg", real="f64")
    return wg.infer.vi(program.geyser, {"x": x}, len(x), **options)


def chances(posterior: Any, x: Any, n: int = 500) -> Any:
    """The probability of each eruption to be a long one: means over n draws."""
    chance = posterior.guide.problem.model.program.chance_long
    return chance.batched(**posterior.sample(n), x=x, axes={"x": None}).mean(axis=0)


def main() -> None:
    """Fit, and say what the two kinds are like."""
    data = old_faithful()
    centre, scale = data.mean(axis=0), data.std(axis=0)
    x = (data - centre) / scale
    posterior = infer(x)
    print(posterior.summary())
    mean = posterior.mean()
    for name, place in (("short", mean["short"]), ("long", mean["short"] + mean["longer"])):
        minutes, wait = place * scale + centre
        print(f"{name} eruptions: {minutes:.2f} minutes, {wait:.1f} to the next")
    unsure = np.sum(np.abs(chances(posterior, x) - 0.5) < 0.4)
    print(f"{unsure} of {len(x)} eruptions could be of either kind")


if __name__ == "__main__":
    main()
