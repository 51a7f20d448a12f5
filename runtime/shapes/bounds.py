"""Boxes: those that are given, and the one that a shape is proved to lie in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...passes.boxes import NoInterval
from ..errors import CallError
from ..values import Array, describe
from .field import AXES, Field

FAR = 1e6  # shapes are looked for in (-FAR, FAR) along each axis
ROUNDS = {64: 60, 128: 4}  # cells along an axis of the box, and how often it is shrunk at most


@dataclass(frozen=True)
class Box:
    """low, high: f64[3]."""

    low: Array
    high: Array

    @property
    def size(self) -> Array:
        """The lengths of the sides."""
        return self.high - self.low


def box_of(bounds: Any) -> Box:
    """Bounds as they are given: (lo, hi), each a number or a point. Raises CallError."""
    try:
        low, high = (np.broadcast_to(np.asarray(x, np.float64), (3,)) for x in bounds)
    except (TypeError, ValueError):
        low = high = np.zeros(3)
        found = describe(bounds)
    else:
        found = f"({low.tolist()}, {high.tolist()})"
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise CallError(
            "bounds are two corners", expected="(lo, hi), each a number or a point, lo below hi",
            found=found,
        )  # fmt: skip
    return Box(low.copy(), high.copy())


def extent(field: Field) -> Box | None:
    """A box that holds the whole shape, found by intervals; None for an empty shape.

    Raises CallError where the shape has no end, or its field cannot be bounded.
    """
    box = Box(np.full(3, -FAR), np.full(3, FAR))
    for cells, rounds in ROUNDS.items():
        for _ in range(rounds):
            smaller = _shrunk(field, box, cells)
            if smaller is None:
                return None
            done = (smaller.size > 0.9 * box.size).all()
            box = smaller
            if done:
                break
    for axis in range(3):
        if max(-box.low[axis], box.high[axis]) > FAR / 2:
            raise CallError(
                f"the shape has no end along {AXES[axis]}",
                field.function.decl.span,
                expected=f"one within {FAR:g} of the origin, or bounds=(lo, hi)",
            )
    return box


def _shrunk(field: Field, box: Box, cells: int) -> Box | None:
    """The box around what is not proved empty in a box; None where all is."""
    axes = [np.linspace(lo, hi, cells + 1) for lo, hi in zip(box.low, box.high)]
    try:
        found = field.sample(axes, halo=1)
    except NoInterval as error:
        raise CallError(
            f"where {field.function.__name__}() ends cannot be proved: {error.summary}",
            field.function.decl.span,
            hint="give bounds=(lo, hi)",
        ) from None
    maybe = found.exact | found.inside
    if not maybe.any():
        return None
    low, high = box.low.copy(), box.high.copy()
    for axis, x in enumerate(axes):
        others = tuple(i for i in range(3) if i != axis)
        index = np.flatnonzero(maybe.any(axis=others))
        low[axis] = x[max(0, index[0] - 1)]
        high[axis] = x[min(cells, index[-1] + 1)]
    return Box(low, high)
