"""Choices become gradient estimators, by the strategy of each (ADEV: Lew et al. 2023).

An objective is a program with choices whose result's expectation is wanted. This pass makes it a
plain function of its key, the *surrogate*: its value is an unbiased estimate of the expectation,
and its ordinary derivative an unbiased estimate of the derivative (unless a strategy says that
it is biased).

A strategy is a function of a choice's parameters and key that calls the rest of the program,
`prob.rest`, as often as it likes and combines the losses that come back. Most call it once and
return `w * rest(x) + c`; these are expanded in place, and their factors and terms collected, also
out of loops and branches. The others (enumeration, measure-valued derivatives) get the rest of
the program copied to where they call it; in a loop, that needs the loop written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import Env, clone_with, rewritten
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.opdef import OPS, Array, symbols
from ..ir.types import I32, TensorType
from .affine import Affine, affine_in, sequence
from .inline import inline_where
from .linear_use import check_linear_use
from .pathwise import EstimatorMistake, check_pathwise

MOST_UNROLLED = 16  # trips of a loop that is written out for a strategy that needs it
MOST_OPS = 200_000  # of one expanded program

Finish = Callable[[Builder, Env], Value]


def estimators(module: Module) -> Module:
    """The entry, and what it calls, without `prob.sample`, `prob.rest` and `prob.expect`."""
    check_pathwise(module)
    expander = _Estimators(module)
    expander.expand(module.entry)
    return expander.out


class _Estimators:
    """Expands functions on demand; `module` keeps them as they were."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.out = Module({}, module.entry)
        self.random: dict[str, bool] = {}
        self.rules: dict[str, Rule] = {}

    def is_random(self, name: str) -> bool:
        """Whether calling function `name` makes choices of the caller's."""
        if name not in self.random:
            self.random[name] = False  # calls don't go in circles
            self.random[name] = any(
                op.name == "prob.sample" or (op.name == "call" and self.is_random(op.attrs["fn"]))
                for op in walk(self.module.functions[name].body)
            )
        return self.random[name]

    def expand(self, name: str) -> None:
        """Add the plain form of function `name`, and of all that it names."""
        if name in self.out.functions:
            return
        function = inline_where(self.module, name, lambda op: self.is_random(op.attrs["fn"]))
        check_linear_use(self.module, function)
        self.out.functions[name] = function  # holds the place while callees are added
        params = [Value(p.type, p.name) for p in function.params]
        env: Env = dict(zip(function.params, params))
        block = Block(params)
        b = Builder(block, function.span)
        body = function.body
        if not self.chooses(body):
            block.results = _Plain(self).block_into(b, body, env)
        elif _is_loss(function):
            finish: Finish = lambda b, env: env.get(body.results[0], body.results[0])  # noqa: E731
            block.results = [_Expansion(self).run(body.ops, 0, env, b, finish)]
        else:
            block.results = _Drawn(self).block_into(b, body, env)
        self.out.functions[name] = Function(name, block, function.span, dict(function.attrs))
        for op in walk(block):
            for callee in symbols(op):
                self.expand(callee)

    def chooses(self, block: Block) -> bool:
        """Whether a block makes choices."""
        return any(op.name == "prob.sample" for op in walk(block))

    def rule(self, op: Op) -> Rule:
        """The strategy of a choice, analysed once."""
        name = op.attrs["rule"]
        if name not in self.rules:
            self.rules[name] = Rule.of(self.module.functions[name])
        return self.rules[name]


def _is_loss(function: Function) -> bool:
    types = [r.type for r in function.results]
    return (
        len(types) == 1
        and isinstance(types[0], TensorType)
        and types[0].dtype.is_float
        and not types[0].shape
    )


