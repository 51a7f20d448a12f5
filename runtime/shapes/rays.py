"""Where rays first meet a shape, proved by interval bounds: no surface is stepped over.

Rays go together in square bundles of pixels. A bundle moves forward by steps whose box is proved
empty, longer ones after each success; where no step as long as the bundle is wide can be proved,
its quarters go on from there. A single ray takes the steps that are proved, looks at the field
behind the others, and halves a step until the surface is found or less than `FINEST` of a pixel is
left: only parts thinner than that may be missed. Distances are along the camera's axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..values import Array
from .bounds import Box
from .camera import Camera
from .field import Field, UndefinedField

BUNDLE = 32  # pixels along a side of the first bundles
FINEST = 1 / 32  # the least step, in pixels
GROWTH = 1.5
HALVINGS = 12  # of a step that holds the surface
PATIENCE = 2000  # steps of one bundle


@dataclass(frozen=True)
class View:
    """A camera's rays through the pixels of a picture.

    Ray (x, y), in pixels from the left upper corner, is at depth t at
    `start(x, y) + t * direction(x, y)`.
    """

    camera: Camera
    rows: int
    columns: int

    def pixel(self) -> float:
        """The width of a pixel at the target."""
        return self.camera.height / self.rows

    def width(self, depth: Array) -> Array:
        """The width of a pixel at depths."""
        if not self.camera.perspective:
            return np.full(np.shape(depth), self.pixel())
        out: Array = self.pixel() * depth / self.camera.frame[3]
        return out

    def points(self, x: Array, y: Array, depth: Array) -> Array:
        """The points at depths along rays: `[..., 3]`."""
        forward, right, up, distance = self.camera.frame
        spread = depth / distance if self.camera.perspective else np.ones_like(depth)
        u = (x - self.columns / 2) * self.pixel() * spread
        v = (self.rows / 2 - y) * self.pixel() * spread
        eye = self.camera.eye
        # By coordinates: products of narrow matrices wait for the threads of the BLAS.
        rows = [eye[k] + depth * forward[k] + u * right[k] + v * up[k] for k in range(3)]
        return np.stack(rows, axis=-1)

    def range(self, box: Box) -> tuple[float, float]:
        """The depths between which a box lies, those behind the eye left out."""
        forward, _, _, distance = self.camera.frame
        corners = np.array(np.meshgrid(*zip(box.low, box.high))).reshape(3, -1).T
        depths = (corners - np.asarray(self.camera.eye)) @ forward
        least = 1e-3 * distance if self.camera.perspective else -np.inf
        return max(float(depths.min()), least), float(depths.max())


def first_hits(field: Field, view: View, box: Box) -> Array:
    """Depths `[rows, columns]` of the first points inside the shape within a box; inf for none.

    Raises UndefinedField, NoInterval.
    """
    depth = np.full((view.rows, view.columns), np.inf)
    near, far = view.range(box)
    if far <= near:
        return depth
    search = _Search(field, view, box, far)
    size = BUNDLE
    y, x = (i.reshape(-1) for i in np.mgrid[0 : view.rows : size, 0 : view.columns : size])
    t = np.full(len(x), near)
    while size > 1:
        x, y, t = search.advance(x, y, t, size)
        size //= 2
        x, y, t = (np.concatenate(q) for q in zip(*((x + i * size, y + j * size, t)
                   for i in (0, 1) for j in (0, 1))))  # fmt: skip
        there = (x < view.columns) & (y < view.rows)
        x, y, t = x[there], y[there], t[there]
    x, y, t = search.hits(x, y, t)
    depth[y, x] = t
    return depth


class _Search:
    """One search of a box. Bundles are arrays of left upper pixels and depths."""

    def __init__(self, field: Field, view: View, box: Box, far: float) -> None:
        self.field, self.view, self.box, self.far = field, view, box, far

    def empty(self, x: Array, y: Array, size: int, low: Array, high: Array) -> Array:
        """Whether bundles are proved empty between depths, or lie outside of the box there."""
        corners = [(0, 0), (size, 0), (0, size), (size, size)] if size > 1 else [(0.5, 0.5)]
        points = np.stack(
            [self.view.points(x + i, y + j, t) for i, j in corners for t in (low, high)]
        )
        lo, hi = points.min(axis=0), points.max(axis=0)
        lo, hi = np.maximum(lo, self.box.low), np.minimum(hi, self.box.high)
        inside = np.flatnonzero((lo <= hi).all(axis=1))
        out = np.ones(len(x), np.bool_)
        out[inside] = self.field.lowest(lo[inside], hi[inside]) > 0
        return out

    def advance(self, x: Array, y: Array, t: Array, size: int) -> tuple[Array, Array, Array]:
        """Move bundles forward until they are stopped; those that are stopped."""
        step = 4.0 * size * self.view.width(t)
        open = np.arange(len(x))
        stopped = np.zeros(len(x), np.bool_)
        for _ in range(PATIENCE):
            if not len(open):
                return x[stopped], y[stopped], t[stopped]
            high = np.minimum(t[open] + step[open], self.far)
            free = self.empty(x[open], y[open], size, t[open], high)
            t[open[free]] = high[free]
            step[open] *= np.where(free, GROWTH, 0.5)
            short = ~free & (step[open] < size * self.view.width(t[open]))
            stopped[open[short]] = True
            open = open[~short & (t[open] < self.far)]
        raise self.lost(x, y, t, open)

    def hits(self, x: Array, y: Array, t: Array) -> tuple[Array, Array, Array]:
        """Where single rays first find the field 0 or less: those that do, and the depths."""
        step = self.view.width(t)
        end = t.copy()
        found = self.value(x, y, t) <= 0
        open = np.flatnonzero(~found)
        for _ in range(PATIENCE):
            if not len(open):
                x, y = x[found], y[found]
                return x, y, self.halved(x, y, t[found], end[found])
            high = np.minimum(t[open] + step[open], self.far)
            free = self.empty(x[open], y[open], 1, t[open], high)
            rest = open[~free]
            inside = np.zeros(len(open), np.bool_)
            inside[~free] = self.value(x[rest], y[rest], high[~free]) <= 0
            hit = open[inside]
            end[hit] = high[inside]
            found[hit] = True
            last = step[open] <= FINEST * self.view.width(t[open])
            passed = free | (last & ~inside)
            t[open[passed]] = end[open[passed]] = high[passed]
            step[open] *= np.where(passed, GROWTH, 0.5)
            open = open[~inside & (t[open] < self.far)]
        raise self.lost(x, y, t, open)

    def halved(self, x: Array, y: Array, low: Array, high: Array) -> Array:
        """A point of the surface between depths outside and inside."""
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            inside = self.value(x, y, middle) <= 0
            low, high = np.where(inside, low, middle), np.where(inside, middle, high)
        return (low + high) / 2

    def value(self, x: Array, y: Array, t: Array) -> Array:
        """The field at depths along rays; positive outside of the box."""
        points = self.view.points(x + 0.5, y + 0.5, t)
        within = ((points >= self.box.low) & (points <= self.box.high)).all(axis=1)
        out = np.ones(len(points))
        out[within] = self.field.values(points[within])
        unknown = np.flatnonzero(np.isnan(out))
        if len(unknown):
            raise self.lost(x, y, t, unknown)
        return out

    def lost(self, x: Array, y: Array, t: Array, open: Array) -> UndefinedField:
        """The error of a ray that cannot go on."""
        i = open[:1]
        (where,) = self.view.points(x[i] + 0.5, y[i] + 0.5, t[i])
        return UndefinedField(
            f"the field is not known near ({', '.join(f'{c:.4g}' for c in where)})",
            hint="it may be NaN there, as a parameter may",
        )


def surface_at(field: Field, view: View, box: Box, depth: Array) -> tuple[Array, Array]:
    """Points and unit normals `[n, 3]` where depths are finite, by rows.

    Where the box cuts the shape, the normal is the box's.
    """
    y, x = np.nonzero(np.isfinite(depth))
    t = depth[y, x]
    points = view.points(x + 0.5, y + 0.5, t)
    size = float(np.mean(view.width(t))) if len(t) else 1.0
    normals = field.normals(points, 0.01 * size).astype(np.float64)
    for axis in range(3):
        for side, sign in ((box.low, -1.0), (box.high, 1.0)):
            at = np.flatnonzero(np.abs(points[:, axis] - side[axis]) < 0.01 * size)
            beyond = points[at]
            beyond[:, axis] += sign * size
            at = at[field.values(beyond) <= 0]
            normals[at] = sign * np.eye(3)[axis]
    return points, normals
