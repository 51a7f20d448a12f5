"""The tree machine of stdlib/trees.wg: its interpreter, reader, choices and decisions."""

from __future__ import annotations

import numpy as np
import pytest

import wengert as wg

Tree = wg.trees.Tree
F, DEPTH = 8, 6
LABELS = tuple("abcdefgh")
VOCABULARY = wg.trees.Vocabulary(LABELS, F)
SOURCES = ["( a ( b c d ) ( e f ) )", "( b ( a ( c g ) ) e )"]
TARGETS = ["( a ( e f ) b )", "( h e ( a c ) )"]

PROGRAM = """
import trees

fn tree_of(labels: i32[p], places: i32[p], form: static str):
    return encode_tree(one_hot(labels, 8), places, 6, form)

fn interpret(labels: i32[p], places: i32[p], operation: real[3], arguments: real[4, 2], root: real[8]):
    t = tree_of(labels, places, "shared")
    todo = {operation, arguments: (arguments[0], arguments[1], arguments[2], arguments[3]), root}
    return decode_tree(trees.interpret(todo, (t, cdr(t)), 6))

fn init(key: key, steps: static int): return trees.machine_init(key, steps, 8, 6, 8, 2, 12)

fn loss(machine, labels: i32[n, p], places: i32[n, p], targets: i32[n, q], at: i32[n, q], key: key, form: static str, how: static str = "softmax", nodes: static int = 0, rate: static float = 0.0):
    fn one(i):
        source, target = tree_of(labels[i], places[i], form), tree_of(targets[i], at[i], form)
        made = trees.answer(machine, source, fold_in(key, i), how, 1.0, rate, 4, nodes)
        return trees.distance2(made, target)
    return mean([one(i) for i in 0..n])

fn codes(way: real[d, 2, e], levels: static int): return trees.place_codes(way, levels)

fn seen(machine, labels: i32[p], places: i32[p], form: static str):
    t = tree_of(labels, places, form)
    return trees.read_top(machine.reader, t, 4), trees.read_nodes(machine.reader, t, 6)

fn chosen(key: key, logits: real[n], how: static str, temperature: static float):
    return trees.choose(key, logits, how, temperature)

fn decisions(machine, labels: i32[p], places: i32[p]):
    memory, todo = trees.run(machine, tree_of(labels, places, "shared"), key(0), "hard")
    return [t.operation for t in todo], todo[1].arguments, [decode_tree(t, 3) for t in memory]
"""


@pytest.fixture(scope="module")
def program() -> wg.Program:
    return wg.compile(PROGRAM, backend="interp")


