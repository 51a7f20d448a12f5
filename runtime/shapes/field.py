"""A function of the language as a field over space: what meshes and pictures ask of it.

The questions are a program in the language, written beside the one that the function is of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...frontend import program as front
from ...frontend import syntax
from ...ir.core import Function, Module, walk
from ...ir.errors import WengertError
from ...ir.shape import parts_of, requirements_of
from ..binding import Static, bind
from ..errors import CallError
from ..function import CompiledFunction
from ..infer.source import path_of
from ..program import Program
from ..values import Array, unflatten
from .pruned import Sampled, sample

BATCHES = (1024, 16384)  # sizes of the batches that points are sent in
AXES = "xyz"
PALETTE = np.array(
    [
        (176, 184, 194),
        (201, 138, 88),
        (96, 139, 176),
        (132, 168, 106),
        (214, 178, 92),
        (178, 108, 112),
        (140, 120, 170),
        (104, 160, 158),
    ],
    np.uint8,
)  # of parts without a colour, in order

_TEXT = """# Questions about the field of {what}, written by wengert.
import "{path}" as target
import surfaces

fn field(point: real[3]{typed}):
    return {value}

fn slope(point: real[3]{typed}):
    return value_and_grad(lambda p: field(p{names}), point)

fn vertices(points{typed}):
    return surfaces.vertices(lambda p: field(p{names}), points)
"""

_SHAPE_TEXT = """
fn part(point: real[3]{typed}):
    return part_of({shape}, point)

fn checks({first}):
    return requirements({shape})
