"""Whether memory is there, asked before a large program runs.

Linux promises more memory than it has and ends the process that uses the promise; a program
that cannot fit is told so instead.
"""

from __future__ import annotations

from pathlib import Path

ASKED_FROM = 2**28  # bytes: smaller programs run without asking
MOST = 0.95  # of the free memory: the system's number is an estimate
_FREE = (b"MemAvailable:", b"SwapFree:")


def require(nbytes: int) -> None:
    """Raise MemoryError where a program needs more memory than the machine has free."""
    if nbytes < ASKED_FROM:
        return
    free = available()
    if free is not None and nbytes > free * MOST:
        raise MemoryError(f"the program needs {nbytes:,} bytes of memory, {free:,} are free")


def available() -> int | None:
    """Bytes of memory and swap that are free; None on systems that do not say."""
    try:
        lines = Path("/proc/meminfo").read_bytes().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(_FREE)]
    return sum(int(kilobytes) * 1024 for _, kilobytes, _ in found) if found else None
