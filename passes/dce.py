"""Dead code elimination: ops, loop carries, streams and outputs that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.core import Block, Function, Op, Value
from ..ir.opdef import OPS


def dce_function(function: Function) -> Function:
    """`function` without dead code; parameters stay."""
    block = dce_block(function.body, set(function.results))
    return Function(function.name, block, function.span, dict(function.attrs))


def dce_block(block: Block, live: set[Value]) -> Block:
    """`block` without what `live` (its live values, extended on the way) does not need."""
    kept: list[Op] = []
    for op in reversed(block.ops):
        if OPS[op.name].pure and not any(r in live for r in op.results):
            continue
        op = _trim(op, live)
        live.update(op.operands)
        kept.append(op)
    kept.reverse()
    return Block(block.params, kept, block.results)


def _trim(op: Op, live: set[Value]) -> Op:
    match op.name:
        case "for":
            return _trim_for(op, live)
        case "while":
            return _trim_while(op, live)
        case "if" | "switch":
            return _trim_branches(op, live)
    if op.regions:
        regions = tuple(dce_block(r, _alive(r, live)) for r in op.regions)
        return Op(op.name, op.operands, op.attrs, regions, op.results, op.span)
    return op


def _alive(region: Block, live: set[Value]) -> set[Value]:
    live.update(region.results)
    return live


def _trim_branches(op: Op, live: set[Value]) -> Op:
    keep = [i for i, r in enumerate(op.results) if r in live]
    regions = []
    for region in op.regions:
        yielded = [region.results[i] for i in keep]
        live.update(yielded)
        trimmed = dce_block(region, live)
        regions.append(Block([], trimmed.ops, yielded))
    results = tuple(op.results[i] for i in keep)
    return Op(op.name, op.operands, op.attrs, tuple(regions), results, op.span)


def _needed_carries(
    body: Block, carries: int, first: int, wanted: set[int], extra: list[Value]
) -> set[int]:
    """Carries that matter: the `wanted` ones and those that they, or `extra` values, depend on."""
    params = body.params[first : first + carries]
    needed = set(wanted)
    while True:
        live = {body.results[i] for i in needed} | set(extra)
        dce_block(body, live)
        more = {i for i, p in enumerate(params) if p in live} | needed
        if more == needed:
            return needed
        needed = more


def _trim_for(op: Op, live: set[Value]) -> Op:
    carries = op.attrs["carries"]
    (body,) = op.regions
    outputs = [i for i in range(carries, len(op.results)) if op.results[i] in live]
    wanted = {i for i in range(carries) if op.results[i] in live}
    needed = sorted(_needed_carries(body, carries, 1, wanted, [body.results[i] for i in outputs]))
    inner = {body.results[i] for i in (*needed, *outputs)}
    trimmed = dce_block(body, inner)
    streams = [j for j in range(carries, len(op.operands)) if body.params[1 + j] in inner]
    live.update(inner)
    return narrower_for(op, trimmed.ops, needed, streams, outputs)


def _trim_while(op: Op, live: set[Value]) -> Op:
    cond, body = op.regions
    condition_live = set(cond.results)
    cond = dce_block(cond, condition_live)
    count = len(op.operands)
    wanted = {i for i in range(count) if op.results[i] in live or cond.params[i] in condition_live}
    needed = sorted(_needed_carries(body, count, 0, wanted, []))
    inner = {body.results[i] for i in needed}
    trimmed = dce_block(body, inner)
    live.update(inner | condition_live)
    return narrower_while(op, cond.ops, trimmed.ops, needed)


def narrower_for(
    op: Op,
    ops: list[Op],
    carries: Sequence[int],
    streams: Sequence[int],
    outputs: Sequence[int],
) -> Op:
    """A `for` with the body `ops` and only some of its operands and results.

    carries, streams: their places among the operands; outputs: theirs among the results.
    """
    (body,) = op.regions
    params = [body.params[0], *(body.params[1 + i] for i in (*carries, *streams))]
    results = [body.results[i] for i in (*carries, *outputs)]
    return Op(
        "for",
        tuple(op.operands[i] for i in (*carries, *streams)),
        op.attrs | {"carries": len(carries)},
        (Block(params, ops, results),),
        tuple(op.results[i] for i in (*carries, *outputs)),
        op.span,
    )


def narrower_while(op: Op, test: list[Op], step: list[Op], carries: Sequence[int]) -> Op:
    """A `while` with the condition `test`, the body `step` and only some of its carries."""
    cond, body = op.regions
    return Op(
        "while",
        tuple(op.operands[i] for i in carries),
        op.attrs,
        (
            Block([cond.params[i] for i in carries], test, cond.results),
            Block([body.params[i] for i in carries], step, [body.results[i] for i in carries]),
        ),
        tuple(op.results[i] for i in carries),
        op.span,
    )
