"""The text form of the IR. `parser.py` reads it back; printing what it read gives the same text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .core import Attrs, Block, Function, Module, Op, Value
from .opdef import OPS
from .types import DType

HIDDEN = ("type", "types")  # attributes that the result types already tell
ELIDE_ABOVE = 64


def print_module(module: Module, *, spans: bool = False, elide: bool = False) -> str:
    """Every function, callees first as stored, the entry marked.

    spans: a comment with file:line:col behind each op. elide: long dense constants become
    `dense<...>`, for reading only: that text does not parse back.
    """
    parts = []
    for function in module.functions.values():
        mark = "entry " if function.name == module.entry else ""
        parts.append(mark + print_function(function, spans=spans, elide=elide))
    return "\n".join(parts)


def print_function(function: Function, *, spans: bool = False, elide: bool = False) -> str:
    """One function as text, ending with a newline."""
    return _Printer(spans, elide).function(function)


class _Printer:
    def __init__(self, spans: bool, elide: bool) -> None:
        self.spans = spans
        self.elide = elide
        self.names: dict[Value, str] = {}
        self.taken: dict[str, int] = {}

    def function(self, function: Function) -> str:
        params = ", ".join(self._param(p) for p in function.params)
        results = ", ".join(str(r.type) for r in function.results)
        arrow = f" -> {results}" if len(function.results) == 1 else f" -> ({results})"
        attrs = _attrs(sorted(function.attrs.items()), self.elide)
        lines = [f"fn @{function.name}({params}){arrow}{attrs} {{"]
        lines += self._ops(function.body.ops, "  ")
        values = ", ".join(self._use(r) for r in function.results)
        lines.append(f"  return {values}".rstrip())
        return "\n".join([*lines, "}\n"])

    def _param(self, value: Value) -> str:
        return f"{self._define(value)}: {value.type}"

    def _define(self, value: Value) -> str:
        stem = value.name or "v"
        count = self.taken.get(stem, -1) + 1
        name = stem if count == 0 and value.name else f"{stem}_{count}"
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken[stem] = count
        self.taken.setdefault(name, 0)
        self.names[value] = text = f"%{name}"
        return text

    def _use(self, value: Value) -> str:
        return self.names.get(value) or f"%<undefined {value.name}>"

    def _ops(self, ops: Sequence[Op], indent: str) -> Iterator[str]:
        for op in ops:
            yield from self._op(op, indent)

    def _op(self, op: Op, indent: str) -> Iterator[str]:
        operands = ", ".join(self._use(v) for v in op.operands)
        definition = OPS[op.name]
        shown = [
            (k, op.attrs[k])
            for k, kind in definition.attrs
            if k not in HIDDEN and k != "value" and not _is_default(kind, op.attrs[k])
        ]
        head = op.name
        if "value" in op.attrs:
            head += " " + _constant(op.attrs["value"], self.elide)
        if operands:
            head += " " + operands
        head += _attrs(shown, self.elide)
        regions = [self._region(op, i, indent) for i in range(len(op.regions))]
        results = ", ".join(self._define(r) for r in op.results)
        types = ", ".join(str(r.type) for r in op.results)
        first = f"{indent}{results} = {head}" if results else f"{indent}{head}"
        tail = f" : {types}" if types else ""
        comment = f"  // {op.span}" if self.spans and op.span else ""
        if not regions:
            yield f"{first}{tail}".ljust(64 if comment else 0) + comment
            return
        for i, (opening, body) in enumerate(regions):
            yield f"{first if i == 0 else indent + '}'} {opening} {{" + (comment if i == 0 else "")
            yield from body
        yield f"{indent}}}{tail}"

    def _region(self, op: Op, index: int, indent: str) -> tuple[str, list[str]]:
        names = OPS[op.name].regions
        name = names[0] if names[-1] == "*" else names[index]
        block = op.regions[index]
        params = ", ".join(self._param(p) for p in block.params)
        body = list(self._ops(block.ops, indent + "  "))
        values = ", ".join(self._use(v) for v in block.results)
        if values:
            body.append(f"{indent}  yield {values}")
        return f"{name} ({params})" if params else name, body


def _is_default(kind: str, value: Any) -> bool:
    if kind == "ints":
        return False
    return value in (0, "", (), None) and value is not True


def _attrs(items: Sequence[tuple[str, Any]], elide: bool) -> str:
    if not items:
        return ""
    return " {" + ", ".join(f"{k} = {_attr(v, elide)}" for k, v in items) + "}"


def _attr(value: Any, elide: bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return number(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case DType():
            return value.name
        case tuple() | list():
            return "[" + ", ".join(_attr(v, elide) for v in value) + "]"
        case np.ndarray():
            return _constant(value, elide)
    return str(value)


def number(value: Any) -> str:
    """A number as the parser reads it: `true`, `3`, `0.1`, `inf`, `nan`."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return repr(float(value))


def _constant(value: Any, elide: bool) -> str:
    if not isinstance(value, np.ndarray):
        return number(value)
    if elide and value.size > ELIDE_ABOVE:
        return "dense<...>"
    items = value.ravel().tolist()
    if value.dtype == np.float32:
        items = [float(str(v)) for v in value.ravel()]
    return "dense<" + ", ".join(map(number, items)) + ">"


def attr_text(attrs: Attrs) -> str:
    """Attributes as the text form shows them, for messages."""
    return _attrs([(k, v) for k, v in attrs.items() if k not in HIDDEN], elide=True)


def block_window(function: Function, op: Op, around: int = 5) -> str:
    """The lines of `function`'s text around `op`, for messages about it."""
    printer = _Printer(spans=False, elide=True)
    lines = printer.function(function).splitlines()
    marks = [printer.names.get(r, "") for r in op.results]
    for i, line in enumerate(lines):
        if marks and line.lstrip().startswith(marks[0] + " "):
            return "\n".join(lines[max(0, i - around) : i + around + 1])
    return "\n".join(lines[: 2 * around])


__all__ = ["attr_text", "block_window", "number", "print_function", "print_module"]


def walk_blocks(block: Block) -> Iterator[Block]:
    """`block` and every block nested in it."""
    yield block
    for op in block.ops:
        for region in op.regions:
            yield from walk_blocks(region)
