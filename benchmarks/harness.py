"""Timing two implementations side by side, and the closing lines of a benchmark.

Alternating rounds keep a noisy machine fair: each round times every candidate once, each round
begins with another candidate (what ran before leaves caches and memory in some state), and the
medians over rounds are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

_short = False


def alternate(
    candidates: dict[str, Callable[[], Any]], rounds: int = 15, seconds: float = 0.2
) -> dict[str, float]:
    """Median seconds of one call of each candidate, and its spread on standard output.

    Every candidate runs once unmeasured, then `rounds` times in turn; each measurement repeats
    the call until `seconds / rounds` have passed, at least once.
    """
    counts = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        counts[name] = max(1, int(seconds / rounds / max(once, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        start_at = turn % len(names)
        for name in names[start_at:] + names[:start_at]:
            call = candidates[name]
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - start) / counts[name])
    medians = {name: statistics.median(ts) for name, ts in times.items()}
    for name, ts in times.items():
        low, high = sorted(ts)[len(ts) // 4], sorted(ts)[-1 - len(ts) // 4]
        print(f"  {name:<28} {medians[name] * 1e3:10.4f} ms  ({low * 1e3:.4f} .. {high * 1e3:.4f})")
    return medians


def bar(name: str, measured: float, comparison: str, target: float) -> None:
    """Print the verdict on one bar: `comparison` is "<=" or ">=" against `target`."""
    global _short
    met = measured <= target if comparison == "<=" else measured >= target
    _short |= not met
    print(f"BAR {name} {measured:.4g} {comparison} {target:g} {'ok' if met else 'short'}")


def finish() -> None:
    """Leave with status 1 if a bar was short."""
    sys.exit(1 if _short else 0)
