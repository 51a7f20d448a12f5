"""Rows at places of a tree that are known when compiling.

Rows are ordered so that the way down to a place, read from its end, counts: then the left
subtree's rows are every second one, the right subtree's the others between them, and cons
interleaves. A set of places that is not whole keeps this order among those that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.types import I32, TensorType

MOST_RUNS = 6  # pieces that a choice of rows is cut into; more become a gather


def level_of(place: int) -> int:
    """How far below the root a place is."""
    return place.bit_length() - 1


def reversed_place(place: int) -> int:
    """The place at the end of the same way, gone from its end."""
    return int("1" + bin(place)[3:][::-1], 2)


def in_order(places: Iterable[int]) -> tuple[int, ...]:
    """Places in the order of rows."""
    return tuple(sorted(set(places), key=reversed_place))


def all_places(depth: int) -> tuple[int, ...]:
    """Every place of a tree of `depth` levels."""
    return tuple(reversed_place(q) for q in range(1, 2**depth))


def below(place: int, bit: int) -> int | None:
    """The place of a node in the left (0) or right (1) subtree, None if it is not in there."""
    level = level_of(place)
    if not level or (place >> (level - 1)) & 1 != bit:
        return None
    return place - (1 + bit) * 2 ** (level - 1)


def above(place: int, bit: int) -> int:
    """The place of a node once its tree is a left (0) or right (1) subtree."""
    return int(place + (1 + bit) * 2 ** level_of(place))


@dataclass(frozen=True)
class Rows:
    """A row of `width` numbers at each of `places`; the value is None where there are none."""

    places: tuple[int, ...]
    width: int
    value: Value | None

    @property
    def levels(self) -> int:
        """How many levels have places."""
        return max((level_of(p) + 1 for p in self.places), default=0)

    def row(self, b: Builder, place: int) -> Value | None:
        """The row at a place, None for zeros."""
        if self.value is None or place not in self.places:
            return None
        at = self.places.index(place)
        row = b.slice(self.value, start=(at, 0), limit=(at + 1, self.width), stride=(1, 1))
        return b.reshape(row, shape=(self.width,))

    def child(self, b: Builder, bit: int) -> Rows:
        """The rows of the left (0) or right (1) subtree."""
        found = [(below(p, bit), i) for i, p in enumerate(self.places)]
        kept = [(p, i) for p, i in found if p is not None]
        places = in_order(p for p, _ in kept)
        index = dict(kept)
        return self._chosen(b, places, [index[p] for p in places])

    def within(self, b: Builder, levels: int) -> Rows:
        """The rows of the top levels."""
        kept = [i for i, p in enumerate(self.places) if level_of(p) < levels]
        return self._chosen(b, tuple(self.places[i] for i in kept), kept)

    def at(self, b: Builder, places: Sequence[int], dtype: TensorType) -> Rows:
        """The rows at other places, zeros where there were none. dtype: any type of the rows'."""
        places = tuple(places)
        if places == self.places or not places:
            return self if places else replace(self, places=(), value=None)
        if self.value is None:
            return Rows(places, self.width, b.zeros(dtype.with_shape((len(places), self.width))))
        index = {p: i for i, p in enumerate(self.places)}
        return self._chosen(b, places, [index.get(p) for p in places])

    def _chosen(self, b: Builder, places: tuple[int, ...], index: Sequence[int | None]) -> Rows:
        if places == self.places:
            return self
        value = pick(b, self.value, index) if self.value is not None and places else None
        return Rows(places, self.width, value)


def pick(b: Builder, x: Value, index: Sequence[int | None]) -> Value:
    """Rows of a matrix, zeros for None: slices where they are few, else a gather."""
    runs = list(_runs(index))
    type = b.type(x)
    width = type.shape[1]
    if len(runs) > MOST_RUNS:
        zero = b.zeros(type.with_shape((1, width)))
        whole = b.concatenate(x, zero, axis=0) if None in index else x
        rows = np.array([type.shape[0] if i is None else i for i in index], np.int32)
        return b.gather(whole, b.const(rows, TensorType(I32, rows.shape)), axis=0)
    parts = []
    for start, step, count in runs:
        if start is None:
            parts.append(b.zeros(type.with_shape((count, width))))
        else:
            limit = (start + step * (count - 1) + 1, width)
            parts.append(b.slice(x, start=(start, 0), limit=limit, stride=(step, 1)))
    return parts[0] if len(parts) == 1 else b.concatenate(*parts, axis=0)


def _runs(index: Sequence[int | None]) -> Iterable[tuple[int | None, int, int]]:
    """(start, step, count) of maximal even runs; start None for zeros."""
    i, n = 0, len(index)
    while i < n:
        first = index[i]
        j = i + 1
        if first is None:
            while j < n and index[j] is None:
                j += 1
            yield None, 1, j - i
        else:
            second = index[j] if j < n else None
            step = second - first if second is not None and second > first else 1
            while j < n and index[j] == first + step * (j - i):
                j += 1
            yield first, step, j - i
        i = j


def cons(b: Builder, left: Rows, right: Rows, root: Value | None) -> Rows:
    """The rows of a tree made of two; root: the row of the root, None if it has none."""
    width = left.width
    places = [above(p, 0) for p in left.places] + [above(p, 1) for p in right.places]
    values = [v for v in (left.value, right.value) if v is not None]
    head = [1] if root is not None else []
    top = [b.reshape(root, shape=(1, width))] if root is not None else []
    if left.places == right.places and left.value is not None and right.value is not None:
        pairs = [b.reshape(v, shape=(len(left.places), 1, width)) for v in values]
        woven = b.reshape(b.concatenate(*pairs, axis=1), shape=(len(places), width))
        value = b.concatenate(*top, woven, axis=0) if top else woven
        return Rows(in_order(head + places), width, value)
    parts = top + values
    if not parts:
        return Rows((), width, None)
    joined = parts[0] if len(parts) == 1 else b.concatenate(*parts, axis=0)
    found, wanted = head + places, in_order(head + places)
    return Rows(wanted, width, pick(b, joined, [found.index(p) for p in wanted]))


def weighted_sum(b: Builder, weights: Value, items: Sequence[Rows]) -> Rows:
    """The sum of rows, each times an element of `weights`, at the places of any."""
    kept = [i for i, r in enumerate(items) if r.value is not None]
    width = items[0].width
    if not kept:
        return Rows((), width, None)
    places = in_order(p for i in kept for p in items[i].places)
    size = len(places) * width
    aligned = [items[i].at(b, places, b.type(weights)) for i in kept]
    lines = [b.reshape(r.value, shape=(1, size)) for r in aligned if r.value is not None]
    stacked = b.concatenate(*lines, axis=0)
    total = b.dot_general(elements(b, weights, kept), stacked, lhs_contract=(0,), rhs_contract=(0,))
    return Rows(places, width, b.reshape(total, shape=(len(places), width)))


def elements(b: Builder, x: Value, index: Sequence[int]) -> Value:
    """Elements of a vector."""
    size = b.type(x).size
    if list(index) == list(range(size)):
        return x
    column = b.reshape(x, shape=(size, 1))
    return b.reshape(pick(b, column, list(index)), shape=(len(index),))
