"""Loop nests and reductions: order of loops, vector lanes, tails, sharing among threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ll

from ...ir.core import Op, Value, free_values, used_values, walk
from ...ir.opdef import OPS
from .emit import HUGE_BODY, Emitter, Val, rule, scalar_dtype, widest_float
from .lanes import INT32, INT64, POINTER, REGISTER, VOID, constant, vector
from .parts import in_parts
from .scalar_ops import EMIT

CHAINS = ("threefry",)  # ops that are one long chain of dependent instructions
LONG_BODY = 300  # ops of a reduction above which vectors are one register wide
STEPS_A_TASK = 256  # vector loops of one dim are shared in runs of this many elements


@rule("loop.nest")
def _nest(e: Emitter, op: Op) -> None:
    dims = op.attrs["dims"]
    if 0 in dims:
        return
    if op.attrs["parallel"] and not e.lanes and e.shares:
        _parallel(e, op)
    else:
        Nest(e, op).emit(None)


class Nest:
    """The emission of one nest: ops sorted by the innermost loop whose index they need."""

    def __init__(self, e: Emitter, op: Op) -> None:
        self.e = e
        self.dims: tuple[int, ...] = op.attrs["dims"]
        self.simd: int = op.attrs["simd"]
        (self.body,) = op.regions
        rest = [d for d in range(len(self.dims)) if d != self.simd]
        self.order = rest + ([self.simd] if self.simd >= 0 else [])
        self.levels = self._sort_by_level()
        self.width = self._width()

    def _sort_by_level(self) -> list[list[Op]]:
        depth: dict[Value, int] = {self.body.params[d]: k + 1 for k, d in enumerate(self.order)}
        levels: list[list[Op]] = [[] for _ in range(len(self.order) + 1)]
        for op in self.body.ops:
            at = max((depth.get(v, 0) for v in used_values(op)), default=0)
            if not OPS[op.name].pure:
                at = len(self.order)
            for r in op.results:
                depth[r] = at
            levels[at].append(op)
        return levels

    def _width(self) -> int:
        """Lanes of the vectorised dim; 0 for none."""
        if self.simd < 0 or self.dims[self.simd] < 2:
            return 0
        width = self.e.register_bytes // widest_float(self.body)
        if any(op.name in CHAINS for op in self.body.ops):
            width *= 4  # several vectors at once hide how long each waits for itself
        elif len(self.body.ops) > HUGE_BODY:
            width *= 2
        return int(min(width, 2 ** int(math.log2(self.dims[self.simd]))))

    def _in_place(self) -> bool:
        """Whether the nest reads memory that it writes, so that no index may run twice."""
        ops = list(walk(self.body))
        written = {self.e.memory(op.operands[1]) for op in ops if op.name == "loop.store"}
        read = {self.e.memory(op.operands[0]) for op in ops if op.name == "loop.load"}
        effects = any(not OPS[op.name].pure and op.name != "loop.store" for op in ops)
        return effects or not written.isdisjoint(read)

    def emit(self, bounds: tuple[Any, Any] | None) -> None:
        """Emit the loops; `bounds` limit the outermost one, in the units of `tasks`."""
        self._level(0, bounds)

    def tasks(self) -> int:
        """How many independent parts the outermost loop has."""
        first = self.dims[self.order[0]]
        if len(self.order) == 1 and self.width:
            return max(1, first // STEPS_A_TASK)
        return first

    def _level(self, k: int, bounds: tuple[Any, Any] | None) -> None:
        e = self.e
        if k == len(self.order):
            in_parts(e, self.levels[k])
            return
        e.ops(self.levels[k])
        d = self.order[k]
        param = self.body.params[d]
        if d == self.simd and self.width:
            self._vector_loop(k, param, self.dims[d], bounds)
        elif bounds is not None:
            with e.range(*bounds) as i:
                e.env[param] = Val(i)
                self._level(k + 1, None)
        else:
            with e.loop(self.dims[d]) as i:
                e.env[param] = Val(i)
                self._level(k + 1, None)

    def _vector_loop(self, k: int, param: Value, size: int, bounds: tuple[Any, Any] | None) -> None:
        """Whole vectors, then the rest: a last vector moved back where that is harmless."""
        e, width = self.e, self.width
        whole, rest = divmod(size, width)
        overlap = bool(rest) and not self._in_place()
        count = whole + (1 if overlap else 0)

        def step(i: Any) -> None:
            start = e.b.mul(i, e.i64(width))
            if overlap:
                last = e.i64(size - width)
                start = e.b.select(e.b.icmp_signed(">", start, last), last, start)
            e.lanes = width
            e.env[param] = Val(start, 1)
            self._level(k + 1, None)
            e.lanes = 0

        if bounds is None:
            with e.loop(count) as i:
                step(i)
        else:
            first, last = (self._vector_bound(v, count) for v in bounds)
            with e.range(first, last) as i:
                step(i)
        if rest and not overlap:
            self._scalar_rest(k, param, whole * width, rest, bounds)

    def _vector_bound(self, task: Any, count: int) -> Any:
        """The vector at which a task starts: tasks share the vectors evenly."""
        b = self.e.b
        return b.udiv(b.mul(task, self.e.i64(count)), self.e.i64(self.tasks()))

    def _scalar_rest(
        self, k: int, param: Value, start: int, rest: int, bounds: tuple[Any, Any] | None
    ) -> None:
        e = self.e

        def run() -> None:
            with e.loop(rest) as i:
                e.env[param] = Val(e.b.add(i, e.i64(start)))
                self._level(k + 1, None)

        if bounds is None:
            run()
        else:
            mine = e.b.icmp_signed("==", bounds[1], e.i64(self.tasks()))
            with e.b.if_then(mine):
                run()


def _parallel(e: Emitter, op: Op) -> None:
    """A nest as a function of a range of tasks, run by the thread pool."""
    tasks = Nest(e, op).tasks()

    def body(inner: Emitter, begin: Any, end: Any) -> None:
        Nest(inner, op).emit((begin, end))

    share_tasks(e, free_values(op.regions[0]), tasks, body)


def share_tasks(
    e: Emitter,
    captured: Sequence[Value],
    tasks: int,
    body: Callable[[Emitter, Any, Any], None],
) -> None:
    """Call a new function that `body` writes, for ranges of tasks, on the thread pool.

    `captured` are the values of `e` that it uses.
    """
    kinds = [e.env[v].value.type for v in captured]
    frame = ll.LiteralStructType(kinds)
    name = e.module.get_unique_name("tasks")
    function = ll.Function(e.module, ll.FunctionType(VOID, [POINTER, INT64, INT64]), name)
    function.linkage = "internal"
    inner = Emitter(e.module, function, e.register_bytes)
    inner.owner = dict(e.owner)
    for i, v in enumerate(captured):
        slot = _field(inner, function.args[0], frame, i)
        inner.env[v] = Val(inner.b.load(slot, align=8, typ=kinds[i]))
    body(inner, function.args[1], function.args[2])
    inner.b.ret_void()
    memory = e.alloca(frame)
    for i, v in enumerate(captured):
        e.b.store(e.env[v].value, _field(e, memory, frame, i), align=8)
    run = _external(e, "wengert_parallel", [POINTER, POINTER, INT64])
    e.b.call(run, [function, memory, e.i64(tasks)])


def _field(e: Emitter, base: Any, frame: ll.Type, i: int) -> Any:
    index = [ll.Constant(INT32, 0), ll.Constant(INT32, i)]
    return e.b.gep(base, index, inbounds=True, source_etype=frame)


def _external(e: Emitter, name: str, kinds: Sequence[ll.Type]) -> Any:
    """A function of the runtime."""
    found = e.module.globals.get(name)
    if found is None:
        found = ll.Function(e.module, ll.FunctionType(VOID, list(kinds)), name)
    return found


# Reductions


@rule("loop.reduce")
def _reduce(e: Emitter, op: Op) -> None:
    if (
        not e.lanes
        and op.attrs["simd"] >= 0
        and not any(k.startswith("arg") for k in op.attrs["kinds"])
    ):
        _vector_reduce(e, op)
    else:
        _plain_reduce(e, op)


_COMBINE = {"add": "add", "mul": "mul", "max": "max", "min": "min"}


def _combine(e: Emitter, kind: str, dtype: Any, x: Any, y: Any) -> Any:
    """x combined with y; sums may be reordered, which `reassoc` allows LLVM too."""
    if kind == "add" and dtype.is_float:
        return e.b.fadd(x, y, flags=["contract", "reassoc"])
    return EMIT.rules[_COMBINE[kind]](e.b, dtype, {}, x, y)


def _identity(kind: str, dtype: Any) -> Any:
    from ...ir.reductions import identity

    value = identity(kind, dtype)
    return float(value) if dtype.is_float else int(value)


def _plain_reduce(e: Emitter, op: Op) -> None:
    """Loops in order; a lane each inside a vectorised nest."""
    (body,) = op.regions
    dims = op.attrs["dims"]
    accumulators = [_Accumulator(e, k, v) for k, v in zip(op.attrs["kinds"], body.results)]
    if 0 not in dims:

        def inside(indices: list[Any]) -> None:
            e.env.update((p, Val(i)) for p, i in zip(body.params, indices))
            e.ops(body.ops)
            for acc, v in zip(accumulators, body.results):
                acc.add(e.wide(e.env[v]), indices, dims)

        _loops(e, dims, [], inside)
    for r, acc in zip(op.results, accumulators):
        e.env[r] = Val(acc.result())


def _loops(
    e: Emitter, dims: Sequence[int], indices: list[Any], inside: Callable[[list[Any]], None]
) -> None:
    if len(indices) == len(dims):
        inside(indices)
        return
    with e.loop(dims[len(indices)]) as i:
        _loops(e, dims, [*indices, i], inside)


class _Accumulator:
    """The running value of one reduction, in a stack slot that LLVM keeps in a register."""

    def __init__(self, e: Emitter, kind: str, v: Value) -> None:
        self.e = e
        self.kind = kind
        self.dtype = scalar_dtype(v)
        self.arg = kind.startswith("arg")
        type = vector(REGISTER[self.dtype], e.lanes)
        self.slot = e.alloca(type)
        start = 0 if self.arg else _identity(kind, self.dtype)
        if self.arg:
            start = _identity("max" if kind == "argmax" else "min", self.dtype)
            self.place = e.alloca(vector(INT64, e.lanes))
            e.b.store(constant(vector(INT64, e.lanes), -1), self.place)
        e.b.store(constant(type, start), self.slot)
        self.type = type

    def add(self, value: Any, indices: Sequence[Any], dims: Sequence[int]) -> None:
        """Combine one value."""
        e = self.e
        old = e.b.load(self.slot, typ=self.type)
        if not self.arg:
            e.b.store(_combine(e, self.kind, self.dtype, old, value), self.slot)
            return
        flat = e.i64(0)
        for i, n in zip(indices, dims):
            flat = e.b.add(e.b.mul(flat, e.i64(n)), i)
        place_type = vector(INT64, e.lanes)
        place = e.b.load(self.place, typ=place_type)
        better = self._better(value, old, place)
        e.b.store(e.b.select(better, value, old), self.slot)
        new = e.wide(Val(flat))
        e.b.store(e.b.select(better, new, place), self.place)

    def _better(self, value: Any, old: Any, place: Any) -> Any:
        """Strictly better, or the first NaN, or the first value at all."""
        e, op = self.e, ">" if self.kind == "argmax" else "<"
        none = e.b.icmp_signed("<", place, constant(place, 0))
        wins = EMIT.rules["gt" if op == ">" else "lt"](e.b, self.dtype, {}, value, old)
        if self.dtype.is_float:
            new_nan = e.b.fcmp_unordered("uno", value, value)
            old_ok = e.b.fcmp_ordered("ord", old, old)
            wins = e.b.or_(wins, e.b.and_(new_nan, old_ok))
        return e.b.or_(none, wins)

    def result(self) -> Any:
        """The reduced value, or its index."""
        if self.arg:
            return self.e.b.load(self.place, typ=vector(INT64, self.e.lanes))
        return self.e.b.load(self.slot, typ=self.type)


def _vector_reduce(e: Emitter, op: Op) -> None:
    """Lanes along one reduced dim: several vectors at a time, then one, then single elements."""
    (body,) = op.regions
    dims, simd = op.attrs["dims"], op.attrs["simd"]
    kinds = op.attrs["kinds"]
    if 0 in dims:
        _plain_reduce(e, op)
        return
    size = dims[simd]
    native = e.register_bytes // widest_float(body)
    parts: list[tuple[int, int, int]] = []  # (lanes, first element, count)
    at = 0
    wide = native if len(body.ops) > LONG_BODY else 4 * native  # values that live long spill
    for width in dict.fromkeys((wide, native, max(1, native // 4), 0)):
        each = max(1, width)
        count = (size - at) // each
        if count and width != 1:
            parts.append((width, at, count))
            at += count * each
    totals: dict[int, list[_Accumulator]] = {}
    for width, _, _ in parts:
        e.lanes = width
        totals[width] = [_Accumulator(e, k, v) for k, v in zip(kinds, body.results)]
        e.lanes = 0
    outer = [n for d, n in enumerate(dims) if d != simd]

    def inside(indices: list[Any]) -> None:
        for width, first, count in parts:
            with e.loop(count) as i:
                start = e.b.add(e.b.mul(i, e.i64(max(1, width))), e.i64(first))
                full = list(indices)
                full.insert(simd, start)
                e.env.update((p, Val(x)) for p, x in zip(body.params, full))
                e.lanes = width
                e.env[body.params[simd]] = Val(start, 1 if width else 0)
                e.ops(body.ops)
                for acc, v in zip(totals[width], body.results):
                    acc.add(e.wide(e.env[v]), full, dims)
                e.lanes = 0

    _loops(e, outer, [], inside)
    for n, r in enumerate(op.results):
        e.env[r] = Val(_across(e, kinds[n], [(w, totals[w][n]) for w, _, _ in parts]))


def _across(e: Emitter, kind: str, parts: Sequence[tuple[int, _Accumulator]]) -> Any:
    """The lanes of all accumulators combined, by halves."""
    out: Any = None
    for width, acc in parts:
        value = acc.result()
        while width > 1:
            half = width // 2
            low = ll.Constant(ll.VectorType(INT32, half), list(range(half)))
            high = ll.Constant(ll.VectorType(INT32, half), list(range(half, width)))
            x, y = (e.b.shuffle_vector(value, value, m) for m in (low, high))
            value = _combine(e, kind, acc.dtype, x, y)
            width = half
        if isinstance(value.type, ll.VectorType):
            value = e.b.extract_element(value, ll.Constant(INT32, 0))
        out = value if out is None else _combine(e, kind, acc.dtype, out, value)
    return out
