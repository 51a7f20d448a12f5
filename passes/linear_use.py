"""Estimates of expectations may only be used linearly: a function of an unbiased estimate is not
an unbiased estimate of the function, and its gradient would be wrong in silence.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.errors import WengertError
from .inline import inline_where

LINEAR = {
    "add",
    "sub",
    "neg",
    "broadcast",
    "reshape",
    "transpose",
    "slice",
    "dynamic_slice",
    "concatenate",
    "pad",
    "reverse",
    "reduce_sum",
    "convert",
    "stop_gradient",
}
Sources = frozenset[Op]


class NonlinearExpectation(WengertError):
    """A function of an estimated expectation that is not linear in it."""


def check_linear_use(module: Module, function: Function) -> None:
    """Raise NonlinearExpectation where `function` computes on a `prob.expect` what is not linear.

    Products of different expectations are fine: their draws are independent.
    """
    if not any(op.name == "prob.expect" for op in walk(function.body)):
        return
    whole = inline_where(module, function.name, lambda op: True)
    _Uses().block(whole.body)


class _Uses:
    """Which estimates each value depends on."""

    def __init__(self) -> None:
        self.sources: dict[Value, Sources] = {}

    def of(self, v: Value) -> Sources:
        return self.sources.get(v, frozenset())

    def block(self, block: Block) -> list[Sources]:
        for op in block.ops:
            for r, s in zip(op.results, self.op(op), strict=True):
                self.sources[r] = s
        return [self.of(v) for v in block.results]

    def op(self, op: Op) -> list[Sources]:
        if op.name == "prob.expect":
            return [frozenset({op})]
        given = [self.of(v) for v in op.operands]
        control = CONTROL.get(op.name)
        if control is not None:
            return control(self, op, given)
        used = frozenset[Op]().union(*given)
        if not used:
            return [used for _ in op.results]
        fine = op.name in LINEAR
        if op.name in ("mul", "dot_general"):
            fine = not given[0] & given[1]
        if op.name == "div":
            fine = not given[1]
        if op.name == "select":
            fine = not given[0]
        if not fine:
            raise _mistake(op, used)
        return [used for _ in op.results]

    def branches(self, op: Op, given: list[Sources]) -> list[Sources]:
        if given[0]:
            raise _mistake(op, given[0])
        outs = [self.block(r) for r in op.regions]
        return [frozenset[Op]().union(*column) for column in zip(*outs)]

    def loop(self, op: Op, given: list[Sources]) -> list[Sources]:
        (body,) = op.regions
        carries = op.attrs["carries"]
        state = list(given)
        while True:
            self.sources.update(zip(body.params[1:], state))
            out = self.block(body)
            joined = [s | o for s, o in zip(state[:carries], out)] + state[carries:]
            if joined == state:
                return [*joined[:carries], *out[carries:]]
            state = joined

    def while_loop(self, op: Op, given: list[Sources]) -> list[Sources]:
        used = frozenset[Op]().union(*given)
        if used:
            raise _mistake(op, used)
        for region in op.regions:
            self.block(region)
        return [used for _ in op.results]


CONTROL: dict[str, Callable[[_Uses, Op, list[Sources]], list[Sources]]] = {
    "if": _Uses.branches,
    "switch": _Uses.branches,
    "for": _Uses.loop,
    "while": _Uses.while_loop,
}


def _mistake(op: Op, used: Sources) -> NonlinearExpectation:
    source = next(iter(used))
    return NonlinearExpectation(
        f"'{op.name}' is not linear, so of an estimated expectation it gives a biased estimate",
        op.span or source.span,
        found=f"the expectation taken at {source.span}",
        hint="sums, differences, and products with other values are fine",
    )
