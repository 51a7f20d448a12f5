"""How a surface passes through a cell of a grid, for each of the 256 signs of its corners.

Corner c of a cell is at (c & 1, c >> 1 & 1, c >> 2 & 1). Edge e joins the corners EDGES[e]; the
surface has one vertex on every edge whose ends have different signs. On a face of the cell each
run of inside corners is cut off by a line of its own, a rule that both cells at the face follow,
so surfaces are closed. The lines around a cell make loops, which run counter-clockwise seen from
outside the shape. Loops are cut into triangles without a diagonal in a face of the cell, so that
no edge is met by more than two triangles: surfaces are manifold.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..values import Array

Loop = tuple[int, ...]
Triangle = tuple[int, int, int]

EDGES = tuple((c, c | 1 << a) for a in range(3) for c in range(8) if not c >> a & 1)
NUMBER = {frozenset(ends): e for e, ends in enumerate(EDGES)}


def _faces() -> list[list[int]]:
    """The corners of each face, counter-clockwise seen from outside the cell."""
    out = []
    for axis in range(3):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        for side in (0, 1):
            around = [(side << axis) + k for k in (0, u, u + v, v)]
            out.append(around if side else around[::-1])
    return out


FACES = _faces()
_FACES_OF = [{f for f, face in enumerate(FACES) if set(ends) <= set(face)} for ends in EDGES]


def loops(case: int) -> list[Loop]:
    """The loops of a case (bit c: corner c is inside), each a cycle of edges."""
    following: dict[int, int] = {}
    for face in FACES:
        inside = [bool(case >> c & 1) for c in face]
        for i in range(4):
            if inside[i] and not inside[i - 1]:
                j = i
                while inside[(j + 1) % 4]:
                    j += 1
                first = NUMBER[frozenset((face[i - 1], face[i]))]
                following[first] = NUMBER[frozenset((face[j % 4], face[(j + 1) % 4]))]
    out = []
    while following:
        loop = [min(following)]
        while (edge := following.pop(loop[-1])) != loop[0]:
            loop.append(edge)
        out.append(tuple(loop))
    return out


def _triangulations(loop: Sequence[int]) -> Iterator[list[Triangle]]:
    if len(loop) < 3:
        yield []
        return
    for k in range(1, len(loop) - 1):
        for left in _triangulations(loop[: k + 1]):
            for right in _triangulations(loop[k:]):
                yield [*left, *right, (loop[0], loop[k], loop[-1])]


def triangles(loop: Loop) -> list[Triangle]:
    """Triangles of a loop, none with a diagonal in a face of the cell."""
    sides = {frozenset((a, b)) for a, b in zip(loop, loop[1:] + loop[:1])}

    def inner(a: int, b: int) -> bool:
        return frozenset((a, b)) in sides or not _FACES_OF[a] & _FACES_OF[b]

    return next(
        found
        for found in _triangulations(loop)
        if all(inner(t[i - 1], t[i]) for t in found for i in range(3))
    )


@dataclass(frozen=True)
class LoopsOf:
    """All loops of one size, of all cases, for code on many cells.

    case: which case each is in, i32[l], ascending. edges: i32[l, size]. triangles: places in the
    loop, i32[l, size - 2, 3]. first, count: i32[256], which of them are those of a case.
    """

    size: int
    case: Array
    edges: Array
    triangles: Array
    first: Array
    count: Array


@functools.cache
def table() -> tuple[LoopsOf, ...]:
    """The loops of all cases by their size, 3 to 7; made once."""
    every = [(case, loop) for case in range(256) for loop in loops(case)]
    out = []
    for size in sorted({len(loop) for _, loop in every}):
        mine = [(case, loop) for case, loop in every if len(loop) == size]
        case = np.array([c for c, _ in mine], np.int32)
        edges = np.array([loop for _, loop in mine], np.int32)
        cut = [[[loop.index(e) for e in t] for t in triangles(loop)] for _, loop in mine]
        count = np.bincount(case, minlength=256).astype(np.int32)
        first = np.cumsum(count, dtype=np.int32) - count
        out.append(LoopsOf(size, case, edges, np.array(cut, np.int32), first, count))
    return tuple(out)
