"""Derivatives of whole functions, as functions of the same module."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Value
from .dce import dce_function
from .inline import inline_function
from .jvp import Forward, is_float
from .linearize import Linearizer, SplitBuilder
from .transpose import Backward


def jvp_function(module: Module, name: str, wrt: Sequence[int]) -> str:
    """Add the forward-mode derivative of function `name` and return its name.

    Parameters: those of `name`, then a tangent for each parameter in `wrt`. Results: those of
    `name`, then a tangent for each float result. Raises NotDifferentiable at the op at fault.
    """
    source = inline_function(module, name)
    params = [Value(p.type, p.name) for p in source.params]
    tangents = [Value(source.params[i].type, f"d{source.params[i].name}") for i in wrt]
    block = Block([*params, *tangents])
    forward = Forward(
        module,
        dict(zip(source.params, params)),
        dict(zip((source.params[i] for i in wrt), tangents)),
    )
    b = Builder(block)
    forward.run(source.body, b)
    block.results = [forward.value(v) for v in source.results]
    block.results += [forward.tangent(v, b) for v in source.results if is_float(v)]
    return _add(module, f"{name}_jvp", block, source)


def vjp_function(module: Module, name: str, wrt: Sequence[int]) -> str:
    """Add the reverse-mode derivative of function `name` and return its name.

    Parameters: those of `name`, then a cotangent for each float result. Results: those of
    `name`, then a cotangent for each parameter in `wrt`.
    """
    source = inline_function(module, name)
    params = [Value(p.type, p.name) for p in source.params]
    tangents = [Value(source.params[i].type, f"d{source.params[i].name}") for i in wrt]
    floats = [r for r in source.results if is_float(r)]
    cotangents = [Value(r.type, "ct") for r in floats]
    block, linear = Block([*params, *cotangents]), Block()
    lin = Linearizer(
        module,
        dict(zip(source.params, params)),
        dict(zip((source.params[i] for i in wrt), tangents)),
    )
    split = SplitBuilder(block, linear, set(tangents))
    lin.run(source.body, split)
    b = Builder(block, source.span)
    backward = Backward(module, b, {}, set(tangents))
    seeds = [(lin.ts[r], ct) for r, ct in zip(floats, cotangents) if r in lin.ts]
    backward.run(linear.ops, seeds)
    block.results = [lin.value(v) for v in source.results]
    block.results += [backward.cts.get(t) or b.const(0, t) for t in tangents]
    return _add(module, f"{name}_vjp", block, source)


def _add(module: Module, stem: str, block: Block, source: Function) -> str:
    function = Function(module.fresh_name(stem), block, source.span)
    return module.add(dce_function(function)).name