@dataclass(frozen=True)
class Rule:
    """A strategy's function. `rest`: its only call of the rest, if its result is affine in that."""

    function: Function
    rest: Op | None

    @classmethod
    def of(cls, function: Function) -> Rule:
        """Analyse a strategy's function."""
        calls = [op for op in walk(function.body) if op.name == "prob.rest"]
        rest = calls[0] if len(calls) == 1 and calls[0] in function.body.ops else None
        if rest is not None and not affine_in(function.body, rest.result):
            rest = None
        return cls(function, rest)


class _Plain:
    """Copies code without choices: expectations become calls."""

    def __init__(self, owner: _Estimators) -> None:
        self.owner = owner

    def block_into(self, b: Builder, block: Block, env: Env) -> list[Value]:
        for op in block.ops:
            self.op(b, op, env)
        return [env.get(v, v) for v in block.results]

    def region(self, block: Block, env: Env) -> Block:
        return rewritten(block, env, self.op)

    def op(self, b: Builder, op: Op, env: Env) -> None:
        b.span = op.span
        if op.name == "prob.expect":
            operands, names = [env.get(v, v) for v in op.operands], [r.name for r in op.results]
            attrs = {"fn": op.attrs["fn"], "types": op.attrs["types"]}
            env.update(zip(op.results, b.op("call", operands, (), names, **attrs)))
        else:
            clone_with(b, op, env, self.region)


class _Drawn(_Plain):
    """Copies a program whose expectation is not asked for: choices are plain draws."""

    def op(self, b: Builder, op: Op, env: Env) -> None:
        if op.name != "prob.sample":
            super().op(b, op, env)
            return
        b.span = op.span
        sampler = self.owner.module.functions[op.attrs["sampler"]]
        operands = [env.get(v, v) for v in op.operands[: len(sampler.params)]]
        attrs = {"fn": sampler.name, "types": op.attrs["types"]}
        env.update(zip(op.results, b.op("call", operands, (), [op.result.name], **attrs)))


