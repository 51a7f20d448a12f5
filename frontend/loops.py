"""Loops of the IR: what they run over, counted ones, and those with a condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.core import Block, Value
from ..ir.span import Span
from ..ir.types import I32, TensorType
from . import syntax as s
from .carries import settle
from .type_errors import LoopMistake, SizeMistake, TypeMistake
from .values import (
    Staged,
    Static,
    Tensor,
    Tuple,
    Zip,
    describe,
    named_params,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering

MOST_TRIPS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rows:
    """What a counted loop runs over: `first`, `first + 1`, ..., or the rows of `rows`.

    rows: an array, a tuple or a record of arrays, or a Zip of these (None in it: the index).
    """

    trips: int
    first: int = 0
    rows: Staged | None = None
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Unrolled:
    """A static list of items: the loop is lowered once for each."""

    items: tuple[Staged, ...]


@dataclass(frozen=True, slots=True)
class Looped:
    """What a loop leaves: the last carries, and the outputs stacked."""

    carries: list[Staged]
    outputs: Staged | None


Body = Callable[["Lowering", Staged, list[Staged]], tuple[list[Staged], Staged | None]]


def common_length(value: Staged, span: Span) -> int:
    """The common first size of the arrays of `value`, to iterate over."""
    parts = [i for i in value.items if i is not None] if isinstance(value, Zip) else [value]
    arrays = [t for p in parts for t in tensors(p)]
    sizes = {t.type.shape[0] if t.type.rank else -1 for t in arrays}
    if len(sizes) != 1 or -1 in sizes:
        many = len(sizes) > 1 and -1 not in sizes
        raise TypeMistake(
            "the arrays to iterate over have different lengths"
            if many
            else "this cannot be iterated over",
            span,
            found=describe(value),
        )
    return sizes.pop()


def iteration(low: Lowering, source: s.Expr) -> Rows | Unrolled | tuple[Staged, Staged]:
    """What a loop over `source` runs over; a range with run-time bounds is a pair of these."""
    if isinstance(source, s.Range):
        start, stop = low.expr(source.start), low.expr(source.stop)
        if not (isinstance(start, Static) and isinstance(stop, Static)):
            return start, stop
        first = low.a.static_int(start, source.start.span, "the start of a range")
        last = low.a.static_int(stop, source.stop.span, "the end of a range")
        if max(abs(first), abs(last)) > MOST_TRIPS:
            raise SizeMistake("a loop counts in i32", source.span, found=f"{first}..{last}")
        return Rows(max(0, last - first), first)
    value = low.expr(source)
    if isinstance(value, Tuple):
        return Unrolled(value.items)
    if isinstance(value, Zip):
        return _zipped(value, source.span)
    return Rows(common_length(value, source.span), rows=value)


def _zipped(value: Zip, span: Span) -> Rows | Unrolled:
    """A zip of arrays is a loop, one with a tuple in it is unrolled."""
    if not any(isinstance(i, Tuple) for i in value.items):
        return Rows(common_length(value, span), rows=value)
    lengths = {len(i.items) if isinstance(i, Tuple) else -1 for i in value.items if i is not None}
    if len(lengths) != 1 or -1 in lengths:
        raise TypeMistake(
            "'zip' needs arrays only, or tuples of one length only", span, found=describe(value)
        )
    columns = [
        i.items if isinstance(i, Tuple) else tuple(map(Static, range(max(lengths))))
        for i in value.items
    ]
    return Unrolled(tuple(Tuple(row) for row in zip(*columns)))


def counted(
    low: Lowering,
    over: Rows,
    names: Sequence[str],
    carries: Sequence[Staged],
    body: Body,
    span: Span,
    checkpoint: str = "all",
) -> Looped:
    """A `for` op. `body(inner, element, carries)` lowers one iteration in `inner`.

    Raises Unstable for a carry without one type, unless `names` is a mere description.
    """
    streams = _streams(low, over)

    def region(starts: Sequence[Staged]) -> tuple[Lowering, Staged, list[Staged]]:
        index = Value(TensorType(I32), "i")
        params = [named_params(_hint(n), c) for n, c in zip(names, starts)]
        rows = [Value(_row(low, v), "row") for v in streams]
        inner = low.inner(Block([index, *(v for p in params for v in p), *rows]))
        inner.b.span = span
        if low.draws is not None:
            inner.draws = low.draws.trip(inner.b, index)
        bound = [rebuild(c, iter(p)) for c, p in zip(starts, params)]
        return inner, _element(inner, over, index, rows), bound

    def run(starts: Sequence[Staged]) -> tuple[Lowering, list[Staged], Staged | None]:
        inner, element, bound = region(starts)
        ends, outputs = body(inner, element, bound)
        if outputs is not None:
            inner.b.span = span
            outputs = inner.a.materialise(outputs, span)
        return inner, ends, outputs

    settled = settle(low, names, carries, run, span)
    inner, values, outputs = settled.inner, settled.values, settled.outputs
    stacked = [t.value for t in tensors(outputs)] if outputs is not None else []
    inner.b.block.results = [*values, *stacked]
    inits = [t.value for c in settled.starts for t in tensors(c)]
    low.b.span = span
    out = iter(
        low.b.op(
            "for",
            [*inits, *streams],
            [inner.b.block],
            trips=over.trips,
            carries=len(inits),
            reverse=over.reverse,
            checkpoint="" if checkpoint == "all" else checkpoint,
        )
    )
    finals = [rebuild(p, out) for p in settled.patterns]
    return Looped(finals, None if outputs is None else rebuild(outputs, out))


def _hint(name: str) -> str:
    return name if name.isidentifier() else "carry"


def _streams(low: Lowering, over: Rows) -> list[Value]:
    parts = over.rows.items if isinstance(over.rows, Zip) else (over.rows,)
    return [t.value for p in parts if p is not None for t in tensors(p)]


def _row(low: Lowering, stream: Value) -> TensorType:
    type = low.a.type(stream)
    return type.with_shape(type.shape[1:])


def _element(inner: Lowering, over: Rows, index: Value, rows: Sequence[Value]) -> Staged:
    """The value of the loop variable in one iteration."""
    if over.rows is None:
        if not over.first:
            return Tensor(index)
        return Tensor(inner.b.add(index, inner.b.const(over.first, I32)))
    values = iter(rows)
    if isinstance(over.rows, Zip):
        parts = over.rows.items
        return Tuple(tuple([Tensor(index) if p is None else rebuild(p, values) for p in parts]))
    return rebuild(over.rows, values)


def mapped(
    low: Lowering, trips: int, body: Callable[[Lowering, Staged], Staged], span: Span
) -> Staged:
    """A `for` op without carries: body(inner, index) for every index, stacked."""
    out = counted(low, Rows(trips), [], [], lambda i, element, _: ([], body(i, element)), span)
    assert out.outputs is not None
    return out.outputs


def while_loop(
    low: Lowering,
    names: Sequence[str],
    carries: Sequence[Staged],
    test: Callable[[Lowering, Sequence[Staged]], Value],
    body: Callable[[Lowering, Sequence[Staged]], list[Staged]],
    span: Span,
    limit: int,
) -> list[Staged]:
    """A `while` op over carries; its condition region is lowered once their types are known."""

    def region(starts: Sequence[Staged]) -> tuple[Lowering, list[Staged]]:
        params = [named_params(_hint(n), c) for n, c in zip(names, starts)]
        inner = low.inner(Block([v for p in params for v in p]))
        inner.b.span = span
        inner.draws = None  # nobody knows how many choices a 'while' would make
        return inner, [rebuild(c, iter(p)) for c, p in zip(starts, params)]

    def run(starts: Sequence[Staged]) -> tuple[Lowering, list[Staged], None]:
        inner, bound = region(starts)
        return inner, body(inner, bound), None

    settled = settle(low, names, carries, run, span)
    settled.inner.b.block.results = settled.values
    checker, bound = region(settled.starts)
    checker.b.block.results = [test(checker, bound)]
    inits = [t.value for c in settled.starts for t in tensors(c)]
    low.b.span = span
    regions = [checker.b.block, settled.inner.b.block]
    if not inits:
        raise LoopMistake("this loop changes nothing", span, hint="it carries no name")
    out = iter(low.b.op("while", inits, regions, max_trips=limit))
    return [rebuild(p, out) for p in settled.patterns]
