"""Running `.wg` text through lowering and the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import Lowered, Static, specialize
from wengert.ir import interp
from wengert.ir.struct import RecordStruct, Struct, TupleStruct
from wengert.ir.types import F32, KEY, DType, TensorType, dtype_of
from wengert.ir.verify import verify

Run = Callable[..., Any]


class Seed(int):
    """A run-time random key, as its packed words."""


def struct_of(value: Any) -> Struct:
    """The structure of a Python argument: arrays, tuples, dicts (records by their fields)."""
    if isinstance(value, Seed):
        return TensorType(KEY)
    if isinstance(value, tuple):
        return TupleStruct(tuple(map(struct_of, value)))
    if isinstance(value, dict):
        return RecordStruct("", tuple((k, struct_of(v)) for k, v in value.items()))
    return TensorType(dtype_of(value), value.shape)


def flat(value: Any) -> Iterator[Any]:
    """The arrays of an argument, in order."""
    if isinstance(value, Seed):
        yield np.uint64(value)
    elif isinstance(value, tuple):
        for item in value:
            yield from flat(item)
    elif isinstance(value, dict):
        yield from flat(tuple(value.values()))
    else:
        yield value


def unflat(struct: Struct, values: Iterator[Any]) -> Any:
    """A result as arrays, tuples and dicts."""
    match struct:
        case TensorType():
            return next(values)
        case TupleStruct(items):
            return tuple(unflat(i, values) for i in items)
        case RecordStruct(_, fields):
            return {k: unflat(v, values) for k, v in fields}


def convert(value: Any, real: DType) -> Any:
    """Floats as the default float type, Python ints as i32."""
    if isinstance(value, Static | Seed):
        return value
    if isinstance(value, tuple):
        return tuple(convert(v, real) for v in value)
    if isinstance(value, dict):
        return {k: convert(v, real) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, bool):
        return np.asarray(value)
    dtype = real.numpy if isinstance(value, float | list) else np.int32
    return np.asarray(value, dtype)


def lower_text(text: str, name: str = "f", real: DType = F32, **args: Any) -> Lowered:
    """Lower a function of a text for arguments of these types; the IR is verified."""
    given = {k: convert(v, real) for k, v in args.items()}
    types = {k: v if isinstance(v, Static) else struct_of(v) for k, v in given.items()}
    lowered = specialize(compile_text(text, "test.wg"), name, types, real)
    verify(lowered.module)
    return lowered


def run_text(text: str, name: str = "f", real: DType = F32, **args: Any) -> Any:
    """Lower and run in the reference interpreter."""
    lowered = lower_text(text, name, real, **args)
    arrays = [a for v in args.values() if not isinstance(v, Static) for a in flat(convert(v, real))]
    _check_types(lowered)
    results = interp.run(lowered.module, arrays)
    return unflat(lowered.result, iter(results))


def _check_types(lowered: Lowered) -> None:
    """Every result has the type that its pattern promises, every op a span."""
    from wengert.ir.core import walk
    from wengert.ir.struct import leaves

    main = lowered.module.main
    assert [r.type for r in main.results] == [t for _, t in leaves(lowered.result)]
    for function in lowered.module.functions.values():
        for op in walk(function.body):
            assert op.span is not None, op


@pytest.fixture
def run() -> Run:
    """run(text, name="f", real=F32, **arguments) -> result."""
    return run_text


@pytest.fixture
def lower() -> Callable[..., Lowered]:
    """lower(text, name="f", real=F32, **arguments) -> Lowered."""
    return lower_text


@pytest.fixture
def seed() -> Callable[[int], Seed]:
    """seed(n): the key of seed n, as a run-time argument."""
    return lambda n: Seed(n << 32)


def _central(
    f: Callable[[list[Any]], list[Any]], args: list[Any], at: list[int], step: list[Any]
) -> list[Any]:
    """(f(x + h t) - f(x - h t)) / 2h along tangents `step` of the arguments numbered `at`."""
    h = 1e-6
    ahead, behind = list(args), list(args)
    for i, t in zip(at, step):
        ahead[i], behind[i] = args[i] + h * t, args[i] - h * t
    return [(a - b) / (2 * h) for a, b in zip(f(ahead), f(behind))]


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs diff.jvp and diff.vjp by central differences (use F64)."""

    def jvp(self: Any, op: Any, operands: list[Any], env: Any) -> list[Any]:
        function, wrt = self.module.functions[op.attrs["fn"]], op.attrs["wrt"]
        count = len(function.params)
        args, tangents = operands[:count], operands[count:]
        floats = [i for i, r in enumerate(function.results) if r.type.dtype.is_float]

        def f(xs: list[Any]) -> list[Any]:
            out = self.call(function, xs)
            return [out[i] for i in floats]

        return [*self.call(function, args), *_central(f, args, list(wrt), tangents)]

    def vjp(self: Any, op: Any, operands: list[Any], env: Any) -> list[Any]:
        function, wrt = self.module.functions[op.attrs["fn"]], op.attrs["wrt"]
        count = len(function.params)
        args, seeds = operands[:count], operands[count:]
        floats = [i for i, r in enumerate(function.results) if r.type.dtype.is_float]

        def f(xs: list[Any]) -> list[Any]:
            out = self.call(function, xs)
            return [sum(np.sum(s * out[i]) for s, i in zip(seeds, floats))]

        grads = []
        for i in wrt:
            grad = np.zeros_like(args[i])
            for index in np.ndindex(*args[i].shape):
                unit = np.zeros_like(args[i])
                unit[index] = 1
                grad[index] = _central(f, args, [i], [unit])[0]
            grads.append(grad)
        return [*self.call(function, args), *grads]

    monkeypatch.setitem(interp.CONTROL, "diff.jvp", jvp)
    monkeypatch.setitem(interp.CONTROL, "diff.vjp", vjp)
