"""One BLAS thread a call while compiled code runs: wengert's own pool shares the products.

SciPy's BLAS would otherwise start threads of its own inside ours, and for the small products
of most programs its threads cost more than they give. The limit holds only during calls, and
only for the BLAS library that SciPy brings.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

_lock = threading.Lock()
_inside = 0
_before: list[int] = []


@functools.cache
def _libraries() -> list[Any]:
    """The controllers of the BLAS libraries that SciPy loaded."""
    from threadpoolctl import ThreadpoolController

    controllers = ThreadpoolController().select(user_api="blas").lib_controllers
    return [c for c in controllers if "scipy" in (c.filepath or "")]


def enter() -> None:
    """Set the limit, if this is the first of the calls now running."""
    global _inside
    with _lock:
        if _inside == 0:
            _before[:] = [c.get_num_threads() for c in _libraries()]
            for c in _libraries():
                c.set_num_threads(1)
        _inside += 1


def leave() -> None:
    """Give the libraries their threads back after the last of the calls."""
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            for c, count in zip(_libraries(), _before):
                c.set_num_threads(count)
