"""From a lowered program and a request to an executable: the order of everything.

front end -> request (wrappers with diff.* ops) -> inline, expand derivatives, batch, simplify
-> backend. Each stage can be dumped by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..frontend.specialize import Lowered
from ..ir.builder import function_block
from ..ir.core import Function, Module, parameter_types
from ..ir.printer import print_module
from ..ir.struct import leaves
from ..ir.types import I32, TensorType
from ..passes.batch import batch_function
from ..passes.draws import batch_draws
from ..passes.pipeline import BOXES, FRONT, LOOPS, run_pipeline
from .errors import BackendError, CallError
from .requests import (
    Params,
    Request,
    add_gradient,
    add_jvp,
    add_sample_mean,
    add_vjp,
    boxes,
    key_positions,
    require_scalar,
    wrt_indices,
)
from .values import Array

BACKENDS = ("llvm", "xla", "interp")


class Executable(Protocol):
    """What a backend gives: flat arrays of `types` in, flat arrays out. Keys are packed uint64."""

    @property
    def types(self) -> Sequence[TensorType]:
        """The types of the arrays that `run` takes."""
        ...

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run once; raises MemoryError where the results do not fit."""
        ...


@dataclass
class Dumps:
    """The IR after each stage, as text, in order; filled while compiling where `wanted`."""

    wanted: bool = False
    spans: bool = False
    texts: dict[str, str] = field(default_factory=dict)

    def __call__(self, stage: str, module: Module) -> None:
        """Record the module after `stage`; a stage that runs twice gets `stage#2`."""
        if not self.wanted:
            return
        name, k = stage, 1
        while name in self.texts:
            k += 1
            name = f"{stage}#{k}"
        self.texts[name] = print_module(module, spans=self.spans)


def build(
    lowered: Lowered, request: Request, name: str, dumps: Dumps, *, one_key: bool = False
) -> Module:
    """The tensor-level module whose entry computes `request`, simplified.

    `name` is what error messages call the function. one_key: samples share the key and differ by
    the elements of its draws, instead of each having a split of it. Raises WengertError for
    requests that cannot be met (gradient of a non-scalar, samples without a key...).
    """
    module = Module(dict(lowered.module.functions), lowered.module.entry)
    dumps("lower", module)
    _apply(module, lowered, request, name)
    module = _passes(module, FRONT, dumps)
    if request.kind == "hessian":
        module = _hessian(module, lowered.params, request, dumps)
    if request.kind == "interval":
        places = sorted(wrt_indices(lowered.params, request.wrt))
        module = _passes(boxes(module, places), BOXES, dumps)
    if request.samples:
        module = _sampled(module, lowered.params, request, name, dumps, one_key)
    if request.axes is not None:
        small = _passes(module, ("scalarize",), dumps)
        module = module if small is module else _passes(small, ("simplify",), dumps)
        module = _batched(module, lowered.params, request, dumps)
    return module


def _verify() -> bool:
    return os.environ.get("WENGERT_VERIFY", "") not in ("", "0")


def _passes(module: Module, passes: Sequence[str], dumps: Dumps) -> Module:
    return run_pipeline(module, passes, on_dump=dumps, verify=_verify())


def _apply(module: Module, lowered: Lowered, request: Request, name: str) -> None:
    """Add the wrapper functions that `request` needs."""
    wrt = wrt_indices(lowered.params, request.wrt)
    match request.kind:
        case "call" | "interval":
            return
        case "jvp":
            add_jvp(module, wrt)
        case "vjp":
            add_vjp(module, wrt)
        case "grad" | "value_and_grad":
            require_scalar(name, lowered.result)
            add_gradient(module, wrt, request.kind == "value_and_grad")
        case "hessian":
            require_scalar(name, lowered.result)
            add_gradient(module, wrt, with_value=False)
            add_jvp(module, wrt)


