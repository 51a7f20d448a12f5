"""The reference interpreter: what the IR means, in NumPy. Slow, obvious, complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .core import Block, Function, Module, Op, Value
from .errors import CompilerBug
from .opdef import OPS, Array
from .types import TensorType

Env = dict[Value, Any]


def run(module: Module, args: Sequence[Array], name: str | None = None) -> list[Array]:
    """Call function `name` (the entry by default) on arrays of its parameter types.

    Keys are uint64 arrays. Functions of the loop level take their output buffers as the last
    arguments and write into them.
    """
    return Interpreter(module).call(module.functions[name or module.entry], args)


class Interpreter:
    """Runs functions of a module; rules of ops with regions or callees get it."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def call(self, function: Function, args: Sequence[Array]) -> list[Array]:
        """Call a function."""
        if len(args) != len(function.params):
            raise ValueError(f"@{function.name} takes {len(function.params)} arguments")
        return self.block(function.body, args, {})

    def block(self, block: Block, args: Sequence[Any], env: Env) -> list[Any]:
        """Run a block over the values around it; what it yields."""
        for param, arg in zip(block.params, args, strict=True):
            env[param] = arg
        for op in block.ops:
            operands = [env[v] for v in op.operands]
            results = self.op(op, operands, env)
            for value, result in zip(op.results, results, strict=True):
                env[value] = result
        return [env[v] for v in block.results]

    def op(self, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
        """Run one op."""
        reference = OPS[op.name].reference
        if reference is not None:
            out = reference(op.attrs, *operands)
            return out if isinstance(out, tuple) else (out,)
        control = CONTROL.get(op.name)
        if control is None:
            raise CompilerBug(
                f"the interpreter cannot run {op.name}; a pass should have removed it"
            )
        return control(self, op, operands, env)


Rule = Callable[[Interpreter, Op, list[Any], Env], Sequence[Any]]
CONTROL: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Decorator: how an op without a NumPy reference runs."""

    def add(rule: Rule) -> Rule:
        CONTROL[name] = rule
        return rule

    return add


@rule("call")
def _call(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return interp.call(interp.module.functions[op.attrs["fn"]], operands)


@rule("if")
def _if(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return interp.block(op.regions[0 if operands[0] else 1], [], env)


@rule("switch")
def _switch(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    index = min(max(int(operands[0]), 0), len(op.regions) - 1)
    return interp.block(op.regions[index], [], env)


@rule("for")
def _for(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return for_loop(interp.block, op, operands, env)


def for_loop(
    block: Callable[[Block, Sequence[Any], Env], list[Any]],
    op: Op,
    operands: list[Any],
    env: Env,
) -> Sequence[Any]:
    """The results of a `for` whose body is run by `block`."""
    trips, carries = op.attrs["trips"], op.attrs["carries"]
    state, streams = operands[:carries], operands[carries:]
    stacked = [_empty(v) for v in op.results[carries:]]
    for i in reversed(range(trips)) if op.attrs["reverse"] else range(trips):
        elements = [np.asarray(xs[i]) for xs in streams]
        out = block(op.regions[0], [np.array(i, np.int32), *state, *elements], env)
        state = out[:carries]
        for target, value in zip(stacked, out[carries:]):
            target[i] = value
    return [*state, *stacked]


def _empty(value: Value) -> Array:
    assert isinstance(value.type, TensorType)
    return np.zeros(value.type.shape, value.type.dtype.numpy)


@rule("while")
def _while(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    cond, body = op.regions
    state, trips = operands, 0
    while interp.block(cond, state, env)[0]:
        if op.attrs["max_trips"] and trips == op.attrs["max_trips"]:
            break
        state = interp.block(body, state, env)
        trips += 1
    return state


@rule("loop.alloc")
def _alloc(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    type = op.attrs["type"]
    return [np.zeros(type.shape, type.dtype.numpy)]


@rule("loop.const")
def _const(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    type = op.attrs["type"]
    return [np.full(type.shape, op.attrs["value"], type.dtype.numpy)]


@rule("loop.view")
def _view(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return [operands[0].reshape(op.attrs["type"].shape)]  # contiguous: shares memory


@rule("loop.subview")
def _subview(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    return [operands[0][(*map(int, operands[1:]), ...)]]


@rule("loop.load")
def _load(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    index = tuple(map(int, operands[1:]))
    if any(i < 0 for i in index):
        raise CompilerBug(f"loop.load at a negative index {index}")
    return [np.asarray(operands[0][index])]


@rule("loop.store")
def _store(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    operands[1][tuple(map(int, operands[2:]))] = operands[0]
    return []


@rule("loop.accumulate")
def _accumulate(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    operands[1][tuple(map(int, operands[2:]))] += operands[0]
    return []


@rule("loop.nest")
def _nest(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    for index in np.ndindex(*op.attrs["dims"]):
        interp.block(op.regions[0], [np.array(i, np.int64) for i in index], env)
    return []


@rule("loop.reduce")
def _reduce(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    (body,) = op.regions
    columns: list[list[Array]] = [[] for _ in body.results]
    for index in np.ndindex(*op.attrs["dims"]):
        row = interp.block(body, [np.array(i, np.int64) for i in index], env)
        for column, value in zip(columns, row):
            column.append(value)
    return [
        _combine(kind, np.array(column, v.type.dtype.numpy))
        for kind, column, v in zip(op.attrs["kinds"], columns, body.results)
    ]


_COMBINE = {"add": "reduce_sum", "mul": "reduce_prod", "max": "reduce_max", "min": "reduce_min"}


def _combine(kind: str, column: Array) -> Array:
    if kind.startswith("arg"):
        out = OPS[kind].reference({"axis": 0}, column)  # type: ignore[misc]
        return np.asarray(out, np.int64)
    return np.asarray(OPS[_COMBINE[kind]].reference({"axes": (0,)}, column))  # type: ignore[misc]


@rule("loop.for")
def _loop_for(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    order = range(op.attrs["trips"])
    for i in reversed(order) if op.attrs["reverse"] else order:
        interp.block(op.regions[0], [np.array(i, np.int64)], env)
    return []


@rule("loop.while")
def _loop_while(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    cond, body = op.regions
    while interp.block(cond, [], env)[0]:
        interp.block(body, [], env)
    return []


@rule("loop.switch")
def _loop_switch(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    interp.block(op.regions[min(max(int(operands[0]), 0), len(op.regions) - 1)], [], env)
    return []


@rule("loop.gemm")
def _gemm(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    at = op.attrs
    shapes = {"sa": (at["m"], at["k"]), "sb": (at["k"], at["n"]), "sc": (at["m"], at["n"])}
    a, b, c = (
        _strided(x, (at["batch"], *shapes[name]), at[name])
        for x, name in zip(operands, ("sa", "sb", "sc"))
    )
    c[...] = np.matmul(a, b)
    return []


def _strided(x: Array, shape: tuple[int, ...], strides: Sequence[int]) -> Array:
    steps = tuple(s * x.itemsize for s in strides)
    return np.lib.stride_tricks.as_strided(x.reshape(-1), shape, steps)


@rule("loop.call")
def _loop_call(interp: Interpreter, op: Op, operands: list[Any], env: Env) -> Sequence[Any]:
    KERNELS[op.attrs["kernel"]](op.attrs["flags"], *operands)
    return []


def _cholesky(flags: Sequence[str], a: Array, out: Array) -> None:
    out[...] = OPS["cholesky"].reference({}, a)  # type: ignore[misc]


def _triangular_solve(flags: Sequence[str], a: Array, b: Array, out: Array) -> None:
    attrs = {"lower": "lower" in flags, "trans": "trans" in flags}
    out[...] = OPS["triangular_solve"].reference(attrs, a, b)  # type: ignore[misc]


def _sort(flags: Sequence[str], *arrays: Array) -> None:
    half = len(arrays) // 2
    axis = arrays[0].ndim - 1
    for out, value in zip(arrays[half:], OPS["sort"].reference({"axis": axis}, *arrays[:half])):  # type: ignore[misc]
        out[...] = value


def _copy(flags: Sequence[str], source: Array, target: Array) -> None:
    target[...] = source


KERNELS: dict[str, Callable[..., None]] = {
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    "sort": _sort,
    "copy": _copy,
}
