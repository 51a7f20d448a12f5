"""Matching the arguments of a Python call to the parameters of a function."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frontend import syntax
from ..ir.struct import RecordStruct, Struct
from ..ir.types import KEY, TensorType
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


def bind_again(
    signature: Sequence[tuple[str, Struct | Static]],
    names: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    device: type | None,
) -> Bound | None:
    """The arguments of a call like an earlier one: arrays of just the types in its signature.

    None for all others, mistakes included: `bind` looks at them with care.
    """
    if len(args) + len(kwargs) != len(signature) or len(args) > len(names):
        return None
    given = dict(zip(names, args))
    given.update(kwargs)
    arrays: list[Array] = []
    for name, item in signature:
        if name not in given:
            return None
        value = given[name]
        if isinstance(item, Static):
            if type(value) is not type(item.value) or value != item.value:
                return None
        elif not _has_struct(value, item, device, arrays):
            return None
    return Bound(tuple(signature), tuple(arrays))


def _has_struct(value: Any, struct: Struct, device: type | None, arrays: list[Array]) -> bool:
    """Whether a value is arrays of just these types, which are appended to `arrays`."""
    if isinstance(struct, TensorType):
        array = _same_tensor(value, struct, device)
        if array is None:
            return False
        arrays.append(array)
        return True
    if isinstance(struct, RecordStruct):
        return (
            type(value) is dict
            and len(value) == len(struct.fields)
            and all(
                n in value and _has_struct(value[n], s, device, arrays) for n, s in struct.fields
            )
        )
    return (
        type(value) is tuple
        and len(value) == len(struct.items)
        and all(_has_struct(v, s, device, arrays) for v, s in zip(value, struct.items))
    )


def _same_tensor(value: Any, type_: TensorType, device: type | None) -> Array | None:
    """An array of this type as compiled code reads it, None for any other value."""
    wanted = type_.dtype.numpy
    if type(value) is not np.ndarray:
        on_device = device is not None and isinstance(value, device)
        return value if on_device and value.dtype == wanted and value.shape == type_.shape else None
    if not value.flags.c_contiguous:
        return None
    if type_.dtype is KEY and value.dtype == np.uint32 and value.shape == (*type_.shape, 2):
        value = value.view(np.uint64).reshape(type_.shape)
    if value.dtype != wanted or value.shape != type_.shape or not value.flags.aligned:
        return None
    return value


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
