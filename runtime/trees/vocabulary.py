"""Labels by number."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import TreeError
from .tree import Tree


@dataclass(frozen=True)
class Vocabulary:
    """Labels in order, each with a number, and room for more.

    size: how many numbers a filler has; labels met later take the free ones.
    """

    labels: tuple[str, ...]
    size: int

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise TreeError("a label is twice in the vocabulary")
        if self.size < max(1, len(self.labels)):
            raise TreeError(
                "the vocabulary has more labels than fillers have numbers",
                expected=f"at most {self.size}",
                found=str(len(self.labels)),
            )

    @classmethod
    def of(cls, trees: Iterable[Any], size: int | None = None, spare: int = 0) -> Vocabulary:
        """The labels of trees (text, lists, Trees) in alphabetical order.

        size: of the fillers; by default the number of labels and `spare` more.
        """
        found = sorted({node.label for t in trees for node in Tree.of(t).nodes()})
        return cls(tuple(found), len(found) + spare if size is None else size)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self._numbers

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def number(self, label: str) -> int:
        """The number of a label; TreeError for an unknown one."""
        found = self._numbers.get(label)
        if found is None:
            raise TreeError(
                f"the label '{label}' is not in the vocabulary",
                expected=f"one of {len(self.labels)} labels, such as {self._some()}",
                hint="a model of larger fillers can take it: vocabulary.extended(labels)",
            )
        return found

    def _some(self) -> str:
        return ", ".join(self.labels[:5]) or "none"

    def extended(self, labels: Iterable[str]) -> Vocabulary:
        """The vocabulary with new labels at its free numbers, in alphabetical order."""
        new = sorted(set(labels) - set(self.labels))
        return Vocabulary((*self.labels, *new), self.size)

    def check(self, labels: Sequence[str]) -> None:
        """Raise TreeError unless this begins as `labels`, those of a model, do."""
        mine = self.labels[: len(labels)]
        for i, (a, b) in enumerate(zip(mine, labels)):
            if a != b:
                raise TreeError(
                    "the vocabularies of data and model differ",
                    expected=f"label {i} is '{b}'",
                    found=f"'{a}'",
                    hint="encode data with the vocabulary that was saved with the model",
                )
        if len(mine) < len(labels):
            raise TreeError(
                "the vocabulary of the data lacks labels of the model", found=f"{len(mine)} labels"
            )
