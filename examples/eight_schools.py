"""Eight schools: a guide for free, and what importance weights say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent
ESTIMATES = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def infer(guide: str = "full_rank", **options: Any) -> Any:
    """The posterior by a kind of guide."""
    program = wg.load(HERE / "eight_schools.wg", real="f64")
    return wg.infer.vi(program.eight_schools, {"y": ESTIMATES}, ERRORS, guide=guide, **options)


def main() -> None:
    """Compare kinds of guides."""
    for guide in ("mean_field", "full_rank", "flow"):
        posterior = infer(guide)
        print(f"{guide}, {posterior.fit.seconds:.2f} s")
        print(posterior.summary())
        effects = posterior.weights() @ posterior.returned(2000)
        print("weighted means of the effects:", effects.round(2), "\n")


if __name__ == "__main__":
    main()
