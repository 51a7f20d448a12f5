"""Builtins about probabilistic programs: densities, draws, expectations, choice maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import U32, TensorType
from . import assess, distributions, programs
from .builtin_table import builtin
from .builtins_random import one_key
from .scopes import suggest
from .type_errors import AddressMistake, CallMistake, SupportMistake, TypeMistake
from .values import (
    Derived,
    Dist,
    Method,
    ProgramCall,
    Record,
    Staged,
    Static,
    Tensor,
    Trace,
    Tuple,
    describe,
    is_none,
)

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("logpdf(program, choices)", program=True)
def _logpdf(low: Lowering, span: Span, program: Staged, choices: Staged) -> Staged:
    """Log density of a value under a distribution, or of all choices under a model or guide."""
    match program:
        case Dist():
            return distributions.call_method(low, program, "logpdf", [choices], {}, span)
        case ProgramCall():
            return _assess(low, program, choices, span).score
        case Derived():
            return programs.assessed(low, program, choices, span)
    raise _no_program(program, span)


def _assess(low: Lowering, program: ProgramCall, choices: Staged, span: Span) -> Trace:
    name, _ = programs.lowered_program(low, program, span)
    made = programs.choices(low, name, span)
    what = f"the {program.function.decl.kind} '{program.function.decl.name}'"
    given = programs.given_values(low, choices, made, what, span)
    missing = [c.address for c in made if c.address not in given]
    if missing:
        raise AddressMistake(
            f"choices of {what} are missing: {', '.join(missing)}",
            span,
            expected=", ".join(c.address for c in made),
            found=", ".join(given) or "none",
        )
    if isinstance(choices, Trace | Record):
        _check_supports(choices, {c.address: c.support for c in made}, what, span)
    return programs.run(low, program, _any_key(low), span, given=given)


def _any_key(low: Lowering) -> Value:
    """A key for a program all of whose choices are given."""
    zero = low.b.const(0, U32)
    return low.b.key_make(zero, zero)


@builtin("assess(program, given, free=None)", program=True)
def _assess_some(low: Lowering, span: Span, program: Staged, given: Staged, free: Staged) -> Staged:
    """A trace of a model from some choices and numbers for others; the rest is summed out.

    given: choices by address. free: numbers without constraint, which are mapped onto the supports
    of the choices (bijectors.wg). The score has the log determinants of these maps; choices left
    out must have finitely many values, and are summed over all of them.
    """
    if not isinstance(program, ProgramCall):
        raise _no_program(program, span)
    trace = assess.assess(low, program, given, None if is_none(free) else free, span)
    what = f"the {program.function.decl.kind} '{program.function.decl.name}'"
    if isinstance(given, Trace | Record):
        _check_supports(given, trace.supports, what, span)
    return trace


_WITHIN: dict[str, tuple[str, ...]] = {
    "real": ("real", "positive", "nonnegative", "unit", "interval", "circle"),
    "nonnegative": ("nonnegative", "positive", "unit"),
    "positive": ("positive", "unit"),
}


def _check_supports(
    choices: Staged, wanted: dict[str, str], what: str, span: Span, prefix: str = ""
) -> None:
    """Raise SupportMistake where a trace's choice can be outside the support it is scored by."""
    traces = [choices] if isinstance(choices, Trace) else []
    if isinstance(choices, Record):
        traces = [v for v in choices.fields.values() if isinstance(v, Trace)]
    for trace in traces:
        for address, drawn in trace.supports.items():
            allowed = wanted.get(address)
            if allowed is None or drawn in _WITHIN.get(allowed, (allowed,)):
                continue
            raise SupportMistake(
                f"'{address}' is drawn with support {drawn}, but {what} allows only {allowed}",
                span,
                hint="the density is zero where the supports differ, so no gradient is right there",
            )


@builtin("each_logpdf(distribution, x)", program=True)
def _each_logpdf(low: Lowering, span: Span, distribution: Staged, x: Staged) -> Staged:
    """Log densities of the elements of x, one for each element of a distribution's parameters."""
    if not isinstance(distribution, Dist):
        raise _no_program(distribution, span)
    return distributions.log_densities(low, distribution, x, span)


@builtin("score(trace)")
def _score(low: Lowering, span: Span, trace: Staged) -> Staged:
    """The log density of a trace under the program that it was drawn from (or its estimate)."""
    return _trace(trace, span).score


@builtin("returned(trace)")
def _returned(low: Lowering, span: Span, trace: Staged) -> Staged:
    """What the program of a trace returned."""
    return _trace(trace, span).value


@builtin("choices(trace)")
def _choices(low: Lowering, span: Span, trace: Staged) -> Staged:
    """The choices of a trace as a record."""
    return _trace(trace, span).choices


def _trace(value: Staged, span: Span) -> Trace:
    if not isinstance(value, Trace):
        raise TypeMistake("a trace is needed here", span, found=describe(value))
    return value


@builtin("draw(program)", program=True)
def _draw(low: Lowering, span: Span, program: Staged) -> Staged:
    """A run of a model or guide (a trace), or a draw from a distribution, without an address."""
    if low.draws is None:
        raise CallMistake("only objectives, models and guides can draw", span)
    key = low.draws.next(low.b)
    match program:
        case Dist():
            return programs.sample(low, program, None, key, f"#{low.draws.unnamed[0]}", span)
        case ProgramCall():
            return programs.run(low, program, key, span)
        case Derived():
            return programs.drawn(low, program, span)
    raise _no_program(program, span)


