"""Expressions to staged values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..ir.core import Block
from ..ir.span import Span
from ..ir.types import DTYPES, TensorType
from . import distributions, programs, shapes
from . import syntax as s
from .branches import condition, join
from .builtin_table import BUILTINS, CONSTANTS
from .indexing import NEW_AXIS, Cut, Gather, Step, index_step, read, slice_step, window_step, write
from .loop_statements import lower_comprehension
from .operators import binary, unary
from .scopes import suggest
from .type_errors import CallMistake, IndexMistake, Poisoned, TypeMistake, UnboundName
from .values import (
    Builtin,
    Closure,
    Dist,
    ModuleRef,
    Record,
    Staged,
    Static,
    Tensor,
    Trace,
    Tuple,
    Unbound,
    describe,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering


def evaluate(low: Lowering, expr: s.Expr) -> Staged:
    """The value of an expression."""
    low.b.span = expr.span
    match expr:
        case s.Name(span, text):
            return lookup(low, text, span)
        case s.Number(_, value) | s.Bool(_, value) | s.String(_, value):
            return Static(value)
        case s.Binary():
            return _binary(low, expr)
        case s.Unary(span, op, operand):
            inner = evaluate(low, operand)
            low.b.span = span
            return unary(low.a, op, inner, span)
        case s.Call():
            return _call(low, expr)
        case s.Subscript():
            return subscript(low, expr)
        case s.Attribute():
            return _attribute(low, expr)
        case s.Conditional():
            return _conditional(low, expr)
        case s.TupleLiteral(_, items):
            return Tuple(tuple([evaluate(low, i) for i in items]))
        case s.ListLiteral():
            return _list_literal(low, expr)
        case s.RecordLiteral(_, fields):
            return Record("", {f.name: evaluate(low, f.value) for f in fields})
        case s.Comprehension(span, element, generators):
            return lower_comprehension(low, element, generators, span)
        case s.FreshKey(span):
            return _fresh_key(low, span)
        case s.Lambda(span, parameters, body):
            env = dict(low.env)
            return Closure("lambda", parameters, None, body, env, low.module, span)
    raise TypeMistake("this has no value here", expr.span, hint="a range belongs after 'in'")


def _binary(low: Lowering, expr: s.Binary) -> Staged:
    """A chain of left operands without recursion, so that long sums don't nest."""
    chain = [expr]
    while isinstance(chain[-1].left, s.Binary):
        chain.append(chain[-1].left)
    value = evaluate(low, chain[-1].left)
    for node in reversed(chain):
        right = evaluate(low, node.right)
        low.b.span = node.span
        value = binary(low.a, node.op, value, right, node.span)
    return value


def lookup(low: Lowering, name: str, span: Span) -> Staged:
    """What a name denotes: a local, a declaration, or a builtin."""
    found = low.env.get(name)
    if found is not None:
        if isinstance(found, Unbound):
            raise _unbound(name, found, span)
        return found
    declared = low.module.declarations.get(name)
    if declared is not None and not (isinstance(declared, s.DistributionDecl) and name in BUILTINS):
        return low.session.declared(low, low.module, declared, span)
    tool = shapes.known(low.module, name) if low.point is not None else None
    if tool is not None:  # 'blend' of shapes before that of trees
        return low.session.declared(low, tool[1], tool[0], span)
    if name in CONSTANTS:
        return Static(CONSTANTS[name])
    if is_builtin(name):
        return Builtin(name)
    library = programs.known_distribution(low, name)
    if library is not None:
        return library
    raise UnboundName(
        f"'{name}' has no value here", span, hint=suggest(name, [*low.env, *BUILTINS])
    )


def _fresh_key(low: Lowering, span: Span) -> Staged:
    """The key for a program that this one runs."""
    if low.draws is None:
        raise CallMistake(
            "a random key is needed here",
            low.b.span or span,
            hint="from Python, pass key=wg.key(0); only objectives, models and guides have a key",
        )
    return Tensor(low.draws.next(low.b))


