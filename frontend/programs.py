"""Choices, and runs of programs: `~`, and what can be asked of a model or a guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.errors import IRError
from ..ir.prob import Choice, choices_of
from ..ir.span import Span
from ..ir.types import KEY, TensorType
from . import distributions, strategies
from . import syntax as s
from .scopes import suggest
from .signatures import bind, coerce_arguments
from .type_errors import (
    AddressMistake,
    CallMistake,
    DTypeMistake,
    SizeMistake,
    StrategyMistake,
    TypeMistake,
)
from .values import (
    Derived,
    Dist,
    DistributionType,
    ProgramCall,
    Record,
    Staged,
    Static,
    Tensor,
    Trace,
    Tuple,
    UserFunction,
    describe,
    key_of,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering

DERIVED = ("marginal", "normalize")  # programs made from others, by the library's inference.wg
SUSPENDED = ("model", "guide", "shape")  # kinds of functions whose calls make programs, not values


# Programs as values


def program(low: Lowering, expr: s.Expr) -> Staged:
    """The program that an expression denotes: a distribution, or a model or guide with arguments.

    Here the library's distributions come before builtin functions of the same name.
    """
    if isinstance(expr, s.Call):
        if isinstance(expr.function, s.Name) and expr.function.name in DERIVED:
            return low.expr(expr)
        function = _program_function(low, expr.function)
        inner = _program_parameters(function)
        given = [a.value for a in expr.arguments if a.name is None]
        args = [program(low, a) if i in inner else low.expr(a) for i, a in enumerate(given)]
        named = {
            a.name: program(low, a.value) if a.name in inner else low.expr(a.value)
            for a in expr.arguments
            if a.name is not None
        }
        low.b.span = expr.span
        if isinstance(function, UserFunction) and function.decl.kind in s.PROGRAM_KINDS:
            return suspended(low, function, args, named, expr.span)
        return low.apply(function, args, named, expr.span)
    return low.expr(expr)


def _program_parameters(function: Staged) -> set[str | int]:
    """Names and places of a distribution's parameters that are distributions: without a type."""
    if not isinstance(function, DistributionType):
        return set()
    untyped = [(i, p) for i, p in enumerate(function.decl.parameters) if p.annotation is None]
    return {key for i, p in untyped for key in (i, p.name)}


def _program_function(low: Lowering, expr: s.Expr) -> Staged:
    if isinstance(expr, s.Name) and expr.name not in low.env:
        found = known_distribution(low, expr.name)
        if found is not None:
            return found
    return low.expr(expr)


def known_distribution(low: Lowering, name: str) -> DistributionType | None:
    """The distribution that a file knows as `name`: its own or the library's."""
    own = name in low.module.declarations
    for home in (low.module,) if own else low.module.prelude:
        decl = home.declarations.get(name)
        if isinstance(decl, s.DistributionDecl):
            return DistributionType(decl, home)
    return None


def suspended(
    low: Lowering,
    function: UserFunction,
    args: Sequence[Staged],
    named: Mapping[str, Staged],
    span: Span,
) -> ProgramCall:
    """A program with its arguments checked; its key comes when it runs."""
    decl = function.decl
    parameters = [p for p in decl.parameters if not isinstance(p.default, s.FreshKey)]
    bound = bind(low, decl.name, parameters, args, named, span, function.module)
    return ProgramCall(function, coerce_arguments(low, parameters, function.module, bound, span))


def lowered_program(low: Lowering, call: ProgramCall, span: Span) -> tuple[str, Staged]:
    """(IR function, pattern of what it returns) of a program for its arguments."""
    decl, module = call.function.decl, call.function.module
    bound = dict(call.arguments)
    for p in decl.parameters:
        if isinstance(p.default, s.FreshKey):
            bound[p.name] = Tensor(Value(TensorType(KEY), "key"))
    bound = {p.name: bound[p.name] for p in decl.parameters}
    keys = tuple(key_of(v) for v in bound.values())
    if None in keys:
        raise CallMistake(
            f"the {decl.kind} '{decl.name}' takes a function that uses names around it",
            span,
            hint="pass a function declared at the top level, and what it uses as arguments",
        )
    found = low.session.specialised(call.function, bound, (module.path, decl.name, keys), span)
    if found is None:
        raise CallMistake(f"the {decl.kind} '{decl.name}' returns a function", span)
    return found


def choices(low: Lowering, name: str, span: Span) -> list[Choice]:
    """The choices of a lowered program; AddressMistake where two have one address."""
    try:
        return choices_of(low.session.module, low.session.module.functions[name])
    except IRError as error:
        raise AddressMistake(
            error.summary, error.span or span, found=error.found, hint=error.hint
        ) from None


def operands(call: ProgramCall, key: Value) -> list[Value]:
    """The tensors of a program's arguments, its key last or where it is declared."""
    out = []
    for p in call.function.decl.parameters:
        if isinstance(p.default, s.FreshKey):
            out.append(key)
        else:
            out += [t.value for t in tensors(call.arguments[p.name])]
    return out


