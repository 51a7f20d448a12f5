"""Compiling LLVM IR with ORC, and calling the result."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ...ir.core import Block, Function, Module, Op, walk
from ...ir.loops import QUICK
from ...ir.types import DTYPES, F32, F64, BufferType
from ..memory import require
from . import blas_threads, callbacks
from .emit import ENTRY, emit_module

ARENA_ALIGNMENT = 64
KERNEL_MARKS = (b"gemm", b"trsm", b"potrf", b"wengert_sort")
LONG_LOOP = 100  # trips from which loops can be interrupted
HUGE_FUNCTION = 4000  # ops above which LLVM optimises less
HUGE_SHARE = 0.8  # of them in one body: straight-line code, which our passes leave nothing to do in


@functools.cache
def target_machine(level: int = 2) -> Any:
    """The host's processor with all its features."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=level, reloc="pic"
    )


@functools.cache
def register_bytes() -> int:
    """Width of the processor's vector registers."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


@functools.cache
def host_name() -> str:
    """What compiled code depends on besides the program."""
    features = llvm.get_host_cpu_features().flatten()
    return f"{llvm.get_host_cpu_name()}/{features}/{llvm.llvm_version_info}"


def optimise(text: str, level: int) -> Any:
    """The parsed, verified and optimised LLVM module of an IR text."""
    module = llvm.parse_assembly(text)
    module.verify()
    machine = target_machine()
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = False
    options.slp_vectorization = level > 1
    builder = llvm.create_pass_builder(machine, options)
    if level:
        builder.getModulePassManager().run(module, builder)
    else:
        _clean(module, builder)
    return module


def _clean(module: Any, builder: Any) -> None:
    """Values out of stack slots, blocks joined: all that straight-line code needs."""
    manager = llvm.create_new_function_pass_manager()
    manager.add_sroa_pass()
    manager.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            manager.run(function, builder)


def compile_object(function: Function) -> bytes:
    """Machine code of a loop-level function, as an object file."""
    level = _level(function)
    module = optimise(str(emit_module(function, register_bytes())), level)
    return bytes(target_machine(2 if level else 1).emit_object(module))


def _level(function: Function) -> int:
    """How much LLVM is to optimise."""
    if function.attrs.get(QUICK):
        return 0
    sizes = [len(r.ops) for op in walk(function.body) for r in op.regions]
    if sum(sizes) <= HUGE_FUNCTION:
        return 2
    return 0 if max(sizes) > HUGE_SHARE * sum(sizes) else 1


def _optimised(function: Function) -> Any:
    return optimise(str(emit_module(function, register_bytes())), _level(function))


_count = iter(range(1 << 62))
_lock = threading.Lock()


@functools.cache
def _jit() -> Any:
    target_machine()
    return llvm.create_lljit_compiler()


def load_object(image: bytes) -> tuple[Any, int]:
    """Link an object file into the process: (what keeps it alive, address of the entry)."""
    from .kernels import addresses
    from .threads import parallel_address

    builder = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
    if any(name in image for name in KERNEL_MARKS):  # SciPy is slow to import
        for name, address in addresses().items():
            builder.import_symbol(name, address)
    if b"wengert_parallel" in image:
        builder.import_symbol("wengert_parallel", parallel_address())
    builder.export_symbol(ENTRY)
    with _lock:
        tracker = builder.link(_jit(), f"wengert_{next(_count)}")
    return tracker, tracker[ENTRY]


class Executable:
    """A loop-level function in memory.

    types: buffer types of the parameters: inputs, then `outputs` outputs. aside: whether calls
        from the main thread run on another one: they may take long, and Ctrl-C should stop
        them, or they call Python back, which must not meet Ctrl-C there.
    """

    def __init__(
        self,
        image: bytes,
        types: Sequence[BufferType],
        outputs: int,
        arena: int,
        aside: bool,
    ) -> None:
        self.aside = aside
        self.image = image
        self.types = tuple(types)
        self.outputs = outputs
        self.arena = arena
        self._keep, address = load_object(image)
        kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.entry = kind(address)
        self._out_types = self.types[len(self.types) - outputs :]
        self._results = sum(t.tensor.nbytes for t in self._out_types)
        self._arenas: list[Any] = []
        self._uses_kernels = any(name in image for name in KERNEL_MARKS)
        self._pointers = ctypes.c_void_p * len(self.types)

    @classmethod
    def compile(cls, module: Module) -> Executable:
        """Compile the entry of a loop-level module."""
        main = module.main
        types = [p.type for p in main.params if isinstance(p.type, BufferType)]
        image = compile_object(main)
        aside = _may_take_long(main.body) or any(_calls_back(op) for op in walk(main.body))
        return cls(image, types, main.attrs["outputs"], main.attrs["arena"], aside)

    def to_bytes(self) -> bytes:
        """The code and what is needed to call it, for a file."""
        types = [[t.dtype.name, *t.shape] for t in self.types]
        head = json.dumps([types, self.outputs, self.arena, self.aside])
        return head.encode() + b"\n" + self.image

    @classmethod
    def from_bytes(cls, data: bytes) -> Executable:
        """What `to_bytes` wrote."""
        head, _, image = data.partition(b"\n")
        types, outputs, arena, aside = json.loads(head)
        buffers = [BufferType(DTYPES[t[0]], tuple(t[1:])) for t in types]
        return cls(image, buffers, outputs, arena, aside)

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """Run once on contiguous arrays of the right types; new arrays for the results.

        Raises MemoryError where results or working memory do not fit, KeyboardInterrupt on
        Ctrl-C during a long run.
        """
        require(self._results + (0 if self._arenas else self.arena))
        outputs = [np.empty(t.shape, t.dtype.numpy) for t in self._out_types]
        cancel = ctypes.c_int32(0)
        if self._uses_kernels:
            blas_threads.enter()
        try:
            if self.aside and threading.current_thread() is threading.main_thread():
                _run_aside(lambda: self._run([*inputs, *outputs], cancel), cancel)
            else:
                self._run([*inputs, *outputs], cancel)
        finally:
            if self._uses_kernels:
                blas_threads.leave()
        return outputs

    def _run(self, arrays: Sequence[Any], cancel: Any) -> None:
        """Call the code, which has its memory to itself until it has returned."""
        arena = self._take_arena()
        begin = (arena.ctypes.data + ARENA_ALIGNMENT - 1) // ARENA_ALIGNMENT * ARENA_ALIGNMENT
        pointers = self._pointers(*[a.ctypes.data for a in arrays])
        self.entry(begin, ctypes.addressof(pointers), ctypes.addressof(cancel))
        self._arenas.append(arena)
        if self._uses_kernels:
            callbacks.raise_failure()

    def _take_arena(self) -> Any:
        """Working memory that no other call uses now."""
        try:
            return self._arenas.pop()
        except IndexError:
            return np.empty(self.arena + ARENA_ALIGNMENT, np.uint8)

    def scalar_entry(self) -> Callable[..., float] | None:
        """A function of Python floats for a program of float scalars with one result."""
        floats = {F32: ctypes.c_float, F64: ctypes.c_double}
        if (
            self.outputs != 1
            or self.aside
            or any(t.shape or t.dtype not in floats for t in self.types)
        ):
            return None
        kinds = [floats[t.dtype] for t in self.types]
        return _scalar_call(self.entry, kinds, self.arena)


def _may_take_long(block: Block, trips: int = 1) -> bool:
    """Whether sequential loops, which look for a request to stop, make LONG_LOOP trips in all."""
    for op in block.ops:
        if op.name not in ("loop.for", "loop.while", "loop.switch"):
            continue
        inside = trips * op.attrs["trips"] if op.name == "loop.for" else trips
        if op.name == "loop.while" or inside >= LONG_LOOP:
            return True
        if any(_may_take_long(region, inside) for region in op.regions):
            return True
    return False


def _calls_back(op: Op) -> bool:
    """Whether an op calls Python from compiled code."""
    return op.name == "loop.call" and op.attrs["kernel"] == "sort"


def _run_aside(work: Callable[[], None], cancel: Any) -> None:
    """Run on another thread, so that Ctrl-C reaches this one and asks the loop to stop."""
    with _postponed_interrupt(cancel):  # the arguments are in use until the loop has stopped
        _other_thread(os.getpid()).submit(work).result()


@functools.cache
def _other_thread(process: int) -> ThreadPoolExecutor:
    """The thread beside the main one; a forked process needs one of its own."""
    return ThreadPoolExecutor(1, "wengert")


@contextmanager
def _postponed_interrupt(cancel: Any) -> Iterator[None]:
    """In the main thread: Ctrl-C sets `cancel`, and takes its usual effect at the end."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, or handled outside Python
        yield
        return
    asked: list[Any] = []

    def ask(number: int, frame: Any) -> None:
        cancel.value = 1
        asked.append((number, frame))

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        before(*asked[0])


