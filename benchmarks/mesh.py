"""The surface of a bracket of 20 primitives at 256^3, beside a dense grid in JAX and scikit-image.

Both give a closed mesh of the same volume; ours keeps edges and corners. Compiling is not timed, it
is printed. `python benchmarks/mesh.py`
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, bar, finish
from wengert.runtime.shapes.mesh import Mesh, mesh

import wengert as wg

HERE = Path(__file__).parent
CELLS = 256
BOUNDS = (-1.0, 1.0)
WIDTH = 0.8
BAR = 0.5  # seconds


def box(p: Any, centre: Any, half: Any) -> Any:
    """Distance to a box; p: [..., 3]."""
    q = jnp.abs(p - jnp.array(centre)) - jnp.array(half)
    outside = jnp.sqrt(jnp.sum(jnp.maximum(q, 0.0) ** 2, axis=-1) + 1e-20)
    return outside + jnp.minimum(jnp.max(q, axis=-1), 0.0)


def rod(p: Any, centre: Any, radius: float, half: float) -> Any:
    """Distance to an upright cylinder."""
    q = p - jnp.array(centre)
    a = jnp.sqrt(q[..., 0] ** 2 + q[..., 1] ** 2 + 1e-20) - radius
    b = jnp.abs(q[..., 2]) - half
    outside = jnp.sqrt(jnp.maximum(a, 0.0) ** 2 + jnp.maximum(b, 0.0) ** 2 + 1e-20)
    return outside + jnp.minimum(jnp.maximum(a, b), 0.0)


@jax.jit
def bracket(p: Any, width: Any) -> Any:
    """The bracket of bracket.wg, point by point."""
    base = box(p, (0.0, 0.0, -0.8), (width, 0.6, 0.1))
    d = smooth_min(base, box(p, (-0.8, 0.0, 0.0), (0.1, 0.6, 0.9)), 0.1)
    for i in range(8):
        d = jnp.maximum(d, -rod(p, (-0.6 + 0.2 * i, 0.3, -0.8), 0.05, 0.2))
    for i in range(10):
        d = jnp.minimum(d, box(p, (-0.6 + 0.1 * i, -0.3, -0.6), (0.03, 0.1, 0.2)))
    return d


def smooth_min(a: Any, b: Any, k: float) -> Any:
    """The lesser of two distances, with a fillet."""
    h = jnp.maximum(k - jnp.abs(a - b), 0.0) / k
    return jnp.minimum(a, b) - h * h * k / 4


def dense(points: Any) -> Any:
    """Marching cubes of scikit-image on the whole grid: vertices, faces."""
    from skimage import measure

    values = np.array(bracket(points, WIDTH))
    step = (BOUNDS[1] - BOUNDS[0]) / CELLS
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, spacing=(step,) * 3)
    return vertices + BOUNDS[0], faces


def main() -> None:
    """Time both, check that they agree, and state the bar."""
    text = (HERE / "bracket.wg").read_text()
    program = wg.compile(text, "bracket.wg")

    def ours() -> Mesh:
        return mesh(program.bracket, resolution=CELLS, bounds=BOUNDS, width=WIDTH)

    started = time.perf_counter()
    found = ours()
    print(f"first call {time.perf_counter() - started:.2f} s, compiling included; {found}")
    assert found.is_watertight()
    candidates = {"wengert, sharp edges": ours}
    axis = np.linspace(*BOUNDS, CELLS + 1, dtype=np.float32)
    points = jax.block_until_ready(jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), -1))
    try:
        vertices, faces = dense(points)
    except ImportError:
        print("no scikit-image: no comparison")
    else:
        other = Mesh(vertices, faces, np.zeros(len(faces), np.int32))
        assert abs(abs(other.volume()) / found.volume() - 1) < 2e-3, other.volume()
        candidates["jax and scikit-image"] = lambda: dense(points)
    medians = alternate(candidates, rounds=5)
    seconds = medians["wengert, sharp edges"]
    if len(medians) > 1:
        print(f"scikit-image takes {medians['jax and scikit-image'] / seconds:.1f} times as long")
    bar("mesh_bracket_256_seconds", seconds, "<=", BAR)
    finish()


if __name__ == "__main__":
    main()
