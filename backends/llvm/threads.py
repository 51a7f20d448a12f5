"""The thread pool: parallel nests in compiled code share their tasks among threads.

`wengert_parallel(function, frame, tasks)` runs function(frame, begin, end) over all tasks.
The pool is compiled code itself: its threads are Python's, parked for good inside a call that
has released the interpreter lock, woken through a pthread condition. A caller who finds the
pool busy (another thread, or a nest inside a nest) runs its tasks alone, so results never
depend on threads, and nothing waits for a lock it holds.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from typing import Any

import llvmlite.ir as ll

from .lanes import INT32, INT64, POINTER, VOID

SPINS = 3000  # looks at the work counter before a thread goes to sleep
SYNC_BYTES = 128  # room for a pthread mutex or condition; zeros initialise both on Linux


class _PoolWriter:
    """Writes the pool's module."""

    def __init__(self) -> None:
        self.module = ll.Module("wengert_pool")
        self.mutex = self._global("mutex", ll.ArrayType(ll.IntType(8), SYNC_BYTES))
        self.work = self._global("work", ll.ArrayType(ll.IntType(8), SYNC_BYTES))
        self.done = self._global("done", ll.ArrayType(ll.IntType(8), SYNC_BYTES))
        names = ("generation", "tasks", "next", "active", "busy")
        self.counters = {n: self._global(n, INT64) for n in names}
        self.workers = self._global("wengert_workers", INT64, "")
        self.function = self._global("function", POINTER)
        self.frame = self._global("frame", POINTER)
        self.task = ll.FunctionType(VOID, [POINTER, INT64, INT64])
        self.calls = {
            name: ll.Function(self.module, ll.FunctionType(INT32, [POINTER] * count), name)
            for name, count in (
                ("pthread_mutex_lock", 1),
                ("pthread_mutex_unlock", 1),
                ("pthread_cond_wait", 2),
                ("pthread_cond_broadcast", 1),
            )
        }

    def _global(self, name: str, kind: ll.Type, linkage: str = "internal") -> Any:
        variable = ll.GlobalVariable(self.module, kind, name)
        variable.initializer = ll.Constant(kind, None)
        variable.linkage, variable.align = linkage, 64
        variable.type = POINTER
        return variable

    def write(self) -> str:
        """The module's text: run_tasks, worker, wengert_parallel, wengert_reset."""
        self.run_tasks = self._run_tasks()
        self._worker()
        self._parallel()
        self._reset()
        return str(self.module)

    def get(self, b: ll.IRBuilder, variable: Any) -> Any:
        """An atomic read of a counter."""
        return b.load_atomic(variable, "acquire", 8, typ=INT64)

    def _begin(self, name: str, kinds: list[ll.Type], linkage: str = "external") -> Any:
        function = ll.Function(self.module, ll.FunctionType(VOID, kinds), name)
        function.linkage = linkage
        return function, ll.IRBuilder(function.append_basic_block("entry"))

    def _run_tasks(self) -> Any:
        """Take runs of tasks until none is left: about four a thread."""
        function, b = self._begin("run_tasks", [], "internal")
        c = self.counters
        tasks = b.load(c["tasks"], typ=INT64)
        code = b.load(self.function, typ=POINTER)
        frame = b.load(self.frame, typ=POINTER)
        threads = b.add(b.load(self.workers, typ=INT64), ll.Constant(INT64, 1))
        part = b.udiv(tasks, b.mul(threads, ll.Constant(INT64, 4)))
        one = ll.Constant(INT64, 1)
        part = b.select(b.icmp_unsigned("<", part, one), one, part)
        head, body, end = (b.append_basic_block(n) for n in ("head", "body", "end"))
        b.branch(head)
        b.position_at_end(head)
        first = b.atomic_rmw("add", c["next"], part, "acq_rel")
        b.cbranch(b.icmp_unsigned("<", first, tasks), body, end)
        b.position_at_end(body)
        last = b.add(first, part)
        last = b.select(b.icmp_unsigned(">", last, tasks), tasks, last)
        b.call(_typed(code, self.task), [frame, first, last])
        b.branch(head)
        b.position_at_end(end)
        b.ret_void()
        return function

    def _spin(self, b: ll.IRBuilder, variable: Any, until: Any) -> None:
        """Look at a counter for a while, until `until(value)` holds."""
        before = b.block
        head, after = b.append_basic_block("spin"), b.append_basic_block("awake")
        b.branch(head)
        b.position_at_end(head)
        n = b.phi(INT64)
        n.add_incoming(ll.Constant(INT64, 0), before)
        following = b.add(n, ll.Constant(INT64, 1))
        n.add_incoming(following, head)
        over = b.icmp_unsigned(">=", following, ll.Constant(INT64, SPINS))
        b.cbranch(b.or_(over, until(self.get(b, variable))), after, head)
        b.position_at_end(after)

    def _sleep(self, b: ll.IRBuilder, condition: Any, variable: Any, until: Any) -> None:
        """Wait on a condition, the mutex held, until `until(value)` holds."""
        head, body, after = (b.append_basic_block(n) for n in ("check", "sleep", "go"))
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(until(self.get(b, variable)), after, body)
        b.position_at_end(body)
        b.call(self.calls["pthread_cond_wait"], [condition, self.mutex])
        b.branch(head)
        b.position_at_end(after)

    def _worker(self) -> None:
        """A thread of the pool: wait for a new generation, help, count down, again."""
        _, b = self._begin("wengert_worker", [])
        c = self.counters
        entry = b.block
        top = b.append_basic_block("top")
        b.branch(top)
        b.position_at_end(top)
        seen = b.phi(INT64)
        seen.add_incoming(ll.Constant(INT64, 0), entry)

        def fresh(value: Any) -> Any:
            return b.icmp_unsigned("!=", value, seen)

        self._spin(b, c["generation"], fresh)
        b.call(self.calls["pthread_mutex_lock"], [self.mutex])
        self._sleep(b, self.work, c["generation"], fresh)
        now = self.get(b, c["generation"])
        b.call(self.calls["pthread_mutex_unlock"], [self.mutex])
        b.call(self.run_tasks, [])
        b.call(self.calls["pthread_mutex_lock"], [self.mutex])
        left = b.atomic_rmw("sub", c["active"], ll.Constant(INT64, 1), "acq_rel")
        with b.if_then(b.icmp_unsigned("==", left, ll.Constant(INT64, 1))):
            b.call(self.calls["pthread_cond_broadcast"], [self.done])
        b.call(self.calls["pthread_mutex_unlock"], [self.mutex])
        seen.add_incoming(now, b.block)
        b.branch(top)

    def _parallel(self) -> None:
        """Hand out the tasks, help, wait for the others."""
        function, b = self._begin("wengert_parallel", [POINTER, POINTER, INT64])
        code, frame, tasks = function.args
        c, zero, one = self.counters, ll.Constant(INT64, 0), ll.Constant(INT64, 1)
        workers = b.load(self.workers, typ=INT64)
        alone, share, try_ = (b.append_basic_block(n) for n in ("alone", "share", "try"))
        few = b.or_(
            b.icmp_unsigned("==", workers, zero), b.icmp_unsigned("<", tasks, ll.Constant(INT64, 2))
        )
        b.cbranch(few, alone, try_)
        b.position_at_end(try_)
        taken = b.extract_value(b.cmpxchg(c["busy"], zero, one, "acq_rel", "acquire"), 1)
        b.cbranch(taken, share, alone)
        b.position_at_end(alone)
        b.call(_typed(code, self.task), [frame, zero, tasks])
        b.ret_void()
        b.position_at_end(share)
        b.call(self.calls["pthread_mutex_lock"], [self.mutex])
        for variable, value in ((self.function, code), (self.frame, frame), (c["tasks"], tasks)):
            b.store(value, variable)
        for name, value in (("next", zero), ("active", workers)):
            b.atomic_rmw("xchg", c[name], value, "acq_rel")
        b.atomic_rmw("add", c["generation"], one, "acq_rel")
        b.call(self.calls["pthread_cond_broadcast"], [self.work])
        b.call(self.calls["pthread_mutex_unlock"], [self.mutex])
        b.call(self.run_tasks, [])

        def idle(value: Any) -> Any:
            return b.icmp_unsigned("==", value, zero)

        self._spin(b, c["active"], idle)
        b.call(self.calls["pthread_mutex_lock"], [self.mutex])
        self._sleep(b, self.done, c["active"], idle)
        b.call(self.calls["pthread_mutex_unlock"], [self.mutex])
        b.atomic_rmw("xchg", c["busy"], zero, "acq_rel")
        b.ret_void()

    def _reset(self) -> None:
        """Forget threads and locks: for the child of a fork, which has neither."""
        _, b = self._begin("wengert_reset", [])
        for block in (self.mutex, self.work, self.done):
            kind = ll.ArrayType(ll.IntType(8), SYNC_BYTES)
            b.store(ll.Constant(kind, None), block)
        for variable in (self.workers, *self.counters.values()):
            b.store(ll.Constant(INT64, 0), variable)
        b.ret_void()


