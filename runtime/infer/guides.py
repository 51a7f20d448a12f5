"""Guides: one written for a model by `autoguide`, or one that a program has."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...frontend import program as front
from ...frontend import syntax
from ..binding import bind
from ..errors import CallError
from ..function import CompiledFunction
from ..keys import key as make_key
from ..program import Program
from ..values import Array, describe
from .errors import GuideError, NonFiniteDensity
from .families import FAMILIES, SIZES, Family
from .problem import Problem, arguments, flat, problem
from .source import Given, guide_text, own_guide_text, path_of, terms_text

RATE = 0.02  # adam's first rate for guides of programs
TRIES = 32  # places that a fit may start from: the origin, and numbers between -2 and 2


@dataclass(frozen=True)
class Guide:
    """A guide with its objectives: `elbo(phi, ...)` and `draws(phi, ...)` of `program`.

    source: their text. known: the programs that it imports, by path.
    """

    problem: Problem
    source: str
    known: Mapping[str, front.Program]

    @cached_property
    def program(self) -> Program:
        """The text, compiled beside the model's program, with its options."""
        return self._compiled(self.source)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of the objectives besides phi."""
        return Given(self.problem).values()

    @property
    def rate(self) -> float:
        """Adam's first rate."""
        return RATE

    def start(self, key: Any = None) -> dict[str, Any]:
        """Parameters to start a fit from."""
        raise NotImplementedError

    def _compiled(self, text: str) -> Program:
        model = self.problem.model
        path = f"<guide of {model.__name__}>"
        found = front.compile_text(text, path, self.known)
        options = model.program.options
        return Program(found, **options)


@dataclass(frozen=True)
class AutoGuide(Guide):
    """A guide written for a model.

    kind: "mean_field", "full_rank", "low_rank", "flow" or "planar"; size: its columns or layers.
    source: the text: a guide, the map from its numbers to the model's choices, and objectives.
    Saved beside the model's file it is a program like any other.
    """

    kind: str
    size: int

    @property
    def family(self) -> Family:
        """What the kind is."""
        return FAMILIES[self.kind]

    @property
    def rate(self) -> float:
        """Adam's first rate."""
        return self.family.rate

    def start(self, key: Any = None) -> dict[str, Any]:
        """Parameters to start a fit from: small scales around the most probable of some places.

        Raises NonFiniteDensity, with an address, where no place has a finite log density.
        """
        places = self._places(make_key(0) if key is None else key)
        shared: dict[str, int | None] = dict.fromkeys(self.given)
        found = self.program.log_joint.batched(places, **self.given, axes=shared)
        scores = np.asarray(found, np.float64)
        if not np.isfinite(scores).any():
            raise self._not_finite(places[0], float(scores[0]))
        best = places[np.argmax(np.where(np.isfinite(scores), scores, -np.inf))]
        return self._typed(self.family.start(best, self.size))

    def _places(self, key: Any) -> Array:
        rng = np.random.default_rng(np.asarray(key).ravel().tolist())
        places = rng.uniform(-2.0, 2.0, (TRIES, self.problem.size))
        places[0] = 0.0
        return places.astype(self._dtype)

    @property
    def _dtype(self) -> Any:
        return self.problem.model.program.real.numpy

    def _typed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self._typed(v) for k, v in value.items()}
        if isinstance(value, tuple):
            return tuple(self._typed(v) for v in value)
        return np.asarray(value, self._dtype)

    def _not_finite(self, u: Array, score: float) -> NonFiniteDensity:
        """The error that names the first choice whose own log density is not finite at u."""
        terms = self._compiled(self.source + terms_text(self.problem)).terms
        found = terms(u, **self.given, key=make_key(0))
        observed = flat(self.problem.data)
        for address, value in zip(self.problem.addresses(), found.values()):
            if not np.isfinite(value):
                what = "the data for" if address in observed else "the latent choice"
                hint = (
                    "the data may lie outside of the distribution's support, or hold NaN"
                    if address in observed
                    else "its distribution may have impossible parameters there"
                )
                return NonFiniteDensity(
                    address,
                    f"the log density of {what} '{address}' of the model "
                    f"'{self.problem.model.__name__}' is {float(value)} wherever a fit could start",
                    hint,
                )
        return NonFiniteDensity(
            "",
            f"the log density of the model '{self.problem.model.__name__}' is {score} wherever "
            "a fit could start, though that of every choice is finite",
            "values may overflow: f64 reaches further, wg.load(..., real='f64')",
        )


