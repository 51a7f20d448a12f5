"""Linearisation: a block split into a primal part and a part linear in tangents.

The linear part uses primal values as coefficients. Across a region the coefficients become
residuals: outputs of the primal op, inputs of the linear one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_block, clone_op
from ..ir.core import Block, Op, Value, free_values
from ..ir.types import BOOL, I32, TensorType
from .jvp import CONTROL, Forward, NotDifferentiable, fixpoint, is_float

REMATERIALISED = frozenset({"const", "iota"})


class SplitBuilder(Builder):
    """Writes ops that depend on a linear value to `linear`, the others to `block`."""

    def __init__(self, primal: Block, linear: Block, known_linear: set[Value]) -> None:
        super().__init__(primal)
        self.linear = linear
        self.is_linear = known_linear

    def append(self, op: Op) -> None:
        """Write to the part that the operands and captured values ask for."""
        used = [*op.operands, *(v for r in op.regions for v in free_values(r))]
        if any(v in self.is_linear for v in used):
            self.is_linear.update(op.results)
            self.linear.ops.append(op)
        else:
            self.block.ops.append(op)


class Linearizer(Forward):
    """A `Forward` whose control flow splits into a primal and a linear op."""

    def run(self, block: Block, b: Any) -> None:
        """Write every op of `block` through the split builder `b`."""
        for op in block.ops:
            b.span = op.span
            if not self.active(op):
                clone_op(b, op, self.env)
            elif op.name in _SPLIT:
                _SPLIT[op.name](self, op, b)
            else:
                CONTROL.get(op.name, _plain_rule)(self, op, b)


def _plain_rule(f: Forward, op: Op, b: Any) -> None:
    from .jvp import _plain

    _plain(f, op, b)


def _residuals(primal: Block, linear: Block, outer: set[Value]) -> list[Value]:
    """Values that `linear` captures from `primal` (its parameters included)."""
    inside = set(primal.params) | {r for op in primal.ops for r in op.results}
    return [v for v in free_values(linear) if v in inside and v not in outer]


def _rematerialise(primal: Block, linear: Block) -> Block:
    """`linear` with constants of `primal` written again instead of kept as residuals."""
    makers = {r: op for op in primal.ops if op.name in REMATERIALISED for r in op.results}
    wanted = [v for v in free_values(linear) if v in makers]
    if not wanted:
        return linear
    out = Block(linear.params)
    b = Builder(out)
    env: dict[Value, Value] = {}
    for v in wanted:
        clone_op(b, makers[v], env)
    copied = clone_block(Block([], linear.ops, linear.results), env)
    out.ops += copied.ops
    out.results = copied.results
    return out


def _split_branches(f: Linearizer, op: Op, b: Any) -> None:
    """Every branch yields its residuals, and zeros for those of the other branches."""
    floats = [i for i, r in enumerate(op.results) if is_float(r)]
    primals, linears, residuals = [], [], []
    for region in op.regions:
        primal, linear = Block(), Block()
        inner = Linearizer(f.module, dict(f.env), dict(f.ts))
        sb = SplitBuilder(primal, linear, b.is_linear)
        inner.run(region, sb)
        primal.results = [inner.value(v) for v in region.results]
        lb = Builder(linear)
        linear.results = [
            inner.ts[v] if v in inner.ts else lb.const(0, inner.value(v))
            for v in (region.results[i] for i in floats)
        ]
        linear = _rematerialise(primal, linear)
        primals.append(primal)
        linears.append(linear)
        residuals.append(_residuals(primal, linear, set()))
    test = f.value(op.operands[0])
    count = len(op.results)
    for k, primal in enumerate(primals):
        pb = Builder(primal)
        for j, values in enumerate(residuals):
            primal.results += values if j == k else [pb.const(_zero(v), v) for v in values]
    results = b.op(op.name, [test], primals)
    stored = iter(results[count:])
    regions = []
    for linear, values in zip(linears, residuals):
        env = dict(zip(values, stored))
        regions.append(clone_block(linear, env))
    out = b.op(op.name, [test], regions)
    tangents: list[Value | None] = [None] * count
    for i, t in zip(floats, out):
        tangents[i] = t
    f.bind(op.results, results[:count], tangents)


def _zero(value: Value) -> Any:
    return False if Builder.type(value).dtype is BOOL else 0


def _split_for(f: Linearizer, op: Op, b: Any) -> None:
    """A primal loop that stacks residuals, and a linear loop that streams them."""
    policy = op.attrs["checkpoint"]
    carries, trips = op.attrs["carries"], op.attrs["trips"]
    if policy == "sqrt" and carries and trips > 3:
        op = blocked(op, math.isqrt(trips))
        carries, trips = op.attrs["carries"], op.attrs["trips"]
        policy = "carry"
    (body,) = op.regions
    params = body.params[1:]
    streams = [i for i in range(carries, len(op.operands)) if op.operands[i] in f.ts]
    start = {i for i in range(carries) if op.operands[i] in f.ts}
    probe = Forward(f.module, f.env, dict(f.ts) | {params[i]: params[i] for i in streams})
    active = sorted(fixpoint(probe, params, start, body, carries))
    new = {p: Value(p.type, p.name) for p in body.params}
    t_params = [Value(params[i].type, f"d{params[i].name}") for i in (*active, *streams)]
    inner = Linearizer(f.module, dict(f.env) | new, dict(f.ts))
    inner.ts.update(zip((params[i] for i in (*active, *streams)), t_params))
    primal, linear = Block(list(new.values())), Block()
    b.is_linear.update(t_params)
    sb = SplitBuilder(primal, linear, b.is_linear)
    inner.run(body, sb)
    outputs = [i for i in range(carries, len(op.results)) if body.results[i] in inner.ts]
    lb = Builder(linear)
    linear.results = [
        inner.ts[v] if v in inner.ts else lb.const(0, inner.value(v))
        for v in (body.results[i] for i in (*active, *outputs))
    ]
    primal.results = [inner.value(v) for v in body.results]
    linear = _rematerialise(primal, linear)
    if policy == "carry" and carries:
        linear = _recomputing(primal, linear)
        kept = primal.params
        stacked = [v for v in _residuals(Block(list(kept)), linear, set()) if v is not kept[0]]
    else:
        stacked = [v for v in _residuals(primal, linear, set()) if v is not primal.params[0]]
    _emit_loops(f, op, b, primal, linear, stacked, t_params, active, streams, outputs)


def _recomputing(primal: Block, linear: Block) -> Block:
    """`linear` with the ops of `primal` run again in front, so that only parameters are kept."""
    env: dict[Value, Value] = {}
    out = Block(linear.params)
    b = Builder(out)
    for op in primal.ops:
        clone_op(b, op, env)
    copied = clone_block(Block([], linear.ops, linear.results), env)
    out.ops += copied.ops
    out.results = copied.results
    return out


def _emit_loops(
    f: Linearizer,
    op: Op,
    b: Any,
    primal: Block,
    linear: Block,
    residuals: Sequence[Value],
    t_params: Sequence[Value],
    active: Sequence[int],
    streams: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """Write the primal and the linear loop and bind the results."""
    carries, count = op.attrs["carries"], len(op.results)
    operands = [f.value(v) for v in op.operands]
    streamed = dict(zip(primal.params[1 + carries :], operands[carries:]))
    fresh = [v for v in residuals if v not in streamed]
    primal.results += fresh
    results = b.op("for", operands, [primal], **op.attrs)
    stacks = dict(zip(fresh, results[count:])) | streamed
    index = Value(TensorType(I32), "i")
    elements = [Value(v.type, v.name) for v in residuals]
    env = dict(zip(residuals, elements)) | {primal.params[0]: index}
    env |= {t: Value(t.type, t.name) for t in t_params}
    body = clone_block(Block([], linear.ops, linear.results), env)
    n = len(active)
    body.params = [index, *(env[t] for t in t_params[:n]), *elements]
    body.params += [env[t] for t in t_params[n:]]
    inits = [f.ts.get(op.operands[i]) for i in active]
    zeros = [b.const(0, operands[i]) for i, t in zip(active, inits) if t is None]
    b.is_linear.update(zeros)
    filled = iter(zeros)
    starts = [next(filled) if t is None else t for t in inits]
    tangents_in = [f.ts[op.operands[i]] for i in streams]
    out = b.op(
        "for",
        [*starts, *(stacks[v] for v in residuals), *tangents_in],
        [body],
        trips=op.attrs["trips"],
        carries=n,
        reverse=op.attrs["reverse"],
    )
    tangents: list[Value | None] = [None] * count
    for i, t in zip((*active, *outputs), out):
        tangents[i] = t
    f.bind(op.results, results[:count], tangents)


def blocked(op: Op, size: int) -> Op:
    """A loop as a loop over blocks of `size` trips and a loop inside; leftover trips idle.

    The outer loop keeps carries only, so reverse mode stores about sqrt(trips) of them.
    """
    from .blocked_loop import block_loop

    return block_loop(op, size)


def bounded_while(op: Op) -> Op:
    """A `while` with a bound as a `for` whose body runs while the condition holds."""
    trips = op.attrs["max_trips"]
    if not trips:
        raise NotDifferentiable(
            "reverse mode must know how often a 'while' can run",
            op.span,
            hint="write: while condition max 100:",
        )
    cond, body = op.regions
    live = Value(TensorType(BOOL), "live")
    carries = [Value(p.type, p.name) for p in body.params]
    outer = Block([Value(TensorType(I32), "i"), live, *carries])
    b = Builder(outer, op.span)
    env = dict(zip(cond.params, carries))
    for inner in cond.ops:
        clone_op(b, inner, env)
    go = b.and_(live, env.get(cond.results[0], cond.results[0]))
    then = clone_block(Block([], body.ops, body.results), dict(zip(body.params, carries)))
    results = b.op("if", [go], [then, Block([], [], list(carries))])
    outer.results = [go, *results]
    return Op(
        "for",
        op.operands,
        {"trips": trips, "carries": len(carries) + 1, "reverse": False, "checkpoint": ""},
        (outer,),
        op.results,
        op.span,
    )


def _split_while(f: Linearizer, op: Op, b: Any) -> None:
    loop = bounded_while(op)
    alive = b.const(True, BOOL)
    flag = Value(TensorType(BOOL), "live")
    f.env[alive] = alive
    wide = Op(
        "for", (alive, *loop.operands), loop.attrs, loop.regions, (flag, *loop.results), op.span
    )
    _split_for(f, wide, b)


_SPLIT = {
    "if": _split_branches,
    "switch": _split_branches,
    "for": _split_for,
    "while": _split_while,
}
