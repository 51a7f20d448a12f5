"""The surface of a field as triangles, and what can be measured on them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...ir.errors import WengertError
from ..errors import CallError
from ..function import CompiledFunction
from ..values import Array, describe
from .bounds import Box, box_of, extent
from .field import AXES, Field, UndefinedField
from .marching import TILE, Crossings, crossings, loops, triangles
from .sharp import with_corners

MARGIN = 1e-3  # least distance of a vertex from the ends of its edge, in cells
REFINEMENTS = 20  # evaluations, at most, that bring a vertex to the surface along its edge
LARGEST = 4096  # cells along an axis


class NoSurface(WengertError):
    """A shape without a surface, where one is needed."""


class CutSurface(UserWarning):
    """A shape that reaches beyond the bounds; the mesh is closed there by a flat face."""


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside: closed, and manifold.

    vertices: floats `[v, 3]`; faces: i32 `[f, 3]`; parts: i32 `[f]`, an index into `names` and
    `colours` (u8 `[n, 3]`) for each face. cut: the sides of the bounds that cut the shape, "x-" to
    "z+". A shape without a surface gives a mesh without faces.
    """

    vertices: Array
    faces: Array
    parts: Array
    names: tuple[str, ...] = ("",)
    colours: Array = field(default_factory=lambda: np.array([[180, 180, 180]], np.uint8))
    cut: tuple[str, ...] = ()
    source: Field | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """The number of faces."""
        return len(self.faces)

    def __repr__(self) -> str:
        return f"<mesh of {len(self.vertices)} vertices and {len(self.faces)} faces>"

    @cached_property
    def _corners(self) -> tuple[Array, Array, Array]:
        places = self.vertices.astype(np.float64)
        a, b, c = (places[self.faces[:, i]] for i in range(3))
        return a, b, c

    @cached_property
    def _crosses(self) -> Array:
        a, b, c = self._corners
        return np.cross(b - a, c - a)

    def bounds(self) -> tuple[Array, Array]:
        """The least and the greatest coordinates: `[3]` twice. Raises NoSurface."""
        self._need_faces("bounds")
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    def volume(self) -> float:
        """The volume inside."""
        a, _, _ = self._corners
        return float(np.einsum("fi,fi", a, self._crosses) / 6)

    def surface_area(self) -> float:
        """The sum of the areas of all faces."""
        return float(np.linalg.norm(self._crosses, axis=1).sum() / 2)

    def centre_of_mass(self) -> Array:
        """The centre of mass of the inside: `[3]`. Raises NoSurface."""
        self._need_faces("centre of mass")
        a, b, c = self._corners
        parts = np.einsum("fi,fi->f", a, self._crosses) / 6
        out: Array = parts @ (a + b + c) / 4 / parts.sum()
        return out

    def face_normals(self) -> Array:
        """Unit vectors pointing outward, `[f, 3]`."""
        size = np.linalg.norm(self._crosses, axis=1, keepdims=True)
        out: Array = self._crosses / np.where(size > 0, size, 1.0)
        return out

    def is_watertight(self) -> bool:
        """Whether every edge lies between two faces that run along it in opposite directions."""
        ends = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        n = len(self.vertices)
        there, back = ends @ [n, 1], ends @ [1, n]
        there.sort()
        back.sort()
        return bool((there[1:] != there[:-1]).all() and np.array_equal(there, back))

    def sample(self, count: int, seed: int = 0) -> Array:
        """Points spread evenly at random over the surface: `[count, 3]`. Raises NoSurface."""
        self._need_faces("points")
        rng = np.random.default_rng(seed)
        areas = np.linalg.norm(self._crosses, axis=1)
        face = rng.choice(len(areas), count, p=areas / areas.sum())
        u, v = rng.random((2, count, 1))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        a, b, c = (corner[face] for corner in self._corners)
        return (a + u * (b - a) + v * (c - a)).astype(self.vertices.dtype)

    def jvp(self, tangents: Mapping[str, Any]) -> Array:
        """How the vertices move as parameters do: `[v, 3]`, for a tangent of each parameter named.

        Vertices move along their normals (the implicit function theorem); those on ridges with
        one of the faces there.
        """
        field = self._field()
        names = self._names(tangents)
        points = [self.vertices, *field.parameters.values()]
        changes = tuple(tangents[n] for n in names)
        moved = field.program.vertices.jvp(points, changes, wrt=[f"{n}_" for n in names])
        return np.asarray(moved[1])

    def vjp(self, cotangent: Array, wrt: Sequence[str] | None = None) -> dict[str, Any]:
        """Gradients by parameter of a loss whose gradient by the vertices is `cotangent`."""
        field = self._field()
        names = self._names(dict.fromkeys(wrt or field.floats))
        given = field.given
        _, pull = field.program.vertices.vjp(self.vertices, **given, wrt=[f"{n}_" for n in names])
        return dict(zip(names, pull(np.asarray(cotangent, field.dtype))))

    def save(self, path: Any) -> None:
        """Write STL, PLY, OBJ or GLB, as the end of the name says; colours by part but in STL.

        Raises NoSurface, and CallError for other names and where trimesh is missing.
        """
        from .files import save_mesh

        save_mesh(self, path)

    def _names(self, wanted: Mapping[str, Any]) -> list[str]:
        names = list(wanted)
        unknown = [n for n in names if n not in self._field().parameters]
        if unknown or not names:
            raise CallError(
                "derivatives of a mesh are by parameters of the shape",
                expected=", ".join(self._field().floats) or "one with parameters",
                found=", ".join(unknown) or "none",
            )
        return names

    def _field(self) -> Field:
        if self.source is None:
            raise CallError("this mesh was not made from a shape, so it has no derivative")
        return self.source

    def _need_faces(self, what: str) -> None:
        if not len(self.faces):
            raise NoSurface(f"an empty mesh has no {what}", hint="the shape has no surface")


