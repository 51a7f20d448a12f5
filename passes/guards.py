"""A function that computes only what known choices leave: code guarded by flags.

`guarded` writes a function of scalars with one float result again, with a flag for each edge of
choices.py: may this term still be the extreme of its group? What only unflagged edges need is
not computed. Beside its value the function gives what the flags of a smaller box follow from:
the value of every term, and of every group. Terms of one form that differ in their constants
become one loop over these.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Function, Op, Value
from ..ir.reductions import identity
from ..ir.types import BOOL, I32, TensorType
from .choices import ALWAYS, Choices, Group, Live, reads
from .templates import Template, alike

ROLL = 3  # terms of one form from which they become a loop


@dataclass(frozen=True)
class Guarded:
    """What `guarded` made.

    function: parameters as before, then `flags: bool[n]`. Results: the value; `terms[n]`, what
        each flagged term is (infinite where it was not computed); `bests`, what each group is.
        Those of a `max` are negated, so that every term loses to a smaller one.
    group: for each flag, the place of its group among `bests`.
    """

    function: Function
    group: tuple[int, ...]


def guarded(function: Function, name: str) -> Guarded:
    """`function`, whose only result is a float scalar, with its choices guarded by flags."""
    choices = Choices(function)
    count = sum(e >= 0 for g in choices.groups for e in g.edges)
    params = [Value(p.type, p.name) for p in function.params]
    flags = Value(TensorType(BOOL, (max(1, count),)), "flags")
    block = Block([*params, flags])
    w = _Writer(choices, flags)
    scope = _Scope(Builder(block, function.span), None)
    scope.env.update(zip(function.params, params))
    (value,) = function.results
    w.need(ALWAYS, scope, value)
    dtype = Builder.type(value).dtype
    terms = scope.joined(TensorType(dtype, (max(1, count),)), scope.terms, 0)
    bests = scope.joined(TensorType(dtype, (max(1, len(w.owners)),)), scope.bests, 0)
    block.results = [w.value(value, scope), terms, bests]
    group = [0] * max(1, count)
    for edge, at in w.places.items():
        group[at] = w.owners.index(choices.owners[edge])
    return Guarded(Function(name, block, function.span), tuple(group))


def _runs(parts: Sequence[tuple[int, Value]]) -> list[list[tuple[int, Value]]]:
    """Parts in order of their places, split where places are missing between them."""
    runs: list[list[tuple[int, Value]]] = []
    end = -1
    for at, v in sorted(parts, key=lambda part: part[0]):
        if at != end:
            runs.append([])
        runs[-1].append((at, v))
        end = at + Builder.type(v).size
    return runs


class _Scope:
    """A block being written: its values by those of the old function, and what it found.

    terms, bests: (place, scalar or vector) for the results of the same names.
    """

    def __init__(self, b: Builder, outer: _Scope | None) -> None:
        self.b: Any = b
        self.outer = outer
        self.env: dict[Value, Value] = {}
        self.terms: list[tuple[int, Value]] = []
        self.bests: list[tuple[int, Value]] = []

    def inside(self) -> _Scope:
        """A region of this block."""
        return _Scope(Builder(Block(), self.b.span), self)

    def find(self, v: Value) -> Value | None:
        """The new value of v, if it is written here or around."""
        scope: _Scope | None = self
        while scope is not None:
            if v in scope.env:
                return scope.env[v]
            scope = scope.outer
        return None

    def joined(self, type: TensorType, parts: Sequence[tuple[int, Value]], start: int) -> Value:
        """The parts at their places from `start`; infinity elsewhere."""
        b = self.b
        out: Value = b.const(np.inf, type)
        for at, v in sorted(parts, key=lambda part: part[0]):
            row = v if Builder.type(v).shape else b.reshape(v, shape=(1,))
            out = b.dynamic_update(out, row, b.const(at - start, I32))
        return out


class _Writer:
    """Writes the ops of each need where they are needed."""

    def __init__(self, choices: Choices, flags: Value) -> None:
        self.choices = choices
        self.flags = flags
        self.places: dict[int, int] = {}  # flags of edges
        self.owners: list[Group] = []  # in the order of `bests`
        self.at = {op: i for i, op in enumerate(choices.ops)}
        self.own: dict[Live, list[Op]] = {}
        for op in choices.ops:
            if op not in choices.inner and op not in choices.again:
                self.own.setdefault(choices.live[op], []).append(op)
        # Needs of several edges are met at the level of the innermost single one around them.
        self.shared: dict[Live, list[Live]] = {}
        for live in self.own:
            if len(live) > 1:
                level = next(n for n in choices.above(live) if len(n) < 2)
                self.shared.setdefault(level, []).append(live)
        self._known_uses: dict[Live, set[Value]] = {}
        self.batches = {g: self._batches(g) for g in choices.groups}
        for batches in self.batches.values():
            for edges, _ in batches:
                first = len(self.places)
                self.places.update((e, first + i) for i, e in enumerate(edges))

    # Values

    def value(self, v: Value, scope: _Scope) -> Value:
        """The new value of v; what is cheap is written again in each region."""
        found = scope.find(v)
        if found is None:
            op = self.choices.makers[v]
            new = {x: self.value(x, scope) for x in op.operands}
            copy = Op(op.name, op.operands, self.choices.again_attrs(op), (), op.results, op.span)
            clone_op(scope.b, copy, new)
            found = scope.env[v] = new[v]
        return found

    def bases(self, values: Sequence[Value]) -> list[Value]:
        """`values`, those that are written again replaced by what they are made of."""
        out, pending = [], list(values)
        while pending:
            v = pending.pop()
            op = self.choices.makers.get(v)
            if op is not None and op in self.choices.again:
                pending += op.operands
            else:
                out.append(v)
        return out

    def _inputs(self, op: Op) -> list[tuple[Value, Live]]:
        """What an op reads, and the need under which it does."""
        live = self.choices.live[op]
        group = self.choices.of_root.get(op)
        if group is None:
            return [(v, live) for v in self.bases(list(reads(op)))]
        return [
            (base, frozenset([e]) if e >= 0 else live)
            for v, e in zip(group.terms, group.edges)
            for base in self.bases([v])
        ]

    def _level(self, live: Live) -> list[Op]:
        """The ops that the region of one edge, or the function, holds outside its groups' terms."""
        return [op for n in (live, *self.shared.get(live, ())) for op in self.own.get(n, ())]

    def _subtree(self, live: Live) -> list[Op]:
        """The ops of a level and of the terms of its groups."""
        ops = self._level(live)
        for op in list(ops):
            for e in self._edges(op):
                ops += self._subtree(frozenset([e]))
        return ops

    def _edges(self, op: Op) -> list[int]:
        """The flagged edges of the group that op is the root of."""
        group = self.choices.of_root.get(op)
        return [e for e in group.edges if e >= 0] if group is not None else []

    def used_by(self, live: Live) -> set[Value]:
        """The values that the region of an edge reads, and does not make."""
        found = self._known_uses.get(live)
        if found is None:
            ops = self._subtree(live)
            found = {v for op in ops for v, _ in self._inputs(op)}
            found -= {r for op in ops for r in op.results}
            self._known_uses[live] = found
        return found

    # Levels

    def need(self, live: Live, scope: _Scope, result: Value) -> None:
        """Write the ops of a level, in an order that works.

        Ops that several edges need stand in regions of their own, as many in each as can be
        written one after the other.
        """
        ops = self._level(live)
        makers = {r: i for i, op in enumerate(ops) for r in op.results}
        waits = [{makers[v] for v in self._unit_uses(op) if v in makers} for op in ops]
        readers: dict[int, list[int]] = {}
        for i, needed in enumerate(waits):
            for k in needed:
                readers.setdefault(k, []).append(i)
        ready: dict[Live, list[tuple[int, int]]] = {}

        def release(i: int) -> None:
            heapq.heappush(ready.setdefault(self.choices.live[ops[i]], []), (self.at[ops[i]], i))

        for i, needed in enumerate(waits):
            if not needed:
                release(i)
        kept = set(self.bases([result]))
        while ready:
            tag = live if live in ready else min(ready, key=lambda n: ready[n][0])
            run: list[int] = []
            while ready.get(tag):
                _, i = heapq.heappop(ready[tag])
                run.append(i)
                for k in readers.get(i, ()):
                    waits[k].discard(i)
                    if not waits[k]:
                        release(k)
            del ready[tag]
            if tag == live:
                for i in run:
                    self._unit(ops[i], scope)
                continue
            outside = {i for i in run if not set(readers.get(i, ())) <= set(run)}
            yielded = [r for i in run for r in ops[i].results if i in outside or r in kept]
            self._shared(tag, [ops[i] for i in run], yielded, scope)

    def _unit_uses(self, op: Op) -> set[Value]:
        """What an op reads; of a group, what its terms read too."""
        uses = {v for v, _ in self._inputs(op)}
        for e in self._edges(op):
            live = frozenset([e])
            uses |= self.used_by(live)
            uses -= {r for o in self._level(live) for r in o.results}
        return uses

    def _unit(self, op: Op, scope: _Scope) -> None:
        group = self.choices.of_root.get(op)
        if group is not None:
            self._group(group, scope)
            return
        scope.b.span = op.span
        new = {v: self.value(v, scope) for v in reads(op)}
        clone_op(scope.b, op, new)
        scope.env.update((r, new[r]) for r in op.results)

    def _flag(self, edge: int, scope: _Scope) -> Value:
        out: Value = scope.b.row(self.flags, self.places[edge])
        return out

    def _shared(self, live: Live, ops: list[Op], yielded: list[Value], scope: _Scope) -> None:
        """Ops that several edges need: computed where one of them is flagged."""
        first, *others = (self._flag(e, scope) for e in sorted(live))
        test = first
        for flag in others:
            test = scope.b.or_(test, flag)
        inner = scope.inside()
        for op in ops:
            self._unit(op, inner)
        results = [self.value(v, inner) for v in yielded]
        other = Block()
        ob = Builder(other)
        zeros = [ob.const(0, v) for v in yielded]
        values = self._region(scope, test, inner, results, (other, ob, zeros))
        scope.env.update(zip(yielded, values))

    def _region(
        self,
        scope: _Scope,
        test: Value,
        inner: _Scope,
        results: list[Value],
        other: tuple[Block, Builder, list[Value]],
    ) -> list[Value]:
        """An `if` with what its region found passed on; the results without that."""
        block, ob, values = other
        found = [(inner.terms, scope.terms), (inner.bests, scope.bests)]
        runs = [(run, to) for parts, to in found for run in _runs(parts)]
        count = len(results)
        for run, _ in runs:
            end = run[-1][0] + Builder.type(run[-1][1]).size
            type = TensorType(Builder.type(run[0][1]).dtype, (end - run[0][0],))
            results.append(inner.joined(type, run, run[0][0]))
            values.append(ob.const(np.inf, type))
        inner.b.block.results = results
        block.results = values
        out = list(scope.b.op("if", [test], [inner.b.block, block]))
        for (run, to), v in zip(runs, out[count:]):
            to.append((run[0][0], v))
        return out[:count]

    # Groups

    def _group(self, group: Group, scope: _Scope) -> None:
        """The extreme of what is always a term, then of each flagged one."""
        b = scope.b
        b.span = group.root.span
        self.owners.append(group)
        place = len(self.owners) - 1
        acc: Value | None = None
        for v, e in zip(group.terms, group.edges):
            if e < 0:
                x = self.value(v, scope)
                acc = x if acc is None else b.op(group.kind, [acc, x])[0]
        if acc is None:
            start = identity(group.kind, Builder.type(group.root.results[0]).dtype)
            acc = b.const(float(start), group.root.results[0])
        terms = dict(zip(group.edges, group.terms))
        for edges, forms in self.batches[group]:
            if len(forms) >= ROLL:
                acc = self._rolled(group, forms, edges, acc, scope)
                continue
            for e in edges:
                acc = self._single(group, e, terms[e], acc, scope)
        scope.env[group.root.results[0]] = acc
        scope.bests.append((place, self._signed(group, acc, b)))

    def _signed(self, group: Group, v: Value, b: Any) -> Value:
        out: Value = v if group.kind == "min" else b.neg(v)
        return out

    def _batches(self, group: Group) -> list[tuple[list[int], list[Template]]]:
        """Edges whose terms have one form together, in the order of the first of each."""
        found: dict[Any, tuple[list[int], list[Template]]] = {}
        for e, v in zip(group.edges, group.terms):
            if e < 0:
                continue
            template = self._template(e, v)
            edges, forms = found.setdefault(template.form if template else e, ([], []))
            edges.append(e)
            if template is not None:
                forms.append(template)
        return list(found.values())

    def _template(self, edge: int, term: Value) -> Template | None:
        """The form of a term that nothing else needs, where it is a few scalar ops."""
        live = frozenset([edge])
        ops = self.own.get(live, [])
        if live in self.shared or any(o in self.choices.of_root for o in ops):
            return None
        if not any(term in o.results for o in ops):
            return None
        return Template.of(ops, term, self.choices)

    def _single(self, group: Group, edge: int, term: Value, acc: Value, scope: _Scope) -> Value:
        """One more term, where it is flagged."""
        test = self._flag(edge, scope)
        inner = scope.inside()
        self.need(frozenset([edge]), inner, term)
        x = self.value(term, inner)
        found = inner.b.op(group.kind, [acc, x])[0]
        other = Block()
        ob = Builder(other)
        lost = ob.const(np.inf, x)
        pair = [found, self._signed(group, x, inner.b)]
        acc, x = self._region(scope, test, inner, pair, (other, ob, [acc, lost]))
        scope.terms.append((self.places[edge], x))
        return acc

    def _rolled(
        self, group: Group, forms: list[Template], edges: list[int], acc: Value, scope: _Scope
    ) -> Value:
        """Terms of one form: a loop over their constants and flags."""
        b, n = scope.b, len(edges)
        first = self.places[edges[0]]
        flags = b.slice(self.flags, start=(first,), limit=(first + n,), stride=(1,))
        tables, same = alike(forms)
        streams = [b.const(table, TensorType(dtype, (n,))) for table, dtype in tables.values()]
        type = Builder.type(acc)
        inside = Value(type, "best")
        params = [Value(TensorType(dtype)) for _, dtype in tables.values()]
        flag = Value(TensorType(BOOL), "flag")
        body = Block([Value(TensorType(I32), "i"), inside, flag, *params])
        then, other = Block(), Block()
        tb, ob = Builder(then, b.span), Builder(other)
        x = forms[0].write(tb, dict(zip(tables, params)) | same, lambda v: self.value(v, scope))
        then.results = [tb.op(group.kind, [inside, x])[0], self._signed(group, x, tb)]
        other.results = [inside, ob.const(np.inf, type)]
        body.results = list(Builder(body, b.span).op("if", [flag], [then, other]))
        acc, terms = b.op("for", [acc, flags, *streams], [body], trips=n, carries=1)
        scope.terms.append((first, terms))
        return acc