"""

CHECK = "shape.check"
_PROGRAMS: WeakKeyDictionary[CompiledFunction, dict[tuple[str, ...], Program]] = WeakKeyDictionary()


class UndefinedField(WengertError):
    """A field that is NaN somewhere."""


class InvalidShape(WengertError):
    """Parameters that a primitive, transform or combinator does not allow."""


class Field:
    """A shape program, or a function `fn f(p: real[3], ...) -> real`, at values of its parameters.

    Raises CallError for parameters that do not fit, and InvalidShape where a primitive, transform
    or combinator does not allow them.
    """

    def __init__(self, function: CompiledFunction, parameters: Mapping[str, Any]) -> None:
        self.function = function
        self.is_shape = function.decl.kind == "shape"
        if not self.is_shape:
            _check_point(function, parameters)
        self.parameters = _bound(function, parameters, 0 if self.is_shape else 1)
        self.given = {f"{n}_": v for n, v in self.parameters.items()}
        self.program = self._program()
        self._check_requirements()

    @property
    def dtype(self) -> Any:
        """The type of points and values."""
        return self.program.real.numpy

    def _program(self) -> Program:
        made = _PROGRAMS.setdefault(self.function, {})
        names = tuple(self.parameters)
        if names not in made:
            made[names] = self._compiled()
        return made[names]

    def _compiled(self) -> Program:
        function = self.function
        notes = {p.name: p.annotation for p in function.decl.parameters}
        typed = [f", {n}_{_static(notes[n])}" for n in self.parameters]
        given = [f"{n}={n}_" for n in self.parameters]
        value = f"target.{function.__name__}({', '.join(['point', *given])})"
        shape = f"target.{function.__name__}({', '.join(given)})"
        if self.is_shape:
            value = f"distance({shape}, point)"
        text = _TEXT.format(
            what=function.__name__,
            path=path_of(function),
            typed="".join(typed),
            names="".join(f", {n}" for n in self.given),
            value=value,
        )
        if self.is_shape:
            text += _SHAPE_TEXT.format(
                typed="".join(typed), first="".join(typed).removeprefix(", "), shape=shape
            )
        known = {path_of(function): function.program.source}
        source = front.compile_text(text, f"<field of {function.__name__}>", known)
        return Program(source, **function.program.options)

    @property
    def floats(self) -> list[str]:
        """The parameters that have derivatives."""
        return [n for n, v in self.parameters.items() if np.asarray(v).dtype.kind == "f"]

    def _check_requirements(self) -> None:
        """Raise InvalidShape at the first statement that the parameters do not fit."""
        if not self.is_shape:
            return
        held = np.asarray(self.program.checks(**self.given))
        if held.all():
            return
        module, shape = self._lowered()
        broken = requirements_of(module, shape)[int(np.argmin(held))]
        raise InvalidShape(
            f"{self.function.__name__}() cannot draw '{broken.what}' with these parameters",
            next(iter(broken.places), self.function.decl.span),
            expected=broken.message,
            found=", ".join(f"{n} = {v}" for n, v in self.parameters.items()),
        )

    def _lowered(self) -> tuple[Module, Function]:
        """The module of a question, and the shape program in it."""
        module = self.program.checks.module(**self.given)
        (op,) = [op for f in module.functions.values() for op in walk(f.body) if op.name == CHECK]
        return module, module.functions[op.attrs["fn"]]

    def palette(self) -> tuple[tuple[str, ...], Array]:
        """The names of the parts, and their colours u8[n, 3]."""
        if not self.is_shape:
            return ("",), PALETTE[:1]
        parts = parts_of(*self._lowered())
        colours = PALETTE[np.arange(len(parts)) % len(PALETTE)]
        for i, (name, text) in enumerate(parts):
            if text:
                colours[i] = self._colour(name, text)
        return tuple(name for name, _ in parts), colours

    def _colour(self, part: str, text: str) -> Array:
        if not re.fullmatch("#[0-9a-fA-F]{6}", text):
            raise InvalidShape(
                f"the part '{part}' has no such colour",
                self.function.decl.span,
                expected="#rrggbb",
                found=repr(text),
            )
        return np.frombuffer(bytes.fromhex(text[1:]), np.uint8)

    def parts(self, points: Array) -> Array:
        """The number of the nearest part at points `[m, 3]`: i32[m]."""
        out = np.zeros(len(points), np.int32)
        if self.is_shape:
            for part, batch in self._batches(points):
                out[part] = self._each(self.program.part, batch)[: _length(part)]
        return out

    def sample(self, axes: Sequence[Array], halo: int = 0) -> Sampled:
        """The values on a grid; see `pruned.sample`."""
        return sample(self.program.field, axes, point="point", values=True, halo=halo, **self.given)

    def values(self, points: Array) -> Array:
        """The field at points `[m, 3]`: `[m]`."""
        out = np.empty(len(points), self.dtype)
        for part, batch in self._batches(points):
            out[part] = self._each(self.program.field, batch)[: _length(part)]
        return out

    def slopes(self, points: Array) -> tuple[Array, Array]:
        """Values and gradients at points `[m, 3]`: `[m]`, `[m, 3]`."""
        values, slopes = np.empty(len(points), self.dtype), np.empty((len(points), 3), self.dtype)
        for part, batch in self._batches(points):
            found = self._each(self.program.slope, batch)
            for out, new in zip((values, slopes), found):
                out[part] = new[: _length(part)]
        return values, slopes

    def lowest(self, low: Array, high: Array) -> Array:
        """Lower bounds of the field over boxes with the corners `[m, 3]`: `[m]`.

        NaN where nothing is known. Raises NoInterval.
        """
        low = np.nextafter(low.astype(self.dtype), -np.inf)
        high = np.nextafter(high.astype(self.dtype), np.inf)
        out = np.empty(len(low), self.dtype)
        parts = zip(self._batches(low), self._batches(high))
        for (part, lower), (_, upper) in parts:
            found = self.program.field.interval(
                lower, upper, wrt="point", batched=True, **self.given
            )
            out[part] = np.asarray(found[0])[: _length(part)]
        return out

    def normals(self, points: Array, step: float) -> Array:
        """Unit vectors along the gradients at points `[m, 3]`.

        Where there is no gradient, differences over `step` on both sides serve.
        """
        slopes = self.slopes(points)[1]
        size = np.linalg.norm(slopes, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", over="ignore"):
            lost = np.flatnonzero(~((size > 0) & np.isfinite(size)))
        if len(lost):
            slopes[lost] = self._differences(points[lost], step)
            size[lost] = np.linalg.norm(slopes[lost], axis=1, keepdims=True)
        out: Array = slopes / np.where(size > 0, size, 1.0)
        return out

    def _each(self, function: CompiledFunction, points: Array) -> Any:
        """A function of a point, and its parameters, at many points."""
        shared: dict[str, int | None] = dict.fromkeys(self.given)
        found = function.batched(points, **self.given, axes=shared)
        return tuple(map(np.asarray, found)) if isinstance(found, tuple) else np.asarray(found)

    def _differences(self, points: Array, step: float) -> Array:
        sides = [self.values(points + s * step * axis) for axis in np.eye(3) for s in (1, -1)]
        found = np.stack([up - down for up, down in zip(sides[::2], sides[1::2])], axis=1)
        return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)

    def _batches(self, points: Array) -> Iterator[tuple[slice, Array]]:
        """The points in batches of few sizes, for each of which the program is compiled once."""
        size = BATCHES[0] if len(points) <= 8 * BATCHES[0] else BATCHES[1]
        points = np.ascontiguousarray(points, self.dtype)
        for start in range(0, len(points), size):
            batch = points[start : start + size]
            part = slice(start, start + len(batch))
            if len(batch) < size:
                batch = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            yield part, batch


def _check_point(function: CompiledFunction, parameters: Mapping[str, Any]) -> None:
    point = function.decl.parameters[0].name if function.decl.parameters else ""
    if not point or point in parameters:
        raise CallError(
            f"{function.__name__}() is no field",
            function.decl.span,
            expected="a shape program, or a first parameter that is the point",
            found=f"a value for {point!r}" if point else "no parameters",
        )


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _bound(function: CompiledFunction, parameters: Mapping[str, Any], first: int) -> dict[str, Any]:
    """The parameters from number `first` on, as the types that the function takes."""
    decl = replace(function.decl, parameters=function.decl.parameters[first:])
    converter = function.program.converter(function.decl)
    bound = bind(decl, converter, (), parameters, CompiledFunction)
    arrays = iter(bound.arrays)
    return {
        name: item.value if isinstance(item, Static) else unflatten(item, arrays, lambda a: a)
        for name, item in bound.signature
    }


def _static(note: syntax.TypeExpr | None) -> str:
    return f": static {note.kind}" if isinstance(note, syntax.StaticType) else ""
