"""Batching: a function of one example as a function of many, along a new first axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Op, Value
from . import batch_control, batch_rules  # noqa: F401  (they fill the table of rules)
from .batcher import BATCH, Batcher, wider
from .dce import dce_function
from .inline import inline_function

__all__ = ["BATCH", "Batcher", "batch_function"]


def batch_function(module: Module, name: str, axes: Sequence[int | None], size: int) -> str:
    """Add function `name` mapped over `size` examples, and return its name.

    axes: 0 for parameters that have a new first axis of `size`, None for those shared. Every
    result gets a new first axis. Calls, those with custom derivatives too, are inlined.
    """
    source = inline_function(module, name, custom=True)
    return add_batched(module, source, axes, size)


def add_batched(
    module: Module,
    source: Function,
    axes: Sequence[int | None],
    size: int,
    draws: Mapping[Op, int] | None = None,
) -> str:
    """Add the batched form of `source`, and return its name; `draws` as in Batcher."""
    params = [
        Value(p.type if a is None else wider(p, size), p.name)
        for p, a in zip(source.params, axes, strict=True)
    ]
    block = Block(params)
    b = Builder(block, source.span)
    batcher = Batcher(b, size, dict(zip(source.params, params)), draws or {})
    batcher.mapped.update(p for p, a in zip(source.params, axes) if a is not None)
    batcher.run(source.body)
    block.results = [batcher.wide(v) for v in source.results]
    function = Function(module.fresh_name(f"{source.name}_batch"), block, source.span)
    return module.add(dce_function(function)).name
