"""Trees as the subtrees of those that were encoded: structure is shared, never copied.

Whatever car, cdr, cons and sums make of an encoded tree consists of its own subtrees, hung
somewhere below the roots that cons made. So a tree is held as rows of fillers for these roots, and
rows of weights that say how much of which subtree hangs where. car and cdr of a subtree at the
root step down in the encoded tree, which has a matrix for that; below, nothing ever moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..ir.builder import Builder
from ..ir.core import Value
from ..ir.types import I32, TensorType, TreeType
from . import tree_rows as rows
from .tree_forms import Form, Held, Positional, largest
from .tree_rows import Rows


@dataclass(frozen=True)
class Source:
    """An encoded tree of n nodes.

    fillers: `[n, fillers]`. down: `[n, n]` twice, 1 where the column's node is the left (right)
    child of the row's. levels: how deep it is at most.
    """

    levels: int
    fillers: Value
    down: tuple[Value, Value]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return Builder.type(self.fillers).shape[0]

    @property
    def values(self) -> tuple[Value, ...]:
        """All arrays, in order."""
        return (self.fillers, *self.down)


@dataclass(frozen=True)
class Hung:
    """Weights `[len(places), nodes of the source]`: how much of each subtree hangs at a place."""

    source: Source
    places: tuple[int, ...]


@dataclass(frozen=True)
class Shared(Form):
    """Rows of fillers at places, and subtrees of sources that hang at places.

    limit: how many levels have rows or hung subtrees; 0 for as many as there may be. Subtrees are
    not cut: what hangs at a place keeps all its levels.
    """

    name = "shared"
    limit: int
    places: tuple[int, ...]
    hung: tuple[Hung, ...]

    @property
    def arrays(self) -> tuple[TensorType, ...]:
        dtype = self.type.dtype
        out = []
        if self.places:
            out.append(TensorType(dtype, (len(self.places), self.type.fillers)))
        return (
            *out,
            *(TensorType(dtype, (len(h.places), h.source.nodes)) for h in self.hung),
        )

    @property
    def context(self) -> tuple[Value, ...]:
        return tuple(v for h in self.hung for v in h.source.values)

    def with_context(self, values: Sequence[Value]) -> Form:
        hung = []
        for i, h in enumerate(self.hung):
            fillers, left, right = values[3 * i : 3 * i + 3]
            hung.append(replace(h, source=Source(h.source.levels, fillers, (left, right))))
        return replace(self, hung=tuple(hung))

    def describe(self) -> str:
        parts = [f"{len(self.places)} rows x {self.type.fillers}"]
        parts += [f"{len(h.places)} places x {h.source.nodes} subtrees" for h in self.hung]
        return ", ".join(parts)

    # A tree as rows

    def fillers(self, x: Sequence[Value]) -> Rows:
        """The rows of fillers."""
        return Rows(self.places, self.type.fillers, x[0] if self.places else None)

    def weights(self, x: Sequence[Value], source: Source) -> Rows:
        """The rows of weights of one source's subtrees."""
        at = 1 if self.places else 0
        for i, h in enumerate(self.hung):
            if h.source == source:
                return Rows(h.places, source.nodes, x[at + i])
        return Rows((), source.nodes, None)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What subtrees are of."""
        return tuple(h.source for h in self.hung)

    def _made(self, depth: int, fillers: Rows, hung: Sequence[tuple[Source, Rows]]) -> Held:
        kept = [(s, r) for s, r in hung if r.value is not None]
        form = replace(
            self,
            type=self.type.with_depth(max(0, depth)),
            places=fillers.places,
            hung=tuple(Hung(s, r.places) for s, r in kept),
        )
        values = [v for v in (fillers.value, *(r.value for _, r in kept)) if v is not None]
        return Held(form, tuple(values))

    # Operations

    def child(self, b: Builder, x: Sequence[Value], bit: int) -> Held:
        hung = []
        for source in self.sources:
            held = self.weights(x, source)
            moved, root = held.child(b, bit), held.row(b, 1)
            if root is not None:
                step = b.dot_general(root, source.down[bit], lhs_contract=(0,), rhs_contract=(0,))
                moved = _plus(b, moved, Rows((1,), source.nodes, _line(b, step)))
            hung.append((source, moved))
        return self._made(self.type.depth - 1, self.fillers(x).child(b, bit), hung)

    def cons(self, b: Builder, x: Held, y: Held, root: Value, depth: int) -> Held:
        levels = min(depth, self.limit or depth) - 1
        (fx, wx), (fy, wy) = (_parts(t) for t in (x, y))

        def join(one: Rows, two: Rows, top: Value | None) -> Rows:
            return rows.cons(b, one.within(b, levels), two.within(b, levels), top)

        hung = [(s, join(wx(s), wy(s), None)) for s in self.sources]
        return self._made(depth, join(fx, fy, root), hung)

    def filler(self, b: Builder, x: Sequence[Value]) -> Value:
        return b.reshape(self.decode(b, x, 1), shape=(self.type.fillers,))

    def blend(self, b: Builder, weights: Value, trees: Sequence[Held]) -> Held:
        parts = [_parts(t) for t in trees]
        total = rows.weighted_sum(b, weights, [fillers for fillers, _ in parts])
        hung = [
            (s, rows.weighted_sum(b, weights, [held(s) for _, held in parts])) for s in self.sources
        ]
        return self._made(self.type.depth, total, hung)

    def resize(self, b: Builder, x: Sequence[Value], depth: int) -> Held:
        hung = [(s, self.weights(x, s).within(b, depth)) for s in self.sources]
        return self._made(depth, self.fillers(x).within(b, depth), hung)

    def product(self, b: Builder, x: Held, y: Held) -> Value:
        known = [*self.places, *(p for h in self.hung for p in h.places)]
        levels = max([rows.level_of(p) + 1 for p in known], default=1)
        (fx, hx), (fy, hy) = (_shared(t)._unfolded(b, t.arrays, levels) for t in (x, y))
        total = b.reduce_sum(b.mul(fx, fy), axes=(0, 1))
        common: dict[tuple[Source, Source], Value] = {}
        for s, one in hx.items():
            for t, two in hy.items():
                turned = (t, s) in common
                if not turned:
                    common[s, t] = _common(b, s, t)
                table = common[(t, s) if turned else (s, t)]
                met = b.dot_general(one, table, lhs_contract=(1,), rhs_contract=(int(turned),))
                total = b.add(total, b.reduce_sum(b.mul(met, two), axes=(0, 1)))
        return total

    def decode(self, b: Builder, x: Sequence[Value], levels: int) -> Value:
        return self._unfolded(b, x, levels)[0]

    def nodes(self, b: Builder, x: Sequence[Value], count: int) -> tuple[Value, Value]:
        fillers = self.decode(b, x, max(1, self.type.depth))
        places = b.iota(type=TensorType(I32, b.type(fillers).shape[:1]), axis=0)
        return largest(b, b.add(places, b.const(1, places)), fillers, count)

    def _unfolded(
        self, b: Builder, x: Sequence[Value], levels: int
    ) -> tuple[Value, dict[Source, Value]]:
        """Fillers of the top levels `[2^levels - 1, fillers]`, and the weights of what hangs
        right below them, `[2^levels, nodes]` by source.
        """
        own = self.fillers(x)
        like = TensorType(self.type.dtype)
        hanging: dict[Source, Value | None] = dict.fromkeys(self.sources)
        found = []
        for level in range(levels):
            places = range(2**level, 2 ** (level + 1))
            total = _level(b, own, places, like)
            for source, above in hanging.items():
                at = _level(b, self.weights(x, source), places, like)
                here = at if above is None else above if at is None else b.add(at, above)
                hanging[source] = None if here is None else _stepped(b, here, source)
                if here is not None:
                    part = b.dot_general(here, source.fillers, lhs_contract=(1,), rhs_contract=(0,))
                    total = part if total is None else b.add(total, part)
            found.append(
                b.zeros(like.with_shape((2**level, self.type.fillers))) if total is None else total
            )
        out = found[0] if len(found) == 1 else b.concatenate(*found, axis=0)
        return out, {s: v for s, v in hanging.items() if v is not None}

    # Meeting other forms

    def joined(self, other: Form) -> Form | None:
        type = self.type.with_depth(max(self.type.depth, other.type.depth))
        if isinstance(other, Positional):
            inside = [p for p in other.places if not self.limit or rows.level_of(p) < self.limit]
            return replace(self, type=type, places=rows.in_order([*self.places, *inside]))
        if not isinstance(other, Shared):
            return None
        hung = {h.source: h.places for h in self.hung}
        for h in other.hung:
            hung[h.source] = rows.in_order(hung.get(h.source, ()) + h.places)
        limit = max(self.limit, other.limit) if self.limit and other.limit else 0
        places = rows.in_order(self.places + other.places)
        return Shared(type, limit, places, tuple(Hung(s, p) for s, p in hung.items()))

    def converted(self, b: Builder, x: Sequence[Value], form: Form) -> tuple[Value, ...]:
        like = TensorType(self.type.dtype)
        if isinstance(form, Positional):
            depth = max(1, max((rows.level_of(p) + 1 for p in form.places), default=1))
            every = Rows(tuple(range(1, 2**depth)), self.type.fillers, self.decode(b, x, depth))
            moved = every.at(b, form.places, like).value
            return () if moved is None else (moved,)
        assert isinstance(form, Shared)
        held = [self.fillers(x).at(b, form.places, like)]
        held += [self.weights(x, h.source).at(b, h.places, like) for h in form.hung]
        return tuple(r.value for r in held if r.value is not None)

    def adopted(self, b: Builder, x: Rows) -> Held:
        inside = x.within(b, self.limit) if self.limit else x
        return self._made(max(self.type.depth, x.levels), inside, [])


def _shared(held: Held) -> Shared:
    assert isinstance(held.form, Shared)
    return held.form


def _parts(held: Held) -> tuple[Rows, Callable[[Source], Rows]]:
    """A tree's rows of fillers, and of weights by source."""
    form, x = _shared(held), held.arrays
    return form.fillers(x), lambda source: form.weights(x, source)


