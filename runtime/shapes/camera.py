"""Cameras: where pictures are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import CallError
from ..values import Array
from .bounds import Box


@dataclass(frozen=True)
class Camera:
    """A camera at `eye` that looks at `target`; z is up.

    height: of what is seen at the target's distance. perspective: rays start at the eye; else
    they are parallel. `stdlib/render.wg` has the same camera as a record: `camera.record()`.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    height: float = 2.0
    perspective: bool = True

    def __post_init__(self) -> None:
        eye, target = np.asarray(self.eye, np.float64), np.asarray(self.target, np.float64)
        fits = eye.shape == target.shape == (3,) and np.isfinite([*eye, *target]).all()
        if not fits or not np.linalg.norm(eye - target) > 0:
            raise CallError(
                "a camera stands at one point and looks at another",
                expected="eye and target: three numbers each",
                found=f"eye={self.eye}, target={self.target}",
            )
        if not (np.isfinite(self.height) and self.height > 0):
            raise CallError("a camera sees some height", found=f"height={self.height}")

    def record(self) -> dict[str, Any]:
        """The record `Camera` of `stdlib/render.wg`."""
        return {
            "eye": np.asarray(self.eye, np.float64),
            "target": np.asarray(self.target, np.float64),
            "height": float(self.height),
        }

    @cached_property
    def frame(self) -> tuple[Array, Array, Array, float]:
        """Unit vectors forward, right and up, and the distance to the target."""
        ahead = np.asarray(self.target, np.float64) - np.asarray(self.eye, np.float64)
        distance = float(np.linalg.norm(ahead))
        forward = ahead / distance
        above = np.array([0.0, 1.0, 0.0] if abs(forward[2]) > 0.999 else [0.0, 0.0, 1.0])
        right = np.cross(forward, above)
        right /= np.linalg.norm(right)
        return forward, right, np.cross(right, forward), distance


def around(
    box: Box,
    azimuth: float = -55.0,
    elevation: float = 25.0,
    zoom: float = 1.0,
    perspective: bool = True,
) -> Camera:
    """A camera that sees all of a box.

    azimuth: degrees about z from the x axis to the eye; elevation: degrees above the floor.
    zoom: above 1 comes closer.
    """
    values = np.array([azimuth, elevation, zoom], np.float64)
    if not np.isfinite(values).all() or zoom <= 0 or abs(elevation) > 90:
        raise CallError(
            "a view has finite angles, up to 90 degrees above or below, and a zoom above 0",
            found=f"azimuth={azimuth}, elevation={elevation}, zoom={zoom}",
        )
    a, e = np.radians([azimuth, elevation])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    centre = (box.low + box.high) / 2
    radius = float(np.linalg.norm(box.size)) / 2
    distance = 3.5 * radius
    # A ball of the box's radius fills the height where its outline is seen.
    height = 2 * radius
    if perspective:
        height *= distance / np.sqrt(distance**2 - radius**2)
    eye, target = centre + distance * back, centre
    return Camera(
        (float(eye[0]), float(eye[1]), float(eye[2])),
        (float(target[0]), float(target[1]), float(target[2])),
        height / zoom,
        perspective,
    )
