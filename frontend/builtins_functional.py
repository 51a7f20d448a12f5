"""Builtins of functions: derivatives, mapping over axes, choice among functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.core import Block, Value
from ..ir.span import Span
from ..ir.types import I32, TensorType
from .builtin_table import ByKeyword, builtin
from .values import (
    Closure,
    Staged,
    Static,
    Tensor,
    Tuple,
    TypeMistake,
    UserFunction,
    describe,
    is_function,
    rebuild,
    tensors,
)

ZERO = Static(0)


def _arguments(low: Any, f: Staged, args: Sequence[Staged], span: Span) -> list[Staged]:
    """Arguments of a function to be differentiated, literals made arrays."""
    if not is_function(f):
        raise TypeMistake("the first argument must be a function", span, found=describe(f))
    if isinstance(f, UserFunction):
        bound = low.session.bind(low, f.decl.name, f.decl.parameters, args, {}, span, f.module)
        bound = low.session.coerce_arguments(low, f.decl, f.module, bound, span)
        return list(bound.values())
    return [low.a.materialise(x, span) if isinstance(x, Static) else x for x in args]


def _wrt(low: Any, f: Staged, wrt: Staged, args: Sequence[Staged], span: Span) -> list[int]:
    """The argument numbers to differentiate by: a number, a name, or a tuple of them."""
    items = wrt.items if isinstance(wrt, Tuple) else (wrt,)
    parameters = f.decl.parameters if isinstance(f, UserFunction) else f.parameters if isinstance(f, Closure) else ()
    names = [p.name for p in parameters]
    out = []
    for item in items:
        if isinstance(item, Static) and isinstance(item.value, str) and item.value in names:
            out.append(names.index(item.value))
        else:
            out.append(low.a.static_int(item, span, "wrt"))
    if any(not 0 <= i < len(args) for i in out) or len(set(out)) != len(out):
        raise TypeMistake("wrt names no argument of the function", span, found=str(out))
    return out


def _flat_positions(args: Sequence[Staged], wrt: Sequence[int], span: Span) -> list[int]:
    """Positions among the flat tensors of `args` of those in the arguments `wrt`."""
    positions: list[list[int]] = []
    count = 0
    for arg in args:
        leaves = list(tensors(arg))
        positions.append(list(range(count, count + len(leaves))))
        count += len(leaves)
    for i in wrt:
        for t in tensors(args[i]):
            if not t.type.dtype.is_float:
                raise TypeMistake(
                    f"argument {i} is not differentiable", span, expected="floats", found=str(t.type)
                )
    return [p for i in wrt for p in positions[i]]


def _pullback(
    low: Any,
    f: Staged,
    args: Sequence[Staged],
    wrt: Sequence[int],
    cotangents: Sequence[Value] | None,
    span: Span,
) -> tuple[Staged, list[Staged]]:
    """(value, gradients by argument in `wrt`); without cotangents the value must be a scalar."""
    name, captured, pattern = low.session.lift(low, f, args, span)
    positions = _flat_positions(args, wrt, span)
    flat = [t for a in args for t in tensors(a)]
    floats = [t for t in tensors(pattern) if t.type.dtype.is_float]
    if cotangents is None:
        if not isinstance(pattern, Tensor) or pattern.type.rank or not floats:
            raise TypeMistake(
                "only a function with one float scalar result has a gradient",
                span,
                found=describe(pattern),
                hint="use vjp or jvp",
            )
        cotangents = [low.b.const(1.0, pattern.type)]
    types = tuple(t.type for t in tensors(pattern)) + tuple(flat[p].type for p in positions)
    operands = [*(t.value for t in flat), *captured, *cotangents]
    out = iter(low.b.op("diff.vjp", operands, fn=name, wrt=tuple(positions), types=types))
    value = rebuild(pattern, out)
    return value, [rebuild(args[i], out) for i in wrt]


def _shaped(wrt: Staged, parts: Sequence[Staged]) -> Staged:
    return Tuple(tuple(parts)) if isinstance(wrt, Tuple) else parts[0]


@builtin("grad", "f", ("wrt", ZERO), variadic=True, functions=1)
def _grad(low: Any, span: Span, f: Staged, wrt: Staged, rest: list[Staged]) -> Staged:
    """Gradient of a scalar function: grad(f, x, ...) or grad(f)(x, ...); wrt= chooses arguments."""
    args, wrt = _split_wrt(low, f, wrt, rest, span)
    return _shaped(wrt, _pullback(low, f, args, _wrt(low, f, wrt, args, span), None, span)[1])


@builtin("value_and_grad", "f", ("wrt", ZERO), variadic=True, functions=1)
def _value_and_grad(low: Any, span: Span, f: Staged, wrt: Staged, rest: list[Staged]) -> Staged:
    """(value, gradient) of a scalar function."""
    args, wrt = _split_wrt(low, f, wrt, rest, span)
    value, grads = _pullback(low, f, args, _wrt(low, f, wrt, args, span), None, span)
    return Tuple((value, _shaped(wrt, grads)))


def _split_wrt(
    low: Any, f: Staged, wrt: Staged, rest: list[Staged], span: Span
) -> tuple[list[Staged], Staged]:
    """Arguments and wrt: a second positional argument is the function's own first one."""
    if wrt is ZERO:
        return _arguments(low, f, rest, span), ZERO
    if isinstance(wrt, ByKeyword):
        return _arguments(low, f, rest, span), wrt.value
    return _arguments(low, f, [wrt, *rest], span), ZERO


