"""Programs that sample a field over a grid of cells, computing only what each cell needs.

Both take a batch of cells, each with the flags (guards.py) that the cell around it left. The
*cells* program bounds the field over the children of every cell, and leaves flags for them; the
*points* program computes it at the points of every cell. Cells that are not live cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..ir.builder import Builder, function_block, row_of
from ..ir.core import Block, Function, Module, Value
from ..ir.loops import QUICK
from ..ir.types import BOOL, I32, TensorType, Type
from .batch import batch_function
from .dce import dce_function
from .guards import Guarded, guarded
from .inline import inline_function
from .intervals import interval_function
from .pipeline import run_pipeline
from .simplify import simplify


@dataclass(frozen=True)
class Tiling:
    """How a grid is divided. All programs of one tiling have fixed sizes.

    branch: children of a cell along each axis; tile: points of a smallest cell along each axis;
    cells: cells in a batch of the cells program; tiles: those in one of the points program.
    """

    dims: int
    branch: int
    tile: int
    cells: int
    tiles: int

    @property
    def children(self) -> int:
        """Children of a cell."""
        return int(self.branch**self.dims)

    @property
    def points(self) -> int:
        """Points of a smallest cell."""
        return int(self.tile**self.dims)


TILINGS = {2: Tiling(2, 4, 16, 32, 128), 3: Tiling(3, 4, 8, 16, 32)}


def split_point(module: Module, place: int) -> Module:
    """The entry with a scalar for each coordinate of the point at `place`, put first.

    Parameters afterwards: coordinates, then the other parameters in order.
    """
    main = module.main
    point = Builder.type(main.params[place])
    others = [p for i, p in enumerate(main.params) if i != place]
    axes = [f"x{i}" for i in range(point.shape[0])]
    types: list[Type] = [TensorType(point.dtype)] * len(axes) + [p.type for p in others]
    block, b = function_block(types, [*axes, *(p.name for p in others)])
    b.span = main.span
    rows = [b.reshape(x, shape=(1,)) for x in block.params[: len(axes)]]
    args = block.params[len(axes) :]
    args.insert(place, b.concatenate(*rows, axis=0))
    block.results = list(
        b.op("call", args, fn=main.name, types=tuple(r.type for r in main.results))
    )
    out = Module(dict(module.functions), module.fresh_name(f"{main.name}_at"))
    out.add(Function(out.entry, block, main.span))
    return run_pipeline(out, ("inline", "scalarize", "simplify"))


class Tiles:
    """Both programs of a field: the entry of `module`, whose point is the parameter at `place`."""

    def __init__(self, module: Module, place: int) -> None:
        point = split_point(module, place)
        self.tiling = TILINGS[Builder.type(module.main.params[place]).shape[0]]
        self.guarded: Guarded = guarded(point.main, "guarded")
        self.flags = len(self.guarded.group)

    def cells(self) -> Module:
        """lo and hi of every coordinate `[cells, children]`, then what `_loop` takes ->
        bounds `[cells, children]` twice, flags `[cells, children, flags]`.
        """
        module = Module({"guarded": self.guarded.function}, "guarded")
        box = interval_function(module, "guarded", range(self.tiling.dims))
        step = self._decided(module, module.functions[box])
        count = 2 * self.tiling.dims
        return self._loop(module, step, count, self.tiling.cells, self.tiling.children)

    def points(self) -> Module:
        """Coordinates `[tiles, points]`, then what `_loop` takes -> values of that shape."""
        source = self.guarded.function
        body = Block(source.params, source.body.ops, source.results[:1])
        function = dce_function(Function("value", body, source.span))
        module = Module({"value": function}, "value")
        return self._loop(module, "value", self.tiling.dims, self.tiling.tiles, self.tiling.points)

    def _decided(self, module: Module, box: Function) -> str:
        """The bounds of the value, and the flags that they leave, of a box and its flags."""
        block, b = function_block([p.type for p in box.params], [p.name for p in box.params])
        b.span = box.span
        lo, hi, terms, _, _, bests = _call(b, box, block.params)
        lost = b.gt(terms, self._of_groups(b, bests))
        block.results = [lo, hi, b.and_(block.params[-1], b.not_(lost))]
        name = module.add(Function("decided", block, box.span)).name
        module.add(dce_function(inline_function(module, name)))
        small = Module({name: module.functions[name]}, name)
        module.add(simplify(small).functions[name])
        return name

    def _of_groups(self, b: Any, bests: Value) -> Value:
        """What the group of each flag is."""
        shape = (self.flags,)
        if Builder.type(bests).shape == (1,):
            best = b.reshape(bests, shape=())
            return cast(Value, b.broadcast(best, shape=shape, axes=()))
        owners = b.const(np.array(self.guarded.group, np.int32), TensorType(I32, shape))
        return cast(Value, b.gather(bests, owners, axis=0, batch=0))

    def _loop(self, module: Module, name: str, mapped: int, count: int, size: int) -> Module:
        """`count` cells of `size` children or points: function `name` over those of each.

        Parameters: `mapped` arrays [count, size]; for each cell the row and the column of its
        flags, and whether it is live; flags [cells, children, flags]; the other parameters.
        """
        inner = module.functions[name]
        others = len(inner.params) - mapped - 1
        axes = [0] * mapped + [None] * (others + 1)
        batched = module.functions[batch_function(module, name, axes, size)]
        tiling, n = self.tiling, self.flags
        dtype = Builder.type(inner.params[0]).dtype
        types: list[Type] = [TensorType(dtype, (count, size))] * mapped
        types += [TensorType(I32, (count,))] * 2 + [TensorType(BOOL, (count,))]
        types += [TensorType(BOOL, (tiling.cells, tiling.children, n))]
        types += [p.type for p in inner.params[mapped:-1]]
        block, b = function_block(types)
        b.span = inner.span
        streams, flags = block.params[: mapped + 3], block.params[mapped + 3]
        rest = block.params[mapped + 4 :]
        body = Block([Value(TensorType(I32), "cell"), *(row_of(s) for s in streams)])
        *inputs, row, column, live = body.params[1:]

        def run(rb: Any) -> Sequence[Value]:
            zero = rb.const(0, I32)
            mine = rb.dynamic_slice(flags, row, column, zero, sizes=(1, 1, n))
            args = [*inputs, *rest, rb.reshape(mine, shape=(n,))]
            return _call(rb, batched, args)

        regions = [_region(run), _region(lambda rb: [rb.const(0, r) for r in batched.results])]
        body.results = list(Builder(body, inner.span).op("if", [live], regions))
        block.results = list(b.op("for", streams, [body], trips=count, carries=0))
        loop = Function(module.fresh_name(f"{name}_loop"), block, inner.span, {QUICK: True})
        module.add(loop)
        loop = inline_function(module, loop.name)
        return Module({loop.name: dce_function(loop)}, loop.name)


def _call(b: Any, function: Function, args: Sequence[Value]) -> list[Value]:
    return list(b.op("call", args, fn=function.name, types=tuple(r.type for r in function.results)))


def _region(write: Callable[[Any], Sequence[Value]]) -> Block:
    block = Block()
    block.results = list(write(Builder(block)))
    return block
