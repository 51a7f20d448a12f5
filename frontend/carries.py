"""Types of loop carries: what a body is lowered with, and what must hold at its end.

A literal (`s = 0.0`) takes the type that the body gives its name: the body is lowered again
where that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import DType
from .arithmetic import is_weak
from .type_errors import DTypeMistake, LoopMistake, Poisoned
from .values import Record, Staged, Static, Tensor, Tree, Tuple, Unbound, describe

if TYPE_CHECKING:
    from .lower import Lowering

ATTEMPTS = 6


class Unstable(Exception):
    """Carry number `index` has no one type over the iterations."""

    def __init__(self, index: int, mistake: LoopMistake) -> None:
        super().__init__(mistake.summary)
        self.index = index
        self.mistake = mistake


@dataclass(frozen=True, slots=True)
class Settled:
    """A lowered body whose carries keep their types."""

    inner: Lowering
    starts: list[Staged]
    values: list[Value]
    patterns: list[Staged]
    outputs: Staged | None


Run = Callable[[Sequence[Staged]], tuple["Lowering", list[Staged], Staged | None]]


def settle(
    low: Lowering, names: Sequence[str], carries: Sequence[Staged], run: Run, span: Span
) -> Settled:
    """Lower a body until every carry ends an iteration with the type it began with."""
    current = list(carries)
    for _ in range(ATTEMPTS):
        written, errors = len(low.b.block.ops), len(low.session.errors)
        starts = [_softened(low, c, span) for c in current]
        inner, ends, outputs = run(starts)
        inner.b.span = span
        fits = [
            _Fit(inner, n, i, span).fit(a, b)
            for i, (n, a, b) in enumerate(zip(names, starts, ends))
        ]
        if all(f.wanted is None for f in fits):
            values = [v for f in fits for v in f.values]
            return Settled(inner, starts, values, [f.pattern for f in fits], outputs)
        del low.b.block.ops[written:], low.session.errors[errors:]
        low.b.span = span
        current = [
            c if f.wanted is None else _retyped(low, c, f.wanted, span)
            for c, f in zip(current, fits)
        ]
    changing = next(i for i, f in enumerate(fits) if f.wanted is not None)
    raise Unstable(changing, changes(names[changing], starts[changing], ends[changing], span))


def changes(name: str, start: Staged, end: Staged, span: Span) -> LoopMistake:
    """The error of a name whose type changes in a loop."""
    return LoopMistake(
        f"'{name}' changes its type in the loop",
        span,
        expected=f"{describe(start)}, as before the loop",
        found=describe(end),
        hint="give it its final shape and type before the loop",
    )


def _softened(low: Lowering, value: Staged, span: Span) -> Staged:
    """A carry's first value with its literals as arrays that still adapt."""
    match value:
        case Static():
            return Tensor(low.a.tensor(value, span), weak=True)
        case Tuple(items):
            return Tuple(tuple([_softened(low, i, span) for i in items]))
        case Record(name, fields):
            return Record(name, {k: _softened(low, v, span) for k, v in fields.items()})
    return value


def _retyped(low: Lowering, first: Staged, wanted: Staged, span: Span) -> Staged:
    """A literal first value as the type that the body gave it."""
    match first, wanted:
        case ((Static() | Tensor()), Tensor()):
            if first is wanted:
                return first
            value = low.a.tensor(first, span, wanted.type.dtype)
            return Tensor(low.b.expand(value, wanted.type.shape), wanted.weak)
        case Tuple(items), Tuple(parts):
            return Tuple(tuple([_retyped(low, i, p, span) for i, p in zip(items, parts)]))
        case Record(name, fields), Record(_, others):
            return Record(name, {k: _retyped(low, v, others[k], span) for k, v in fields.items()})
    return first


@dataclass(frozen=True, slots=True)
class _Fitted:
    """wanted: the type to begin with instead, or None; values: what the body yields."""

    wanted: Staged | None
    values: list[Value]
    pattern: Staged


