"""Library kernels: products and factorisations from SciPy's BLAS and LAPACK, copies, sort."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ll
import numpy as np

from ...ir.core import Op, Value
from ...ir.errors import WengertError
from ...ir.types import DTYPES, F64, BufferType, DType
from . import callbacks
from .emit import Emitter, rule
from .lanes import INT32, INT64, POINTER, REGISTER, VOID
from .nests import share_tasks

BLAS = ("gemm", "trsm")
LAPACK = ("potrf",)


def _slot(e: Emitter, value: Any) -> Any:
    """The address of a stack slot that holds `value`: BLAS takes everything by reference."""
    slot = e.alloca(value.type)
    e.b.store(value, slot)
    return slot


def _int(e: Emitter, number: int) -> Any:
    if number >= 2**31:
        raise WengertError(f"a matrix with a side of {number} is more than BLAS can count")
    return _slot(e, ll.Constant(INT32, number))


def _char(e: Emitter, letter: str) -> Any:
    return _slot(e, ll.Constant(ll.IntType(8), ord(letter)))


def _external(e: Emitter, name: str, count: int) -> Any:
    found = e.module.globals.get(name)
    if found is None:
        found = ll.Function(e.module, ll.FunctionType(VOID, [POINTER] * count), name)
    return found


def _nbytes(v: Value) -> int:
    assert isinstance(v.type, BufferType)
    return v.type.tensor.nbytes


def _letter(dtype: DType) -> str:
    return "d" if dtype is F64 else "s"


SHARED_WORK = 2_000_000  # multiply-adds above which threads share the work
LEAST_ROWS = 32  # of a task; BLAS packs the other matrix again for every one


@rule("loop.gemm")
def _gemm(e: Emitter, op: Op) -> None:
    """A batch of products, shared among threads where it is large."""
    from .executable import cpu_count

    at = op.attrs
    batch = at["batch"]
    if not batch or not at["m"] or not at["n"]:
        return
    work = batch * at["m"] * at["n"] * at["k"]
    parts = batch if batch > 1 else min(cpu_count(), max(at["m"], at["n"]) // LEAST_ROWS)
    if parts > 1 and work > SHARED_WORK and e.shares:

        def body(inner: Emitter, begin: Any, end: Any) -> None:
            product = _Product(inner, op)
            if batch == 1:
                product.part(begin, end, parts)
                return
            with inner.range(begin, end) as i:
                product.emit(i)

        share_tasks(e, list(op.operands), parts, body)
        return
    product = _Product(e, op)
    with e.loop(batch) as i:
        product.emit(i)


class _Product:
    """c = a b, row-major, as BLAS's column-major c' = b' a'."""

    def __init__(self, e: Emitter, op: Op) -> None:
        self.e = e
        self.op = op
        at = op.attrs
        m, n, k = at["m"], at["n"], at["k"]
        real = REGISTER[op.operands[2].type.dtype]
        letters, lds = [], []
        for (_, row, col), rows, cols in ((at["sb"], k, n), (at["sa"], m, k)):
            plain = col == 1 and (row != 1 or rows == 1 or cols == 1)
            letters.append(_char(e, "N" if plain else "T"))
            lds.append(_int(e, max(row if plain else col, cols if plain else rows, 1)))
        self.m_slot, self.n_slot = _int(e, m), _int(e, n)
        self.front = [*letters, self.n_slot, self.m_slot, _int(e, k)]
        self.one, self.zero = (_slot(e, ll.Constant(real, v)) for v in (1.0, 0.0))
        self.lds = [*lds, _int(e, at["sc"][1])]
        name = f"wengert_{_letter(op.operands[2].type.dtype)}gemm"
        self.function = _external(e, name, 13)

    def emit(self, i: Any) -> None:
        """Product number i of the batch."""
        e, (a, b, c), at = self.e, self.op.operands, self.op.attrs
        pa, pb, pc = (
            e.element(x, e.b.mul(i, e.i64(s[0])))
            for x, s in ((a, at["sa"]), (b, at["sb"]), (c, at["sc"]))
        )
        self._call(pa, pb, pc)

    def _call(self, pa: Any, pb: Any, pc: Any) -> None:
        ldb, lda, ldc = self.lds
        args = [*self.front, self.one, pb, ldb, pa, lda, self.zero, pc, ldc]
        self.e.b.call(self.function, args)

    def part(self, begin: Any, end: Any, parts: int) -> None:
        """The part of a single product that tasks `begin` to `end` of `parts` stand for.

        The longer side is cut: the matrix on the other side is the smaller one to pack again.
        """
        e, (a, b, c), at = self.e, self.op.operands, self.op.attrs
        by_rows = at["m"] >= at["n"]
        length, slot = (at["m"], self.m_slot) if by_rows else (at["n"], self.n_slot)
        first, last = (e.b.udiv(e.b.mul(t, e.i64(length)), e.i64(parts)) for t in (begin, end))
        e.b.store(e.b.trunc(e.b.sub(last, first), INT32), slot)
        at_a = e.b.mul(first, e.i64(at["sa"][1] if by_rows else 0))
        at_b = e.b.mul(first, e.i64(0 if by_rows else at["sb"][2]))
        at_c = e.b.mul(first, e.i64(at["sc"][1] if by_rows else 1))
        self._call(e.element(a, at_a), e.element(b, at_b), e.element(c, at_c))


@rule("loop.call")
def _call(e: Emitter, op: Op) -> None:
    KERNELS[op.attrs["kernel"]](e, op.operands, op.attrs["flags"])


def _copy(e: Emitter, operands: Sequence[Value], flags: Sequence[str]) -> None:
    source, target = operands
    size = _nbytes(source)
    if size:
        _memcpy(e, target, source, size)


def _memcpy(e: Emitter, target: Value, source: Value, size: int) -> None:
    name = "llvm.memmove.p0.p0.i64"
    found = e.module.globals.get(name)
    if found is None:
        kind = ll.FunctionType(VOID, [POINTER, POINTER, INT64, ll.IntType(1)])
        found = ll.Function(e.module, kind, name)
    no = ll.Constant(ll.IntType(1), 0)
    e.b.call(found, [e.pointer(target), e.pointer(source), e.i64(size), no])


def _matrices(v: Value) -> tuple[int, int]:
    """(how many matrices, elements of each)."""
    shape = v.type.shape
    return int(np.prod(shape[:-2], dtype=np.int64)), shape[-1] * shape[-2]


def _cholesky(e: Emitter, operands: Sequence[Value], flags: Sequence[str]) -> None:
    """potrf of the transposed (row-major) triangle; NaN everywhere where it fails."""
    a, out = operands
    count, size = _matrices(a)
    n = a.type.shape[-1]
    if not count or not n:
        return
    _memcpy(e, out, a, _nbytes(a))
    info = e.alloca(INT32)
    args = [_char(e, "U"), _int(e, n)]
    ld = _int(e, n)
    function = _external(e, f"wengert_{_letter(a.type.dtype)}potrf", 5)
    real = REGISTER[a.type.dtype]
    nan, zero = ll.Constant(real, float("nan")), ll.Constant(real, 0.0)
    with e.loop(count) as i:
        base = e.b.mul(i, e.i64(size))
        e.b.call(function, [*args, e.element(out, base), ld, info])
        bad = e.b.icmp_signed("!=", e.b.load(info, typ=INT32), ll.Constant(INT32, 0))
        with e.loop(n) as row, e.loop(n) as col:
            at = e.b.add(base, e.b.add(e.b.mul(row, e.i64(n)), col))
            upper = e.b.icmp_signed(">", col, row)
            place = e.element(out, at)
            kept = e.b.load(place, align=4, typ=real)
            value = e.b.select(bad, nan, e.b.select(upper, zero, kept))
            e.b.store(value, place, align=4)


def _triangular_solve(e: Emitter, operands: Sequence[Value], flags: Sequence[str]) -> None:
    """trsm on the transposed problem: x' a' = b', column-major."""
    a, b, out = operands
    count, size = _matrices(a)
    n, m = b.type.shape[-2:]
    if not count or not n or not m:
        return
    _memcpy(e, out, b, _nbytes(b))
    lower, trans = "lower" in flags, "trans" in flags
    args = [_char(e, c) for c in ("R", "U" if lower else "L", "T" if trans else "N", "N")]
    sizes = [_int(e, m), _int(e, n)]
    one = _slot(e, ll.Constant(REGISTER[a.type.dtype], 1.0))
    lda, ldb = _int(e, n), _int(e, m)
    function = _external(e, f"wengert_{_letter(a.type.dtype)}trsm", 11)
    with e.loop(count) as i:
        pa = e.element(a, e.b.mul(i, e.i64(size)))
        pb = e.element(out, e.b.mul(i, e.i64(n * m)))
        e.b.call(function, [*args, *sizes, one, pa, lda, pb, ldb])


