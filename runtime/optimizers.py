"""Optimisers as IR: each says what state it keeps and how one step changes the parameters.

They are frozen dataclasses, so a compiled training loop can be looked up by its optimiser.
The rules are those of the papers, with the defaults of optax. State starts at zero.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.types import TensorType
from .errors import CallError
from .schedules import Schedule, as_schedule, number

Values = list[Value]


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all optimisers share.

    rate: the learning rate over steps.
    clip: scale all gradients down together where their Euclidean norm is larger than this.
    clip_value: cut every gradient element to [-clip_value, clip_value], before `clip`.
    """

    rate: Schedule
    clip: float | None = None
    clip_value: float | None = None

    @abstractmethod
    def state(self, params: Sequence[TensorType]) -> list[TensorType]:
        """Types of the tensors kept from step to step, all zero at first."""

    @abstractmethod
    def direction(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """What to subtract from the parameters, times the rate; and the new state.

        step: how many steps are done, a float scalar.
        """

    def update(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """Emit one step: parameters and state after it. `step` is a float scalar, 0 at first."""
        if self.clip_value is not None:
            grads = [_cut(b, g, self.clip_value) for g in grads]
        if self.clip is not None:
            grads = _clip_norm(b, grads, self.clip)
        moves, state = self.direction(b, params, grads, state, step)
        rate = self.rate.emit(b, step)
        return [b.sub(p, b.mul(_like(b, rate, p), m)) for p, m in zip(params, moves)], state


def _like(b: Builder, x: Value, target: Value) -> Value:
    """The float scalar x repeated to the type of `target`."""
    type = b.type(target)
    if b.type(x).dtype is not type.dtype:
        x = b.convert(x, dtype=type.dtype)
    return b.expand(x, type.shape)


def _cut(b: Builder, x: Value, limit: float) -> Value:
    return b.max(b.min(x, b.const(limit, x)), b.const(-limit, x))


def _clip_norm(b: Builder, grads: Values, limit: float) -> Values:
    """`grads` scaled so that their common norm is at most `limit`."""
    widest = max((b.type(g).dtype for g in grads), key=lambda t: t.itemsize)
    total = b.const(0, widest)
    for g in grads:
        part = b.reduce_sum(b.mul(g, g), axes=tuple(range(b.type(g).rank)))
        total = b.add(total, _like(b, part, total))
    norm = b.sqrt(total)
    bound = b.const(limit, norm)
    scale = b.select(b.lt(norm, bound), b.const(1, norm), b.div(bound, norm))
    return [b.mul(g, _like(b, scale, g)) for g in grads]


def _blend(b: Builder, old: Value, new: Value, keep: float) -> Value:
    """The moving average `keep * old + (1 - keep) * new`."""
    return b.add(b.mul(old, b.const(keep, old)), b.mul(new, b.const(1 - keep, new)))


def _decayed(b: Builder, moves: Values, params: Values, decay: float) -> Values:
    """`moves` plus decoupled weight decay."""
    if decay == 0:
        return moves
    return [b.add(m, b.mul(p, b.const(decay, p))) for m, p in zip(moves, params)]


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with velocity `v = momentum * v + g`; plain descent at momentum 0."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def state(self, params: Sequence[TensorType]) -> list[TensorType]:
        """One velocity a parameter, none without momentum."""
        return list(params) if self.momentum else []

    def direction(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """See Optimizer."""
        grads = _decayed(b, grads, params, self.weight_decay)
        if not self.momentum:
            return grads, []
        velocity = [self._ahead(b, v, g) for v, g in zip(state, grads)]
        if self.nesterov:
            return [self._ahead(b, v, g) for v, g in zip(velocity, grads)], velocity
        return velocity, velocity

    def _ahead(self, b: Builder, velocity: Value, gradient: Value) -> Value:
        return b.add(b.mul(velocity, b.const(self.momentum, velocity)), gradient)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba 2015; with weight_decay, AdamW of Loshchilov and Hutter 2019."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def state(self, params: Sequence[TensorType]) -> list[TensorType]:
        """The means of the gradients, then of their squares."""
        return [*params, *params]

    def direction(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """See Optimizer."""
        half = len(params)
        means = [_blend(b, m, g, self.b1) for m, g in zip(state[:half], grads)]
        squares = [_blend(b, v, b.mul(g, g), self.b2) for v, g in zip(state[half:], grads)]
        done = b.add(step, b.const(1, step))
        # One correction of scalars a step, not two divisions an element.
        first, second = (b.div(b.const(1, done), _bias(b, done, k)) for k in (self.b1, self.b2))
        moves = []
        for m, v in zip(means, squares):
            spread = b.sqrt(b.mul(v, _like(b, second, v)))
            moves.append(b.div(b.mul(m, _like(b, first, m)), b.add(spread, b.const(self.eps, v))))
        return _decayed(b, moves, params, self.weight_decay), [*means, *squares]


def _bias(b: Builder, done: Value, keep: float) -> Value:
    """`1 - keep ** done`, without the digits that f32 would lose near 1."""
    if keep == 0:
        return b.const(1, done)
    power = b.mul(done, b.const(math.log(keep), done))
    return b.neg(b.expm1(power))


@dataclass(frozen=True)
class RmsProp(Optimizer):
    """Hinton's rule: gradients over the root of the moving mean of their squares."""

    decay: float = 0.9
    eps: float = 1e-8

    def state(self, params: Sequence[TensorType]) -> list[TensorType]:
        """The means of the squared gradients."""
        return list(params)

    def direction(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """See Optimizer."""
        squares = [_blend(b, v, b.mul(g, g), self.decay) for v, g in zip(state, grads)]
        moves = [b.div(g, b.sqrt(b.add(v, b.const(self.eps, v)))) for g, v in zip(grads, squares)]
        return moves, squares


@dataclass(frozen=True)
class Lion(Optimizer):
    """Chen et al. 2023: the sign of an average of gradient and momentum."""

    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 1e-3

    def state(self, params: Sequence[TensorType]) -> list[TensorType]:
        """The means of the gradients."""
        return list(params)

    def direction(
        self, b: Builder, params: Values, grads: Values, state: Values, step: Value
    ) -> tuple[Values, Values]:
        """See Optimizer."""
        moves = [b.sign(_blend(b, m, g, self.b1)) for m, g in zip(state, grads)]
        means = [_blend(b, m, g, self.b2) for m, g in zip(state, grads)]
        return _decayed(b, moves, params, self.weight_decay), means


Rate = float | Schedule


def _check(
    clip: float | None, clip_value: float | None, others: dict[str, float], **shares: float
) -> None:
    """Raise CallError where an optimiser's numbers are none, or are out of range.

    shares: numbers from 0 to below 1.
    """
    for name, limit in (("clip", clip), ("clip_value", clip_value)):
        if limit is not None and not number(name, limit) > 0:
            raise CallError(f"{name} must be positive", found=repr(limit))
    for name, value in others.items():
        number(name, value)
    for name, value in shares.items():
        if not 0 <= number(name, value) < 1:
            raise CallError(f"{name} must be at least 0 and below 1", found=repr(value))


def sgd(
    rate: Rate = 1e-2,
    *,
    weight_decay: float = 0.0,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """Plain gradient descent. `rate` is a number or a schedule; see Optimizer for clipping."""
    _check(clip, clip_value, {"weight_decay": weight_decay})
    return Momentum(as_schedule(rate), clip, clip_value, weight_decay=weight_decay)


def momentum(
    rate: Rate = 1e-2,
    momentum: float = 0.9,
    *,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """Gradient descent with momentum, Nesterov's if asked."""
    _check(clip, clip_value, {"weight_decay": weight_decay}, momentum=momentum)
    return Momentum(as_schedule(rate), clip, clip_value, momentum, nesterov, weight_decay)


def adam(
    rate: Rate = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """Adam. `rate` is a number or a schedule."""
    _check(clip, clip_value, {"eps": eps}, b1=b1, b2=b2)
    return Adam(as_schedule(rate), clip, clip_value, b1, b2, eps)


def adamw(
    rate: Rate = 1e-3,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay, which the rate multiplies."""
    _check(clip, clip_value, {"eps": eps, "weight_decay": weight_decay}, b1=b1, b2=b2)
    return Adam(as_schedule(rate), clip, clip_value, b1, b2, eps, weight_decay)


def rmsprop(
    rate: Rate = 1e-3,
    decay: float = 0.9,
    eps: float = 1e-8,
    *,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """RMSProp, with eps inside the root."""
    _check(clip, clip_value, {"eps": eps}, decay=decay)
    return RmsProp(as_schedule(rate), clip, clip_value, decay, eps)


def lion(
    rate: Rate = 1e-4,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
    *,
    clip: float | None = None,
    clip_value: float | None = None,
) -> Optimizer:
    """Lion, with decoupled weight decay."""
    _check(clip, clip_value, {"weight_decay": weight_decay}, b1=b1, b2=b2)
    return Lion(as_schedule(rate), clip, clip_value, b1, b2, weight_decay)
