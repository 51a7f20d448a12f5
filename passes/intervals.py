"""Interval arithmetic: a function of points as a function of boxes.

The function takes two bounds for each parameter that the attribute `boxes` of the entry names,
and gives two bounds for each result: whatever point the box holds, the value there is between
them. What they hold is the exact value as well as what any backend computes, since bounds are
moved outward by the errors of both (`down` and `up`). A bound of NaN means that nothing is
known: the value may be anything, NaN included. Bools are bounded by "certainly" and "possibly".
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Value
from . import interval_control, interval_floats, interval_ints, interval_moves  # noqa: F401
from .boxes import INTERVAL, Box, Boxes, NoInterval
from .dce import dce_function
from .inline import inline_function

__all__ = ["ATTRIBUTE", "INTERVAL", "Box", "Boxes", "NoInterval", "interval_function", "intervals"]

ATTRIBUTE = "boxes"  # of the entry: the places of the parameters that become boxes


def intervals(module: Module) -> Module:
    """The entry as a function of boxes, where its attribute asks for that."""
    wanted = module.main.attrs.get(ATTRIBUTE)
    if wanted is None:
        return module
    out = Module(dict(module.functions), module.entry)
    name = interval_function(out, module.entry, wanted)
    return Module({name: out.functions[name]}, name)


def interval_function(module: Module, name: str, boxes: Sequence[int]) -> str:
    """Add function `name` over boxes, and return its name.

    boxes: places of the parameters that become two, the lower bound first. Each result becomes
        two as well. Calls are inlined; derivatives must have been expanded.
    """
    source = inline_function(module, name, custom=True)
    block = Block()
    w = Boxes(Builder(block, source.span))
    for i, p in enumerate(source.params):
        count = 2 if i in boxes else 1
        names = [f"{p.name}_lo", f"{p.name}_hi"] if count == 2 else [p.name]
        new = [Value(p.type, n) for n in names]
        block.params += new
        w.env[p] = Box(new[0], new[-1])
    w.run(source.body)
    block.results = [v for r in source.results for v in w[r]]
    function = Function(module.fresh_name(f"{source.name}_box"), block, source.span)
    return module.add(dce_function(function)).name
