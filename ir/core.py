"""The records of the IR: value, op, block, function, module.

SSA with nested regions. A region is one block: parameters, ops, results (what it yields).
Ops in a region may use values of the enclosing blocks directly. Passes treat everything
here as immutable once built: a pass makes a new function and maps old values to new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .span import Span
from .types import TensorType, Type

Attrs = dict[str, Any]


class Value:
    """One SSA value. `name` is a hint that survives into dumps; the printer makes it unique."""

    __slots__ = ("name", "type")

    def __init__(self, type: Type, name: str = "") -> None:
        self.type = type
        self.name = name

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Op:
    """An operation: name, operands, attributes, regions, and the values it defines."""

    __slots__ = ("attrs", "name", "operands", "regions", "results", "span")

    def __init__(
        self,
        name: str,
        operands: tuple[Value, ...],
        attrs: Attrs,
        regions: tuple[Block, ...],
        results: tuple[Value, ...],
        span: Span | None = None,
    ) -> None:
        self.name = name
        self.operands = operands
        self.attrs = attrs
        self.regions = regions
        self.results = results
        self.span = span

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    def __repr__(self) -> str:
        return f"<{self.name} {self.operands} {self.attrs} -> {self.results}>"


class Block:
    """Parameters, ops in order, and the values handed back at the end."""

    __slots__ = ("ops", "params", "results")

    def __init__(
        self,
        params: list[Value] | None = None,
        ops: list[Op] | None = None,
        results: list[Value] | None = None,
    ) -> None:
        self.params: list[Value] = params or []
        self.ops: list[Op] = ops or []
        self.results: list[Value] = results or []


class Function:
    """A named block with a signature. `attrs` holds facts that passes leave for later ones."""

    __slots__ = ("attrs", "body", "name", "span")

    def __init__(
        self, name: str, body: Block, span: Span | None = None, attrs: Attrs | None = None
    ) -> None:
        self.name = name
        self.body = body
        self.span = span
        self.attrs: Attrs = attrs or {}

    @property
    def params(self) -> list[Value]:
        """The formal parameters."""
        return self.body.params

    @property
    def results(self) -> list[Value]:
        """The returned values."""
        return self.body.results

    def __repr__(self) -> str:
        params = ", ".join(str(p.type) for p in self.params)
        return f"<fn @{self.name}({params}) -> {[r.type for r in self.results]}>"


class Module:
    """Functions by name; `entry` names the one that a caller runs."""

    __slots__ = ("entry", "functions")

    def __init__(self, functions: dict[str, Function] | None = None, entry: str = "") -> None:
        self.functions: dict[str, Function] = functions or {}
        self.entry = entry

    def add(self, function: Function) -> Function:
        """Add `function` under its name and return it."""
        self.functions[function.name] = function
        return function

    def fresh_name(self, stem: str) -> str:
        """`stem`, or `stem_2`, `stem_3`... if that is taken."""
        name, k = stem, 1
        while name in self.functions:
            k += 1
            name = f"{stem}_{k}"
        return name

    @property
    def main(self) -> Function:
        """The entry function."""
        return self.functions[self.entry]


def parameter_types(module: Module) -> list[TensorType]:
    """The types of the tensors that the entry of a tensor-level module takes."""
    return [t for p in module.main.params if isinstance(t := p.type, TensorType)]


def walk(block: Block) -> Iterator[Op]:
    """Every op of `block` and of the regions inside it, outer before inner, in order."""
    for op in block.ops:
        yield op
        for region in op.regions:
            yield from walk(region)


def free_values(block: Block) -> list[Value]:
    """Values that `block` uses and an enclosing block defines, in order of first use."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}
    _collect_free(block, defined, free)
    return list(free)


def used_values(op: Op) -> list[Value]:
    """The values that `op` uses: its operands, then what its regions use from around them."""
    return [*op.operands, *(v for region in op.regions for v in free_values(region))]


def _collect_free(block: Block, defined: set[Value], free: dict[Value, None]) -> None:
    defined.update(block.params)
    for op in block.ops:
        for value in op.operands:
            if value not in defined:
                free[value] = None
        for region in op.regions:
            _collect_free(region, defined, free)
        defined.update(op.results)
    for value in block.results:
        if value not in defined:
            free[value] = None
