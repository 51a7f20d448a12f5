"""Builtins that map, fold and choose functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..ir.core import Block
from ..ir.span import Span
from ..ir.types import I32, TensorType
from .branches import unify_all
from .builtin_table import builtin
from .carries import Unstable
from .loops import Body, Looped, Rows, common_length, counted
from .type_errors import CallMistake, LoopMistake, TypeMistake
from .values import Staged, Static, Tensor, Tuple, describe, is_function, rebuild, tensors

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("vmap(f, *xs, **named)", functions=1)
def _vmap(
    low: Lowering, span: Span, f: Staged, xs: tuple[Staged, ...], named: Mapping[str, Staged]
) -> Staged:
    """f along the first axis of every argument: vmap(f)(xs, ys); the same as map(f, xs, ys)."""
    if not xs:
        raise CallMistake("there is nothing to map over", span, expected="vmap(f)(xs, ...)")
    names = tuple(named)
    every = Tuple((*xs, *named.values()))
    trips = common_length(every, span)

    def body(inner: Lowering, row: Staged, _: list[Staged]) -> tuple[list[Staged], Staged]:
        assert isinstance(row, Tuple)
        options = dict(zip(names, row.items[len(xs) :]))
        return [], inner.apply(f, row.items[: len(xs)], options, span)

    out = counted(low, Rows(trips, rows=every), [], [], body, span)
    assert out.outputs is not None
    return out.outputs


@builtin("map(f, *xs)")
def _map(low: Lowering, span: Span, f: Staged, xs: tuple[Staged, ...]) -> Staged:
    """f along the first axis of every argument, results stacked."""
    out: Staged = _vmap(low, span, f, xs, {})
    return out


@builtin('scan(f, init, xs, reverse=False, checkpoint="all")')
def _scan(
    low: Lowering,
    span: Span,
    f: Staged,
    init: Staged,
    xs: Staged,
    reverse: Staged,
    checkpoint: Staged,
) -> Staged:
    """f(carry, x) -> (carry, y) along xs in order: (the last carry, the ys stacked)."""
    policy = _policy(checkpoint, span)

    def body(inner: Lowering, row: Staged, carry: list[Staged]) -> tuple[list[Staged], Staged]:
        result = inner.apply(f, [carry[0], row], {}, span)
        if not isinstance(result, Tuple) or len(result.items) != 2:
            raise TypeMistake(
                "the function of a scan returns (carry, y)", span, found=describe(result)
            )
        return [result.items[0]], result.items[1]

    out = _sequence(low, xs, reverse, init, body, span, policy)
    assert out.outputs is not None
    return Tuple((out.carries[0], out.outputs))


@builtin('fold(f, init, xs, reverse=False, checkpoint="all")')
def _fold(
    low: Lowering,
    span: Span,
    f: Staged,
    init: Staged,
    xs: Staged,
    reverse: Staged,
    checkpoint: Staged,
) -> Staged:
    """f(carry, x) -> carry along xs in order: the last carry."""
    policy = _policy(checkpoint, span)

    def body(inner: Lowering, row: Staged, carry: list[Staged]) -> tuple[list[Staged], None]:
        return [inner.apply(f, [carry[0], row], {}, span)], None

    return _sequence(low, xs, reverse, init, body, span, policy).carries[0]


def _sequence(
    low: Lowering,
    xs: Staged,
    reverse: Staged,
    init: Staged,
    body: Body,
    span: Span,
    checkpoint: str,
) -> Looped:
    """A loop over the rows of xs with one carry."""
    backwards = low.a.static_bool(reverse, span, "reverse")
    rows = Rows(common_length(xs, span), rows=xs, reverse=backwards)
    try:
        return counted(low, rows, ["the carry"], [init], body, span, checkpoint)
    except Unstable as unstable:
        raise unstable.mistake from None


def _policy(value: Staged, span: Span) -> str:
    known = ("all", "carry", "sqrt")
    if not isinstance(value, Static) or value.value not in known:
        raise LoopMistake(
            "no such checkpoint policy", span, expected=", ".join(known), found=describe(value)
        )
    return str(value.value)


@builtin("switch(index, functions, *args)")
def _switch(
    low: Lowering, span: Span, index: Staged, functions: Staged, args: tuple[Staged, ...]
) -> Staged:
    """functions[index](*args): one of a tuple of functions, chosen at run time (clamped)."""
    items = functions.items if isinstance(functions, Tuple) else ()
    if not items or not all(map(is_function, items)):
        raise TypeMistake("'switch' takes a tuple of functions", span, found=describe(functions))
    if isinstance(index, Static):
        at = min(max(low.a.static_int(index, span, "an index"), 0), len(items) - 1)
        return low.apply(items[at], args, {}, span)
    number = low.a.tensor(index, span)
    if low.a.type(number) != TensorType(I32):
        raise TypeMistake("'switch' chooses by one i32", span, found=describe(index))
    regions = [low.inner(Block()) for _ in items]
    values = [inner.apply(f, args, {}, span) for inner, f in zip(regions, items)]
    joined = unify_all(regions, values, span, "the result")
    for inner, value in zip(regions, joined):
        inner.b.block.results = [t.value for t in tensors(value)]
    low.b.span = span
    out = low.b.op("switch", [number], [inner.b.block for inner in regions])
    return rebuild(joined[0], iter(out))


@builtin("select_tree(condition, x, y)")
def _select_tree(low: Lowering, span: Span, condition: Staged, x: Staged, y: Staged) -> Staged:
    """`where` for one bool and two tuples or records of one structure."""
    test = low.condition(low.a.materialise(condition, span), span)
    first, second = unify_all([low, low], [x, y], span, "the value")
    others = iter([t.value for t in tensors(second)])

    def choose(v: Tensor) -> Tensor:
        mask = low.b.expand(test, v.type.shape)
        return Tensor(low.b.select(mask, v.value, next(others)))

    return rebuild(first, iter([choose(t).value for t in tensors(first)]))
