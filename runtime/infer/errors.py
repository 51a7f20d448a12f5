"""Mistakes in what inference is asked for."""

from __future__ import annotations

from ...ir.errors import WengertError


class InferenceError(WengertError):
    """A model, data or guide that inference cannot work with."""


class DataError(InferenceError):
    """Observed values that belong to no choice of the model, or do not fit it."""


class GuideError(InferenceError):
    """A guide that lacks latent choices, or a model that no guide can be written for."""


class NonFiniteDensity(InferenceError):
    """A log density that is infinite or NaN wherever inference could start.

    `address` is the choice whose log density it is; "" where each is finite on its own.
    """

    def __init__(self, address: str, summary: str, hint: str) -> None:
        self.address = address
        super().__init__(summary, hint=hint)
