"""What is asked of inference: a model with its arguments, data, and what remains to be found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.prob import FREE_SHAPES, Choice, free_type
from ...ir.struct import leaves
from ...ir.types import TensorType
from ..binding import Bound, Static, bind
from ..errors import CallError
from ..function import CompiledFunction
from ..values import describe, match_any, to_python, unflatten
from .errors import DataError, GuideError


@dataclass(frozen=True)
class Latent:
    """A latent choice of real numbers: `free` is the type of its unconstrained numbers, which
    stand at `start` in the vector of all.
    """

    address: str
    type: TensorType
    free: TensorType
    support: str
    start: int

    @property
    def stop(self) -> int:
        """The place after its last number."""
        return self.start + self.free.size


@dataclass(frozen=True)
class Problem:
    """A model with arguments and data.

    arguments: the model's by name, as arrays; data: nested by address. observed: the choices
    that the data are for; latents: those of real numbers that remain; summed: the addresses of
    the others, which are summed out. returns: whether the model returns anything.
    """

    model: CompiledFunction
    arguments: dict[str, Any]
    data: dict[str, Any]
    observed: tuple[Choice, ...]
    latents: tuple[Latent, ...]
    summed: tuple[str, ...]
    returns: bool

    @property
    def size(self) -> int:
        """The number of all unconstrained numbers."""
        return self.latents[-1].stop

    def addresses(self) -> dict[str, TensorType]:
        """The observed and the latent choices with their types."""
        return {c.address: c.type for c in self.observed} | {
            c.address: c.type for c in self.latents
        }


def problem(
    model: Any, data: Any, args: Sequence[Any], named: Mapping[str, Any], what: str
) -> Problem:
    """The problem, checked. `what` is the function that was called, for messages."""
    if not isinstance(model, CompiledFunction) or model.decl.kind != "model":
        raise CallError(
            f"{what} takes a model of a program first",
            expected="such as program.my_model",
            found=f"the {model.decl.kind} '{model.__name__}'"
            if isinstance(model, CompiledFunction)
            else describe(model),
        )
    if not isinstance(data, Mapping):
        raise DataError(
            f"{what} takes the data as a dict by address",
            expected='such as {"y": y}',
            found=describe(data),
        )
    bound = bind(model.decl, model.program.converter(model.decl), args, named, CompiledFunction)
    made = {c.address: c for c in model.choices(*args, **named)}
    observed = _observed(model, made, data)
    hidden = [c for a, c in made.items() if a not in observed]
    latents = _latents(model, [c for c in hidden if c.type.dtype.is_float])
    return Problem(
        model,
        arguments(bound),
        nested(observed),
        tuple(c for a, c in made.items() if a in observed),
        latents,
        tuple(c.address for c in hidden if not c.type.dtype.is_float),
        bool(leaves(model.result(*args, **named))),
    )


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Values by address as dicts in dicts."""
    out: dict[str, Any] = {}
    for address, value in flat.items():
        *heads, last = address.split("/")
        inner = out
        for head in heads:
            inner = inner.setdefault(head, {})
        inner[last] = value
    return out


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dicts in dicts as values by address."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}/")
        else:
            out[f"{prefix}{name}"] = value
    return out


def arguments(bound: Bound) -> dict[str, Any]:
    """Arguments as they were converted for the model."""
    arrays = iter(bound.arrays)
    return {
        name: item.value if isinstance(item, Static) else unflatten(item, arrays, to_python)
        for name, item in bound.signature
    }


def _observed(
    model: CompiledFunction, made: Mapping[str, Choice], data: Mapping[str, Any]
) -> dict[str, Any]:
    """The data as arrays by address, of the types that the model chooses."""
    out: dict[str, Any] = {}
    for address, value in flat(data).items():
        if address not in made:
            close = difflib.get_close_matches(address, made, 1)
            raise DataError(
                f"the model '{model.__name__}' makes no choice called '{address}'",
                model.decl.span,
                expected=", ".join(made) or "no data: it makes no choices",
                hint=f"did you mean '{close[0]}'?" if close else None,
            )
        arrays: list[Any] = []
        match_any(made[address].type, value, f"data: {address}", arrays)
        out[address] = to_python(arrays[0])
    return {a: out[a] for a in made if a in out}


def _latents(model: CompiledFunction, choices: Sequence[Choice]) -> tuple[Latent, ...]:
    if not choices:
        raise GuideError(
            f"the model '{model.__name__}' has no latent choice of real numbers",
            model.decl.span,
            hint="all of them are in the data, or discrete; those of finitely many values can be "
            "summed out exactly: score(assess(model(...), data))",
        )
    found: list[Latent] = []
    start = 0
    for choice in choices:
        if choice.support not in FREE_SHAPES or "#" in choice.address:
            raise GuideError(
                f"no guide can be written for the choice '{choice.address}'",
                choice.span,
                expected="a name, and a support of " + ", ".join(FREE_SHAPES),
                found=f"support {choice.support}",
            )
        if not choice.certain:
            raise GuideError(
                f"only some runs of the model '{model.__name__}' make the choice "
                f"'{choice.address}'",
                choice.span,
                hint="choose it before the branch: where it is not made, it has no density",
            )
        free = free_type(choice)
        found.append(Latent(choice.address, choice.type, free, choice.support, start))
        start = found[-1].stop
    if not start:
        raise GuideError(
            f"the latent choices of the model '{model.__name__}' hold no numbers",
            model.decl.span,
            found=", ".join(f"{c.address}: {c.type}" for c in choices),
        )
    return tuple(found)
