"""Loop nests over tensor expressions: what is computed where, and what is stored.

A `Nest` is a loop nest under construction. `read(v, index)` writes the scalar that tensor v
holds at an index: a load where v has memory, else the expression of the op that makes v, at
the index that the op maps it to. Each (tensor, index) pair is written once, in the outermost
scope that the index allows, so that work shared by outputs or independent of inner loops is
done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value
from ..ir.linalg import free_axes
from ..ir.loops import INDEX
from ..ir.opdef import OPS
from ..ir.types import BOOL, I64, TensorType
from .index_maps import Scope, Writer, reshape_index, stride_of

if TYPE_CHECKING:
    from .bufferize import Bufferizer

Index = tuple[Value, ...]
PARALLEL_WORK = 2_000_000  # scalar operations below which threads do not pay
REDUCTIONS = {
    "reduce_sum": "add",
    "reduce_prod": "mul",
    "reduce_max": "max",
    "reduce_min": "min",
    "argmax": "argmax",
    "argmin": "argmin",
    "dot_general": "add",
}


class Conflict(Exception):
    """A root cannot join a nest: it reads what the nest has not stored yet."""


class SharedLoop:
    """A reduction loop that several results come from: its op, scope and body parameters."""

    def __init__(self, op: Op, scope: Scope) -> None:
        self.op = op
        self.scope = scope
        (self.body,) = op.regions


class Nest:
    """One loop nest. `position` is its place in the order of items of its block."""

    def __init__(self, host: Bufferizer, dims: tuple[int, ...], position: int) -> None:
        self.host = host
        self.dims = dims
        self.position = position
        self.block = Block([Value(INDEX, "ijklmnpq"[i % 8]) for i in range(len(dims))])
        self.w = Writer(self.block)
        self.index: Index = tuple(self.block.params)
        self.members: dict[Value, Value] = {}
        self.reads: dict[Value, bool] = {}  # buffers read, and whether only at this index
        self.loads: list[tuple[Op, int]] = []
        self.work = 0  # scalar operations in reductions, an iteration
        self.loops: dict[tuple[tuple[int, ...], Index], SharedLoop] = {}

    def add_root(self, root: Value) -> None:
        """Compute `root`, whose shape is the nest's; raises Conflict with nothing changed."""
        marks = (len(self.block.ops), len(self.w.scope.journal), dict(self.reads), len(self.loads))
        try:
            self.members[root] = self.compute(root, self.index)
        except Conflict:
            del self.block.ops[marks[0] :]
            for key in self.w.scope.journal[marks[1] :]:
                self.w.scope.memo.pop(key, None)
            del self.w.scope.journal[marks[1] :]
            self.reads = marks[2]
            del self.loads[marks[3] :]
            self.w.scope = self._bottom()
            raise

    def _bottom(self) -> Scope:
        scope = self.w.scope
        while scope.outer is not None:
            scope = scope.outer
        return scope

    def read(self, v: Value, index: Index) -> Value:
        """The scalar that v holds at `index`."""
        found = self.w.recall((v, index))
        if found is not None:
            return found
        if v in self.members:
            if index != self.index:
                raise Conflict
            return self.members[v]
        if v in self.host.place:
            return self.load(v, index)
        return self.compute(v, index)

    def load(self, v: Value, index: Index) -> Value:
        """A load from v's buffer, if it is filled before this nest."""
        if self.host.ready.get(v, -1) >= self.position:
            raise Conflict
        buffer = self.host.place[v]
        identity = index == self.index
        self.reads[buffer] = self.reads.get(buffer, True) and identity
        value = self.w.write("loop.load", (buffer, *index), (v, index))
        self.loads.append((self.w.makers[value], self.w.depths[value]))
        return value

    def compute(self, v: Value, index: Index) -> Value:
        """The expression of v at `index`."""
        op = self.host.makers.get(v)
        if op is None:
            raise Conflict
        rule = INDEXED.get(op.name)
        if rule is not None:
            value = rule(self, op, index)
        elif OPS[op.name].elementwise:
            for inner in self._chain(v, index):
                self._elementwise(inner, index)
            value = self._elementwise(op, index)
        elif op.name in REDUCTIONS:
            value = self.reduce(v, op, index)
        else:
            raise Conflict
        return self.w.remember((v, index), value)

    def _elementwise(self, op: Op, index: Index) -> Value:
        operands = [self.read(x, index) for x in op.operands]
        value = self.w.write(op.name, operands, **op.attrs)
        return self.w.remember((op.results[0], index), value)

    def _chain(self, v: Value, index: Index) -> list[Op]:
        """Elementwise ops that v needs at the same index, operands first, without v's own.

        They are written in this order rather than by recursion: chains can be very long.
        """
        order: list[Op] = []
        seen = {v}
        stack = [(v, iter(self.host.makers[v].operands))]
        while stack:
            current, operands = stack[-1]
            for x in operands:
                op = self.host.makers.get(x)
                if op is None or x in seen or not OPS[op.name].elementwise or op.name in INDEXED:
                    continue
                if x in self.members or x in self.host.place or self.w.recall((x, index)):
                    continue
                seen.add(x)
                stack.append((x, iter(op.operands)))
                break
            else:
                stack.pop()
                order.append(self.host.makers[current])
        return order[:-1]

    def reduce(self, v: Value, op: Op, index: Index) -> Value:
        """A reduction at one output index: a loop inside."""
        if v in self.host.shared.group:
            return self._shared_reduce(op, index)
        dims, element = _reduction(op)
        params = [Value(INDEX, "rstu"[i % 4]) for i in range(len(dims))]
        body = Block(list(params))
        self.w.push(body)
        before, work, self.work = len(self.loads), self.work, 0
        value = element(self, index, tuple(params))
        self.w.pop()
        body.results = [value]
        kind = REDUCTIONS[op.name]
        simd = self._reduce_simd(params, before)
        result = Value(INDEX if kind.startswith("arg") else value.type)
        depth = max([self.w.depths.get(i, 0) for i in index], default=0)
        scope = self.w._at(max(depth, 0))
        attrs = {"dims": dims, "kinds": (kind,), "simd": simd}
        made = Op("loop.reduce", (), attrs, (body,), (result,))
        scope.block.ops.append(made)
        self.w.depths[result] = depth
        self.work = work + math.prod(dims) * (self.work + len(body.ops))
        out = self.host.makers[v].results[0].type
        assert isinstance(out, TensorType)
        if kind.startswith("arg"):
            result = self.w.write("convert", (result,), dtype=out.dtype)
        return result

    def _shared_reduce(self, op: Op, index: Index) -> Value:
        """A reduction in the loop that others run over, behind what that loop needs by now."""
        dims, element = _reduction(op)
        loop = self.loops.get((dims, index))
        before = len(self.loads)
        if loop is None:
            body = Block([Value(INDEX, "rstu"[i % 4]) for i in range(len(dims))])
            scope = self.w.push(body)
            made = Op("loop.reduce", (), {"dims": dims, "kinds": (), "simd": -1}, (body,), ())
            loop = self.loops[dims, index] = SharedLoop(made, scope)
        else:
            self.block.ops.remove(loop.op)
            self.w.scope = loop.scope
        inside, around = len(loop.body.ops), len(self.block.ops)
        noted = len(loop.scope.journal)
        try:
            value = element(self, index, tuple(loop.body.params))
        except Conflict:
            del loop.body.ops[inside:], self.block.ops[around:]
            for key in loop.scope.journal[noted:]:
                loop.scope.memo.pop(key, None)
            del loop.scope.journal[noted:]
            if loop.op.results:
                self.block.ops.append(loop.op)
            else:
                del self.loops[dims, index]
            raise
        self.w.pop()
        self.block.ops.append(loop.op)
        result = Value(value.type)
        loop.body.results.append(value)
        loop.op.results = (*loop.op.results, result)
        attrs = loop.op.attrs
        attrs["kinds"] = (*attrs["kinds"], REDUCTIONS[op.name])
        if attrs["simd"] < 0:
            attrs["simd"] = self._reduce_simd(loop.body.params, before)
        self.w.depths[result] = max([self.w.depths.get(i, 0) for i in index], default=0)
        self.work += math.prod(dims) * (len(loop.body.ops) - inside)
        return result

    def _reduce_simd(self, params: Sequence[Value], before: int) -> int:
        """The reduced dim that loads run along, -1 where the nest's own dims serve better."""
        scores = {}
        for i, p in enumerate(params):
            scores[i] = sum(self._unit(op, p) for op, _ in self.loads[before:])
        best = max(scores, key=lambda i: (scores[i], i), default=-1)
        outer = max(
            (sum(self._unit(op, p) for op, _ in self.loads[before:]) for p in self.index), default=0
        )
        if best >= 0 and (scores[best] >= outer or not self.dims):
            return best
        return -1

    def _unit(self, op: Op, variable: Value) -> bool:
        """Whether a load walks memory one by one as `variable` grows."""
        return _address_stride(self.w, op, variable) == 1

    def rename(self, old: Value, new: Value) -> None:
        """Read from buffer `new` where loads name `old`."""
        if old in self.reads:
            self.reads[new] = self.reads.pop(old) and self.reads.get(new, True)
            for op, _ in self.loads:
                if op.operands[0] is old:
                    op.operands = (new, *op.operands[1:])

    def finish(self) -> tuple[int, int]:
        """(parallel, simd) attributes for the nest as it stands."""
        total = (self.work + len(self.block.ops)) * math.prod(self.dims)
        parallel = 1 if self.dims and total > PARALLEL_WORK else 0
        reduces = [op for op in self.block.ops if op.name == "loop.reduce"]
        if any(op.attrs["simd"] >= 0 for op in reduces):
            return parallel, -1
        # A load in a reduction runs many times where others run once; scattered stores are slow.
        accesses = [(op, 4 if depth else 1) for op, depth in self.loads]
        accesses += [(op, 3) for op in self.stores()]
        best, simd = -1, -1
        for i, p in enumerate(self.index):
            score = sum(weight for op, weight in accesses if _address_stride(self.w, op, p) == 1)
            if self.dims[i] > 1 and (score > best or (score == best and i > simd)):
                best, simd = score, i
        return parallel, simd

    def stores(self) -> list[Op]:
        """The stores of the nest."""
        return [op for op in self.block.ops if op.name in ("loop.store", "loop.accumulate")]


