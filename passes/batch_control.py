"""Batching rules of control flow: carries that become batched, choices that differ by example."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value
from ..ir.opdef import dialect_ops
from .batcher import BATCH, Batcher, wider


def _inner(w: Batcher, block: Block, params: Sequence[Value], mapped: set[Value]) -> Batcher:
    """A batcher of a region whose parameters become `params`."""
    out = Block(list(params))
    inner = w.inside(Builder(out, w.b.span))
    inner.env.update(zip(block.params, params))
    inner.mapped |= mapped
    return inner


@BATCH.register("if", "switch")
def _branches(w: Batcher, op: Op) -> Sequence[Value]:
    selector = op.operands[0]
    if w.has(selector):
        return _select_branches(w, op)
    regions = []
    for region in op.regions:
        inner = _inner(w, region, [], set())
        inner.run(region)
        inner.b.block.results = [inner.wide(v) for v in region.results]
        regions.append(inner.b.block)
    return w.b.op(op.name, [w.value(selector)], regions)


def _select_branches(w: Batcher, op: Op) -> Sequence[Value]:
    """A choice that differs by example: every branch runs, elements are selected."""
    options = []
    for region in op.regions:
        inner = w.inside(w.b)
        inner.run(region)
        options.append([inner.wide(v) for v in region.results])
    test = w.value(op.operands[0])
    if op.name == "if":
        return [_choose(w, test, x, y) for x, y in zip(*options)]
    out = options[-1]
    for k in range(len(options) - 2, -1, -1):
        here = w.b.le(test, w.b.const(k, test))
        out = [_choose(w, here, x, y) for x, y in zip(options[k], out)]
    return out


def _choose(w: Batcher, test: Value, x: Value, y: Value) -> Value:
    wide = w.b.broadcast(test, shape=Builder.type(x).shape, axes=(0,))
    return w.b.select(wide, x, y)


@BATCH.register("for")
def _for(w: Batcher, op: Op) -> Sequence[Value]:
    (body,) = op.regions
    carries = op.attrs["carries"]
    index, params = body.params[0], body.params[1:]
    mapped = {i for i, v in enumerate(op.operands) if w.has(v)}
    while True:
        wide = {params[i] for i in mapped}
        new = [Value(wider(p, w.size) if p in wide else p.type, p.name) for p in body.params]
        inner = _inner(w, body, new, wide)
        inner.mapped.discard(index)
        inner.run(body)
        more = {i for i in range(carries) if inner.has(body.results[i])} - mapped
        if not more:
            break
        mapped |= more
    inner.b.block.results = [
        inner.wide(v) if i >= carries or i in mapped else inner.value(v)
        for i, v in enumerate(body.results)
    ]
    operands = []
    for i, v in enumerate(op.operands):
        x = w.wide(v) if i in mapped else w.value(v)
        operands.append(_swapped(w, x) if i >= carries and i in mapped else x)
    results = w.b.op("for", operands, [inner.b.block], **op.attrs)
    return [
        _swapped(w, r) if i >= carries else (r if i in mapped else w.spread(r))
        for i, r in enumerate(results)
    ]


def _swapped(w: Batcher, x: Value) -> Value:
    """The first two axes exchanged."""
    return w.b.transpose(x, perm=(1, 0, *range(2, Builder.type(x).rank)))


@BATCH.register("while")
def _while(w: Batcher, op: Op) -> Sequence[Value]:
    """Every example goes on until the last one is done; finished ones keep their values."""
    cond, body = op.regions
    mapped = {i for i, v in enumerate(op.operands) if w.has(v)}
    while True:
        test, inner = (_while_region(w, region, mapped) for region in (cond, body))
        differs = test.has(cond.results[0])
        more = {i for i, v in enumerate(body.results) if differs or inner.has(v)} - mapped
        if not more:
            break
        mapped |= more
    alive = test.value(cond.results[0])
    test.b.block.results = [test.b.reduce_max(alive, axes=(0,)) if differs else alive]
    results = [inner.wide(v) if i in mapped else inner.value(v) for i, v in enumerate(body.results)]
    if differs:
        results = _keep_finished(w, op, inner, results)
    inner.b.block.results = results
    operands = [w.wide(v) if i in mapped else w.value(v) for i, v in enumerate(op.operands)]
    out = w.b.op("while", operands, [test.b.block, inner.b.block], **op.attrs)
    return [r if i in mapped else w.spread(r) for i, r in enumerate(out)]


def _while_region(w: Batcher, region: Block, mapped: set[int]) -> Batcher:
    """A batcher that has run a region whose parameters numbered in `mapped` are batched."""
    params = [
        Value(wider(p, w.size) if i in mapped else p.type, p.name)
        for i, p in enumerate(region.params)
    ]
    inner = _inner(w, region, params, {region.params[i] for i in mapped})
    inner.run(region)
    return inner


def _keep_finished(w: Batcher, op: Op, inner: Batcher, results: list[Value]) -> list[Value]:
    """New carries where the condition still holds for an example, else its old ones."""
    cond = op.regions[0]
    old = inner.b.block.params
    again = w.inside(inner.b)
    again.env |= dict(zip(cond.params, old))
    again.mapped |= set(cond.params)
    again.run(cond)
    keep = again.wide(cond.results[0])
    return [_choose(inner, keep, new, before) for new, before in zip(results, old)]


BATCH.none(
    "passes expand it first",
    "call",
    "linear_call",
    *dialect_ops(),
)
