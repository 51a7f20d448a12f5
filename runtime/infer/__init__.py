"""Variational inference: guides written for a model, one call to fit them, and diagnostics."""

from .errors import DataError, GuideError, InferenceError, NonFiniteDensity
from .guides import AutoGuide, autoguide
from .posterior import Posterior
from .psis import Smoothed, psis
from .vi import vi

__all__ = [
    "AutoGuide",
    "DataError",
    "GuideError",
    "InferenceError",
    "NonFiniteDensity",
    "Posterior",
    "Smoothed",
    "autoguide",
    "psis",
    "vi",
]
