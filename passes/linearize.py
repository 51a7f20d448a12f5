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
from ..ir.core import Block, Op, Value, free_values, used_values
from ..ir.types import BOOL, I32, TensorType
from .blocked_loop import block_loop
from .dce import dce_block
from .inline import inline_function
from .jvp import CONTROL, Env, Forward, NotDifferentiable, fixpoint, is_float, plain, useful

RECOMPUTE = ("carry", "sqrt")  # checkpoint policies that run the body again
CHEAP = frozenset(
    {
        *("const", "iota", "neg", "abs", "sign", "not", "floor", "stop_gradient", "is_finite"),
        *("add", "sub", "mul", "max", "min", "and", "or", "xor", "select", "convert"),
        *("eq", "ne", "lt", "le", "gt", "ge", "broadcast", "reshape"),
    }
)  # costs less to run again than to keep


class SplitBuilder(Builder):
    """Writes ops that depend on a linear value to `linear`, the others to `block`."""

    def __init__(self, primal: Block, linear: Block, known_linear: set[Value]) -> None:
        super().__init__(primal)
        self.linear = linear
        self.is_linear = known_linear

    def append(self, op: Op) -> None:
        """Write to the part that the operands and captured values ask for."""
        if any(v in self.is_linear for v in used_values(op)):
            self.is_linear.update(op.results)
            self.linear.ops.append(op)
        else:
            self.block.ops.append(op)


class Linearizer(Forward):
    """A `Forward` whose control flow splits into a primal and a linear op."""

    def run(self, block: Block, b: Any) -> None:
        """Write every op of `block` through the split builder `b`."""
        wanted = useful(block)
        for op in block.ops:
            b.span = op.span
            if not self.active(op, wanted):
                clone_op(b, op, self.env)
            elif op.name in _SPLIT:
                _SPLIT[op.name](self, op, b)
            else:
                CONTROL.get(op.name, plain)(self, op, b)


def _residuals(primal: Block, linear: Block) -> list[Value]:
    """Values that `linear` captures from `primal` (its parameters included)."""
    inside = set(primal.params) | {r for op in primal.ops for r in op.results}
    return [v for v in free_values(linear) if v in inside]


def _rematerialise(primal: Block, linear: Block, given: set[Value]) -> Block:
    """`linear` with cheap residuals computed from the others, and from the `given` ones, again."""
    inside = set(primal.params) | {r for op in primal.ops for r in op.results}
    cheap = {r for op in primal.ops if op.name in CHEAP for r in op.results}
    residuals = _residuals(primal, linear)
    available = given | {v for v in residuals if v not in cheap}
    again = []
    for op in primal.ops:
        if op.name in CHEAP and all(v in available or v not in inside for v in op.operands):
            available.update(op.results)
            again.append(op)
    wanted = available.intersection(residuals)
    needed = dce_block(Block([], again, []), wanted).ops
    return _after(needed, linear) if needed else linear


def _after(ops: Sequence[Op], linear: Block) -> Block:
    """`linear` behind copies of `ops`, whose results it uses."""
    env: Env = {}
    out = Block(linear.params)
    b = Builder(out)
    for op in ops:
        clone_op(b, op, env)
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
        linear = _rematerialise(primal, linear, set())
        primals.append(primal)
        linears.append(linear)
        residuals.append(_residuals(primal, linear))
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
    carries, trips = op.attrs["carries"], op.attrs["trips"]
    if op.attrs["checkpoint"] == "sqrt" and carries and trips > 3:
        _split_blocks(f, op, b, block_loop(op, math.isqrt(trips)))
        return
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
    if op.attrs["checkpoint"] in RECOMPUTE:
        linear = _after(primal.ops, linear)
    else:
        kept = [primal.params[0], *primal.params[1 + carries :], *primal.results[carries:]]
        linear = _rematerialise(primal, linear, set(kept))
    residuals = [v for v in _residuals(primal, linear) if v is not primal.params[0]]
    _emit_loops(f, op, b, primal, linear, residuals, t_params, active, streams, outputs)


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
    outputs_of = primal.results[carries:]
    fresh = [v for v in residuals if v not in streamed and v not in outputs_of]
    primal.results += fresh
    results = b.op("for", operands, [primal], **op.attrs)
    stacks = dict(zip([*outputs_of, *fresh], results[carries:])) | streamed
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
        checkpoint=op.attrs["checkpoint"],
    )
    tangents: list[Value | None] = [None] * count
    for i, t in zip((*active, *outputs), out):
        tangents[i] = t
    f.bind(op.results, results[:count], tangents)


def _split_blocks(f: Linearizer, op: Op, b: Any, blocks: Block) -> None:
    """Split the ops that stand for `op`, and bind their results to its."""
    f.run(blocks, b)
    values = [f.value(v) for v in blocks.results]
    f.bind(op.results, values, [f.ts.get(v) for v in blocks.results])


def bounded_while(op: Op) -> Op:
    """A `while` with a bound as a `for` whose body runs while the condition holds."""
    trips = op.attrs["max_trips"]
    if not trips:
        raise NotDifferentiable(
            "reverse mode must know how often a loop can run",
            op.span,
            hint="bound it: 'while condition max 100:'; "
            "for a range known at run time only, loop over a fixed one with an 'if' inside",
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


def _split_call(f: Linearizer, op: Op, b: Any) -> None:
    """A custom jvp rule is linear in its tangents: linearise it at zero ones.

    So what the rule computes from its arguments is primal, in branches and loops too.
    """
    if not op.attrs["jvp"]:
        CONTROL["call"](f, op, b)
        return
    body = inline_function(f.module, op.attrs["jvp"]).body
    args = [f.value(v) for v in op.operands]
    tangents = [f.ts.get(v) for v in op.operands if is_float(v)]
    slots = body.params[len(args) :]
    zeros = [b.const(0, p) for p in slots]
    inner = Linearizer(
        f.module,
        dict(zip(body.params, [*args, *zeros], strict=True)),
        {p: t for p, t in zip(slots, tangents, strict=True) if t is not None},
    )
    inner.run(body, b)
    count = len(op.results)
    found = iter(body.results[count:])
    out = [inner.ts.get(next(found)) if is_float(r) else None for r in op.results]
    f.bind(op.results, [inner.value(v) for v in body.results[:count]], out)


_SPLIT = {
    "call": _split_call,
    "if": _split_branches,
    "switch": _split_branches,
    "for": _split_for,
    "while": _split_while,
}
