"""The loop level: buffers, loop nests and kernel calls, as bufferisation leaves them.

A function of this level takes its input buffers, then its output buffers (`outputs` of them,
a function attribute), and returns nothing. Scalar core ops compute inside; indices are i64.
"""

from __future__ import annotations

from collections.abc import Sequence

from .core import Attrs, Block, Value, walk
from .opdef import OPS, OpDef, declare, need
from .types import BOOL, I64, BufferType, TensorType, Type

INDEX = TensorType(I64)
QUICK = "quick"  # a function attribute: many small nests, which LLVM need not optimise
KINDS = ("add", "mul", "max", "min", "argmax", "argmin")


def _buffer(value: Value) -> BufferType:
    if not isinstance(value.type, BufferType):
        need(False, f"a buffer is needed, not {value.type}")
    assert isinstance(value.type, BufferType)
    return value.type


def _need_index(indices: Sequence[Value], rank: int, name: str) -> None:
    need(len(indices) == rank, f"{name} needs {rank} indices, found {len(indices)}")
    for index in indices:
        need(index.type == INDEX, f"{name} needs i64 indices, not {index.type}")


def _attr_buffer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    return [attrs["type"]]


declare(
    OpDef(
        "loop.alloc",
        "fresh memory, uninitialised; `offset` is its place in the function's arena in bytes, -1 "
        "before planning; not inside a nest, whose iterations would share it",
        _attr_buffer,
        attrs=(("offset", "int"), ("type", "type")),
        arity=0,
        pure=False,
    )
)
declare(
    OpDef(
        "loop.const",
        "read-only memory holding a dense array",
        _attr_buffer,
        attrs=(("value", "array"), ("type", "type")),
        arity=0,
    )
)


def _view_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source, target = _buffer(operands[0]), attrs["type"]
    need(
        source.dtype is target.dtype and source.tensor.size == target.tensor.size,
        f"loop.view of {source} as {target}",
    )
    return [target]


declare(
    OpDef(
        "loop.view",
        "the same memory under another shape of the same size",
        _view_infer,
        attrs=(("type", "type"),),
        arity=1,
    )
)


def _subview_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source, indices = _buffer(operands[0]), operands[1:]
    need(len(indices) <= len(source.shape), f"loop.subview of {source} by {len(indices)} indices")
    _need_index(indices, len(indices), "loop.subview")
    return [BufferType(source.dtype, source.shape[len(indices) :])]


declare(
    OpDef(
        "loop.subview",
        "the part of a buffer at the given leading indices",
        _subview_infer,
    )
)


def _load_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    source = _buffer(operands[0])
    _need_index(operands[1:], len(source.shape), "loop.load")
    return [TensorType(source.dtype)]


declare(OpDef("loop.load", "the element at indices: buffer, indices", _load_infer))


def _store_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    target = _buffer(operands[1])
    need(
        operands[0].type == TensorType(target.dtype),
        f"loop.store of {operands[0].type} in {target}",
    )
    _need_index(operands[2:], len(target.shape), "loop.store")
    return []


declare(
    OpDef(
        "loop.store",
        "set the element at indices: value, buffer, indices",
        _store_infer,
        pure=False,
    )
)
declare(
    OpDef(
        "loop.accumulate",
        "add a value to the element at indices: value, buffer, indices; iterations of a nest may "
        "meet at one element, so the nest is neither vectorised nor shared among threads",
        _store_infer,
        pure=False,
    )
)


def _nest_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    (body,) = regions
    dims = attrs["dims"]
    need([p.type for p in body.params] == [INDEX] * len(dims), "loop.nest needs an index a dim")
    need(0 <= attrs["parallel"] <= len(dims), "loop.nest: parallel is out of range")
    need(-1 <= attrs["simd"] < len(dims), "loop.nest: simd is out of range")
    need(not body.results, "loop.nest yields nothing")
    inside = {op.name for op in walk(body)}
    need("loop.alloc" not in inside, "loop.nest holds a loop.alloc, which its iterations share")
    alone = attrs["parallel"] == 0 and attrs["simd"] == -1
    need(
        alone or "loop.accumulate" not in inside,
        "loop.nest holds a loop.accumulate, so parallel must be 0 and simd -1",
    )
    return []


