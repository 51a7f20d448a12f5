"""Marching cubes: the surface between grid points of different signs, as triangles.

Only cells of given tiles are looked at, all of them at once: arrays have the tiles along their
last axis. A vertex stands on every edge between neighbouring points of different signs; it
belongs to the tile of the edge's lower point, and cells find it by the number of that edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...passes.tiles import TILINGS
from ..values import Array
from .cell_cases import EDGES, table

TILE = TILINGS[3].tile  # cells of a tile along each axis
CELLS = TILE**3
GROUP = 8192  # tiles looked at together


@dataclass(frozen=True)
class Crossings:
    """The edges of a grid that a surface crosses; each has one vertex.

    lower: i32[v, 3], the grid point at the lower end; axis: i8[v], the edge's direction;
    low, high: the field's values at both ends [v].
    """

    lower: Array
    axis: Array
    low: Array
    high: Array

    def at(self, part: Array, chosen: Any = slice(None)) -> Array:
        """Points that part of the way from the lower ends of edges on, in cells: f64[n, 3]."""
        points = self.lower[chosen].astype(np.float64)
        points[np.arange(len(points)), self.axis[chosen]] += part[chosen]
        return points


@dataclass(frozen=True)
class Cells:
    """The cells that the surface passes through.

    place: i32[c, 3], their lower corner; case: u8[c]. The others are explained in `_cells`.
    """

    place: Array
    case: Array
    _base: Array
    _far: Array
    _tile: Array
    _number: Array
    _steps: Array
    _beyond: Array
    _neighbour: Array

    def vertices(self, cell: Array, edge: Array) -> Array:
        """The vertices on edges [n, k] of cells [n]: i32[n, k]."""
        row = edge + (self._far[cell] * len(EDGES))[:, None]
        side = self._beyond[row]
        side += (self._tile[cell] * 8)[:, None]
        place = self._steps[row]
        place += self._neighbour[side]
        place += self._base[cell][:, None]
        out: Array = self._number[place]
        return out


def crossings(values: Array, tiles: Array) -> tuple[Crossings, Cells]:
    """Where a field on a grid `[n0, n1, n2]` changes its sign, in the cells of tiles.

    tiles: i32[t, 3]; tile i holds the cells whose lower corners are TILE i to TILE i + TILE - 1.
        Next to a tile with a change of sign at its upper end, the one beyond must be there, too.
    A point is inside where its value is 0 or less.
    """
    count = len(tiles)
    number = np.empty(3 * CELLS * count, np.int32)
    edges: list[Crossings] = []
    found: list[tuple[Array, Array]] = []
    start = 0
    for first in range(0, count, GROUP):
        group = tiles[first : first + GROUP]
        block = _gathered(values, group)
        inside = block <= 0
        for axis in range(3):
            place, crossing = _crossings(block, inside, axis, group)
            cell, k = place
            slots = (axis * CELLS + cell) * count + first + k
            number[slots] = np.arange(start, start + len(slots), dtype=np.int32)
            start += len(slots)
            edges.append(crossing)
        cell, k, case = _cases(inside)
        found.append((cell * count + first + k, case))
    base = np.concatenate([b for b, _ in found]) if found else np.zeros(0, np.int64)
    case = np.concatenate([c for _, c in found]) if found else np.zeros(0, np.uint8)
    return _joined(edges), _cells(tiles, base, case, number)


def _gathered(values: Array, tiles: Array) -> Array:
    """The values at the points of tiles, with those next to their upper ends: [9, 9, 9, t]."""
    steps = np.arange(TILE + 1)
    index = [np.minimum(tiles[:, a] * TILE + steps[:, None], values.shape[a] - 1) for a in range(3)]
    n = np.int64(values.shape[1]), np.int64(values.shape[2])
    x, y, z = index[0] * (n[0] * n[1]), index[1] * n[1], index[2]
    dtype = np.int32 if values.size < 2**31 else np.int64
    place = (x[:, None] + y[None]).astype(dtype)[:, :, None] + z[None, None].astype(dtype)
    return np.ascontiguousarray(values).reshape(-1).take(place)


def _split(index: Array, width: int) -> tuple[Array, Array]:
    cell = index // width
    return cell, index - cell * width


def _coordinates(cell: Array) -> Array:
    """The place of a cell in its tile: [n, 3]."""
    return np.stack([cell // TILE**2, cell // TILE % TILE, cell % TILE], axis=1)


def _crossings(
    block: Array, inside: Array, axis: int, tiles: Array
) -> tuple[tuple[Array, Array], Crossings]:
    """The crossed edges along an axis, whose lower ends the tiles hold: (cell, tile), edges."""
    here = (slice(0, TILE),) * 3
    there = tuple(slice(i == axis, TILE + (i == axis)) for i in range(3))
    cell, k = _split(np.flatnonzero(inside[here] != inside[there]), len(tiles))
    at = _coordinates(cell)
    width = TILE + 1
    low = ((at[:, 0] * width + at[:, 1]) * width + at[:, 2]) * len(tiles) + k
    flat = block.reshape(-1)
    high = low + width ** (2 - axis) * len(tiles)
    lower = (at + tiles[k] * TILE).astype(np.int32)
    axes = np.full(len(cell), axis, np.int8)
    return (cell, k), Crossings(lower, axes, flat[low], flat[high])


def _cases(inside: Array) -> tuple[Array, Array, Array]:
    """The cells with a surface: cell, tile, case."""
    bits = inside.view(np.uint8)
    pairs = bits[:-1] | bits[1:] << 1
    squares = pairs[:, :-1] | pairs[:, 1:] << 2
    cases = (squares[:, :, :-1] | squares[:, :, 1:] << 4).reshape(-1)
    active = np.flatnonzero((cases - np.uint8(1)) < 254)  # 0, all outside, wraps to 255
    cell, k = _split(active, inside.shape[-1])
    return cell, k, cases[active]


def _joined(edges: list[Crossings]) -> Crossings:
    if not edges:
        none = np.zeros(0)
        return Crossings(np.zeros((0, 3), np.int32), np.zeros(0, np.int8), none, none)
    return Crossings(
        *(np.concatenate([getattr(e, n) for e in edges]) for n in ("lower", "axis", "low", "high"))
    )


def _cells(tiles: Array, base: Array, case: Array, number: Array) -> Cells:
    """Cells with what finds their vertices.

    Edges of a cell at the upper end of its tile may belong to a tile beyond: `far` has a bit for
    each axis along which the cell is the last one; `steps` is the way in `number` from the cell
    to an edge for each `far`, `beyond` the tile's side that it leads to, and `neighbour` how far
    away that tile's numbers are.
    """
    count = len(tiles)
    base = base.astype(np.int32)
    cell, tile = _split(base, max(1, count))
    at = _coordinates(cell)
    last = (at == TILE - 1).astype(np.int32)
    far = last[:, 0] | last[:, 1] << 1 | last[:, 2] << 2
    steps = np.zeros((8, len(EDGES)), np.int32)
    beyond = np.zeros((8, len(EDGES)), np.int32)
    for e, (low, high) in enumerate(EDGES):
        axis = (low ^ high).bit_length() - 1
        for bits in range(8):
            move = [(low >> i & 1) * (1 - TILE if bits >> i & 1 else 1) for i in range(3)]
            way = (move[0] * TILE + move[1]) * TILE + move[2]
            steps[bits, e] = (axis * CELLS + way) * count
            beyond[bits, e] = low & bits
    place = (at + tiles[tile] * TILE).astype(np.int32)
    sides = _neighbours(tiles).reshape(-1)
    flat = (steps.reshape(-1), beyond.reshape(-1))
    return Cells(place, case, base, far, tile, number, *flat, sides)


def _neighbours(tiles: Array) -> Array:
    """For every tile and each of 8 sides (bit a: one further along axis a), how many numbers
    after it that tile comes: [t, 8]; 0 where it is not there.
    """
    count = len(tiles)
    if not count:
        return np.zeros((0, 8), np.int32)
    own = np.arange(count, dtype=np.int32)
    grid = np.full(tiles.max(axis=0) + 2, -1, np.int32)
    grid[tuple(tiles.T)] = own
    out = []
    for side in range(8):
        there = grid[tuple((tiles + [side >> a & 1 for a in range(3)]).T)]
        out.append(np.where(there < 0, 0, there - own))
    return np.stack(out, axis=1)


@dataclass(frozen=True)
class Loops:
    """Loops of one size around cells: vertices i32[l, size]; cell: i32[l], each one's cell;
    kind: i32[l], its place in the table.
    """

    vertices: Array
    cell: Array
    kind: Array

    @property
    def size(self) -> int:
        """Vertices of a loop."""
        return int(self.vertices.shape[1])


def loops(cells: Cells) -> list[Loops]:
    """All loops of cells, by size."""
    out = []
    for known in table():
        count = known.count[cells.case]
        owners = np.flatnonzero(count).astype(np.int32)
        cell = np.repeat(owners, count[owners])
        fresh = np.concatenate([[True], cell[1:] != cell[:-1]]) if len(cell) else cell
        order = np.arange(len(cell), dtype=np.int32)
        rank = order - np.maximum.accumulate(np.where(fresh, order, 0)) if len(cell) else order
        kind = known.first[cells.case[cell]] + rank
        out.append(Loops(cells.vertices(cell, known.edges[kind]), cell, kind))
    return out


def triangles(found: Loops) -> Array:
    """The triangles of loops: i32[(size - 2) l, 3], loop by loop."""
    known = table()[found.size - 3].triangles[found.kind]
    row = np.arange(len(found.cell), dtype=np.int32)[:, None, None] * np.int32(found.size)
    out: Array = found.vertices.reshape(-1)[(row + known).reshape(-1, 3)]
    return out
