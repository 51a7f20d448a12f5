"""Traces of probabilistic programs become plain functions (design, 3.2).

`prob.trace @p {given, scored}` becomes a call of a copy of @p which returns every choice beside
what @p returns, takes the `given` choices as arguments instead of making them, and sums the log
densities of those `scored`. With nothing given that simulates; with everything given it assesses;
in between it draws the missing choices from the program's own distributions. What loops choose is
stacked; a branch that is not taken leaves zeros for its choices and scores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.builder import Builder
from ..ir.clone import Env, clone_op
from ..ir.core import Block, Function, Module, Op, Value
from ..ir.prob import choices_of, op_choices
from ..ir.types import TensorType
from .assess import Assessment


def densities(module: Module) -> Module:
    """The module without `prob.trace` and `prob.assess`; traced copies of programs are added."""
    return _Densities(module).run()


@dataclass
class _Made:
    """What a block chose, by address in order, and the score of it (None: nothing scored)."""

    choices: dict[str, Value] = field(default_factory=dict)
    score: Value | None = None

    def add(self, b: Builder, score: Value | None) -> None:
        """Add to the score."""
        if self.score is None or score is None:
            self.score = self.score or score
        else:
            self.score = b.add(self.score, score)


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
        params = [Value(p.type, p.name) for p in block.params]
        env.update(zip(block.params, params))
        out = Block(params)
        b = Builder(out)
        for op in block.ops:
            self.plain_op(b, op, env)
        out.results = [env.get(v, v) for v in block.results]
        return out

    def plain_op(self, b: Builder, op: Op, env: Env) -> None:
        b.span = op.span
        if op.name == "prob.trace":
            operands = [env.get(v, v) for v in op.operands]
            results = self.call(b, op, operands, op.attrs["given"], op.attrs["scored"])
            env.update(zip(op.results, results))
        elif op.name == "prob.assess":
            assessment = Assessment(self.module, self.out, op, self.plain_op)
            env.update(zip(op.results, assessment.call(b, [env.get(v, v) for v in op.operands])))
        elif op.regions:
            operands = [env.get(v, v) for v in op.operands]
            regions = [self.plain(r, env) for r in op.regions]
            names = [r.name for r in op.results]
            env.update(zip(op.results, b.op(op.name, operands, regions, names, **op.attrs)))
        else:
            clone_op(b, op, env)

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
        made = self.block(b, function.body, env, fixed, frozenset(scored))
        total = made.score if made.score is not None else b.const(0.0, score)
        returned = [env.get(v, v) for v in function.results]
        out.results = [*made.choices.values(), *returned, total]
        return out

    def block(
        self,
        b: Builder,
        block: Block,
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
    ) -> _Made:
        """Write the ops of `block`, its parameters being in `env` already."""
        made = _Made()
        for op in block.ops:
            b.span = op.span
            inside = [c.address for c in op_choices(self.module, op)]
            if not inside:
                self.plain_op(b, op, env)
                continue
            match op.name:
                case "prob.sample":
                    self.sample(b, op, env, fixed, scored, made)
                case "prob.trace":
                    self.nested(b, op, env, fixed, scored, made)
                case "for":
                    self.loop(b, op, inside, env, fixed, scored, made)
                case _:
                    self.branches(b, op, env, fixed, scored, made)
        return made

    def sample(
        self,
        b: Builder,
        op: Op,
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
        made: _Made,
    ) -> None:
        at = op.attrs["at"]
        if at in fixed:
            env[op.result] = fixed[at]
        else:
            clone_op(b, op, env)
        value = made.choices[at] = env[op.result]
        if at in scored:
            density = self.module.functions[op.attrs["density"]]
            parameters = [env.get(v, v) for v in op.operands[: len(density.params) - 1]]
            types = tuple(r.type for r in density.results)
            made.add(b, b.op("call", [value, *parameters], fn=density.name, types=types)[0])

    def nested(
        self,
        b: Builder,
        op: Op,
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
        made: _Made,
    ) -> None:
        """A program inside: its own choices by their addresses there."""
        at = op.attrs["at"]
        choices = [
            c.address for c in choices_of(self.module, self.module.functions[op.attrs["fn"]])
        ]
        given = [a for a in choices if f"{at}/{a}" in fixed]
        operands = [env.get(v, v) for v in op.operands]
        operands += [fixed[f"{at}/{a}"] for a in given]
        counted = [a for a in choices if f"{at}/{a}" in scored]
        results = self.call(b, op, operands, given, counted)
        env.update(zip(op.results, results))
        made.choices |= {f"{at}/{a}": v for a, v in zip(choices, results)}
        if counted:
            made.add(b, results[-1])

    def loop(
        self,
        b: Builder,
        op: Op,
        inside: Sequence[str],
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
        made: _Made,
    ) -> None:
        """A loop: given choices stream in, those made and the scores are stacked."""
        (body,) = op.regions
        streamed = [a for a in inside if a in fixed]
        params = [Value(p.type, p.name) for p in body.params]
        rows = [_row(fixed[a]) for a in streamed]
        region = Block([*params, *rows])
        inner = Builder(region, op.span)
        env.update(zip(body.params, params))
        found = self.block(inner, body, env, dict(zip(streamed, rows)), scored)
        drawn = [a for a in inside if a not in fixed]
        region.results = [env.get(v, v) for v in body.results]
        region.results += [found.choices[a] for a in drawn]
        region.results += [found.score] if found.score is not None else []
        operands = [env.get(v, v) for v in op.operands] + [fixed[a] for a in streamed]
        names = [*(r.name for r in op.results), *(a.rpartition("/")[2] for a in drawn)]
        results = b.op("for", operands, [region], names, **op.attrs)
        count = len(op.results)
        env.update(zip(op.results, results))
        stacked = dict(zip(drawn, results[count:]))
        made.choices |= {a: fixed[a] if a in fixed else stacked[a] for a in inside}
        if found.score is not None:
            made.add(b, b.reduce_sum(results[-1], axes=(0,)))

    def branches(
        self,
        b: Builder,
        op: Op,
        env: Env,
        fixed: Mapping[str, Value],
        scored: frozenset[str],
        made: _Made,
    ) -> None:
        """Branches: what one does not choose is zero there; each scores its own choices."""
        union = {c.address: c.type for c in op_choices(self.module, op)}
        drawn = [a for a in union if a not in fixed]
        counts = any(a in scored for a in union)
        blocks, found = [], []
        for region in op.regions:
            out = Block()
            inner = Builder(out, op.span)
            found.append(self.block(inner, region, env, fixed, scored))
            out.results = [env.get(v, v) for v in region.results]
            blocks.append((out, inner))
        like = next((f.score for f in found if f.score is not None), None)
        for (out, inner), one in zip(blocks, found):
            out.results += [one.choices.get(a) or _zero(inner, union[a]) for a in drawn]
            if counts and like is not None:
                out.results.append(one.score or inner.const(0.0, like))
        operands = [env.get(v, v) for v in op.operands]
        results = b.op(op.name, operands, [out for out, _ in blocks], **op.attrs)
        count = len(op.results)
        env.update(zip(op.results, results))
        chosen = dict(zip(drawn, results[count:]))
        made.choices |= {a: fixed[a] if a in fixed else chosen[a] for a in union}
        if counts and like is not None:
            made.add(b, results[-1])


def _row(stacked: Value) -> Value:
    type = Builder.type(stacked)
    return Value(type.with_shape(type.shape[1:]), stacked.name)


def _zero(b: Builder, type: TensorType) -> Value:
    return b.const(False if type.dtype.name == "bool" else 0, type)
