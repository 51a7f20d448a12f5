"""Trees in a minute: a program on trees, and a small machine that learns to exchange subtrees."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import wengert as wg

sys.path.insert(0, str(Path(__file__).parent))
from machine import Config, Machine, Pair

SENTENCES = (
    "( S ( NP ( DET some ) ( AP ( N cactus ) ) ) ( VP ( V bumped ) ( NP ( DET one ) "
    "( AP ( ADJ hungry ) ( AP ( N elephant ) ) ) ) ) )",
    "( S ( NP ( DET the ) ( AP ( N dog ) ) ) ( VP ( AUXPS was ) ( VPPS ( V chased ) "
    "( PPPS ( PPS by ) ( NP ( DET our ) ( AP ( ADJ orange ) ( AP ( N giraffe ) ) ) ) ) ) ) )",
)


def translated() -> list[str]:
    """Sentences as logical forms by a program written by hand."""
    rules = wg.load(Path(__file__).with_name("rules.wg"))
    return [str(rules.translate(s)) for s in SENTENCES]


def swapped(pair: Pair) -> Pair:
    """The source of a pair, and it with its two subtrees exchanged."""
    source = pair.source
    return Pair(source, wg.trees.Tree(source.label, tuple(reversed(source.children))))


def learned(steps: int = 600) -> tuple[Machine, wg.trees.Score]:
    """A machine of 4 steps that has learned to exchange subtrees; its score on held-out trees."""
    train, held_out = (
        [swapped(p) for p in wg.trees.generate("active_logical", split, count)]
        for split, count in (("train", 1000), ("test", 200))
    )
    vocabulary = wg.trees.Vocabulary.of([p.source for p in train], spare=2)
    config = Config(
        task="swap",
        steps=4,
        fillers=vocabulary.size,
        width=32,
        hidden=64,
        levels=3,
        view=3,
        training_steps=steps,
        warmup=100,
        learning_rate=3e-3,
    )
    machine = Machine(config, vocabulary)
    machine.train(train)
    return machine, machine.score(held_out)


def main() -> bool:
    """Show both; whether every held-out tree is right."""
    for text, form in zip(SENTENCES, translated()):
        print(f"  {text}\n    -> {form}")
    started = time.perf_counter()
    machine, score = learned()
    seconds = time.perf_counter() - started
    print(f"trees: a machine learned to exchange subtrees in {seconds:.1f} s: {score}; it runs")
    print("  " + machine.program(SENTENCES[0]).text().replace("\n", "\n  "))
    return score.trees == 1.0


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
