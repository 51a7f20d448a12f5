"""Trees as published (Soulos et al. 2023): the sum over nodes of role times filler, and matrices
of roles for going down (D) and up (E).

A role is a vector for a place. With roles r_p and duals u_p (u_p . r_q is 1 for p = q, else 0),
car is the matrix D0, the sum over p of r_p times u_0p, where 0p is the place that p becomes in a
left subtree; E0 is the sum of r_0p times u_p. Roles of any basis do; orthonormal ones are their
own duals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.errors import WengertError
from ..ir.tree import child_rows
from ..ir.types import I32, TensorType, TreeType
from .tree_forms import Form, Held, Positional, largest
from .tree_rows import Rows


class RolesMistake(WengertError):
    """A tree is deeper than its roles."""


@dataclass(frozen=True)
class Roles:
    """Roles and duals `[places, r]`, and the matrices `[r, r]` of going down and up made of them.

    levels: how deep the roles go.
    """

    levels: int
    roles: Value
    duals: Value
    down: tuple[Value, Value]
    up: tuple[Value, Value]

    @property
    def values(self) -> tuple[Value, ...]:
        """All arrays, in order."""
        return (self.roles, self.duals, *self.down, *self.up)

    def over(self, values: Sequence[Value]) -> Roles:
        """The same with other arrays."""
        roles, duals, *rest = values
        return Roles(self.levels, roles, duals, (rest[0], rest[1]), (rest[2], rest[3]))


@dataclass(frozen=True)
class Dense(Form):
    """One matrix `[r, fillers]`, over roles that trees share."""

    name = "dense"
    basis: Roles

    @property
    def arrays(self) -> tuple[TensorType, ...]:
        width = Builder.type(self.basis.roles).shape[1]
        return (TensorType(self.type.dtype, (width, self.type.fillers)),)

    @property
    def context(self) -> tuple[Value, ...]:
        return self.basis.values

    def with_context(self, values: Sequence[Value]) -> Form:
        return replace(self, basis=self.basis.over(values))

    def describe(self) -> str:
        width = Builder.type(self.basis.roles).shape[1]
        return f"{width} roles x {self.type.fillers}, and 4 matrices of {width} x {width}"

    def child(self, b: Builder, x: Sequence[Value], bit: int) -> Held:
        return self._held(_times(b, self.basis.down[bit], x[0]), self.type.depth - 1)

    def cons(self, b: Builder, x: Held, y: Held, root: Value, depth: int) -> Held:
        left, right = (_times(b, m, t.arrays[0]) for m, t in zip(self.basis.up, (x, y)))
        shape = b.type(left).shape
        role = b.reshape(_rows(b, self.basis.roles, 0, 1), shape=shape[:1])
        top = b.mul(
            b.broadcast(role, shape=shape, axes=(0,)), b.broadcast(root, shape=shape, axes=(1,))
        )
        held = self._held(b.add(b.add(left, right), top), min(depth, self.type.depth + 1))
        if held.form.type.depth > self.basis.levels:
            raise RolesMistake(
                f"a tree of {held.form.type.depth} levels is made, but its roles go "
                f"{self.basis.levels} deep",
                b.span,
                hint="give cons a depth=, or the encoding more roles",
            )
        return held

    def filler(self, b: Builder, x: Sequence[Value]) -> Value:
        return b.reshape(self.decode(b, x, 1), shape=(self.type.fillers,))

    def blend(self, b: Builder, weights: Value, trees: Sequence[Held]) -> Held:
        matrices = [t.arrays[0] for t in trees]
        shape = b.type(matrices[0]).shape
        size = shape[0] * shape[1]
        lines = b.concatenate(*(b.reshape(m, shape=(1, size)) for m in matrices), axis=0)
        total = b.dot_general(weights, lines, lhs_contract=(0,), rhs_contract=(0,))
        return self._held(b.reshape(total, shape=shape), self.type.depth)

    def resize(self, b: Builder, x: Sequence[Value], depth: int) -> Held:
        if depth >= self.type.depth:
            return self._held(x[0], depth)
        return self._held(self._from(b, self._fillers(b, x, depth)), depth)

    def product(self, b: Builder, x: Held, y: Held) -> Value:
        both = [self._fillers(b, t.arrays, self.type.depth) for t in (x, y)]
        return b.reduce_sum(b.mul(*both), axes=(0, 1))

    def decode(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        known = min(levels, self.basis.levels)
        out = self._fillers(b, x, known)
        if known < levels:
            high = (2**levels - 2**known, 0)
            zero = b.const(0.0, TensorType(self.type.dtype))
            out = b.pad(out, zero, low=(0, 0), high=high, interior=(0, 0))
        return out

    def nodes(self, b: Builder, x: Sequence[Value], count: int) -> tuple[Value, Value]:
        fillers = self._fillers(b, x, min(self.type.depth, self.basis.levels))
        places = b.iota(type=TensorType(I32, b.type(fillers).shape[:1]), axis=0)
        return largest(b, b.add(places, b.const(1, places)), fillers, count)

    def joined(self, other: Form) -> Form | None:
        depth = max(self.type.depth, other.type.depth)
        same = isinstance(other, Dense) and other.basis == self.basis
        fits = isinstance(other, Positional) and depth <= self.basis.levels
        return replace(self, type=self.type.with_depth(depth)) if same or fits else None

    def converted(self, b: Builder, x: Sequence[Value], form: Form) -> tuple[Value, ...]:
        if isinstance(form, Dense):
            return tuple(x)
        assert isinstance(form, Positional)
        places = tuple(range(1, 2**self.basis.levels))
        every = Rows(places, self.type.fillers, self._fillers(b, x, self.basis.levels))
        moved = every.at(b, form.places, TensorType(self.type.dtype)).value
        return () if moved is None else (moved,)

    def adopted(self, b: Builder, x: Rows) -> Held:
        depth = max(self.type.depth, x.levels)
        every = x.at(b, range(1, 2**self.basis.levels), TensorType(self.type.dtype))
        assert every.value is not None
        return self._held(self._from(b, every.value), depth)

    def _held(self, matrix: Value, depth: int) -> Held:
        return Held(replace(self, type=self.type.with_depth(max(0, depth))), (matrix,))

    def _fillers(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        """The fillers of the top levels, unbound from their roles."""
        return _times(b, _rows(b, self.basis.duals, 0, 2**levels - 1), x[0])

    def _from(self, b: Builder, fillers: Value) -> Value:
        """The tree with these fillers at the first places."""
        roles = _rows(b, self.basis.roles, 0, b.type(fillers).shape[0])
        return b.dot_general(roles, fillers, lhs_contract=(0,), rhs_contract=(0,))


def dense(
    b: Builder,
    type: TreeType,
    fillers: Value,
    places: Value,
    given: Sequence[Value],
    levels: int,
) -> Held:
    """The dense tree of an encoding; given: its roles and perhaps their duals.

    Without roles, each place of `levels` levels has one of its own.
    """
    levels = type.depth if given else max(levels, type.depth)
    if not given:
        count = 2**levels - 1
        shape = TensorType(I32, (count, count))
        same = b.eq(b.iota(type=shape, axis=0), b.iota(type=shape, axis=1))
        given = (b.convert(same, dtype=type.dtype),)
    roles, duals = given[0], given[-1]
    inner = 2 ** (levels - 1) - 1
    down, up = [], []
    for bit in (0, 1):
        moved = child_rows(levels, bit).astype(np.int32)
        if not inner:
            nothing = b.zeros(b.type(roles).with_shape((b.type(roles).shape[1],) * 2))
            down.append(nothing)
            up.append(nothing)
            continue
        index = b.const(moved, TensorType(I32, moved.shape))
        for out, above, beneath in ((down, roles, duals), (up, duals, roles)):
            here = _rows(b, above, 0, inner)
            there = b.gather(beneath, index, axis=0)
            pair = (here, there) if out is down else (there, here)
            out.append(b.dot_general(*pair, lhs_contract=(0,), rhs_contract=(0,)))
    basis = Roles(levels, roles, duals, (down[0], down[1]), (up[0], up[1]))
    zero = b.const(0, places)
    inside = b.and_(b.gt(places, zero), b.le(places, b.const(type.places, places)))
    row = b.select(inside, b.sub(places, b.const(1, places)), zero)
    bound = b.gather(roles, row, axis=0)
    mask = b.broadcast(inside, shape=b.type(bound).shape, axes=(0,))
    bound = b.select(mask, bound, b.zeros(bound))
    matrix = b.dot_general(bound, fillers, lhs_contract=(0,), rhs_contract=(0,))
    return Held(Dense(type, basis), (matrix,))


def _times(b: Builder, matrix: Value, x: Value) -> Value:
    return b.dot_general(matrix, x, lhs_contract=(1,), rhs_contract=(0,))


def _rows(b: Builder, x: Value, start: int, limit: int) -> Value:
    width = b.type(x).shape[1]
    return b.slice(x, start=(start, 0), limit=(limit, width), stride=(1, 1))
