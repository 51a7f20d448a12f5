"""Shape programs to plain functions: fields at a point, and checks of what the programs require.

`shape.field @p` becomes a call of a function made once for each program, type of point and parts:
the distance and the part of what has been drawn so far go through the program as values. Small
loops are written out; others, and branches, carry the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import Env, clone_with, renamed, rewritten
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.opdef import symbols
from ..ir.shape import UNNAMED, callee, draws, parts_of
from ..ir.types import BOOL, I32, TensorType
from .inline import inline_function
from .scalarize import scalarize
from .shape_checks import Checks
from .simplify import simplify

MOST_WRITTEN_OUT = 2000  # ops of a loop, its trips together

Part = tuple[str, str]


def shapes(module: Module) -> Module:
    """The module without ops of the shape dialect, nor programs of it."""
    if not any(
        op.name.startswith("shape.") for f in module.functions.values() for op in walk(f.body)
    ):
        return module
    return _Shapes(module).run()


class _Shapes:
    """Rewrites a module; `made` are the functions for a program, by what they are made for."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.out = Module({}, module.entry)
        self.made: dict[object, str] = {}
        self.weights: dict[str, int] = {}
        self.asked: dict[str, None] = {}

    def run(self) -> Module:
        for name, function in self.module.functions.items():
            self.out.functions[name] = function  # reserves the names
        for name, function in self.module.functions.items():
            if draws(function.body):
                del self.out.functions[name]
            else:
                body = self.plain(function.body, {})
                self.out.functions[name] = Function(name, body, function.span, dict(function.attrs))
        for name in self.asked:
            self.out.functions[name] = _scalar(self.out, name)
        return self.out

    def plain(self, block: Block, env: Env) -> Block:
        """A block that draws nothing."""
        return rewritten(block, env, self.plain_op)

    def plain_op(self, b: Builder, op: Op, env: Env) -> None:
        """An op that draws nothing, with calls for fields and checks."""
        b.span = op.span
        if op.name in ("shape.field", "shape.check"):
            fn = self.field(op) if op.name == "shape.field" else self.check(op.attrs["fn"])
            operands, names = [env.get(v, v) for v in op.operands], [r.name for r in op.results]
            types = tuple(r.type for r in op.results)
            env.update(zip(op.results, b.op("call", operands, (), names, fn=fn, types=types)))
        else:
            clone_with(b, op, env, self.plain)

    # Fields

    def field(self, op: Op) -> str:
        """The function of a `shape.field`."""
        program = callee(self.module, op)
        parts = {part: i for i, part in enumerate(parts_of(self.module, program))}
        point = op.operands[-1].type
        assert isinstance(point, TensorType)
        name = self.field_of(program, parts, UNNAMED, point)
        self.asked[name] = None
        return name

    def field_of(
        self, program: Function, parts: dict[Part, int], part: Part, point: TensorType
    ) -> str:
        """(arguments, point) -> (distance, part): a function, made once.

        parts: their numbers; part: what the program as a whole belongs to.
        """
        key = (program.name, tuple(parts), part, point)
        if key not in self.made:
            self.made[key] = name = self.out.fresh_name(f"{program.name}_field")
            self.out.functions[name] = program  # reserves the name
            env: Env = {}
            out = Block(renamed(program.params, env))
            p = Value(point, "p")
            out.params.append(p)
            b = Builder(out, program.span)
            writer = _Field(self, b, env, p, parts, part)
            writer.block(program.body)
            out.results = [*writer.finished()]
            self.out.functions[name] = Function(name, out, program.span)
        return self.made[key]

    def weight(self, block: Block) -> int:
        """About how many ops the field of a block takes."""
        total = 0
        for op in block.ops:
            inside = sum(map(self.weight, op.regions))
            trips = op.attrs["trips"] if op.name == "for" else 1
            total += 1 + inside * trips
            total += sum(map(self.function_weight, symbols(op)))
        return total

    def function_weight(self, name: str) -> int:
        """The weight of a function, computed once."""
        if name not in self.weights:
            self.weights[name] = self.weight(self.module.functions[name].body)
        return self.weights[name]

    # Requirements

    def check(self, name: str) -> str:
        """(arguments) -> bool[count]: a function, made once."""
        key = ("check", name)
        if key not in self.made:
            self.made[key] = fresh = self.out.fresh_name(f"{name}_check")
            program = self.module.functions[name]
            self.out.functions[fresh] = program  # reserves the name
            env: Env = {}
            out = Block(renamed(program.params, env))
            b = Builder(out, program.span)
            held = Checks(self.module, self, b, env).block(program.body)
            rows = [b.reshape(v, shape=(1,)) for v in held]
            none = b.const(np.zeros(0, np.bool_), TensorType(BOOL, (0,))) if not rows else None
            out.results = [none or (b.concatenate(*rows, axis=0) if len(rows) > 1 else rows[0])]
            self.out.functions[fresh] = Function(fresh, out, program.span)
        return self.made[key]