def _scalar_call(entry: Any, kinds: Sequence[Any], arena: int) -> Callable[..., float]:
    """Direct calls through buffers of one's own, a set for each thread."""
    local = threading.local()

    def prepare() -> Any:
        cells = (ctypes.c_double * len(kinds))()
        base = ctypes.addressof(cells)
        views = [k.from_address(base + 8 * i) for i, k in enumerate(kinds)]
        pointers = (ctypes.c_void_p * len(kinds))(*[base + 8 * i for i in range(len(kinds))])
        memory = (ctypes.c_char * (arena + ARENA_ALIGNMENT))()
        at = (ctypes.addressof(memory) + ARENA_ALIGNMENT - 1) // ARENA_ALIGNMENT * ARENA_ALIGNMENT
        cancel = ctypes.c_int32(0)
        raw = (at, ctypes.addressof(pointers), ctypes.addressof(cancel))
        local.state = (views[:-1], views[-1], raw, (cells, pointers, memory, cancel))
        return local.state

    def call(*args: float) -> float:
        try:
            views, out, raw, _ = local.state
        except AttributeError:
            views, out, raw, _ = prepare()
        for view, arg in zip(views, args):
            view.value = arg
        entry(*raw)
        return out.value

    return call


def llvm_text(module: Module) -> str:
    """The optimised LLVM IR of a loop-level module."""
    return str(_optimised(module.main))


def assembly(module: Module) -> str:
    """The machine code of a loop-level module, as assembly."""
    return str(target_machine().emit_assembly(_optimised(module.main)))


def cpu_count() -> int:
    """Processors that this process may use."""
    asked = os.environ.get("WENGERT_THREADS")
    if asked and asked.isdigit():
        return max(1, int(asked))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
