"""Appends ops to a block, inferring result types as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .core import Block, Op, Value
from .errors import IRError
from .opdef import OPS
from .span import Span
from .types import DType, TensorType, Type

_DEFAULTS: dict[str, Any] = {
    "int": 0,
    "bool": False,
    "str": "",
    "symbol": "",
    "strs": (),
    "symbols": (),
    "ints": (),
}


def attribute_default(kind: str) -> Any:
    """What an attribute of this kind is where it is left out."""
    return _DEFAULTS.get(kind)


class Builder:
    """Writes ops at the end of `block`. `span` is given to every op made.

    Any core op is also a method: `b.add(x, y)`, `b.reduce_sum(x, axes=(0,))`,
    `b.slice(x, start=..., limit=..., stride=...)`. A method returns the value where the op
    has one result, else the tuple of them. Attributes left out take 0, False, "" or ().
    """

    def __init__(self, block: Block, span: Span | None = None) -> None:
        self.block = block
        self.span = span

    def op(
        self,
        name: str,
        operands: Sequence[Value] = (),
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """Append op `name`; `names` are hints for its results.

        Raises IRError, with the span, where the type rule of the op is not met.
        """
        definition = OPS[name]
        full = {}
        for key, kind in definition.attrs:
            value = attrs.pop(key, _DEFAULTS.get(kind))
            full[key] = tuple(value) if kind in ("ints", "strs", "symbols", "types") else value
        if attrs:
            raise TypeError(f"op {name} has no attribute {sorted(attrs)}")
        if definition.arity is not None and len(operands) != definition.arity:
            raise IRError(
                f"{name} takes {definition.arity} operands, not {len(operands)}", self.span
            )
        try:
            types = definition.infer(operands, full, regions)
        except IRError as error:
            raise IRError(error.summary, error.span or self.span) from None
        results = tuple(Value(t, names[i] if i < len(names) else "") for i, t in enumerate(types))
        self.append(Op(name, tuple(operands), full, tuple(regions), results, self.span))
        return results

    def append(self, op: Op) -> None:
        """Write a finished op; every op goes through here."""
        self.block.ops.append(op)

    def __getattr__(self, name: str) -> Any:
        name = name.rstrip("_")  # and_, or_, not_, if_, for_, while_ are Python words
        if name not in OPS:
            raise AttributeError(name)

        def make(*operands: Value, **attrs: Any) -> Any:
            results = self.op(name, operands, **attrs)
            return results[0] if len(results) == 1 else results

        return make

    @contextmanager
    def at(self, span: Span | None) -> Iterator[None]:
        """Give `span` to the ops made inside."""
        before, self.span = self.span, span or self.span
        yield
        self.span = before

    def const(self, value: Any, like: TensorType | DType | Value) -> Value:
        """A literal of the type of `like` (a dtype means a scalar); one number fills an array."""
        if isinstance(like, Value):
            like = self.type(like)
        type = TensorType(like) if isinstance(like, DType) else like
        if isinstance(value, np.ndarray) and value.ndim > 0:
            value = np.ascontiguousarray(value, dtype=type.dtype.numpy)
        else:
            value = type.dtype.numpy.type(value).item()
        return self.op("const", value=value, type=type)[0]

    def zeros(self, like: TensorType | Value) -> Value:
        """Zeros of the type of `like`."""
        return self.const(0, like)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """NumPy-style broadcast of x to `shape`: trailing axes align, size 1 stretches."""
        type, shape = self.type(x), tuple(shape)
        if type.shape == shape:
            return x
        lead = len(shape) - type.rank
        kept = [i for i, n in enumerate(type.shape) if n == shape[lead + i]]
        if len(kept) < type.rank:
            if any(type.shape[i] != 1 for i in range(type.rank) if i not in kept):
                raise IRError(f"{type} does not broadcast to {list(shape)}", self.span)
            x = self.reshape(x, shape=tuple(type.shape[i] for i in kept))
        axes = tuple(lead + i for i in kept)
        return self.broadcast(x, shape=shape, axes=axes)

    def row(self, x: Value, i: int) -> Value:
        """Row i of an array, along its first axis."""
        rest = self.type(x).shape[1:]
        zeros, ones = (0,) * len(rest), (1,) * (1 + len(rest))
        one = self.slice(x, start=(i, *zeros), limit=(i + 1, *rest), stride=ones)
        out: Value = self.reshape(one, shape=rest)
        return out

    @staticmethod
    def type(x: Value) -> TensorType:
        """The tensor type of x."""
        assert isinstance(x.type, TensorType), x.type
        return x.type


def row_of(stream: Value) -> Value:
    """A parameter for the rows of an array that a loop streams."""
    type = Builder.type(stream)
    return Value(type.with_shape(type.shape[1:]), stream.name)


def function_block(types: Sequence[Type], names: Sequence[str] = ()) -> tuple[Block, Builder]:
    """A block with one parameter a type, and a builder at its end."""
    params = [Value(t, names[i] if i < len(names) else "") for i, t in enumerate(types)]
    block = Block(params)
    return block, Builder(block)