def derived(low: Lowering, expr: s.Call, name: str) -> Derived:
    """`marginal(program, keep, by)` or `normalize(program, given, by)`.

    Each is a pair of objectives of the library whose first parameters are its options.
    """
    draw = library_function(low, f"{name}_draw", expr.span)
    density = library_function(low, f"{name}_logpdf", expr.span)
    given = [a for a in expr.arguments if a.name is None]
    if not given:
        raise CallMistake(f"'{name}' takes a program first", expr.span)
    args = [program(low, given[0].value), *(_option(low, a) for a in given[1:])]
    named = {a.name: _option(low, a) for a in expr.arguments if a.name is not None}
    by = named.pop("by", args.pop() if len(args) == 3 else Record("", {}))
    if not isinstance(by, Record):
        raise CallMistake(
            f"'{name}' does not know this way to estimate",
            expr.span,
            expected="by=importance(particles, proposal)",
            found=describe(by),
        )
    named |= by.fields
    parameters = [p for p in draw.decl.parameters if not isinstance(p.default, s.FreshKey)]
    options = bind(low, name, parameters, args, named, expr.span, draw.module)
    return Derived(name, draw, density, options)


def _option(low: Lowering, argument: s.Argument) -> Staged:
    """An option; addresses in `keep=[x, y]` are names, not values."""
    if argument.name == "keep" and isinstance(argument.value, s.ListLiteral | s.TupleLiteral):
        items = argument.value.items
        if all(isinstance(i, s.Name | s.String) for i in items):
            names = [i.name if isinstance(i, s.Name) else i.value for i in items]  # type: ignore[attr-defined]
            return Tuple(tuple(Static(n) for n in names))
    return low.expr(argument.value)


def library_function(low: Lowering, name: str, span: Span) -> UserFunction:
    """A function of the library's prelude."""
    for home in (low.module, *low.module.prelude):
        found = home.function(name)
        if found is not None:
            return UserFunction(found, home)
    raise CallMistake("this needs a file with a model, guide or objective", span)


def assessed(low: Lowering, made: Derived, choices: Staged, span: Span) -> Staged:
    """The (estimated) log density of choices under a derived program."""
    record = choices.choices if isinstance(choices, Trace) else choices
    return low.apply(made.density, [*made.options.values(), record], {}, span)


def drawn(low: Lowering, made: Derived, span: Span) -> Trace:
    """A run of a derived program: its choices and the estimate of their log density."""
    out = low.apply(made.draw, list(made.options.values()), {}, span)
    assert isinstance(out, Tuple) and len(out.items) == 2, describe(out)
    record, score = out.items
    record = record.choices if isinstance(record, Trace) else record
    return Trace(record, score, Tuple(()), {})


# Running


def run(
    low: Lowering,
    call: ProgramCall,
    key: Value,
    span: Span,
    *,
    at: str = "",
    given: Mapping[str, Value] | None = None,
    scored: Sequence[str] | None = None,
) -> Trace:
    """Run a program with the choices `given` fixed and those of `scored` (all) scored."""
    given = given or {}
    name, pattern = lowered_program(low, call, span)
    made = choices(low, name, span)
    fixed = [c.address for c in made if c.address in given]
    low.b.span = span
    types = (
        *(c.type for c in made),
        *(t.type for t in tensors(pattern)),
        TensorType(low.session.real),
    )
    out = low.b.op(
        "prob.trace",
        [*operands(call, key), *(given[a] for a in fixed)],
        (),
        [c.address.rpartition("/")[2] for c in made],
        fn=name,
        at=at,
        given=tuple(fixed),
        scored=tuple([c.address for c in made] if scored is None else scored),
        types=types,
    )
    record = nested({c.address: Tensor(v) for c, v in zip(made, out)})
    result = rebuild(pattern, iter(out[len(made) :]))
    supports = {c.address: c.support for c in made}
    return Trace(record, Tensor(out[-1]), result, supports)


def nested(flat: Mapping[str, Staged]) -> Record:
    """Choices by address as records in records."""
    fields: dict[str, Staged] = {}
    inside: dict[str, dict[str, Staged]] = {}
    for address, value in flat.items():
        head, slash, rest = address.partition("/")
        if slash:
            inside.setdefault(head, {})[rest] = value
            fields.setdefault(head, Record("", {}))
        else:
            fields[head] = value
    return Record("", fields | {head: nested(part) for head, part in inside.items()})


# The statement


