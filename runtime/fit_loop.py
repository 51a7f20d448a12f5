"""The training loop as one IR function: keys, minibatches, gradient, optimiser step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder, function_block
from ..ir.core import Block, Function, Module, Value
from ..ir.random import fold_in, permutation
from ..ir.types import I32, KEY, U32, DType, TensorType, scalar
from ..passes.split_keys import split_keys
from .optimizers import Optimizer

SHUFFLE_STREAM = 1  # folded into the fit's key for the permutations...
STEP_STREAM = 0  # ...and for the keys of the steps


@dataclass(frozen=True)
class Plan:
    """What the loop does with each flat parameter of the value-and-gradient function.

    trained: positions of the tensors to optimise, in the order of the gradients.
    keys: positions of key scalars that get a fresh key every step.
    rows: positions of the arrays whose first axis minibatches are drawn from.
    total, batch: length of that axis, and rows a minibatch; batch 0 takes the data whole.
    maximize: climb instead of descend.
    capacity: the most steps one call of the loop may run.
    averages: positions of scalars that hold a moving average of the value, and its decay.
    """

    trained: tuple[int, ...]
    keys: tuple[int, ...]
    rows: tuple[int, ...]
    total: int
    batch: int
    optimizer: Optimizer
    maximize: bool
    capacity: int
    averages: tuple[tuple[int, float], ...] = ()

    def state(self, trained: Sequence[TensorType], value: TensorType) -> list[TensorType]:
        """The tensors that steps hand on beside the trained ones."""
        return [*self.optimizer.state(trained), *(value for _ in self.averages)]

    def fixed(self, count: int) -> list[int]:
        """Positions of the `count` parameters that the loop is given and never changes."""
        moving = {*self.trained, *self.keys, *(i for i, _ in self.averages)}
        return [i for i in range(count) if i not in moving]


def build_loop(module: Module, plan: Plan) -> Module:
    """`module` with a new entry that runs several steps of training.

    The entry of `module` is (parameters) -> (value, gradient of each trained one). The new one
    is (trained..., state..., key, first: i32, count: i32, fixed...) -> (trained..., state...,
    losses[capacity]): steps first .. first + count, with count at most `capacity`. Which
    steps one call runs has no influence on any of them.
    """
    types = [p.type for p in module.main.params if isinstance(p.type, TensorType)]
    names = [p.name for p in module.main.params]
    trained = [types[i] for i in plan.trained]
    state = plan.state(trained, Builder.type(module.main.results[0]))
    fixed = plan.fixed(len(types))
    fixed_types = [_whole(types[i], plan) if i in plan.rows else types[i] for i in fixed]
    block, b = function_block(
        [*trained, *state, scalar(KEY), scalar(I32), scalar(I32), *fixed_types],
        [
            *(names[i] for i in plan.trained),
            *("" for _ in state),
            *("key", "first", "count"),
            *(names[i] for i in fixed),
        ],
    )
    b.span = module.main.span
    split = len(trained) + len(state)
    key, first, count = block.params[split : split + 3]
    data = dict(zip(fixed, block.params[split + 3 :]))
    result = Module(dict(module.functions), module.entry)
    loop = _Loop(result, plan, b, key, first, data)
    losses = b.zeros(TensorType(loop.value_type.dtype, (plan.capacity,)))
    carries = [b.const(0, I32), losses, *block.params[:split], *loop.first_order()]
    out = b.op(
        "while", carries, [_condition(carries, count), loop.body(carries)], max_trips=plan.capacity
    )
    block.results = [*out[2 : 2 + split], out[1]]
    result.entry = result.fresh_name(f"{module.entry}_fit")
    result.add(Function(result.entry, block, module.main.span))
    return result


def _whole(type: TensorType, plan: Plan) -> TensorType:
    return type.with_shape((plan.total, *type.shape[1:])) if plan.batch else type


def _condition(carries: Sequence[Value], count: Value) -> Block:
    params = [Value(c.type, c.name) for c in carries]
    block = Block(params)
    block.results = [Builder(block).lt(params[0], count)]
    return block


class _Loop:
    """Writes the body of the loop."""

    def __init__(
        self,
        module: Module,
        plan: Plan,
        outer: Builder,
        key: Value,
        first: Value,
        data: dict[int, Value],
    ) -> None:
        self.main = module.main
        self.called = self.main
        self.plan = plan
        self.outer = outer
        self.first = first
        self.data = data
        self.value_type = Builder.type(module.main.results[0])
        self.step_key = fold_in(outer, key, outer.const(STEP_STREAM, I32)) if plan.keys else key
        self.order_key = fold_in(outer, key, outer.const(SHUFFLE_STREAM, I32))
        self.per_epoch = plan.total // plan.batch if plan.batch else 0
        self.ahead: list[Value] = []  # the keys of every step that a call may run
        found = split_keys(self.main, plan.keys) if plan.keys else None
        if found is not None:
            self.called, derivation = found
            self.ahead = derivation.many(outer, self._step_keys())
            module.add(self.called)

    def _step_keys(self) -> list[Value]:
        """For each key parameter, the keys of the steps from `first`, `[capacity]`."""
        b, shape = self.outer, (self.plan.capacity,)
        steps = b.iota(type=TensorType(I32, shape), axis=0)
        steps = b.add(steps, b.broadcast(self.first, shape=shape, axes=()))
        fresh = self._folded(b, b.broadcast(self.step_key, shape=shape, axes=()), steps)
        if len(self.plan.keys) == 1:
            return [fresh]
        return [self._folded(b, fresh, b.const(i, steps)) for i in range(len(self.plan.keys))]

    def _folded(self, b: Builder, keys: Value, numbers: Value) -> Value:
        """`fold_in` of arrays."""
        word = b.bitcast(numbers, dtype=U32)
        return b.threefry(keys, b.key_make(b.const(0, word), word))

    def order(self, b: Builder, step: Value) -> Value:
        """The order of the rows in the epoch of `step`."""
        epoch = b.floordiv(step, b.const(self.per_epoch, step))
        return permutation(b, fold_in(b, self.order_key, epoch), self.plan.total)

    def first_order(self) -> list[Value]:
        """The carry that minibatches need: the order of the epoch of the first step."""
        return [self.order(self.outer, self.first)] if self.plan.batch else []

    def body(self, carries: Sequence[Value]) -> Block:
        """One step."""
        params = [Value(c.type, c.name) for c in carries]
        block = Block(params)
        b = Builder(block, self.main.span)
        trip, losses = params[:2]
        trained_end = 2 + len(self.plan.trained)
        state_end = trained_end + len(
            self.plan.state([b.type(v) for v in params[2:trained_end]], self.value_type)
        )
        trained, state = params[2:trained_end], params[trained_end:state_end]
        step = b.add(self.first, trip)
        data, order = dict(self.data), params[state_end:]
        if order:
            order = [self._reshuffled(b, step, order[0])]
            data |= self._minibatch(b, step, order[0])
        inner = len(state) - len(self.plan.averages)
        means = state[inner:]
        data |= {i: mean for (i, _), mean in zip(self.plan.averages, means)}
        value, grads = self._gradient(b, step, trip, trained, data)
        count = b.convert(step, dtype=self._widest(trained))
        trained, state = self.plan.optimizer.update(b, trained, grads, state[:inner], count)
        state = [*state, *self._averaged(b, means, value)]
        losses = b.dynamic_update(losses, b.reshape(value, shape=(1,)), trip)
        following = b.add(trip, b.const(1, trip))
        block.results = [following, losses, *trained, *state, *order]
        return block

    def _widest(self, trained: Sequence[Value]) -> DType:
        return max((Builder.type(v).dtype for v in trained), key=lambda t: t.itemsize)

    def _gradient(
        self,
        b: Builder,
        step: Value,
        trip: Value,
        trained: Sequence[Value],
        data: dict[int, Value],
    ) -> tuple[Value, list[Value]]:
        given = data | dict(zip(self.plan.trained, trained))
        if self.plan.keys and not self.ahead:
            fresh = fold_in(b, self.step_key, step)
            many = len(self.plan.keys) > 1
            for number, position in enumerate(self.plan.keys):
                given[position] = fold_in(b, fresh, b.const(number, I32)) if many else fresh
        args = [given[i] for i in sorted(given)]
        for keys in self.ahead:
            args.append(b.reshape(b.dynamic_slice(keys, trip, sizes=(1,)), shape=()))
        types = tuple(r.type for r in self.called.results)
        value, *grads = b.op("call", args, fn=self.called.name, types=types)
        return value, [b.neg(g) for g in grads] if self.plan.maximize else grads

    def _averaged(self, b: Builder, means: Sequence[Value], value: Value) -> list[Value]:
        """The moving averages with the value of this step."""
        return [
            b.add(b.mul(mean, b.const(decay, mean)), b.mul(value, b.const(1.0 - decay, value)))
            for (_, decay), mean in zip(self.plan.averages, means)
        ]

    def _reshuffled(self, b: Builder, step: Value, order: Value) -> Value:
        """`order`, or a fresh one where `step` begins an epoch."""
        begins = b.eq(b.mod(step, b.const(self.per_epoch, step)), b.const(0, step))
        then, other = Block(), Block()
        then.results = [self.order(Builder(then, b.span), step)]
        other.results = [order]
        return b.op("if", [begins], [then, other])[0]

    def _minibatch(self, b: Builder, step: Value, order: Value) -> dict[int, Value]:
        """The rows of this step by flat position."""
        within = b.mod(step, b.const(self.per_epoch, step))
        start = b.mul(within, b.const(self.plan.batch, step))
        rows = b.dynamic_slice(order, start, sizes=(self.plan.batch,))
        return {i: b.gather(self.data[i], rows, axis=0, batch=0) for i in self.plan.rows}
