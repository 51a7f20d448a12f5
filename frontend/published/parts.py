"""What the text form says in other numbers than the numeric form: tilts, arms, turns."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, degrees, radians, tan

from .model import LARGEST, held

ROUNDING = 1e-9  # degrees that an angle may fall short of a whole number


def theta_of(f: int, t: int) -> int:
    """The angle printed for a board of height t whose top is pushed by f: whole degrees."""
    if t == 0:
        return 0
    angle = degrees(atan2(abs(f), abs(t)))
    return int(angle + ROUNDING) * (1 if (f < 0) == (t < 0) else -1)


def push_of(theta: int, t: int) -> int:
    """The push that is printed as `theta` degrees; the nearest one where none is."""
    if t == 0 or abs(theta) >= 90:
        return 0
    exact = t * tan(radians(theta))
    towards = 1 if (theta < 0) == (t < 0) else -1
    middle = round(abs(t) * tan(radians(abs(theta) + 0.5))) * towards if theta else 0
    candidates = sorted({middle, *(middle + d for d in (-1, 1))}, key=lambda f: abs(f - exact))
    fitting = [f for f in candidates if theta_of(f, t) == theta]
    nearest = (fitting or [round(exact)])[0]
    return min(max(nearest, -LARGEST), LARGEST)


def arm_end(values: Sequence[int]) -> tuple[int, int, int]:
    """Where an arm of the numeric parameters h, c1, c2, t, r, angle ends."""
    h, a, b, _, r, angle = values
    return ((h, a, b - r), (h, a + r, b), (h, a, b + r), (h, a - r, b))[angle]


def arm_of(start: Sequence[int], end: Sequence[int]) -> tuple[int, int] | None:
    """(length, angle) of the arm between two points; None where it lies along no axis."""
    up, u, v = (e - s for s, e in zip(start, end))
    if up or (u and v):
        return None
    if u:
        return (u, 1) if u > 0 else (-u, 3)
    return (v, 2) if v > 0 else (-v, 0)


def line_degrees(count: int) -> int:
    """The angle printed for the step of a turning line."""
    return int(360 / held(count))