def _scalar(module: Module, name: str) -> Function:
    """A function with its calls inlined and its points taken apart into coordinates.

    What is done at one point is then scalar, and at many elementwise.
    """
    alone = Module({name: inline_function(module, name, custom=False)}, name)
    return simplify(scalarize(alone)).main


@dataclass(frozen=True)
class _Drawn:
    """What a block has drawn: distance, part, and whether it has drawn anything at all, None
    where it surely has.
    """

    distance: Value
    part: Value
    any: Value | None = None

    def values(self) -> list[Value]:
        """The values that branches and loops pass on."""
        return [self.distance, self.part, *([self.any] if self.any else [])]


Join = Callable[[Builder, Value, Value], tuple[Value, Value]]  # -> distance, whether a's part


class _Field:
    """Writes the field of one block at a point: `drawn` is what came out so far.

    join: of the combinator around the block; None for the union.
    """

    def __init__(
        self,
        owner: _Shapes,
        b: Builder,
        env: Env,
        point: Value,
        parts: dict[Part, int],
        part: Part,
        join: Join | None = None,
    ) -> None:
        self.owner = owner
        self.b = b
        self.env = env
        self.point = point
        self.parts = parts
        self.part = part
        self.join = join
        self.drawn: _Drawn | None = None

    @property
    def real(self) -> TensorType:
        """The type of a distance."""
        return TensorType(Builder.type(self.point).dtype)

    def inner(self, point: Value, part: Part, join: Join | None = None) -> _Field:
        """For a region drawn as one thing, its ops written here."""
        return _Field(self.owner, self.b, self.env, point, self.parts, part, join)

    def here(self, b: Builder) -> _Field:
        """For a region whose draws go on with those of this block."""
        out = _Field(self.owner, b, self.env, self.point, self.parts, self.part, self.join)
        out.drawn = self.drawn
        return out

    # What was drawn

    def nothing(self) -> _Drawn:
        """The state before anything is drawn, as values."""
        distance = self.b.const(float("inf"), self.real)
        part = self.b.const(-1, TensorType(I32))
        return _Drawn(distance, part, self.b.const(False, TensorType(BOOL)))

    def finished(self) -> tuple[Value, Value]:
        """The distance and part of all that was drawn."""
        drawn = self.drawn or self.nothing()
        return drawn.distance, drawn.part

    def add(self, distance: Value, part: Value) -> None:
        """Draw one thing."""
        old, b = self.drawn, self.b
        if old is None:
            self.drawn = _Drawn(distance, part)
            return
        if self.join is None:  # inf changes no union
            joined, kept = b.min(old.distance, distance), b.le(old.distance, distance)
        else:
            joined, kept = self.join(b, old.distance, distance)
            if old.any is not None:
                joined = b.select(old.any, joined, distance)
                kept = b.and_(old.any, kept)
        self.drawn = _Drawn(joined, b.select(kept, old.part, part))

    # Ops

    def block(self, block: Block) -> None:
        """Draw a block, whose parameters are in the environment already."""
        for op in block.ops:
            self.b.span = op.span
            match op.name:
                case "shape.draw":
                    ok, values = self.checked(op)
                    (distance,) = self.call(op.attrs["distance"], [*values, self.point])
                    self.add(self.where(ok, distance), self.number())
                case "shape.place":
                    self.add(*self.place(op))
                case "shape.combine":
                    self.add(*self.combine(op))
                case "shape.part":
                    inner = self.inner(self.point, (op.attrs["part"], op.attrs["color"]))
                    inner.block(op.regions[0])
                    self.add(*inner.finished())
                case "shape.call":
                    self.add(*self.program(op))
                case "for" if draws(op.regions[0]):
                    self.loop(op)
                case "while" if draws(op.regions[1]):
                    self.while_loop(op)
                case "if" | "switch" if any(map(draws, op.regions)):
                    self.branches(op)
                case _:
                    self.owner.plain_op(self.b, op, self.env)

    def number(self) -> Value:
        """The number of the part being drawn."""
        return self.b.const(self.parts[self.part], TensorType(I32))

    def call(self, name: str, operands: Sequence[Value]) -> tuple[Value, ...]:
        types = tuple(r.type for r in self.owner.module.functions[name].results)
        return self.b.op("call", operands, fn=name, types=types)

    def checked(self, op: Op) -> tuple[Value | None, list[Value]]:
        """(whether an op's parameters are as required, parameters that are: ones where not).

        With ones in place of bad numbers no derivative is NaN.
        """
        values = [self.env.get(v, v) for v in op.operands]
        if not op.attrs["valid"]:
            return None, values
        b = self.b
        ok, *more = self.call(op.attrs["valid"], values)
        for other in more:
            ok = b.and_(ok, other)
        safe = []
        for v in values:
            type = Builder.type(v)
            if type.dtype.is_float:
                v = b.select(b.expand(ok, type.shape), v, b.const(1.0, type))
            safe.append(v)
        return ok, safe

    def where(self, ok: Value | None, distance: Value) -> Value:
        """A distance, inf where the parameters are bad."""
        if ok is None:
            return distance
        return self.b.select(ok, distance, self.b.const(float("inf"), self.real))

    def place(self, op: Op) -> tuple[Value, Value]:
        """The region at the point that comes to be here."""
        ok, values = self.checked(op)
        point = self.point
        if op.attrs["back"]:
            (point,) = self.call(op.attrs["back"], [*values, point])
        inner = self.inner(point, self.part)
        inner.block(op.regions[0])
        self.b.span = op.span
        distance, part = inner.finished()
        if op.attrs["distance"]:
            (distance,) = self.call(op.attrs["distance"], [*values, distance, self.point])
        return self.where(ok, distance), part

    def combine(self, op: Op) -> tuple[Value, Value]:
        """The draws of the region joined."""
        ok, values = self.checked(op)

        def join(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
            names = (op.attrs["join"], op.attrs["first"])
            types = (self.real, TensorType(BOOL))
            pair = [
                b.op("call", [*values, x, y], fn=fn, types=(type,))[0]
                for fn, type in zip(names, types)
            ]
            return pair[0], pair[1]

        inner = self.inner(self.point, self.part, join)
        inner.block(op.regions[0])
        self.b.span = op.span
        distance, part = inner.finished()
        return self.where(ok, distance), part

    def program(self, op: Op) -> tuple[Value, Value]:
        """Another program, drawn here."""
        program = callee(self.owner.module, op)
        point = Builder.type(self.point)
        fn = self.owner.field_of(program, self.parts, self.part, point)
        operands = [*(self.env.get(v, v) for v in op.operands), self.point]
        types = (self.real, TensorType(I32))
        distance, part = self.b.op("call", operands, fn=fn, types=types)
        return distance, part

    # Loops and branches

    def loop(self, op: Op) -> None:
        """A counted loop: written out where that is small, else carrying what was drawn."""
        trips = op.attrs["trips"]
        if trips == 0:
            self.env.update(zip(op.results, op.operands))
        elif trips * self.owner.weight(op.regions[0]) <= MOST_WRITTEN_OUT:
            self.written_out(op)
        else:
            self.carried(op)

    def written_out(self, op: Op) -> None:
        """Every trip in order."""
        b, (body,) = self.b, op.regions
        carries = op.attrs["carries"]
        operands = [self.env.get(v, v) for v in op.operands]
        state, streams = operands[:carries], operands[carries:]
        for i in range(op.attrs["trips"]):
            b.span = op.span
            rows = [b.row(v, i) for v in streams]
            self.env.update(zip(body.params, [b.const(i, TensorType(I32)), *state, *rows]))
            self.block(body)
            state = [self.env.get(v, v) for v in body.results]
        self.env.update(zip(op.results, state))

    def carried(self, op: Op) -> None:
        """A loop that carries what was drawn."""
        (body,) = op.regions
        carries = op.attrs["carries"]
        start, state = self.started()
        params = renamed(body.params, self.env)
        mine = [Value(v.type, "drawn") for v in start]
        region = Block([*params[: 1 + carries], *mine, *params[1 + carries :]])
        trip = self.here(Builder(region, op.span))
        trip.drawn = _like(state, mine)
        trip.block(body)
        region.results = [self.env.get(v, v) for v in body.results] + trip.yielded(state)
        operands = [self.env.get(v, v) for v in op.operands]
        operands = [*operands[:carries], *start, *operands[carries:]]
        attrs = op.attrs | {"carries": carries + len(start)}
        self.b.span = op.span
        out = self.b.op("for", operands, [region], **attrs)
        self.env.update(zip(op.results, out))
        self.drawn = _like(state, out[carries:])

    def while_loop(self, op: Op) -> None:
        """A loop with a condition that carries what was drawn."""
        cond, body = op.regions
        start, state = self.started()
        regions = []
        for block in (cond, body):
            params = renamed(block.params, self.env)
            mine = [Value(v.type, "drawn") for v in start]
            region = Block([*params, *mine])
            trip = self.here(Builder(region, op.span))
            trip.drawn = _like(state, mine)
            trip.block(block)
            region.results = [self.env.get(v, v) for v in block.results]
            region.results += trip.yielded(state) if block is body else []
            regions.append(region)
        operands = [*(self.env.get(v, v) for v in op.operands), *start]
        self.b.span = op.span
        out = self.b.op("while", operands, regions, **op.attrs)
        self.env.update(zip(op.results, out))
        self.drawn = _like(state, out[len(op.results) :])

    def branches(self, op: Op) -> None:
        """Branches: each goes on from what was drawn before."""
        before = self.drawn
        made = []
        for region in op.regions:
            branch = self.here(Builder(Block(), op.span))
            branch.block(region)
            branch.b.block.results = [self.env.get(v, v) for v in region.results]
            made.append(branch)
        certain = all(x.drawn is not None and x.drawn.any is None for x in made)
        state = replace(before or self.nothing(), any=None) if certain else self.started()[1]
        for branch in made:
            branch.b.block.results += branch.yielded(state)
        self.b.span = op.span
        operands = [self.env.get(v, v) for v in op.operands]
        out = self.b.op(op.name, operands, [x.b.block for x in made], **op.attrs)
        self.env.update(zip(op.results, out))
        self.drawn = _like(state, out[len(op.results) :])

    def started(self) -> tuple[list[Value], _Drawn]:
        """What was drawn so far as values; whether anything was is one where that matters."""
        state = self.drawn or self.nothing()
        if self.join is None:
            state = replace(state, any=None)
        return state.values(), state

    def yielded(self, like: _Drawn) -> list[Value]:
        """What was drawn, with as many values as `like`."""
        drawn = self.drawn or self.nothing()
        flag = drawn.any or self.b.const(True, TensorType(BOOL))
        return replace(drawn, any=flag if like.any is not None else None).values()


def _like(state: _Drawn, values: Sequence[Value]) -> _Drawn:
    """The first of `values` as a state with the parts of `state`."""
    return _Drawn(values[0], values[1], values[2] if state.any is not None else None)
