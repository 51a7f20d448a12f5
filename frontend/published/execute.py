"""Hard execution: the voxels of a program by the published integer rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .kinds import Kind
from .model import Statement, expanded

SIZE = 32
CENTRE = SIZE // 2  # positions count from here
DISC = 1.01  # a disc of radius r holds the cells whose centres lie within 1.01 r
NEAR = 1e-5  # lines hold cells at just their radius

Grid = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int, int, int]  # lo and hi of the three axes


def voxels_of(statements: Iterable[Statement]) -> Grid:
    """The solid of statements, bool[32, 32, 32] indexed (height, first, second).

    What lies outside of the grid is cut off; negative sizes draw nothing.
    """
    grid = np.zeros((SIZE, SIZE, SIZE), bool)
    for statement in statements:
        for kind, values in expanded(statement):
            if kind.solid == "disc":
                _fill_disc(grid, values)
            elif kind.solid == "line":
                _fill_line(grid, values)
            else:
                for lo0, hi0, lo1, hi1, lo2, hi2 in boxes(kind, values):
                    grid[_cut(lo0, hi0), _cut(lo1, hi1), _cut(lo2, hi2)] = True
    return grid


def boxes(kind: Kind, values: Sequence[int]) -> Iterator[Box]:
    """The half-open boxes that a solid of flat sides consists of, relative to the centre."""
    h, a, b, t, r, *rest = values
    match kind.solid:
        case "corner":
            yield h, h + t, a, a + r, b, b + rest[0]
        case "centred":
            yield h, h + t, a - r, a + r, b - rest[0], b + rest[0]
        case "square":
            yield h, h + t, a - r, a + r, b - r, b + r
        case "side":
            yield h, h + t, a - r, a + r, b, b + rest[0]
        case "arm":
            arms = (
                (a - 1, a + 1, b - r, b),
                (a, a + r, b - 1, b + 1),
                (a - 1, a + 1, b, b + r),
                (a - r, a, b - 1, b + 1),
            )
            yield (h, h + t, *arms[rest[0] % 4])
        case "tilted":
            depth, f = rest
            first, last = max(0, -CENTRE - h), min(t, CENTRE - h)  # layers inside the grid
            for k in range(first, last):
                o = int(np.rint(k * f / t + a))
                yield h + k, h + k + 1, o, o + r, b, b + depth
        case _:
            raise ValueError(f"a {kind.solid} has round sides")


def _cut(lo: int, hi: int) -> slice:
    """[lo, hi) from the centre as a slice of an axis, cut to the grid."""
    return slice(*(min(max(CENTRE + v, 0), SIZE) for v in (lo, hi)))


def _fill_disc(grid: Grid, values: Sequence[int]) -> None:
    h, c1, c2, t, r = values
    centres = np.arange(SIZE) + 0.5 - CENTRE
    distance = np.sqrt((centres[:, None] - c1) ** 2 + (centres - c2) ** 2)
    grid[_cut(h, h + t)] |= distance <= DISC * r


def _fill_line(grid: Grid, values: Sequence[int]) -> None:
    """Cells between the ends and within the radius, measured between cell numbers.

    This is what the authors' random sampling converges to.
    """
    start, end = (np.array(v, float) + CENTRE for v in (values[:3], values[3:6]))
    radius = values[6]
    length = float(np.linalg.norm(end - start))
    if length == 0:
        return
    low = np.clip(np.floor(np.minimum(start, end) - radius), 0, SIZE).astype(int)
    high = np.clip(np.ceil(np.maximum(start, end) + radius) + 1, 0, SIZE).astype(int)
    window = tuple(slice(lo, hi) for lo, hi in zip(low, high))
    at = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in window), indexing="ij"), -1)
    along = (at - start) @ ((end - start) / length)
    across = np.sqrt(np.maximum(np.sum((at - start) ** 2, -1) - along**2, 0))
    between = (along >= -NEAR) & (along <= length + NEAR)
    grid[window] |= between & (across <= radius + NEAR)
