"""Loop-level IR to LLVM IR.

Values inside nests are `Val`s: one scalar for all lanes, a vector with a lane each, or an
index that grows by a constant from lane to lane, which keeps loads contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ll
import numpy as np

from ...ir.core import Block, Function, Op, Value, used_values, walk
from ...ir.errors import CompilerBug
from ...ir.types import BOOL, F32, F64, BufferType, DType, TensorType
from .lanes import INT32, INT64, MEMORY, POINTER, REGISTER, constant, splat, vector
from .scalar_ops import EMIT

ENTRY = "wengert_main"
HUGE_BODY = 1500  # ops above which a nest gets wider vectors, to hide latency
MANY_NESTS = 150  # nests and products above which each is a function: LLVM's time grows faster


@dataclass(frozen=True)
class Val:
    """A value: `stride` 0 for the same in all lanes (or a vector), else an index's step."""

    value: Any
    stride: int = 0

    @property
    def is_vector(self) -> bool:
        """Whether it has a lane each."""
        return isinstance(self.value.type, ll.VectorType)


class Emitter:
    """Emits into one LLVM function. `lanes` is 0 outside a vectorised loop.

    shares: whether threads may share work; not in what a thread does already.
    outlines: whether nests and products become functions of their own.
    """

    def __init__(self, module: ll.Module, function: Any, register_bytes: int) -> None:
        self.shares = False
        self.outlines = False
        self.module = module
        self.function = function
        self.register_bytes = register_bytes
        self.b = ll.IRBuilder(function.append_basic_block("entry"))
        self.env: dict[Value, Val] = {}
        self.owner: dict[Value, Value] = {}  # of a view: the buffer whose memory it names
        self.lanes = 0

    # Helpers

    def i64(self, number: int) -> Any:
        """A constant index."""
        return ll.Constant(INT64, number)

    def alloca(self, type: ll.Type) -> Any:
        """A stack slot, made in the entry block."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(type)
        slot.type = POINTER  # llvmlite still types what it allocates
        return slot

    @contextmanager
    def loop(self, count: int, reverse: bool = False) -> Iterator[Any]:
        """A counted loop, `count` at least 1; yields the index."""
        b = self.b
        before = b.block
        head = b.append_basic_block("loop")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(INT64)
        i.add_incoming(self.i64(0), before)
        yield b.sub(self.i64(count - 1), i) if reverse else i
        after = b.append_basic_block("done")
        following = b.add(i, self.i64(1), flags=["nuw", "nsw"])
        b.cbranch(b.icmp_unsigned("<", following, self.i64(count)), head, after)
        i.add_incoming(following, b.block)
        b.position_at_end(after)

    @contextmanager
    def range(self, begin: Any, end: Any) -> Iterator[Any]:
        """A loop from `begin` to `end`, which may be empty."""
        b = self.b
        before = b.block
        head, body = b.append_basic_block("head"), b.append_basic_block("body")
        after = b.append_basic_block("done")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(INT64)
        i.add_incoming(begin, before)
        b.cbranch(b.icmp_signed("<", i, end), body, after)
        b.position_at_end(body)
        yield i
        i.add_incoming(b.add(i, self.i64(1), flags=["nuw", "nsw"]), b.block)
        b.branch(head)
        b.position_at_end(after)

    def wide(self, val: Val) -> Any:
        """A value with a lane each, inside a vectorised loop; as it is outside."""
        if not self.lanes or val.is_vector:
            return val.value
        value = splat(self.b, val.value, self.lanes)
        if val.stride:
            steps = [val.stride * i for i in range(self.lanes)]
            value = self.b.add(value, ll.Constant(ll.VectorType(INT64, self.lanes), steps))
        return value

    def pointer(self, buffer: Value) -> Any:
        """Where a buffer starts."""
        return self.env[buffer].value

    # Blocks and ops

    def ops(self, ops: Sequence[Op]) -> None:
        """Emit ops in order."""
        for op in ops:
            self.op(op)

    def op(self, op: Op) -> None:
        """Emit one op."""
        rule = RULES.get(op.name)
        if rule is None:
            self.elementwise(op)
        elif self.outlines and not self.lanes and op.name in OUTLINED:
            self._outline(rule, op)
        else:
            rule(self, op)

    def _outline(self, rule: Rule, op: Op) -> None:
        """Emit an op without results as a function of the values that it uses, and a call."""
        self.part(used_values(op), (), lambda inner, _: rule(inner, op))

    def part(
        self,
        used: Iterable[Value],
        more: Sequence[Any],
        write: Callable[[Emitter, Sequence[Any]], None],
    ) -> None:
        """Emit what `write` does as a function of its own, and a call.

        used: what it needs of this emitter's values. more: further arguments, LLVM values; `write`
        gets an emitter into the function, and what stands for them there.
        """
        known = {v: self.env[v] for v in used if v in self.env}
        passed = [v for v, x in known.items() if not isinstance(x.value, ll.Constant)]
        args = [*(known[v].value for v in passed), *more]
        kind = ll.FunctionType(ll.VoidType(), [a.type for a in args])
        function = ll.Function(self.module, kind, self.module.get_unique_name("part"))
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = Emitter(self.module, function, self.register_bytes)
        inner.shares, inner.lanes, inner.owner = self.shares, self.lanes, dict(self.owner)
        inner.env = known | {v: Val(arg, known[v].stride) for v, arg in zip(passed, function.args)}
        write(inner, function.args[len(passed) :])
        inner.b.ret_void()
        self.b.call(function, args)

    def elementwise(self, op: Op) -> None:
        """An elementwise op on scalars: affine indices stay affine, the rest by its rule."""
        operands = [self.env[v] for v in op.operands]
        if any(v.stride for v in operands):
            known = self._affine(op, operands)
            if known is not None:
                self.env[op.results[0]] = known
                return
            operands = [Val(self.wide(v)) for v in operands]
        if any(v.is_vector for v in operands):
            operands = [Val(self.wide(v)) for v in operands]
        rule = EMIT.get(op.name)
        if rule is None:
            raise CompilerBug(f"no LLVM emission for {op.name}")
        dtype = scalar_dtype(op.operands[0] if op.name != "select" else op.operands[1])
        out = rule(self.b, dtype, op.attrs, *(v.value for v in operands))
        self.env[op.results[0]] = Val(out)

    def _affine(self, op: Op, xs: list[Val]) -> Val | None:
        """Index arithmetic that keeps a constant step, or None."""
        if any(v.is_vector for v in xs):
            return None
        if op.name == "add":
            return Val(self.b.add(xs[0].value, xs[1].value), xs[0].stride + xs[1].stride)
        if op.name == "sub":
            return Val(self.b.sub(xs[0].value, xs[1].value), xs[0].stride - xs[1].stride)
        if op.name == "mul" and isinstance(xs[1].value, ll.Constant) and not xs[1].stride:
            value = self.b.mul(xs[0].value, xs[1].value)
            return Val(value, xs[0].stride * xs[1].value.constant)
        return None

    # Memory

    def address(self, buffer: Value, indices: Sequence[Value]) -> Val:
        """The element offset of an access: uniform, stepping, or a vector of offsets."""
        type = buffer.type
        assert isinstance(type, BufferType)
        total: Val | None = None
        weight = 1
        for size, index in zip(reversed(type.shape), reversed(indices)):
            at = self.env[index]
            if at.is_vector:
                term = Val(self.b.mul(at.value, constant(at.value, weight)))
            elif weight == 1:
                term = at
            else:
                term = Val(self.b.mul(at.value, self.i64(weight)), at.stride * weight)
            weight *= size
            total = term if total is None else self._plus(total, term)
        return total if total is not None else Val(self.i64(0))

    def _plus(self, x: Val, y: Val) -> Val:
        if x.is_vector or y.is_vector:
            return Val(self.b.add(self.wide(x), self.wide(y)))
        return Val(self.b.add(x.value, y.value), x.stride + y.stride)

    def memory(self, buffer: Value) -> Value:
        """The buffer whose memory `buffer` is, or is a view of."""
        return self.owner.get(buffer, buffer)

    def element(self, buffer: Value, offset: Any) -> Any:
        """The address of an element."""
        kind = MEMORY[buffer.type.dtype]
        return self.b.gep(self.pointer(buffer), [offset], inbounds=True, source_etype=kind)

    def load(self, buffer: Value, indices: Sequence[Value]) -> Val:
        """Load one element, a run of them, or one a lane."""
        dtype = buffer.type.dtype
        at = self.address(buffer, indices)
        if not at.is_vector and at.stride == 0:
            return Val(self._load(buffer, at.value, 0))
        if not at.is_vector and at.stride == 1:
            return Val(self._load(buffer, at.value, self.lanes))
        offsets = self.wide(at)
        kind = vector(REGISTER[dtype], self.lanes)
        out = ll.Constant(kind, ll.Undefined)
        for i in range(self.lanes):
            lane = ll.Constant(INT32, i)
            one = self._load(buffer, self.b.extract_element(offsets, lane), 0)
            out = self.b.insert_element(out, one, lane)
        return Val(out)

    def _load(self, buffer: Value, offset: Any, lanes: int) -> Any:
        dtype = buffer.type.dtype
        kind = vector(MEMORY[dtype], lanes)
        raw = self.b.load(self.element(buffer, offset), align=dtype.itemsize, typ=kind)
        return self.b.trunc(raw, vector(REGISTER[BOOL], lanes)) if dtype is BOOL else raw

    def store(self, val: Val, buffer: Value, indices: Sequence[Value]) -> None:
        """Store one element, a run, or one a lane."""
        at = self.address(buffer, indices)
        if not at.is_vector and at.stride == 0:
            value = val.value
            if val.is_vector or val.stride:
                value = self.b.extract_element(self.wide(val), ll.Constant(INT32, self.lanes - 1))
            self._store(value, buffer, at.value)
        elif not at.is_vector and at.stride == 1:
            self._store(self.wide(val), buffer, at.value)
        else:
            offsets, values = self.wide(at), self.wide(val)
            for i in range(self.lanes):
                lane = ll.Constant(INT32, i)
                one = self.b.extract_element(values, lane)
                self._store(one, buffer, self.b.extract_element(offsets, lane))

    def _store(self, value: Any, buffer: Value, offset: Any) -> None:
        dtype: DType = buffer.type.dtype
        if dtype is BOOL:
            lanes = value.type.count if isinstance(value.type, ll.VectorType) else 0
            value = self.b.zext(value, vector(MEMORY[BOOL], lanes))
        self.b.store(value, self.element(buffer, offset), align=dtype.itemsize)


def scalar_dtype(v: Value) -> DType:
    """The dtype of a scalar value."""
    assert isinstance(v.type, TensorType)
    return v.type.dtype


Rule = Callable[[Emitter, Op], None]
RULES: dict[str, Rule] = {}
OUTLINED = ("loop.nest", "loop.gemm")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register an emission rule."""

    def add(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return add


@rule("const")
def _const(e: Emitter, op: Op) -> None:
    dtype = op.attrs["type"].dtype
    value = op.attrs["value"]
    if dtype.is_float:
        value = float(dtype.numpy.type(value))
    elif dtype is BOOL:
        value = int(value)
    else:
        value = int(np.asarray(value, dtype.numpy))
    e.env[op.results[0]] = Val(ll.Constant(REGISTER[dtype], value))


@rule("loop.load")
def _load(e: Emitter, op: Op) -> None:
    e.env[op.results[0]] = e.load(op.operands[0], op.operands[1:])


@rule("loop.store")
def _store(e: Emitter, op: Op) -> None:
    e.store(e.env[op.operands[0]], op.operands[1], op.operands[2:])


@rule("loop.accumulate")
def _accumulate(e: Emitter, op: Op) -> None:
    value, buffer, *indices = op.operands
    old = e.load(buffer, indices).value
    new = e.env[value].value
    dtype = scalar_dtype(value)
    total = e.b.fadd(old, new) if dtype.is_float else e.b.add(old, new)
    e.store(Val(total), buffer, indices)


@rule("loop.alloc")
def _alloc(e: Emitter, op: Op) -> None:
    offset = op.attrs["offset"]
    assert offset >= 0, "memory is planned before emission"
    base = e.env[ARENA].value
    address = e.b.gep(base, [e.i64(offset)], inbounds=True, source_etype=ll.IntType(8))
    e.env[op.results[0]] = Val(address)


ARENA = Value(BufferType(BOOL, (1,)), "arena")


@rule("loop.const")
def _dense(e: Emitter, op: Op) -> None:
    type: BufferType = op.attrs["type"]
    data = np.ascontiguousarray(np.broadcast_to(op.attrs["value"], type.shape), type.dtype.numpy)
    raw = bytearray(data.tobytes())
    kind = ll.ArrayType(ll.IntType(8), len(raw))
    table = ll.GlobalVariable(e.module, kind, e.module.get_unique_name("dense"))
    table.linkage, table.global_constant, table.align = "internal", True, 64
    table.initializer = ll.Constant(kind, raw)
    table.type = POINTER
    e.env[op.results[0]] = Val(table)


@rule("loop.view")
def _view(e: Emitter, op: Op) -> None:
    e.env[op.results[0]] = e.env[op.operands[0]]
    e.owner[op.results[0]] = e.memory(op.operands[0])


@rule("loop.subview")
def _subview(e: Emitter, op: Op) -> None:
    source, *indices = op.operands
    shape = source.type.shape
    weight = int(np.prod(shape[len(indices) :], dtype=np.int64))
    total = e.i64(0)
    for index, size in zip(indices, shape):
        total = e.b.add(e.b.mul(total, e.i64(size)), e.env[index].value)
    e.env[op.results[0]] = Val(e.element(source, e.b.mul(total, e.i64(weight))))
    e.owner[op.results[0]] = e.memory(source)


@rule("loop.for")
def _for(e: Emitter, op: Op) -> None:
    trips = op.attrs["trips"]
    if not trips:
        return
    with e.loop(trips, op.attrs["reverse"]) as i:
        if not e.lanes and ARENA in e.env:
            check_cancelled(e)
        e.env[op.regions[0].params[0]] = Val(i)
        e.ops(op.regions[0].ops)


def check_cancelled(e: Emitter) -> None:
    """Leave the function with status 1 if the caller asked it to stop."""
    if e.function.name != ENTRY:
        return
    # Atomic: LLVM would move a plain load out of the loop, as nothing inside writes the flag.
    flag = e.b.load_atomic(e.function.args[2], "acquire", 4, typ=INT32)
    stop = e.b.icmp_signed("!=", flag, ll.Constant(INT32, 0))
    with e.b.if_then(stop, likely=False):
        e.b.ret(ll.Constant(INT32, 1))


@rule("loop.while")
def _while(e: Emitter, op: Op) -> None:
    cond, body = op.regions
    b = e.b
    head, inside = b.append_basic_block("while"), b.append_basic_block("body")
    after = b.append_basic_block("done")
    b.branch(head)
    b.position_at_end(head)
    check_cancelled(e)
    e.ops(cond.ops)
    b.cbranch(e.env[cond.results[0]].value, inside, after)
    b.position_at_end(inside)
    e.ops(body.ops)
    b.branch(head)
    b.position_at_end(after)


@rule("loop.switch")
def _switch(e: Emitter, op: Op) -> None:
    b, count = e.b, len(op.regions)
    index = e.env[op.operands[0]].value
    after = b.append_basic_block("joined")
    blocks = [b.append_basic_block("case") for _ in op.regions]
    high = b.icmp_signed(">=", index, e.i64(count))
    low = b.icmp_signed("<", index, e.i64(0))
    held = b.select(high, e.i64(count - 1), b.select(low, e.i64(0), index))
    switch = b.switch(held, blocks[-1])
    for i, block in enumerate(blocks[:-1]):
        switch.add_case(e.i64(i), block)
    for block, region in zip(blocks, op.regions):
        b.position_at_end(block)
        e.ops(region.ops)
        b.branch(after)
    b.position_at_end(after)


def emit_module(function: Function, register_bytes: int) -> ll.Module:
    """The LLVM module of a loop-level function: `i32 wengert_main(arena, buffers, cancel)`.

    `buffers` is an array of pointers to inputs, then outputs. The result is 0, or 1 if the
    word at `cancel` was found set.
    """
    from . import kernels, nests  # noqa: F401  (their rules register on import)

    module = ll.Module("wengert")
    kind = ll.FunctionType(INT32, [POINTER, POINTER, POINTER])
    entry = ll.Function(module, kind, ENTRY)
    for arg in entry.args:
        arg.add_attribute("noalias")
    e = Emitter(module, entry, register_bytes)
    e.shares = True
    e.outlines = sum(op.name in OUTLINED for op in walk(function.body)) > MANY_NESTS
    e.env[ARENA] = Val(entry.args[0])
    for i, param in enumerate(function.params):
        slot = e.b.gep(entry.args[1], [e.i64(i)], inbounds=True, source_etype=POINTER)
        e.env[param] = Val(e.b.load(slot, align=8, typ=POINTER))
    e.ops(function.body.ops)
    e.b.ret(ll.Constant(INT32, 0))
    return module


def widest_float(block: Block) -> int:
    """Bytes of the widest float that a block computes with, 4 if none."""
    for op in walk(block):
        for r in op.results:
            if isinstance(r.type, TensorType) and r.type.dtype is F64:
                return F64.itemsize
    return F32.itemsize
