"""Every form of trees means the same: random programs of the tree dialect, before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from wengert.ir.builder import Builder, function_block
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.interp import run
from wengert.ir.types import BOOL, F64, I32, TensorType, TreeType
from wengert.ir.verify import verify
from wengert.passes.pipeline import FRONT, run_pipeline
from wengert.passes.tree_dense import RolesMistake
from wengert.passes.tree_lowering import TreeMistake
from wengert.passes.trees import ATTRIBUTE, trees

FORMS = ("positional", "sparse", "shared", "dense")
NODES, FILLERS = 6, 3


def random_places(rng: np.random.Generator, count: int, depth: int) -> np.ndarray:
    """Places of a random tree, zeros behind them."""
    places = [1]
    while len(places) < count:
        place = 2 * places[rng.integers(len(places))] + int(rng.integers(2))
        if place < 2**depth and place not in places:
            places.append(place)
    return np.array(places + [0] * (NODES - count), np.int32)


@dataclass
class Program:
    """A function under construction; args are values for its parameters."""

    form: str
    depth: int
    seed: int = 0
    capacity: int = 0
    args: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.block, self.b = function_block([])
        self.module = Module({}, "f")
        self.roles: list[Value] = []
        if self.form == "dense":
            count = 2**self.depth - 1
            roles = np.linalg.qr(self.rng.normal(size=(count, count)))[0]
            self.roles = [self.array(roles)]

    def array(self, value: np.ndarray) -> Value:
        """A parameter."""
        dtype = {"f": F64, "i": I32, "b": BOOL}[value.dtype.kind]
        v = Value(TensorType(dtype, value.shape))
        self.block.params.append(v)
        self.args.append(value)
        return v

    def floats(self, *shape: int) -> Value:
        """A parameter of random numbers."""
        return self.array(self.rng.normal(size=shape))

    def op(self, name: str, *operands: Value, **attrs) -> Value:
        """One op of the tree dialect."""
        return self.b.op(f"tree.{name}", operands, **attrs)[0]

    def tree(self, count: int = NODES, depth: int = 3) -> Value:
        """An encoded tree of random fillers."""
        places = self.array(random_places(self.rng, count, depth))
        attrs = {"form": self.form, "capacity": self.capacity}
        depth = self.depth if self.roles else depth
        return self.op(
            "encode", self.floats(NODES, FILLERS), places, *self.roles, depth=depth, **attrs
        )

    def done(self, *results: Value) -> Module:
        """The module of the program."""
        self.block.results = list(results)
        self.module.add(Function("f", self.block))
        verify(self.module)
        return self.module


def straight(p: Program) -> list[Value]:
    """car, cdr, cons, blends, fillers, products."""
    x, y = p.tree(), p.tree(4)
    made = p.op("cons", x, y, p.floats(FILLERS), depth=p.depth)
    turned = p.op("cons", p.op("cdr", made), p.op("car", made), p.op("filler", x), depth=p.depth)
    mixed = p.op("blend", p.floats(3), made, turned, x)
    left = p.op("car", p.op("car", mixed))
    return [
        p.op("decode", mixed, levels=p.depth),
        p.op("decode", left, levels=2),
        p.op("product", mixed, turned),
        p.op("product", left, y),
        p.op("filler", left),
    ]


def leaves(p: Program) -> list[Value]:
    """Trees made of nothing meet those that were encoded."""
    nothing = p.op("nil", type=TreeType(F64, 0, FILLERS))
    leaf = p.op("cons", nothing, nothing, p.floats(FILLERS))
    two = p.op("cons", leaf, nothing, p.floats(FILLERS))
    mixed = p.op("blend", p.floats(2), p.tree(), two)
    beside = p.op("cons", mixed, leaf, p.op("filler", p.op("cdr", two)), depth=p.depth)
    return [p.op("decode", beside, levels=p.depth), p.op("product", leaf, mixed)]


def loop(p: Program) -> list[Value]:
    """A loop that carries a tree and a number."""
    x, start = p.op("resize", p.tree(), depth=p.depth), p.floats()
    body, b = function_block([TensorType(I32), x.type, start.type], ["i", "t", "s"])
    _, t, s = body.params
    (left,) = b.op("tree.car", [t])
    (right,) = b.op("tree.cdr", [t])
    (root,) = b.op("tree.filler", [t])
    (made,) = b.op("tree.cons", [right, left, root], depth=p.depth)
    half = b.const(np.array([0.5, 0.5]), TensorType(F64, (2,)))
    (both,) = b.op("tree.blend", [half, made, t])
    (again,) = b.op("tree.resize", [both], depth=p.depth)
    body.results = [again, b.add(s, b.op("tree.product", [both, made])[0])]
    out = p.b.op("for", [x, start], [body], trips=3, carries=2)
    return [p.op("decode", out[0], levels=p.depth), out[1]]


def while_loop(p: Program) -> list[Value]:
    """A tree goes left until its root is empty."""
    x, count = p.op("resize", p.tree(), depth=p.depth), p.array(np.array(0, np.int32))
    cond, c = function_block([x.type, count.type], ["t", "n"])
    cond.results = [c.lt(cond.params[1], c.const(2, TensorType(I32)))]
    body, b = function_block([x.type, count.type], ["t", "n"])
    (left,) = b.op("tree.car", [body.params[0]])
    (left,) = b.op("tree.resize", [left], depth=p.depth)
    body.results = [left, b.add(body.params[1], b.const(1, TensorType(I32)))]
    out = p.b.op("while", [x, count], [cond, body], max_trips=4)
    return [p.op("decode", out[0], levels=p.depth), p.op("product", out[0], x)]


def branch(p: Program) -> list[Value]:
    """Branches that yield trees of different kinds, one encoded inside."""
    x, flag = p.tree(), p.array(np.array(bool(p.seed % 2)))
    places, fillers = p.array(random_places(p.rng, 3, 3)), p.floats(NODES, FILLERS)
    one, b = function_block([])
    attrs = {"form": p.form, "capacity": p.capacity, "depth": p.depth if p.roles else 3}
    (inside,) = b.op("tree.encode", [fillers, places, *p.roles], **attrs)
    one.results = [inside]
    two, b = function_block([])
    (left,) = b.op("tree.car", [x])
    (moved,) = b.op("tree.resize", [left], depth=attrs["depth"])
    two.results = [moved]
    (out,) = p.b.op("if", [flag], [one, two])
    return [p.op("decode", out, levels=3), p.op("product", out, x)]


def call(p: Program) -> list[Value]:
    """A function of trees, called twice, which encodes one itself."""
    x, y, places = p.tree(), p.tree(3), p.array(random_places(p.rng, 2, 3))
    types = [x.type, places.type, TensorType(F64, (NODES, FILLERS)), *(r.type for r in p.roles)]
    block, b = function_block(types)
    t, at, fillers, *roles = block.params
    attrs = {"form": p.form, "capacity": p.capacity, "depth": p.depth if roles else 3}
    (own,) = b.op("tree.encode", [fillers, at, *roles], **attrs)
    (swapped,) = b.op("tree.blend", [b.const(np.array([2.0, -1.0]), TensorType(F64, (2,))), t, own])
    block.results = [swapped, b.op("tree.product", [t, own])[0]]
    p.module.add(Function("g", block))
    found = []
    for tree in (x, y):
        types = tuple(r.type for r in block.results)
        operands = [tree, places, p.floats(NODES, FILLERS), *p.roles]
        made, number = p.b.op("call", operands, fn="g", types=types)
        found += [p.op("decode", p.op("cdr", made), levels=3), number]
    return found


PROGRAMS: dict[str, Callable[[Program], list[Value]]] = {
    f.__name__: f for f in (straight, leaves, loop, while_loop, branch, call)
}


def lowered(module: Module, *more: str) -> Module:
    """The module after the pass, and after others."""
    out = run_pipeline(module, ["trees", *more], verify=True)
    assert not any(
        op.name.startswith("tree.") for f in out.functions.values() for op in walk(f.body)
    )
    return out


@pytest.mark.parametrize("form", [*FORMS, "auto"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_forms_mean_the_same(name: str, form: str, seed: int) -> None:
    p = Program(form, 6, seed)
    module = p.done(*PROGRAMS[name](p))
    wanted = run(module, p.args)
    for out in (lowered(module), lowered(module, *FRONT[1:])):
        for x, y in zip(run(out, p.args), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("seed", range(3))
def test_trees_of_twelve_levels(form: str, seed: int) -> None:
    """Random trees to depth 12: every form equals the meaning to 1e-5, in f32 too."""
    rng = np.random.default_rng(seed)
    p = Program(form, 12, seed)
    x = p.tree(depth=int(rng.integers(3, 12)))
    made = p.op("cons", x, p.op("cdr", x), p.floats(FILLERS), depth=12)
    mixed = p.op("blend", p.floats(3), made, p.op("car", x), x)
    module = p.done(p.op("decode", mixed, levels=12), p.op("product", mixed, made))
    for x, y in zip(run(lowered(module), p.args), run(module, p.args), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["straight", "loop", "branch", "call"])
def test_gradients_are_those_of_the_meaning(name: str, form: str) -> None:
    """Reverse mode through every form, against differences of what the interpreter says."""
    p = Program(form, 5, 3)
    results = PROGRAMS[name](p)
    sums = [
        p.b.reduce_sum(p.b.mul(r, p.b.sin(r)), axes=tuple(range(p.b.type(r).rank))) for r in results
    ]
    total = sums[0]
    for s in sums[1:]:
        total = p.b.add(total, s)
    module = p.done(total)
    wrt = [i for i, a in enumerate(p.args) if a.dtype.kind == "f" and a.shape != (31, 31)]
    types = [v.type for v in p.block.params]
    block, b = function_block(types)
    out = b.op(
        "diff.vjp",
        [*block.params, b.const(1.0, TensorType(F64))],
        fn="f",
        wrt=tuple(wrt),
        types=(TensorType(F64), *(types[i] for i in wrt)),
    )
    block.results = list(out[1:])
    module.add(Function("slope", block))
    module.entry = "slope"
    grads = run(lowered(module, *FRONT[1:]), p.args)
    rng = np.random.default_rng(5)
    steps = [rng.normal(size=p.args[i].shape) for i in wrt]

    def value(sign: float) -> float:
        args = list(p.args)
        for i, s in zip(wrt, steps):
            args[i] = args[i] + sign * 1e-6 * s
        return float(run(module, args, "f")[0])

    slope = sum(float(np.sum(g * s)) for g, s in zip(grads, steps))
    np.testing.assert_allclose(slope, (value(1.0) - value(-1.0)) / 2e-6, rtol=1e-6, atol=1e-7)


def test_a_function_of_trees_can_be_differentiated_by_arrays() -> None:
    """diff ops pass trees to what they differentiate."""
    p = Program("shared", 4)
    x, w = p.tree(), p.floats(2)
    block, b = function_block([x.type, TensorType(F64, (2,))])
    t, weights = block.params
    (left,) = b.op("tree.car", [t])
    (mixed,) = b.op("tree.blend", [weights, t, left])
    block.results = [b.op("tree.product", [mixed, mixed])[0]]
    p.module.add(Function("g", block))
    types = (TensorType(F64), TensorType(F64, (2,)))
    one = p.b.const(1.0, TensorType(F64))
    out = p.b.op("diff.vjp", [x, w, one], fn="g", wrt=(1,), types=types)
    module = p.done(*out)
    value, slope = run(lowered(module, *FRONT[1:]), p.args)
    np.testing.assert_allclose(np.dot(slope, p.args[-1]), 2 * value)


def test_sparse_keeps_the_largest_nodes_within_its_capacity() -> None:
    p = Program("sparse", 4, capacity=4)
    x, w = p.tree(4), p.floats(2)
    mixed = p.op("blend", w, x, p.op("car", x))
    module = p.done(p.op("decode", mixed, levels=4))
    (kept,) = run(lowered(module), p.args)
    (whole,) = run(module, p.args)
    there = np.flatnonzero(np.any(kept != 0, axis=1))
    assert len(there) == 4
    np.testing.assert_allclose(kept[there], whole[there])
    norms = np.sum(whole**2, axis=1)
    assert set(there) == set(np.argsort(-norms)[:4])


def test_shared_keeps_its_top_levels() -> None:
    p = Program("shared", 8)
    x = p.tree(4)
    for op in p.block.ops:
        op.attrs["levels"] = 2
    once = p.op("cons", x, x, p.floats(FILLERS))
    twice = p.op("cons", once, x, p.floats(FILLERS))
    module = p.done(p.op("decode", p.op("cdr", twice), levels=4), p.op("decode", twice, levels=4))
    kept, cut = run(lowered(module), p.args)
    whole, full = run(module, p.args)
    np.testing.assert_allclose(kept, whole)  # what hangs right below the root is all there
    np.testing.assert_allclose(cut[:3], full[:3])
    assert not cut[3:5].any() and full[3:5].any()  # what would hang two levels below it is not


def test_dense_takes_any_roles_with_their_duals() -> None:
    p = Program("dense", 3)
    roles = p.rng.normal(size=(7, 7)) + 3 * np.eye(7)
    p.args[0] = roles
    p.roles.append(p.array(np.linalg.inv(roles).T.copy()))
    x = p.tree(3, 2)
    made = p.op("cons", p.op("cdr", x), p.op("car", x), p.op("filler", x), depth=3)
    module = p.done(p.op("decode", made, levels=3), p.op("product", made, x))
    for a, b in zip(run(lowered(module), p.args), run(module, p.args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_nodes_of_every_form() -> None:
    for form in FORMS[:3]:
        p = Program(form, 5)
        x = p.tree(5)
        mixed = p.op("blend", p.floats(2), x, p.op("cdr", x))
        module = p.done(*p.b.op("tree.nodes", [mixed], count=12))
        for a, b in zip(run(lowered(module), p.args), run(module, p.args), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=form)


def test_only_places_that_can_be_occupied_are_held() -> None:
    """A tree made of leaves has as many rows as nodes, and the dump says so."""
    p = Program("positional", 12)
    nothing = p.op("nil", type=TreeType(F64, 0, FILLERS))
    leaf = p.op("cons", nothing, nothing, p.floats(FILLERS))
    tree = leaf
    for _ in range(8):
        tree = p.op("cons", leaf, tree, p.floats(FILLERS))
    out = lowered(p.done(p.op("filler", p.op("cdr", p.op("cdr", tree)))))
    assert "positional (17 of 511 places x 3)" in out.main.attrs[ATTRIBUTE]


def test_the_dump_names_the_choice_and_its_cost() -> None:
    p = Program("auto", 12)
    x = p.op("resize", p.tree(), depth=12)
    for op in p.block.ops:
        if op.name == "tree.encode":
            op.attrs["depth"] = 12
    p.block.ops[-1].attrs["depth"] = 12
    p = Program("auto", 12)
    x = p.tree(depth=12)
    made = p.op("cons", p.op("cdr", x), p.op("car", x), p.op("filler", x))
    text = lowered(p.done(p.op("decode", made, levels=3))).main.attrs[ATTRIBUTE]
    assert text.startswith("shared (") and "B written" in text
    assert "; positional would be " in text


def test_trees_too_deep_for_their_roles_are_told() -> None:
    p = Program("dense", 3)
    x = p.tree(3)
    module = p.done(p.op("decode", p.op("cons", x, x, p.floats(FILLERS)), levels=4))
    with pytest.raises(RolesMistake, match="its roles go 3 deep"):
        trees(module)


def test_ops_that_cannot_take_trees_are_told() -> None:
    p = Program("shared", 3)
    x = p.tree(3)
    block, b = function_block([x.type])
    block.results = [b.op("tree.car", block.params)[0]]
    p.module.add(Function("g", block))
    small = x.type.with_depth(2)
    (out,) = p.b.op("diff.jvp", [x], fn="g", wrt=(), types=(small,))
    module = p.done(p.op("filler", out))
    with pytest.raises(TreeMistake, match="a tree has no derivative"):
        trees(module)


def test_modules_without_trees_stay_as_they_are() -> None:
    block = Block([Value(TensorType(F64))])
    block.results = [Builder(block).sin(block.params[0])]
    module = Module({"f": Function("f", block)}, "f")
    assert trees(module) is module