def mesh(
    function: CompiledFunction,
    *,
    resolution: int = 128,
    bounds: Any = None,
    sharp: bool = True,
    **parameters: Any,
) -> Mesh:
    """The surface where a field (negative inside) is 0.

    resolution: cells along the longest side of the bounds. bounds: (lo, hi), numbers or points;
        by default the box that the shape is proved to lie in. sharp: keep edges and corners.

    A shape that the bounds cut is closed there, and a CutSurface warning says so. Raises CallError,
    GridTooLarge, UndefinedField.
    """
    asked = Field(function, parameters)
    cells = _resolution(resolution)
    box = extent(asked) if bounds is None else box_of(bounds)
    if box is None:
        return _empty(asked)
    return _mesh(asked, box, cells, sharp)


def _resolution(value: Any) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not 1 <= value <= LARGEST:
        raise CallError(
            "a mesh needs a number of cells",
            expected=f"resolution from 1 to {LARGEST}",
            found=str(value) if whole else describe(value),
        )
    return int(value)


def _empty(field: Field) -> Mesh:
    names, colours = field.palette()
    none = np.zeros((0, 3), np.int32)
    return Mesh(none.astype(field.dtype), none, none[:, 0], names, colours, (), field)


def _mesh(field: Field, box: Box, resolution: int, sharp: bool) -> Mesh:
    step = float(np.max(box.size)) / resolution
    counts = np.maximum(1, np.ceil(box.size / step - 1e-6)).astype(int)
    axes = [lo + step * np.arange(n + 1) for lo, n in zip(box.low, counts)]
    sampled = field.sample(axes, halo=1)
    values, exact = sampled.values, sampled.exact
    assert values is not None and exact is not None
    _check_defined(values, axes)
    cut, tiles = _closed(values, exact)
    if cut:
        warnings.warn(
            CutSurface(f"the bounds cut the shape at {', '.join(cut)}; the mesh is closed there"),
            stacklevel=3,
        )
    edges, cells = crossings(values, tiles)

    def place(points: Array) -> Array:
        return (points * step + box.low).astype(field.dtype)

    points = _refined(field, edges, place)
    if sharp:
        normals = field.normals(place(points), 0.01 * step)
        _cap_normals(normals, edges)

        def value(points: Array) -> Array:
            beyond = np.maximum(points - counts, -points).max(axis=1)
            return np.maximum(field.values(place(points)), step * beyond)

        points, faces = with_corners(cells, points, normals, value)
    else:
        faces = np.concatenate([triangles(group) for group in loops(cells)])
    vertices = place(points)
    names, colours = field.palette()
    parts = field.parts(vertices[faces].mean(axis=1)) if len(names) > 1 else None
    if parts is None:
        parts = np.zeros(len(faces), np.int32)
    return Mesh(vertices, faces, parts, names, colours, cut, field)


