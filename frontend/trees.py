"""Trees in the language: what arguments of tree functions are encoded by, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, DType, TensorType
from .scopes import suggest
from .type_errors import TreeLabelMistake, TypeMistake
from .values import Record, Staged, Static, Tensor, Tree, Tuple, describe

if TYPE_CHECKING:
    from .lower import Lowering


@dataclass(frozen=True)
class TreeOptions:
    """How trees come into a program from outside.

    labels: the words that trees have at their nodes; a node's filler is one-hot over them.
    fillers: how many numbers a filler has, at least one a label.
    depth: the most levels of an argument.
    form, capacity, levels: how trees are held, as in `encode_tree`.
    """

    labels: tuple[str, ...]
    fillers: int
    depth: int
    form: str = "auto"
    capacity: int = 0
    levels: int = 0


def is_encoded(value: Staged) -> bool:
    """Whether a value is the labels and places of a tree, `(i32[n], i32[n])`."""
    if not isinstance(value, Tuple) or len(value.items) != 2:
        return False
    types = [v.type for v in value.items if isinstance(v, Tensor)]
    return len(types) == 2 and types[0] == types[1] == TensorType(I32, types[0].shape[:1])


def encode(low: Lowering, value: Staged, span: Span) -> Tree:
    """The tree of labels and places, by the options of the session."""
    options = options_of(low, span)
    assert isinstance(value, Tuple)
    labels, places = (low.a.tensor(v, span) for v in value.items)
    fillers = one_hot(low, labels, options.fillers, low.session.real)
    low.b.span = span
    (out,) = low.b.op(
        "tree.encode",
        [fillers, places],
        depth=options.depth,
        form=options.form,
        capacity=options.capacity,
        levels=options.levels,
    )
    return Tree(out)


def decoded(low: Lowering, value: Staged) -> Staged:
    """A result with every tree in it as the fillers of all its places."""
    match value:
        case Tree():
            (out,) = low.b.op("tree.decode", [value.value], levels=max(1, value.type.depth))
            return Tensor(out)
        case Tuple(items):
            return Tuple(tuple(decoded(low, i) for i in items))
        case Record(name, fields):
            return Record(name, {k: decoded(low, v) for k, v in fields.items()})
    return value


def options_of(low: Lowering, span: Span) -> TreeOptions:
    """The session's options for trees."""
    if low.session.trees is None:
        raise TypeMistake(
            "labels and depth of trees are not known here",
            span,
            hint="load the program with trees=wg.trees.options(vocabulary, depth)",
        )
    return low.session.trees


def label_index(low: Lowering, name: str, span: Span) -> int:
    """The number of a label."""
    labels = options_of(low, span).labels
    if name not in labels:
        raise TreeLabelMistake(
            f"no label is called '{name}'", span, hint=suggest(name, list(labels))
        )
    return labels.index(name)


def one_hot(low: Lowering, labels: Value, size: int, dtype: DType) -> Value:
    """Rows (or one row) of zeros with a one at each label."""
    b = low.b
    count = b.type(labels).shape
    shape = TensorType(I32, (*count, size))
    axes = tuple(range(len(count)))
    wide = b.broadcast(labels, shape=shape.shape, axes=axes) if axes else b.expand(labels, (size,))
    return b.convert(b.eq(wide, b.iota(type=shape, axis=len(count))), dtype=dtype)


def root_filler(low: Lowering, value: Staged, trees: Sequence[Tree], span: Span) -> Tensor:
    """The filler of a new root: a vector, a label's name, or its number."""
    real = low.session.real
    size = trees[0].type.fillers if trees else None
    if isinstance(value, Static) and isinstance(value.value, str):
        index = label_index(low, value.value, span)
        row = np.zeros(size or options_of(low, span).fillers, real.numpy)
        row[index] = 1.0
        return Tensor(low.b.const(row, TensorType(real, row.shape)))
    if isinstance(value, Tensor) and value.type.rank == 1 and value.type.dtype.is_float:
        return value
    if isinstance(value, Tensor | Static) and size is not None:
        number = low.a.tensor(value, span, I32 if isinstance(value, Static) else None)
        if low.a.type(number) == TensorType(I32):
            return Tensor(one_hot(low, number, size, real))
    raise TypeMistake(
        "this is no filler",
        span,
        expected="a vector of floats, the name of a label, or its number",
        found=describe(value),
    )