def _address_stride(w: Writer, op: Op, variable: Value) -> int | None:
    """How a load's or store's address moves with a loop variable, in elements."""
    first = 1 if op.name == "loop.load" else 2
    buffer = op.operands[first - 1]
    stride, total = 1, 0
    for size, index in zip(reversed(buffer.type.shape), reversed(op.operands[first:])):
        step = stride_of(w, index, variable)
        if step is None:
            return None
        total += step * stride
        stride *= size
    return total


Element = Callable[[Nest, Index, Index], Value]


def _reduction(op: Op) -> tuple[tuple[int, ...], Element]:
    """(reduced dims, how to compute the element at an output and a reduced index)."""
    if op.name == "dot_general":
        return _dot_reduction(op)
    source = op.operands[0]
    shape = Builder.type(source).shape
    axes = tuple(op.attrs["axes"]) if "axes" in op.attrs else (op.attrs["axis"],)
    kept = [i for i in range(len(shape)) if i not in axes]

    def element(nest: Nest, index: Index, inner: Index) -> Value:
        full: dict[int, Value] = dict(zip(kept, index)) | dict(zip(axes, inner))
        return nest.read(source, tuple(full[i] for i in range(len(shape))))

    return tuple(shape[a] for a in axes), element


def _dot_reduction(op: Op) -> tuple[tuple[int, ...], Element]:
    a, b = op.operands
    la, lb, ca, cb = (
        op.attrs[k] for k in ("lhs_batch", "rhs_batch", "lhs_contract", "rhs_contract")
    )
    sa, sb = Builder.type(a).shape, Builder.type(b).shape
    fa, fb = free_axes(len(sa), la, ca), free_axes(len(sb), lb, cb)

    def element(nest: Nest, index: Index, inner: Index) -> Value:
        n, m = len(la), len(la) + len(fa)
        left = dict(zip((*la, *fa, *ca), (*index[:m], *inner)))
        right = dict(zip((*lb, *fb, *cb), (*index[:n], *index[m:], *inner)))
        x = nest.read(a, tuple(left[i] for i in range(len(sa))))
        y = nest.read(b, tuple(right[i] for i in range(len(sb))))
        return nest.w.write("mul", (x, y))

    return tuple(sa[i] for i in ca), element


