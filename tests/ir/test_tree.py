"""The tree dialect: what its ops mean, against trees as Python values; its types and text form."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.builder import Builder, function_block
from wengert.ir.core import Function, Module
from wengert.ir.errors import IRError
from wengert.ir.interp import run
from wengert.ir.parser import IRSyntaxError, parse_module
from wengert.ir.printer import print_module
from wengert.ir.types import F32, F64, I32, TensorType, TreeType
from wengert.ir.verify import verify

DEPTH, FILLERS = 5, 3

Nodes = dict[int, np.ndarray]


def random_nodes(rng: np.random.Generator, count: int, depth: int = DEPTH) -> Nodes:
    """A tree of `count` nodes: fillers by place."""
    places = [1]
    while len(places) < count:
        place = 2 * places[rng.integers(len(places))] + int(rng.integers(2))
        if place < 2**depth and place not in places:
            places.append(place)
    return {p: rng.normal(size=FILLERS) for p in places}


def symbolic_child(nodes: Nodes, bit: int) -> Nodes:
    """A subtree, by the digits of its places."""
    start = f"1{bit}"
    return {int("1" + f"{p:b}"[2:], 2): v for p, v in nodes.items() if f"{p:b}".startswith(start)}


def symbolic_cons(left: Nodes, right: Nodes, root: np.ndarray) -> Nodes:
    """A tree of two."""
    out = {1: root}
    for bit, part in enumerate((left, right)):
        out |= {int(f"1{bit}" + f"{p:b}"[1:], 2): v for p, v in part.items()}
    return out


def rows(nodes: Nodes, depth: int = DEPTH) -> np.ndarray:
    """The array that the interpreter holds."""
    out = np.zeros((2**depth - 1, FILLERS))
    for p, v in nodes.items():
        out[p - 1] = v
    return out


def call(name: str, types: list, args: list, **attrs) -> list[np.ndarray]:
    """Run one op on values of some types in the interpreter."""
    block, b = function_block(types)
    block.results = list(b.op(name, block.params, **attrs))
    module = Module({}, "f")
    module.add(Function("f", block))
    verify(module)
    return run(module, args)


TREE = TreeType(F64, DEPTH, FILLERS)


@pytest.mark.parametrize("seed", range(5))
def test_car_cdr_cons_are_the_symbolic_operations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = random_nodes(rng, 9), random_nodes(rng, 4)
    root = rng.normal(size=FILLERS)
    for bit, name in enumerate(("tree.car", "tree.cdr")):
        (out,) = call(name, [TREE], [rows(x)])
        np.testing.assert_array_equal(out, rows(symbolic_child(x, bit), DEPTH - 1))
    vector = TensorType(F64, (FILLERS,))
    (out,) = call("tree.cons", [TREE, TREE, vector], [rows(x), rows(y), root])
    np.testing.assert_array_equal(out, rows(symbolic_cons(x, y, root), DEPTH + 1))
    (out,) = call("tree.cons", [TREE, TREE, vector], [rows(x), rows(y), root], depth=3)
    np.testing.assert_array_equal(out, rows(symbolic_cons(x, y, root), DEPTH + 1)[:7])


def test_car_undoes_cons() -> None:
    rng = np.random.default_rng(1)
    x, y = random_nodes(rng, 6), random_nodes(rng, 3)
    made = symbolic_cons(x, y, rng.normal(size=FILLERS))
    deep = TreeType(F64, DEPTH + 1, FILLERS)
    for nodes, name in ((x, "tree.car"), (y, "tree.cdr")):
        (out,) = call(name, [deep], [rows(made, DEPTH + 1)])
        np.testing.assert_array_equal(out, rows(nodes))


def test_encode_adds_up_and_drops_what_is_outside() -> None:
    fillers = np.arange(10.0).reshape(5, 2)
    places = np.array([1, 3, 3, 0, 8], np.int32)
    types = [TensorType(F64, (5, 2)), TensorType(I32, (5,))]
    (out,) = call("tree.encode", types, [fillers, places], depth=2, form="auto")
    np.testing.assert_array_equal(out, [[0, 1], [0, 0], [6, 8]])


def test_blend_filler_decode_resize_product_nodes() -> None:
    rng = np.random.default_rng(2)
    x, y = rows(random_nodes(rng, 7)), rows(random_nodes(rng, 3, 2), 2)
    small, w = TreeType(F64, 2, FILLERS), np.array([0.5, -2.0])
    weights = TensorType(F64, (2,))
    padded = np.zeros_like(x)
    padded[: len(y)] = y
    (out,) = call("tree.blend", [weights, TREE, small], [w, x, y])
    np.testing.assert_allclose(out, 0.5 * x - 2.0 * padded)
    (out,) = call("tree.filler", [TREE], [x])
    np.testing.assert_array_equal(out, x[0])
    (out,) = call("tree.decode", [small], [y], levels=3)
    np.testing.assert_array_equal(out, padded[:7])
    (out,) = call("tree.resize", [TREE], [x], depth=2)
    np.testing.assert_array_equal(out, x[:3])
    (out,) = call("tree.product", [TREE, small], [x, y])
    np.testing.assert_allclose(out, np.sum(x * padded))
    places, fillers = call("tree.nodes", [TREE], [x], count=9)
    norms = np.sum(fillers**2, axis=1)
    assert (np.diff(norms) <= 0).all() and (places[7:] == 0).all() and (fillers[7:] == 0).all()
    np.testing.assert_array_equal(x[places[:7] - 1], fillers[:7])


def test_nothing_has_no_nodes() -> None:
    nothing = TreeType(F64, 0, FILLERS)
    (out,) = call("tree.nil", [], [], type=nothing)
    assert out.shape == (0, FILLERS)
    (out,) = call("tree.filler", [nothing], [out])
    np.testing.assert_array_equal(out, np.zeros(FILLERS))
    (out,) = call("tree.car", [nothing], [np.zeros((0, FILLERS))])
    assert out.shape == (0, FILLERS)


TEXT = """entry fn @swap(%x: f32[4,2], %p: i32[4]) -> f32[7,2] {
  %t = tree.encode %x, %p {depth = 3, form = "sparse", capacity = 8} : tree.f32[3,2]
  %a = tree.car %t : tree.f32[2,2]
  %b = tree.cdr %t : tree.f32[2,2]
  %r = tree.filler %t : f32[2]
  %n = tree.nil : tree.f32[0,2]
  %c = tree.cons %b, %a, %r : tree.f32[3,2]
  %d = tree.decode %c {levels = 3} : f32[7,2]
  return %d
}
"""


def test_text_form_round_trips() -> None:
    module = parse_module(TEXT)
    verify(module)
    assert print_module(module) == TEXT


def test_unknown_tree_types_are_told() -> None:
    with pytest.raises(IRError, match="no type is called forest"):
        parse_module("entry fn @f(%x: forest.f32[2,2]) -> forest.f32[2,2] {\n  return %x\n}\n")
    with pytest.raises(IRError, match="depth and a number of fillers"):
        parse_module("entry fn @f(%x: tree.f32[2]) -> tree.f32[2] {\n  return %x\n}\n")
    with pytest.raises(IRSyntaxError):
        parse_module("entry fn @f(%x: tree.f32[) -> f32 {\n  return %x\n}\n")


@pytest.mark.parametrize(
    ("name", "types", "attrs", "message"),
    [
        ("tree.car", [TensorType(F32, (3, 2))], {}, "a tree is needed"),
        ("tree.cons", [TREE, TREE, TensorType(F64, (2,))], {}, "filler of the root is f64"),
        ("tree.product", [TREE, TreeType(F64, 2, 4)], {}, "different fillers"),
        ("tree.blend", [TensorType(F64, (3,)), TREE], {}, "a weight for each tree"),
        ("tree.decode", [TREE], {"levels": 0}, "levels are 1 to"),
        ("tree.nodes", [TREE], {"count": 0}, "count of nodes"),
        ("tree.resize", [TREE], {"depth": 99}, "depth is 0 to"),
        (
            "tree.encode",
            [TensorType(F64, (3, 2)), TensorType(I32, (2,))],
            {"depth": 2, "form": "auto"},
            "a place for each row",
        ),
        (
            "tree.encode",
            [TensorType(F64, (3, 2)), TensorType(I32, (3,))],
            {"depth": 2, "form": "paper"},
            "no form of trees",
        ),
        ("add", [TREE, TREE], {}, "an array is needed, not tree.f64"),
    ],
)
def test_misfits_are_told(name: str, types: list, attrs: dict, message: str) -> None:
    block, _ = function_block(types)
    with pytest.raises(IRError, match=message):
        Builder(block).op(name, block.params, **attrs)
