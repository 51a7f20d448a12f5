"""Index arithmetic of loop bodies: few ops, shared, and affine where it can be."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import attribute_default
from ..ir.core import Block, Op, Value
from ..ir.loops import INDEX
from ..ir.opdef import OPS


class Scope:
    """A block being written, with what was computed in it; `outer` encloses it."""

    def __init__(self, block: Block, outer: Scope | None) -> None:
        self.block = block
        self.outer = outer
        self.depth: int = outer.depth + 1 if outer else 0
        self.memo: dict[object, Value] = {}
        self.journal: list[object] = []


class Writer:
    """Writes scalar ops into the outermost scope that their operands allow, each once."""

    def __init__(self, block: Block) -> None:
        self.scope = Scope(block, None)
        self.depths: dict[Value, int] = {}
        self.constants: dict[Value, int] = {}
        self.makers: dict[Value, Op] = {}

    def push(self, block: Block) -> Scope:
        """Enter a region; its parameters belong to it."""
        self.scope = Scope(block, self.scope)
        for p in block.params:
            self.depths[p] = self.scope.depth
        return self.scope

    def pop(self) -> None:
        """Leave a region."""
        assert self.scope.outer is not None
        self.scope = self.scope.outer

    def _at(self, depth: int) -> Scope:
        scope = self.scope
        while scope.depth > depth:
            assert scope.outer is not None
            scope = scope.outer
        return scope

    def write(
        self, name: str, operands: Sequence[Value], key: object = None, **attrs: object
    ) -> Value:
        """A pure op with one result, found again if it was written before."""
        definition = OPS[name]
        for attr, kind in definition.attrs:
            attrs.setdefault(attr, attribute_default(kind))
        depth = max((self.depths.get(v, 0) for v in operands), default=0)
        scope = self._at(depth)
        if key is None:
            key = (name, tuple(operands), tuple(sorted((k, repr(v)) for k, v in attrs.items())))
        found = scope.memo.get(key)
        if found is not None:
            return found
        types = definition.infer(operands, dict(attrs), ())
        value = Value(types[0])
        op = Op(name, tuple(operands), dict(attrs), (), (value,))
        scope.block.ops.append(op)
        scope.memo[key] = value
        scope.journal.append(key)
        self.depths[value] = depth
        self.makers[value] = op
        return value

    def remember(self, key: object, value: Value) -> Value:
        """Note a value under a key of its own, in the scope where it lives."""
        scope = self._at(self.depths.get(value, 0))
        scope.memo[key] = value
        scope.journal.append(key)
        return value

    def recall(self, key: object) -> Value | None:
        """A value noted in this scope or an enclosing one."""
        scope: Scope | None = self.scope
        while scope is not None:
            if key in scope.memo:
                return scope.memo[key]
            scope = scope.outer
        return None

    # Index arithmetic; constants fold

    def index(self, number: int) -> Value:
        """A constant index."""
        value = self.write("const", (), ("index", number), value=number, type=INDEX)
        self.constants[value] = number
        return value

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        a, b = self.constants.get(x), self.constants.get(y)
        if a is not None and b is not None:
            return self.index(a + b)
        if a == 0:
            return y
        return x if b == 0 else self.write("add", (x, y))

    def sub(self, x: Value, y: Value) -> Value:
        """x - y."""
        a, b = self.constants.get(x), self.constants.get(y)
        if a is not None and b is not None:
            return self.index(a - b)
        return x if b == 0 else self.write("sub", (x, y))

    def scale(self, x: Value, factor: int) -> Value:
        """x * factor."""
        known = self.constants.get(x)
        if known is not None:
            return self.index(known * factor)
        return x if factor == 1 else self.write("mul", (x, self.index(factor)))

    def divmod(self, x: Value, size: int) -> tuple[Value, Value]:
        """(x // size, x % size) for x >= 0."""
        known = self.constants.get(x)
        if known is not None:
            return self.index(known // size), self.index(known % size)
        if size == 1:
            return x, self.index(0)
        by = self.index(size)
        return self.write("floordiv", (x, by)), self.write("mod", (x, by))


def reshape_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of two shapes of one size, grouped so that each pair of groups has one size."""
    groups = []
    i = j = 0
    while i < len(old) or j < len(new):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while True:
            if a == b and (left or right) and (a > 1 or (i >= len(old) and j >= len(new))):
                break
            if (a <= b and i < len(old)) or j >= len(new):
                if i >= len(old):
                    break
                a *= old[i]
                left.append(i)
                i += 1
            else:
                b *= new[j]
                right.append(j)
                j += 1
        groups.append((left, right))
    return groups


def reshape_index(
    w: Writer, index: Sequence[Value], new: Sequence[int], old: Sequence[int]
) -> tuple[Value, ...]:
    """The index in shape `old` of the element at `index` in shape `new`."""
    out: dict[int, Value] = {}
    for left, right in reshape_groups(old, new):
        flat = w.index(0)
        for axis in right:
            flat = w.add(w.scale(flat, new[axis]), index[axis])
        for position, axis in enumerate(reversed(left)):
            if old[axis] == 1:
                out[axis] = w.index(0)
            elif all(old[a] == 1 for a in left[: len(left) - 1 - position]):
                out[axis] = flat
            else:
                flat, out[axis] = w.divmod(flat, old[axis])
    return tuple(out[i] for i in range(len(old)))


def stride_of(w: Writer, index: Value, variable: Value) -> int | None:
    """How much `index` grows as `variable` grows by 1; None where it is not affine."""
    if index is variable:
        return 1
    op = w.makers.get(index)
    if op is None or op.name == "const":
        return 0
    parts = [stride_of(w, v, variable) for v in op.operands]
    if all(p == 0 for p in parts):
        return 0
    if any(p is None for p in parts):
        return None
    if op.name == "add":
        return sum(p for p in parts if p is not None)
    if op.name == "sub":
        return parts[0] - parts[1]  # type: ignore[operator]
    if op.name == "mul" and op.operands[1] in w.constants:
        return parts[0] * w.constants[op.operands[1]]  # type: ignore[operator]
    return None