@builtin("vjp", "f", "args", "cotangent", ("wrt", ZERO))
def _vjp(low: Any, span: Span, f: Staged, args: Staged, cotangent: Staged, wrt: Staged) -> Staged:
    """(value, pullback of the cotangent) of f at a tuple of arguments."""
    wrt = wrt.value if isinstance(wrt, ByKeyword) else wrt
    given = _arguments(low, f, args.items if isinstance(args, Tuple) else [args], span)
    cts = [t.value for t in tensors(low.a.materialise(cotangent, span)) if t.type.dtype.is_float]
    value, grads = _pullback(low, f, given, _wrt(low, f, wrt, given, span), cts, span)
    return Tuple((value, _shaped(wrt, grads)))


@builtin("jvp", "f", "args", "tangents", ("wrt", Static(None)))
def _jvp(low: Any, span: Span, f: Staged, args: Staged, tangents_: Staged, wrt: Staged) -> Staged:
    """(value, directional derivative) of f at a tuple of arguments along a tuple of tangents."""
    wrt = wrt.value if isinstance(wrt, ByKeyword) else wrt
    given = _arguments(low, f, args.items if isinstance(args, Tuple) else [args], span)
    every = isinstance(wrt, Static) and wrt.value is None
    chosen = list(range(len(given))) if every else _wrt(low, f, wrt, given, span)
    positions = _flat_positions(given, chosen, span)
    wanted = [t.type for i in chosen for t in tensors(given[i])]
    parts = tangents_.items if isinstance(tangents_, Tuple) else (tangents_,)
    flat_t = [t for p in parts for t in tensors(low.a.materialise(p, span))]
    if [t.type for t in flat_t] != wanted:
        raise TypeMistake(
            "tangents need the types of the arguments",
            span,
            expected=", ".join(map(str, wanted)),
            found=", ".join(str(t.type) for t in flat_t),
        )
    name, captured, pattern = low.session.lift(low, f, given, span)
    results = [t.type for t in tensors(pattern)]
    types = (*results, *(t for t in results if t.dtype.is_float))
    operands = [t.value for a in given for t in tensors(a)] + captured + [t.value for t in flat_t]
    out = iter(low.b.op("diff.jvp", operands, fn=name, wrt=tuple(positions), types=types))
    value = rebuild(pattern, out)
    return Tuple((value, rebuild(pattern, out)))


