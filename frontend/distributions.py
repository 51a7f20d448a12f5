"""Distributions and strategies: their declarations become functions of the module.

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
from .scopes import children, suggest
from .signatures import Sizes, bind, check_static, coerce_arguments
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
    Rest,
    Staged,
    Tensor,
    Tuple,
    UserFunction,
    Zip,
    describe,
    key_of,
    named_params,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule

MOST_VALUES = 4096  # of a choice that is enumerated
DEFAULTS = ("reparam", "implicit", "reinforce")  # strategies of a choice that names none


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
                shape = low.a.type(x).shape
                row = low.b.slice(
                    x, start=(0,) * len(shape), limit=(1, *shape[1:]), stride=(1,) * len(shape)
                )
                x = low.b.reshape(row, shape=shape[1:])
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


def _identity(dist: Dist) -> tuple[str, str]:
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
    found = outlined(low, stem, _identity(dist), [("", dist), ("key", _a_key())], write, span)
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
    return outlined(low, stem, _identity(dist), [("x", x), ("", dist)], write, span).name


# Strategies


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy with its options, for one choice."""

    function: UserFunction
    options: dict[str, Staged]

    @property
    def name(self) -> str:
        """As written after `by`."""
        return self.function.decl.name

    @property
    def biased(self) -> str:
        """Why its gradients are biased; "" where they are not."""
        for decorator in self.function.decl.decorators:
            (reason,) = decorator.arguments
            return reason.value.value if isinstance(reason.value, s.String) else "biased"
        return ""


def strategies_of(module: SourceModule) -> dict[str, UserFunction]:
    """The strategies that a file knows by name: its own and the library's."""
    found: dict[str, UserFunction] = {}
    for home in (*module.prelude, module):
        for name, decl in home.declarations.items():
            if isinstance(decl, s.FunctionDecl) and decl.kind == "strategy":
                found[name] = UserFunction(decl, home)
    return found


def needs(strategy: s.FunctionDecl) -> set[str]:
    """The methods that a strategy asks of a distribution: members of its first parameter."""
    first = strategy.parameters[0].name
    found: set[str] = set()
    pending: list[Any] = list(strategy.body)
    while pending:
        node = pending.pop()
        match node:
            case s.Attribute(_, s.Name(_, base), name) if base == first:
                found.add(name)
        pending += children(node)
    return found


def fits(strategy: s.FunctionDecl, decl: s.DistributionDecl) -> bool:
    """Whether a distribution has all that a strategy needs."""
    known = {m.name for m in decl.methods} | {p.name for p in decl.parameters}
    return needs(strategy) <= known


def choose(low: Lowering, dist: Dist, by: s.Expr | None, span: Span) -> Strategy:
    """The strategy written after `by`, checked against the distribution, or the default."""
    known = strategies_of(low.module)
    if by is None:
        name = next(n for n in DEFAULTS if n in known and fits(known[n].decl, dist.decl))
        return _with_options(low, known[name], (), span)
    called = by.function if isinstance(by, s.Call) else by
    function = _named_strategy(low, called, known)
    decl = function.decl
    if not fits(decl, dist.decl):
        possible = [n for n, f in known.items() if fits(f.decl, dist.decl)]
        raise StrategyMistake(
            f"'{decl.name}' cannot estimate a choice from '{dist.decl.name}'",
            by.span,
            expected=f"one of {', '.join(possible)}",
            found=f"'{dist.decl.name}' has no "
            + ", ".join(sorted(needs(decl) - {m.name for m in dist.decl.methods})),
        )
    return _with_options(low, function, by.arguments if isinstance(by, s.Call) else (), by.span)


def _with_options(
    low: Lowering, function: UserFunction, arguments: Sequence[s.Argument], span: Span
) -> Strategy:
    parameters = function.decl.parameters[3:]
    args = [low.expr(a.value) for a in arguments if a.name is None]
    named = {a.name: low.expr(a.value) for a in arguments if a.name is not None}
    options = bind(low, function.decl.name, parameters, args, named, span, function.module)
    return Strategy(function, coerce_arguments(low, parameters, function.module, options, span))


def _named_strategy(low: Lowering, called: s.Expr, known: dict[str, UserFunction]) -> UserFunction:
    name = called.name if isinstance(called, s.Name) else ""
    if isinstance(called, s.Attribute) and isinstance(called.value, s.Name):
        imported = low.module.imports.get(called.value.name)
        found = imported.function(called.name) if imported else None
        if imported and found is not None and found.kind == "strategy":
            return UserFunction(found, imported)
        name = called.name
    if name not in known:
        raise StrategyMistake(
            f"no strategy is called '{name}'",
            called.span,
            expected=", ".join(known),
            hint=suggest(name, list(known)),
        )
    return known[name]


def rule(low: Lowering, dist: Dist, strategy: Strategy, span: Span) -> tuple[str, TensorType]:
    """(parameters, key, options) -> loss, its name, and the type of the values it chooses."""
    names = list(strategy.options)
    rest = Rest([])

    def write(inner: Lowering, args: list[Staged]) -> Staged:
        d, key, *options = args
        home = strategy.function.module
        own = dict(zip([p.name for p in strategy.function.decl.parameters], (d, key, rest)))
        within = inner.elsewhere(home, own | dict(zip(names, options)))
        decl = strategy.function.decl
        loss = within.returned(decl.body, decl.name, decl.span)
        x = inner.a.tensor(loss, span, low.session.real)
        if inner.a.type(x) != TensorType(low.session.real):
            raise StrategyMistake(
                f"the strategy '{decl.name}' must return one number, the loss",
                decl.span,
                found=describe(loss),
            )
        return Tensor(x)

    arguments: list[tuple[str, Staged]] = [("", dist), ("key", _a_key())]
    arguments += [*zip(names, strategy.options.values())]
    key = (_identity(dist), strategy.function.module.path, strategy.name)
    stem = f"{dist.decl.name}_{strategy.name}"
    made = outlined(low, stem, key, arguments, write, span)
    if rest.seen:
        low.session.chosen[made.name] = rest.seen
    seen = low.session.chosen.get(made.name, [])
    if not seen:
        raise StrategyMistake(
            f"the strategy '{strategy.name}' never calls the rest of the program",
            strategy.function.decl.span,
        )
    if any(t != seen[0] for t in seen):
        raise StrategyMistake(
            f"the strategy '{strategy.name}' passes values of different types on",
            strategy.function.decl.span,
            found=", ".join(dict.fromkeys(map(str, seen))),
        )
    return made.name, seen[0]


def call_rest(low: Lowering, rest: Rest, args: Sequence[Staged], span: Span) -> Staged:
    """`rest(x)` in a strategy."""
    if len(args) != 1:
        raise CallMistake("the rest of the program takes the value of the choice", span)
    x = low.a.tensor(args[0], span)
    rest.seen.append(low.a.type(x))
    low.b.span = span
    (loss,) = low.b.op("prob.rest", [x], types=(TensorType(low.session.real),))
    return Tensor(loss)
