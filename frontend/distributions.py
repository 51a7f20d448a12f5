"""Distributions: their declarations become functions of the module.

A distribution's scalar parameters may be arrays: its elements are then independent. Methods of
distributions of scalars work on such arrays directly; one with array parameters is mapped over
the leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir import random
from ..ir.core import Block, Function, Value, free_values
from ..ir.span import Span
from ..ir.types import DTYPES, I32, KEY, TensorType
from . import syntax as s
from .loops import Rows, counted
from .scopes import suggest
from .signatures import Sizes, bind, check_static
from .type_errors import (
    CallMistake,
    DTypeMistake,
    SizeMistake,
    StrategyMistake,
    TypeMistake,
)
from .values import (
    Dist,
    DistributionType,
    Method,
    Staged,
    Tensor,
    Tuple,
    Zip,
    describe,
    key_of,
    named_params,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering

MOST_VALUES = 4096  # of a choice that is enumerated


# Parameters


def make(
    low: Lowering,
    type: DistributionType,
    args: Sequence[Staged],
    named: dict[str, Staged],
    span: Span,
) -> Dist:
    """A distribution with its parameters, broadcast to one batch of parameters."""
    decl = type.decl
    bound = bind(low, decl.name, decl.parameters, args, named, span, type.module)
    values: dict[str, Staged] = {}
    for p in decl.parameters:
        values[p.name] = _parameter(low, decl, p, bound[p.name], span)
    ranks = {p.name: declared_rank(p) for p in decl.parameters}
    arrays = {n: v for n, v in values.items() if isinstance(v, Tensor)}
    lead = [v.type.shape[: v.type.rank - ranks[n]] for n, v in arrays.items()]
    try:
        shape = _common(lead)
    except ValueError:
        raise SizeMistake(
            f"the parameters of '{decl.name}' do not broadcast",
            span,
            found=", ".join(f"{n}: {v.type}" for n, v in arrays.items()),
        ) from None
    for n, v in arrays.items():
        event = v.type.shape[v.type.rank - ranks[n] :]
        values[n] = Tensor(low.b.expand(v.value, (*shape, *event)))
    return Dist(decl, type.module, values)


def _common(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(np.broadcast_shapes(*shapes))


def declared_rank(p: s.Parameter) -> int:
    """How many axes a parameter has for one element of a batch."""
    return len(p.annotation.sizes) if isinstance(p.annotation, s.NamedType) else 0


def _parameter(
    low: Lowering, decl: s.DistributionDecl, p: s.Parameter, value: Staged, span: Span
) -> Staged:
    match p.annotation:
        case s.StaticType():
            check_static(p.name, p.annotation, value, span, p.span)
            return value
        case s.NamedType(_, name, sizes) if name in DTYPES or name == "real":
            wanted = low.session.dtype(name)
            weak = not isinstance(value, Tensor) or value.weak
            x = low.a.tensor(value, span, wanted if weak else None)
            type = low.a.type(x)
            if type.dtype is not wanted:
                raise DTypeMistake(
                    f"'{p.name}' of '{decl.name}' has another type",
                    span,
                    expected=f"{wanted} (declared at {p.span})",
                    found=str(type),
                )
            if type.rank < len(sizes):
                raise SizeMistake(
                    f"'{p.name}' of '{decl.name}' has too few axes",
                    span,
                    expected=f"{len(sizes)} or more (declared at {p.span})",
                    found=str(type),
                )
            return Tensor(x)
    return value


# Methods


def method_of(dist: Dist, name: str, span: Span) -> Staged:
    """`d.name`: a method, or a parameter."""
    if name in dist.parameters:
        return dist.parameters[name]
    if dist.decl.method(name) is None:
        known = [*dist.parameters, *(m.name for m in dist.decl.methods)]
        raise TypeMistake(
            f"the distribution '{dist.decl.name}' has no '{name}'",
            span,
            expected=", ".join(known),
            hint=suggest(name, known),
        )
    return Method(dist, name)


def call_method(
    low: Lowering,
    dist: Dist,
    name: str,
    args: Sequence[Staged],
    named: dict[str, Staged],
    span: Span,
) -> Staged:
    """`d.name(args)`: log densities are summed over the batch."""
    if name == "logpdf":
        (x,) = (*args, *named.values())
        total = low.a.tensor(log_densities(low, dist, x, span), span, low.session.real)
        axes = tuple(range(low.a.type(total).rank))
        return Tensor(low.b.reduce_sum(total, axes=axes) if axes else total)
    decl = dist.decl.method(name)
    assert decl is not None
    bound = bind(low, f"{dist.decl.name}.{name}", decl.parameters, args, named, span, dist.module)
    return _mapped(low, dist, decl, bound, span)


def log_densities(low: Lowering, dist: Dist, x: Staged, span: Span) -> Staged:
    """The log densities of the elements of x, one for each element of a batch."""
    decl = dist.decl.method("logpdf")
    assert decl is not None
    name = f"{dist.decl.name}.logpdf"
    bound = bind(low, name, decl.parameters, [x], {}, span, dist.module)
    return _mapped(low, dist, decl, bound, span)


def _batch(dist: Dist) -> int:
    """The length of the axis to map a method over; 0 for none."""
    arrays = [p for p in dist.decl.parameters if isinstance(dist.parameters[p.name], Tensor)]
    if all(declared_rank(p) == 0 for p in arrays):
        return 0
    shape = _batch_shape(dist)
    return shape[0] if shape else 0


def _mapped(
    low: Lowering, dist: Dist, decl: s.FunctionDecl, bound: dict[str, Staged], span: Span
) -> Staged:
    trips = _batch(dist)
    if not trips:
        return _run(low, dist, decl, bound, span)
    names = [n for n, v in dist.parameters.items() if isinstance(v, Tensor | Dist)]
    rows = [dist.parameters[n] for n in names]
    streamed = [n for n in bound if n == "x"]
    rows += [bound[n] for n in streamed]

    def body(inner: Lowering, element: Staged, _: list[Staged]) -> tuple[list[Staged], Staged]:
        assert isinstance(element, Tuple)
        row, index = element.items
        assert isinstance(row, Tuple)
        values = dict(zip([*names, *streamed], row.items))
        one = Dist(dist.decl, dist.module, dist.parameters | {n: values[n] for n in names})
        args = bound | {n: values[n] for n in streamed}
        if "key" in args:
            key = inner.a.tensor(args["key"], span)
            args["key"] = Tensor(random.fold_in(inner.b, key, inner.a.tensor(index, span)))
        return [], _mapped(inner, one, decl, args, span)

    over = Rows(trips, rows=Zip((Tuple(tuple(rows)), None)))
    out = counted(low, over, [], [], body, span)
    assert out.outputs is not None
    return out.outputs


def _run(
    low: Lowering, dist: Dist, decl: s.FunctionDecl, bound: dict[str, Staged], span: Span
) -> Staged:
    env = dict(dist.parameters) | bound
    inner = low.elsewhere(dist.module, env)
    ranked = [p for p in dist.decl.parameters if declared_rank(p)]
    Sizes(inner, dist.decl.name, {}).parameters(ranked, env)
    with low.session.entering(object(), f"{dist.decl.name}.{decl.name}", span):
        return inner.returned(decl.body, decl.name, decl.span)


def all_values(low: Lowering, dist: Dist, span: Span) -> Staged:
    """Every joint value of the elements of a batch, `[count, *batch]`."""
    values = low.a.tensor(_one_element(low, dist, "values", span), span)
    batch = _batch_shape(dist)
    size, count = math.prod(batch), low.a.type(values).shape[0]
    if count**size > MOST_VALUES:
        raise StrategyMistake(
            f"this choice from '{dist.decl.name}' has too many values to enumerate",
            span,
            expected=f"at most {MOST_VALUES}",
            found=f"{count}^{size}" if size > 1 else str(count),
            hint="estimate it by reinforce, or make the choices in a nested objective each",
        )
    if not batch:
        return Tensor(values)
    places = np.indices((count,) * size).reshape(size, -1).T.reshape(-1, *batch)
    index = low.b.const(np.ascontiguousarray(places, np.int32), TensorType(I32, places.shape))
    return Tensor(low.b.gather(values, index, axis=0, batch=0))


def _one_element(low: Lowering, dist: Dist, name: str, span: Span) -> Staged:
    """The result of a method for the first element of a batch."""
    one: dict[str, Staged] = {}
    for p in dist.decl.parameters:
        value = dist.parameters[p.name]
        if isinstance(value, Tensor):
            x = value.value
            while low.a.type(x).rank > declared_rank(p):
                x = low.b.row(x, 0)
            value = Tensor(x)
        one[p.name] = value
    return call_method(low, Dist(dist.decl, dist.module, one), name, [], {}, span)


def _batch_shape(dist: Dist) -> tuple[int, ...]:
    """The leading axes of a distribution's parameters: its elements are independent."""
    for p in dist.decl.parameters:
        value = dist.parameters[p.name]
        if isinstance(value, Tensor):
            return value.type.shape[: value.type.rank - declared_rank(p)]
    return ()


