"""What the prob dialect means, by running programs: no pass is asked.

A choice runs its sampler. A trace runs its program and notes every choice on the way, those given
in place of draws. What is summed out is run once for every combination of its values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .core import Block, Op, Value
from .interp import Env, Interpreter, for_loop, rule
from .opdef import Array
from .prob import Choice, choices_of, op_choices
from .types import TensorType

Numbers = Mapping[str, Array]


@rule("prob.sample")
def _sample(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    sampler = interp.module.functions[op.attrs["sampler"]]
    return interp.call(sampler, operands[: len(sampler.params)])


@rule("prob.expect")
def _expect(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return interp.call(interp.module.functions[op.attrs["fn"]], operands)


@rule("prob.trace")
def _trace(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    count = len(operands) - len(op.attrs["given"])
    given = dict(zip(op.attrs["given"], operands[count:]))
    program = _Program(interp, Known(given), op.attrs["scored"])
    return program.traced(op, operands[:count])


@rule("prob.assess")
def _assess(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    parts = [op.attrs[k] for k in ("given", "free", "listed")]
    count = len(operands) - sum(map(len, parts))
    values = iter(operands[count:])
    given, free, listed = ({name: next(values) for name in part} for part in parts)
    maps = dict(zip(op.attrs["mapped"], op.attrs["maps"]))
    function = interp.module.functions[op.attrs["fn"]]
    every = [c.address for c in choices_of(interp.module, function)]
    summed = _Combinations(listed)
    scores = []
    while summed.start():
        program = _Program(interp, Known(given, free, maps, summed), every)
        program.call(function, operands[:count])
        scores.append(program.score)
    made = [program.choices[a] for a in free]
    return [*made, _as(np.logaddexp.reduce(scores), op.results[-1])]


class _Combinations:
    """Counts through the values of choices that come one after the other in every run.

    listed: all values by sampler. digits: of every choice of a run, the number of its value and
    how many there are.
    """

    def __init__(self, listed: Numbers) -> None:
        self.listed = listed
        self.digits: list[tuple[int, int]] = []
        self.place = 0
        self.begun = False

    def start(self) -> bool:
        """Turn to the next run, unless there is none."""
        while self.begun and self.digits:
            digit, count = self.digits.pop()
            if digit + 1 < count:
                self.digits.append((digit + 1, count))
                break
        going = bool(self.digits) or not self.begun
        self.begun, self.place = True, 0
        return going

    def next(self, sampler: str) -> Array:
        """The value of the next choice of this run."""
        values = self.listed[sampler]
        if self.place == len(self.digits):
            self.digits.append((0, len(values)))
        self.place += 1
        return np.asarray(values[self.digits[self.place - 1][0]])


@dataclass(frozen=True)
class Known:
    """What is known of the choices of a program, by address.

    given: their values; free: numbers that `maps` (functions by sampler) make values of;
    summed: where the values of all others come from, if they are not drawn.
    """

    given: Numbers = field(default_factory=dict)
    free: Numbers = field(default_factory=dict)
    maps: Mapping[str, str] = field(default_factory=dict)
    summed: _Combinations | None = None

    def each(self, change: Callable[[Numbers], Numbers]) -> Known:
        """With other values and numbers."""
        return replace(self, given=change(self.given), free=change(self.free))


class _Program(Interpreter):
    """Runs a program and notes its choices, by address, and their score."""

    def __init__(self, interp: Interpreter, known: Known, scored: Collection[str]) -> None:
        super().__init__(interp.module)
        self.plain = interp
        self.known = known
        self.scored = scored
        self.choices: dict[str, Array] = {}
        self.score: Any = 0.0

    def traced(self, op: Op, args: Sequence[Any]) -> list[Any]:
        """The results of a `prob.trace`: the choices, what is returned, the score."""
        function = self.module.functions[op.attrs["fn"]]
        returned = self.block(function.body, args, {})
        addresses = [c.address for c in choices_of(self.module, function)]
        score = _as(self.score, op.results[-1])
        return [*(self.choices[a] for a in addresses), *returned, score]

    def op(self, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
        """Run one op; functions that it calls are no part of the program."""
        choices = op_choices(self.module, op)
        if not choices:
            return self.plain.op(op, operands, env)
        match op.name:
            case "prob.sample":
                return [self.sample(op, operands)]
            case "prob.trace":
                return self.nested(op, operands)
            case "for":
                return self.loop(op, operands, env, choices)
        results = super().op(op, operands, env)
        for c in choices:  # of the branches not taken: as given, or zeros
            nothing = np.zeros(c.type.shape, c.type.dtype.numpy)
            self.choices.setdefault(c.address, self.known.given.get(c.address, nothing))
        return results

    def sample(self, op: Op, operands: list[Any]) -> Array:
        """A choice."""
        at, sampler = op.attrs["at"], op.attrs["sampler"]
        density = self.module.functions[op.attrs["density"]]
        parameters = operands[: len(density.params) - 1]
        if at in self.known.given:
            value = self.known.given[at]
        elif at in self.known.free:
            mapped = self.module.functions[self.known.maps[sampler]]
            value, logdet = self.plain.call(mapped, [self.known.free[at], *parameters])
            self.score = self.score + logdet
        elif self.known.summed is not None:
            value = self.known.summed.next(sampler)
        else:
            (value,) = self.plain.op(op, operands, {})
        self.choices[at] = value
        if at in self.scored:
            self.score = self.score + self.plain.call(density, [value, *parameters])[0]
        return value

    def nested(self, op: Op, operands: list[Any]) -> list[Any]:
        """A program inside, whose choices have the op's address in front."""
        prefix = f"{op.attrs['at']}/"
        known = self.known.each(lambda part: _inside(part, prefix))
        scored = [a.removeprefix(prefix) for a in self.scored if a.startswith(prefix)]
        inner = _Program(self.plain, known, scored)
        results = inner.traced(op, operands)
        self.choices |= {prefix + a: v for a, v in inner.choices.items()}
        self.score = self.score + inner.score
        return results

    def loop(
        self, op: Op, operands: list[Any], env: Env, choices: Sequence[Choice]
    ) -> Sequence[Any]:
        """A loop: its choices are those of its trips, stacked."""
        stacked = {c.address: np.zeros(c.type.shape, c.type.dtype.numpy) for c in choices}
        trips: dict[int, _Program] = {}

        def trip(block: Block, args: Sequence[Any], env: Env) -> list[Any]:
            i = int(args[0])
            known = self.known.each(
                lambda part: {a: np.asarray(v[i]) for a, v in part.items() if a in stacked}
            )
            trips[i] = inner = _Program(self.plain, known, self.scored)
            return inner.block(block, args, env)

        results = for_loop(trip, op, operands, env)
        for i, one in trips.items():
            for a, value in one.choices.items():
                stacked[a][i] = value
            self.score = self.score + one.score
        self.choices |= stacked
        return results


def _inside(part: Numbers, prefix: str) -> Numbers:
    return {a.removeprefix(prefix): v for a, v in part.items() if a.startswith(prefix)}


def _as(number: Any, like: Value) -> Array:
    assert isinstance(like.type, TensorType)
    return np.asarray(number, like.type.dtype.numpy)
