"""The level of the Nile at Aswan, 1871 to 1970: a state-space model with its loop left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent


def nile() -> tuple[Any, Any]:
    """Years, and annual flows in 10^8 cubic metres (Cobb 1978)."""
    table = np.loadtxt(HERE / "data" / "nile.csv", delimiter=",", skiprows=1)
    return table[:, 0].astype(int), table[:, 1]


def infer(values: Any, **options: Any) -> Any:
    """The posterior by a full-rank guide: of two deviations and the level of every year."""
    program = wg.load(HERE / "state_space.wg", real="f64")
    return wg.infer.vi(program.local_level, {"y": values}, len(values), **options)


def main() -> None:
    """Fit, and draw the level as a line of characters a decade."""
    years, flow = nile()
    centre, scale = flow.mean(), flow.std()
    posterior = infer((flow - centre) / scale)
    lines = posterior.summary().splitlines()
    print("\n".join([*lines[:4], *lines[-2:]]))
    drawn = posterior.sample(2000)["level"] * scale + centre
    mean, deviation = drawn.mean(axis=0), drawn.std(axis=0)
    for i in range(0, len(years), 10):
        bar = "#" * int(mean[i] / 25)
        print(
            f"{years[i]}  flow {flow[i]:5.0f}  level {mean[i]:5.0f} +- {deviation[i]:3.0f}  {bar}"
        )


if __name__ == "__main__":
    main()
