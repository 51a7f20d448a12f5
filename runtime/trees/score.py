"""Trees out of arrays, and how well they match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..values import Array
from .data import Encoded
from .tree import Tree
from .vocabulary import Vocabulary

THERE = 0.25  # squared norm from which a place has a node: half of a filler


@dataclass(frozen=True)
class Score:
    """Accuracies over some trees.

    trees: the share that is right in every node. tokens: the share of places, of those occupied in
    the target or in the answer, that have the right label.
    """

    trees: float
    tokens: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.trees:.2f}% of {self.count} trees, {100 * self.tokens:.2f}% of tokens"


def labels_of(fillers: Array) -> Array:
    """The number of the label at each place, -1 for no node, of fillers `[..., places, f]`."""
    there = np.sum(np.square(fillers), axis=-1) > THERE
    return np.where(there, np.argmax(fillers, axis=-1), -1).astype(np.int32)


def label_trees(fillers: Array, vocabulary: Vocabulary) -> list[Tree | None]:
    """The trees that fillers `[trees, places, f]` stand for, place p in row p - 1."""
    return [tree_of(row, vocabulary) for row in labels_of(fillers)]


def tree_of(numbers: Array, vocabulary: Vocabulary) -> Tree | None:
    """The tree of the numbers of labels by place, -1 for none; unknown ones as `?3`."""
    (rows,) = np.nonzero(numbers >= 0)
    known = vocabulary.labels
    named = {int(r) + 1: int(numbers[r]) for r in rows}
    return Tree.from_places({p: known[n] if n < len(known) else f"?{n}" for p, n in named.items()})


def score(answers: Array, targets: Encoded) -> Score:
    """How well numbers of labels by place `[trees, places]`, -1 for none, match targets."""
    wanted = np.full((len(targets), max(answers.shape[1], int(targets.places.max()))), -1, np.int32)
    for row, labels, places in zip(wanted, targets.labels, targets.places):
        row[places[places > 0] - 1] = labels[places > 0]
    found = np.full_like(wanted, -1)
    found[:, : answers.shape[1]] = answers
    counted = (wanted >= 0) | (found >= 0)
    right = (wanted == found) & counted
    whole = np.all(wanted == found, axis=1)
    return Score(float(np.mean(whole)), float(right.sum() / max(1, counted.sum())), len(wanted))
