"""Voxels: which cells of a grid have their centre inside a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...passes.boxes import NoInterval
from ..errors import CallError
from ..values import Array, describe
from .bounds import Box, box_of
from .field import Field
from .pruned import check_room, sample

PLAIN = 2**20  # points computed at once where nothing can be pruned


def centres(box: Box, grid: int | Sequence[int]) -> list[Array]:
    """The coordinates of the centres of a grid's cells along each axis: f64[n] each.

    grid: how many cells, or how many along each axis. Raises CallError.
    """
    counts = np.asarray(grid)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (3,)) or (counts < 1).any():
        raise CallError(
            "a grid has a number of cells", expected="a whole number, or one for each axis",
            found=describe(grid),
        )  # fmt: skip
    return [
        low + (np.arange(n) + 0.5) * ((high - low) / n)
        for low, high, n in zip(box.low, box.high, np.broadcast_to(counts, 3))
    ]


def voxels(field: Field, grid: int | Sequence[int], bounds: Any) -> Array:
    """Whether the centre of each cell is inside: bool[n, n, n], indexed [x, y, z].

    bounds: (lo, hi), each a number or a point. Cells that intervals prove empty or full are not
    computed (docs/intervals.md); where the field has no intervals, every one is.
    Raises CallError, and GridTooLarge for a grid that does not fit in memory.
    """
    box = box_of(bounds)
    axes = centres(box, grid)
    try:
        return sample(field.program.field, axes, point="point", **field.given).inside
    except NoInterval:
        return _plainly(field, axes)


def _plainly(field: Field, axes: Sequence[Array]) -> Array:
    """Every point computed, some planes at a time."""
    shape = tuple(len(x) for x in axes)
    check_room(shape, 1)
    out = np.empty(shape, np.bool_)
    step = max(1, PLAIN // (shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        planes = np.meshgrid(axes[0][start : start + step], *axes[1:], indexing="ij")
        points = np.stack(planes, -1).reshape(-1, 3).astype(field.dtype)
        out[start : start + step] = (field.values(points) <= 0).reshape(planes[0].shape)
    return out
