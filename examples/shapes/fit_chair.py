"""Find the sizes of a chair from its voxels, by gradient descent through the shape program.

    python examples/shapes/fit_chair.py

First distances to a target are matched within a reach of four cells, which a chair of quite other
sizes can follow; then the intersection over union of soft occupancies.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from wengert.runtime.shapes import Camera, encode_png, render, signed_distances

import wengert as wg

HERE = Path(__file__).parent
OUT = HERE.parent.parent / "out"
TRUE = {"width": 18, "depth": 14, "seat": 15, "thick": 2, "leg": 2, "back": 15, "lean": 0.2}
START = {"width": 14, "depth": 17, "seat": 12, "thick": 3, "leg": 3, "back": 12, "lean": 0.05}
CAMERA = Camera((62.0, -58.0, 26.0), (0.0, 0.0, -1.0), 40.0)


def fit(program: wg.Program, target: Any) -> list[dict[str, Any]]:
    """The sizes at the start, after the far fit, and after the near one."""
    start = {name: float(value) for name, value in START.items()}
    far = wg.fit(
        program.far_loss,
        {"s": start},
        target=signed_distances(target),
        reach=4.0,
        steps=120,
        optimizer=wg.adam(wg.cosine_decay(0.15, 120)),
    )
    near = wg.fit(
        program.near_loss,
        {"s": far.params["s"]},
        target=target,
        steps=80,
        optimizer=wg.adam(wg.cosine_decay(0.03, 80)),
    )
    return [start, far.params["s"], near.params["s"]]


def picture(program: wg.Program, sizes: list[dict[str, Any]]) -> Path:
    """Chairs of several sizes side by side, as a file."""
    seen = [render(program.chair, size=300, camera=CAMERA, **s).pixels for s in sizes]
    path = OUT / "chairs.png"
    OUT.mkdir(exist_ok=True)
    path.write_bytes(encode_png(np.hstack(seen)))
    return path


def main() -> float:
    """The intersection over union that was reached."""
    program = wg.load(HERE / "chair.wg")
    target = program.voxels(TRUE)
    started = time.perf_counter()
    steps = fit(program, target)
    before, between, after = (float(program.overlap(s, target)) for s in steps)
    print(
        f"chair from {int(target.sum())} voxels: IoU {before:.3f} -> {between:.3f} -> {after:.3f} "
        f"in {time.perf_counter() - started:.1f} s, compiling included"
    )
    found = ", ".join(f"{n} {float(steps[-1][n]):.2f} ({v})" for n, v in TRUE.items())
    print(f"  sizes (true ones): {found}")
    print(f"  picture (target, start, found): {picture(program, [TRUE, steps[0], steps[-1]])}")
    return after


if __name__ == "__main__":
    sys.exit(0 if main() >= 0.95 else 1)
