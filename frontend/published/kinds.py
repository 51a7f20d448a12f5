"""The kinds of statement: their numbers, names, parameters, and what solid each draws."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from ...ir.span import Span
from .errors import UnknownKind

Solid = Literal["corner", "centred", "square", "disc", "arm", "side", "tilted", "line"]

_PARAMETERS: dict[Solid, str] = {
    "corner": "h s1 s2 t r1 r2",  # a box from its lowest corner
    "centred": "h c1 c2 t r1 r2",  # a box around the middle of its base
    "square": "h c1 c2 t r",  # the same with a square base
    "disc": "h c1 c2 t r",
    "arm": "h c1 c2 t r angle",  # an arm of a cross, of width 2
    "side": "h s1 s2 t r1 r2",  # around the middle along one axis, from the corner along the other
    "tilted": "h s1 s2 t r1 r2 f",  # a corner box whose top is pushed by f
    "line": "x1 y1 z1 x2 y2 z2 r",
}

STOP, TRANS, ROT, END, STOP_SIGN = 0, 19, 20, 21, 22  # numbers that are no drawing


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of drawing. `number` in the numeric form, `part` and `form` in the text."""

    number: int
    part: str
    form: str
    solid: Solid

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters in numeric order: three of the position come first."""
        return tuple(_PARAMETERS[self.solid].split())

    @property
    def turns(self) -> bool:
        """Whether a Rot loop can turn it."""
        return self.solid in ("arm", "line")

    def __str__(self) -> str:
        return f"'{self.part}', '{self.form}'"


_TABLE: tuple[tuple[str, str, Solid], ...] = (
    ("Leg", "Cub", "corner"),
    ("Top", "Rec", "centred"),
    ("Top", "Square", "square"),
    ("Top", "Circle", "disc"),
    ("Layer", "Rec", "centred"),
    ("Sup", "Cylinder", "disc"),
    ("Sup", "Cub", "square"),
    ("Base", "Circle", "disc"),
    ("Base", "Square", "square"),
    ("Base", "Line", "arm"),
    ("Sideboard", "Cub", "side"),
    ("Hori_Bar", "Cub", "corner"),
    ("Vert_Board", "Cub", "corner"),
    ("Locker", "Cub", "corner"),
    ("Back", "Cub", "tilted"),
    ("Chair_Beam", "Cub", "corner"),
    ("Connect", "Line", "line"),
    ("Back_sup", "Cub", "corner"),
)
KINDS = {i: Kind(i, *row) for i, row in enumerate(_TABLE, 1)}
_BY_NAME = {(k.part, k.form): k for k in KINDS.values()}


def find_kind(part: str, form: str, span: Span | None = None) -> Kind:
    """The kind written `part`, `form`. Raises UnknownKind."""
    found = _BY_NAME.get((part, form))
    if found is not None:
        return found
    forms = [k.form for k in KINDS.values() if k.part == part]
    if forms:
        raise UnknownKind(
            f"'{part}' has no form '{form}'",
            span,
            expected=" or ".join(f"'{f}'" for f in forms),
            found=f"'{form}'",
        )
    parts = list(dict.fromkeys(k.part for k in KINDS.values()))
    close = difflib.get_close_matches(part, parts, 1, 0.5)
    raise UnknownKind(
        f"nothing is called '{part}' in the notation",
        span,
        expected=", ".join(parts),
        found=f"'{part}'",
        hint=f"did you mean '{close[0]}'?" if close else None,
    )
