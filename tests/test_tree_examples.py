"""examples/dtm: programs written by hand, and machines that learn, stop, go on and are read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import wengert as wg

FOLDER = Path(__file__).parent.parent / "examples" / "dtm"
sys.path.insert(0, str(FOLDER))

import small  # noqa: E402
import train  # noqa: E402
from machine import Config, Machine, Program  # noqa: E402

TINY = {"steps": 2, "width": 8, "heads": 2, "hidden": 8, "levels": 2, "view": 2, "batch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few pairs of each split."""
    folder = tmp_path_factory.mktemp("data")
    for split in wg.trees.SPLITS:
        pairs = wg.trees.generate("active_logical", split, 40)
        wg.trees.write_pairs(folder / f"{split}.jsonl", pairs)
    return folder


def tiny(pairs: list[wg.trees.Pair], backend: str = "llvm", **changes: object) -> Machine:
    """A machine that learns a little fast."""
    trees = [t for p in pairs for t in (p.source, p.target)]
    v = wg.trees.Vocabulary.of(trees, spare=14)
    return Machine(
        Config(**{"fillers": v.size, "training_steps": 6, "warmup": 2, **TINY, **changes}),
        v,
        backend,
    )


def test_rules_translate_sentences() -> None:
    rules = wg.load(FOLDER / "rules.wg")
    forms = small.translated()
    assert forms[0].startswith("( LF ( V bumped ) ( ARGS ( NP ( DET some )")
    assert forms[1].startswith("( LF ( V chased ) ( ARGS ( NP ( DET our )")
    sentence = wg.trees.Tree.parse(small.SENTENCES[0])
    assert rules.translate(forms[0]) == sentence
    mirrored = rules.mirror("( a b ( c d e ) )")
    assert str(mirrored) == "( a ( c e d ) b )"


def test_training_stopped_and_resumed_is_training(data: Path, tmp_path: Path) -> None:
    """Stopping loses nothing: the weights are those of a run in one go."""
    pairs = wg.trees.read_pairs(data / "train.jsonl")
    whole = tiny(pairs, "interp")
    whole.train(pairs)
    first = tiny(pairs, "interp")
    first.train(pairs, tmp_path / "m", lambda r: r.steps >= 1)
    assert first.fit is not None and 1 <= first.fit.steps
    second = Machine.load(tmp_path / "m", "interp")
    assert second.fit is not None and second.fit.steps == first.fit.steps
    assert second.vocabulary == first.vocabulary
    second.train(pairs, tmp_path / "m")
    assert second.fit.steps == 6
    np.testing.assert_array_equal(second.weights["root"]["w"], whole.weights["root"]["w"])
    np.testing.assert_array_equal(second.fit.losses, whole.fit.losses)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["fit.npz", "model.json"]


def test_what_a_machine_does_can_be_read(data: Path) -> None:
    pairs = wg.trees.read_pairs(data / "validation.jsonl")
    machine = tiny(pairs, "interp", depth=9)
    found = machine.program(pairs[0].source)
    assert isinstance(found, Program) and found.trees[0] == pairs[0].source
    assert found.operations.shape == (2, 3) and [a.shape for a in found.arguments] == [
        (4, 1),
        (4, 2),
    ]
    text = found.text(all_steps=True)
    assert text.splitlines()[0] == f"t0 = {pairs[0].source}"
    assert "t1 = " in text and "t2 = " in text
    np.testing.assert_allclose(found.operations.sum(axis=1), 1.0, rtol=1e-5)
    score = machine.score(pairs)
    assert score.count == 40 and 0.0 <= score.trees <= score.tokens <= 1.0


def test_programs_count_equal_trees_together() -> None:
    a, b = wg.trees.Tree("a"), wg.trees.Tree("b")
    arguments = (np.eye(4)[:, :1] + 1.0, np.array([[0.5, 0.5]] * 4))
    done = Program([a, a, b], np.eye(3)[[0, 1]], arguments, ["a", "b"])
    assert done.line(1) == "t2 = cdr(t0)" and done.used() == [1]
    mixed = Program([a, b, b], np.eye(3)[[0, 2]], arguments, ["a", "b"])
    assert mixed.line(1) == "t2 = cons(t0[0.50], t0[0.50], b)"


def test_new_labels_take_free_numbers_until_there_are_none(data: Path) -> None:
    pairs = wg.trees.read_pairs(data / "train.jsonl")
    machine = tiny(pairs)
    before = machine.vocabulary.labels
    machine.know(["owl", "elk"])
    assert machine.vocabulary.labels == (*before, "elk", "owl")
    with pytest.raises(wg.trees.TreeError, match="more labels than fillers"):
        machine.know([f"word{i}" for i in range(20)])


def test_the_command_line_trains_scores_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["active_logical", "--out", str(out), "--data", str(data), "--every", "1"]
    command += ["--machine-steps", "1", "--width", "8", "--heads", "2", "--hidden", "8"]
    command += [
        "--levels",
        "2",
        "--view",
        "2",
        "--batch",
        "4",
        "--training-steps",
        "3",
        "--warmup",
        "1",
        "--spare",
        "60",
    ]
    assert train.main(command) == 0
    text = capsys.readouterr().out
    assert "3 steps" in text and all(split in text for split in wg.trees.SPLITS)
    assert "t0 = (" in text and "should be (" in text
    assert (out / "curve.csv").read_text().startswith("step,seconds,loss,trees,tokens\n3,")
    assert json.loads((out / "model.json").read_text())["config"]["steps"] == 1
    assert train.main([*command, "--show", "1"]) == 0
    assert "stopped by" not in capsys.readouterr().out
    assert train.main(["car_cdr_seq", *command[1:]]) == 2


@pytest.mark.slow
def test_a_small_machine_learns_to_exchange_subtrees() -> None:
    machine, score = small.learned()
    assert score.trees == 1.0
    lines = machine.program(small.SENTENCES[0]).text().splitlines()
    assert sum("cons" in line for line in lines) == 1