class _Expansion(_Plain):
    """Writes the surrogate of one program."""

    def __init__(self, owner: _Estimators) -> None:
        super().__init__(owner)
        self.written = 0
        self.numbers: dict[Value, Array] = {}  # scalars that are known now

    def op(self, b: Builder, op: Op, env: Env) -> None:
        self.written += 1
        if self.written > MOST_OPS:
            raise EstimatorMistake(
                "the strategies of this program copy it too often",
                op.span,
                expected=f"at most {MOST_OPS} operations",
                hint="enumerate fewer choices, or estimate some by reinforce",
            )
        super().op(b, op, env)
        self.note(op, env)

    def note(self, op: Op, env: Env) -> None:
        """Work out the result of an op on known scalars, such as the outcome of a flip."""
        reference = OPS[op.name].reference
        type = op.results[0].type if len(op.results) == 1 else None
        if reference is None or not isinstance(type, TensorType) or type.shape:
            return
        operands = [self.numbers.get(env.get(v, v)) for v in op.operands]
        known = [x for x in operands if x is not None]
        if len(known) == len(operands):
            self.numbers[env[op.result]] = np.asarray(reference(op.attrs, *known))

    def taken(self, op: Op, env: Env) -> Block | None:
        """The branch of an `if` or `switch` that runs, where that is known now."""
        if op.name not in ("if", "switch"):
            return None
        selector = self.numbers.get(env.get(op.operands[0], op.operands[0]))
        if selector is None:
            return None
        index = (0 if selector else 1) if op.name == "if" else int(selector)
        return op.regions[min(max(index, 0), len(op.regions) - 1)]

    def run(self, ops: Sequence[Op], at: int, env: Env, b: Builder, finish: Finish) -> Value:
        """Write ops[at:], then what `finish` writes: the loss of all that."""
        so_far = Affine()
        for i in range(at, len(ops)):
            op = ops[i]
            if op.name != "prob.sample" and not any(map(self.owner.chooses, op.regions)):
                self.op(b, op, env)
                continue
            if self.in_place(op):
                so_far = so_far.then(b, self.expand_in_place(op, env, b))
                continue

            def after(b: Builder, env: Env, i: int = i) -> Value:
                return self.run(ops, i + 1, env, b, finish)

            return so_far.apply(b, self.expand_around(op, env, b, after))
        return so_far.apply(b, finish(b, env))

    def in_place(self, op: Op) -> bool:
        """Whether every choice that `op` makes or holds can be expanded where it is."""
        inside = [op, *(o for r in op.regions for o in walk(r))]
        return all(self.owner.rule(o).rest for o in inside if o.name == "prob.sample")

    # Choices expanded in place: the loss of the rest is used once, as w * rest + c

    def expand_in_place(self, op: Op, env: Env, b: Builder) -> Affine:
        b.span = op.span
        branch = self.taken(op, env)
        if branch is not None:
            form = self.straight(branch, env, b)
            env.update(zip(op.results, (env.get(v, v) for v in branch.results)))
            return form
        match op.name:
            case "prob.sample":
                return self.choice(op, env, b)
            case "for":
                return self.loop(op, env, b)
        return self.branches(op, env, b)

    def choice(self, op: Op, env: Env, b: Builder) -> Affine:
        rule = self.owner.rule(op)
        assert rule.rest is not None
        inner: Env = dict(zip(rule.function.params, (env.get(v, v) for v in op.operands)))
        ready: set[Value] = {rule.rest.result}
        for o in rule.function.body.ops:
            if o is rule.rest:
                continue
            if any(v in ready for v in o.operands):
                ready.update(o.results)  # depends on the rest: part of the affine form
            else:
                self.op(b, o, inner)
        (chosen,) = rule.rest.operands
        env[op.result] = inner.get(chosen, chosen)
        return Affine.of(b, rule.function.body, rule.rest.result, inner)

    def loop(self, op: Op, env: Env, b: Builder) -> Affine:
        """A loop whose trips each have a factor and a term, which are stacked."""
        (body,) = op.regions
        params = [Value(p.type, p.name) for p in body.params]
        env.update(zip(body.params, params))
        region = Block(params)
        inner = Builder(region, op.span)
        trip = self.straight(body, env, inner)
        region.results = [env.get(v, v) for v in body.results] + trip.parts
        operands = [env.get(v, v) for v in op.operands]
        names = [r.name for r in op.results]
        results = b.op("for", operands, [region], names, **op.attrs)
        env.update(zip(op.results, results))
        return sequence(b, trip, results[len(op.results) :], op.attrs["reverse"])

    def branches(self, op: Op, env: Env, b: Builder) -> Affine:
        """Branches with a factor and a term each."""
        regions, forms = [], []
        for region in op.regions:
            out = Block()
            inner = Builder(out, op.span)
            forms.append(self.straight(region, env, inner))
            out.results = [env.get(v, v) for v in region.results]
            regions.append(out)
        shape = Affine.joined(forms)
        for out, form in zip(regions, forms):
            out.results += form.padded(Builder(out, op.span), shape)
        operands = [env.get(v, v) for v in op.operands]
        names = [r.name for r in op.results]
        results = b.op(op.name, operands, regions, names, **op.attrs)
        env.update(zip(op.results, results))
        return shape.of_parts(results[len(op.results) :])

    def straight(self, block: Block, env: Env, b: Builder) -> Affine:
        """Write a block all of whose choices are expanded in place."""
        form = Affine()
        for op in block.ops:
            if op.name == "prob.sample" or any(map(self.owner.chooses, op.regions)):
                form = form.then(b, self.expand_in_place(op, env, b))
            else:
                self.op(b, op, env)
        return form

    # Choices whose strategies call the rest of the program where they want

    def expand_around(self, op: Op, env: Env, b: Builder, after: Finish) -> Value:
        """The loss of `op` and all that `after` writes."""
        b.span = op.span
        match op.name:
            case "prob.sample":
                rule = self.owner.rule(op)
                inner: Env = dict(zip(rule.function.params, (env.get(v, v) for v in op.operands)))
                copy = _Strategy(self, op, env, after)
                return copy.block_into(b, rule.function.body, inner)[0]
            case "for":
                return self.unrolled(op, env, b, after)
        return self.forked(op, env, b, after)

    def forked(self, op: Op, env: Env, b: Builder, after: Finish) -> Value:
        """Branches, each followed by a copy of the rest; only the one that runs, if it is known."""

        def copy(b: Builder, region: Block) -> Value:
            def ends(b: Builder, env: Env) -> Value:
                env.update(zip(op.results, (env.get(v, v) for v in region.results)))
                return after(b, env)

            return self.run(region.ops, 0, dict(env), b, ends)

        branch = self.taken(op, env)
        if branch is not None:
            return copy(b, branch)
        regions = []
        for region in op.regions:
            out = Block()
            out.results = [copy(Builder(out, op.span), region)]
            regions.append(out)
        operands = [env.get(v, v) for v in op.operands]
        return b.op(op.name, operands, regions, **op.attrs)[0]

    def unrolled(self, op: Op, env: Env, b: Builder, after: Finish) -> Value:
        """A loop written out, since a strategy in it needs the trips that follow."""
        trips, carries = op.attrs["trips"], op.attrs["carries"]
        if trips > MOST_UNROLLED:
            site = next(o for o in walk(op.regions[0]) if o.name == "prob.sample")
            raise EstimatorMistake(
                f"'{site.attrs['by']}' cannot estimate the choice '{site.attrs['at']}' in a loop "
                f"of {trips} trips",
                site.span,
                expected=f"at most {MOST_UNROLLED} trips: each copies what follows it",
                hint="estimate it by reinforce, or average over an objective of one trip",
            )
        (body,) = op.regions
        order = range(trips - 1, -1, -1) if op.attrs["reverse"] else range(trips)
        streams = [env.get(v, v) for v in op.operands[carries:]]

        def trip(count: int, state: Sequence[Value], rows: list[list[Value]]) -> Finish:
            def write(b: Builder, env: Env) -> Value:
                if count == trips:
                    return done(b, env, state, rows)
                index = order[count]
                elements = [b.row(s, index) for s in streams]
                number = b.const(index, I32)
                self.numbers[number] = np.asarray(index, np.int32)
                env.update(zip(body.params, [number, *state, *elements]))

                def ends(b: Builder, env: Env) -> Value:
                    values = [env.get(v, v) for v in body.results]
                    return trip(count + 1, values[:carries], [*rows, values[carries:]])(b, env)

                return self.run(body.ops, 0, env, b, ends)

            return write

        def done(b: Builder, env: Env, state: Sequence[Value], rows: list[list[Value]]) -> Value:
            ordered = list(reversed(rows)) if op.attrs["reverse"] else rows
            stacked = [_stack(b, column) for column in zip(*ordered)]
            env.update(zip(op.results, [*state, *stacked]))
            return after(b, env)

        return trip(0, [env.get(v, v) for v in op.operands[:carries]], [])(b, dict(env))


class _Strategy(_Plain):
    """Copies a strategy's function to a choice: where it calls the rest, the rest is written."""

    def __init__(self, expansion: _Expansion, site: Op, env: Env, after: Finish) -> None:
        super().__init__(expansion.owner)
        self.expansion = expansion
        self.site = site
        self.env = env
        self.after = after

    def op(self, b: Builder, op: Op, env: Env) -> None:
        if op.name != "prob.rest":
            super().op(b, op, env)
            self.expansion.note(op, env)
            return
        around = dict(self.env)
        around[self.site.result] = env.get(op.operands[0], op.operands[0])
        env[op.result] = self.after(b, around)


def _stack(b: Builder, rows: Sequence[Value]) -> Value:
    wide = [b.reshape(r, shape=(1, *b.type(r).shape)) for r in rows]
    return b.concatenate(*wide, axis=0) if len(wide) > 1 else wide[0]