def _check_defined(values: Array, axes: Sequence[Array]) -> None:
    if np.isnan(values.min()):
        first = np.unravel_index(np.argmax(np.isnan(values)), values.shape)
        where = ", ".join(f"{x[i]:.4g}" for x, i in zip(axes, first))
        raise UndefinedField(
            f"the field is NaN at ({where})",
            hint="a parameter is NaN, or the field is not defined everywhere in the bounds",
        )


def _cap_normals(normals: Array, edges: Crossings) -> None:
    """Set the normals of vertices on the bounds."""
    least = np.finfo(edges.low.dtype).tiny
    for values, sign in ((edges.high, 1), (edges.low, -1)):
        at = np.flatnonzero(values == least)
        normals[at] = sign * np.eye(3)[edges.axis[at]]


def _closed(values: Array, exact: Array) -> tuple[tuple[str, ...], Array]:
    """Put the points on the bounds outside: the sides that were not, and the tiles to look at."""
    tiles = exact[::TILE, ::TILE, ::TILE].copy()
    cut = []
    least = np.finfo(values.dtype).tiny
    for axis, end in itertools.product(range(3), (0, -1)):
        side = np.moveaxis(values, axis, 0)[end]
        inside = side <= 0
        if inside.any():
            cut.append(f"{AXES[axis]}{'-' if end == 0 else '+'}")
            # The edges that a high side cuts start at the points before it.
            before = 0 if end == 0 else (values.shape[axis] - 2) // TILE
            np.moveaxis(tiles, axis, 0)[before] |= _per_tile(inside)
            side[inside] = least
    return tuple(cut), np.argwhere(tiles).astype(np.int32)


def _per_tile(inside: Array) -> Array:
    """Whether any point of each tile, or next to it, is inside: for a plane of points."""
    for axis in (0, 1):
        moved = np.moveaxis(inside, axis, 0)
        starts = np.arange(0, len(moved), TILE)
        found = np.logical_or.reduceat(moved, starts, axis=0)
        found[:-1] |= moved[starts[1:]]
        inside = np.moveaxis(found, 0, axis)
    return inside


def _refined(field: Field, edges: Crossings, place: Any) -> Array:
    """The vertices, in cells: where the field is 0 along each edge.

    By false position, and by halving what a step of that left larger than half.
    """
    t0, t1 = np.zeros(len(edges.low)), np.ones(len(edges.low))
    f0, f1 = edges.low.astype(np.float64), edges.high.astype(np.float64)
    enough = 1e-5 * (np.abs(f0) + np.abs(f1))
    rest = np.arange(len(enough))
    part = _between(t0, t1, f0, f1)
    for _ in range(REFINEMENTS):
        found = field.values(place(edges.at(part, rest))).astype(np.float64)
        width = t1[rest] - t0[rest]
        same = (found <= 0) == (f0[rest] <= 0)
        one, two = rest[same], rest[~same]
        t0[one], f0[one] = part[one], found[same]
        t1[two], f1[two] = part[two], found[~same]
        slow = t1[rest] - t0[rest] > 0.5 * width
        open = np.abs(found) > enough[rest]
        rest, slow = rest[open], slow[open]
        if not len(rest):
            break
        part[rest] = _between(t0[rest], t1[rest], f0[rest], f1[rest])
        part[rest[slow]] = (t0[rest[slow]] + t1[rest[slow]]) / 2
    return edges.at(np.clip(part, MARGIN, 1 - MARGIN))


def _between(t0: Array, t1: Array, f0: Array, f1: Array) -> Array:
    """Where the line through two values is 0."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = f0 / (f0 - f1)
    share = np.where(np.isfinite(share), share, 0.5)
    return t0 + (t1 - t0) * share
