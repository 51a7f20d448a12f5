"""What a choice's strategy cannot differentiate is a mistake, not a wrong gradient.

Three ways in which an estimate would be wrong in silence are found by following, from each
request for a derivative, which values depend on the parameters:

- a choice that carries a derivative in its value (reparam, implicit, relaxations) decides a
  branch, or is turned into a whole number, a sign or a bool that becomes a number: the derivative
  along the path misses the jumps. So does that of any continuous choice that is compared with
  something which depends on the parameters.
- a parameter of a choice by which its strategy has no derivative at all (the shape of a gamma
  choice by mvd).
- a parameter that moves the support of a choice whose strategy weighs it by its density: the
  score function misses what crosses the border.

`where` is allowed: whoever writes it answers for continuity. So are `stop_gradient` and the code
of strategies. Biased strategies are held to the first rule only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..ir.core import Block, Module, Op, Value, walk
from ..ir.errors import WengertError
from ..ir.types import TensorType

STEPS = ("floor", "ceil", "round", "trunc", "sign", "floordiv", "mod")
INDICES = {  # the operands that say where an op reads or writes
    "gather": slice(1, 2),
    "dynamic_slice": slice(1, None),
    "dynamic_update": slice(2, None),
    "scatter_add": slice(1, 2),
}
REQUESTS = ("diff.jvp", "diff.vjp")
PARAMETER = "parameter"  # a source: what derivatives are asked by

Source = Op | str | int
Sources = frozenset[Source]
NONE: Sources = frozenset()


class EstimatorMistake(WengertError):
    """A choice that its strategy cannot estimate where it stands."""


@dataclass(frozen=True)
class Flow:
    """What a value comes from: choices (their ops) and PARAMETER.

    along: sources that it depends on differentiably; decided: those that chose between values,
    by comparisons; noise: continuous choices that it depends on in any way.
    """

    along: Sources = NONE
    decided: Sources = NONE
    noise: Sources = NONE

    def __or__(self, other: Flow) -> Flow:
        return Flow(
            self.along | other.along, self.decided | other.decided, self.noise | other.noise
        )

    @property
    def step(self) -> Flow:
        """Of what jumps where this value passes some point."""
        return Flow(NONE, self.along | self.decided, self.noise)

    @property
    def jumps(self) -> Op | None:
        """A choice whose jumps a derivative would miss where this value decides something."""
        moved = self.along | self.decided
        ops = [s for s in moved if isinstance(s, Op)]
        if not ops and PARAMETER in moved:
            ops = [s for s in self.noise if isinstance(s, Op)]
        return min(ops, key=lambda op: str(op.span)) if ops else None


EMPTY = Flow()


def joined(flows: Iterable[Flow]) -> Flow:
    """What depends on all of these."""
    out = EMPTY
    for flow in flows:
        out |= flow
    return out


@dataclass(frozen=True)
class Reach:
    """Where the operands of a strategy, by number, get to: the value that it passes on and the
    loss that it returns, differentiably.
    """

    value: Sources
    loss: Sources


def check_pathwise(module: Module) -> None:
    """Raise EstimatorMistake for derivatives asked for in `module` that would be wrong."""
    if not any(op.name == "prob.sample" for f in module.functions.values() for op in walk(f.body)):
        return
    flows = _Flows(module)
    main = module.main
    flows.call(main.name, [EMPTY for _ in main.params])


class _Flows:
    """Follows flows through functions; a function once for each way it is called.

    strict: whether mistakes are raised; the code of strategies only tells where values go.
    """

    def __init__(self, module: Module, strict: bool = True) -> None:
        self.module = module
        self.strict = strict
        self.rest: Flow = EMPTY  # of what a strategy passes on
        self.calls: dict[tuple[str, tuple[Flow, ...]], list[Flow]] = {}
        self.reaches: dict[str, Reach] = {}

    def call(self, name: str, given: Sequence[Flow]) -> list[Flow]:
        """The results of a function."""
        key = (name, tuple(given))
        if key not in self.calls:
            function = self.module.functions[name]
            env = dict(zip(function.params, given))
            self.calls[key] = self.block(function.body, env)
        return self.calls[key]

    def block(self, block: Block, env: dict[Value, Flow]) -> list[Flow]:
        for op in block.ops:
            given = [env.get(v, EMPTY) for v in op.operands]
            rule = RULES.get(op.name, _Flows.plain)
            for result, flow in zip(op.results, rule(self, op, given, env), strict=True):
                env[result] = flow if _is_float(result) else flow.step
        return [env.get(v, EMPTY) for v in block.results]

    def stop(self, flow: Flow, op: Op, what: str) -> None:
        """Raise where a choice that cannot decide anything decides at `op`."""
        choice = flow.jumps if self.strict else None
        if choice is not None:
            raise _jump(choice, op, what, along=choice in flow.along | flow.decided)

    # Rules

    def plain(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """Any op without regions."""
        flow = joined(given)
        if op.name in STEPS and _is_float(op.operands[0]):
            self.stop(flow, op, f"is taken through '{op.name}'")
            flow = flow.step
        return [flow for _ in op.results]

    def constant(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """`stop_gradient`, and whether a number is finite."""
        return [Flow(noise=given[0].noise)]

    def equal(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """A comparison, or a test for NaN."""
        nan = op.operands[0] is op.operands[1]
        return self.constant(op, given, env) if nan else [joined(given)]

    def convert(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        source, target = (_is_float(v) for v in (op.operands[0], op.result))
        if source != target:
            kind = "a number" if target else f"the type {op.attrs['dtype']}"
            self.stop(given[0], op, f"is turned into {kind}")
        return given

    def select(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        condition, first, second = given
        return [condition.step | first | second]

    def indexed(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """What is at an index; that may be continuous where the elements depend on the choice."""
        at = INDICES[op.name]
        index = joined(given[at])
        elements = joined(g for i, g in enumerate(given) if i not in range(len(given))[at])
        if index.jumps not in elements.along:
            self.stop(index, op, "decides which element is meant")
        return [elements | index.step]

    def sample(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        reach, count = self.reach(op), self.parameters(op)
        if self.strict and not op.attrs["biased"]:
            self.check_parameters(op, given[:count], reach)
        through = joined(flow for i, flow in enumerate(given) if i in reach.value)
        along: Sources = frozenset({op}) if through.along else NONE
        noise: Sources = frozenset({op}) if _is_float(op.result) else NONE
        return [Flow(along, through.decided, noise)]

    def parameters(self, op: Op) -> int:
        """How many operands of a choice are parameters of its distribution."""
        return len(self.module.functions[op.attrs["density"]].params) - 1

    def check_parameters(self, op: Op, given: Sequence[Flow], reach: Reach) -> None:
        """Raise for a parameter by which the choice's strategy has no derivative."""
        names = [p.name for p in self.module.functions[op.attrs["sampler"]].params]
        for i, flow in enumerate(given):
            if not flow.along:
                continue
            if i not in reach.value | reach.loss:
                raise _blind(op, names[i])
            if names[i] in op.attrs["moving"]:
                raise _moving(op, names[i])

    def reach(self, op: Op) -> Reach:
        """Where the operands of a choice's strategy get to."""
        name = op.attrs["rule"]
        if name not in self.reaches:
            inner = _Flows(self.module, strict=False)
            probes = [Flow(frozenset({i})) for i in range(len(op.operands))]
            (loss,) = inner.call(name, probes)
            self.reaches[name] = Reach(inner.rest.along, loss.along)
        return self.reaches[name]

    def passed_on(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """`prob.rest`."""
        self.rest |= given[0]
        return [EMPTY]

    def called(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        if any(op.attrs.get(k) for k in ("jvp", "fwd", "bwd")):
            return [joined(given) for _ in op.results]  # its derivative is its own affair
        return self.call(op.attrs["fn"], given)

    def request(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        """A derivative: of a function by some of its parameters."""
        function = self.module.functions[op.attrs["fn"]]
        args = given[: len(function.params)]
        for i in op.attrs["wrt"]:
            args[i] = replace(args[i], along=args[i].along | {PARAMETER})
        self.call(function.name, args)
        return [joined(given) for _ in op.results]

    def branches(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        self.stop(given[0], op, f"decides this '{op.name}'")
        outs = [self.block(region, env) for region in op.regions]
        return [joined([*column, given[0].step]) for column in zip(*outs)]

    def loop(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        (body,) = op.regions
        carries = op.attrs["carries"]
        state = list(given)
        while True:
            env.update(zip(body.params[1:], state))
            out = self.block(body, env)
            wider = [s | o for s, o in zip(state[:carries], out)] + state[carries:]
            if wider == state:
                return [*wider[:carries], *out[carries:]]
            state = wider

    def while_loop(self, op: Op, given: list[Flow], env: dict[Value, Flow]) -> list[Flow]:
        cond, body = op.regions
        state = list(given)
        while True:
            env.update(zip(cond.params, state))
            (going,) = self.block(cond, env)
            self.stop(going, op, "decides how often this 'while' runs")
            env.update(zip(body.params, state))
            wider = [s | o | going.step for s, o in zip(state, self.block(body, env))]
            if wider == state:
                return state
            state = wider


Rule = Callable[[_Flows, Op, list[Flow], dict[Value, Flow]], list[Flow]]
RULES: dict[str, Rule] = {
    "stop_gradient": _Flows.constant,
    "is_finite": _Flows.constant,
    "eq": _Flows.equal,
    "ne": _Flows.equal,
    "convert": _Flows.convert,
    "select": _Flows.select,
    "prob.sample": _Flows.sample,
    "prob.rest": _Flows.passed_on,
    "prob.expect": _Flows.called,
    "call": _Flows.called,
    "if": _Flows.branches,
    "switch": _Flows.branches,
    "for": _Flows.loop,
    "while": _Flows.while_loop,
    **dict.fromkeys(INDICES, _Flows.indexed),
    **dict.fromkeys(REQUESTS, _Flows.request),
}


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


def _name(choice: Op) -> str:
    at = choice.attrs["at"]
    return f"a draw from '{choice.attrs['dist']}'" if at.startswith("#") else f"the choice '{at}'"


def _jump(choice: Op, op: Op, what: str, *, along: bool) -> EstimatorMistake:
    """A value that decides something, so that its derivative misses the jumps."""
    by, dist = choice.attrs["by"], choice.attrs["dist"]
    summary = f"{_name(choice)} {what}, where no derivative by {by} is right: it misses the jumps"
    if not along:
        summary = (
            f"{_name(choice)}, compared with something that depends on the parameters, {what}: "
            "the derivative misses the jumps"
        )
    return EstimatorMistake(
        summary,
        op.span or choice.span,
        expected=f"a strategy that differentiates no path (reinforce; mvd or enum where '{dist}' "
        "has them)"
        if along
        else "a condition on the choice alone, made by reinforce",
        found=f"'{choice.attrs['at']}', from {dist} by {by}, at {choice.span}",
        hint="use where(condition, a, b) if the loss is continuous there, or stop_gradient",
    )


def _blind(op: Op, name: str) -> EstimatorMistake:
    return EstimatorMistake(
        f"{_name(op)} has no derivative by '{name}' of '{op.attrs['dist']}' by {op.attrs['by']}",
        op.span,
        expected="a strategy that has one (reinforce, mostly)",
        hint=f"or make the parameter a constant: stop_gradient({name})",
    )


def _moving(op: Op, name: str) -> EstimatorMistake:
    return EstimatorMistake(
        f"'{name}' moves the support of {_name(op)}, which {op.attrs['by']} cannot differentiate",
        op.span,
        expected="a strategy that moves the value with it: reparam, implicit or mvd",
        hint=f"or make the parameter a constant: stop_gradient({name})",
    )
