"""Builtins of trees: car, cdr, cons, sums, and arrays into trees and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..ir.core import Value
from ..ir.span import Span
from ..ir.tree import DEEPEST, FORMS
from ..ir.types import TreeType
from . import trees
from .builtin_table import builtin
from .type_errors import CallMistake, SizeMistake, TypeMistake
from .values import Staged, Static, Tensor, Tree, Tuple, describe, is_none

if TYPE_CHECKING:
    from .lower import Lowering


def _tree(value: Staged, span: Span) -> Tree:
    if not isinstance(value, Tree):
        raise TypeMistake("a tree is needed here", span, found=describe(value))
    return value


def _made(low: Lowering, span: Span, name: str, *operands: Value, **attrs: Any) -> Tree:
    low.b.span = span
    return Tree(low.b.op(name, operands, **attrs)[0])


def _levels(low: Lowering, value: Staged, span: Span, what: str) -> int:
    levels = low.a.static_int(value, span, what)
    if not 0 <= levels <= DEEPEST:
        raise SizeMistake(f"{what} is at most {DEEPEST}", span, found=str(levels))
    return levels


@builtin("car(tree)")
def _car(low: Lowering, span: Span, tree: Staged) -> Staged:
    """The left subtree of a tree."""
    return _made(low, span, "tree.car", _tree(tree, span).value)


@builtin("cdr(tree)")
def _cdr(low: Lowering, span: Span, tree: Staged) -> Staged:
    """The right subtree of a tree."""
    return _made(low, span, "tree.cdr", _tree(tree, span).value)


@builtin("cons(left, right, filler, depth=0)")
def _cons(
    low: Lowering, span: Span, left: Staged, right: Staged, filler: Staged, depth: Staged
) -> Staged:
    """A tree of two and the filler of its root: a vector, or the name or number of a label.

    nil is no subtree. Levels below `depth` are dropped, unless it is 0.
    """
    given = [_tree(t, span) for t in (left, right) if not is_none(t)]
    root = trees.root_filler(low, filler, given, span)
    empty = TreeType(root.type.dtype, 0, root.type.size)
    both = [
        _made(low, span, "tree.nil", type=empty) if is_none(t) else _tree(t, span)
        for t in (left, right)
    ]
    levels = _levels(low, depth, span, "the depth of a tree")
    return _made(low, span, "tree.cons", *(t.value for t in both), root.value, depth=levels)


@builtin("filler(tree)")
def _filler(low: Lowering, span: Span, tree: Staged) -> Staged:
    """The filler of a tree's root, a vector."""
    low.b.span = span
    return Tensor(low.b.op("tree.filler", [_tree(tree, span).value])[0])


@builtin("blend(weights, trees)")
def _blend(low: Lowering, span: Span, weights: Staged, trees: Staged) -> Staged:
    """The sum of the trees of a tuple, each times its weight."""
    if not isinstance(trees, Tuple) or not trees.items:
        raise TypeMistake("a tuple of trees is needed here", span, found=describe(trees))
    given = [_tree(t, span) for t in trees.items]
    vector = low.stack(weights.items, span) if isinstance(weights, Tuple) else weights
    dtype = given[0].type.dtype
    weight = low.a.tensor(vector, span, dtype if isinstance(vector, Static) else None)
    return _made(low, span, "tree.blend", weight, *(t.value for t in given))


@builtin("crop(tree, depth)")
def _crop(low: Lowering, span: Span, tree: Staged, depth: Staged) -> Staged:
    """A tree as one of `depth` levels: those below are dropped."""
    levels = _levels(low, depth, span, "the depth of a tree")
    return _made(low, span, "tree.resize", _tree(tree, span).value, depth=levels)


@builtin("tree_product(x, y)")
def _product(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """The sum over places of products of two trees' fillers."""
    operands = [_tree(t, span).value for t in (x, y)]
    low.b.span = span
    return Tensor(low.b.op("tree.product", operands)[0])


@builtin(
    'encode_tree(fillers, places, depth, form="auto", capacity=0, levels=0, roles=None, duals=None)'
)
def _encode(
    low: Lowering,
    span: Span,
    fillers: Staged,
    places: Staged,
    depth: Staged,
    form: Staged,
    capacity: Staged,
    levels: Staged,
    roles: Staged,
    duals: Staged,
) -> Staged:
    """The tree with row i of a matrix at place places[i]: 1 is the root, 2p and 2p + 1 are below p.

    Place 0 is no node; the others are within `depth` levels, with a node above each but the root.
    form: how to hold it, see trees.md: dense (by `roles` and their `duals`), positional, sparse (at
    most `capacity` nodes), shared (in the top `levels` levels), or auto.
    """
    if not isinstance(form, Static) or form.value not in FORMS:
        raise CallMistake(
            "there is no such form of trees", span, expected=", ".join(FORMS), found=describe(form)
        )
    arrays = [low.a.tensor(v, span) for v in (fillers, places)]
    arrays += [low.a.tensor(v, span) for v in (roles, duals) if not is_none(v)]
    return _made(
        low,
        span,
        "tree.encode",
        *arrays,
        depth=_levels(low, depth, span, "the depth of a tree"),
        form=form.value,
        capacity=low.a.static_int(capacity, span, "the capacity of a tree"),
        levels=_levels(low, levels, span, "the number of levels"),
    )


@builtin("decode_tree(tree, levels=None)")
def _decode(low: Lowering, span: Span, tree: Staged, levels: Staged) -> Staged:
    """The fillers of the top `levels` levels (all): a matrix, row p - 1 for place p."""
    held = _tree(tree, span)
    count = max(1, held.type.depth)
    if not is_none(levels):
        count = _levels(low, levels, span, "the number of levels")
    low.b.span = span
    return Tensor(low.b.op("tree.decode", [held.value], levels=count)[0])


@builtin("tree_nodes(tree, count)")
def _nodes(low: Lowering, span: Span, tree: Staged, count: Staged) -> Staged:
    """(places, fillers) of the `count` nodes of largest norm; place 0 where there are no more."""
    number = low.a.static_int(count, span, "a count of nodes")
    value = _tree(tree, span).value
    low.b.span = span
    places, fillers = low.b.op("tree.nodes", [value], count=number)
    return Tuple((Tensor(places), Tensor(fillers)))


@builtin("tree_depth(tree)")
def _depth(low: Lowering, span: Span, tree: Staged) -> Staged:
    """How many levels a tree has at most, known when compiling."""
    return Static(0 if is_none(tree) else _tree(tree, span).type.depth)


@builtin("label(name)")
def _label(low: Lowering, span: Span, name: Staged) -> Staged:
    """The number of a label, known when compiling."""
    if not isinstance(name, Static) or not isinstance(name.value, str):
        raise TypeMistake("the name of a label is needed here", span, found=describe(name))
    return Static(trees.label_index(low, name.value, span))