# Functions of the module


@dataclass(frozen=True, slots=True)
class Outlined:
    """A function of the module made from staged code; `result` is the pattern of its result."""

    name: str
    result: Staged


def outlined(
    low: Lowering,
    stem: str,
    key: Any,
    arguments: Sequence[tuple[str, Staged]],
    write: Callable[[Lowering, list[Staged]], Staged],
    span: Span,
) -> Outlined:
    """The function that `write`s for arguments like these, made once for `key` and their types."""
    full = (stem, key, tuple(key_of(a) for _, a in arguments))
    found: Outlined | None = low.session.outlined.get(full)
    if found is None:
        block = Block()
        staged = []
        for name, argument in arguments:
            params = named_params(name, argument)
            for p in params:
                p.name = p.name.lstrip("_")
            block.params += params
            staged.append(rebuild(argument, iter(params)))
        inner = low.elsewhere(low.module, {}, block)
        inner.draws = None
        inner.b.span = span
        with low.session.entering(full, stem, span):
            result = inner.a.materialise(write(inner, staged), span)
        block.results = [t.value for t in tensors(result)]
        if free_values(block):
            raise CallMistake(
                "this uses values of the program around it",
                span,
                hint="pass numbers and arrays, not functions of the program's own values",
            )
        name = low.session.module.fresh_name(stem)
        low.session.module.add(Function(name, block, span))
        found = low.session.outlined[full] = Outlined(name, result)
    return found