def _unbound(name: str, found: Unbound, span: Span) -> Exception:
    if found.mistake is not None:
        return found.mistake
    if not found.reason:
        return Poisoned()
    return UnboundName(
        f"'{name}' may have no value here",
        span,
        found=found.reason,
        hint=f"give '{name}' a value before that",
    )


def is_builtin(name: str) -> bool:
    """Whether `name` is a builtin function or a type."""
    return name in BUILTINS or name in DTYPES or name == "real"


def _attribute(low: Lowering, expr: s.Attribute) -> Staged:
    """`record.field`, `module.member`, `array.T`, `array.shape`."""
    value = evaluate(low, expr.value)
    low.b.span = expr.span
    known: list[str] = ["T", "shape"]
    match value:
        case Record(_, fields) | Trace(Record(_, fields)):
            if expr.name in fields:
                return fields[expr.name]
            known = list(fields)
        case Dist():
            return distributions.method_of(value, expr.name, expr.span)
        case ModuleRef(module):
            if expr.name in module.declarations:
                decl = module.declarations[expr.name]
                return low.session.declared(low, module, decl, expr.span)
            known = list(module.declarations)
        case Tensor(v) if expr.name == "T":
            perm = tuple(reversed(range(value.type.rank)))
            return Tensor(low.b.transpose(v, perm=perm), value.weak)
        case Tensor() if expr.name == "shape":
            return Tuple(tuple(Static(n) for n in value.type.shape))
        case Tensor() if expr.name in BUILTINS:
            raise TypeMistake(
                f"arrays have no '{expr.name}'", expr.span, hint=f"write: {expr.name}(x)"
            )
    raise TypeMistake(
        f"there is no '{expr.name}' here",
        expr.span,
        expected=", ".join(known),
        found=describe(value),
        hint=suggest(expr.name, known),
    )


def _conditional(low: Lowering, expr: s.Conditional) -> Staged:
    """`a if c else b`: an `if` op for a run-time condition; `where` is for arrays."""
    test = evaluate(low, expr.condition)
    if isinstance(test, Static) and isinstance(test.value, bool):
        return evaluate(low, expr.then if test.value else expr.other)
    flag = condition(test, expr.condition.span)
    regions = [low.inner(Block()), low.inner(Block())]
    values = [inner.expr(e) for inner, e in zip(regions, (expr.then, expr.other))]
    return join(low, regions, values, flag, expr.span, "the value")


def _list_literal(low: Lowering, expr: s.ListLiteral) -> Staged:
    """`[a, b]`: items stacked along a new first axis."""
    items = [evaluate(low, i) for i in expr.items]
    low.b.span = expr.span
    if not items:
        raise TypeMistake("an empty list has no type", expr.span, hint="use zeros((0,))")
    return stack(low, items, expr.span)


def stack(low: Lowering, items: Sequence[Staged], span: Span) -> Staged:
    """Values of one structure stacked along a new first axis; literals become one constant."""
    first = items[0] if items else None
    if isinstance(first, Tuple) and all(
        isinstance(i, Tuple) and len(i.items) == len(first.items) for i in items
    ):
        columns = zip(*(i.items for i in items if isinstance(i, Tuple)))
        return Tuple(tuple([stack(low, column, span) for column in columns]))
    if isinstance(first, Record) and all(
        isinstance(i, Record) and set(i.fields) == set(first.fields) for i in items
    ):
        records = [i for i in items if isinstance(i, Record)]
        fields = {k: stack(low, [r.fields[k] for r in records], span) for k in first.fields}
        return Record(first.name, fields)
    if not items or any(not isinstance(i, Tensor | Static) for i in items):
        raise TypeMistake(
            "the items of a list must be of one type",
            span,
            found=", ".join(describe(i) for i in items[:4]) or "nothing",
        )
    constant = _constant_array(low, items, span)
    if constant is not None:
        return constant
    values = low.a.broadcast(low.a.promote(items, span, "a list"), span, "a list")
    shape = low.a.type(values[0]).shape
    rows = [low.b.reshape(v, shape=(1, *shape)) for v in values]
    return Tensor(low.b.concatenate(*rows, axis=0) if len(rows) > 1 else rows[0])