def _sort(e: Emitter, operands: Sequence[Value], flags: Sequence[str]) -> None:
    """A call into NumPy's stable sort, by a table of addresses."""
    half = len(operands) // 2
    first = operands[0].type
    columns = first.shape[-1]
    rows = int(np.prod(first.shape[:-1], dtype=np.int64)) if columns else 0
    if not rows:
        return
    names = list(DTYPES)
    codes = 0
    for i, v in enumerate(operands[:half]):
        codes |= names.index(v.type.dtype.name) << (4 * i)
    table = e.alloca(ll.ArrayType(POINTER, len(operands)))
    for i, v in enumerate(operands):
        slot = e.b.gep(table, [e.i64(i)], inbounds=True, source_etype=POINTER)
        e.b.store(e.pointer(v), slot, align=8)
    found = e.module.globals.get("wengert_sort")
    if found is None:
        kind = ll.FunctionType(VOID, [POINTER, INT64, INT64, INT64, INT64])
        found = ll.Function(e.module, kind, "wengert_sort")
    e.b.call(found, [table, e.i64(half), e.i64(codes), e.i64(rows), e.i64(columns)])


KERNELS = {
    "copy": _copy,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    "sort": _sort,
}


@ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)  # type: ignore[untyped-decorator]
def _sort_callback(table: int, half: int, codes: int, rows: int, columns: int) -> None:
    """`_sort_rows` as compiled code calls it."""
    with callbacks.guarded():
        _sort_rows(table, half, codes, rows, columns)