@builtin("jacobian", "f", "x", variadic=True, functions=1)
def _jacobian(low: Any, span: Span, f: Staged, x: Staged, rest: list[Staged]) -> Staged:
    """Derivatives of an array-valued f by its first argument: `[*result, *argument]`."""
    args = _arguments(low, f, [x, *rest], span)
    first = args[0]
    if not isinstance(first, Tensor):
        raise TypeMistake("'jacobian' differentiates by one array", span, found=describe(first))
    size, shape = first.type.size, first.type.shape
    index = Value(TensorType(I32), "i")
    block = Block([index])
    inner = low.inner(block, in_loop=True)
    inner.b.span = span
    line = inner.b.iota(type=TensorType(I32, (size,)), axis=0)
    hot = inner.b.eq(line, inner.b.broadcast(index, shape=(size,), axes=()))
    basis = inner.b.reshape(inner.b.convert(hot, dtype=first.type.dtype), shape=shape)
    out = _jvp(inner, span, f, Tuple(tuple(args)), Tuple((Tensor(basis),)), ByKeyword(ZERO))  # type: ignore[arg-type]
    tangent = out.items[1]
    if not isinstance(tangent, Tensor):
        raise TypeMistake("'jacobian' needs a function with one result", span, found=describe(tangent))
    block.results = [tangent.value]
    (rows,) = low.b.op("for", [], [block], trips=size)
    rank = tangent.type.rank
    moved = low.b.transpose(rows, perm=(*range(1, rank + 1), 0))
    return Tensor(low.b.reshape(moved, shape=(*tangent.type.shape, *shape)))


@builtin("hessian", "f", "x", variadic=True, functions=1)
def _hessian(low: Any, span: Span, f: Staged, x: Staged, rest: list[Staged]) -> Staged:
    """Second derivatives of a scalar f by its first argument: `[*argument, *argument]`."""
    from .values import Partial

    return _jacobian(low, span, Partial("grad", (f,)), x, rest)  # type: ignore[no-any-return]


@builtin("vmap", "f", variadic=True, functions=1)
def _vmap(low: Any, span: Span, f: Staged, rest: list[Staged]) -> Staged:
    """f mapped along the first axis of every argument: vmap(f)(xs, ys)."""
    source = Tuple(tuple(rest))
    trips = low.length(source, span)
    streams = [t.value for t in tensors(source)]
    rows = [Value(low.a.type(v).with_shape(low.a.type(v).shape[1:]), "row") for v in streams]
    block = Block([Value(TensorType(I32), "i"), *rows])
    inner = low.inner(block, in_loop=True)
    inner.b.span = span
    elements = rebuild(source, iter(rows))
    assert isinstance(elements, Tuple)
    value = inner.a.materialise(inner.apply(f, elements.items, {}, span), span)
    block.results = [t.value for t in tensors(value)]
    out = low.b.op("for", streams, [block], trips=trips)
    return rebuild(value, iter(out))


@builtin("switch", "index", "functions", variadic=True)
def _switch(low: Any, span: Span, index: Staged, functions: Staged, rest: list[Staged]) -> Staged:
    """functions[index](...): one of a tuple of functions, chosen at run time (clamped)."""
    if not isinstance(functions, Tuple) or not functions.items:
        raise TypeMistake("'switch' takes a tuple of functions", span, found=describe(functions))
    if isinstance(index, Static):
        at = min(max(low.a.static_int(index, span, "an index"), 0), len(functions.items) - 1)
        return low.apply(functions.items[at], rest, {}, span)  # type: ignore[no-any-return]
    blocks, values = [], []
    for f in functions.items:
        block = Block()
        inner = low.inner(block)
        value = inner.a.materialise(inner.apply(f, rest, {}, span), span)
        block.results = [t.value for t in tensors(value)]
        blocks.append(block)
        values.append(value)
    first = [t.type for t in tensors(values[0])]
    for value in values[1:]:
        if [t.type for t in tensors(value)] != first:
            raise TypeMistake(
                "the functions of a 'switch' return different types",
                span,
                found=f"{describe(values[0])} and {describe(value)}",
            )
    out = low.b.op("switch", [low.a.tensor(index, span)], blocks)
    return rebuild(values[0], iter(out))