def _constant_array(low: Lowering, items: Sequence[Staged], span: Span) -> Staged | None:
    """A list of literals, or of constant arrays, as one weak constant."""
    arrays = []
    for item in items:
        if isinstance(item, Static) and isinstance(item.value, bool | int | float):
            arrays.append(np.asarray(item.value))
        elif isinstance(item, Tensor) and item.weak and item.value in low.a.dense:
            arrays.append(np.broadcast_to(low.a.dense[item.value], item.type.shape))
        else:
            return None
    dtype = low.a.common_dtype([], items, span, "a list")
    if len({a.shape for a in arrays}) > 1 or len({a.dtype.kind == "b" for a in arrays}) > 1:
        return None
    for number in [i.value for i in items if isinstance(i, Static)]:
        low.a.check_fits(number, dtype, span)
    data = np.stack([a.astype(dtype.numpy) for a in arrays])
    return Tensor(low.a.dense_constant(data, TensorType(dtype, data.shape)), weak=True)


# Indexing


def subscript(low: Lowering, expr: s.Subscript) -> Staged:
    """`value[indices]`."""
    return index(low, evaluate(low, expr.value), expr)


def index(low: Lowering, value: Staged, expr: s.Subscript) -> Staged:
    """`value[indices]` of an array, a tuple, or a record of arrays (each field is indexed)."""
    match value:
        case Tuple(items) if len(expr.indices) == 1 and isinstance(expr.indices[0], s.SliceIndex):
            step = _step(low, expr.indices[0], 0, len(items))
            assert isinstance(step, Cut)
            return Tuple(items[step.start : step.stop : step.step])
        case Tuple(items):
            return items[_tuple_index(low, value, expr)]
        case Record(name, fields):
            return Record(name, {k: index(low, v, expr) for k, v in fields.items()})
        case Trace(choices, score, result, supports):
            choices, score = (index(low, v, expr) for v in (choices, score))
            empty = not any(True for _ in tensors(result))
            return Trace(choices, score, result if empty else index(low, result, expr), supports)
        case Tensor():
            steps = index_steps(low, value.type, expr.indices, expr.span)
            low.b.span = expr.span
            return Tensor(read(low.a, value.value, steps, expr.span), value.weak)
    raise IndexMistake("this cannot be indexed", expr.value.span, found=describe(value))


def _tuple_index(low: Lowering, value: Tuple, expr: s.Subscript) -> int:
    if len(expr.indices) != 1 or not isinstance(expr.indices[0], s.Expr):
        raise IndexMistake("a tuple takes one index", expr.span, found=describe(value))
    at = low.a.static_int(evaluate(low, expr.indices[0]), expr.span, "the index of a tuple")
    if not -len(value.items) <= at < len(value.items):
        raise IndexMistake(f"the tuple has no item {at}", expr.span, found=describe(value))
    return at


def rows(low: Lowering, value: Tensor, span: Span) -> list[Staged]:
    """The elements of an array along its first axis."""
    at = [index_step(Static(i), 0, value.type.shape[0], span) for i in range(value.type.shape[0])]
    return [Tensor(read(low.a, value.value, [i], span), value.weak) for i in at]


def write_index(low: Lowering, old: Staged, path: s.Subscript, value: Staged, span: Span) -> Staged:
    """A copy of `old` with `old[indices]` replaced."""
    if isinstance(old, Tuple):
        at = _tuple_index(low, old, path) % len(old.items)
        return Tuple((*old.items[:at], value, *old.items[at + 1 :]))
    if (
        isinstance(old, Record)
        and isinstance(value, Record)
        and set(old.fields) == set(value.fields)
    ):
        fields = {
            k: write_index(low, v, path, value.fields[k], span) for k, v in old.fields.items()
        }
        return Record(old.name, fields)
    if not isinstance(old, Tensor):
        raise IndexMistake("this cannot be assigned to by index", path.span, found=describe(old))
    steps = index_steps(low, old.type, path.indices, path.span)
    low.b.span = span
    target, weak = old.value, old.weak
    if weak and isinstance(value, Tensor) and not value.weak:
        target, weak = low.a.promote([old, value], span, "the assignment")[0], False
    return Tensor(write(low.a, target, steps, value, span), weak)