def _sort_rows(table: int, half: int, codes: int, rows: int, columns: int) -> None:
    """Sort rows stably by the first array, the others along."""
    pointers = (ctypes.c_void_p * (2 * half)).from_address(table)
    dtypes = [list(DTYPES.values())[codes >> (4 * i) & 15].numpy for i in range(half)]

    def array(pointer: Any, dtype: Any) -> Any:
        size = rows * columns * dtype.itemsize
        raw = (ctypes.c_char * size).from_address(pointer)
        return np.frombuffer(raw, dtype).reshape(rows, columns)

    sources = [array(pointers[i], d) for i, d in enumerate(dtypes)]
    targets = [array(pointers[half + i], d) for i, d in enumerate(dtypes)]
    order = np.argsort(sources[0], axis=1, kind="stable")
    for source, target in zip(sources, targets):
        target.flags.writeable = True
        target[...] = np.take_along_axis(source, order, 1)


@functools.cache
def addresses() -> dict[str, int]:
    """Where the kernels are: BLAS and LAPACK routines that SciPy exports to C, and the sort."""
    from scipy.linalg import cython_blas, cython_lapack

    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype = ctypes.c_void_p
    get.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype = ctypes.c_char_p
    name_of.argtypes = [ctypes.py_object]
    found = {}
    for module, names in ((cython_blas, BLAS), (cython_lapack, LAPACK)):
        for letter in "sd":
            for name in names:
                capsule = module.__pyx_capi__[letter + name]
                found[f"wengert_{letter}{name}"] = get(capsule, name_of(capsule))
    sort = ctypes.cast(_sort_callback, ctypes.c_void_p).value
    assert sort is not None
    found["wengert_sort"] = sort
    return found
