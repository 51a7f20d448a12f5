"""Mistakes in calls from Python, each with the place of the parameter it concerns."""

from __future__ import annotations

from ..ir.errors import WengertError


class CallError(WengertError):
    """Missing, extra or unknown arguments."""


class ArgumentError(WengertError):
    """An argument whose type, dtype or shape the parameter cannot take."""


class BackendError(WengertError):
    """A backend that is unknown, missing, or unable to run the program."""


class ArtifactError(WengertError):
    """A saved file that is truncated, foreign, or made for another machine or version."""
