"""What a function need not compute once some of its choices are known.

A *group* is a tree of `min` ops (or of `max` ops) whose inner results nothing else uses; its
leaves are its terms. A term that is known not to be the smallest need not be computed, nor what
only it needs. The *edge* from a term to its group is the unit of such knowledge: `live[v]`, a
set of edges, says that v is needed where one of them is; `ALWAYS`, the empty set, that it is
needed whatever is known. An edge counts only where its group is needed itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.builder import Builder
from ..ir.core import Attrs, Function, Op, Value, used_values
from ..ir.types import DType

EXTREMES = ("min", "max")
Live = frozenset[int]
ALWAYS: Live = frozenset()
MOST_EDGES = 4  # a value that more edges need is computed wherever their groups are
LEAST_COST = 5  # operations that an edge must spare
LEAST_INSIDE = 24  # those where its group is not always needed
AGAIN = frozenset(["add", "sub", "mul", "neg", "abs"])
AGAIN_COST = 5  # operations of a value that is computed again at each of its uses, at most
COSTLY = 8  # operations that an elementary function counts as
CHEAP = frozenset(
    ["add", "sub", "mul", "neg", "abs", "min", "max", "select", "lt", "le", "gt", "ge", "eq", "ne"]
    + ["and", "or", "not", "xor", "const", "floor", "sign", "convert"]
)


@dataclass(eq=False)
class Group:
    """A tree of one kind of extreme. terms: leaves in order; edges: theirs, -1 for none."""

    root: Op
    kind: str
    inner: list[Op]
    terms: list[Value]
    edges: list[int] = field(default_factory=list)


class Choices:
    """The groups, edges and needs of a function with one float scalar result."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.ops = function.body.ops
        self.makers = {r: op for op in self.ops for r in op.results}
        self.uses = self._uses()
        self.groups = self._groups()
        self.of_root = {g.root: g for g in self.groups}
        self.inner = {op for g in self.groups for op in g.inner}
        self.owners: list[Group] = []  # of each edge
        self.again: set[Op] = set()  # ops written again in every region that needs them
        for g in self.groups:
            g.edges = [self._edge(g, v) for v in g.terms]
        self.repeats = self._repeats()
        self.off: set[int] = set()  # edges that spare too little
        while True:
            self._spread()
            cheap = self._cheap_edges() - self.off
            if not cheap:
                break
            self.off |= cheap
        self._dissolve()

    def _dissolve(self) -> None:
        """Edges that are off go, and with them groups that have no other."""
        for g in self.groups:
            g.edges = [-1 if e in self.off else e for e in g.edges]
            if max(g.edges, default=-1) < 0:
                self.live.update((op, self.live[g.root]) for op in g.inner)
        self.groups = [g for g in self.groups if max(g.edges, default=-1) >= 0]
        self.of_root = {g.root: g for g in self.groups}
        self.inner = {op for g in self.groups for op in g.inner}

    def _edge(self, group: Group, term: Value) -> int:
        if term not in self.makers:
            return -1
        self.owners.append(group)
        return len(self.owners) - 1

    def _uses(self) -> dict[Value, int]:
        uses: dict[Value, int] = {}
        for op in self.ops:
            for v in reads(op):
                uses[v] = uses.get(v, 0) + 1
        for v in self.function.results:
            uses[v] = uses.get(v, 0) + 1
        return uses

    def _groups(self) -> list[Group]:
        """Trees of extremes, roots in order."""
        dtype = Builder.type(self.function.results[0]).dtype
        taken: set[Op] = set()
        found = []
        for op in reversed(self.ops):
            if op in taken or not _is_extreme(op, dtype):
                continue
            group = Group(op, op.name, [], [])
            pending = list(op.operands)
            while pending:
                v = pending.pop(0)
                maker = self.makers.get(v)
                inside = maker is not None and maker.name == op.name and self.uses[v] == 1
                if maker is not None and inside and _is_extreme(maker, dtype):
                    group.inner.append(maker)
                    pending[:0] = maker.operands
                else:
                    group.terms.append(v)
            taken.update(group.inner)
            found.append(group)
        return found[::-1]

    # Needs

    def _spread(self) -> None:
        """Who needs what, from the results to the parameters."""
        self.live: dict[Op, Live] = {}
        self.parents: dict[Live, Live] = {}
        self.again.clear()
        wanted: dict[Value, set[Live]] = {v: {ALWAYS} for v in self.function.results}
        for op in reversed(self.ops):
            if op in self.inner:
                continue
            live = self._joined({n for r in op.results for n in wanted.get(r, ())})
            if op.name == "const" or (len(live) > 1 and op in self.repeats):
                self.again.add(op)
            elif len(live) > MOST_EDGES:
                live = self._around(live)
            self.live[op] = live
            group = self.of_root.get(op)
            if group is None:
                for v in reads(op):
                    wanted.setdefault(v, set()).add(live)
            else:
                for v, e in zip(group.terms, group.edges):
                    edge = frozenset([e]) if e >= 0 and e not in self.off else live
                    wanted.setdefault(v, set()).add(edge)

    def _repeats(self) -> set[Op]:
        """Cheap ops that may be written again where they are needed: a shifted coordinate, say."""
        costs: dict[Op, int] = {}
        for op in self.ops:
            if op.name == "const":
                costs[op] = 0
            elif op.name in AGAIN and not Builder.type(op.results[0]).shape:
                makers = (self.makers.get(v) for v in op.operands)
                total = 1 + sum(costs.get(m, 0) for m in makers if m is not None)
                if total <= AGAIN_COST:
                    costs[op] = total
        return set(costs)

    def again_attrs(self, op: Op) -> Attrs:
        """The attributes of an op that is written again: a product that more than a sum used is
        rounded by itself, as it was."""
        if op.name == "mul" and self.uses[op.results[0]] > 1:
            return op.attrs | {"rounded": True}
        return op.attrs

    def _joined(self, needs: set[Live]) -> Live:
        """What is needed where any of `needs` is."""
        if ALWAYS in needs or not needs:
            return ALWAYS
        edges: Live = frozenset().union(*needs)
        if len(edges) == 1:
            return edges
        return edges - {e for e in edges if self._implied(e, edges - {e})}

    def _implied(self, edge: int, others: Live) -> bool:
        """Whether one of `others` holds wherever `edge` does."""
        return any(up and up <= others for up in self.above(frozenset([edge]))[1:])

    def above(self, live: Live) -> list[Live]:
        """A need and those that hold wherever it does, outwards to ALWAYS."""
        out = [live]
        while out[-1]:
            out.append(self.parent(out[-1]))
        return out

    def parent(self, live: Live) -> Live:
        """The innermost need that every edge's group has."""
        found = self.parents.get(live)
        if found is None:
            found = self.parents[live] = self._innermost(live)
        return found

    def _innermost(self, live: Live) -> Live:
        chains = [self.above(self.live[self.owners[e].root]) for e in live]
        common = set(chains[0]).intersection(*chains[1:])
        return next(n for n in chains[0] if n in common)

    def _around(self, live: Live) -> Live:
        """A need of at most MOST_EDGES edges that holds wherever `live` does."""
        while len(live) > MOST_EDGES:
            live = self.parent(live)
        return live

    def _cheap_edges(self) -> set[int]:
        """Edges that spare too few operations."""
        spared = [0] * len(self.owners)
        for op, live in self.live.items():
            for need in self.above(live):
                for e in need:
                    spared[e] += cost(op)
        least = [LEAST_INSIDE if self.live[g.root] else LEAST_COST for g in self.owners]
        return {e for e, saved in enumerate(spared) if saved < least[e]}


def reads(op: Op) -> dict[Value, None]:
    """The values that an op and its regions use, in order."""
    return dict.fromkeys(used_values(op))


def _is_extreme(op: Op, dtype: DType) -> bool:
    if op.name not in EXTREMES:
        return False
    type = Builder.type(op.results[0])
    return type.dtype is dtype and not type.shape


def cost(op: Op) -> int:
    """Operations that an op stands for, roughly."""
    if op.name == "const":
        return 0
    size = max((Builder.type(r).size for r in op.results), default=1)
    inside = sum(cost(o) for r in op.regions for o in r.ops) * int(op.attrs.get("trips", 1) or 1)
    return (1 if op.name in CHEAP else COSTLY) * size + inside
