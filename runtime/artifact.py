"""Compiled functions as files: saved in one run, called in another without the source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.struct import RecordStruct, Struct, TupleStruct
from ..ir.types import DTYPES, TensorType
from . import store
from .errors import ArtifactError, CallError
from .requests import Request, float_leaves
from .values import describe, match_any, to_python, unflatten

if TYPE_CHECKING:
    from ..backends.llvm.executable import Executable
    from .specialization import Specialization

SEPARATOR = b"\n--code--\n"


def to_json(struct: Struct | None) -> Any:
    """A structure as JSON."""
    match struct:
        case None:
            return None
        case TensorType(dtype, shape):
            return [dtype.name, *shape]
        case TupleStruct(items):
            return {"tuple": [to_json(s) for s in items]}
        case RecordStruct(name, fields):
            return {"record": name, "fields": [[k, to_json(s)] for k, s in fields]}


def from_json(data: Any) -> Struct:
    """The structure that `to_json` wrote."""
    if isinstance(data, list):
        return TensorType(DTYPES[data[0]], tuple(data[1:]))
    if "tuple" in data:
        return TupleStruct(tuple(from_json(s) for s in data["tuple"]))
    return RecordStruct(data["record"], tuple((k, from_json(s)) for k, s in data["fields"]))


def save(path: str, special: Specialization, request: Request) -> None:
    """Write the LLVM code of one signature and request; the file is whole or not there."""
    from ..backends.llvm.executable import host_name
    from .llvm import LlvmRunner

    runner = special.executable(request, "llvm")
    assert isinstance(runner, LlvmRunner)
    meta = {
        "function": special.decl.name,
        "params": [[n, to_json(s)] for n, s in special.params],
        "result": to_json(_result(special, request)),
        "host": host_name(),
    }
    body = json.dumps(meta).encode() + SEPARATOR + runner.executable.to_bytes()
    store.replace(Path(path).absolute(), store.seal(body))


def _result(special: Specialization, request: Request) -> Struct:
    """The structure of what a request returns; gradients hold float tensors only."""
    structs = dict(special.params)
    grads = tuple(_floats(structs[n]) for n in request.wrt)
    match request.kind:
        case "call":
            return special.lowered.result
        case "grad":
            return grads[0] if len(grads) == 1 else TupleStruct(grads)
        case "value_and_grad":
            inner = grads[0] if len(grads) == 1 else TupleStruct(grads)
            return TupleStruct((special.lowered.result, inner))
    raise CallError(f"a {request.kind} cannot be saved", expected="call, grad or value_and_grad")


def _floats(struct: Struct) -> Struct:
    """`struct` without its tensors that are not floats."""
    match struct:
        case TupleStruct(items):
            return TupleStruct(tuple(_floats(s) for s in items if float_leaves(s)))
        case RecordStruct(name, fields):
            return RecordStruct(name, tuple((k, _floats(s)) for k, s in fields if float_leaves(s)))
    return struct


class LoadedFunction:
    """A compiled function from a file. Call it with the arguments it was saved for."""

    def __init__(
        self, name: str, params: Sequence[tuple[str, Struct]], result: Struct, code: Executable
    ) -> None:
        self.__name__ = name
        self.params = tuple(params)
        self.result = result
        self.code = code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; raises CallError and ArgumentError where the arguments do not fit."""
        names = [n for n, _ in self.params]
        given = dict(zip(names, args)) | kwargs
        if len(args) + len(kwargs) != len(names) or set(given) != set(names):
            raise CallError(
                f"{self.__name__}() does not take these arguments",
                expected=", ".join(names),
                found=", ".join([*map(describe, args), *kwargs]),
            )
        arrays: list[Any] = []
        for name, struct in self.params:
            match_any(struct, given[name], name, arrays)
        return unflatten(self.result, iter(self.code(arrays)), to_python)


def load_compiled(path: str) -> LoadedFunction:
    """The function saved in a file; raises ArtifactError for a bad or foreign one."""
    from ..backends.llvm.executable import Executable, host_name

    try:
        body = store.unseal(Path(path).read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
    if body is None or SEPARATOR not in body:
        raise ArtifactError(f"{path} is not a compiled function, or it is damaged")
    head, _, code = body.partition(SEPARATOR)
    meta = json.loads(head)
    if meta["host"] != host_name():
        raise ArtifactError(
            f"{path} was compiled for another processor or LLVM",
            expected=host_name().split("/")[0],
            found=meta["host"].split("/")[0],
            hint="save it again on this machine",
        )
    params = [(n, from_json(s)) for n, s in meta["params"]]
    return LoadedFunction(
        meta["function"], params, from_json(meta["result"]), Executable.from_bytes(code)
    )
