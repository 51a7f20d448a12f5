"""Sampling a field on a grid, cells without a surface skipped (quadtree in 2-D, octree in 3-D).

The grid's smallest cells are tiles of a few points along each axis; a cell above holds `branch`
of those below along each axis. Interval bounds of the field over a cell's points prove it empty
(positive) or full (negative); of the others the children are looked at, down to tiles, whose
points are computed. On the way every cell learns which choices of the field (terms of its
minima and maxima) its points can make; code that only the others need does not run
(passes/guards.py). Points are computed by the ops that plain sampling runs, so the signs of both
agree.

Batches have fixed sizes, so that two programs are compiled for a field, whatever the grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...backends.memory import available, require
from ...ir.errors import WengertError
from ...ir.types import TensorType
from ...passes.tiles import TILINGS, Tiling
from ..errors import CallError
from ..requests import Request
from ..values import Array

if TYPE_CHECKING:
    from ..function import CompiledFunction


class GridTooLarge(WengertError):
    """A grid that does not fit in memory."""


@dataclass
class Statistics:
    """What sampling did.

    cells: for each level from the largest cells on: (points along an axis, visited, proved
        empty, proved full). points: points of the grid; sampled: those that were computed.
    """

    points: int
    sampled: int = 0
    cells: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of points that were computed."""
        return self.sampled / max(1, self.points)


@dataclass(frozen=True)
class Sampled:
    """A field on a grid.

    values: `[n0, n1(, n2)]`. Computed where `exact`; in cells proved empty or full a bound of the
        right sign. exact: bool, of the same shape. Both are None unless values were asked for.
    inside: bool, of the same shape: where the field is negative (or 0).
    """

    inside: Array
    statistics: Statistics
    values: Array | None = None
    exact: Array | None = None


def sample(
    function: CompiledFunction,
    axes: Sequence[Array],
    *,
    point: str | None = None,
    values: bool = False,
    halo: int = 0,
    **arguments: Any,
) -> Sampled:
    """The sign of a scalar function of a point (of 2 or 3 coordinates) over a grid.

    axes: the grid's coordinates along each axis, ascending. point: the function's parameter
        that is the point, by default the first; the others are given by name.
    values: keep the values, too. halo: cells are proved as if they held that many points more
        on each side, so that all points next to a change of sign are computed.

    Raises CallError where the function or the grid does not fit, GridTooLarge, NoInterval.
    """
    name = point or function.decl.parameters[0].name
    coordinates = [np.asarray(x) for x in axes]
    _check(coordinates)
    shape = tuple(len(x) for x in coordinates)
    check_room(shape, 6 if values else 1)
    zeros = np.zeros(len(shape))
    special, bound = function._bind((), {name: zeros, **arguments})
    struct = dict(special.params).get(name)
    if struct != TensorType(function.program.real, (len(shape),)):
        raise CallError(
            f"{function.__name__}() has no point of {len(shape)} coordinates in '{name}'",
            function.decl.span,
            found=str(struct),
        )
    result = special.lowered.result
    if result != TensorType(function.program.real):
        raise CallError(
            f"{function.__name__}() is no field", function.decl.span,
            expected=str(TensorType(function.program.real)), found=str(result),
        )  # fmt: skip
    others = _without(special.params, name, bound.arrays)
    cells = special.executable(Request("cells", (name,)))
    points = special.executable(Request("points", (name,)))
    grid = _Grid(coordinates, function.program.real.numpy, TILINGS[len(shape)], halo)
    threads = _threads() if function.program.backend == "llvm" else 0
    run = _Run(grid, cells, points, others, values, threads)
    return run.sampled()


def _without(params: Any, name: str, arrays: Sequence[Array]) -> list[Array]:
    """The arrays of all parameters but one."""
    from ...ir.struct import leaves

    owners = [n for n, s in params for _ in leaves(s)]
    return [a for n, a in zip(owners, arrays, strict=True) if n != name]


def _threads() -> int:
    from ...backends.llvm.executable import cpu_count

    return cpu_count()


def _check(axes: Sequence[Array]) -> None:
    if len(axes) not in TILINGS:
        raise CallError("a grid has 2 or 3 axes", found=str(len(axes)))
    for i, x in enumerate(axes):
        if x.ndim != 1 or not len(x) or not np.isfinite(x).all() or (np.diff(x) <= 0).any():
            raise CallError(
                f"axis {i} of the grid does not ascend",
                expected="finite numbers, each above the one before",
                found=np.array2string(x, threshold=6, precision=4),
            )


