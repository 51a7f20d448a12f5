"""A counted loop as two nested ones, for checkpointing."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.clone import clone_block
from ..ir.core import Block, Op, Value
from ..ir.types import I32, TensorType


def block_loop(op: Op, size: int) -> Block:
    """Ops that do what `op` (a `for`) does, and its results in order.

    A loop over blocks of `size` trips, with a loop inside, then a loop for the trips left over
    (before it, if `op` runs in reverse). The outer loop has the checkpoint policy "carry", so
    reverse mode keeps the carries of each block only, and recomputes one block at a time.
    """
    carries, trips = op.attrs["carries"], op.attrs["trips"]
    whole = trips - trips % size
    out = Block()
    b = Builder(out, op.span)
    state: Sequence[Value] = op.operands[:carries]
    streams = op.operands[carries:]
    pieces: dict[int, Sequence[Value]] = {}
    for start, stop in sorted([(0, whole), (whole, trips)], reverse=op.attrs["reverse"]):
        if start == stop:
            continue
        part = [_rows(b, v, start, stop) for v in streams]
        make = _blocks if start == 0 else _rest
        results = make(b, op, state, part, start, size)
        state, pieces[start] = results[:carries], results[carries:]
    columns = zip(*(pieces[start] for start in sorted(pieces)))
    out.results = [*state, *(_joined(b, column) for column in columns)]
    return out


def _rows(b: Builder, v: Value, start: int, stop: int) -> Value:
    shape = b.type(v).shape
    if (start, stop) == (0, shape[0]):
        return v
    zeros = (0,) * (len(shape) - 1)
    return b.slice(v, start=(start, *zeros), limit=(stop, *shape[1:]), stride=(1,) * len(shape))


def _joined(b: Builder, column: Sequence[Value]) -> Value:
    return column[0] if len(column) == 1 else b.concatenate(*column, axis=0)


def _body(op: Op, first: Value | None, b: Builder) -> Block:
    """The body of `op` in a loop that counts from `first`."""
    (body,) = op.regions
    params = [Value(p.type, p.name) for p in body.params]
    out = Block(params)
    index = params[0]
    if first is not None:
        index = Builder(out, b.span).add(first, index)
    copied = clone_block(
        Block([], body.ops, body.results), dict(zip(body.params, [index, *params[1:]]))
    )
    out.ops += copied.ops
    out.results = copied.results
    return out


def _rest(
    b: Builder, op: Op, state: Sequence[Value], streams: Sequence[Value], start: int, size: int
) -> Sequence[Value]:
    """The trips from `start` to the end, fewer than `size`."""
    attrs = op.attrs | {"trips": op.attrs["trips"] - start, "checkpoint": ""}
    return b.op("for", [*state, *streams], [_body(op, b.const(start, I32), b)], **attrs)


def _blocks(
    b: Builder, op: Op, state: Sequence[Value], streams: Sequence[Value], start: int, size: int
) -> Sequence[Value]:
    """The trips that fill whole blocks."""
    count = op.attrs["trips"] // size
    tiled = []
    for v in streams:
        shape = b.type(v).shape
        tiled.append(b.reshape(v, shape=(count, size, *shape[1:])))
    block_index = Value(TensorType(I32), "block")
    carries = [Value(v.type, v.name) for v in op.regions[0].params[1 : 1 + len(state)]]
    rows = [Value(b.type(v).with_shape(b.type(v).shape[1:])) for v in tiled]
    outer = Block([block_index, *carries, *rows])
    ob = Builder(outer, op.span)
    first = ob.mul(block_index, ob.const(size, I32))
    inner = op.attrs | {"trips": size, "checkpoint": ""}
    outer.results = list(ob.op("for", [*carries, *rows], [_body(op, first, ob)], **inner))
    attrs = op.attrs | {"trips": count, "checkpoint": "carry"}
    results = b.op("for", [*state, *tiled], [outer], **attrs)
    flat = []
    for v in results[len(state) :]:
        shape = b.type(v).shape
        flat.append(b.reshape(v, shape=(count * size, *shape[2:])))
    return [*results[: len(state)], *flat]
