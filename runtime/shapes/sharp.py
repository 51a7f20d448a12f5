"""Edges and corners of shapes, which the vertices on a grid's edges cut off.

Where the normals around a cell's loop differ, the loop is drawn from a point of its own: where
the planes through its vertices meet (Kobbelt, Botsch, Schwanecke and Seidel 2001). Between two
such points the edge is turned, so that it runs along the ridge and not across it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..values import Array
from .marching import Cells, Loops, loops, triangles

FLAT = 0.9  # normals whose cosine is above it belong to one smooth surface
WEAK = (0.05, 1e-3)  # directions with less than that share of the normals stay as they are
REACH = 0.1  # how far outside of its cell a corner may come to lie, in cells


@dataclass(frozen=True)
class Corners:
    """The loops of one size that have a corner.

    loop: which of them, i32[k]; points: f64[k, 3], in cells.
    """

    loop: Array
    points: Array


def corners(
    found: Loops, place: Array, points: Array, normals: Array, value: Callable[[Array], Array]
) -> Corners:
    """Where the surface has an edge or a corner, by the unit normals [v, 3] at vertices [v, 3].

    place: the lower corners of cells, i32[c, 3]. value: the field at points in cells; of the
    loop's middle and the two places that `WEAK` gives, the one nearest to the surface is taken.
    """
    bent = np.flatnonzero(_bent(normals[found.vertices]))
    around = found.vertices[bent]
    places = points[around]
    mean = places.mean(axis=1)
    low = place[found.cell[bent]].astype(np.float64)
    out, least = mean, np.abs(value(mean))
    kept = np.zeros(len(bent), np.bool_)
    for met in _meeting(places - mean[:, None], normals[around].astype(np.float64)):
        near = np.clip(mean + met, low, low + 1.0)
        off = np.abs(value(near))
        off[(np.abs(mean + met - near) > REACH).any(axis=1)] = np.inf
        better = off < 0.5 * least
        out = np.where(better[:, None], near, out)
        least = np.where(better, off, least)
        kept |= better
    return Corners(bent[kept].astype(np.int32), out[kept])


def _bent(normals: Array) -> Array:
    """Whether two normals around a loop differ: normals [l, size, 3] -> [l]."""
    out = np.zeros(len(normals), np.bool_)
    for i in range(1, normals.shape[1]):
        for j in range(i):
            out |= np.einsum("li,li->l", normals[:, i], normals[:, j]) < FLAT
    return out


def _meeting(places: Array, normals: Array) -> Iterator[Array]:
    """The points next to the origin where planes come closest to meeting: [l, 3] for each WEAK."""
    matrix = np.einsum("lki,lkj->lij", normals, normals)
    right = np.einsum("lki,lk->li", normals, np.einsum("lki,lki->lk", normals, places))
    values, vectors = np.linalg.eigh(matrix)
    along = np.einsum("lij,li->lj", vectors, right)
    for weak in WEAK:
        strong = values > weak * values[:, -1:]
        inner = np.where(strong, along / np.where(strong, values, 1.0), 0.0)
        yield np.einsum("lij,lj->li", vectors, inner)


def with_corners(
    cells: Cells, points: Array, normals: Array, value: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """All vertices, corners after those of edges, and faces: f64[w, 3], i32[f, 3].

    value: the field at points in cells.
    """
    every, plain, fans, start = [points], [], [], len(points)
    for group in loops(cells):
        found = corners(group, cells.place, points, normals, value)
        rest = np.ones(len(group.cell), np.bool_)
        rest[found.loop] = False
        plain.append(triangles(Loops(group.vertices[rest], group.cell[rest], group.kind[rest])))
        around = group.vertices[found.loop]
        centre = np.arange(start, start + len(around), dtype=np.int32)
        centres = np.broadcast_to(centre[:, None], around.shape)
        fans.append(np.stack([around, np.roll(around, -1, axis=1), centres], axis=2))
        every.append(found.points)
        start += len(around)
    turned = np.concatenate([f.reshape(-1, 3) for f in fans])
    _turn(turned, normals)
    return np.concatenate(every), np.concatenate([*plain, turned])


def _turn(fans: Array, normals: Array) -> None:
    """Turn the edges between two fans that cross a ridge; fans: [f, 3], the corner last."""
    a, b = fans[:, 0].astype(np.int64), fans[:, 1].astype(np.int64)
    key = np.minimum(a, b) * len(normals) + np.maximum(a, b)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = np.flatnonzero(ordered[1:] == ordered[:-1])
    one, two = order[first], order[first + 1]
    crossing = np.einsum("ij,ij->i", normals[a[one]], normals[b[one]]) < FLAT
    one, two = one[crossing], two[crossing]
    c, d = fans[one, 2].astype(np.int64), fans[two, 2].astype(np.int64)
    pair = np.minimum(c, d) * (fans[:, 2].max(initial=0) + 1) + np.maximum(c, d)
    _, place, times = np.unique(pair, return_index=True, return_counts=True)
    place = place[times == 1]
    one, two = one[place], two[place]
    a, b = fans[one, 0], fans[one, 1]
    c, d = fans[one, 2], fans[two, 2]
    fans[one] = np.stack([c, a, d], axis=1)
    fans[two] = np.stack([d, b, c], axis=1)
