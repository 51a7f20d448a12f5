"""What the simplifier does to loops and branches before it writes them.

Carries and streams that are the same in every trip leave the loop, short loops are unrolled,
choices with a known selector become the chosen branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value, walk
from ..ir.types import I32
from .dce import narrower_for, narrower_while

if TYPE_CHECKING:
    from .simplify import Simplifier

UNROLL_OPS = 64  # ops of a loop written out, at most
UNROLL_KNOWN_OPS = 2048  # the same where its trips take branches that are known now
UNROLL_TRIPS = 16
RECOMPUTES = ("carry", "sqrt")  # checkpoint policies, which need the loop to stay

Env = dict[Value, Value]


def count_ops(block: Block) -> int:
    """Ops of `block`, those in regions too."""
    return sum(1 + sum(count_ops(r) for r in op.regions) for op in block.ops)


def chosen_branch(op: Op, b: Simplifier, env: Env) -> Block | None:
    """The branch of an `if` or `switch` that runs, where that is known now."""
    if op.name not in ("if", "switch"):
        return None
    known = b.splat(env.get(op.operands[0], op.operands[0]))
    if known is None:
        return None
    index = (0 if known else 1) if op.name == "if" else int(known)
    return op.regions[min(max(index, 0), len(op.regions) - 1)]


def unrolls(op: Op, b: Simplifier, env: Env) -> bool:
    """Whether a loop is short enough to be written out."""
    if op.name != "for":
        return False
    trips = op.attrs["trips"]
    if trips <= 1:
        return True
    if trips > UNROLL_TRIPS or op.attrs["checkpoint"] in RECOMPUTES:
        return False
    most = UNROLL_KNOWN_OPS if _takes_known_branches(op, b, env) else UNROLL_OPS
    return count_ops(op.regions[0]) * trips <= most


def _takes_known_branches(op: Op, b: Simplifier, env: Env) -> bool:
    """Whether constants stream in that choose branches, one for each trip."""
    (body,) = op.regions
    n = op.attrs["carries"]
    makers = [b.maker(env.get(v, v)) for v in op.operands[n:]]
    known = {p for p, m in zip(body.params[1 + n :], makers) if m is not None and m.name == "const"}
    return any(o.name in ("if", "switch") and o.operands[0] in known for o in walk(body))


def unroll(op: Op, b: Simplifier, env: Env) -> None:
    """Write the trips of a loop one after the other; binds its results in `env`."""
    (body,) = op.regions
    trips, n = op.attrs["trips"], op.attrs["carries"]
    operands = [env.get(v, v) for v in op.operands]
    carries, streams = operands[:n], operands[n:]
    rows: list[list[Value]] = [[] for _ in op.results[n:]]
    for i in reversed(range(trips)) if op.attrs["reverse"] else range(trips):
        elements = [b.row(x, i) for x in streams]
        env.update(zip(body.params, [b.const(i, I32), *carries, *elements]))
        b.copy(body, env)
        out = [env.get(v, v) for v in body.results]
        carries = out[:n]
        for column, value in zip(rows, out[n:]):
            column.append(value)
    stacked = [
        _stack(b, column[::-1] if op.attrs["reverse"] else column, result)
        for column, result in zip(rows, op.results[n:])
    ]
    env.update(zip(op.results, [*carries, *stacked]))


def _stack(b: Simplifier, column: Sequence[Value], like: Value) -> Value:
    if not column:
        return b.const(0, like)
    shape = (1, *Builder.type(like).shape[1:])
    return b.concatenate(*(b.reshape(v, shape=shape) for v in column), axis=0)


def without_invariants(op: Op, b: Simplifier, env: Env) -> Op:
    """A loop without what is the same in every trip; that is bound in `env`."""
    if op.name == "for":
        return _for(op, b, env)
    if op.name == "while":
        return _while(op, env)
    return op


def _for(op: Op, b: Simplifier, env: Env) -> Op:
    (body,) = op.regions
    n = op.attrs["carries"]
    kept = []
    known: set[Value] = set()
    for i, (operand, param) in enumerate(zip(op.operands, body.params[1:])):
        same = _same_in_every_trip(b, env, op, i, operand)
        if same is None:
            kept.append(i)
            continue
        env[param] = same
        known.add(param)
        if i < n:
            env[op.results[i]] = same
    inside = {*body.params, *(r for inner in body.ops for r in inner.results)} - known
    outputs = [k for k in range(n, len(op.results)) if not _bind_output(op, b, env, k, inside)]
    if len(kept) == len(op.operands) and n + len(outputs) == len(op.results):
        return op
    carried = [i for i in kept if i < n]
    return narrower_for(op, body.ops, carried, kept[len(carried) :], outputs)


def _same_in_every_trip(b: Simplifier, env: Env, op: Op, i: int, operand: Value) -> Value | None:
    """What a carry or a streamed element always is, if it never changes."""
    body = op.regions[0]
    new = env.get(operand, operand)
    if i < op.attrs["carries"]:
        return new if body.results[i] is body.params[1 + i] else None
    shape = Builder.type(new).shape
    number, maker = b.splat(new), b.maker(new)
    if number is not None:
        return b.const(number, Builder.type(new).with_shape(shape[1:]))
    if maker is not None and maker.name == "broadcast" and 0 not in maker.attrs["axes"]:
        axes = tuple(a - 1 for a in maker.attrs["axes"])
        return b.broadcast(maker.operands[0], shape=shape[1:], axes=axes)
    return None


def _bind_output(op: Op, b: Simplifier, env: Env, k: int, inside: set[Value]) -> bool:
    """Bind output k in `env` where it is known without running the loop.

    inside: values that may differ from trip to trip.
    """
    (body,) = op.regions
    value, result = body.results[k], op.results[k]
    streams = body.params[1 + op.attrs["carries"] :]
    if value in streams:
        operand = op.operands[op.attrs["carries"] + streams.index(value)]
        env[result] = env.get(operand, operand)
    elif value is body.params[0]:
        env[result] = b.iota(type=Builder.type(result), axis=0)
    elif value not in inside:
        shape = Builder.type(result).shape
        axes = tuple(range(1, len(shape)))
        env[result] = b.broadcast(env.get(value, value), shape=shape, axes=axes)
    else:
        return False
    return True


def _while(op: Op, env: Env) -> Op:
    cond, body = op.regions
    kept = []
    for i, operand in enumerate(op.operands):
        if body.results[i] is not body.params[i]:
            kept.append(i)
            continue
        new = env.get(operand, operand)
        env[cond.params[i]] = env[body.params[i]] = env[op.results[i]] = new
    if len(kept) == len(op.operands):
        return op
    return narrower_while(op, cond.ops, body.ops, kept)
