"""Room for deeply nested programs: the recursion limit raised while one is compiled."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FRAMES = 30_000

_lock = threading.Lock()
_limits: list[int] = []  # one for each thread inside: the limit from before the first


@contextmanager
def deep_stack() -> Iterator[None]:
    """At least 30 000 Python frames inside: syntax trees and static recursion nest deeply."""
    with _lock:
        _limits.append(_limits[0] if _limits else sys.getrecursionlimit())
        sys.setrecursionlimit(max(_limits[0], FRAMES))
    try:
        yield
    finally:
        with _lock:
            before = _limits.pop()
            if not _limits:
                sys.setrecursionlimit(before)
