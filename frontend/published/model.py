"""Statements of the published notation as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.span import Span
from .errors import WrongLoop, WrongParameters
from .kinds import Kind

LARGEST = 1_000_000  # of a parameter: whole numbers up to here are exact in f32
MOST_BODIES = 4096  # of a loop, those of a loop inside it counted
Vector = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Draw:
    """One solid. `values` are the parameters of its kind in numeric order."""

    kind: Kind
    values: tuple[int, ...]
    span: Span | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        names = self.kind.parameters
        if len(self.values) != len(names):
            raise WrongParameters(
                f"{self.kind} has {len(names)} parameters",
                self.span,
                expected=", ".join(names),
                found=f"{len(self.values)} numbers",
            )
        values = [_whole(v, n, self.span) for n, v in zip(names, self.values)]
        if self.kind.solid == "arm":
            values[-1] %= 4
        if self.kind.solid == "line" and values[-1] < 1:
            raise WrongParameters(
                "a line has a radius of 1 or more", self.span, found=f"r={values[-1]}"
            )
        object.__setattr__(self, "values", tuple(values))

    @property
    def position(self) -> Vector:
        """(height, first, second) of where it stands: a corner, a middle or a start."""
        a, b, c = self.values[:3]
        return a, b, c


@dataclass(frozen=True, slots=True)
class Trans:
    """A body drawn `count` times, each `u` further on. A count below 1 draws nothing."""

    count: int
    u: Vector
    body: Draw | Trans
    span: Span | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", _whole(self.count, "count", self.span, None))
        if len(self.u) != 3:
            raise WrongLoop(
                "a shift has three numbers", self.span, expected="u=(h, a, b)", found=str(self.u)
            )
        object.__setattr__(self, "u", tuple(_whole(v, "u", self.span) for v in self.u))
        inner = self.body
        if isinstance(inner, Trans) and isinstance(inner.body, Trans):
            raise WrongLoop("loops nest two deep at most", self.span)
        if not isinstance(inner, Draw | Trans):
            raise WrongLoop("a Trans loop holds a drawing or one more Trans loop", self.span)
        _check_bodies(self)


@dataclass(frozen=True, slots=True)
class Rot:
    """An arm or a line drawn `count` times, each turned further in the floor plane.

    An arm turns by `increment` quarters; a line by 360 degrees / `held(count)`, about its start,
    and has no use for the increment, which is kept 1.
    """

    count: int
    increment: int
    body: Draw
    span: Span | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", _whole(self.count, "count", self.span, None))
        increment = _whole(self.increment, "increment", self.span)
        if not isinstance(self.body, Draw) or not self.body.kind.turns:
            found = str(self.body.kind) if isinstance(self.body, Draw) else "a loop"
            raise WrongLoop(
                "this does not turn",
                self.span,
                expected="'Base', 'Line' or 'Connect', 'Line' in a Rot loop",
                found=found,
            )
        if self.body.kind.solid == "line":
            increment = 1
        object.__setattr__(self, "increment", increment)
        _check_bodies(self)


Statement = Draw | Trans | Rot


def _whole(value: object, name: str, span: Span | None, largest: int | None = LARGEST) -> int:
    """A parameter as an int that is small enough. Raises WrongParameters."""
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value:
        raise WrongParameters(
            f"'{name}' is no whole number", span, found=str(value), hint="round it first"
        )
    if largest is not None and abs(whole) > largest:
        raise WrongParameters(
            f"'{name}' is too large", span, expected=f"at most {largest}", found=str(value)
        )
    return whole


def _check_bodies(loop: Trans | Rot) -> None:
    inner = loop.body.count if isinstance(loop.body, Trans) else 1
    bodies = max(loop.count, 0) * max(inner, 1)
    if bodies > MOST_BODIES:
        raise WrongLoop(
            "the loop repeats too often",
            loop.span,
            expected=f"at most {MOST_BODIES} bodies",
            found=str(bodies),
        )


def held(count: int) -> int:
    """How many times a turning line goes round: 3 to 6."""
    return min(max(count, 3), 6)


def expanded(statement: Statement) -> Iterator[tuple[Kind, tuple[int, ...]]]:
    """The solids of a statement with their parameters, loops written out in order."""
    match statement:
        case Draw(kind, values):
            yield kind, values
        case Trans(count, u, body):
            bodies = list(expanded(body))
            for i in range(count):
                by = [i * v for v in u]
                yield from ((kind, _moved(kind, values, by)) for kind, values in bodies)
        case Rot(count, increment, Draw(kind, values)):
            for i in range(count):
                if kind.solid == "arm":
                    yield kind, (*values[:-1], (values[-1] + i * increment) % 4)
                else:
                    yield kind, _turned(values, 360 / held(count) * i)


def _moved(kind: Kind, values: tuple[int, ...], by: Sequence[int]) -> tuple[int, ...]:
    """The same solid elsewhere; both ends of a line move."""
    ends = 6 if kind.solid == "line" else 3
    return (*(v + by[i % 3] for i, v in enumerate(values[:ends])), *values[ends:])


def _turned(values: tuple[int, ...], degrees: float) -> tuple[int, ...]:
    """A line turned about its start in the floor plane, its end rounded to whole numbers."""
    x1, y1, z1, x2, y2, z2, r = values
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    u, v = y2 - y1, z2 - z1
    y2, z2 = np.rint(cosine * u - sine * v + y1), np.rint(sine * u + cosine * v + z1)
    return x1, y1, z1, x2, int(y2), int(z2), r
