"""Variational inference in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CallError
from ..function import CompiledFunction
from ..optimizers import Optimizer, adam
from ..schedules import cosine_decay
from ..training import fit
from ..values import describe
from .guides import Guide, autoguide, own_guide
from .posterior import Posterior
from .problem import problem

DECAY = 0.02  # what is left of adam's rate at the end, where no optimizer is given
B2 = 0.95  # adam's memory of squared gradients: short, as the first ones are much the largest


def vi(
    model: CompiledFunction,
    data: Mapping[str, Any],
    *args: Any,
    guide: str | CompiledFunction = "full_rank",
    size: int | None = None,
    start: Mapping[str, Any] | None = None,
    steps: int = 3000,
    samples: int = 16,
    optimizer: Optimizer | None = None,
    key: Any = None,
    options: Mapping[str, Any] | None = None,
    **named: Any,
) -> Posterior:
    """Fit a guide to the posterior of a model.

    data: the observed choices, nested dicts by address. args, named: the model's arguments;
        positions serve for those whose names `vi` has itself.
    guide: a kind that `autoguide` writes, with its `size`; or a guide of a program, whose
        parameters to fit start at `start` (a dict by name), and whose others have the names of
        arguments of the model or of data.
    start: with a kind, fields of the guide's parameters to start from elsewhere.
    steps, samples, optimizer, key: those of `wg.fit`; adam by default, with a rate that suits the
        kind of guide and goes down. options: further options of `wg.fit`.

    Raises DataError, GuideError and NonFiniteDensity, and what `wg.fit` raises.
    """
    if isinstance(guide, CompiledFunction):
        if guide.decl.kind != "guide" or size is not None:
            raise CallError(
                "vi takes a guide of a program, which has no size, or a kind of guide",
                found=f"the {guide.decl.kind} '{guide.__name__}'",
            )
        chosen: Guide = own_guide(problem(model, data, args, named, "vi"), guide, start)
        phi = chosen.start()
    else:
        chosen = autoguide(model, data, *args, kind=guide, size=size, **named)
        phi = _changed(chosen.start(key), start)
    rate = chosen.rate
    optimizer = optimizer or adam(cosine_decay(rate, max(steps, 1), DECAY * rate), b2=B2)
    found = fit(
        chosen.program.elbo,
        {"phi": phi},
        steps=steps,
        samples=samples,
        optimizer=optimizer,
        maximize=True,
        key=key,
        data=chosen.given,
        **(options or {}),
    )
    return Posterior(chosen, found)


def _changed(phi: dict[str, Any], start: Any) -> dict[str, Any]:
    """Start values with the fields that were asked for otherwise."""
    if start is None:
        return phi
    unknown = [k for k in start if k not in phi] if isinstance(start, Mapping) else ["start"]
    if unknown:
        raise CallError(
            "start names fields of the guide's parameters",
            expected=", ".join(phi),
            found=", ".join(unknown) if isinstance(start, Mapping) else describe(start),
        )
    return phi | dict(start)