declare(
    OpDef(
        "loop.nest",
        "run the body at every index below `dims`. Iterations are independent, so any order will "
        "do; the first `parallel` dims are worth sharing among threads; dim `simd` (-1: none) is "
        "the one to vectorise",
        _nest_infer,
        attrs=(("dims", "ints"), ("parallel", "int"), ("simd", "int")),
        arity=0,
        regions=("body",),
        pure=False,
    )
)


def _reduce_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    (body,) = regions
    dims, kinds = attrs["dims"], attrs["kinds"]
    need([p.type for p in body.params] == [INDEX] * len(dims), "loop.reduce needs an index a dim")
    need(len(kinds) == len(body.results), "loop.reduce needs a kind for every yielded value")
    result: list[Type] = []
    for kind, value in zip(kinds, body.results):
        need(kind in KINDS, f"loop.reduce of unknown kind {kind}")
        need(isinstance(value.type, TensorType) and value.type.shape == (), "reduces scalars")
        result.append(INDEX if kind.startswith("arg") else value.type)
    need(-1 <= attrs["simd"] < len(dims), "loop.reduce: simd is out of range")
    for op in walk(body):
        need(OPS[op.name].pure, f"loop.reduce only computes, but holds a {op.name}")
    return result


declare(
    OpDef(
        "loop.reduce",
        "combine the scalars that the body yields at every index below `dims`, one `kinds` entry "
        "each (add, mul, max, min; argmax and argmin give the first flat index); the order of "
        "combination is free. dim `simd` (-1: none) may be split into lanes; the body has no "
        "effects",
        _reduce_infer,
        attrs=(("dims", "ints"), ("kinds", "strs"), ("simd", "int")),
        arity=0,
        regions=("body",),
    )
)


def _for_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    (body,) = regions
    need([p.type for p in body.params] == [INDEX], "loop.for needs one index")
    need(not body.results, "loop.for yields nothing")
    return []


declare(
    OpDef(
        "loop.for",
        "run the body for i = 0 .. trips, in order (from the end if `reverse`)",
        _for_infer,
        attrs=(("trips", "int"), ("reverse", "bool")),
        arity=0,
        regions=("body",),
        pure=False,
    )
)


def _while_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    cond, body = regions
    need([v.type for v in cond.results] == [TensorType(BOOL)], "loop.while needs a bool")
    need(not body.results and not cond.params and not body.params, "loop.while carries nothing")
    return []


declare(
    OpDef(
        "loop.while",
        "run the body while the condition region yields true",
        _while_infer,
        arity=0,
        regions=("cond", "body"),
        pure=False,
    )
)


def _switch_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(operands[0].type == INDEX, f"loop.switch needs an i64, not {operands[0].type}")
    need(all(not r.results and not r.params for r in regions), "loop.switch yields nothing")
    return []


declare(
    OpDef(
        "loop.switch",
        "run the region numbered by the i64 operand (clamped)",
        _switch_infer,
        arity=1,
        regions=("case", "*"),
        pure=False,
    )
)


def _call_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    for value in operands:
        _buffer(value)
    return []


declare(
    OpDef(
        "loop.gemm",
        "c = a b for `batch` products of an m x k and a k x n matrix; `sa`, `sb`, `sc` are the "
        "element strides of each buffer: batch, row, column; a matrix has stride 1 one way",
        _call_infer,
        attrs=(
            ("batch", "int"),
            ("m", "int"),
            ("n", "int"),
            ("k", "int"),
            ("sa", "ints"),
            ("sb", "ints"),
            ("sc", "ints"),
        ),
        arity=3,
        pure=False,
    )
)
declare(
    OpDef(
        "loop.call",
        "run a library kernel on whole buffers. cholesky: a, out; triangular_solve: a, b, out, "
        "flags lower, trans; sort: n inputs, n outputs, along the last axis; copy: from, to",
        _call_infer,
        attrs=(("kernel", "str"), ("flags", "strs")),
        pure=False,
    )
)
