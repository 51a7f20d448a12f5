"""Trees from Python: text, lists, vocabularies, files, tasks, scores and tree functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from wengert.runtime.trees.tasks import LONGER, UNSEEN

import wengert as wg

Tree, TreeError, Vocabulary = wg.trees.Tree, wg.trees.TreeError, wg.trees.Vocabulary
TEXT = (
    "( S ( NP ( DET the ) ( AP ( N cat ) ) ) ( VP ( V saw ) ( NP ( DET a ) ( AP ( N dog ) ) ) ) )"
)
DATA = Path(__file__).parents[3] / "shared" / "data" / "active_logical"


# Trees


def test_text_reads_and_prints() -> None:
    tree = Tree.parse(TEXT)
    assert str(tree) == TEXT and tree.size == 16 and tree.depth == 6
    assert Tree.parse("(S(NP it)falls)") == Tree.parse("( S ( NP it ) falls )")
    assert str(Tree.parse("it")) == "it"


def test_a_left_child_may_be_missing() -> None:
    tree = Tree.parse("( S () ( NP it ) )")
    assert tree.children[0] is None and tree.places() == {1: "S", 3: "NP", 6: "it"}
    assert Tree.parse(str(tree)) == tree
    assert Tree.parse("( S ( NP it ) () )") == Tree.parse("( S ( NP it ) )")


def test_places_and_back() -> None:
    tree = Tree.parse(TEXT)
    places = tree.places()
    assert places[1] == "S" and places[2] == "NP" and places[6] == "V" and places[12] == "saw"
    assert Tree.from_places(places) == tree
    assert Tree.from_places({2: "NP"}) is None
    assert Tree.from_places({1: "S", 9: "lost"}) == Tree("S")


def test_nested_lists_and_other_libraries_trees() -> None:
    class Other(list):
        def label(self) -> str:
            return "S"

    wanted = Tree.parse("( S ( NP it ) falls )")
    assert Tree.of(["S", ["NP", "it"], "falls"]) == wanted
    assert Tree.of(("S", ("NP", "it"), "falls")) == wanted
    assert Tree.of(Other([["NP", "it"], "falls"])) == wanted
    assert Tree.of(wanted) is wanted


def test_any_arity_through_siblings() -> None:
    tree = Tree.of(["S", "a", ["B", "c", "d", "e"], "f"])
    binary = tree.siblings()
    assert max(len(n.children) for n in binary.nodes()) == 2
    assert binary.arity() == tree
    with pytest.raises(TreeError, match="'S' has 3 children"):
        tree.places()
    with pytest.raises(TreeError, match="the root has a sibling"):
        Tree.of(["S", "a", "b"]).arity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no tree here"),
        ("( S a", "a bracket is never closed"),
        ("( S a ) )", "the tree ends before this"),
        (")", "this bracket closes nothing"),
        ("( ( S ) )", "a label is needed after a bracket"),
        ("()", "a tree has at least one node"),
        ("( S " * 500, "nests deeper"),
    ],
)
def test_malformed_text_is_told(text: str, message: str) -> None:
    with pytest.raises(TreeError, match=message):
        Tree.parse(text)


@pytest.mark.parametrize("value", [3, None, [], ["a b"], [["S"]], ["S", 3], {"S": 1}])
def test_other_values_are_told(value: object) -> None:
    with pytest.raises(TreeError):
        Tree.of(value)


# Vocabularies and arrays


def test_vocabularies() -> None:
    v = Vocabulary.of([TEXT], spare=2)
    assert v.labels == tuple(sorted(set(TEXT.split()) - {"(", ")"})) and v.size == len(v) + 2
    assert v.number("cat") == v.labels.index("cat") and "cat" in v and "cow" not in v
    with pytest.raises(TreeError, match="'cow' is not in the vocabulary"):
        v.number("cow")
    more = v.extended(["cow", "cat"])
    assert more.number("cow") == len(v) and more.labels[: len(v)] == v.labels
    more.check(v.labels)
    with pytest.raises(TreeError, match="more labels than fillers"):
        more.extended(["owl", "fox"])
    with pytest.raises(TreeError, match="vocabularies of data and model differ"):
        v.check(more.labels[1:])
    with pytest.raises(TreeError, match="lacks labels of the model"):
        v.check(more.labels)


def test_encoding() -> None:
    v = Vocabulary.of([TEXT])
    made = wg.trees.encode([TEXT, "( S cat )"], v, 6)
    assert made.labels.shape == (2, 16) and made.labels.dtype == np.int32
    assert list(made.places[1, :3]) == [1, 2, 0]
    assert made.labels[1, 1] == v.number("cat")
    assert wg.trees.encode([TEXT], v, 6, nodes=20).places.shape == (1, 20)
    with pytest.raises(TreeError, match="deeper than declared"):
        wg.trees.encode([TEXT], v, 5)
    with pytest.raises(TreeError, match="too many nodes"):
        wg.trees.encode([TEXT], v, 6, nodes=10)
    with pytest.raises(TreeError, match="has 3 children"):
        wg.trees.encode(["( S cat cat cat )"], v, 6)


# Files


def test_pairs_are_written_and_read(tmp_path: Path) -> None:
    pairs = wg.trees.generate("active_logical", "train", 20)
    wg.trees.write_pairs(tmp_path / "a.jsonl", pairs)
    read = wg.trees.read_pairs(tmp_path / "a.jsonl")
    assert [(p.source, p.target) for p in read] == [(p.source, p.target) for p in pairs]
    assert read[4].at is not None and read[4].at.line == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"source": "( S a", "target": "a"}', ":2:17: a bracket is never closed"),
        ('{"source": "a", "target": "( S ) )"}', ":2:34: the tree ends before this"),
        ('{"source": "a"}', ":2:1: an example has a source and a target"),
        ("( S a )", ":2:1: this line is not JSON"),
        ('{"source": "", "target": "a"}', "there is no tree here"),
    ],
)
def test_mistakes_name_the_line_of_the_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"source": "a", "target": "a"}\n' + line + "\n")
    with pytest.raises(TreeError) as caught:
        wg.trees.read_pairs(path)
    assert message in str(caught.value) and line in str(caught.value)


def test_trees_of_a_file_that_do_not_fit_name_its_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    rows = [{"source": "a", "target": "a"}, {"source": TEXT, "target": "a"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    pairs = wg.trees.read_pairs(path)
    v = Vocabulary.of([TEXT, "a"])
    with pytest.raises(TreeError, match=r"deep.jsonl:2:1: a tree is deeper than declared"):
        wg.trees.encode([p.source for p in pairs], v, 4, at=[p.at for p in pairs])


def test_missing_and_empty_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="cannot be read"):
        wg.trees.read_pairs(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TreeError, match="has no examples"):
        wg.trees.read_pairs(tmp_path / "empty.jsonl")


# Tasks


@pytest.mark.skipif(not DATA.exists(), reason="the published data is not here")
def test_generated_pairs_have_the_form_of_the_published_ones() -> None:
    published = wg.trees.read_pairs(DATA / "validation.jsonl")
    own = wg.trees.generate("active_logical", "train", 1000)
    words = [
        Vocabulary.of(t for p in ps for t in (p.source, p.target)).labels for ps in (published, own)
    ]
    assert words[0] == words[1]
    for found in (published, own):
        assert {p.source.size for p in found} == {19, 22}
        assert {p.source.label for p in found} == {"S", "LF"}


def test_splits_share_no_source_and_differ_where_they_should() -> None:
    splits = {s: wg.trees.generate("active_logical", s, 400) for s in wg.trees.SPLITS}
    sources = [str(p.source) for pairs in splits.values() for p in pairs]
    assert len(set(sources)) == len(sources)
    usual = {n.label for p in splits["train"] for n in p.source.nodes()}
    assert not usual & set(UNSEEN)
    assert all({n.label for n in p.source.nodes()} & set(UNSEEN) for p in splits["ood_lexical"])
    longest = max(_adjectives(p.source) for p in splits["train"])
    assert all(_adjectives(p.source) > longest for p in splits["ood_structural"])
    assert wg.trees.generate("active_logical", "test", 5) == wg.trees.generate(
        "active_logical", "test", 5
    )
    assert wg.trees.generate("active_logical", "test", 5) != wg.trees.generate(
        "active_logical", "test", 5, seed=1
    )


def _adjectives(tree: wg.trees.Tree) -> int:
    """How many adjectives the longest noun phrase has."""
    phrases = [n for n in tree.nodes() if n.label == "NP"]
    return max(sum(n.label == "ADJ" for n in p.nodes()) for p in phrases)


def active_to_logical(s: wg.trees.Tree) -> wg.trees.Tree:
    """By hand."""
    agent, (verb, patient) = s.children[0], s.children[1].children
    return Tree("LF", (verb, Tree("ARGS", (agent, patient))))


def passive_to_logical(s: wg.trees.Tree) -> wg.trees.Tree:
    """By hand."""
    patient, done = s.children[0], s.children[1].children[1]
    verb, by = done.children
    return Tree("LF", (verb, Tree("ARGS", (by.children[1], patient))))


def test_targets_are_right() -> None:
    for task in wg.trees.TASKS:
        for pair in wg.trees.generate(task, "train", 100):
            source, target = pair.source, pair.target
            if task == "car_cdr_seq":
                found = source.children[0]
                for letter in reversed(source.label[1:-1]):
                    found = found.children["AD".index(letter)]
                assert found == target
                continue
            if source.label == "LF":
                source, target = target, source
            passive = any(n.label == "AUXPS" for n in source.nodes())
            assert target == (passive_to_logical if passive else active_to_logical)(source)


@pytest.mark.parametrize("task", list(wg.trees.TASKS))
def test_all_trees_have_at_most_twelve_levels(task: str) -> None:
    for split in wg.trees.SPLITS:
        for pair in wg.trees.generate(task, split, 200):
            assert max(pair.source.depth, pair.target.depth) <= 12
    assert set(LONGER) <= set(wg.trees.TASKS)


def test_unknown_tasks_and_splits_are_told() -> None:
    with pytest.raises(TreeError, match="no task is called 'chess'"):
        wg.trees.generate("chess", "train")
    with pytest.raises(TreeError, match="no split is called 'dev'"):
        wg.trees.generate("car_cdr_seq", "dev")


# Scores


def test_scores_count_whole_trees_and_tokens() -> None:
    v = Vocabulary.of(["( a b ( c d ) )"])
    targets = wg.trees.encode(["( a b )", "( a b c )"], v, 3)
    answers = np.full((2, 7), -1, np.int32)
    answers[0, :2] = [v.number("a"), v.number("b")]
    answers[1, :3] = [v.number("a"), v.number("b"), v.number("d")]
    found = wg.trees.score(answers, targets)
    assert found.trees == 0.5 and found.tokens == 4 / 5 and found.count == 2
    answers[0, 6] = 1  # a node that should not be there
    assert wg.trees.score(answers, targets).trees == 0.0


def test_fillers_become_trees() -> None:
    v = Vocabulary.of(["( a b c )"], spare=1)
    fillers = np.zeros((1, 3, 4), np.float32)
    fillers[0, 0, 0], fillers[0, 1, 3], fillers[0, 2, 2] = 0.9, 0.8, 0.1
    assert wg.trees.label_trees(fillers, v) == [Tree.parse("( a ?3 )")]


# Tree functions

PROGRAM = """
import trees

