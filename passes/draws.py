"""Many runs of a random function on one key: run i takes element i of every array of draws.

The keys of the draws are derived once for all runs. A draw that counts 0 .. m - 1 counts on from
m i for run i: a draw of shape S becomes what `jax.random` draws for shape [runs, *S].
"""

from __future__ import annotations

import numpy as np

from ..ir.core import Function, Module, Op, Value, walk
from ..ir.opdef import OPS, Array
from ..ir.types import TensorType
from .batch import add_batched
from .inline import inline_function

WORDS = {"key_hi", "key_lo"}
MOST_COUNTED = 1 << 20  # counters that are looked at


def batch_draws(module: Module, name: str, runs: int) -> str | None:
    """Add function `name` run `runs` times, every result with a new first axis.

    None where a draw is not of the form that `ir/random.py` writes; its keys must be split then.
    """
    source = inline_function(module, name, custom=True)
    draws = leaf_draws(source)
    if draws is None or max(draws.values()) * runs >= 2**32:
        return None
    return add_batched(module, source, [None] * len(source.params), runs, draws)


def leaf_draws(function: Function) -> dict[Op, int] | None:
    """The ops that draw bits (other `threefry` ops derive keys) with one more than the largest
    counter of each; None as above, or where nothing is drawn.
    """
    readers: dict[Value, set[str]] = {}
    makers: dict[Value, Op] = {}
    returned: set[Value] = set(function.results)
    for op in walk(function.body):
        makers |= dict.fromkeys(op.results, op)
        for v in op.operands:
            readers.setdefault(v, set()).add(op.name)
        returned |= {v for region in op.regions for v in region.results}
    leaves: dict[Op, int] = {}
    for op in walk(function.body):
        read = readers.get(op.result, set()) if op.name == "threefry" else set()
        if not read & WORDS:
            continue
        counters = _value(op.operands[1], makers)
        if read - WORDS or op.result in returned or counters is None:
            return None  # both a key and bits, or unknown counters
        if counters.size and (counters & np.uint64(0xFFFFFFFF)).any():
            return None
        leaves[op] = int(counters.max() >> np.uint64(32)) + 1 if counters.size else 1
    return leaves or None


def _value(v: Value, makers: dict[Value, Op]) -> Array | None:
    """What v is, where it is computed from constants alone."""
    op = makers.get(v)
    if op is None or OPS[op.name].reference is None:
        return None
    if isinstance(v.type, TensorType) and v.type.size > MOST_COUNTED:
        return None
    operands = [_value(x, makers) for x in op.operands]
    if any(x is None for x in operands):
        return None
    reference = OPS[op.name].reference
    assert reference is not None
    return np.asarray(reference(op.attrs, *operands))
