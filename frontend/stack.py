"""Room for deeply nested programs: the recursion limit raised while one is compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

FRAMES = 30_000


@contextmanager
def deep_stack() -> Iterator[None]:
    """At least 30 000 Python frames inside: syntax trees and static recursion nest deeply."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