def arrays(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    made = wg.trees.encode(texts, VOCABULARY, DEPTH, 8)
    return made.labels, made.places


def test_one_hot_decisions_are_the_symbolic_operations(program: wg.Program) -> None:
    labels, places = (a[0] for a in arrays(SOURCES[:1]))
    t0 = Tree.parse(SOURCES[0])
    t1 = t0.children[1]
    second = np.array([[0, 1]] * 4, np.float32)
    mixed = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    root = np.eye(F, dtype=np.float32)[7]
    cases = [
        (0, mixed, t0.children[0]),
        (0, second, t1.children[0]),
        (1, mixed, None),
        (1, 1 - second, t1),
        (2, mixed, Tree("h", (t1, t0))),
        (2, second, Tree("h", (t1, t1))),
    ]
    for operation, arguments, wanted in cases:
        weights = np.eye(3, dtype=np.float32)[operation]
        out = program.interpret(labels, places, weights, arguments, root)
        assert wg.trees.label_trees(out[None], VOCABULARY) == [wanted]


def test_blended_decisions_are_sums(program: wg.Program) -> None:
    """A decision is linear in the operations, and each operation in its arguments."""
    labels, places = (a[0] for a in arrays(SOURCES[:1]))
    rng = np.random.default_rng(0)
    arguments, root = rng.uniform(size=(4, 2)), rng.normal(size=F)

    def run(weights: np.ndarray, given: np.ndarray) -> np.ndarray:
        args = (a.astype(np.float32) for a in (weights, given, root))
        return np.asarray(program.interpret(labels, places, *args))

    weights = np.array([0.2, 0.3, 0.5])
    parts = sum(w * run(np.eye(3)[i], arguments) for i, w in enumerate(weights))
    np.testing.assert_allclose(run(weights, arguments), parts, atol=1e-6)
    ends = [run(np.eye(3)[1], np.eye(2)[[k] * 4]) for k in (0, 1)]
    wanted = arguments[1, 0] * ends[0] + arguments[1, 1] * ends[1]
    np.testing.assert_allclose(run(np.eye(3)[1], arguments), wanted, atol=1e-6)


def test_forms_give_one_loss_and_gradient() -> None:
    """The machine is the same whatever its trees are held in."""
    program = wg.compile(PROGRAM, real="f64", backend="interp")
    machine = program.init(wg.key(1), 2)
    data = (*arrays(SOURCES), *arrays(TARGETS))
    found = {
        form: program.loss.value_and_grad(machine, *data, wg.key(0), form, wrt="machine")
        for form in ("positional", "shared", "sparse", "dense")
    }
    value, slope = found.pop("positional")
    for form, (other, grad) in found.items():
        np.testing.assert_allclose(other, value, rtol=1e-9, err_msg=form)
        for x, y in zip(leaves(grad), leaves(slope), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9, err_msg=form)


def leaves(value: object) -> list[np.ndarray]:
    """The arrays of nested parameters."""
    if isinstance(value, dict):
        return [a for v in value.values() for a in leaves(v)]
    if isinstance(value, tuple):
        return [a for v in value for a in leaves(v)]
    return [np.asarray(value)]


def test_codes_are_sums_along_the_way(program: wg.Program) -> None:
    way = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    codes = program.codes(way, 4)
    assert codes.shape == (16, 3) and not codes[0].any()
    np.testing.assert_allclose(codes[1], way[0, 0])
    np.testing.assert_allclose(codes[13], way[0, 0] + way[1, 1] + way[2, 0] + way[3, 1], rtol=1e-6)


def test_what_is_seen_does_not_depend_on_the_form(program: wg.Program) -> None:
    machine = program.init(wg.key(1), 1)
    labels, places = (a[0] for a in arrays(SOURCES[:1]))
    wanted = program.seen(machine, labels, places, "positional")
    for form in ("sparse", "shared", "dense"):
        for x, y in zip(program.seen(machine, labels, places, form), wanted):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_choices(program: wg.Program) -> None:
    logits = np.array([0.5, 2.0, -1.0], np.float32)
    soft = program.chosen(wg.key(0), logits, "softmax", 2.0)
    np.testing.assert_allclose(soft, np.exp(logits / 2) / np.exp(logits / 2).sum(), rtol=1e-5)
    np.testing.assert_array_equal(program.chosen(wg.key(0), logits, "hard", 1.0), [0, 1, 0])
    drawn = [program.chosen(wg.key(k), logits, "gumbel", 0.01) for k in range(300)]
    share = np.mean([d.argmax() == 1 for d in drawn])
    assert abs(share - np.exp(2.0) / np.exp(logits).sum()) < 0.08
    with pytest.raises(wg.WengertError, match="choices are softmax, gumbel or hard"):
        program.chosen(wg.key(0), logits, "best", 1.0)


def test_hard_decisions_make_whole_trees(program: wg.Program) -> None:
    machine = program.init(wg.key(2), 3)
    labels, places = (a[0] for a in arrays(SOURCES[:1]))
    operations, arguments, memory = program.decisions(machine, labels, places)
    assert operations.shape == (3, 3) and memory.shape == (4, 7, F)
    np.testing.assert_array_equal(np.sort(operations)[:, -1], 1.0)
    for row in np.asarray(arguments):
        assert sorted(row) == [0.0, 1.0]


@pytest.mark.parametrize("options", [{"how": "gumbel"}, {"rate": 0.2}, {"nodes": 5}])
def test_noise_and_reading_by_nodes_have_gradients(options: dict) -> None:
    """Against a difference along a random direction, at fixed noise."""
    program = wg.compile(PROGRAM, real="f64", backend="interp")
    machine = program.init(wg.key(3), 1)
    data = (*arrays(SOURCES), *arrays(TARGETS))

    def value(weights: object) -> float:
        return float(program.loss(weights, *data, wg.key(5), "shared", **options))

    _, slope = program.loss.value_and_grad(
        machine, *data, wg.key(5), "shared", **options, wrt="machine"
    )
    rng = np.random.default_rng(0)
    step = [1e-6 * rng.normal(size=a.shape) for a in leaves(machine)]
    moved = [shifted(machine, [s * d for d in step]) for s in (1.0, -1.0)]
    wanted = (value(moved[0]) - value(moved[1])) / 2
    found = sum(float(np.sum(g * d)) for g, d in zip(leaves(slope), step))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def shifted(value: object, steps: list[np.ndarray]) -> object:
    """Nested parameters, each moved by its step."""
    rest = iter(steps)

    def move(v: object) -> object:
        if isinstance(v, dict):
            return {k: move(x) for k, x in v.items()}
        if isinstance(v, tuple):
            return tuple(move(x) for x in v)
        return np.asarray(v) + next(rest)

    return move(value)
