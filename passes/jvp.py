"""Forward mode: a block with tangents beside its values.

`Forward` walks a block and writes, through a builder, each op and the rule of its tangent.
With a `SplitBuilder` the same walk separates what depends on tangents (the linear part) from
what does not (the primal part): that is linearisation, see linearize.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_into, clone_op
from ..ir.core import Block, Module, Op, Value, free_values
from ..ir.errors import WengertError
from ..ir.types import TensorType
from .inline import inline_function
from .jvp_rules import JVP, zero_if_none

Env = dict[Value, Value]
Tangents = dict[Value, Value]


class NotDifferentiable(WengertError):
    """A derivative that does not exist, or that this mode cannot compute."""


def is_float(value: Value) -> bool:
    """Whether a value can carry a tangent."""
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


class Forward:
    """Writes values and tangents. `env` maps old values to new ones, `ts` to tangents.

    A value missing from `ts` has tangent zero.
    """

    def __init__(self, module: Module, env: Env, ts: Tangents) -> None:
        self.module = module
        self.env = env
        self.ts = ts

    def run(self, block: Block, b: Any) -> None:
        """Write every op of `block`, whose parameters are bound in `env` already."""
        wanted = useful(block)
        for op in block.ops:
            b.span = op.span
            if self.active(op, wanted):
                CONTROL.get(op.name, plain)(self, op, b)
            else:
                clone_op(b, op, self.env)

    def active(self, op: Op, wanted: set[Value]) -> bool:
        """Whether an operand, or a value that a region captures, has a tangent, and a result is
        among those whose tangents are wanted.
        """
        if wanted.isdisjoint(op.results):
            return False
        if any(v in self.ts for v in op.operands):
            return True
        return any(v in self.ts for region in op.regions for v in free_values(region))

    def value(self, v: Value) -> Value:
        """The new value of an old one."""
        return self.env.get(v, v)

    def tangent(self, v: Value, b: Any) -> Value:
        """The tangent of an old value, zeros written where it has none."""
        return zero_if_none(b, self.ts.get(v), self.value(v))

    def bind(self, old: Sequence[Value], new: Sequence[Value], ts: Sequence[Value | None]) -> None:
        """Record new values and tangents."""
        self.env.update(zip(old, new))
        for v, t in zip(old, ts):
            if t is not None and is_float(v):
                self.ts[v] = t


def useful(block: Block) -> set[Value]:
    """The values that the float results of a block depend on through floats.

    Others need no tangents: a search whose result is stopped is not differentiated.
    """
    found = {v for v in block.results if is_float(v)}
    for op in reversed(block.ops):
        if op.name not in _FLAT and not found.isdisjoint(op.results):
            found.update(filter(is_float, op.operands))
            for region in op.regions:
                found.update(filter(is_float, free_values(region)))
    return found


Control = Callable[[Forward, Op, Any], None]
CONTROL: dict[str, Control] = {}


def _control(*names: str) -> Callable[[Control], Control]:
    def add(rule: Control) -> Control:
        for name in names:
            CONTROL[name] = rule
        return rule

    return add


def plain(f: Forward, op: Op, b: Any) -> None:
    """An op with a rule of its own."""
    xs = [f.value(v) for v in op.operands]
    ts = [f.ts.get(v) for v in op.operands]
    ys = clone_op(b, op, f.env)
    rule = JVP.get(op.name)
    if rule is None:
        if not any(is_float(r) for r in op.results):
            return
        reason = JVP.without.get(op.name, "it has no rule")
        raise NotDifferentiable(f"'{op.name}' cannot be differentiated: {reason}", op.span)
    f.bind(op.results, ys, rule(b, op, xs, ys, ts))


def fixpoint(
    f: Forward, params: Sequence[Value], start: set[int], body: Block, count: int
) -> set[int]:
    """Which of the first `count` results of `body` (carries) get a tangent, at a fixed point.

    `params` are the carry parameters, `start` those with a tangent to begin with.
    """
    active = set(start)
    while True:
        trial = Activity(f, {params[i] for i in active})
        trial.block(body)
        found = {i for i in range(count) if body.results[i] in trial.active and is_float(params[i])}
        if found <= active:
            return active
        active |= found


class Activity:
    """Which values of a block depend on active ones through floats: a dry run of `Forward`."""

    def __init__(self, f: Forward, active: set[Value]) -> None:
        self.active = set(f.ts) | active

    def block(self, block: Block) -> None:
        """Mark the active values of `block`."""
        for op in block.ops:
            self.op(op)

    def op(self, op: Op) -> None:
        """Mark the results of one op, conservatively for control flow."""
        if op.name in _FLAT:
            return
        touched = any(v in self.active for v in op.operands)
        if not touched and op.regions:
            touched = any(v in self.active for r in op.regions for v in free_values(r))
        if touched:
            self.active.update(r for r in op.results if is_float(r))


_FLAT = frozenset(
    {"sign", "floor", "ceil", "round", "trunc", "floordiv", "stop_gradient", "bitcast"}
)


@_control("if", "switch")
def _branches(f: Forward, op: Op, b: Any) -> None:
    """Each branch yields its values, then the tangents of the float ones."""
    floats = [i for i, r in enumerate(op.results) if is_float(r)]
    regions = []
    for region in op.regions:
        out = Block()
        inner = Forward(f.module, dict(f.env), dict(f.ts))
        rb = Builder(out)
        inner.run(region, rb)
        values = [inner.value(v) for v in region.results]
        out.results = values + [inner.tangent(region.results[i], rb) for i in floats]
        regions.append(out)
    results = b.op(op.name, [f.value(op.operands[0])], regions)
    count = len(op.results)
    tangents: list[Value | None] = [None] * count
    for i, t in zip(floats, results[count:]):
        tangents[i] = t
    f.bind(op.results, results[:count], tangents)


@_control("for")
def _for(f: Forward, op: Op, b: Any) -> None:
    """The loop carries and streams tangents beside its values."""
    (body,) = op.regions
    carries = op.attrs["carries"]
    index, params = body.params[0], body.params[1:]
    streams = [i for i in range(carries, len(op.operands)) if op.operands[i] in f.ts]
    start = {i for i in range(carries) if op.operands[i] in f.ts}
    probe = Forward(f.module, f.env, f.ts | {params[i]: params[i] for i in streams})
    active = sorted(fixpoint(probe, params, start, body, carries))
    new = {p: Value(p.type, p.name) for p in body.params}
    t_carry = {i: Value(params[i].type, f"d{params[i].name}") for i in active}
    t_stream = {i: Value(params[i].type, f"d{params[i].name}") for i in streams}
    inner = Forward(f.module, dict(f.env) | new, dict(f.ts))
    inner.ts.update({params[i]: t for i, t in (t_carry | t_stream).items()})
    out = Block(
        [
            new[index],
            *(new[p] for p in params[:carries]),
            *t_carry.values(),
            *(new[p] for p in params[carries:]),
            *t_stream.values(),
        ]
    )
    rb = Builder(out)
    inner.run(body, rb)
    outputs = [i for i in range(carries, len(op.results)) if body.results[i] in inner.ts]
    out.results = [
        *(inner.value(v) for v in body.results[:carries]),
        *(inner.tangent(body.results[i], rb) for i in active),
        *(inner.value(v) for v in body.results[carries:]),
        *(inner.ts[body.results[i]] for i in outputs),
    ]
    operands = [
        *(f.value(v) for v in op.operands[:carries]),
        *(f.tangent(op.operands[i], b) for i in active),
        *(f.value(v) for v in op.operands[carries:]),
        *(f.ts[op.operands[i]] for i in streams),
    ]
    attrs = op.attrs | {"carries": carries + len(active)}
    results = b.op("for", operands, [out], **attrs)
    _bind_loop(f, op, results, carries, active, outputs)


def _bind_loop(
    f: Forward,
    op: Op,
    results: Sequence[Value],
    carries: int,
    active: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """Results of a jvp loop: carries, their tangents, outputs, their tangents."""
    count = len(op.results)
    tangents: list[Value | None] = [None] * count
    first = carries + len(active)
    values = [*results[:carries], *results[first : first + count - carries]]
    for i, t in zip(active, results[carries:first]):
        tangents[i] = t
    for i, t in zip(outputs, results[first + count - carries :]):
        tangents[i] = t
    f.bind(op.results, values, tangents)


@_control("while")
def _while(f: Forward, op: Op, b: Any) -> None:
    """The loop carries tangents beside its values; the condition sees the values only."""
    cond, body = op.regions
    count = len(op.operands)
    start = {i for i in range(count) if op.operands[i] in f.ts}
    active = sorted(fixpoint(f, body.params, start, body, count))
    new_body = [Value(p.type, p.name) for p in body.params]
    t_body = [Value(body.params[i].type, f"d{body.params[i].name}") for i in active]
    inner = Forward(f.module, dict(f.env) | dict(zip(body.params, new_body)), dict(f.ts))
    inner.ts.update(zip((body.params[i] for i in active), t_body))
    out = Block([*new_body, *t_body])
    rb = Builder(out)
    inner.run(body, rb)
    out.results = [inner.value(v) for v in body.results]
    out.results += [inner.tangent(body.results[i], rb) for i in active]
    new_cond = [Value(p.type, p.name) for p in cond.params]
    extra = [Value(cond.params[i].type) for i in active]
    test = Block([*new_cond, *extra])
    env = dict(f.env) | dict(zip(cond.params, new_cond))
    tb = Builder(test)
    for inner_op in cond.ops:
        clone_op(tb, inner_op, env)
    test.results = [env.get(v, v) for v in cond.results]
    operands = [f.value(v) for v in op.operands] + [f.tangent(op.operands[i], b) for i in active]
    results = b.op("while", operands, [test, out], **op.attrs)
    tangents: list[Value | None] = [None] * count
    for i, t in zip(active, results[count:]):
        tangents[i] = t
    f.bind(op.results, results[:count], tangents)


@_control("call")
def _call(f: Forward, op: Op, b: Any) -> None:
    """A call with a derivative of its own (others are inlined before)."""
    args = [f.value(v) for v in op.operands]
    tangents = [f.tangent(v, b) for v in op.operands if is_float(v)]
    count = len(op.results)
    if op.attrs["jvp"]:
        rule = inline_function(f.module, op.attrs["jvp"])
        results = clone_into(b, rule.body, [*args, *tangents], {})
    elif op.attrs["fwd"]:
        forward = f.module.functions[op.attrs["fwd"]]
        types = tuple(r.type for r in forward.results)
        both = b.op("call", args, fn=forward.name, types=types)
        out = b.op(
            "linear_call",
            [*both[count:], *tangents],
            bwd=op.attrs["bwd"],
            residuals=len(both) - count,
            types=tuple(r.type for r in op.results if is_float(r)),
        )
        results = [*both[:count], *out]
    else:
        raise NotDifferentiable("a call must be inlined before it is differentiated", op.span)
    found = iter(results[count:])
    f.bind(op.results, results[:count], [next(found) if is_float(r) else None for r in op.results])
