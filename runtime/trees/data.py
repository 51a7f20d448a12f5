"""Files of examples, and trees as arrays of labels and places."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.span import Span, register_source
from ..values import Array
from .errors import TreeError
from .tree import Tree
from .vocabulary import Vocabulary

FIELDS = ("source", "target")


@dataclass(frozen=True)
class Pair:
    """A tree and what it becomes. at: where the pair was read."""

    source: Tree
    target: Tree
    at: Span | None = None


@dataclass(frozen=True)
class Encoded:
    """Binary trees as arrays.

    labels, places: `i32[trees, nodes]`: numbers of labels, and places in a tree; place 0 fills up.
    """

    labels: Array
    places: Array

    def __len__(self) -> int:
        return len(self.labels)


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of a file: a JSON object a line, with `source` and `target` as bracketed text.

    Raises TreeError with the line and column of what is wrong.
    """
    file = os.fspath(path)
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise TreeError(f"{file} cannot be read: {error.strerror}") from None
    register_source(file, text)
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise TreeError(f"{file} has no examples")
    return [_pair(file, n, line) for n, line in lines]


def _pair(file: str, number: int, line: str) -> Pair:
    where = Span(file, number, 1, number, len(line) + 1)
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        at = Span(file, number, error.colno, number, error.colno + 1)
        raise TreeError(f"this line is not JSON: {error.msg}", at) from None
    if not isinstance(row, dict) or not all(isinstance(row.get(f), str) for f in FIELDS):
        raise TreeError(
            "an example has a source and a target", where, expected='{"source": "( ... )", ...}'
        )
    source, target = (Tree.parse(row[f], _inside(where, line, row[f])) for f in FIELDS)
    return Pair(source, target, where)


def _inside(where: Span, line: str, text: str) -> Span:
    """Where a string stands in a line of JSON; the whole line if it is written with escapes."""
    at = line.find(json.dumps(text, ensure_ascii=False))
    if at < 0:
        return where
    return Span(where.file, where.line, at + 2, where.line, at + 2 + len(text))


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[Pair]) -> None:
    """Write pairs as `read_pairs` reads them."""
    rows = ({"source": str(p.source), "target": str(p.target)} for p in pairs)
    Path(path).write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


def encode(
    trees: Sequence[Any],
    vocabulary: Vocabulary,
    depth: int,
    nodes: int | None = None,
    at: Sequence[Span | None] = (),
) -> Encoded:
    """Trees as arrays, each binary and of at most `depth` levels and `nodes` nodes.

    nodes: by default those of the largest tree. at: where each was read, for messages. Raises
    TreeError.
    """
    rows = []
    for i, value in enumerate(trees):
        where = at[i] if i < len(at) else None
        try:
            rows.append(list(_numbered(Tree.of(value), vocabulary, depth)))
            if nodes is not None and len(rows[-1]) > nodes:
                raise TreeError(
                    "a tree has too many nodes",
                    expected=f"at most {nodes}",
                    found=str(len(rows[-1])),
                    hint="give encode more nodes=",
                )
        except TreeError as error:
            if error.span is not None or where is None:
                raise
            raise TreeError(
                error.summary, where, expected=error.expected, found=error.found, hint=error.hint
            ) from None
    width = max([len(r) for r in rows] + [1]) if nodes is None else nodes
    out = np.zeros((2, len(rows), width), np.int32)
    for i, row in enumerate(rows):
        out[:, i, : len(row)] = np.array(row, np.int32).reshape(-1, 2).T
    return Encoded(out[0], out[1])


def check_capacity(
    trees: Iterable[Tree], form: str, capacity: int, at: Sequence[Span | None] = ()
) -> None:
    """Raise TreeError for a tree of more nodes than the sparse form has room for."""
    if form != "sparse" or not capacity:
        return
    for i, tree in enumerate(trees):
        if tree.size > capacity:
            raise TreeError(
                "a tree has more nodes than the capacity of the sparse form",
                at[i] if i < len(at) else None,
                expected=f"at most {capacity}",
                found=str(tree.size),
                hint="give it a larger capacity, or another form",
            )


def _numbered(tree: Tree, vocabulary: Vocabulary, depth: int) -> Iterator[tuple[int, int]]:
    """(number of its label, place) of every node."""
    if tree.depth > depth:
        raise TreeError(
            "a tree is deeper than declared",
            expected=f"at most {depth} levels",
            found=str(tree.depth),
            hint="declare a larger depth",
        )
    for place, label in tree.places().items():
        yield vocabulary.number(label), place