def index_steps(
    low: Lowering, type: TensorType, indices: Sequence[s.Index], span: Span
) -> list[Step]:
    """One step an axis for the written indices, `...` filled in."""
    used = sum(not isinstance(i, s.NewAxis | s.Ellipsis) for i in indices)
    if used > type.rank or sum(isinstance(i, s.Ellipsis) for i in indices) > 1:
        raise IndexMistake(
            f"{used} indices for an array of {type.rank} axes"
            if used > type.rank
            else "'...' stands at most once in an index",
            span,
            found=str(type),
        )
    out: list[Step] = []
    axis = 0
    for item in indices:
        if isinstance(item, s.NewAxis):
            out.append(NEW_AXIS)
        elif isinstance(item, s.Ellipsis):
            for _ in range(type.rank - used):
                out.append(Cut(0, type.shape[axis], 1))
                axis += 1
        else:
            out.append(_step(low, item, axis, type.shape[axis]))
            axis += 1
    return out


def gathers(steps: Sequence[Step]) -> bool:
    """Whether an index array is among `steps`."""
    return any(isinstance(s_, Gather) for s_ in steps)


def _step(low: Lowering, item: s.Expr | s.SliceIndex, axis: int, size: int) -> Step:
    if not isinstance(item, s.SliceIndex):
        return index_step(evaluate(low, item), axis, size, item.span)
    parts = [None if e is None else evaluate(low, e) for e in (item.start, item.stop, item.step)]
    if isinstance(parts[0], Tensor) and item.start and item.stop and not item.step:
        length = _window_length(low, item.start, item.stop)
        if length is not None:
            return window_step(parts[0], length, size, item.span)
    bounds = [None if p is None else low.a.static_int(p, item.span, "a slice bound") for p in parts]
    return slice_step(bounds[0], bounds[1], bounds[2], size, item.span)


def _window_length(low: Lowering, start: s.Expr, stop: s.Expr) -> int | None:
    """k where a slice is written `start : start + k` with k known now."""
    if not isinstance(stop, s.Binary) or stop.op != "+" or not same_text(start, stop.left):
        return None
    length = evaluate(low, stop.right)
    if isinstance(length, Static) and type(length.value) is int:
        return length.value
    return None


def same_text(a: object, b: object) -> bool:
    """Whether two expressions are written alike."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_text(x, y) for x, y in zip(a, b))
    if not isinstance(a, s.Node):
        return a == b
    names = [n for c in type(a).__mro__ for n in getattr(c, "__slots__", ()) if n != "span"]
    return all(same_text(getattr(a, n), getattr(b, n)) for n in names)


def _call(low: Lowering, expr: s.Call) -> Staged:
    """A call: of a function, a builtin, a record type."""
    if isinstance(expr.function, s.Name) and expr.function.name in programs.DERIVED:
        return programs.derived(low, expr, expr.function.name)
    function = evaluate(low, expr.function)
    given = [a.value for a in expr.arguments if a.name is None]
    first = []
    if given and isinstance(function, Builtin) and takes_program(function.name):
        first = [programs.program(low, given.pop(0))]
    positional = [*first, *(evaluate(low, x) for x in given)]
    named = {x.name: evaluate(low, x.value) for x in expr.arguments if x.name is not None}
    low.b.span = expr.span
    return low.apply(function, positional, named, expr.span)


def takes_program(name: str) -> bool:
    """Whether the first argument of a builtin is a probabilistic program."""
    return name in BUILTINS and BUILTINS[name].program
