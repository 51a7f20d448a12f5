"""How trees are held: what every form can do, and the positional form.

A form is a record of facts known when compiling; the arrays that go with it hold one tree. All
operations are linear in these arrays, so that plain differentiation is right for every form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.types import I32, TensorType, TreeType
from . import tree_rows as rows
from .tree_rows import Rows


@dataclass(frozen=True)
class Form(ABC):
    """How trees of a type are held.

    type: what is held; its depth bounds the levels.
    """

    name: ClassVar[str]
    type: TreeType

    @property
    @abstractmethod
    def arrays(self) -> tuple[TensorType, ...]:
        """The types of the arrays that hold a tree."""

    @property
    def context(self) -> tuple[Value, ...]:
        """Values that trees of this form share, and that come from outside of them."""
        return ()

    def with_context(self, values: Sequence[Value]) -> Form:
        """The same form over other values of the context, in another function."""
        return self

    @abstractmethod
    def describe(self) -> str:
        """The form in a few words, for dumps."""

    # Operations. `x` are the arrays of a tree of this form. Where trees meet they are of its kind:
    # of the same class, over contexts that are part of its own.

    @abstractmethod
    def child(self, b: Builder, x: Sequence[Value], bit: int) -> Held:
        """The left (0) or right (1) subtree."""

    @abstractmethod
    def cons(self, b: Builder, x: Held, y: Held, root: Value, depth: int) -> Held:
        """Two trees of this kind under a root, within `depth` levels."""

    @abstractmethod
    def filler(self, b: Builder, x: Sequence[Value]) -> Value:
        """The root's filler, `[fillers]`."""

    @abstractmethod
    def blend(self, b: Builder, weights: Value, trees: Sequence[Held]) -> Held:
        """The sum of trees of this kind; weights: one each."""

    @abstractmethod
    def resize(self, b: Builder, x: Sequence[Value], depth: int) -> Held:
        """The tree as one of `depth` levels."""

    @abstractmethod
    def product(self, b: Builder, x: Held, y: Held) -> Value:
        """The sum over places of products of fillers of two trees of this kind."""

    @abstractmethod
    def decode(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        """The fillers of the top levels, `[2^levels - 1, fillers]`, row p - 1 for place p."""

    @abstractmethod
    def nodes(self, b: Builder, x: Sequence[Value], count: int) -> tuple[Value, Value]:
        """Places `i32[count]` and fillers of the nodes of largest norm."""

    # Meeting other forms

    @abstractmethod
    def joined(self, other: Form) -> Form | None:
        """A form that both can be held in, None if there is none but the positional one."""

    @abstractmethod
    def converted(self, b: Builder, x: Sequence[Value], form: Form) -> tuple[Value, ...]:
        """The arrays of a tree of this form in another one that `joined` gave."""

    @abstractmethod
    def adopted(self, b: Builder, x: Rows) -> Held:
        """A tree with rows at known places, in this form."""


@dataclass(frozen=True)
class Held:
    """A tree in some form."""

    form: Form
    arrays: tuple[Value, ...]


@dataclass(frozen=True)
class Positional(Form):
    """A row of fillers at each of the places that can be occupied, in the order of rows."""

    name = "positional"
    places: tuple[int, ...]

    @property
    def arrays(self) -> tuple[TensorType, ...]:
        if not self.places:
            return ()
        return (TensorType(self.type.dtype, (len(self.places), self.type.fillers)),)

    def describe(self) -> str:
        return f"{len(self.places)} of {self.type.places} places x {self.type.fillers}"

    def rows(self, x: Sequence[Value]) -> Rows:
        """The rows of a tree."""
        return Rows(self.places, self.type.fillers, x[0] if x else None)

    def child(self, b: Builder, x: Sequence[Value], bit: int) -> Held:
        return positional(self.rows(x).child(b, bit), self.type, self.type.depth - 1)

    def cons(self, b: Builder, x: Held, y: Held, root: Value, depth: int) -> Held:
        left, right = (_rows_of(t).within(b, depth - 1) for t in (x, y))
        return positional(rows.cons(b, left, right, root), self.type, depth)

    def filler(self, b: Builder, x: Sequence[Value]) -> Value:
        row = self.rows(x).row(b, 1)
        return b.zeros(TensorType(self.type.dtype, (self.type.fillers,))) if row is None else row

    def blend(self, b: Builder, weights: Value, trees: Sequence[Held]) -> Held:
        total = rows.weighted_sum(b, weights, [_rows_of(t) for t in trees])
        return positional(total, self.type, self.type.depth)

    def resize(self, b: Builder, x: Sequence[Value], depth: int) -> Held:
        return positional(self.rows(x).within(b, depth), self.type, depth)

    def product(self, b: Builder, x: Held, y: Held) -> Value:
        one, two = (_rows_of(t) for t in (x, y))
        both = [p for p in one.places if p in set(two.places)]
        like = TensorType(self.type.dtype)
        left, right = (r.at(b, both, like).value for r in (one, two))
        if left is None or right is None:
            return b.zeros(like)
        return b.reduce_sum(b.mul(left, right), axes=(0, 1))

    def decode(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        wanted = range(1, 2**levels)
        out = self.rows(x).at(b, wanted, TensorType(self.type.dtype)).value
        assert out is not None
        return out

    def nodes(self, b: Builder, x: Sequence[Value], count: int) -> tuple[Value, Value]:
        held = self.rows(x).at(b, sorted(self.places), TensorType(self.type.dtype))
        if held.value is None:
            return no_nodes(b, self.type, count)
        places = np.array(held.places, np.int32)
        return largest(b, b.const(places, TensorType(I32, places.shape)), held.value, count)

    def joined(self, other: Form) -> Form | None:
        if not isinstance(other, Positional):
            return other.joined(self)
        depth = max(self.type.depth, other.type.depth)
        return Positional(self.type.with_depth(depth), rows.in_order(self.places + other.places))

    def converted(self, b: Builder, x: Sequence[Value], form: Form) -> tuple[Value, ...]:
        if not isinstance(form, Positional):
            held = form.adopted(b, self.rows(x))
            return held.form.converted(b, held.arrays, form)
        moved = self.rows(x).at(b, form.places, TensorType(self.type.dtype)).value
        return () if moved is None else (moved,)

    def adopted(self, b: Builder, x: Rows) -> Held:
        return positional(x, self.type, max(self.type.depth, x.levels))


def _rows_of(held: Held) -> Rows:
    assert isinstance(held.form, Positional)
    return held.form.rows(held.arrays)


def positional(x: Rows, type: TreeType, depth: int) -> Held:
    """Rows as a tree of `depth` levels."""
    form = Positional(type.with_depth(max(0, depth)), x.places)
    return Held(form, () if x.value is None else (x.value,))


def encoded(b: Builder, type: TreeType, fillers: Value, places: Value) -> Held:
    """The positional tree with rows of `fillers` at places known at run time."""
    count = b.type(places).size
    flipped = _reversed(b, places, type.depth)
    target = b.zeros(TensorType(type.dtype, (2**type.depth, type.fillers)))
    added = b.scatter_add(target, flipped, fillers, axis=0)
    limit = (2**type.depth, type.fillers)
    value = b.slice(added, start=(1, 0), limit=limit, stride=(1, 1))
    assert count == b.type(fillers).shape[0]
    return positional(Rows(rows.all_places(type.depth), type.fillers, value), type, type.depth)


def _reversed(b: Builder, places: Value, depth: int) -> Value:
    """The place at the end of each way gone from its end; 0 outside of `depth` levels."""
    one = b.const(1, places)
    out, rest = one, places
    for _ in range(depth - 1):
        longer = b.gt(rest, one)
        digit = b.and_(rest, one)
        out = b.select(longer, b.add(b.add(out, out), digit), out)
        rest = b.select(longer, b.shr(rest, one), rest)
    return b.select(b.eq(rest, one), out, b.const(0, places))


def no_nodes(b: Builder, type: TreeType, count: int) -> tuple[Value, Value]:
    """The nodes of nothing."""
    places = b.zeros(TensorType(I32, (count,)))
    return places, b.zeros(TensorType(type.dtype, (count, type.fillers)))


def largest(b: Builder, places: Value, fillers: Value, count: int) -> tuple[Value, Value]:
    """The rows of largest norm, the largest first, each place once; 0 where there are no more.

    Rows at place 0 are none. Choosing has no derivative; the rows chosen have.
    """
    size, width = b.type(fillers).shape
    real = b.type(fillers).with_shape((size,))
    norms = b.reduce_sum(b.mul(fillers, fillers), axes=(1,))
    there = b.and_(b.gt(places, b.const(0, places)), b.gt(norms, b.const(0, norms)))
    keys = b.select(there, b.neg(norms), b.const(1, real))
    index = b.iota(type=TensorType(I32, (size,)), axis=0)
    _, order = b.sort(b.stop_gradient(keys), index, axis=0)
    kept = min(size, count)
    order = b.slice(order, start=(0,), limit=(kept,), stride=(1,))
    here = b.gather(there, order, axis=0)
    found = b.select(here, b.gather(places, order, axis=0), b.const(0, order))
    taken = b.gather(fillers, order, axis=0)
    mask = b.broadcast(here, shape=(kept, width), axes=(0,))
    taken = b.select(mask, taken, b.zeros(taken))
    if kept < count:
        missing = no_nodes(b, TreeType(real.dtype, 0, width), count - kept)
        found = b.concatenate(found, missing[0], axis=0)
        taken = b.concatenate(taken, missing[1], axis=0)
    return found, taken
