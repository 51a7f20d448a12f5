"""Calls replaced by the bodies they call."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.opdef import symbols

RULES = ("jvp", "fwd", "bwd")


def has_rule(op: Op) -> bool:
    """Whether a call has a derivative of its own, which inlining would lose."""
    return any(op.attrs.get(r) for r in RULES)


def inline(module: Module) -> Module:
    """The entry with its plain calls inlined, and only the functions it still needs."""
    out = Module({}, module.entry)
    pending = [module.entry]
    while pending:
        name = pending.pop()
        if name in out.functions:
            continue
        function = inline_function(module, name)
        out.functions[name] = function
        pending += [callee for op in walk(function.body) for callee in symbols(op)]
    return out


def inline_function(module: Module, name: str, *, custom: bool = False) -> Function:
    """Function `name` with calls inlined, those in regions too.

    custom: inline calls with a custom derivative as well.
    """
    return inline_where(module, name, lambda op: custom or not has_rule(op))


def inline_where(module: Module, name: str, wanted: Callable[[Op], bool]) -> Function:
    """Function `name` with those calls inlined that are `wanted`."""
    function = module.functions[name]
    if not any(op.name == "call" and wanted(op) for op in walk(function.body)):
        return function
    body = _Inliner(module, wanted).block(function.body, {})
    return Function(name, body, function.span, dict(function.attrs))


class _Inliner:
    def __init__(self, module: Module, wanted: Callable[[Op], bool]) -> None:
        self.module = module
        self.wanted = wanted

    def block(self, block: Block, env: Env) -> Block:
        params = [Value(p.type, p.name) for p in block.params]
        env.update(zip(block.params, params))
        out = Block(params)
        self.ops(block, Builder(out), env)
        out.results = [env.get(v, v) for v in block.results]
        return out

    def ops(self, block: Block, builder: Builder, env: Env) -> None:
        for op in block.ops:
            operands = tuple(env.get(v, v) for v in op.operands)
            if op.name == "call" and self.wanted(op):
                callee = self.module.functions[op.attrs["fn"]]
                inner: Env = dict(zip(callee.params, operands))
                self.ops(callee.body, builder, inner)
                env.update(zip(op.results, (inner.get(v, v) for v in callee.results)))
                continue
            regions = tuple(self.block(region, env) for region in op.regions)
            results = tuple(Value(v.type, v.name) for v in op.results)
            builder.block.ops.append(Op(op.name, operands, op.attrs, regions, results, op.span))
            env.update(zip(op.results, results))
