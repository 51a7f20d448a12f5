"""Compiled code and parsed programs kept on disk between runs, by the hash of what made them.

The key of a compiled function covers the program's texts, the signature, what was asked of
it, the processor, and every file of the compiler, so that nothing stale is ever used.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..frontend import program as front
from ..ir.core import Module
from . import store
from .binding import Static
from .compiler import Executable
from .requests import Request

if TYPE_CHECKING:
    from .specialization import Specialization


@functools.cache
def compiler_fingerprint() -> str:
    """A hash of the size and time of every file of the compiler."""
    home = Path(__file__).resolve().parent.parent
    folders = [home / n for n in ("frontend", "ir", "passes", "backends", "runtime", "stdlib")]
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".lark", ".wg"):
                status = path.stat()
                digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()


def _digest(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def load_program(path: str) -> front.Program:
    """`frontend.program.load`, from the cache where no source has changed."""
    text = front.read_source(Path(path), None)
    key = "program-" + _digest(path, text, compiler_fingerprint())
    body = store.read(key)
    if body is not None:
        program: front.Program = pickle.loads(body)
        if all(_unchanged(p, t) for p, t in program.sources.items() if p != path):
            front.register_sources(program)
            return program
    program = compile_text(text, path)
    store.write(key, pickle.dumps(program))
    return program


def compile_text(text: str, path: str) -> front.Program:
    """`frontend.program.compile_text`, with the library's files read once and kept."""
    key = "library-" + compiler_fingerprint()
    if not front.PARSED and (body := store.read(key)) is not None:
        front.PARSED.update(pickle.loads(body))
    known = len(front.PARSED)
    program = front.compile_text(text, path)
    if len(front.PARSED) > known:
        store.write(key, pickle.dumps(front.PARSED))
    return program


def _unchanged(path: str, text: str) -> bool:
    if path.startswith("<stdlib>"):
        return True  # covered by the compiler's fingerprint
    try:
        return Path(path).read_text("utf-8") == text
    except OSError:
        return False


def _key(special: Specialization, *asked: Any) -> str | None:
    """The cache key of what is asked; None where an argument is a function of another program."""
    from ..backends.llvm.executable import host_name

    parts = []
    for name, item in special.signature:
        if isinstance(item, Static) and not isinstance(item.value, int | float | bool | str):
            return None
        parts.append(f"{name}={item!r}")
    sources = sorted(special.program.source.sources.items())
    return "code-" + _digest(
        sources, special.decl.name, parts, special.program.real, special.program.trees,
        asked,
        host_name(), compiler_fingerprint(),
    )  # fmt: skip


def cached_llvm(special: Specialization, request: Request) -> Executable:
    """The LLVM executable for `request`, from the cache or compiled and stored there."""
    return _cached(_key(special, request), lambda: special.module(request))


def cached_fit(special: Specialization, asked: Any, module: Callable[[], Module]) -> Executable:
    """The LLVM executable of a training loop: of `module()`, which `asked` decides."""
    return _cached(_key(special, "fit", asked), module)


def _cached(key: str | None, make: Callable[[], Module]) -> Executable:
    from ..backends.llvm.executable import Executable as Code
    from ..passes.pipeline import LOOPS, run_pipeline
    from .llvm import LlvmRunner

    def loops() -> Module:
        return run_pipeline(make(), LOOPS)

    body = store.read(key) if key else None
    if body is not None:
        return LlvmRunner(Code.from_bytes(body), loops)
    module = loops()
    code = Code.compile(module)
    if key:
        store.write(key, code.to_bytes())
    return LlvmRunner(code, lambda: module)
