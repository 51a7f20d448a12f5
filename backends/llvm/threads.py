"""The thread pool: parallel nests in compiled code share their tasks among threads.

`wengert_parallel(function, frame, tasks)` runs function(frame, begin, end) over all tasks.
"""

from __future__ import annotations

import ctypes
import functools

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@PARALLEL
def _serial(function: int, frame: int, tasks: int) -> None:
    TASK(function)(frame, 0, tasks)


@functools.cache
def parallel_address() -> int:
    """The address of `wengert_parallel`."""
    address = ctypes.cast(_serial, ctypes.c_void_p).value
    assert address is not None
    return address
