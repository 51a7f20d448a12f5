"""Bufferisation: tensors become memory, ops become fused loop nests and kernel calls.

For each block, in order: choose the values that need memory (roots), write each root into a
loop nest that it can share, or as a kernel call; then emit the nests and calls in order.
Everything between roots is computed where it is used (fuse.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Op, Value, free_values, used_values
from ..ir.loops import INDEX, QUICK
from ..ir.opdef import OPS
from ..ir.types import BufferType, TensorType
from .fuse import INDEXED, REDUCTIONS, Conflict, Nest
from .opaque import BLAS_COUNTS, OPAQUE
from .plan_memory import plan_memory
from .shared_loops import Key, SharedLoops, shared_loops
from .split_reductions import split_reductions

LOOK_BACK = 12  # open nests that a new root tries to join
MOVES = 40  # index changes in a row before a value gets memory
EXPENSIVE = 8  # cost above which a value used twice gets memory
COSTLY = frozenset(
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "sigmoid",
        "softplus",
        "erf",
        "erfc",
        "erfinv",
        "lgamma",
        "digamma",
        "trigamma",
        "pow",
        "atan2",
        "threefry",
    ]
)
INLINE_DOT = 4096  # multiply-adds of a product that becomes a loop nest


def bufferize(module: Module) -> Module:
    """The loop-level form of the entry: input buffers, then output buffers, no results."""
    main = split_reductions(module.main)
    block = Block([Value(_buffer_type(p), p.name) for p in main.params])
    outputs = [Value(_buffer_type(r), "out") for r in main.results]
    host = Bufferizer(Builder(block, main.span), {}, {})
    for p, buffer in zip(main.params, block.params):
        host.place[p] = buffer
    block.params = [*block.params, *outputs]
    host.block(main.body, outputs)
    attrs = {"outputs": len(outputs), **{k: v for k, v in main.attrs.items() if k == QUICK}}
    function = Function(main.name, block, main.span, attrs)
    return Module({main.name: plan_memory(function)}, main.name)


def _buffer_type(v: Value) -> BufferType:
    type = Builder.type(v)
    return BufferType(type.dtype, type.shape)


Action = Callable[[], None]


class Item:
    """One step of a block: a nest, or a kernel call or control flow (`action`)."""

    def __init__(self, nest: Nest | None, action: Action | None, reads: Sequence[Value]) -> None:
        self.nest = nest
        self.action = action
        self.reads = set(reads)


class Bufferizer:
    """Bufferises one block. `place` maps tensors to buffers, `makers` to their ops.

    `ready` gives the item after which a buffer of this block is filled (-1: before all).
    """

    def __init__(self, b: Builder, place: dict[Value, Value], makers: dict[Value, Op]) -> None:
        self.b = b
        self.place = place
        self.makers = makers
        self.ready: dict[Value, int] = {}
        self.items: list[Item] = []
        self.uses: dict[Value, int] = {}
        self.roots: set[Value] = set()
        self.hops: dict[Value, int] = {}  # index changes between a value and memory
        self.wanted: dict[Value, Value] = {}
        self.own: set[Value] = set()  # values that ops of this block define
        self.owned: set[Value] = set()  # values whose memory this block may overwrite
        self.same: dict[Value, Value] = {}  # buffers that are others' memory: views, reuse
        self.updates: list[tuple[int, Value, Value, list[Value]]] = []
        self.views: list[Op] = []
        self.results: set[Value] = set()
        self.last: dict[Value, int] = {}  # the last item that reads each memory
        self.shared = SharedLoops([])  # reductions of this block that share a loop
        self.nests: dict[Key, Nest] = {}  # where they are

    # Planning

    def carry(self, params: Sequence[Value], states: Sequence[Value]) -> None:
        """Bind loop carries to their memory, which the body may overwrite."""
        self.place.update(zip(params, states))
        self.owned.update(params)

    def block(
        self,
        block: Block,
        outputs: Sequence[Value],
        moving: Sequence[tuple[Value, Value]] = (),
    ) -> None:
        """Write a block whose results go to the buffers `outputs`.

        moving: (temporary, state) pairs of a loop: outputs that are moved over the loop's
        state at the end; those that can be computed in the state itself are.
        """
        self.shared = shared_loops(block)
        block = Block(block.params, self.shared.order, block.results)
        self._count_uses(block)
        self._choose_roots(block)
        for result, buffer in zip(block.results, outputs):
            if result in self.own and result not in self.wanted:
                self.wanted[result] = buffer
        for op in block.ops:
            self.b.span = op.span
            self.schedule(op)
        states = dict(moving)
        self._note_last_reads()
        self._reuse(block)
        direct = self._write_directly(block, list(outputs), states)
        self.results.update(block.results)
        self.emit()
        for result, buffer in zip(block.results, outputs):
            if buffer in states and self.place.get(result) is states[buffer]:
                direct.add(buffer)  # unchanged, or updated in place
            if buffer not in direct:
                self.copy(result, buffer)
        for temporary, state in moving:
            if temporary not in direct:
                self.b.op("loop.call", [temporary, state], kernel="copy")

    def _write_directly(
        self, block: Block, outputs: list[Value], states: dict[Value, Value]
    ) -> set[Value]:
        """Loop results computed straight into the loop's state: nothing reads it afterwards."""
        direct: set[Value] = set()
        for result, buffer in zip(block.results, outputs):
            state = states.get(buffer)
            at = self.ready.get(result, -1)
            if state is None or self.place.get(result) is not buffer or at < 0:
                continue
            nest = self.items[at].nest
            kept = any(self.memory(r) is state for r in block.results)
            if nest is None or kept or self.last.get(state, -1) > at:
                continue
            reads = [b for b in nest.reads if self._base(b) is state]
            if any(b is not state or not nest.reads[b] for b in reads):
                continue
            self._rename(result, state)
            direct.add(buffer)
        return direct

    # Memory shared by values

    def _base(self, buffer: Value) -> Value:
        while buffer in self.same:
            buffer = self.same[buffer]
        return buffer

    def memory(self, v: Value) -> Value | None:
        """The buffer whose memory holds v, behind views; None where v has no memory."""
        return self._base(self.place[v]) if v in self.place else None

    def _rename(self, v: Value, buffer: Value) -> None:
        """Keep v in `buffer` instead of where it was."""
        old = self.place[v]
        if old is buffer:
            return
        self.place[v] = buffer
        self.same[old] = buffer
        self.last[buffer] = max(self.last.get(buffer, -1), self.last.get(old, -1))
        for item in self.items:
            if item.nest is not None:
                item.nest.rename(old, buffer)
        for op in self.views:
            if op.operands[0] is old:
                op.operands = (buffer,)

    def _note_last_reads(self) -> None:
        for at, item in enumerate(self.items):
            for buffer in item.nest.reads if item.nest else item.reads:
                self.last[self._base(buffer)] = at

    def _reuse(self, block: Block) -> None:
        """Let updates and loops work in the memory of what they start from.

        That needs the memory to be this block's own, and nothing to read it afterwards.
        """
        for at, source, result, others in self.updates:
            memory = self.memory(source)
            if memory is None or source not in self.owned or self.last.get(memory, -1) > at:
                continue
            if any(self.memory(v) is memory for v in others):
                continue
            if any(self.memory(r) is memory for r in block.results if r is not result):
                continue
            self._rename(result, memory)

    def _count_uses(self, block: Block) -> None:
        for op in block.ops:
            for r in op.results:
                self.makers[r] = op
                self.own.add(r)
            for v in used_values(op):
                self.uses[v] = self.uses.get(v, 0) + 1
        for v in block.results:
            self.uses[v] = self.uses.get(v, 0) + 1

    def _choose_roots(self, block: Block) -> None:
        self.roots.update(block.results)
        costs: dict[Value, int] = {}
        for op in block.ops:
            if op.name in REDUCTIONS and not self._is_gemm(op):
                self.roots.update(op.results)
                self._protect(op, costs)
                for r in op.results:
                    costs[r] = 2
            elif op.name in INDEXED or OPS[op.name].elementwise:
                self._weigh(op, costs)
            else:
                self.roots.update(v for v in op.operands)
                self.roots.update(v for r in op.regions for v in free_values(r))
                for r in op.results:
                    costs[r] = 2

    def _weigh(self, op: Op, costs: dict[Value, int]) -> None:
        """The cost of computing an op's value where it is used; a root if that is too much."""
        (v,) = op.results
        own = 10 if op.name in COSTLY else 1
        cost = own + sum(costs.get(x, 1) for x in set(op.operands) if x not in self.roots)
        if op.name in ("const", "iota"):
            cost = 0
        size = Builder.type(v).size
        if op.name in ("broadcast", "gather", "concatenate", "pad", "reshape"):
            self._protect(op, costs)
            cost = min(cost, 3)
        fused = v in self.shared.fused
        if self.uses.get(v, 0) > 1 and cost > EXPENSIVE and size and not fused:
            self.roots.add(v)
            cost = 2
        hops = max((self.hops.get(x, 0) for x in op.operands if x not in self.roots), default=0)
        self.hops[v] = hops + (op.name in INDEXED)
        if self.hops[v] > MOVES and not fused:
            self.roots.add(v)
            cost = 2
        costs[v] = min(cost, 1000)

    def _protect(self, op: Op, costs: dict[Value, int]) -> None:
        """Give memory to operands that `op` would compute again and again."""
        for x in op.operands:
            source = self.makers.get(x)
            if source is None or source.name in ("const", "iota") or x in self.roots:
                continue
            if x in self.shared.fused:
                continue
            shape = Builder.type(x).shape
            if op.name == "broadcast":
                leading = tuple(op.attrs["axes"]) == tuple(range(len(shape)))
                repeated = Builder.type(op.results[0]).size > Builder.type(x).size
                if repeated and not (leading and shape) and costs.get(x, 0) > EXPENSIVE:
                    self.roots.add(x)
            elif op.name == "reshape":
                old = [n for n in shape if n != 1]
                new = [n for n in op.attrs["shape"] if n != 1]
                if old != new and costs.get(x, 0) > EXPENSIVE:
                    self.roots.add(x)
            elif op.name == "dot_general":
                if costs.get(x, 0) > 2:
                    self.roots.add(x)
            elif op.name in ("gather", "concatenate", "pad") and costs.get(x, 0) > EXPENSIVE:
                self.roots.add(x)

    def _is_gemm(self, op: Op) -> bool:
        """Whether a product is worth a matrix kernel."""
        if op.name != "dot_general":
            return False
        a, out = Builder.type(op.operands[0]), Builder.type(op.results[0])
        if not a.dtype.is_float:
            return False
        k = math.prod(a.shape[i] for i in op.attrs["lhs_contract"])
        n = len(op.attrs["lhs_batch"])
        batch = math.prod(out.shape[:n])
        free_a = a.rank - n - len(op.attrs["lhs_contract"])
        rows = math.prod(out.shape[n : n + free_a])
        cols = math.prod(out.shape[n + free_a :])
        counts = max(rows, cols, k) < BLAS_COUNTS
        return bool(batch and min(rows, cols) > 1 and rows * cols * k > INLINE_DOT and counts)

    # Scheduling

    def schedule(self, op: Op) -> None:
        """Place an op: nothing for a value computed at its uses, a nest, or a call."""
        if op.name == "const" and not isinstance(op.attrs["value"], int | float | bool):
            self.constant(op)
        elif (
            op.name == "reshape"
            and op.operands[0] in self.place
            and op.results[0] not in self.wanted
        ):
            self.view(op)
        elif op.name in INDEXED or OPS[op.name].elementwise:
            if (op.results[0] in self.roots and op.name != "const") or (
                op.results[0] in self.roots and op.results[0] in self.wanted
            ):
                self.root(op.results[0])
        elif op.name in REDUCTIONS and not self._is_gemm(op):
            self.root(op.results[0])
        else:
            OPAQUE[op.name](self, op)

    def constant(self, op: Op) -> None:
        """A dense literal: read-only memory."""
        (v,) = op.results
        type = _buffer_type(v)
        self.place[v] = self.b.op("loop.const", value=op.attrs["value"], type=type)[0]
        self.ready[v] = -1

    def view(self, op: Op) -> None:
        """A reshape of what has memory: the same memory."""
        (v,) = op.results
        source = self.place[op.operands[0]]
        (self.place[v],) = self.b.op("loop.view", [source], type=_buffer_type(v))
        self.same[self.place[v]] = source
        self.views.append(self.b.block.ops[-1])
        self.ready[v] = self.ready.get(op.operands[0], -1)

    def buffer_for(self, v: Value) -> Value:
        """The memory that v is to be written to: where it is wanted, or new."""
        buffer = self.wanted.get(v)
        return self.alloc(_buffer_type(v)) if buffer is None else buffer

    def alloc(self, type: BufferType) -> Value:
        """New memory of the function."""
        return self.b.op("loop.alloc", offset=-1, type=type)[0]

    def root(self, v: Value) -> None:
        """Compute v in an open nest of its shape, or in a new one."""
        key = self.shared.group.get(v)
        if key is not None:
            self._shared_root(v, key)
            return
        dims = Builder.type(v).shape
        for item in self.items[: -LOOK_BACK - 1 : -1]:
            nest = item.nest
            if nest is None or nest.dims != dims:
                continue
            try:
                nest.add_root(v)
            except Conflict:
                continue
            self._placed(v, nest)
            return
        self._placed(v, self._new_nest(v))

    def _new_nest(self, v: Value) -> Nest:
        """A nest of its own for v."""
        nest = Nest(self, Builder.type(v).shape, len(self.items))
        nest.add_root(v)
        self.items.append(Item(nest, None, ()))
        return nest

    def _shared_root(self, v: Value, key: Key) -> None:
        """Compute a reduction in the loop of its group."""
        nest = self.nests.get(key)
        try:
            if nest is not None:
                nest.add_root(v)
        except Conflict:  # something else of its ops has filled memory since
            nest = None
        if nest is None:
            nest = self.nests[key] = self._new_nest(v)
        self._placed(v, nest)

    def _placed(self, v: Value, nest: Nest) -> None:
        self.place[v] = self.buffer_for(v)
        self.ready[v] = nest.position
        self.owned.add(v)

    def defer(
        self,
        action: Action,
        reads: Sequence[Value],
        writes: Sequence[Value],
        updates: Sequence[tuple[Value, Value]] = (),
    ) -> None:
        """Add a call or control flow that fills the buffers of `writes`.

        updates: (value read, value written) pairs that may share memory if nothing else
        needs the first: each once among `reads`.
        """
        for v in writes:
            self.ready[v] = len(self.items)
            self.owned.add(v)
        for source, result in updates:
            others = list(reads)
            others.remove(source)
            self.updates.append((len(self.items), source, result, others))
        self.items.append(Item(None, action, [self.place[v] for v in reads if v in self.place]))

    # Emission

    def emit(self) -> None:
        """Write the items in order."""
        for item in self.items:
            if item.nest is not None:
                self._emit_nest(item.nest)
            elif item.action is not None:
                item.action()

    def _emit_nest(self, nest: Nest) -> None:
        b = Builder(nest.block)
        for v, value in nest.members.items():
            if v in self.results or self.memory(v) in self.last:  # else only used in this nest
                b.op("loop.store", [value, self.place[v], *nest.index])
        parallel, simd = nest.finish()
        self.b.op("loop.nest", [], [nest.block], dims=nest.dims, parallel=parallel, simd=simd)

    def copy(self, v: Value, buffer: Value) -> None:
        """Bring v to `buffer`, if it is not there."""
        op = self.makers.get(v)
        if v in self.place:
            source = self.place[v]
            if source is not buffer:
                self.b.op("loop.call", [source, buffer], kernel="copy")
        elif op is not None and op.name == "const":
            self.fill(buffer, op)
        else:
            raise KeyError(f"{v} was never computed")

    def fill(self, buffer: Value, op: Op) -> None:
        """Fill memory with a constant."""
        dims = buffer.type.shape
        body = Block([Value(INDEX, "i") for _ in dims])
        nb = Builder(body)
        (value,) = nb.op("const", value=op.attrs["value"], type=TensorType(buffer.type.dtype))
        nb.op("loop.store", [value, buffer, *body.params])
        simd = len(dims) - 1
        self.b.op("loop.nest", [], [body], dims=dims, parallel=0, simd=simd)

    def inner(self, b: Builder) -> Bufferizer:
        """A bufferiser for a region of this block."""
        return Bufferizer(b, dict(self.place), dict(self.makers))

    def materialised(self, v: Value, b: Builder) -> Value:
        """The buffer of v at emission time, filled with a constant where it has none yet."""
        if v in self.place:
            return self.place[v]
        buffer = self.alloc(_buffer_type(v))
        self.copy(v, buffer)
        self.place[v] = buffer
        return buffer