def shared(b: Builder, type: TreeType, fillers: Value, places: Value, limit: int) -> Held:
    """The shared tree of an encoding, in which every node but the root has a parent."""
    zero = b.const(0, places)
    inside = b.and_(b.gt(places, zero), b.lt(places, b.const(2**type.depth, places)))
    n = b.type(places).size
    square = (n, n)
    row = b.broadcast(b.select(inside, places, zero), shape=square, axes=(0,))
    column = b.broadcast(places, shape=square, axes=(1,))
    index = TensorType(I32, square)
    earlier = b.and_(
        b.eq(row, column), b.gt(b.iota(type=index, axis=0), b.iota(type=index, axis=1))
    )
    again = b.reduce_max(earlier, axes=(1,))  # another node at this place came before
    first = b.and_(inside, b.not_(again))
    parent = b.broadcast(first, shape=square, axes=(0,))
    down = []
    for bit in (0, 1):
        wanted = b.add(b.add(row, row), b.const(bit, row))
        below = b.and_(parent, b.eq(wanted, column))
        down.append(b.convert(below, dtype=type.dtype))
    mask = b.broadcast(inside, shape=b.type(fillers).shape, axes=(0,))
    there = b.select(mask, fillers, b.zeros(fillers))
    source = Source(type.depth, there, (down[0], down[1]))
    root = b.convert(b.eq(places, b.const(1, places)), dtype=type.dtype)
    form = Shared(type, limit, (), (Hung(source, (1,)),))
    return Held(form, (_line(b, root),))