@builtin("generate(program, choices, scored=None)", program=True)
def _generate(
    low: Lowering, span: Span, program: Staged, choices: Staged, scored: Staged
) -> Staged:
    """A run of a model with some choices given; its score counts the given ones (or `scored`)."""
    if not isinstance(program, ProgramCall):
        raise _no_program(program, span)
    if low.draws is None:
        raise CallMistake("only objectives, models and guides can draw", span)
    name, _ = programs.lowered_program(low, program, span)
    made = programs.choices(low, name, span)
    what = f"the {program.function.decl.kind} '{program.function.decl.name}'"
    given = programs.given_values(low, choices, made, what, span)
    counted = _addresses(scored, [c.address for c in made], span)
    key = low.draws.next(low.b)
    return programs.run(
        low, program, key, span, given=given, scored=list(given) if counted is None else counted
    )


def _addresses(names: Staged, known: list[str], span: Span) -> list[str] | None:
    """Static addresses, whole programs named by theirs."""
    match names:
        case Static(None):
            return None
        case Static(str() as one):
            wanted = [one]
        case Tuple(items) if all(isinstance(i, Static) and isinstance(i.value, str) for i in items):
            wanted = [i.value for i in items if isinstance(i, Static)]
        case _:
            raise TypeMistake("addresses are strings", span, found=describe(names))
    meant = {w: [a for a in known if a == w or a.startswith(f"{w}/")] for w in wanted}
    for name, found in meant.items():
        if not found:
            raise AddressMistake(
                f"there is no choice called '{name}' here",
                span,
                expected=", ".join(known),
                hint=suggest(name, known),
            )
    return [a for a in known if any(a in found for found in meant.values())]


@builtin("only(record, names)")
def _only(low: Lowering, span: Span, record: Staged, names: Staged) -> Staged:
    """A record or trace with only the fields named: only(t, ("x", "y"))."""
    return _picked(record, names, span, keep=True)


@builtin("without(record, names)")
def _without(low: Lowering, span: Span, record: Staged, names: Staged) -> Staged:
    """A record or trace without the fields named."""
    return _picked(record, names, span, keep=False)


def _picked(record: Staged, names: Staged, span: Span, *, keep: bool) -> Record:
    whole = record.choices if isinstance(record, Trace) else record
    if not isinstance(whole, Record):
        raise TypeMistake("a record or trace is needed here", span, found=describe(record))
    wanted = _addresses(names, list(whole.fields), span) or []
    return Record("", {k: v for k, v in whole.fields.items() if (k in wanted) == keep})


@builtin("merge(record, other)")
def _merge(low: Lowering, span: Span, record: Staged, other: Staged) -> Staged:
    """The fields of two records or traces; those of the second come first where both have one."""
    parts = [v.choices if isinstance(v, Trace) else v for v in (record, other)]
    first, second = parts
    if not isinstance(first, Record) or not isinstance(second, Record):
        raise TypeMistake(
            "records or traces are needed here",
            span,
            found=f"{describe(record)} and {describe(other)}",
        )
    return Record("", first.fields | second.fields)


@builtin("expect(objective)", program=True)
def _expect(low: Lowering, span: Span, objective: Staged) -> Staged:
    """An unbiased estimate of the expectation of an objective, made on its own."""
    if not isinstance(objective, ProgramCall) or objective.function.decl.kind != "objective":
        raise TypeMistake(
            "an objective with its arguments is needed here", span, found=describe(objective)
        )
    if low.draws is None:
        raise CallMistake("only objectives can take expectations", span)
    name, pattern = programs.lowered_program(low, objective, span)
    if not isinstance(pattern, Tensor) or pattern.type != TensorType(low.session.real):
        raise TypeMistake("an objective returns one number", span, found=describe(pattern))
    key = low.draws.next(low.b)
    out = low.b.op("prob.expect", programs.operands(objective, key), fn=name, types=(pattern.type,))
    return Tensor(out[0])


def _no_program(value: Staged, span: Span) -> TypeMistake:
    return TypeMistake(
        "a distribution, or a model or guide with its arguments, is needed here",
        span,
        found=describe(value),
    )


@builtin("all_values(values)")
def _all_values(low: Lowering, span: Span, values: Staged) -> Staged:
    """In a strategy, all_values(d.values): every joint value of a choice, on a new first axis."""
    if not isinstance(values, Method) or values.name != "values":
        raise TypeMistake("'d.values' is needed here", span, found=describe(values))
    return distributions.all_values(low, values.dist, span)


@builtin("importance(particles, proposal=None)")
def _importance(low: Lowering, span: Span, particles: Staged, proposal: Staged) -> Staged:
    """How `marginal` and `normalize` estimate: by this many weighted draws from a proposal.

    For `marginal`, a guide of the kept choices that makes the others (None: the program itself);
    for `normalize`, a program that makes the choices that are not given.
    """
    return Record("", {"particles": particles, "proposal": proposal})


@builtin("sample_from(key, distribution)")
def _sample_from(low: Lowering, span: Span, key: Staged, distribution: Staged) -> Staged:
    """A plain draw from a distribution with a key, in any function."""
    if not isinstance(distribution, Dist):
        raise _no_program(distribution, span)
    one_key(low, key, span)
    return distributions.call_method(low, distribution, "sample", [key], {}, span)
