"""Matching the arguments of a Python call to the parameters of a function."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frontend import syntax
from ..ir.struct import Struct
from .errors import ArgumentError, CallError
from .values import Array, Converter, Place, describe, fits


@dataclass(frozen=True)
class Static:
    """A compile-time argument: part of the signature, not of the data."""

    value: Any


@dataclass(frozen=True)
class Bound:
    """The arguments of one call: structure and static values by name, and the flat arrays."""

    signature: tuple[tuple[str, Struct | Static], ...]
    arrays: tuple[Array, ...]


def match_parameters(
    decl: syntax.FunctionDecl, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The given values by parameter name, in parameter order; defaulted ones are left out.

    Raises CallError for missing, extra, repeated or unknown arguments.
    """
    names = [p.name for p in decl.parameters]
    if len(args) > len(names):
        raise CallError(
            f"{decl.name}() got too many arguments",
            decl.span,
            expected=f"at most {len(names)}: {', '.join(names) or 'none'}",
            found=str(len(args)),
        )
    given = dict(zip(names, args))
    for name, value in kwargs.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            raise CallError(
                f"{decl.name}() has no parameter '{name}'",
                decl.span,
                expected=f"one of {', '.join(names)}" if names else "no arguments",
                hint=f"did you mean '{close[0]}'?" if close else None,
            )
        if name in given:
            raise CallError(f"{decl.name}() got argument '{name}' twice", decl.span)
        given[name] = value
    missing = [p for p in decl.parameters if p.default is None and p.name not in given]
    if missing:
        raise CallError(
            f"{decl.name}() misses {_plural(len(missing), 'argument')} "
            + ", ".join(f"'{p.name}'" for p in missing),
            missing[0].span,
            expected=f"{decl.name}({', '.join(names)})",
            found=f"{_plural(len(given), 'argument')}" if given else "no arguments",
        )
    return {name: given[name] for name in names if name in given}


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bind(
    decl: syntax.FunctionDecl,
    converter: Converter,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    reference: type,
) -> Bound:
    """Convert a call's arguments. `reference` is the class of functions given as arguments.

    Raises CallError and ArgumentError.
    """
    values = match_parameters(decl, args, kwargs)
    signature: list[tuple[str, Struct | Static]] = []
    arrays: list[Array] = []
    for parameter in decl.parameters:
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        place = Place(parameter.name, parameter.span)
        if isinstance(parameter.annotation, syntax.StaticType):
            item: Struct | Static = Static(
                static_value(value, parameter.annotation, place, reference)
            )
        elif isinstance(value, reference):
            item = Static(value)
        else:
            item = _flattened(converter, value, parameter, place, arrays)
        signature.append((parameter.name, item))
    return Bound(tuple(signature), tuple(arrays))


def _flattened(
    converter: Converter,
    value: Any,
    parameter: syntax.Parameter,
    place: Place,
    arrays: list[Array],
) -> Struct:
    try:
        return converter.flatten(value, parameter.annotation, place, arrays)
    except RecursionError:
        raise place.fail("nests without end", "a finite value", describe(value)) from None


def static_value(value: Any, type: syntax.StaticType, place: Place, reference: type) -> Any:
    """A static argument as the plain Python value that its kind wants, or ArgumentError."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    ok = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
        "fn": isinstance(value, reference),
    }
    if type.kind in ok and not ok[type.kind]:
        hint = "pass a function of a program, such as program.f" if type.kind == "fn" else None
        raise place.fail("is static", f"static {type.kind}", describe(value), hint)
    if isinstance(value, int) and not fits(value):
        raise place.fail("overflows", "a whole number of 64 bits", describe(value))
    return float(value) if type.kind == "float" else value


def check_unused(kwargs: Mapping[str, Any], allowed: Sequence[str], what: str) -> None:
    """Raise CallError for options of a derivative or `fit` call that do not exist."""
    for name in kwargs:
        if name not in allowed:
            raise CallError(f"{what} has no option '{name}'", expected=", ".join(allowed))


__all__ = ["ArgumentError", "Bound", "Static", "bind", "check_unused", "match_parameters"]