Rule = Callable[[Nest, Op, Index], Value]
INDEXED: dict[str, Rule] = {}


def _indexed(name: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        INDEXED[name] = rule
        return rule

    return add


@_indexed("const")
def _const(nest: Nest, op: Op, index: Index) -> Value:
    type = TensorType(op.attrs["type"].dtype)
    return nest.w.write("const", (), value=op.attrs["value"], type=type)


@_indexed("stop_gradient")
def _stop(nest: Nest, op: Op, index: Index) -> Value:
    return nest.read(op.operands[0], index)


@_indexed("iota")
def _iota(nest: Nest, op: Op, index: Index) -> Value:
    dtype = op.attrs["type"].dtype
    at = index[op.attrs["axis"]]
    return at if dtype is I64 else nest.w.write("convert", (at,), dtype=dtype)


@_indexed("broadcast")
def _broadcast(nest: Nest, op: Op, index: Index) -> Value:
    return nest.read(op.operands[0], tuple(index[a] for a in op.attrs["axes"]))


@_indexed("reshape")
def _reshape(nest: Nest, op: Op, index: Index) -> Value:
    source = op.operands[0]
    old = Builder.type(source).shape
    return nest.read(source, reshape_index(nest.w, index, op.attrs["shape"], old))


@_indexed("transpose")
def _transpose(nest: Nest, op: Op, index: Index) -> Value:
    perm = op.attrs["perm"]
    return nest.read(op.operands[0], tuple(index[perm.index(i)] for i in range(len(perm))))


@_indexed("slice")
def _slice(nest: Nest, op: Op, index: Index) -> Value:
    w = nest.w
    moved = [
        w.add(w.scale(i, by), w.index(lo))
        for i, lo, by in zip(index, op.attrs["start"], op.attrs["stride"])
    ]
    return nest.read(op.operands[0], tuple(moved))


@_indexed("reverse")
def _reverse(nest: Nest, op: Op, index: Index) -> Value:
    shape = Builder.type(op.operands[0]).shape
    axes = op.attrs["axes"]
    turned = [
        nest.w.sub(nest.w.index(n - 1), i) if axis in axes else i
        for axis, (i, n) in enumerate(zip(index, shape))
    ]
    return nest.read(op.operands[0], tuple(turned))


def _clamp(nest: Nest, v: Value, limit: int) -> Value:
    """A run-time index as i64 held to 0 .. limit."""
    w = nest.w
    if v.type != INDEX:
        v = w.write("convert", (v,), dtype=I64)
    return w.write("max", (w.write("min", (v, w.index(limit))), w.index(0)))


@_indexed("dynamic_slice")
def _dynamic_slice(nest: Nest, op: Op, index: Index) -> Value:
    source, *starts = op.operands
    shape, sizes = Builder.type(source).shape, op.attrs["sizes"]
    moved = []
    for i, start, n, m in zip(index, starts, shape, sizes):
        moved.append(i if n == m else nest.w.add(_clamp(nest, nest.read(start, ()), n - m), i))
    return nest.read(source, tuple(moved))


@_indexed("gather")
def _gather(nest: Nest, op: Op, index: Index) -> Value:
    source, where = op.operands
    axis, batch = op.attrs["axis"], op.attrs["batch"]
    count = Builder.type(where).rank - batch
    chosen = nest.read(where, (*index[:batch], *index[axis : axis + count]))
    at = _clamp(nest, chosen, Builder.type(source).shape[axis] - 1)
    return nest.read(source, (*index[:axis], at, *index[axis + count :]))


@_indexed("concatenate")
def _concatenate(nest: Nest, op: Op, index: Index) -> Value:
    """A chain of choices; each part is read at an index held inside it."""
    axis, w = op.attrs["axis"], nest.w
    out: Value | None = None
    end = Builder.type(op.results[0]).shape[axis]
    for part in reversed(op.operands):
        size = Builder.type(part).shape[axis]
        start = end - size
        if size:
            here = _clamp(nest, w.sub(index[axis], w.index(start)), size - 1)
            value = nest.read(part, (*index[:axis], here, *index[axis + 1 :]))
            if out is None:
                out = value
            else:
                before = w.write("lt", (index[axis], w.index(end)))
                out = w.write("select", (before, value, out))
        end = start
    if out is None:  # no elements at all: the nest runs nowhere
        return w.write("const", (), value=0, type=TensorType(Builder.type(op.results[0]).dtype))
    return out


@_indexed("pad")
def _pad(nest: Nest, op: Op, index: Index) -> Value:
    source, fill = op.operands
    w, shape = nest.w, Builder.type(source).shape
    inside: Value | None = None
    moved = []
    for i, lo, gap, n, total in zip(
        index, op.attrs["low"], op.attrs["interior"], shape, op.attrs["high"]
    ):
        if not lo and not total and not gap:
            moved.append(i)
            continue
        if n == 0:
            return nest.read(fill, ())
        offset = w.sub(i, w.index(lo))
        tests = [w.write("ge", (offset, w.index(0)))]
        reach = (n - 1) * (gap + 1)
        tests.append(w.write("le", (offset, w.index(reach))))
        held = _clamp(nest, offset, reach)
        if gap:
            held, rest = w.divmod(held, gap + 1)
            tests.append(w.write("eq", (rest, w.index(0))))
        moved.append(held)
        for test in tests:
            inside = test if inside is None else w.write("and", (inside, test))
    value = nest.read(source, tuple(moved))
    if inside is None:
        return value
    assert inside.type == TensorType(BOOL)
    return w.write("select", (inside, value, nest.read(fill, ())))