def _hessian(module: Module, params: Params, request: Request, dumps: Dumps) -> Module:
    """Batch the jvp of the gradient over unit tangents, all in one call.

    The entry then gives, for each float tensor of `wrt`, the rows of the Hessian:
    `[total, *shape]` where total counts the elements of all of them.
    """
    main = module.main
    flat = [t for _, struct in params for _, t in leaves(struct)]
    tangents = [flat[i] for i in wrt_indices(params, request.wrt)]
    total = sum(t.size for t in tangents)
    axes = [None] * len(flat) + [0] * len(tangents)
    batched = batch_function(module, module.entry, axes, total)
    block, b = function_block(flat, [p.name for p in main.params[: len(flat)]])
    b.span = main.span
    args, start = list(block.params), 0
    for type in tangents:
        args.append(_basis(b, type, start, total))
        start += type.size
    inner = module.functions[batched]
    out = b.op("call", args, fn=batched, types=tuple(r.type for r in inner.results))
    block.results = list(out[len(tangents) :])
    name = module.fresh_name(f"{main.name}_hessian")
    module.add(Function(name, block, main.span))
    module.entry = name
    return _passes(module, FRONT, dumps)


def _basis(b: Any, type: TensorType, start: int, total: int) -> Any:
    """`[total, *shape]`: 1 at element i of row start + i. Computed, since it may be large."""
    flat = TensorType(I32, (total, type.size))
    row, element = (b.iota(type=flat, axis=axis) for axis in (0, 1))
    hit = b.eq(row, b.add(element, b.const(start, flat)))
    return b.reshape(b.convert(hit, dtype=type.dtype), shape=(total, *type.shape))


def _sampled(
    module: Module, params: Params, request: Request, name: str, dumps: Dumps, one_key: bool
) -> Module:
    keys = key_positions(params)
    if not keys:
        raise CallError(
            f"{name}() takes no random key, so samples={request.samples} has no meaning",
            hint="give it a parameter of type key",
        )
    for result in module.main.results:
        if not isinstance(result.type, TensorType) or not result.type.dtype.is_float:
            raise CallError(f"{name}() returns {result.type}, which has no mean over samples")
    shared = batch_draws(module, module.entry, request.samples) if one_key else None
    if shared is not None:
        add_sample_mean(module, shared, [], request.samples)
    else:
        axes = [0 if i in keys else None for i in range(len(module.main.params))]
        batched = batch_function(module, module.entry, axes, request.samples)
        add_sample_mean(module, batched, keys, request.samples)
    return _passes(module, FRONT, dumps)


def _batched(module: Module, params: Params, request: Request, dumps: Dumps) -> Module:
    assert request.axes is not None
    flat = [(name, type) for name, s in params for _, type in leaves(s)]
    axes = []
    for name, type in flat:
        boxed = request.kind == "interval" and name in request.wrt and type.dtype.is_float
        axes += [0 if name in request.axes else None] * (2 if boxed else 1)
    axes += [0] * (len(module.main.params) - len(axes))
    module.entry = batch_function(module, module.entry, axes, request.size)
    return _passes(module, FRONT, dumps)


def compile_module(module: Module, backend: str, dumps: Dumps) -> Executable:
    """The executable of a tensor-level module on `backend`; raises BackendError."""
    match backend:
        case "llvm":
            return compile_llvm(_passes(module, LOOPS, dumps))
        case "xla":
            from .xla import XlaRunner

            return XlaRunner(module)
        case "interp":
            return InterpRunner(module)
    raise BackendError(f"no backend is called '{backend}'", expected=", ".join(BACKENDS))


def compile_llvm(loops: Module) -> Executable:
    """The executable of a loop-level module."""
    from .llvm import LlvmRunner

    return LlvmRunner.compile(loops)


class InterpRunner:
    """The reference interpreter as a backend: slow, and right by definition."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.types = parameter_types(module)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Interpret once."""
        from ..ir.interp import run

        return run(self.module, list(arrays))