def identity(dist: Dist) -> tuple[str, str]:
    """What tells a distribution from others of its name."""
    return dist.module.path, dist.decl.name


def _a_key() -> Tensor:
    return Tensor(Value(TensorType(KEY), "key"))


def sampler(low: Lowering, dist: Dist, span: Span) -> Outlined:
    """(parameters, key) -> a draw."""

    def write(inner: Lowering, args: list[Staged]) -> Staged:
        d, key = args
        assert isinstance(d, Dist)
        return call_method(inner, d, "sample", [key], {}, span)

    stem = f"{dist.decl.name}_sample"
    found = outlined(low, stem, identity(dist), [("", dist), ("key", _a_key())], write, span)
    if not isinstance(found.result, Tensor):
        raise TypeMistake(
            f"'{dist.decl.name}.sample' must give one array", span, found=describe(found.result)
        )
    return found


def density(low: Lowering, dist: Dist, type: TensorType, span: Span) -> str:
    """(value, parameters) -> log density, the name of the function."""

    def write(inner: Lowering, args: list[Staged]) -> Staged:
        x, d = args
        assert isinstance(d, Dist)
        return call_method(inner, d, "logpdf", [x], {}, span)

    x = Tensor(Value(type, "x"))
    stem = f"{dist.decl.name}_logpdf"
    return outlined(low, stem, identity(dist), [("x", x), ("", dist)], write, span).name