def _common(b: Builder, s: Source, t: Source) -> Value:
    """`[nodes, nodes]`: the product of each subtree of one source with each of another."""
    same = b.dot_general(s.fillers, t.fillers, lhs_contract=(1,), rhs_contract=(1,))
    out = same
    for _ in range(min(s.levels, t.levels) - 1):
        total = same
        for bit in (0, 1):
            left = b.dot_general(s.down[bit], out, lhs_contract=(1,), rhs_contract=(0,))
            both = b.dot_general(left, t.down[bit], lhs_contract=(1,), rhs_contract=(1,))
            total = b.add(total, both)
        out = total
    return out


def _stepped(b: Builder, here: Value, source: Source) -> Value:
    """The weights of the children of places, left and right ones in turn."""
    n, nodes = b.type(here).shape
    steps = [
        b.reshape(
            b.dot_general(here, down, lhs_contract=(1,), rhs_contract=(0,)), shape=(n, 1, nodes)
        )
        for down in source.down
    ]
    return b.reshape(b.concatenate(*steps, axis=1), shape=(2 * n, nodes))


def _level(b: Builder, x: Rows, places: Sequence[int], like: TensorType) -> Value | None:
    """The rows of one level, None where it has none."""
    return x.at(b, places, like).value if set(places) & set(x.places) else None


def _plus(b: Builder, x: Rows, y: Rows) -> Rows:
    """The sum of rows."""
    if x.value is None:
        return y
    places = rows.in_order(x.places + y.places)
    like = b.type(x.value)
    one, two = (r.at(b, places, like).value for r in (x, y))
    return Rows(places, x.width, b.add(one, two))


def _line(b: Builder, x: Value) -> Value:
    """A vector as a matrix of one row."""
    return b.reshape(x, shape=(1, b.type(x).size))