def check_room(shape: Sequence[int], bytes_each: int) -> None:
    """Raise GridTooLarge where a grid of that many bytes a point does not fit in memory."""
    need = math.prod(shape) * bytes_each
    try:
        require(need)
    except MemoryError:
        free = available()
        raise GridTooLarge(
            f"a grid of {' x '.join(map(str, shape))} points does not fit in memory",
            expected=f"{free / 2**30:.1f} GiB of free memory at most" if free else None,
            found=f"{need / 2**30:.1f} GiB",
            hint="take fewer points along each axis",
        ) from None


class _Grid:
    """Coordinates by level. Cells of level k, the root being level 0, hold `size(k)` tiles along
    each axis; the children of a cell are those of the next level, and tiles are the last level.
    """

    def __init__(self, axes: Sequence[Array], dtype: Any, tiling: Tiling, halo: int) -> None:
        self.tiling = tiling
        self.shape = tuple(len(x) for x in axes)
        self.tiles = tuple(-(-n // tiling.tile) for n in self.shape)
        self.levels = 1
        while tiling.branch**self.levels < max(self.tiles):
            self.levels += 1
        self.axes = [np.ascontiguousarray(x, dtype) for x in axes]
        self.offsets = np.array(list(itertools.product(range(tiling.branch), repeat=tiling.dims)))
        self.corners = [self._corners(k, halo) for k in range(self.levels + 1)]
        self.coordinates = self._coordinates()

    def size(self, level: int) -> int:
        """Tiles of a cell along an axis."""
        return int(self.tiling.branch ** (self.levels - level))

    def _corners(self, level: int, halo: int) -> list[tuple[Array, Array]]:
        """The first and the last coordinate of every cell of a level, along each axis."""
        step = self.size(level) * self.tiling.tile
        out = []
        for x in self.axes:
            first = np.arange(-(-len(x) // step)) * step
            last = np.minimum(first + step, len(x)) - 1
            low, high = np.maximum(first - halo, 0), np.minimum(last + halo, len(x) - 1)
            out.append((x[low], x[high]))
        return out

    def _coordinates(self) -> list[Array]:
        """For each axis the coordinates of a tile's points in row-major order, a row a tile."""
        dims, tile = self.tiling.dims, self.tiling.tile
        out = []
        for axis, (x, count) in enumerate(zip(self.axes, self.tiles)):
            rows = np.concatenate([x, np.full(count * tile - len(x), x[-1])]).reshape(count, tile)
            shape = [count] + [tile if i == axis else 1 for i in range(dims)]
            wide = np.broadcast_to(rows.reshape(shape), (count, *(tile,) * dims))
            out.append(np.ascontiguousarray(wide).reshape(count, -1))
        return out


class _Run:
    """One sampling of a grid, by batches of cells, depth first."""

    def __init__(
        self,
        grid: _Grid,
        cells: Any,
        points: Any,
        others: Sequence[Array],
        values: bool,
        threads: int,
    ) -> None:
        self.grid, self.cells, self.points = grid, cells, points
        self.others = list(others)
        tile = grid.tiling.tile
        padded = tuple(n * tile for n in grid.tiles)
        self.inside = np.zeros(padded, np.bool_)
        dtype = grid.axes[0].dtype
        self.values = np.zeros(padded, dtype) if values else None
        self.exact = np.zeros(padded, np.bool_) if values else None
        self.flags = next(t for t in cells.types if len(t.shape) == 3)
        self.pool = ThreadPoolExecutor(threads) if threads else None
        self.pending: list[Future[Any]] = []
        self.counts: list[tuple[int, int, int, int]] = []  # level, visited, empty, full
        self.tiles: list[int] = []

    def sampled(self) -> Sampled:
        """Run."""
        dims = self.grid.tiling.dims
        root = np.zeros((1, dims), np.int64)
        flags = np.ones(self.flags.shape, np.bool_)
        try:
            self._children(0, root, np.zeros(1, np.int32), np.zeros(1, np.int32), flags)
            for future in self.pending:
                future.result()
        finally:
            if self.pool is not None:
                self.pool.shutdown(cancel_futures=True)
        where = tuple(slice(0, n) for n in self.grid.shape)
        inside, values, exact = (
            None if x is None else np.ascontiguousarray(x[where])
            for x in (self.inside, self.values, self.exact)
        )
        assert inside is not None
        return Sampled(inside, self._statistics(), values, exact)

    def _statistics(self) -> Statistics:
        grid, tile = self.grid, self.grid.tiling.tile
        found = Statistics(math.prod(grid.shape), sum(self.tiles))
        for level in range(1, grid.levels + 1):
            rows = [c[1:] for c in self.counts if c[0] == level]
            visited, empty, full = (sum(column) for column in zip((0, 0, 0), *rows))
            found.cells.append((grid.size(level) * tile, visited, empty, full))
        return found

    def _children(
        self, level: int, cells: Array, rows: Array, columns: Array, flags: Array
    ) -> None:
        """Look at the children of cells of a level, whose flags are at rows and columns."""
        count = self.grid.tiling.cells
        last = level + 1 == self.grid.levels
        for start in range(0, len(cells), count):
            part = slice(start, start + count)
            args = (level, cells[part], rows[part], columns[part], flags)
            if last and self.pool is not None:
                self.pending.append(self.pool.submit(self._batch, *args))
            else:
                self._batch(*args)

    def _batch(self, level: int, cells: Array, rows: Array, columns: Array, flags: Array) -> None:
        """One call of the cells program, and what follows from it."""
        grid, tiling = self.grid, self.grid.tiling
        n, count = len(cells), tiling.cells
        children = cells[:, None, :] * tiling.branch + grid.offsets
        there = np.ones(children.shape[:2], np.bool_)
        corners = []
        for axis, (low, high) in enumerate(grid.corners[level + 1]):
            index = children[:, :, axis]
            there &= index < len(low)
            index = np.minimum(index, len(low) - 1)
            corners += [_padded(low[index], count), _padded(high[index], count)]
        live = np.arange(count) < n
        places = (_padded(rows, count), _padded(columns, count), live)
        lo, hi, left = (
            np.asarray(x) for x in self.cells.run([*corners, *places, flags, *self.others])
        )
        lo, hi = lo[:n], hi[:n]
        empty, full = there & (lo > 0), there & (hi < 0)
        self.counts.append((level + 1, int(there.sum()), int(empty.sum()), int(full.sum())))
        self._decided(level + 1, children[full], True, hi[full])
        if self.values is not None:
            self._decided(level + 1, children[empty], False, lo[empty])
        row, column = np.nonzero(there & ~empty & ~full)
        if not len(row):
            return
        rest = children[row, column]
        row, column = row.astype(np.int32), column.astype(np.int32)
        if level + 1 == grid.levels:
            self._tiles(rest, row, column, left)
        else:
            self._children(level + 1, rest, row, column, left)

    def _decided(self, level: int, cells: Array, inside: bool, bounds: Array) -> None:
        """Fill cells that are proved."""
        grid = self.grid
        if grid.size(level) == 1:
            at = _tiles_of(self.inside, grid.tiling)
            at[tuple(cells.T)] = inside
            if self.values is not None:
                wide = bounds.reshape(-1, *(1,) * grid.tiling.dims)
                _tiles_of(self.values, grid.tiling)[tuple(cells.T)] = wide
            return
        step = grid.size(level) * grid.tiling.tile
        for cell, bound in zip(cells, bounds):
            where = tuple(slice(int(i) * step, (int(i) + 1) * step) for i in cell)
            self.inside[where] = inside
            if self.values is not None:
                self.values[where] = bound

    def _tiles(self, tiles: Array, rows: Array, columns: Array, flags: Array) -> None:
        """Compute the points of tiles."""
        grid, tiling = self.grid, self.grid.tiling
        count, shape = tiling.tiles, (tiling.tile,) * tiling.dims
        self.tiles.append(self._points_of(tiles))
        for start in range(0, len(tiles), count):
            part = slice(start, start + count)
            mine = tiles[part]
            n = len(mine)
            inputs = [_padded(x[mine[:, axis]], count) for axis, x in enumerate(grid.coordinates)]
            live = np.arange(count) < n
            places = (_padded(rows[part], count), _padded(columns[part], count), live)
            (out,) = self.points.run([*inputs, *places, flags, *self.others])
            found = np.asarray(out)[:n].reshape(n, *shape)
            at = tuple(mine.T)
            _tiles_of(self.inside, tiling)[at] = found <= 0
            if self.values is not None and self.exact is not None:
                _tiles_of(self.values, tiling)[at] = found
                _tiles_of(self.exact, tiling)[at] = True

    def _points_of(self, tiles: Array) -> int:
        """Points of the grid in tiles."""
        tile = self.grid.tiling.tile
        sizes = [np.minimum((tiles[:, i] + 1) * tile, n) - tiles[:, i] * tile
                 for i, n in enumerate(self.grid.shape)]  # fmt: skip
        return int(np.prod(sizes, axis=0).sum())


def _padded(x: Array, count: int) -> Array:
    """x with rows up to `count`."""
    if len(x) == count:
        return np.ascontiguousarray(x)
    out = np.zeros((count, *x.shape[1:]), x.dtype)
    out[: len(x)] = x
    return out


def _tiles_of(grid: Array, tiling: Tiling) -> Array:
    """The grid's memory as `[tiles along each axis, points along each axis]`."""
    split = [n for size in grid.shape for n in (size // tiling.tile, tiling.tile)]
    dims = tiling.dims
    order = (*range(0, 2 * dims, 2), *range(1, 2 * dims, 2))
    return grid.reshape(split).transpose(order)
