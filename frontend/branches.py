"""`if` and conditional expressions: static ones choose, run-time ones become `if` ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.core import Block, Value
from ..ir.prob import has_choices
from ..ir.shape import draws
from ..ir.span import Span
from ..ir.types import BOOL, DType, TensorType
from . import syntax as s
from .arithmetic import is_weak
from .scopes import assigned, has_return, returns
from .type_errors import BranchMistake, DTypeMistake, TypeMistake
from .values import (
    Record,
    Staged,
    Static,
    Tensor,
    Tree,
    Tuple,
    Unbound,
    describe,
    key_of,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering

MOST_COPIES = 256


def condition(value: Staged, span: Span) -> Value:
    """A run-time condition as a bool scalar."""
    if isinstance(value, Tensor) and value.type == TensorType(BOOL):
        return value.value
    hint = None
    if isinstance(value, Tensor) and value.type.dtype is BOOL:
        hint = "use where(mask, a, b), any(...) or all(...) for arrays"
    elif isinstance(value, Tensor | Static):
        hint = "compare it: x != 0"
    raise TypeMistake("a condition must be one bool", span, found=describe(value), hint=hint)


def lower_if(
    low: Lowering, stmt: s.If, body: Sequence[s.Stmt], at: int
) -> tuple[bool, Staged | None]:
    """Lower the `if` that is body[at]; (True, value) where it used up the rest of the body."""
    test = low.expr(stmt.condition)
    if isinstance(test, Static) and isinstance(test.value, bool):
        chosen = stmt.body if test.value else stmt.orelse
        if has_return(chosen):
            return True, low.body([*chosen, *body[at + 1 :]])
        low.body(chosen)
        return False, None
    flag = condition(test, stmt.condition.span)
    if has_return(stmt.body) or has_return(stmt.orelse):
        return True, _returning(low, stmt, body[at + 1 :], flag)
    _rebinding(low, stmt, flag)
    return False, None


def _returning(low: Lowering, stmt: s.If, rest: Sequence[s.Stmt], flag: Value) -> Staged | None:
    """An `if` that returns: what follows it goes into the branches that fall through."""
    first = list(stmt.body) if returns(stmt.body) else [*stmt.body, *rest]
    second = list(stmt.orelse) if returns(stmt.orelse) else [*stmt.orelse, *rest]
    regions = [low.inner(Block()), low.inner(Block())]
    if not returns(stmt.body) and not returns(stmt.orelse) and rest:
        for inner in regions:
            inner.copies *= 2
        if low.copies >= MOST_COPIES:
            raise BranchMistake(
                "too many branches that only sometimes return",
                stmt.span,
                hint="each copies what follows it: return from a whole branch, or set a name",
            )
    values = [inner.body(part) for inner, part in zip(regions, (first, second))]
    given = [v for v in values if v is not None]
    if len(given) != 2:
        raise BranchMistake("only some ways through this 'if' return a value", stmt.span)
    return join(low, regions, given, flag, stmt.span, "the returned value")


def _rebinding(low: Lowering, stmt: s.If, flag: Value) -> None:
    """An `if` whose branches rebind names."""
    regions = [low.inner(Block()), low.inner(Block())]
    regions[0].body(stmt.body)
    regions[1].body(stmt.orelse)
    names: list[str] = []
    pairs: list[list[Staged]] = []
    for name in dict.fromkeys([*assigned(stmt.body), *assigned(stmt.orelse)]):
        values = [inner.env.get(name) for inner in regions]
        given = [v for v in values if v is not None]
        merged = _merged(name, given, stmt.span.line)
        if merged is not None:
            low.env[name] = merged
            continue
        try:
            pairs.append(unify_all(regions, given, stmt.span, f"'{name}'"))
            names.append(name)
        except TypeMistake as mistake:  # told where the name is used, if it is
            low.env[name] = Unbound(mistake=mistake)
    out = _emit(low, regions, pairs, flag, stmt.span)
    low.env.update(zip(names, out))


def _merged(name: str, values: Sequence[Staged], line: int) -> Staged | None:
    """What a name is after an `if` without an op; None where its values must be joined."""
    unbound = [v for v in values if isinstance(v, Unbound)]
    if unbound:
        return next((v for v in unbound if not v.reason), unbound[0])
    if len(values) < 2:
        return Unbound(f"only one branch of the 'if' at line {line} sets it")
    first, second = values
    if first is second:
        return first
    if any(True for v in values for _ in tensors(v)):
        return None
    keys = [key_of(v) for v in values]
    if keys[0] is not None and keys[0] == keys[1]:
        return first
    if all(isinstance(v, Static | Tuple | Record) for v in values):
        return None
    return Unbound(f"the branches of the 'if' at line {line} give it different functions")


def join(
    low: Lowering,
    regions: Sequence[Lowering],
    values: Sequence[Staged],
    flag: Value,
    span: Span,
    what: str,
) -> Staged:
    """Finish an `if` op that yields one value."""
    return _emit(low, regions, [unify_all(regions, values, span, what)], flag, span)[0]


def _emit(
    low: Lowering,
    regions: Sequence[Lowering],
    values: Sequence[Sequence[Staged]],
    flag: Value,
    span: Span,
) -> list[Staged]:
    """The `if` op of regions that yield `values` (for each name, a value a region)."""
    for side, inner in enumerate(regions):
        inner.b.block.results = [t.value for pair in values for t in tensors(pair[side])]
    low.b.span = span
    blocks = [inner.b.block for inner in regions]
    empty = not any(b.results or has_choices(b) or draws(b) for b in blocks)
    results = iter(() if empty else low.b.op("if", [flag], blocks))
    return [rebuild(pair[0], results) for pair in values]


def unify_all(
    lows: Sequence[Lowering], values: Sequence[Staged], span: Span, what: str
) -> list[Staged]:
    """The values of branches with one structure and type; literals take the others' type.

    Static values that are equal stay static. Conversions are written by each branch's own
    Lowering.
    """
    first = values[0]
    if isinstance(first, Tuple) and all(
        isinstance(v, Tuple) and len(v.items) == len(first.items) for v in values
    ):
        columns = zip(*(v.items for v in values if isinstance(v, Tuple)))
        parts = [unify_all(lows, column, span, what) for column in columns]
        return [Tuple(tuple(p[i] for p in parts)) for i in range(len(values))]
    if isinstance(first, Record) and all(
        isinstance(v, Record) and set(v.fields) == set(first.fields) for v in values
    ):
        records = [v for v in values if isinstance(v, Record)]
        fields = {
            k: unify_all(lows, [r.fields[k] for r in records], span, f"{what}, field '{k}',")
            for k in first.fields
        }
        return [
            Record(first.name, {k: p[i] for k, p in fields.items()}) for i in range(len(values))
        ]
    keys = [key_of(v) for v in values]
    if not any(isinstance(v, Tensor) for v in values) and keys[0] and len(set(keys)) == 1:
        return list(values)
    trees = [v for v in values if isinstance(v, Tree)]
    if len(trees) == len(values):
        return _unify_trees(lows, trees, span, what)
    if all(isinstance(v, Tensor | Static) for v in values):
        return _unify_arrays(lows, values, span, what)
    raise _differ(what, values, span)


def _unify_trees(
    lows: Sequence[Lowering], values: Sequence[Tree], span: Span, what: str
) -> list[Staged]:
    """Trees as ones of as many levels as the deepest."""
    if len({v.type.with_depth(0) for v in values}) > 1:
        raise _differ(what, values, span)
    depth = max(v.type.depth for v in values)
    resized = [
        v.value if v.type.depth == depth else low.b.op("tree.resize", [v.value], depth=depth)[0]
        for low, v in zip(lows, values)
    ]
    return [Tree(v) for v in resized]


def _unify_arrays(
    lows: Sequence[Lowering], values: Sequence[Staged], span: Span, what: str
) -> list[Staged]:
    strong = {v.type.dtype: None for v in values if isinstance(v, Tensor) and not v.weak}
    if len(strong) > 1:
        raise _differ(what, values, span)
    try:
        dtype = lows[0].a.common_dtype(list(strong), values, span, what)
        made = [_typed(low, v, dtype, span) for low, v in zip(lows, values)]
    except DTypeMistake:
        raise _differ(what, values, span) from None
    shapes = {lows[0].a.type(v).shape for v, x in zip(made, values) if not _fills(x)}
    if len(shapes) > 1:
        raise _differ(what, values, span)
    shape = shapes.pop() if shapes else lows[0].a.type(made[0]).shape
    weak = is_weak(*values)
    return [Tensor(low.b.expand(v, shape), weak) for low, v in zip(lows, made)]


def _typed(low: Lowering, value: Staged, dtype: DType, span: Span) -> Value:
    x = low.a.tensor(value, span, dtype if is_weak(value) else None)
    if low.a.type(x).dtype is not dtype:
        raise DTypeMistake("another type", span)
    return x


def _fills(value: Staged) -> bool:
    """Whether a value is a literal scalar, which fills any shape."""
    return is_weak(value) and not (isinstance(value, Tensor) and value.type.rank)


def _differ(what: str, values: Sequence[Staged], span: Span) -> BranchMistake:
    return BranchMistake(
        f"{what} has another type in each branch",
        span,
        found=" and ".join(dict.fromkeys(describe(v) for v in values)),
        hint="give every branch a value of one type and shape",
    )