tree fn to_logical(s):
    "An active sentence as a logical form."
    said = cdr(s)
    return cons(car(said), cons(car(s), cdr(said), "ARGS"), "LF")

tree fn to_active(l):
    arguments = cdr(l)
    return cons(car(arguments), cons(car(l), cdr(arguments), "VP"), "S")

tree fn translate(t): return to_logical(t) if trees.labelled(t, "S") else to_active(t)

tree fn mirror(t):
    if tree_depth(t) == 0:
        return nil
    return cons(mirror(cdr(t)), mirror(car(t)), filler(t))

tree fn with_size(t): return t, trees.norm2(t)

tree fn nothing(t): return car(car(car(car(t))))

fn weight(w: real[2], t: tree): return trees.norm2(blend(w, (t, car(t))))
"""


@pytest.mark.parametrize("form", ["auto", "positional", "sparse", "shared", "dense"])
def test_a_hand_written_program_translates_sentences(form: str) -> None:
    pairs = wg.trees.generate("active_logical", "train", 6)
    v = Vocabulary.of(t for p in pairs for t in (p.source, p.target))
    program = wg.compile(PROGRAM, trees=wg.trees.options(v, 8, form))
    for pair in pairs:
        assert program.translate(pair.source) == pair.target


def test_labels_and_depth_are_those_of_the_arguments_unless_given() -> None:
    program = wg.compile(PROGRAM)
    assert program.to_logical(TEXT) == active_to_logical(Tree.parse(TEXT))
    assert str(program.to_logical(["S", "it", ["VP", "ate", "me"]])) == "( LF ate ( ARGS it me ) )"
    assert program.nothing("( S a b )") is None
    tree, size = program.with_size(TEXT)
    assert tree == Tree.parse(TEXT) and size == 16.0


def test_recursion_is_bounded_by_depth() -> None:
    program = wg.compile(PROGRAM)
    assert str(program.mirror("( a ( b c d ) e )")) == "( a e ( b d c ) )"
    assert str(program.mirror(program.mirror("( a b ( c d e ) )"))) == "( a b ( c d e ) )"


def test_plain_functions_take_trees_and_have_gradients() -> None:
    v = Vocabulary.of([TEXT])
    program = wg.compile(PROGRAM, trees=wg.trees.options(v, 6))
    value, slope = program.weight.value_and_grad(np.array([1.0, 0.5], np.float32), TEXT)
    np.testing.assert_allclose(value, np.dot(slope, [1.0, 0.5]) / 2, rtol=1e-6)
    with pytest.raises(wg.WengertError, match="labels and depth of trees are not known"):
        wg.compile(PROGRAM).weight(np.ones(2, np.float32), TEXT)


def test_arguments_that_do_not_fit_are_told() -> None:
    v = Vocabulary.of([TEXT])
    program = wg.compile(PROGRAM, trees=wg.trees.options(v, 4))
    with pytest.raises(TreeError, match="deeper than declared"):
        program.mirror(TEXT)
    with pytest.raises(TreeError, match="'cow' is not in the vocabulary"):
        program.mirror("( S cow )")
    with pytest.raises(wg.WengertError, match="no label is called 'ARGS'"):
        program.to_logical("( S cat )")


def test_trees_beyond_the_capacity_are_told(tmp_path: Path) -> None:
    v = Vocabulary.of([TEXT])
    program = wg.compile(PROGRAM, trees=wg.trees.options(v, 6, "sparse", capacity=10))
    with pytest.raises(TreeError, match="more nodes than the capacity of the sparse form"):
        program.mirror(TEXT)
    (tmp_path / "a.jsonl").write_text(json.dumps({"source": TEXT, "target": "a"}))
    (pair,) = wg.trees.read_pairs(tmp_path / "a.jsonl")
    with pytest.raises(TreeError, match=r"a.jsonl:1:1: a tree has more nodes"):
        wg.trees.check_capacity([pair.source], "sparse", 10, [pair.at])


@pytest.mark.parametrize("backend", ["interp", "xla"])
def test_other_backends_agree(backend: str) -> None:
    program = wg.compile(PROGRAM, backend=backend)
    assert program.to_logical(TEXT) == active_to_logical(Tree.parse(TEXT))