def autoguide(
    model: CompiledFunction,
    data: Mapping[str, Any],
    *args: Any,
    kind: str = "full_rank",
    size: int | None = None,
    **named: Any,
) -> AutoGuide:
    """Write a guide for the choices of a model that `data` (nested dicts by address) leaves.

    args, named: the model's arguments. kind: "mean_field", "full_rank", "low_rank" (of `size`
        columns, 5), "flow" (coupling layers, 4) or "planar" (layers, 8).

    Choices of real numbers become unconstrained numbers by the maps of bijectors.wg; discrete
    ones with finitely many values are summed out exactly. Raises DataError and GuideError.
    """
    if kind not in FAMILIES:
        close = difflib.get_close_matches(str(kind), FAMILIES, 1)
        raise GuideError(
            f"no kind of guide is called {kind!r}",
            expected=", ".join(FAMILIES),
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    asked = problem(model, data, args, named, "autoguide")
    family = FAMILIES[kind]
    if asked.size < family.least:
        raise GuideError(
            f"the guide '{kind}' needs {family.least} latent numbers or more",
            found=str(asked.size),
            hint="planar flows do with one",
        )
    known = {path_of(model): model.program.source}
    return AutoGuide(asked, guide_text(asked, family), known, kind, _size(kind, size))


def _size(kind: str, size: Any) -> int:
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if size is not None and (kind not in SIZES or not whole or size < 1):
        raise GuideError(
            f"the guide '{kind}' does not take this size",
            expected="a count of columns or layers, 1 or more" if kind in SIZES else "none",
            found=describe(size),
        )
    return int(size or SIZES.get(kind, 0))


@dataclass(frozen=True)
class OwnGuide(Guide):
    """A guide that a program has; `phi` are its parameters to fit, by name."""

    phi: Mapping[str, Any]

    def start(self, key: Any = None) -> dict[str, Any]:
        """The parameters as given."""
        return dict(self.phi)


def own_guide(asked: Problem, guide: CompiledFunction, start: Any) -> OwnGuide:
    """A guide of a program for a problem, checked; `start`: its parameters to fit, by name."""
    if not isinstance(start, Mapping) or not start:
        raise CallError(
            f"the guide '{guide.__name__}' needs start values for its parameters",
            guide.decl.span,
            expected='start={"phi": ...}',
            found=describe(start),
        )
    names = [p.name for p in guide.decl.parameters if not isinstance(p.default, syntax.FreshKey)]
    trained = [n for n in names if n in start]
    others = [n for n in names if n not in start and _has_value(asked, n)]
    given = {n: asked.arguments.get(n, asked.data.get(n)) for n in others}
    bound = bind(
        guide.decl,
        guide.program.converter(guide.decl),
        (),
        {**given, **start},
        CompiledFunction,
    )
    values = arguments(bound)
    _check_choices(asked, guide, {**given, **start})
    known = {path_of(asked.model): asked.model.program.source}
    known[path_of(guide)] = guide.program.source
    text = own_guide_text(asked, guide, trained, others)
    return OwnGuide(asked, text, known, {n: values[n] for n in trained})


def _has_value(asked: Problem, name: str) -> bool:
    return name in asked.arguments or name in asked.data


def _check_choices(asked: Problem, guide: CompiledFunction, given: Mapping[str, Any]) -> None:
    made = [c.address for c in guide.choices(**given)]
    wanted = [c.address for c in asked.latents]
    missing = [a for a in wanted if a not in made]
    extra = [a for a in made if a not in wanted and a not in asked.summed]
    if missing or extra:
        raise GuideError(
            f"the guide '{guide.__name__}' does not make the choices that the data leave"
            + (f": it lacks {', '.join(missing)}" if missing else "")
            + (f": {', '.join(extra)} is none of them" if extra and not missing else ""),
            guide.decl.span,
            expected=", ".join([*wanted, *asked.summed]),
            found=", ".join(made) or "no choices",
        )
