"""Random keys from Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.threefry import threefry2x32
from .errors import CallError
from .values import describe


def key(seed: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The threefry key of `seed`: `uint32[2]`, the same words as `jax.random.PRNGKey(seed)`.

    The seed is any 64-bit integer; a negative one counts by its two's complement. Raises
    CallError for anything else.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise CallError("a seed is a whole number", found=describe(seed))
    if not -(2**63) <= int(seed) < 2**64:
        raise CallError("a seed has at most 64 bits", found=describe(seed))
    word = int(seed) & 0xFFFFFFFFFFFFFFFF
    if -(2**31) <= int(seed) < 2**32:
        word &= 0xFFFFFFFF  # as JAX without 64-bit mode, where most users are
    return np.array([word >> 32, word & 0xFFFFFFFF], np.uint32)


def split_key(key: Any, count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """`count` independent keys, `uint32[count, 2]`: those of `jax.random.split`."""
    words = np.asarray(key, np.uint32)
    counters = np.arange(count, dtype=np.uint32)
    pair = threefry2x32(words[0], words[1], np.zeros_like(counters), counters)
    return np.stack(pair, axis=-1)