class _Fit:
    """Compares a carry at the end of an iteration with its start."""

    def __init__(self, inner: Lowering, name: str, index: int, span: Span) -> None:
        self.inner = inner
        self.name = name
        self.index = index
        self.span = span

    def fit(self, start: Staged, end: Staged) -> _Fitted:
        """How `end` goes back into `start`; raises Unstable where it cannot."""
        match start, end:
            case Tensor(), Tensor() | Static():
                return self._array(start, end)
            case Tree(), Tree() if start.type == end.type:
                return _Fitted(None, [end.value], start)
            case Tree(), Tree() if start.type.with_depth(0) == end.type.with_depth(0):
                return self._tree(start, end)
            case Tuple(items), Tuple(parts) if len(items) == len(parts):
                fits = [self.fit(a, b) for a, b in zip(items, parts)]
                wanted = [f.wanted or a for f, a in zip(fits, items)]
                return self._joined(
                    fits, Tuple(tuple(wanted)), Tuple(tuple(f.pattern for f in fits))
                )
            case Record(name, fields), Record(_, others) if set(fields) == set(others):
                found = {k: self.fit(v, others[k]) for k, v in fields.items()}
                wanted_ = Record(name, {k: f.wanted or fields[k] for k, f in found.items()})
                pattern = Record(name, {k: f.pattern for k, f in found.items()})
                return self._joined(list(found.values()), wanted_, pattern)
            case _, Unbound(reason, mistake):
                if not reason and mistake is None:
                    raise Poisoned
                found_ = LoopMistake(
                    f"'{self.name}' may have no value here", self.span, found=reason
                )
                raise Unstable(self.index, found_)
        if start is end:
            return _Fitted(None, [], start)
        raise self._unstable(start, end)

    def _tree(self, start: Tree, end: Tree) -> _Fitted:
        """A tree that ends with fewer levels than it may have."""
        if end.type.depth > start.type.depth:
            raise self._unstable(start, end)
        depth = start.type.depth
        (value,) = self.inner.b.op("tree.resize", [end.value], depth=depth)
        return _Fitted(None, [value], start)

    def _joined(self, fits: Sequence[_Fitted], wanted: Staged, pattern: Staged) -> _Fitted:
        values = [v for f in fits for v in f.values]
        same = all(f.wanted is None for f in fits)
        return _Fitted(None if same else wanted, values, pattern)

    def _unstable(self, start: Staged, end: Staged) -> Unstable:
        return Unstable(self.index, changes(self.name, start, end, self.span))

    def _array(self, start: Tensor, end: Tensor | Static) -> _Fitted:
        a = self.inner.a
        weak = is_weak(end)
        if not weak or not start.weak:
            target = start.type.dtype
        else:
            target = a.common_dtype([], [start, end], self.span, f"'{self.name}'")
        try:
            value = a.tensor(end, self.span, target if weak else None)
        except DTypeMistake:
            raise self._unstable(start, end) from None
        found = a.type(value)
        pattern = Tensor(start.value, start.weak and weak)
        if found.dtype is start.type.dtype and weak and not found.shape:
            value = self.inner.b.expand(value, start.type.shape)
            return _Fitted(None, [value], pattern)
        if found == start.type:
            return _Fitted(None, [value], pattern)
        if (
            start.weak
            and _grows(start.type.shape, found.shape)
            and self._adapts(start, found.dtype)
        ):
            return _Fitted(Tensor(value, weak), [value], pattern)
        raise self._unstable(start, end)

    @staticmethod
    def _adapts(start: Tensor, dtype: DType) -> bool:
        source = start.type.dtype
        numbers = source.is_number and dtype.is_number
        return source is dtype or (numbers and not (source.is_float and dtype.is_int))


def _grows(start: tuple[int, ...], end: tuple[int, ...]) -> bool:
    """Whether a literal of shape `start` fills shape `end`."""
    return start == end or not start
