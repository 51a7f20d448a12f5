"""Loops without carries become batched ops: `[f(x) for x in xs]` is one array program."""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.types import I32, TensorType
from .batch import Batcher

MOST_BYTES = 2**30  # of the values of a batched body; a larger one stays a loop


def vectorize(module: Module) -> Module:
    """Every function with its parallel loops batched, innermost first."""
    out = Module({}, module.entry)
    for name, f in module.functions.items():
        out.functions[name] = Function(name, _block(f.body, {}), f.span, dict(f.attrs))
    return out


def _block(block: Block, env: Env) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    env.update(zip(block.params, params))
    out = Block(params)
    b = Builder(out)
    for op in block.ops:
        regions = tuple(_block(r, env) for r in op.regions)
        operands = tuple(env.get(v, v) for v in op.operands)
        results = tuple(Value(v.type, v.name) for v in op.results)
        new = Op(op.name, operands, op.attrs, regions, results, op.span)
        env.update(zip(op.results, results))
        if op.name == "for" and worth_batching(new):
            env.update(zip(op.results, _batched(new, b)))
        else:
            out.ops.append(new)
    out.results = [env.get(v, v) for v in block.results]
    return out


def worth_batching(op: Op) -> bool:
    """Whether a loop is independent by iteration, holds no `while`, and fits in memory."""
    if op.attrs["carries"] or not op.attrs["trips"]:
        return False
    total = 0
    for inner in walk(op.regions[0]):
        if inner.name in ("while", "call", "linear_call") or inner.name.startswith("diff."):
            return False  # a call left here has a derivative of its own, not yet used
        total += sum(r.type.nbytes for r in inner.results if isinstance(r.type, TensorType))
    return total * int(op.attrs["trips"]) <= MOST_BYTES


def _batched(op: Op, b: Builder) -> list[Value]:
    (body,) = op.regions
    trips = op.attrs["trips"]
    b.span = op.span
    (index,) = b.op("iota", type=TensorType(I32, (trips,)), axis=0)
    batcher = Batcher(b, trips, dict(zip(body.params, [index, *op.operands])))
    batcher.mapped.update(body.params)
    batcher.run(body)
    return [batcher.wide(v) for v in body.results]
