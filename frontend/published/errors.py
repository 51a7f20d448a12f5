"""Mistakes in programs of the published notation."""

from __future__ import annotations

from ...ir.errors import WengertError


class NotationMistake(WengertError):
    """A text, a statement or a block that is not of the published notation."""


class UnknownKind(NotationMistake):
    """A statement that the notation does not have."""


class WrongParameters(NotationMistake):
    """A statement with too many, too few or unfit parameters."""


class WrongLoop(NotationMistake):
    """A loop that the notation does not have, or that repeats too often."""
