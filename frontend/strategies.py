"""Strategies: how a choice's gradient is estimated, as written after `by`.

A strategy is declared in the language (stdlib/strategies.wg has the library's). For each
distribution that it is used with it becomes a function of the module, in which `prob.rest` stands
for the rest of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.clone import clone_block
from ..ir.core import Block, Function, Value
from ..ir.span import Span
from ..ir.types import KEY, TensorType
from . import distributions
from . import syntax as s
from .distributions import identity, outlined
from .scopes import children, names_of, suggest
from .signatures import bind, coerce_arguments
from .type_errors import CallMistake, StrategyMistake
from .values import Dist, Rest, Staged, Tensor, UserFunction, describe

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule

DEFAULTS = ("reparam", "implicit", "reinforce")  # of a choice that names none


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


def moving(strategy: Strategy, dist: Dist) -> tuple[str, ...]:
    """The parameters by which a strategy has no derivative: those that the support depends on, if
    it weighs values by their density.
    """
    if "logpdf" not in needs(strategy.function.decl):
        return ()
    return tuple(n for n in names_of(dist.decl.support) if n in dist.parameters)


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

    arguments: list[tuple[str, Staged]] = [
        ("", dist),
        ("key", Tensor(Value(TensorType(KEY), "key"))),
    ]
    arguments += [*zip(names, strategy.options.values())]
    key = (identity(dist), strategy.function.module.path, strategy.name)
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


def sampler(low: Lowering, dist: Dist, rule: str, type: TensorType, span: Span) -> str:
    """The function that draws a choice of `type`: (parameters, key) -> value, the distribution's.

    Where the strategy passes values of another type on (relaxed ones), it is what the strategy
    passes on: (parameters, key, options) -> value.
    """
    made = distributions.sampler(low, dist, span)
    assert isinstance(made.result, Tensor)
    if made.result.type == type:
        return made.name
    name, functions = f"{rule}_value", low.session.module.functions
    if name not in functions:
        functions[name] = Function(name, _passed_on(functions[rule], span), span)
    return name


def _passed_on(rule: Function, span: Span) -> Block:
    """The value that a strategy's function passes on."""
    at = next((i for i, op in enumerate(rule.body.ops) if op.name == "prob.rest"), None)
    if at is None:
        raise StrategyMistake(
            "this strategy passes relaxed values on, so that it must call the rest of the program "
            "outside of loops and branches",
            span,
        )
    rest = rule.body.ops[at]
    return clone_block(Block(rule.params, rule.body.ops[:at], [*rest.operands]), {})


def call_rest(low: Lowering, rest: Rest, args: Sequence[Staged], span: Span) -> Staged:
    """`rest(x)` in a strategy."""
    if len(args) != 1:
        raise CallMistake("the rest of the program takes the value of the choice", span)
    x = low.a.tensor(args[0], span)
    rest.seen.append(low.a.type(x))
    low.b.span = span
    (loss,) = low.b.op("prob.rest", [x], types=(TensorType(low.session.real),))
    return Tensor(loss)
