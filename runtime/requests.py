"""What can be asked of a function: its value, derivatives, batches, sample means.

A request turns the lowered module into one whose entry computes what was asked, by adding
wrapper functions; derivatives are `diff.*` ops that a pass expands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder, function_block
from ..ir.core import Block, Function, Module, Value
from ..ir.struct import RecordStruct, Struct, TupleStruct, leaves
from ..ir.types import KEY, TensorType
from ..passes.intervals import ATTRIBUTE
from .errors import CallError

Params = Sequence[tuple[str, Struct]]


KINDS = ("call", "grad", "value_and_grad", "jvp", "vjp", "hessian", "interval")
TILED = ("cells", "points")


@dataclass(frozen=True)
class Request:
    """One thing asked of a function.

    kind: one of KINDS, or of TILED: the programs that sample a field on a grid (passes/tiles.py),
        whose point is the parameter `wrt`.
    wrt: the parameters that derivatives are for, or that are boxes, in the order asked; empty
        for "call".
    samples: 0, or how many keys to split the function's key into before averaging.
    axes: for a batch, the parameters that are mapped along their first axis; None: no batch.
    size: the length of that axis.
    """

    kind: str = "call"
    wrt: tuple[str, ...] = ()
    samples: int = 0
    axes: tuple[str, ...] | None = None
    size: int = 0


def float_leaves(struct: Struct) -> list[TensorType]:
    """The differentiable tensors of `struct`, in order."""
    return [t for _, t in leaves(struct) if t.dtype.is_float]


def wrt_indices(params: Params, wrt: Sequence[str]) -> list[int]:
    """Flat positions of the float tensors of the parameters `wrt`, in the order of `wrt`."""
    places: dict[str, list[int]] = {}
    position = 0
    for name, struct in params:
        for _, type in leaves(struct):
            if type.dtype.is_float:
                places.setdefault(name, []).append(position)
            position += 1
    return [i for name in wrt for i in places.get(name, [])]


def choose_wrt(
    function: str, params: Params, wrt: str | Sequence[str] | None
) -> tuple[tuple[str, ...], bool]:
    """The parameters to differentiate by, and whether one was asked for by itself.

    Without `wrt`: the first parameter that holds a float. Raises CallError.
    """
    candidates = [name for name, struct in params if float_leaves(struct)]
    if wrt is None:
        if not candidates:
            raise CallError(f"{function}() has no float parameter to differentiate by")
        return (candidates[0],), True
    if not isinstance(wrt, str | Sequence):
        raise CallError("wrt names one parameter or several", found=repr(wrt))
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in candidates:
            raise CallError(
                f"{function}() cannot be differentiated by '{name}'",
                expected=f"one of its float parameters: {', '.join(candidates) or 'none'}",
            )
    if len(set(names)) != len(names) or not names:
        raise CallError(f"wrt of {function}() must name each parameter once", found=repr(wrt))
    return names, isinstance(wrt, str)


def _signature(module: Module) -> tuple[Function, list[TensorType]]:
    main = module.main
    return main, [t for p in main.params if isinstance(t := p.type, TensorType)]


def _wrapper(
    module: Module, stem: str, types: Sequence[TensorType], names: Sequence[str]
) -> tuple[str, Block, Builder]:
    name = module.fresh_name(f"{module.entry}_{stem}")
    block, builder = function_block(types, names)
    builder.span = module.main.span
    return name, block, builder


def _finish(module: Module, name: str, block: Block, results: Sequence[Value]) -> None:
    block.results = list(results)
    module.add(Function(name, block, module.main.span))
    module.entry = name


def require_scalar(function: str, result: Struct) -> TensorType:
    """The type of a float scalar result, or CallError: what gradients are of."""
    if not isinstance(result, TensorType) or result.shape or not result.dtype.is_float:
        raise CallError(
            f"{function}() is not a scalar function, so it has no gradient",
            expected="one float scalar result",
            found=str(result),
            hint="use .jvp or .vjp for results of any shape",
        )
    return result


def add_gradient(module: Module, wrt: Sequence[int], with_value: bool) -> None:
    """Make the entry compute the gradient (after the value, if asked) of a scalar entry."""
    main, types = _signature(module)
    name, block, b = _wrapper(module, "grad", types, [p.name for p in main.params])
    (result,) = main.results
    assert isinstance(result.type, TensorType)
    grads = tuple(types[i] for i in wrt)
    out = b.op(
        "diff.vjp",
        [*block.params, b.const(1.0, result.type)],
        fn=main.name,
        wrt=tuple(wrt),
        types=(result.type, *grads),
    )
    _finish(module, name, block, out if with_value else out[1:])


def add_jvp(module: Module, wrt: Sequence[int]) -> None:
    """Make the entry (arguments, tangents) -> (results, tangents of the float results)."""
    main, types = _signature(module)
    tangents = [types[i] for i in wrt]
    names = [p.name for p in main.params] + [f"d{main.params[i].name}" for i in wrt]
    name, block, b = _wrapper(module, "jvp", [*types, *tangents], names)
    results = [t for r in main.results if isinstance(t := r.type, TensorType)]
    derived = tuple(t for t in results if t.dtype.is_float)
    out = b.op("diff.jvp", block.params, fn=main.name, wrt=tuple(wrt), types=(*results, *derived))
    _finish(module, name, block, out)


def add_vjp(module: Module, wrt: Sequence[int]) -> None:
    """Make the entry (arguments, cotangents of the float results) -> cotangents of `wrt`."""
    main, types = _signature(module)
    results = [t for r in main.results if isinstance(t := r.type, TensorType)]
    seeds = [t for t in results if t.dtype.is_float]
    names = [p.name for p in main.params]
    name, block, b = _wrapper(module, "vjp", [*types, *seeds], names)
    out = b.op(
        "diff.vjp",
        block.params,
        fn=main.name,
        wrt=tuple(wrt),
        types=(*results, *(types[i] for i in wrt)),
    )
    _finish(module, name, block, out[len(results) :])


def add_sample_mean(module: Module, batched: str, keys: Sequence[int], samples: int) -> None:
    """Make the entry average function `batched`, whose key parameters got a leading axis.

    `keys` are the flat positions of the key parameters; each is split into `samples`.
    """
    from ..ir.random import split

    main, types = _signature(module)
    name, block, b = _wrapper(module, "mean", types, [p.name for p in main.params])
    args = [split(b, p, samples) if i in keys else p for i, p in enumerate(block.params)]
    inner = module.functions[batched]
    out = b.op("call", args, fn=batched, types=tuple(r.type for r in inner.results))
    means = []
    for value in out:
        total = b.reduce_sum(value, axes=(0,))
        means.append(b.mul(total, b.const(1.0 / samples, total)))
    _finish(module, name, block, means)


def key_positions(params: Params) -> list[int]:
    """Flat positions of the scalar key parameters."""
    flat = [t for _, struct in params for _, t in leaves(struct)]
    return [i for i, t in enumerate(flat) if t.dtype is KEY and not t.shape]


def boxes(module: Module, places: Sequence[int]) -> Module:
    """The module with its entry to become a function of boxes; `places` of its parameters do."""
    main = module.main
    attrs = dict(main.attrs) | {ATTRIBUTE: tuple(places)}
    out = Module(dict(module.functions), module.entry)
    out.functions[main.name] = Function(main.name, main.body, main.span, attrs)
    return out


def unbatched(struct: Struct) -> Struct:
    """`struct` without the first axis of every tensor."""
    match struct:
        case TensorType(dtype, shape):
            return TensorType(dtype, shape[1:])
        case TupleStruct(items):
            return TupleStruct(tuple(unbatched(s) for s in items))
        case RecordStruct(name, fields):
            return RecordStruct(name, tuple((k, unbatched(s)) for k, s in fields))
