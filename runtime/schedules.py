"""Learning rates that change with the step, as IR of the step number.

A schedule is a frozen dataclass; `schedule(step)` evaluates it in Python with the very code
that the training loop compiles. Steps count from 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.builder import Builder, function_block
from ..ir.core import Function, Module, Value
from ..ir.types import F64, scalar
from .errors import CallError
from .values import describe


class Schedule(ABC):
    """A learning rate as a function of the step."""

    @abstractmethod
    def emit(self, b: Builder, step: Value) -> Value:
        """The rate at `step`, a float scalar; the result has its type."""

    def __call__(self, step: int) -> float:
        """The rate at `step`, computed in f64 by the reference interpreter."""
        from ..ir.interp import run

        block, b = function_block([scalar(F64)])
        block.results = [self.emit(b, block.params[0])]
        module = Module({"rate": Function("rate", block)}, "rate")
        return float(run(module, [np.array(step, np.float64)])[0])


def number(what: str, value: Any) -> float:
    """A finite number as a float; CallError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise CallError(f"{what} is a number", found=repr(value))
    try:
        found = float(value)
    except OverflowError:  # a whole number beyond all floats
        found = math.inf
    if not math.isfinite(found):
        raise CallError(f"{what} must be finite", found=describe(value))
    return found


def _rate(value: Any) -> float:
    return number("a learning rate", value)


def _positive(name: str, value: Any) -> float:
    found = number(f"{name} of a schedule", value)
    if not found > 0:
        raise CallError(f"{name} of a schedule must be positive", found=repr(value))
    return found


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every step."""

    rate: float

    def emit(self, b: Builder, step: Value) -> Value:
        """See Schedule."""
        return b.const(self.rate, step)


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end` in `steps` steps, `end` afterwards."""

    start: float
    end: float
    steps: int

    def emit(self, b: Builder, step: Value) -> Value:
        """See Schedule."""
        climb = b.mul(_progress(b, step, self.steps), b.const(self.end - self.start, step))
        return b.add(climb, b.const(self.start, step))


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Half a cosine wave from `peak` to `end` in `steps` steps, `end` afterwards."""

    peak: float
    steps: int
    end: float = 0.0

    def emit(self, b: Builder, step: Value) -> Value:
        """See Schedule."""
        turn = b.mul(_progress(b, step, self.steps), b.const(math.pi, step))
        half = b.const(0.5 * (self.peak - self.end), step)
        wave = b.mul(b.add(b.cos(turn), b.const(1, step)), half)
        return b.add(wave, b.const(self.end, step))


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """`start * factor ** (step / steps)`; with `staircase` the exponent is rounded down."""

    start: float
    factor: float
    steps: int
    staircase: bool = False

    def emit(self, b: Builder, step: Value) -> Value:
        """See Schedule."""
        exponent = b.div(step, b.const(self.steps, step))
        if self.staircase:
            exponent = b.floor(exponent)
        decay = b.exp(b.mul(exponent, b.const(math.log(self.factor), step)))
        return b.mul(decay, b.const(self.start, step))


@dataclass(frozen=True)
class Piecewise(Schedule):
    """`schedules[i]` between `boundaries[i - 1]` and `boundaries[i]`, each counting from 0."""

    boundaries: tuple[int, ...]
    schedules: tuple[Schedule, ...]

    def emit(self, b: Builder, step: Value) -> Value:
        """See Schedule."""
        rate = self.schedules[0].emit(b, step)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:]):
            start = b.const(boundary, step)
            later = schedule.emit(b, b.sub(step, start))
            rate = b.select(b.ge(step, start), later, rate)
        return rate


def _progress(b: Builder, step: Value, steps: int) -> Value:
    """The share of `steps` that is done, between 0 and 1."""
    share = b.div(step, b.const(steps, step))
    return b.max(b.min(share, b.const(1, step)), b.const(0, step))


def constant(rate: float) -> Schedule:
    """The same rate at every step."""
    return Constant(_rate(rate))


def linear(start: float, end: float, steps: int) -> Schedule:
    """A straight line from `start` to `end` in `steps` steps, `end` afterwards."""
    return Linear(_rate(start), _rate(end), int(_positive("steps", steps)))


def cosine_decay(peak: float, steps: int, end: float = 0.0) -> Schedule:
    """Half a cosine wave from `peak` down to `end` in `steps` steps, `end` afterwards."""
    return CosineDecay(_rate(peak), int(_positive("steps", steps)), _rate(end))


def exponential_decay(start: float, factor: float, steps: int, staircase: bool = False) -> Schedule:
    """`start`, times `factor` every `steps` steps: smoothly, or in stairs."""
    count, times = int(_positive("steps", steps)), _positive("factor", factor)
    return ExponentialDecay(_rate(start), times, count, bool(staircase))


def piecewise(boundaries: tuple[int, ...], rates: tuple[float | Schedule, ...]) -> Schedule:
    """`rates[i]` until step `boundaries[i]`, then the next; a schedule there counts from 0."""
    if len(rates) != len(boundaries) + 1 or list(boundaries) != sorted(set(boundaries)):
        raise CallError(
            "piecewise takes increasing boundaries and one rate more than them",
            found=f"boundaries {boundaries}, {len(rates)} rates",
        )
    return Piecewise(tuple(boundaries), tuple(as_schedule(r) for r in rates))


def warmup_cosine(
    peak: float, warmup: int, steps: int, start: float = 0.0, end: float = 0.0
) -> Schedule:
    """A line from `start` to `peak` in `warmup` steps, then a cosine to `end` at step `steps`."""
    if not _positive("warmup", warmup) < _positive("steps", steps):
        raise CallError(
            "the warm-up must be shorter than the whole", found=f"warmup {warmup} of {steps} steps"
        )
    decay = cosine_decay(peak, steps - warmup, end)
    return piecewise((warmup,), (linear(start, peak, warmup), decay))


def as_schedule(rate: float | Schedule) -> Schedule:
    """A number as a constant schedule; schedules as they are. Raises CallError."""
    if isinstance(rate, Schedule):
        return rate
    return Constant(_rate(rate))


__all__ = [
    "Schedule",
    "as_schedule",
    "constant",
    "cosine_decay",
    "exponential_decay",
    "linear",
    "piecewise",
    "warmup_cosine",
]
