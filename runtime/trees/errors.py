"""Mistakes in trees and in files of them."""

from __future__ import annotations

from ...ir.errors import WengertError


class TreeError(WengertError):
    """A tree that is malformed, too deep, of unknown labels or of the wrong shape."""
