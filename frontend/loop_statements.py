"""`for` and `while` statements, and comprehensions.

A loop carries the names that its body rebinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import BOOL, I32, I64, TensorType
from . import syntax as s
from .branches import condition
from .carries import Unstable
from .loops import Rows, Unrolled, counted, iteration, while_loop
from .scopes import assigned, first_return, target_names
from .type_errors import LoopMistake, StaticNeeded, TypeMistake
from .values import Record, Staged, Static, Tensor, Tuple, Unbound, describe, is_function

if TYPE_CHECKING:
    from .lower import Lowering


def lower_for(low: Lowering, stmt: s.For) -> None:
    """A `for` statement."""
    forbid_return(stmt.body)
    over = iteration(low, stmt.source)
    if isinstance(over, Unrolled):
        for item in over.items:
            low.assign(stmt.target, item, stmt.span)
            low.body(stmt.body)
        return
    if isinstance(over, Rows):
        _with_carries(low, stmt, lambda names: _counted_statement(low, stmt, over, names))
    else:
        start, stop = over
        _with_carries(low, stmt, lambda names: _dynamic_range(low, stmt, start, stop, names))


def lower_while(low: Lowering, stmt: s.While) -> None:
    """A `while` statement."""
    forbid_return(stmt.body)
    limit = 0
    if stmt.max_trips is not None:
        limit = low.a.static_int(
            low.expr(stmt.max_trips), stmt.max_trips.span, "the bound after 'max'"
        )
        if not 0 < limit < 2**31:
            raise LoopMistake(
                "the bound after 'max' must be positive", stmt.max_trips.span, found=str(limit)
            )
    _with_carries(low, stmt, lambda names: _while_statement(low, stmt, names, limit))


def forbid_return(body: Sequence[s.Stmt]) -> None:
    """Raise LoopMistake for a `return` in a loop."""
    found = first_return(body)
    if found is not None:
        raise LoopMistake(
            "a loop cannot be left by 'return'",
            found.span,
            hint="assign the result to a name and return it after the loop",
        )


def _with_carries(
    low: Lowering, stmt: s.For | s.While, loop: Callable[[list[str]], list[Staged]]
) -> None:
    """Run `loop(names)` with the names that it carries, and bind these to what it leaves.

    A name that has another type in each iteration is the iteration's own: reading it before
    it is set, or after the loop, is the error.
    """
    own = target_names(stmt.target) if isinstance(stmt, s.For) else []
    rebound = [n for n in assigned(stmt.body) if n not in own]
    names = [n for n in rebound if n in low.env and _carried(low.env[n])]
    lost: dict[str, Staged] = {}
    before = dict(low.env)
    while True:
        written, errors = len(low.b.block.ops), len(low.session.errors)
        try:
            out = loop(names)
            break
        except Unstable as unstable:
            del low.b.block.ops[written:], low.session.errors[errors:]
            name = names.pop(unstable.index)
            lost[name] = low.env[name] = Unbound(mistake=unstable.mistake)
    low.env = before
    line = stmt.span.line
    for name in rebound:
        low.env[name] = lost.get(name) or Unbound(f"it is only set inside the loop at line {line}")
    for name in own:
        if name not in before:
            low.env[name] = Unbound(f"it is the variable of the loop at line {line}")
    low.env.update(zip(names, out))


def _carried(value: Staged) -> bool:
    """Whether a loop can carry a value: it has a run-time form."""
    match value:
        case Tensor():
            return True
        case Static(v):
            return isinstance(v, bool | int | float)
        case Tuple(items):
            return all(map(_carried, items))
        case Record(_, fields):
            return all(map(_carried, fields.values()))
    return not isinstance(value, Unbound) and not is_function(value)


def _iterate(
    inner: Lowering, stmt: s.For | s.While, names: Sequence[str], bound: Sequence[Staged]
) -> list[Staged]:
    """Lower a loop body with its carried names bound; their values at its end."""
    inner.env.update(zip(names, bound))
    inner.body(stmt.body)
    return [inner.env[n] for n in names]


def _counted_statement(low: Lowering, stmt: s.For, over: Rows, names: list[str]) -> list[Staged]:
    def body(
        inner: Lowering, element: Staged, bound: list[Staged]
    ) -> tuple[list[Staged], Staged | None]:
        inner.env.update(zip(names, bound))
        inner.assign(stmt.target, element, stmt.span)
        return _iterate(inner, stmt, names, bound), None

    carries = [low.env[n] for n in names]
    return counted(low, over, names, carries, body, stmt.span, stmt.checkpoint).carries


def _while_statement(low: Lowering, stmt: s.While, names: list[str], limit: int) -> list[Staged]:
    def test(inner: Lowering, bound: Sequence[Staged]) -> Value:
        inner.env.update(zip(names, bound))
        value = inner.expr(stmt.condition)
        if isinstance(value, Static) and isinstance(value.value, bool):
            if value.value and not limit:
                raise LoopMistake(
                    "this loop never ends",
                    stmt.condition.span,
                    hint="its condition depends on nothing that the body changes",
                )
            return inner.a.tensor(value, stmt.condition.span, BOOL)
        return condition(value, stmt.condition.span)

    def body(inner: Lowering, bound: Sequence[Staged]) -> list[Staged]:
        return _iterate(inner, stmt, names, bound)

    return while_loop(low, names, [low.env[n] for n in names], test, body, stmt.span, limit)


def _dynamic_range(
    low: Lowering, stmt: s.For, start: Staged, stop: Staged, names: list[str]
) -> list[Staged]:
    """A `for` whose bounds are run-time values: a `while` that counts."""
    for bound, expr in ((start, stmt.source), (stop, stmt.source)):
        if isinstance(bound, Tensor) and bound.type not in (TensorType(I32), TensorType(I64)):
            raise TypeMistake(
                "the bounds of a range are whole numbers", expr.span, found=describe(bound)
            )
    pair = low.a.promote([start, stop], stmt.source.span, "the range")
    last = pair[1]

    def test(inner: Lowering, bound: Sequence[Staged]) -> Value:
        return inner.b.lt(inner.a.tensor(bound[0], stmt.span), last)

    def body(inner: Lowering, bound: Sequence[Staged]) -> list[Staged]:
        counter = inner.a.tensor(bound[0], stmt.span)
        index = counter
        if inner.a.type(counter).dtype is not I32:
            index = inner.b.convert(counter, dtype=I32)
        inner.env.update(zip(names, bound[1:]))
        inner.assign(stmt.target, Tensor(index), stmt.span)
        following = Tensor(inner.b.add(counter, inner.b.const(1, counter)))
        return [following, *_iterate(inner, stmt, names, bound[1:])]

    carries = [Tensor(pair[0]), *(low.env[n] for n in names)]
    try:
        return while_loop(low, ["counter", *names], carries, test, body, stmt.span, 0)[1:]
    except Unstable as unstable:
        raise Unstable(unstable.index - 1, unstable.mistake) from None


def lower_comprehension(
    low: Lowering, element: s.Expr, generators: Sequence[s.Generator], span: Span
) -> Staged:
    """`[element for ...]`: a `for` op without carries a generator, one in the other."""
    generator, *rest = generators
    over = iteration(low, generator.source)

    def inside(inner: Lowering, value: Staged) -> Staged:
        inner.assign(generator.target, value, generator.span)
        if rest:
            return lower_comprehension(inner, element, rest, span)
        return inner.expr(element)

    if isinstance(over, Unrolled):
        items = [inside(low.elsewhere(low.module, dict(low.env)), item) for item in over.items]
        return low.stack(items, span)
    if not isinstance(over, Rows):
        raise StaticNeeded(
            "the range of a comprehension must be known when compiling",
            generator.source.span,
            found=" and ".join(describe(v) for v in over),
            hint="its length is the size of the result; use a size variable or a literal",
        )
    out = counted(low, over, [], [], lambda i, value, _: ([], inside(i, value)), span)
    assert out.outputs is not None
    return out.outputs