def lower_sample(low: Lowering, stmt: s.Sample) -> None:
    """`name ~ program by strategy`."""
    if not isinstance(stmt.target, s.NameTarget):
        raise AddressMistake(
            "a choice is made at a name",
            stmt.target.span,
            hint="in a loop, one name stands for the choices of all trips",
        )
    if low.draws is None:
        raise CallMistake(
            "no choice can be made here",
            stmt.span,
            hint="the number of choices must be known: use a 'for' loop over a known range",
        )
    name = stmt.target.name
    chosen = program(low, stmt.program)
    key = low.draws.at(low.b, name, stmt.span)
    match chosen:
        case Dist():
            low.env[name] = sample(low, chosen, stmt.strategy, key, name, stmt.span)
        case ProgramCall():
            if stmt.strategy is not None:
                raise StrategyMistake(
                    f"a strategy is for one choice, not for all of '{chosen.function.decl.name}'",
                    stmt.strategy.span,
                    hint="write it at the choices inside",
                )
            trace = run(low, chosen, key, stmt.span, at=name)
            low.env[name] = trace if low.kind == "objective" else _value_of(trace)
        case Derived() if low.kind == "objective":
            low.env[name] = drawn(low, chosen, stmt.span)
        case _:
            raise TypeMistake(
                "this is not something to choose from",
                stmt.program.span,
                expected="a distribution, or a model or guide with its arguments",
                found=describe(chosen),
            )


def _value_of(trace: Trace) -> Staged:
    """What a model gives to the model around it: what it returns, else its choices."""
    empty = not any(True for _ in tensors(trace.value))
    return trace.choices if empty else trace.value


def sample(low: Lowering, dist: Dist, by: s.Expr | None, key: Value, at: str, span: Span) -> Tensor:
    """A choice from a distribution, at an address."""
    strategy = strategies.choose(low, dist, by, span)
    for name, option in strategy.options.items():
        strategy.options[name] = low.a.materialise(option, span) if _is_float(option) else option
    rule, type = strategies.rule(low, dist, strategy, span)
    sampler = strategies.sampler(low, dist, rule, type, span)
    low.session.dists.setdefault(sampler, dist)
    density = distributions.density(low, dist, type, span)
    low.b.span = span
    parameters = [t.value for t in tensors(dist)]
    options = [t.value for o in strategy.options.values() for t in tensors(o)]
    (out,) = low.b.op(
        "prob.sample",
        [*parameters, key, *options],
        (),
        [at],
        dist=dist.decl.name,
        by=strategy.name,
        at=at,
        support=_support_text(dist.decl.support),
        biased=strategy.biased,
        moving=strategies.moving(strategy, dist),
        sampler=sampler,
        density=density,
        rule=rule,
        types=(type,),
    )
    return Tensor(out)


def _is_float(value: Staged) -> bool:
    return isinstance(value, Tensor) and value.weak


def _support_text(expr: s.Expr) -> str:
    match expr:
        case s.Name(_, name):
            return name
        case s.Call(_, s.Name(_, name)):
            return name
    return "real"


# Choice maps


def given_values(
    low: Lowering, value: Staged, made: Sequence[Choice], what: str, span: Span
) -> dict[str, Value]:
    """The choices of a choice map by address, of the types that a program makes."""
    types = {c.address: c.type for c in made}
    flat: dict[str, Staged] = {}
    _flatten(value, "", types, flat, span)
    unknown = [a for a in flat if a not in types]
    if unknown:
        raise AddressMistake(
            f"{what} makes no choice called '{unknown[0]}'",
            span,
            expected=", ".join(types) or "no choices",
            hint=suggest(unknown[0], list(types)),
        )
    return {a: _typed(low, v, types[a], a, span) for a, v in flat.items()}


def _flatten(
    value: Staged,
    prefix: str,
    types: Mapping[str, TensorType],
    flat: dict[str, Staged],
    span: Span,
) -> None:
    """Add the choices in `value`. A record or trace whose name is no address is spread."""
    record = value.choices if isinstance(value, Trace) else value
    if not isinstance(record, Record):
        raise TypeMistake("choices are a trace or a record", span, found=describe(value))
    for name, item in record.fields.items():
        address = prefix + name
        if not isinstance(item, Record | Trace):
            if address in flat:
                raise AddressMistake(f"the choice '{address}' is given twice", span)
            flat[address] = item
        elif any(a.startswith(f"{address}/") for a in types):
            _flatten(item, f"{address}/", types, flat, span)
        else:
            _flatten(item, prefix, types, flat, span)


def _typed(low: Lowering, value: Staged, wanted: TensorType, at: str, span: Span) -> Value:
    """A given choice as the type that the program chooses; literals adapt and fill."""
    weak = not isinstance(value, Tensor) or value.weak
    x = low.a.tensor(value, span, wanted.dtype if weak else None)
    found = low.a.type(x)
    if found.dtype is not wanted.dtype:
        raise DTypeMistake(
            f"the choice '{at}' has another type", span, expected=str(wanted), found=str(found)
        )
    if found.shape != wanted.shape and not (weak and not found.shape):
        raise SizeMistake(
            f"the choice '{at}' has another shape", span, expected=str(wanted), found=str(found)
        )
    return low.b.expand(x, wanted.shape)
