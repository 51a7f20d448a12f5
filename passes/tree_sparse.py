"""Trees as lists of nodes: places as numbers, going down and up as shifts of their digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.types import I32, TensorType, TreeType
from .tree_forms import Form, Held, Positional, largest, no_nodes
from .tree_rows import Rows, elements


@dataclass(frozen=True)
class Sparse(Form):
    """`slots` nodes: places `i32[slots]`, 0 where a slot is empty, and rows of fillers.

    capacity: the most slots, 0 for as many as there are places. Nodes at one place add up; they
    are put together, and all but those of largest norm are dropped, where a sum of trees would
    need more slots than that.
    """

    name = "sparse"
    slots: int
    capacity: int

    @property
    def arrays(self) -> tuple[TensorType, ...]:
        rows = TensorType(self.type.dtype, (self.slots, self.type.fillers))
        return TensorType(I32, (self.slots,)), rows

    def describe(self) -> str:
        most = f" of at most {self.capacity}" if self.capacity else ""
        return f"{self.slots} slots{most} x {self.type.fillers}"

    def child(self, b: Builder, x: Sequence[Value], bit: int) -> Held:
        places, fillers = x
        level, top = _levels(b, places, self.type.depth)
        one, zero = b.const(1, places), b.const(0, places)
        half = b.shr(top, one)
        digit = b.ne(b.and_(places, half), zero)
        inside = b.and_(b.gt(level, zero), digit if bit else b.not_(digit))
        moved = b.sub(places, top if bit else half)
        return self._held(b.select(inside, moved, zero), fillers, self.type.depth - 1)

    def cons(self, b: Builder, x: Held, y: Held, root: Value, depth: int) -> Held:
        type = self.type
        top = b.const(np.array([1], np.int32), TensorType(I32, (1,)))
        places, fillers = [top], [b.reshape(root, shape=(1, type.fillers))]
        for bit, (at, rows) in enumerate((x.arrays, y.arrays)):
            _, first = _levels(b, at, type.depth)
            step = b.add(first, first) if bit else first
            places.append(b.add(at, step))
            fillers.append(rows)
        joined = b.concatenate(*places, axis=0), b.concatenate(*fillers, axis=0)
        held = self._held(joined[0], joined[1], type.depth + 1)
        assert isinstance(held.form, Sparse)
        return held.form.resize(b, held.arrays, depth)

    def filler(self, b: Builder, x: Sequence[Value]) -> Value:
        places, fillers = x
        root = b.convert(b.eq(places, b.const(1, places)), dtype=self.type.dtype)
        return b.dot_general(root, fillers, lhs_contract=(0,), rhs_contract=(0,))

    def blend(self, b: Builder, weights: Value, trees: Sequence[Held]) -> Held:
        places = b.concatenate(*(t.arrays[0] for t in trees), axis=0)
        scaled = []
        for i, tree in enumerate(trees):
            fillers = tree.arrays[1]
            weight = b.reshape(elements(b, weights, [i]), shape=())
            scaled.append(b.mul(fillers, b.broadcast(weight, shape=b.type(fillers).shape, axes=())))
        return self._held(places, b.concatenate(*scaled, axis=0), self.type.depth).pruned(b)

    def resize(self, b: Builder, x: Sequence[Value], depth: int) -> Held:
        places, fillers = x
        if depth < self.type.depth:
            inside = b.lt(places, b.const(2**depth, places))
            places = b.select(inside, places, b.const(0, places))
        return self._held(places, fillers, depth).pruned(b)

    def product(self, b: Builder, x: Held, y: Held) -> Value:
        (px, fx), (py, fy) = x.arrays, y.arrays
        n, m = b.type(px).size, b.type(py).size
        left = b.broadcast(px, shape=(n, m), axes=(0,))
        right = b.broadcast(py, shape=(n, m), axes=(1,))
        met = b.and_(b.eq(left, right), b.gt(left, b.const(0, left)))
        products = b.dot_general(fx, fy, lhs_contract=(1,), rhs_contract=(1,))
        return b.reduce_sum(b.select(met, products, b.zeros(products)), axes=(0, 1))

    def decode(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        places, fillers = x
        count = 2**levels
        inside = b.lt(places, b.const(count, places))
        row = b.select(inside, places, b.const(0, places))
        target = b.zeros(TensorType(self.type.dtype, (count, self.type.fillers)))
        added = b.scatter_add(target, row, fillers, axis=0)
        return b.slice(added, start=(1, 0), limit=(count, self.type.fillers), stride=(1, 1))

    def nodes(self, b: Builder, x: Sequence[Value], count: int) -> tuple[Value, Value]:
        return largest(b, *merged(b, *x), count)

    def joined(self, other: Form) -> Form | None:
        depth = max(self.type.depth, other.type.depth)
        if isinstance(other, Positional):
            count = len(other.places)
            slots = max(self.slots, min(count, self.capacity) if self.capacity else count)
            return Sparse(self.type.with_depth(depth), slots, self.capacity)
        if not isinstance(other, Sparse):
            return None
        both = (self.capacity, other.capacity)
        capacity = max(both) if all(both) else 0
        return Sparse(self.type.with_depth(depth), max(self.slots, other.slots), capacity)

    def converted(self, b: Builder, x: Sequence[Value], form: Form) -> tuple[Value, ...]:
        if isinstance(form, Positional):
            rows = self.decode(b, x, self.type.depth)
            every = Rows(tuple(range(1, 2**self.type.depth)), self.type.fillers, rows)
            moved = every.at(b, form.places, TensorType(self.type.dtype)).value
            return () if moved is None else (moved,)
        assert isinstance(form, Sparse) and form.slots >= self.slots
        empty = form.slots - self.slots
        if not empty:
            return tuple(x)
        places, fillers = no_nodes(b, self.type, empty)
        return b.concatenate(x[0], places, axis=0), b.concatenate(x[1], fillers, axis=0)

    def adopted(self, b: Builder, x: Rows) -> Held:
        depth = max(self.type.depth, x.levels)
        if x.value is None:
            return self._held(*no_nodes(b, self.type, 1), depth)
        places = np.array(x.places, np.int32)
        at = b.const(places, TensorType(I32, places.shape))
        return self._held(at, x.value, depth).pruned(b)

    def _held(self, places: Value, fillers: Value, depth: int) -> _Nodes:
        type = self.type.with_depth(max(0, depth))
        form = Sparse(type, Builder.type(places).size, self.capacity)
        return _Nodes(form, (places, fillers))


class _Nodes(Held):
    """A sparse tree that may have too many slots."""

    def pruned(self, b: Builder) -> Held:
        """Within the capacity."""
        form = self.form
        assert isinstance(form, Sparse)
        most = max(1, form.type.places)
        most = min(most, form.capacity) if form.capacity else most
        if form.slots <= most:
            return self
        return form._held(*largest(b, *merged(b, *self.arrays), most), form.type.depth)


def sparse(b: Builder, type: TreeType, fillers: Value, places: Value, capacity: int) -> Held:
    """The sparse tree of an encoding; places outside of its depth become empty slots."""
    zero = b.const(0, places)
    inside = b.and_(b.gt(places, zero), b.lt(places, b.const(2**type.depth, places)))
    slots = b.type(places).size
    form = Sparse(type, slots, capacity)
    return form._held(b.select(inside, places, zero), fillers, type.depth).pruned(b)


def merged(b: Builder, places: Value, fillers: Value) -> tuple[Value, Value]:
    """Nodes with those of one place put together: as many slots, each place once."""
    size = b.type(places).size
    index = b.iota(type=TensorType(I32, (size,)), axis=0)
    ordered, order = b.sort(places, index, axis=0)
    before = b.concatenate(
        b.const(np.array([-1], np.int32), TensorType(I32, (1,))),
        b.slice(ordered, start=(0,), limit=(size - 1,), stride=(1,)),
        axis=0,
    )
    new = b.convert(b.ne(ordered, before), dtype=I32)
    slot = b.sub(b.cumsum(new, axis=0), b.const(1, new))
    at = b.zeros(places)
    firsts = b.mul(ordered, new)
    rows = b.gather(fillers, order, axis=0)
    return (
        b.scatter_add(at, slot, firsts, axis=0),
        b.scatter_add(b.zeros(fillers), slot, rows, axis=0),
    )


def _levels(b: Builder, places: Value, depth: int) -> tuple[Value, Value]:
    """How far below the root places are, and the first digit of each as a number; 0 for none."""
    level, top = b.zeros(places), b.zeros(places)
    for d in range(depth):
        reached = b.ge(places, b.const(2**d, places))
        level = b.select(reached, b.const(d, places), level)
        top = b.select(reached, b.const(2**d, places), top)
    return level, top
