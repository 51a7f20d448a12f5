"""`assess`: log densities with choices given, made from unconstrained numbers, or summed out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.core import Op, Value
from ..ir.prob import FREE_SHAPES, Choice, free_type, sample_sites
from ..ir.span import Span
from ..ir.types import U32, TensorType
from . import distributions, programs
from . import syntax as s
from .type_errors import AddressMistake, StrategyMistake, SupportMistake
from .values import Dist, ProgramCall, Staged, Tensor, Trace, Tuple, UserFunction

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule


def assess(
    low: Lowering, call: ProgramCall, given: Staged, free: Staged | None, span: Span
) -> Trace:
    """The trace of a program from the choices `given` and numbers for those of `free`.

    The choices that are neither are summed out of its score.
    """
    found = _Assessment(low, call, span)
    fixed = programs.given_values(low, given, found.made, found.what, span)
    numbers: dict[str, Value] = {}
    if free is not None:
        wanted = [found.unconstrained(c) for c in found.made if c.type.dtype.is_float]
        numbers = programs.given_values(low, free, wanted, found.what, span)
    both = [a for a in numbers if a in fixed]
    if both:
        raise AddressMistake(f"the choice '{both[0]}' is both given and free", span)
    return found.trace(fixed, numbers)


@functools.cache
def _supports() -> SourceModule:
    """The library's maps onto supports."""
    from .program import library

    return library("supports").main


