"""The shape dialect: primitives, transforms and combinators that draw. No backend sees it.

A shape program is a function of the module without results whose body holds these ops; what its
ops draw is united. Ops of a block draw in order, those of loops and branches as if they stood in
the block. `passes/shapes.py` makes the field of a program at a point a plain function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .core import Attrs, Block, Function, Module, Op, Value, walk
from .errors import IRError
from .opdef import OpDef, declare, need, tensor
from .span import Span
from .types import BOOL, I32, TensorType, Type

DRAWS = ("shape.draw", "shape.place", "shape.combine", "shape.part", "shape.call")
UNNAMED = ("", "")  # the part that is drawn outside of all parts


def _nothing(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    for region in regions:
        need(not region.params and not region.results, "has a region that takes or yields values")
    return []


_CHECKED = (("valid", "symbol"), ("needs", "strs"))
_VALID = (
    "`valid` (parameters) -> a bool for each of `needs`, what must hold: else the result is empty"
)

declare(
    OpDef(
        "shape.draw",
        "draw a primitive: operands are its parameters. `distance` (parameters, point) -> signed "
        f"distance, negative inside. {_VALID}",
        _nothing,
        attrs=(
            ("primitive", "str"),
            ("distance", "symbol"),
            *_CHECKED,
        ),
        pure=False,
    )
)

declare(
    OpDef(
        "shape.place",
        "draw the union of the region moved: operands are the transform's parameters. `back` "
        "(parameters, point) -> the point of the inside that comes to be there (the same one, if "
        "absent); `distance` (parameters, inner distance, point) -> distance (the same one, if "
        f"absent). {_VALID}",
        _nothing,
        attrs=(
            ("transform", "str"),
            ("back", "symbol"),
            ("distance", "symbol"),
            *_CHECKED,
        ),
        regions=("body",),
        pure=False,
    )
)

declare(
    OpDef(
        "shape.combine",
        "draw what the region draws, joined from the first on: operands are the combinator's "
        "parameters. `join` (parameters, a, b) -> distance; `first` (parameters, a, b) -> whether "
        f"the part of the first is kept. {_VALID}",
        _nothing,
        attrs=(
            ("combinator", "str"),
            ("join", "symbol"),
            ("first", "symbol"),
            *_CHECKED,
        ),
        regions=("body",),
        pure=False,
    )
)

declare(
    OpDef(
        "shape.part",
        "draw the union of the region as part `part` of a colour; parts inside keep their names",
        _nothing,
        attrs=(("part", "str"), ("color", "str")),
        arity=0,
        regions=("body",),
        pure=False,
    )
)

declare(
    OpDef(
        "shape.call",
        "draw shape program `fn`: operands are its arguments",
        _nothing,
        attrs=(("fn", "symbol"),),
        pure=False,
    )
)


def _field(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(bool(operands), "needs a point")
    type = tensor(operands[-1])
    need(
        type.dtype.is_float and type.shape in ((2,), (3,)),
        f"needs a point of 2 or 3 floats, not {type}",
    )
    return [TensorType(type.dtype), TensorType(I32)]


declare(
    OpDef(
        "shape.field",
        "signed distance of a point from shape program `fn`, inf where that draws nothing, and "
        "the number of the nearest part among all of the program's: arguments, point",
        _field,
        attrs=(("fn", "symbol"),),
    )
)


def _check(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    return [TensorType(BOOL, (attrs["count"],))]


declare(
    OpDef(
        "shape.check",
        "whether each requirement in shape program `fn` holds wherever it is met: arguments. They "
        "count from outer to inner, in order, those of programs inside at their calls",
        _check,
        attrs=(("fn", "symbol"), ("count", "int")),
    )
)


def draws(block: Block) -> bool:
    """Whether anything is drawn in `block` or a region of it."""
    return any(op.name in DRAWS for op in walk(block))


@dataclass(frozen=True)
class Requirement:
    """What must hold of the parameters of one op of a shape program.

    what: the primitive, transform or combinator; message: what is required; places: of the op,
    then of the calls of programs around it.
    """

    what: str
    message: str
    places: tuple[Span, ...]


def requirements_of(module: Module, function: Function) -> list[Requirement]:
    """The requirements in a shape program, in the order that `shape.check` counts them."""
    return list(_requirements(module, function.body, ()))


def _requirements(module: Module, block: Block, calls: tuple[Span, ...]) -> Iterator[Requirement]:
    for op in block.ops:
        places = (op.span, *calls) if op.span else calls
        if op.name in ("shape.draw", "shape.place", "shape.combine"):
            what = next(
                op.attrs[k] for k in ("primitive", "transform", "combinator") if k in op.attrs
            )
            for message in op.attrs["needs"]:
                yield Requirement(what, message, places)
        if op.name == "shape.call":
            yield from _requirements(module, callee(module, op).body, places)
        for region in op.regions:
            yield from _requirements(module, region, calls)


def callee(module: Module, op: Op) -> Function:
    """The program that a `shape.call` draws, or a `shape.field` asks of."""
    found = module.functions.get(op.attrs["fn"])
    if found is None:
        raise IRError(f"{op.name} names @{op.attrs['fn']}, which the module does not have", op.span)
    return found


def parts_of(module: Module, function: Function) -> list[tuple[str, str]]:
    """The parts of a shape program, (name, colour), in the order of its text; the unnamed part
    is among them where something is drawn outside of all others.
    """
    found: dict[tuple[str, str], None] = {}
    for part in _parts(module, function.body, UNNAMED):
        found[part] = None
    return list(found)


def _parts(module: Module, block: Block, current: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for op in block.ops:
        match op.name:
            case "shape.draw":
                yield current
            case "shape.part":
                yield from _parts(module, op.regions[0], (op.attrs["part"], op.attrs["color"]))
            case "shape.call":
                yield from _parts(module, callee(module, op).body, current)
            case _:
                for region in op.regions:
                    yield from _parts(module, region, current)
