"""Reverse mode's second half: a linear block run backwards on cotangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Module, Op, Value, free_values
from ..ir.types import I32, TensorType
from .jvp import NotDifferentiable
from .transpose_rules import ACCUMULATE, TRANSPOSE

STACK_AT_MOST = 2**24  # elements: above, cotangents of captured values accumulate in a carry


class Backward:
    """Walks linear ops in reverse, adding up cotangents.

    env: old to new values for what is known; linear: the values that carry cotangents.
    """

    def __init__(self, module: Module, b: Any, env: dict[Value, Value], linear: set[Value]) -> None:
        self.module = module
        self.b = b
        self.env = env
        self.linear = linear
        self.cts: dict[Value, Value] = {}

    def known(self, v: Value) -> Value:
        """The new value of a known old one."""
        return self.env.get(v, v)

    def add(self, v: Value, ct: Value | None) -> None:
        """Add to the cotangent of a linear value."""
        if ct is None or v not in self.linear:
            return
        before = self.cts.get(v)
        self.cts[v] = ct if before is None else self.b.add(before, ct)

    def run(self, ops: Sequence[Op], seeds: Sequence[tuple[Value, Value]]) -> None:
        """Copy the known ops, then transpose the linear ones from the last to the first.

        `seeds` are cotangents of values that the ops (or the parameters) define.
        """
        pending = []
        for op in ops:
            if self.depends(op):
                self.linear.update(op.results)
                pending.append(op)
            else:
                clone_op(self.b, op, self.env)
        for value, ct in seeds:
            self.add(value, ct)
        for op in reversed(pending):
            cts = [self.cts.pop(r, None) for r in op.results]
            if all(ct is None for ct in cts):
                continue
            self.b.span = op.span
            self.op(op, cts)

    def depends(self, op: Op) -> bool:
        """Whether an op is linear: it uses a linear value, in its regions too."""
        if any(v in self.linear for v in op.operands):
            return True
        return any(v in self.linear for r in op.regions for v in free_values(r))

    def op(self, op: Op, cts: Sequence[Value | None]) -> None:
        """Transpose one op."""
        control = CONTROL.get(op.name)
        if control is not None:
            control(self, op, cts)
            return
        into, total = ACCUMULATE.get(op.name), self.cts.get(op.operands[0])
        if into is not None and total is not None and cts[0] is not None:
            self.cts[op.operands[0]] = into(self.b, op, self.known, cts[0], total)
            return
        rule = TRANSPOSE.get(op.name)
        if rule is None or len(op.results) != 1 or cts[0] is None:
            raise NotDifferentiable(f"'{op.name}' of a derivative cannot be transposed", op.span)
        flags = [v in self.linear for v in op.operands]
        for v, ct in zip(op.operands, rule(self.b, op, self.known, cts[0], flags)):
            self.add(v, ct)


Control = Callable[[Backward, Op, Sequence[Value | None]], None]


def _captured(w: Backward, region: Block) -> list[Value]:
    return [v for v in free_values(region) if v in w.linear]


def _zeros(w: Backward, v: Value) -> Value:
    return w.b.const(0, v)


def _branches(w: Backward, op: Op, cts: Sequence[Value | None]) -> None:
    """Each branch adds to the cotangents of every linear value that any branch captures."""
    captured = list(dict.fromkeys(v for r in op.regions for v in _captured(w, r)))
    totals = {v: w.cts.pop(v) for v in captured if v in w.cts}
    regions = []
    for region in op.regions:
        out = Block()
        inner = Backward(w.module, Builder(out), dict(w.env), set(w.linear))
        inner.cts.update(totals)
        seeds = [(v, ct) for v, ct in zip(region.results, cts) if ct is not None]
        inner.run(region.ops, seeds)
        out.results = [inner.cts.get(v) or inner.b.const(0, v) for v in captured]
        regions.append(out)
    results = w.b.op(op.name, [w.known(op.operands[0])], regions)
    for v, ct in zip(captured, results):
        w.add(v, ct)


def _for(w: Backward, op: Op, cts: Sequence[Value | None]) -> None:
    """A loop the other way round, which carries the cotangents of the carries.

    The cotangents of captured values are carried too, on from their totals so far; a loop
    without carries stacks them instead and sums after it, which keeps it a parallel map.
    """
    (body,) = op.regions
    carries, trips = op.attrs["carries"], op.attrs["trips"]
    params = body.params[1:]
    captured = _captured(w, body)
    streams = range(carries, len(op.operands))
    linear_streams = [i for i in streams if op.operands[i] in w.linear]
    known_streams = [i for i in streams if op.operands[i] not in w.linear]
    seeded = [i for i in range(carries, len(op.results)) if cts[i] is not None]
    stack = not carries and all(trips * Builder.type(v).size <= STACK_AT_MOST for v in captured)
    summed = [] if stack else captured
    index = Value(TensorType(I32), "i")
    ct_carry = [Value(params[i].type, "ct") for i in range(carries)]
    sums = [Value(v.type, "sum") for v in summed]
    elements = {params[i]: Value(params[i].type, params[i].name) for i in known_streams}
    ct_outputs = [Value(body.results[i].type, "ct") for i in seeded]
    out = Block([index, *ct_carry, *sums, *elements.values(), *ct_outputs])
    inner = Backward(
        w.module,
        Builder(out, op.span),
        dict(w.env) | elements | {body.params[0]: index},
        set(w.linear) | {params[i] for i in (*range(carries), *linear_streams)},
    )
    inner.cts.update(zip(summed, sums))
    seeds = zip(
        (*body.results[:carries], *(body.results[i] for i in seeded)), (*ct_carry, *ct_outputs)
    )
    inner.run(body.ops, list(seeds))
    wanted = [*params[:carries], *summed, *(params[i] for i in linear_streams)]
    wanted += captured if stack else []
    out.results = [inner.cts.get(v) or inner.b.const(0, v) for v in wanted]
    starts = [ct or _zeros(w, r) for ct, r in zip(cts[:carries], op.results)]
    starts += [w.cts.pop(v) if v in w.cts else _zeros(w, v) for v in summed]
    rows = [*(w.known(op.operands[i]) for i in known_streams), *(cts[i] for i in seeded)]
    attrs = op.attrs | {"carries": len(starts), "reverse": not op.attrs["reverse"]}
    results = iter(w.b.op("for", [*starts, *rows], [out], **attrs))
    for v in (*op.operands[:carries], *summed, *(op.operands[i] for i in linear_streams)):
        w.add(v, next(results))
    for v, parts in zip(captured, results):
        w.add(v, w.b.reduce_sum(parts, axes=(0,)))


def _linear_call(w: Backward, op: Op, cts: Sequence[Value | None]) -> None:
    """The map whose transpose is a function of the program."""
    count = op.attrs["residuals"]
    residuals = [w.known(v) for v in op.operands[:count]]
    seeds = [_zeros(w, r) if ct is None else ct for r, ct in zip(op.results, cts)]
    backward = w.module.functions[op.attrs["bwd"]]
    types = tuple(r.type for r in backward.results)
    out = w.b.op("call", [*residuals, *seeds], fn=backward.name, types=types)
    for v, ct in zip(op.operands[count:], out):
        w.add(v, ct)


CONTROL: dict[str, Control] = {
    "if": _branches,
    "switch": _branches,
    "for": _for,
    "linear_call": _linear_call,
}
