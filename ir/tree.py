"""The tree dialect: car, cdr, cons and sums of binary trees. No backend sees it.

A tree value is a sum of weighted trees: a vector of fillers at every place. Places are numbers: 1
is the root, and the children of place p are 2 p and 2 p + 1, so that the digits of p after its
first one spell the way down. What these ops mean is told here by arrays `[2^depth - 1, fillers]`,
place p in row p - 1. `passes/trees.py` chooses how trees are held and makes plain tensor code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core import Attrs, Block, Value
from .errors import IRError
from .opdef import Array, OpDef, declare, need, tensor
from .types import I32, TensorType, TreeType, Type

DEEPEST = 24  # levels of a tree: places are i32, and the meaning above has 2^depth rows
FORMS = ("auto", "dense", "positional", "sparse", "shared")


def tree(value: Value) -> TreeType:
    """The tree type of an operand; an array there is an IRError."""
    if not isinstance(value.type, TreeType):
        raise IRError(f"a tree is needed, not {value.type}")
    return value.type


def _vector(value: Value, like: TreeType, what: str) -> None:
    wanted = TensorType(like.dtype, (like.fillers,))
    need(value.type == wanted, f"{what} is {wanted}, not {value.type}")


def _same(trees: Sequence[TreeType]) -> TreeType:
    """The type of a sum of trees: as deep as the deepest."""
    first = trees[0]
    for other in trees[1:]:
        need(
            (other.dtype, other.fillers) == (first.dtype, first.fillers),
            f"trees of different fillers meet: {first} and {other}",
        )
    return first.with_depth(max(t.depth for t in trees))


# Arrays that trees mean


def child_rows(depth: int, bit: int) -> Array:
    """The rows of the left (0) or right (1) subtree of a tree of `depth`, in its own order."""
    places = np.arange(1, max(1, 2 ** (depth - 1)))
    tops = 2 ** np.floor(np.log2(places)).astype(np.int64)
    return np.asarray(places + (1 + bit) * tops - 1)


def resized(x: Array, depth: int) -> Array:
    """The rows of a tree as one of `depth`: those below are dropped, missing ones are zero."""
    out = np.zeros((2**depth - 1, x.shape[1]), x.dtype)
    count = min(len(out), len(x))
    out[:count] = x[:count]
    return out


def _depth_of(x: Array) -> int:
    return len(x).bit_length()


# Ops


def _encode_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(len(operands) in (2, 3, 4), "takes fillers, places, and perhaps roles and their duals")
    fillers, places = tensor(operands[0]), tensor(operands[1])
    need(fillers.dtype.is_float and fillers.rank == 2, f"needs rows of floats, not {fillers}")
    wanted = TensorType(I32, fillers.shape[:1])
    need(places == wanted, f"needs a place for each row, {wanted}, not {places}")
    depth = attrs["depth"]
    need(1 <= depth <= DEEPEST, f"depth is 1 to {DEEPEST}, not {depth}")
    need(attrs["form"] in FORMS, f"no form of trees is called {attrs['form']!r}")
    for roles in operands[2:]:
        found = tensor(roles)
        fits = found.rank == 2 and found.shape[0] == 2**depth - 1
        need(
            fits and found.dtype is fillers.dtype,
            f"roles of depth {depth} are {fillers.dtype}[{2**depth - 1},...], not {found}",
        )
    if len(operands) == 4:
        need(operands[2].type == operands[3].type, "roles and duals have one shape")
    return [TreeType(fillers.dtype, depth, fillers.shape[1])]


def _encode(attrs: Attrs, fillers: Array, places: Array, *roles: Array) -> Array:
    out = np.zeros((2 ** attrs["depth"], fillers.shape[1]), fillers.dtype)
    inside = (places > 0) & (places < len(out))
    np.add.at(out, places[inside], fillers[inside])
    return out[1:]


declare(
    OpDef(
        "tree.encode",
        "the tree with row i of `fillers` at place `places`[i]: 1 for the root, 2 p and 2 p + 1 "
        "below p. Rows of one place add up; places outside of `depth` levels are no nodes. `form` "
        "says how to hold it: auto, dense (matrices of roles, given with their duals as two more "
        "operands; orthonormal ones are their own duals), positional, sparse (at most `capacity` "
        "nodes, those of largest norm) or shared (its nodes and where they hang, in the top "
        "`levels` levels; 0 for all)",
        _encode_infer,
        _encode,
        attrs=(("depth", "int"), ("form", "str"), ("capacity", "int"), ("levels", "int")),
    )
)


def _nil_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = attrs["type"]
    need(isinstance(type, TreeType) and type.depth == 0, f"nothing has depth 0, not {type}")
    return [type]


declare(
    OpDef(
        "tree.nil",
        "the tree without nodes",
        _nil_infer,
        lambda attrs: np.zeros((0, attrs["type"].fillers), attrs["type"].dtype.numpy),
        attrs=(("type", "type"),),
        arity=0,
    )
)


def _child_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = tree(operands[0])
    return [type.with_depth(max(0, type.depth - 1))]


for _name, _doc, _bit in (("car", "left", 0), ("cdr", "right", 1)):
    declare(
        OpDef(
            f"tree.{_name}",
            f"the {_doc} subtree of the root",
            _child_infer,
            lambda attrs, x, bit=_bit: x[child_rows(_depth_of(x), bit)],
            arity=1,
        )
    )


def _cons_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = _same([tree(v) for v in operands[:2]])
    _vector(operands[2], type, "the filler of the root")
    depth = type.depth + 1
    return [type.with_depth(min(depth, attrs["depth"]) if attrs["depth"] else depth)]


def _cons(attrs: Attrs, left: Array, right: Array, filler: Array) -> Array:
    depth = max(_depth_of(left), _depth_of(right)) + 1
    out = np.zeros((2**depth - 1, len(filler)), filler.dtype)
    out[0] = filler
    out[child_rows(depth, 0)] = resized(left, depth - 1)
    out[child_rows(depth, 1)] = resized(right, depth - 1)
    return resized(out, min(depth, attrs["depth"]) if attrs["depth"] else depth)


declare(
    OpDef(
        "tree.cons",
        "the tree of a left and a right subtree and the filler of the root; levels below `depth` "
        "are dropped unless it is 0",
        _cons_infer,
        _cons,
        attrs=(("depth", "int"),),
        arity=3,
    )
)


def _filler_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = tree(operands[0])
    return [TensorType(type.dtype, (type.fillers,))]


declare(
    OpDef(
        "tree.filler",
        "the filler of the root; zeros for nothing",
        _filler_infer,
        lambda attrs, x: x[0] if len(x) else np.zeros(x.shape[1], x.dtype),
        arity=1,
    )
)


def _blend_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(len(operands) > 1, "needs a tree")
    type = _same([tree(v) for v in operands[1:]])
    wanted = TensorType(type.dtype, (len(operands) - 1,))
    found = operands[0].type
    need(found == wanted, f"needs a weight for each tree, {wanted}, not {found}")
    return [type]


def _blend(attrs: Attrs, weights: Array, *trees: Array) -> Array:
    depth = max(map(_depth_of, trees))
    weighted = [w * resized(t, depth) for w, t in zip(weights, trees)]
    return np.asarray(sum(weighted), weights.dtype)


declare(OpDef("tree.blend", "the sum of trees, weighted: weights, trees", _blend_infer, _blend))


def _resize_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(0 <= attrs["depth"] <= DEEPEST, f"depth is 0 to {DEEPEST}, not {attrs['depth']}")
    return [tree(operands[0]).with_depth(attrs["depth"])]


declare(
    OpDef(
        "tree.resize",
        "the tree as one of `depth` levels; what is below them is dropped",
        _resize_infer,
        lambda attrs, x: resized(x, attrs["depth"]),
        attrs=(("depth", "int"),),
        arity=1,
    )
)


def _product_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = _same([tree(v) for v in operands])
    return [TensorType(type.dtype)]


def _product(attrs: Attrs, x: Array, y: Array) -> Array:
    count = min(len(x), len(y))
    return np.asarray(np.sum(x[:count] * y[:count]), x.dtype)


declare(
    OpDef(
        "tree.product",
        "the sum of the products of two trees' fillers, place by place",
        _product_infer,
        _product,
        arity=2,
    )
)


def _decode_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type = tree(operands[0])
    levels = attrs["levels"]
    need(1 <= levels <= DEEPEST, f"levels are 1 to {DEEPEST}, not {levels}")
    return [TensorType(type.dtype, (2**levels - 1, type.fillers))]


declare(
    OpDef(
        "tree.decode",
        "the fillers at the places of the top `levels` levels: row p - 1 is place p",
        _decode_infer,
        lambda attrs, x: resized(x, attrs["levels"]),
        attrs=(("levels", "int"),),
        arity=1,
    )
)


def _nodes_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    type, count = tree(operands[0]), attrs["count"]
    need(count >= 1, f"needs a count of nodes, not {count}")
    return [TensorType(I32, (count,)), TensorType(type.dtype, (count, type.fillers))]


def _nodes(attrs: Attrs, x: Array) -> tuple[Array, Array]:
    norms = np.sum(x * x, axis=1)
    order = np.argsort(-norms, kind="stable")[: attrs["count"]]
    order = order[norms[order] > 0]
    places = np.zeros(attrs["count"], np.int32)
    fillers = np.zeros((attrs["count"], x.shape[1]), x.dtype)
    places[: len(order)] = order + 1
    fillers[: len(order)] = x[order]
    return places, fillers


declare(
    OpDef(
        "tree.nodes",
        "places and fillers of the `count` nodes of largest norm, the largest first; place 0 and "
        "zeros where there are no more",
        _nodes_infer,
        _nodes,
        attrs=(("count", "int"),),
        arity=1,
    )
)