class _Assessment:
    """One use of `assess`; `made` are the choices of its program, `sites` what makes them."""

    def __init__(self, low: Lowering, call: ProgramCall, span: Span) -> None:
        self.low = low
        self.call = call
        self.span = span
        self.what = f"the {call.function.decl.kind} '{call.function.decl.name}'"
        self.name, _ = programs.lowered_program(low, call, span)
        self.made = programs.choices(low, self.name, span)
        module = low.session.module
        self.sites: dict[str, list[Op]] = {}
        for address, op in sample_sites(module, module.functions[self.name]):
            self.sites.setdefault(address, []).append(op)

    def dist(self, site: Op) -> Dist:
        """The distribution that a site draws from; its parameters are good for their types only."""
        return self.low.session.dists[site.attrs["sampler"]]

    def unconstrained(self, choice: Choice) -> Choice:
        """A choice as numbers without constraint; SupportMistake where there is no map."""
        for site in self.sites[choice.address]:
            if site.attrs["support"] not in FREE_SHAPES:
                raise SupportMistake(
                    f"'{choice.address}' has a support that no unconstrained numbers are mapped to",
                    self.span,
                    expected=", ".join(FREE_SHAPES),
                    found=site.attrs["support"],
                )
        return replace(choice, type=free_type(choice))

    def trace(self, fixed: dict[str, Value], numbers: dict[str, Value]) -> Trace:
        """The trace; numbers whose support has no bounds are mapped before the program runs."""
        low, logdets = self.low, []
        for address in [a for a in numbers if self._same_everywhere(a)]:
            support = self.sites[address][0].attrs["support"]
            u = Tensor(numbers.pop(address))
            fixed[address], logdet = self._onto(low, support, [u])
            logdets.append(logdet)
        order = [c for c in self.made if c.address in numbers]
        out = self._op(fixed, {c.address: numbers[c.address] for c in order})
        values = fixed | {c.address: v for c, v in zip(order, out)}
        known = [c for c in self.made if c.address in values]
        record = programs.nested({c.address: Tensor(values[c.address]) for c in known})
        score = functools.reduce(low.b.add, logdets, out[-1])
        return Trace(record, Tensor(score), Tuple(()), {c.address: c.support for c in known})

    def _op(self, fixed: dict[str, Value], free: dict[str, Value]) -> tuple[Value, ...]:
        low, b = self.low, self.low.b
        summed = [c for c in self.made if c.address not in fixed and c.address not in free]
        listed = self._values(summed, list(fixed) + list(free))
        maps = {site.attrs["sampler"]: self._map(site) for a in free for site in self.sites[a]}
        zero = b.const(0, U32)
        arguments = programs.operands(self.call, b.key_make(zero, zero))
        types = {c.address: c.type for c in self.made}
        b.span = self.span
        return b.op(
            "prob.assess",
            [*arguments, *fixed.values(), *free.values(), *listed.values()],
            (),
            [a.rpartition("/")[2] for a in free],
            fn=self.name,
            given=tuple(fixed),
            free=tuple(free),
            listed=tuple(listed),
            mapped=tuple(maps),
            maps=tuple(maps.values()),
            types=(*(types[a] for a in free), TensorType(low.session.real)),
        )

    # Maps onto supports

    def _same_everywhere(self, address: str) -> bool:
        """Whether all sites of a choice have one support, without bounds."""
        supports = {site.attrs["support"] for site in self.sites[address]}
        bounded = any(isinstance(self.dist(i).decl.support, s.Call) for i in self.sites[address])
        return len(supports) == 1 and not bounded

    def _onto(self, low: Lowering, support: str, args: Sequence[Staged]) -> list[Value]:
        """(choice, log determinant)."""
        decl = _supports().function(f"onto_{support}")
        assert decl is not None
        out = low.apply(UserFunction(decl, _supports()), args, {}, self.span)
        assert isinstance(out, Tuple)
        return [low.a.tensor(v, self.span, low.session.real) for v in out.items]

    def _map(self, site: Op) -> str:
        """(numbers, parameters) -> (choice, log determinant), for one run of a site."""
        dist, (type,) = self.dist(site), site.attrs["types"]
        support = dist.decl.support
        bounds = [a.value for a in support.arguments] if isinstance(support, s.Call) else []

        def write(inner: Lowering, args: list[Staged]) -> Staged:
            u, d = args
            assert isinstance(d, Dist)
            names = inner.elsewhere(d.module, dict(d.parameters))
            given = [u, *(names.expr(e) for e in bounds)]
            return Tuple(tuple(map(Tensor, self._onto(inner, site.attrs["support"], given))))

        u = Value(free_type(Choice("", type, site.attrs["support"], None)), "u")
        key = (dist.module.path, dist.decl.name)
        arguments: list[tuple[str, Staged]] = [("u", Tensor(u)), ("", dist)]
        stem = f"{dist.decl.name}_map"
        return distributions.outlined(self.low, stem, key, arguments, write, self.span).name

    # Choices that are summed out

    def _values(self, summed: Sequence[Choice], known: Sequence[str]) -> dict[str, Value]:
        """All values of what each site of the choices draws, by sampler."""
        found: dict[str, Value] = {}
        for choice in summed:
            for site in self.sites[choice.address]:
                if self.dist(site).decl.method("values") is None:
                    raise self._endless(choice, site, known)
                name = site.attrs["sampler"]
                if name not in found:
                    found[name] = self._all_values(choice, site)
        return found

    def _all_values(self, choice: Choice, site: Op) -> Value:
        low, pattern = self.low, self.dist(site)
        zeros = {
            n: Tensor(low.b.zeros(v.type)) if isinstance(v, Tensor) else v
            for n, v in pattern.parameters.items()
        }
        dist = Dist(pattern.decl, pattern.module, zeros)
        try:
            values = distributions.all_values(low, dist, self.span)
        except StrategyMistake as error:
            raise AddressMistake(
                f"'{choice.address}' has too many values to be summed out",
                self.span,
                expected=f"at most {distributions.MOST_VALUES} joint values",
                found=error.found,
                hint=f"choose it element by element, in a 'for' loop at {site.span}: "
                "every trip is then summed on its own",
            ) from None
        return low.a.tensor(values, self.span)

    def _endless(self, choice: Choice, site: Op, known: Sequence[str]) -> AddressMistake:
        real = choice.type.dtype.is_float
        return AddressMistake(
            f"the choice '{choice.address}' of {self.what} is missing",
            self.span,
            expected=f"it, given{' or free' if real else ''}",
            found=", ".join(known) or "no choices",
            hint=f"a choice from '{site.attrs['dist']}' has no finite list of values to sum over",
        )
