"""Trees in the language: what can be written, what types come of it, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from wengert.frontend.type_errors import (
    BranchMistake,
    CallMistake,
    DerivativeMistake,
    LoopMistake,
    SizeMistake,
    TreeLabelMistake,
    TypeMistake,
)

import wengert as wg

X = np.eye(4, dtype=np.float32)[[0, 1, 2]]
PLACES = np.array([1, 2, 3], np.int32)
TREE = "t = encode_tree(x, places, 4)"


def lowered(body: str, *extra: object) -> str:
    """The IR of a function of x and places whose body begins with a tree t."""
    head = "fn f(x: real[n, m], places: i32[n]"
    head += "".join(f", a{i}" for i in range(len(extra)))
    lines = [TREE, *body.strip().splitlines()]
    text = f"{head}):\n" + "".join(f"    {line}\n" for line in lines)
    return wg.compile(text).f.ir(X, PLACES, *extra, after="lower")


def test_types_follow_the_operations() -> None:
    text = lowered("return tree_depth(car(cdr(t))), tree_depth(cons(t, car(t), filler(t)))")
    assert "tree.car" in text
    program = wg.compile(
        f"fn f(x: real[n, m], places: i32[n]):\n    {TREE}\n"
        "    deep = cons(t, car(t), filler(t))\n"
        "    return [real(tree_depth(v)) for v in (car(cdr(t)), deep, crop(deep, 3), nil)]\n"
    )
    np.testing.assert_array_equal(program.f(X, PLACES), [2, 5, 3, 0])


def test_a_declared_tree_binds_its_sizes() -> None:
    program = wg.compile(
        "fn g(t: tree[d, k]): return zeros(d, k)\n"
        f"fn f(x: real[n, m], places: i32[n]):\n    {TREE}\n    return g(cdr(t))\n"
        f"fn wrong(x: real[n, m], places: i32[n]):\n    {TREE}\n    return h(t)\n"
        "fn h(t: tree[3, k]): return zeros(k)\n"
        f"fn worse(x: real[n, m], places: i32[n]):\n    {TREE}\n    return s(t)\n"
        "fn s(t: tree[4]): return zeros(1)\n"
    )
    assert program.f(X, PLACES).shape == (3, 4)
    with pytest.raises(SizeMistake, match="another size than declared"):
        program.wrong(X, PLACES)
    with pytest.raises(SizeMistake, match="a depth and a number of fillers"):
        program.worse(X, PLACES)


def test_a_carried_tree_keeps_its_levels() -> None:
    text = lowered("for i in 0..3:\n        t = car(t)\nreturn filler(t)")
    assert "tree.resize" in text and re.search(r"yield %\w+", text)
    with pytest.raises(LoopMistake, match="'t' changes its type in the loop"):
        lowered("for i in 0..3:\n        t = cons(t, t, filler(t))\nreturn filler(t)")
    lowered("for i in 0..3:\n        t = cons(t, t, filler(t), depth=4)\nreturn filler(t)")


def test_branches_join_trees_of_different_levels() -> None:
    text = lowered("y = car(t) if a0 else t\nreturn filler(y)", True)
    assert "tree.resize" in text
    with pytest.raises(BranchMistake, match="another type in each branch"):
        lowered("y = t if a0 else x\nreturn filler(y)", True)


def test_nothing_is_a_subtree() -> None:
    text = lowered("return tree_product(cons(nil, nil, filler(t)), t)")
    assert text.count("tree.nil") == 2


def test_fillers_of_new_roots() -> None:
    lowered("return filler(cons(t, nil, x[0]))")
    lowered("return filler(cons(t, nil, 2))")
    lowered("return filler(cons(t, nil, a0))", np.int32(2))
    with pytest.raises(TypeMistake, match="this is no filler"):
        lowered("return filler(cons(t, nil, x))")
    with pytest.raises(TypeMistake, match="the filler of the root is"):
        lowered("return filler(cons(t, t, zeros(3)))")
    with pytest.raises(TypeMistake, match="labels and depth of trees are not known"):
        lowered('return filler(cons(t, nil, "S"))')


def test_labels_are_those_of_the_vocabulary() -> None:
    v = wg.trees.Vocabulary(("S", "NP", "VP"), 4)
    program = wg.compile(
        'fn number(): return real(label("VP"))\nfn f(): return real(label("SP"))\n'
        'tree fn g(t): return cons(t, t, "NPP")\n',
        trees=wg.trees.options(v, 3),
    )
    assert program.number() == 2.0
    with pytest.raises(TreeLabelMistake, match="no label is called 'SP'") as caught:
        program.f()
    assert "did you mean" in str(caught.value)
    with pytest.raises(TreeLabelMistake, match="no label is called 'NPP'"):
        program.g("( S NP )")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("return car(x)", TypeMistake, "a tree is needed here"),
        ("return sin(t)", TypeMistake, "a tree"),
        ("return t + t", TypeMistake, "a tree of at most 4 levels"),
        ("return blend([1.0, 2.0], (t,))", TypeMistake, "needs a weight for each tree"),
        ("return blend([1.0], t)", TypeMistake, "a tuple of trees is needed"),
        ("return filler([car(t) for i in 0..3])", TypeMistake, "an array is needed, not tree"),
        ("return decode_tree(t, 99)", SizeMistake, "at most 24"),
        ("return crop(t, -1)", SizeMistake, "at most 24"),
        ('return filler(encode_tree(x, places, 3, form="paper"))', CallMistake, "no such form"),
        ("return filler(encode_tree(x, x, 3))", TypeMistake, "a place for each row"),
        ("return filler(encode_tree(x, places, 0))", TypeMistake, "depth is 1 to"),
        ("return grad(lambda s: filler(s)[0], t)", DerivativeMistake, "a tree has no derivative"),
    ],
)
def test_misuses_are_told(body: str, error: type, message: str) -> None:
    with pytest.raises(wg.WengertError, match=message) as caught:
        lowered(body)
    assert isinstance(caught.value, error), caught.value


def test_dumps_show_trees_then_arrays_and_the_choice() -> None:
    program = wg.compile(
        f"fn f(x: real[n, m], places: i32[n]):\n    {TREE}\n    return filler(cdr(t))\n"
    )
    before, after = (program.f.ir(X, PLACES, after=s) for s in ("lower", "trees"))
    assert "tree.encode" in before and ": tree.f32[3,4]" in before
    assert "tree." not in after and "trees = " in after
    assert "positional" in after and "shared" in after
