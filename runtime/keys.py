"""Random keys from Python."""

from __future__ import annotations

from typing import Any

import numpy as np


def key(seed: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The threefry key of `seed`: `uint32[2]`, the same words as `jax.random.PRNGKey(seed)`.

    The seed is any 64-bit integer; a negative one counts by its two's complement.
    """
    if not isinstance(seed, int | np.integer):
        raise TypeError(f"a seed is an integer, not {type(seed).__name__}")
    word = int(seed) & 0xFFFFFFFFFFFFFFFF
    if -(2**31) <= int(seed) < 2**32:
        word &= 0xFFFFFFFF  # as JAX without 64-bit mode, where most users are
    return np.array([word >> 32, word & 0xFFFFFFFF], np.uint32)
