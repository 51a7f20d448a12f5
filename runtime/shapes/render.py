"""Shaded pictures of fields, without a display."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import CallError
from ..function import CompiledFunction
from ..values import Array, describe
from .bounds import Box, box_of, extent
from .camera import Camera, around
from .field import Field
from .pictures import Picture
from .rays import View, first_hits, surface_at

LARGEST = 8192  # pixels along a side
KEY = (0.3, 0.7, 0.65)  # to the light: right, up and towards the eye
SKY, GROUND, DIFFUSE, SHINE = 0.65, 0.4, 0.45, 0.1


def render(
    function: CompiledFunction,
    *,
    size: Any = 512,
    camera: Camera | None = None,
    azimuth: float = -55.0,
    elevation: float = 25.0,
    zoom: float = 1.0,
    perspective: bool = True,
    bounds: Any = None,
    background: Sequence[int] = (255, 255, 255),
    smooth: bool = True,
    **parameters: Any,
) -> Picture:
    """A picture of the shape where a field is 0 or less.

    size: pixels, a number or (width, height). camera: by default one that sees all of the shape
        from an azimuth and an elevation in degrees, closer for a larger `zoom`. bounds: (lo, hi),
        what is shown; by default all. smooth: four rays a pixel for its colour.

    An empty shape gives the background. Raises CallError, UndefinedField.
    """
    asked = Field(function, parameters)
    width, height = _size(size)
    colour = _colour(background)
    box = extent(asked) if bounds is None else box_of(bounds)
    if box is None:
        return _empty(asked, height, width, colour)
    seen = camera or around(box, azimuth, elevation, zoom * min(1.0, width / height), perspective)
    view = View(seen, height, width)
    picture = _shot(asked, view, box, colour)
    if not smooth:
        return picture
    fine = _shot(asked, View(seen, 2 * height, 2 * width), box, colour)
    quarters = fine.pixels.reshape(height, 2, width, 2, 3).astype(np.uint16)
    return replace(picture, pixels=((quarters.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8))


def turntable(function: CompiledFunction, frames: int = 24, **options: Any) -> list[Picture]:
    """Pictures from all around, for an animation; options of `render`, without a camera."""
    whole = isinstance(frames, int) and not isinstance(frames, bool)
    if not whole or not 1 <= frames <= 1000:
        raise CallError("a turn has 1 to 1000 pictures", found=f"frames={frames!r}")
    if options.get("camera") is not None:
        raise CallError("a turn chooses its cameras itself", expected="elevation=, zoom=")
    if "bounds" not in options or options["bounds"] is None:
        parameters = {k: v for k, v in options.items() if k not in OPTIONS}
        box = extent(Field(function, parameters))
        options["bounds"] = None if box is None else (box.low, box.high)
    start = float(options.pop("azimuth", -55.0))
    turns = [start + 360.0 * k / frames for k in range(frames)]
    return [render(function, azimuth=azimuth, **options) for azimuth in turns]


OPTIONS = frozenset(
    name for name, p in inspect.signature(render).parameters.items() if p.kind is p.KEYWORD_ONLY
)


def _size(size: Any) -> tuple[int, int]:
    pair = size if isinstance(size, tuple | list) else (size, size)
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair)
    if len(pair) != 2 or not whole or not all(1 <= n <= LARGEST for n in pair):
        raise CallError(
            "a picture has a number of pixels",
            expected=f"size=n or (width, height), 1 to {LARGEST}",
            found=str(size) if whole else describe(size),
        )
    return int(pair[0]), int(pair[1])


def _colour(value: Any) -> Array:
    colour = np.asarray(value)
    if colour.shape != (3,) or colour.dtype.kind not in "iu" or (colour // 256).any():
        raise CallError(
            "a colour is three whole numbers from 0 to 255", found=f"background={value!r}"
        )
    return colour.astype(np.uint8)


def _empty(field: Field, height: int, width: int, colour: Array) -> Picture:
    shape = (height, width)
    return Picture(
        np.broadcast_to(colour, (*shape, 3)).copy(),
        np.full(shape, np.inf, field.dtype),
        np.zeros((*shape, 3), field.dtype),
        np.full(shape, -1, np.int32),
    )


def _shot(field: Field, view: View, box: Box, background: Array) -> Picture:
    picture = _empty(field, view.rows, view.columns, background)
    depth = first_hits(field, view, box)
    points, normals = surface_at(field, view, box, depth)
    y, x = np.nonzero(np.isfinite(depth))
    parts = field.parts(points)
    picture.depth[y, x] = np.linalg.norm(points - view.points(x + 0.5, y + 0.5, 0.0 * x), axis=1)
    picture.normals[y, x] = normals
    picture.parts[y, x] = parts
    colours = field.palette()[1][parts]
    picture.pixels[y, x] = shaded(colours, normals, *view.camera.frame[:3])
    return picture


def shaded(colours: Array, normals: Array, forward: Array, right: Array, up: Array) -> Array:
    """Colours u8 `[n, 3]` in the light: of a lamp beside the camera, the sky and the ground."""
    lamp = np.array(KEY) @ np.stack([right, up, -forward])
    lamp /= np.linalg.norm(lamp)
    high = (normals[:, 2] + 1) / 2
    facing = np.maximum(normals @ lamp, 0.0)
    halfway = lamp - forward
    shine = np.maximum(normals @ (halfway / np.linalg.norm(halfway)), 0.0) ** 40
    light = GROUND + (SKY - GROUND) * high + DIFFUSE * facing
    out = colours.astype(np.float64) * light[:, None] + 255 * SHINE * shine[:, None]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)
