"""Loops without carries become batched ops: `[f(x) for x in xs]` is one array program."""

from __future__ import annotations

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.types import I32, TensorType
from .batch import Batcher
from .batch_calls import BatchedCalls, size_of

MOST_BYTES = 2**30  # of the values of a batched body; a larger one stays a loop


def vectorize(module: Module) -> Module:
    """Every function with its parallel loops batched, innermost first."""
    out = Module(dict(module.functions), module.entry)
    for name, f in module.functions.items():
        out.functions[name] = vectorized(out, f)
    return out


def vectorized(module: Module, f: Function) -> Function:
    """`f` with its parallel loops batched. Batched forms of what it calls are added to `module`."""
    if not any(op.name == "for" for op in walk(f.body)):
        return f
    return Function(f.name, _block(module, f.body, {}), f.span, dict(f.attrs))


def _block(module: Module, block: Block, env: Env) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    env.update(zip(block.params, params))
    out = Block(params)
    b = Builder(out)
    for op in block.ops:
        regions = tuple(_block(module, r, env) for r in op.regions)
        operands = tuple(env.get(v, v) for v in op.operands)
        results = tuple(Value(v.type, v.name) for v in op.results)
        new = Op(op.name, operands, op.attrs, regions, results, op.span)
        env.update(zip(op.results, results))
        if op.name == "for" and worth_batching(module, new):
            env.update(zip(op.results, _batched(module, new, b)))
        else:
            out.ops.append(new)
    out.results = [env.get(v, v) for v in block.results]
    return out


def worth_batching(module: Module, op: Op) -> bool:
    """Whether a loop is independent by iteration, holds no `while`, and fits in memory.

    A call left here has a derivative of its own, not yet used; so has its batched form.
    """
    if op.attrs["carries"] or not op.attrs["trips"]:
        return False
    size = size_of(module, op.regions[0], set())
    return size is not None and size * int(op.attrs["trips"]) <= MOST_BYTES


def _batched(module: Module, op: Op, b: Builder) -> list[Value]:
    (body,) = op.regions
    trips = op.attrs["trips"]
    b.span = op.span
    (index,) = b.op("iota", type=TensorType(I32, (trips,)), axis=0)
    batcher = Batcher(b, trips, dict(zip(body.params, [index, *op.operands])))
    batcher.calls = BatchedCalls(module, trips).call
    batcher.mapped.update(body.params)
    batcher.run(body)
    return [batcher.wide(v) for v in body.results]
