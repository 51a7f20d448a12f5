"""Traces of probabilistic programs become plain functions (design, 3.2).

`prob.trace @p {given, scored}` becomes a call of a copy of @p which returns every choice beside
what @p returns, takes the `given` choices as arguments instead of making them, and sums the log
densities of those `scored`. With nothing given that simulates; with everything given it assesses;
in between it draws the missing choices from the program's own distributions. What loops choose is
stacked; a branch that is not taken leaves zeros for its choices and scores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..ir.builder import Builder, row_of
from ..ir.clone import Env, clone_op, clone_with, rewritten
from ..ir.core import Block, Function, Module, Op, Value
from ..ir.prob import choices_of, op_choices
from ..ir.types import TensorType
from .assess import Assessment


def densities(module: Module) -> Module:
    """The module without `prob.trace` and `prob.assess`; traced copies of programs are added."""
    return _Densities(module).run()


class _Densities:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.out = Module({}, module.entry)
        self.traced: dict[tuple[str, tuple[str, ...], tuple[str, ...]], str] = {}

    def run(self) -> Module:
        for name, function in self.module.functions.items():
            self.out.functions[name] = function  # reserves the names
        for name, function in self.module.functions.items():
            body = self.plain(function.body, {})
            self.out.functions[name] = Function(name, body, function.span, dict(function.attrs))
        return self.out

    # A program run as it is: its traces are calls

    def plain(self, block: Block, env: Env) -> Block:
        """A block of such a program."""
        return rewritten(block, env, self.plain_op)

    def plain_op(self, b: Builder, op: Op, env: Env) -> None:
        b.span = op.span
        if op.name == "prob.trace":
            operands = [env.get(v, v) for v in op.operands]
            results = self.call(b, op, operands, op.attrs["given"], op.attrs["scored"])
            env.update(zip(op.results, results))
        elif op.name == "prob.assess":
            assessment = Assessment(self.module, self.out, op, self.plain_op)
            env.update(zip(op.results, assessment.call(b, [env.get(v, v) for v in op.operands])))
        else:
            clone_with(b, op, env, self.plain)

    def call(
        self,
        b: Builder,
        op: Op,
        operands: Sequence[Value],
        given: Sequence[str],
        scored: Sequence[str],
    ) -> tuple[Value, ...]:
        """Call the traced copy that a `prob.trace` stands for."""
        score = op.results[-1].type
        assert isinstance(score, TensorType)
        fn = self.trace(op.attrs["fn"], tuple(given), tuple(scored), score)
        names = [r.name for r in op.results]
        types = tuple(r.type for r in op.results)
        return b.op("call", operands, (), names, fn=fn, types=types)

    # Traced copies

    def trace(
        self, name: str, given: tuple[str, ...], scored: tuple[str, ...], score: TensorType
    ) -> str:
        """The copy of program `name` for a set of given and scored choices, made once."""
        key = (name, given, scored)
        if key not in self.traced:
            kind = "simulate" if not given else "assess" if scored and given else "generate"
            self.traced[key] = fresh = self.out.fresh_name(f"{name}_{kind}")
            function = self.module.functions[name]
            self.out.functions[fresh] = function  # reserves the name
            body = self.traced_body(function, given, scored, score)
            self.out.functions[fresh] = Function(fresh, body, function.span)
        return self.traced[key]

    def traced_body(
        self,
        function: Function,
        given: Sequence[str],
        scored: Sequence[str],
        score: TensorType,
    ) -> Block:
        types = {c.address: c.type for c in choices_of(self.module, function)}
        params = [Value(p.type, p.name) for p in function.params]
        fixed = {a: Value(types[a], a.rpartition("/")[2]) for a in given}
        out = Block([*params, *fixed.values()])
        b = Builder(out, function.span)
        env: Env = dict(zip(function.params, params))
        made = _Trace(self, b, env, fixed, frozenset(scored))
        made.block(function.body)
        total = made.score if made.score is not None else b.const(0.0, score)
        returned = [env.get(v, v) for v in function.results]
        out.results = [*made.choices.values(), *returned, total]
        return out


class _Trace:
    """Writes the traced form of one block.

    fixed: the given choices by address; scored: the addresses that count. choices: what the
    block chose, in order; score: of it, None where nothing was scored.
    """

    def __init__(
        self,
        owner: _Densities,
        b: Builder,
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
    ) -> None:
        self.owner = owner
        self.b = b
        self.env = env
        self.fixed = fixed
        self.scored = scored
        self.choices: dict[str, Value] = {}
        self.score: Value | None = None

    def region(self, out: Block, op: Op, fixed: Mapping[str, Value]) -> _Trace:
        """For a region of `op`, written to `out`."""
        return _Trace(self.owner, Builder(out, op.span), self.env, fixed, self.scored)

    def value(self, v: Value) -> Value:
        """The new value of v."""
        return self.env.get(v, v)

    def add(self, score: Value) -> None:
        """Add to the score."""
        self.score = score if self.score is None else self.b.add(self.score, score)

    def block(self, block: Block) -> None:
        """Write the ops of `block`, its parameters being in the environment already."""
        for op in block.ops:
            self.b.span = op.span
            inside = op_choices(self.owner.module, op)
            if not inside:
                self.owner.plain_op(self.b, op, self.env)
                continue
            match op.name:
                case "prob.sample":
                    self.sample(op)
                case "prob.trace":
                    self.nested(op)
                case "for":
                    self.loop(op, [c.address for c in inside])
                case _:
                    self.branches(op, {c.address: c.type for c in inside})

    def sample(self, op: Op) -> None:
        """A choice: made, or taken as given; and scored."""
        at = op.attrs["at"]
        if at in self.fixed:
            self.env[op.result] = self.fixed[at]
        else:
            clone_op(self.b, op, self.env)
        value = self.choices[at] = self.env[op.result]
        if at in self.scored:
            density = self.owner.module.functions[op.attrs["density"]]
            parameters = [self.value(v) for v in op.operands[: len(density.params) - 1]]
            types = tuple(r.type for r in density.results)
            self.add(self.b.op("call", [value, *parameters], fn=density.name, types=types)[0])

    def nested(self, op: Op) -> None:
        """A program inside: its own choices by their addresses there."""
        at, module = op.attrs["at"], self.owner.module
        choices = [c.address for c in choices_of(module, module.functions[op.attrs["fn"]])]
        given = [a for a in choices if f"{at}/{a}" in self.fixed]
        operands = [self.value(v) for v in op.operands]
        operands += [self.fixed[f"{at}/{a}"] for a in given]
        counted = [a for a in choices if f"{at}/{a}" in self.scored]
        results = self.owner.call(self.b, op, operands, given, counted)
        self.env.update(zip(op.results, results))
        self.choices |= {f"{at}/{a}": v for a, v in zip(choices, results)}
        if counted:
            self.add(results[-1])

    def loop(self, op: Op, inside: Sequence[str]) -> None:
        """A loop: given choices stream in, those made and the scores are stacked."""
        (body,) = op.regions
        streamed = [a for a in inside if a in self.fixed]
        params = [Value(p.type, p.name) for p in body.params]
        rows = [row_of(self.fixed[a]) for a in streamed]
        region = Block([*params, *rows])
        self.env.update(zip(body.params, params))
        trip = self.region(region, op, dict(zip(streamed, rows)))
        trip.block(body)
        drawn = [a for a in inside if a not in self.fixed]
        region.results = [self.value(v) for v in body.results]
        region.results += [trip.choices[a] for a in drawn]
        region.results += [trip.score] if trip.score is not None else []
        operands = [self.value(v) for v in op.operands] + [self.fixed[a] for a in streamed]
        names = [*(r.name for r in op.results), *(a.rpartition("/")[2] for a in drawn)]
        results = self.b.op("for", operands, [region], names, **op.attrs)
        self.leave(op, inside, drawn, results)
        if trip.score is not None:
            self.add(self.b.reduce_sum(results[-1], axes=(0,)))

    def branches(self, op: Op, union: Mapping[str, TensorType]) -> None:
        """Branches: what one does not choose is zero there; each scores its own choices."""
        drawn = [a for a in union if a not in self.fixed]
        outs = [Block() for _ in op.regions]
        found = [self.region(out, op, self.fixed) for out in outs]
        for k, (one, out, region) in enumerate(zip(found, outs, op.regions)):
            one.fixed = one.guarded(_taken(one.b, op, self.value(op.operands[0]), k), union)
            one.block(region)
            out.results = [self.value(v) for v in region.results]
        like = next((one.score for one in found if one.score is not None), None)
        for one, out in zip(found, outs):
            out.results += [one.choices.get(a) or _zero(one.b, union[a]) for a in drawn]
            if like is not None:
                out.results.append(one.score or one.b.const(0.0, like))
        operands = [self.value(v) for v in op.operands]
        results = self.b.op(op.name, operands, outs, **op.attrs)
        self.leave(op, union, drawn, results)
        if like is not None:
            self.add(results[-1])

    def guarded(self, here: Value, inside: Iterable[str]) -> dict[str, Value]:
        """Given numbers, 0.5 where the branch is not taken.

        Batches compute both branches, and what is given for one that is not taken may be anything,
        zeros often: 0.5 is inside of most supports, so that nothing infinite is made of it, whose
        derivative would be NaN in spite of the selection afterwards.
        """
        safe = dict(self.fixed)
        for a in inside:
            if a in safe and Builder.type(safe[a]).dtype.is_float:
                half = self.b.const(0.5, Builder.type(safe[a]))
                mask = self.b.expand(here, Builder.type(half).shape)
                safe[a] = self.b.select(mask, safe[a], half)
        return safe

    def leave(
        self, op: Op, inside: Iterable[str], drawn: Sequence[str], results: Sequence[Value]
    ) -> None:
        """Note the results of an op with regions: its own, then the choices drawn in it."""
        count = len(op.results)
        self.env.update(zip(op.results, results))
        made = dict(zip(drawn, results[count:]))
        self.choices |= {a: self.fixed[a] if a in self.fixed else made[a] for a in inside}


def _taken(b: Builder, op: Op, chosen: Value, k: int) -> Value:
    """Whether `chosen`, the first operand of an `if` or `switch`, leads to region k."""
    if op.name == "if":
        return chosen if k == 0 else b.not_(chosen)
    last = len(op.regions) - 1
    held = b.min(b.max(chosen, b.const(0, chosen)), b.const(last, chosen))
    return b.eq(held, b.const(k, held))


def _zero(b: Builder, type: TensorType) -> Value:
    return b.const(False if type.dtype.name == "bool" else 0, type)
