"""Builtins that differentiate functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, TensorType
from .arithmetic import is_weak
from .builtin_table import builtin
from .lifting import lift, parameter_names
from .loops import mapped
from .signatures import bind, coerce_arguments
from .type_errors import CallMistake, DerivativeMistake
from .values import (
    Closure,
    Partial,
    Pullback,
    Record,
    Staged,
    Static,
    Tensor,
    Tree,
    Tuple,
    UserFunction,
    describe,
    is_function,
    is_none,
    is_number,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering

Named = Mapping[str, Staged]


def prepare(
    low: Lowering, f: Staged, args: Sequence[Staged], named: Named, wrt: Staged, span: Span
) -> tuple[list[Staged], list[int]]:
    """Arguments of a function to be differentiated, and the numbers of those in `wrt`.

    `wrt` is a number, a name, a tuple of these, or None for every float argument. Literals in
    `wrt` become arrays of the default float type.
    """
    if not is_function(f):
        raise CallMistake("the first argument must be a function", span, found=describe(f))
    given = list(args)
    if isinstance(f, UserFunction):
        declared, home = f.decl.parameters, f.module
        given = list(bind(low, f.decl.name, declared, args, named, span, home).values())
    elif isinstance(f, Closure):
        given = list(bind(low, f.name, f.parameters, args, named, span, f.module).values())
    elif named:
        raise CallMistake("this function takes no named arguments", span, found=describe(f))
    chosen = _chosen(low, f, wrt, given, span)
    for i in chosen:
        if is_number(given[i]):
            given[i] = Tensor(low.a.tensor(given[i], span, low.session.real))
    if isinstance(f, UserFunction | Closure):
        parameters = f.decl.parameters if isinstance(f, UserFunction) else f.parameters
        bound = dict(zip([p.name for p in parameters], given))
        given = list(coerce_arguments(low, parameters, f.module, bound, span).values())
    return given, chosen


def _chosen(low: Lowering, f: Staged, wrt: Staged, args: Sequence[Staged], span: Span) -> list[int]:
    if is_none(wrt):
        return [i for i, a in enumerate(args) if _differentiable(a)]
    names = parameter_names(f)
    out = []
    for item in wrt.items if isinstance(wrt, Tuple) else (wrt,):
        if isinstance(item, Static) and isinstance(item.value, str):
            out.append(names.index(item.value) if item.value in names else len(args))
        else:
            out.append(low.a.static_int(item, span, "wrt"))
    if any(not 0 <= i < len(args) for i in out) or len(set(out)) != len(out):
        raise DerivativeMistake(
            "wrt names no argument of the function, or one twice",
            span,
            expected=f"0 to {len(args) - 1}" + (f", or {', '.join(names)}" if names else ""),
            found=describe(wrt),
        )
    return out


def _differentiable(value: Staged) -> bool:
    leaves = list(tensors(value))
    floats = all(isinstance(t, Tensor) and t.type.dtype.is_float for t in leaves)
    floats = floats and bool(leaves)
    return floats or (isinstance(value, Static) and isinstance(value.value, float))


def _positions(args: Sequence[Staged], wrt: Sequence[int], span: Span) -> list[int]:
    """Positions among the flat tensors of `args` of those in the arguments `wrt`."""
    positions: list[list[int]] = []
    count = 0
    for arg in args:
        leaves = len(list(tensors(arg)))
        positions.append(list(range(count, count + leaves)))
        count += leaves
    for i in wrt:
        for t in tensors(args[i]):
            if isinstance(t, Tree):
                raise DerivativeMistake(
                    "a tree has no derivative", span, hint="derive by what it is encoded from"
                )
            if not t.type.dtype.is_float:
                raise DerivativeMistake(
                    f"argument {i} is not differentiable",
                    span,
                    expected="floats only",
                    found=describe(args[i]),
                )
        if not positions[i]:
            raise DerivativeMistake(
                f"argument {i} is not differentiable", span, found=describe(args[i])
            )
    return [p for i in wrt for p in positions[i]]


def like(low: Lowering, model: Staged, value: Staged, what: str, span: Span) -> Iterator[Value]:
    """The float tensors of `value`, checked to be those of `model`; literals fill its shapes."""
    match model, value:
        case Tensor(), _ if not model.type.dtype.is_float:
            return
        case Tensor(), Tensor() | Static():
            weak = is_weak(value)
            v = low.a.tensor(value, span, model.type.dtype if weak else None)
            if weak and not low.a.type(v).shape:
                v = low.b.expand(v, model.type.shape)
            if low.a.type(v) == model.type:
                yield v
                return
        case Tuple(items), Tuple(parts) if len(items) == len(parts):
            for m, x in zip(items, parts):
                yield from like(low, m, x, what, span)
            return
        case Record(_, fields), Record(_, others) if set(fields) == set(others):
            for name, m in fields.items():
                yield from like(low, m, others[name], what, span)
            return
    raise DerivativeMistake(
        f"{what} of another type", span, expected=describe(model), found=describe(value)
    )


def _pulled(
    low: Lowering,
    f: Staged,
    args: Sequence[Staged],
    wrt: Sequence[int],
    cotangent: Staged | None,
    span: Span,
) -> tuple[Staged, list[Staged]]:
    """(value, gradients by argument in `wrt`); without cotangent the value must be a scalar."""
    positions = _positions(args, wrt, span)
    lifted = lift(low, f, args, span)
    result = lifted.result
    flat = [t for a in args for t in tensors(a)]
    if cotangent is None:
        scalar = isinstance(result, Tensor) and not result.type.rank
        if not scalar or not result.type.dtype.is_float:  # type: ignore[union-attr]
            raise DerivativeMistake(
                "only a function with one float scalar as its result has a gradient",
                span,
                found=describe(result),
                hint="sum the result, or use jacobian, vjp or jvp",
            )
        cotangent = Static(1.0)
    seeds = list(like(low, result, cotangent, "the cotangent is", span))
    types = tuple(t.type for t in tensors(result)) + tuple(flat[p].type for p in positions)
    operands = [*(t.value for t in flat), *lifted.captured, *seeds]
    low.b.span = span
    out = iter(low.b.op("diff.vjp", operands, fn=lifted.name, wrt=tuple(positions), types=types))
    value = rebuild(result, out)
    return value, [low.a.materialise(rebuild(args[i], out), span) for i in wrt]


def _shaped(wrt: Staged, parts: Sequence[Staged]) -> Staged:
    """One gradient alone, several as a tuple."""
    if isinstance(wrt, Tuple) or (is_none(wrt) and len(parts) != 1):
        return Tuple(tuple(parts))
    return parts[0]


@builtin("grad(f, *args, wrt=0, **named)", functions=1)
def _grad(
    low: Lowering,
    span: Span,
    f: Staged,
    args: tuple[Staged, ...],
    wrt: Staged,
    named: Named,
) -> Staged:
    """Gradient of a scalar function: grad(f, x) or grad(f)(x); wrt: argument numbers or names."""
    given, chosen = prepare(low, f, args, named, wrt, span)
    return _shaped(wrt, _pulled(low, f, given, chosen, None, span)[1])


@builtin("value_and_grad(f, *args, wrt=0, **named)", functions=1)
def _value_and_grad(
    low: Lowering,
    span: Span,
    f: Staged,
    args: tuple[Staged, ...],
    wrt: Staged,
    named: Named,
) -> Staged:
    """(value, gradient) of a scalar function."""
    given, chosen = prepare(low, f, args, named, wrt, span)
    value, grads = _pulled(low, f, given, chosen, None, span)
    return Tuple((value, _shaped(wrt, grads)))


@builtin("vjp(f, *args, wrt=None, **named)", functions=1)
def _vjp(
    low: Lowering,
    span: Span,
    f: Staged,
    args: tuple[Staged, ...],
    wrt: Staged,
    named: Named,
) -> Staged:
    """(value, pullback): pullback(cotangent) gives the gradients of the arguments in wrt."""
    given, chosen = prepare(low, f, args, named, wrt, span)
    _positions(given, chosen, span)
    numbers: Staged = Tuple(tuple(Static(i) for i in chosen))
    if len(chosen) == 1 and not isinstance(wrt, Tuple):
        numbers = Static(chosen[0])
    value = low.a.materialise(low.apply(f, given, {}, span), span)
    return Tuple((value, Pullback(f, tuple(given), numbers, value)))


def pull_back(low: Lowering, pullback: Pullback, args: Sequence[Staged], span: Span) -> Staged:
    """Gradients for a cotangent."""
    if len(args) != 1:
        raise CallMistake("a pullback takes one cotangent", span, expected="pullback(cotangent)")
    wrt = pullback.wrt
    given, chosen = prepare(low, pullback.function, pullback.arguments, {}, wrt, span)
    return _shaped(wrt, _pulled(low, pullback.function, given, chosen, args[0], span)[1])


@builtin("jvp(f, args, tangents, wrt=None)")
def _jvp(
    low: Lowering, span: Span, f: Staged, args: Staged, tangents: Staged, wrt: Staged
) -> Staged:
    """(value, directional derivative): jvp(f, x, t), or jvp(f, (x, y), (tx, ty))."""
    items = args.items if isinstance(args, Tuple) else (args,)
    given, chosen = prepare(low, f, items, {}, wrt, span)
    parts = tangents.items if isinstance(tangents, Tuple) else (tangents,)
    if len(parts) != len(chosen):
        raise DerivativeMistake(
            "a tangent is needed for every argument",
            span,
            expected=", ".join(describe(given[i]) for i in chosen),
            found=describe(tangents),
        )
    positions = _positions(given, chosen, span)
    flat = [
        v for i, part in zip(chosen, parts) for v in like(low, given[i], part, "a tangent is", span)
    ]
    lifted = lift(low, f, given, span)
    results = [t.type for t in tensors(lifted.result)]
    types = (*results, *(t for t in results if t.dtype.is_float))
    operands = [t.value for a in given for t in tensors(a)] + lifted.captured + flat
    low.b.span = span
    out = iter(low.b.op("diff.jvp", operands, fn=lifted.name, wrt=tuple(positions), types=types))
    value = rebuild(lifted.result, out)

    def tangent(v: Value) -> Value:
        return next(out) if low.a.type(v).dtype.is_float else low.b.zeros(v)

    return Tuple((value, low.each(value, tangent)))


@builtin("jacobian(f, *args, wrt=0, **named)", functions=1)
def _jacobian(
    low: Lowering,
    span: Span,
    f: Staged,
    args: tuple[Staged, ...],
    wrt: Staged,
    named: Named,
) -> Staged:
    """Derivatives of every result by every element of one array: [*result, *argument]."""
    given, chosen = prepare(low, f, args, named, wrt, span)
    at = given[chosen[0]]
    if len(chosen) != 1 or not isinstance(at, Tensor) or not at.type.dtype.is_float:
        raise DerivativeMistake("a jacobian is by one array of floats", span, found=describe(at))
    size, shape, dtype = at.type.size, at.type.shape, at.type.dtype

    def column(inner: Lowering, element: Staged) -> Staged:
        b = inner.b
        line = b.iota(type=TensorType(I32, (size,)), axis=0)
        index = b.broadcast(inner.a.tensor(element, span), shape=(size,), axes=())
        basis = Tensor(b.reshape(b.convert(b.eq(line, index), dtype=dtype), shape=shape))
        pair = _jvp(inner, span, f, Tuple(tuple(given)), Tuple((basis,)), Static(chosen[0]))
        assert isinstance(pair, Tuple)
        return pair.items[1]

    columns = mapped(low, size, column, span)

    def behind(v: Value) -> Value:
        rest = low.a.type(v).shape[1:]
        moved = low.b.transpose(v, perm=(*range(1, len(rest) + 1), 0)) if rest else v
        return low.b.reshape(moved, shape=(*rest, *shape))

    return low.each(columns, behind)


@builtin("hessian(f, *args, wrt=0, **named)", functions=1)
def _hessian(
    low: Lowering,
    span: Span,
    f: Staged,
    args: tuple[Staged, ...],
    wrt: Staged,
    named: Named,
) -> Staged:
    """Second derivatives of a scalar function by one array: [*argument, *argument]."""
    given, chosen = prepare(low, f, args, named, wrt, span)
    number = Static(chosen[0])
    gradient = Partial("grad", (f,), {"wrt": number})
    second: Staged = _jacobian(low, span, gradient, tuple(given), number, {})
    return second
