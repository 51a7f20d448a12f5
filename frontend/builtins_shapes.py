"""Builtins about shapes: what a shape program is at points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.span import Span
from . import shapes
from .builtin_table import builtin
from .operators import binary
from .values import Staged, Tensor

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("distance(shape, points)")
def _distance(low: Lowering, span: Span, shape: Staged, points: Staged) -> Staged:
    """Signed distance of points [..., 3] (or [..., 2]) from a shape program with its arguments.

    Negative inside; inf where nothing is drawn.
    """
    return Tensor(shapes.field_at(low, shape, points, span)[0])


@builtin("occupancy(shape, points, temperature)")
def _occupancy(
    low: Lowering, span: Span, shape: Staged, points: Staged, temperature: Staged
) -> Staged:
    """How much points are inside of a shape: sigmoid(-distance / temperature), 0 to 1."""
    d = Tensor(shapes.field_at(low, shape, points, span)[0])
    scaled = binary(low.a, "/", d, temperature, span)
    out = low.b.sigmoid(low.b.neg(low.a.tensor(scaled, span)))
    return Tensor(out)


@builtin("part_of(shape, points)")
def _part_of(low: Lowering, span: Span, shape: Staged, points: Staged) -> Staged:
    """The number (i32) of the part of a shape that is nearest to points; -1 where it is empty."""
    return Tensor(shapes.field_at(low, shape, points, span)[1])


@builtin("requirements(shape)")
def _requirements(low: Lowering, span: Span, shape: Staged) -> Staged:
    """Whether each requirement of what a solid shape is drawn with holds: bool[count]."""
    return Tensor(shapes.checked(low, shape, span))