class _CodePointer(ll.PointerType):  # type: ignore[misc]
    """An opaque pointer that tells llvmlite what function it points to."""

    pointee: ll.FunctionType


def _typed(pointer: Any, kind: ll.FunctionType) -> Any:
    """A code pointer as something that can be called."""
    pointer.type = _CodePointer()
    pointer.type.pointee = kind
    return pointer


def _wanted() -> int:
    from .executable import cpu_count

    return cpu_count() if sys.platform == "linux" else 1


@functools.cache
def parallel_address() -> int:
    """The address of `wengert_parallel`; starts the pool's threads."""
    import llvmlite.binding as llvm

    from .executable import _jit, optimise, target_machine

    module = optimise(_PoolWriter().write(), 2)
    builder = llvm.JITLibraryBuilder().add_object_img(target_machine().emit_object(module))
    builder.add_current_process()
    names = ("wengert_parallel", "wengert_worker", "wengert_reset", "wengert_workers")
    for name in names:
        builder.export_symbol(name)
    library = builder.link(_jit(), "wengert_pool")
    _keep.append(library)
    worker = ctypes.CFUNCTYPE(None)(library["wengert_worker"])
    reset = ctypes.CFUNCTYPE(None)(library["wengert_reset"])
    count = _wanted() - 1
    for i in range(count):
        threading.Thread(target=worker, name=f"wengert-{i}", daemon=True).start()
    ctypes.c_int64.from_address(library["wengert_workers"]).value = count
    os.register_at_fork(after_in_child=reset)
    return int(library["wengert_parallel"])


_keep: list[Any] = []
