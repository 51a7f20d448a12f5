"""Trees of labels, from bracketed text, nested lists and other libraries' trees, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.span import Span
from .errors import TreeError

DEEPEST = 400  # nesting that is read; machines take far less


@dataclass(frozen=True)
class Tree:
    """A labelled node and its children, in order; None is a missing one before another.

    A tree of at most two children a node is binary: the first child is left, the second right.
    """

    label: str
    children: tuple[Tree | None, ...] = ()

    def __post_init__(self) -> None:
        kept = self.children
        while kept and kept[-1] is None:
            kept = kept[:-1]
        object.__setattr__(self, "children", tuple(kept))

    @classmethod
    def of(cls, value: Any) -> Tree:
        """A tree of bracketed text, of nested lists `["S", ["NP", "it"], "falls"]` (labels first),
        of an object with `label()` and children to iterate over, as NLTK's, or of a Tree.
        """
        return _convert(value, 0)

    @classmethod
    def parse(cls, text: str, at: Span | None = None) -> Tree:
        """The tree of bracketed text, `( S ( NP it ) falls )`; `()` is a missing child.

        at: where the text stands, for messages. Raises TreeError.
        """
        return _Parser(text, at).whole()

    def __str__(self) -> str:
        if not self.children:
            return self.label
        return f"( {self.label} {' '.join('()' if c is None else str(c) for c in self.children)} )"

    @property
    def size(self) -> int:
        """The number of nodes."""
        return 1 + sum(c.size for c in self.children if c is not None)

    @property
    def depth(self) -> int:
        """The number of levels."""
        return 1 + max((c.depth for c in self.children if c is not None), default=0)

    def nodes(self) -> Iterator[Tree]:
        """Every node, a node before its children."""
        yield self
        for child in self.children:
            if child is not None:
                yield from child.nodes()

    # Binary trees

    def places(self) -> dict[int, str]:
        """Labels of a binary tree by place: 1 is the root, 2 p and 2 p + 1 are below p."""
        found: dict[int, str] = {}
        self._place(1, found)
        return found

    def _place(self, place: int, found: dict[int, str]) -> None:
        if len(self.children) > 2:
            raise TreeError(
                f"'{self.label}' has {len(self.children)} children, and a binary tree has two",
                found=str(self)[:80],
                hint="read it as left children and right siblings: tree.siblings()",
            )
        found[place] = self.label
        for bit, child in enumerate(self.children):
            if child is not None:
                child._place(2 * place + bit, found)

    @classmethod
    def from_places(cls, labels: Mapping[int, str]) -> Tree | None:
        """The binary tree of labels by place, None for none; what hangs on nothing is left out."""
        return _from_places(labels, 1)

    def siblings(self) -> Tree:
        """A tree of any arity as a binary one: left is the first child, right the next sibling."""
        return _siblings((self,))

    def arity(self) -> Tree:
        """What `siblings` was made of."""
        if len(self.children) > 1:
            raise TreeError("the root has a sibling, so this is no tree but several")
        return Tree(self.label, tuple(_family(self.children[0] if self.children else None)))


def _siblings(family: tuple[Tree | None, ...]) -> Tree:
    first, *rest = [c for c in family if c is not None]
    left = _siblings(first.children) if first.children else None
    right = _siblings(tuple(rest)) if rest else None
    return Tree(first.label, (left, right))


def _family(tree: Tree | None) -> Iterator[Tree]:
    while tree is not None:
        left, right = (*tree.children, None, None)[:2]
        yield Tree(tree.label, tuple(_family(left)))
        tree = right


def _from_places(labels: Mapping[int, str], place: int) -> Tree | None:
    if place not in labels:
        return None
    left, right = (_from_places(labels, 2 * place + bit) for bit in (0, 1))
    return Tree(labels[place], (left, right))


def _convert(value: Any, depth: int) -> Tree:
    if depth > DEEPEST:
        raise TreeError(f"the tree nests deeper than {DEEPEST} levels")
    if isinstance(value, Tree):
        return value
    if isinstance(value, str):
        return Tree.parse(value)
    if callable(getattr(value, "label", None)):
        inside = [_child(c, depth) for c in value]
        return Tree(_label(value.label()), tuple(inside))
    if isinstance(value, list | tuple):
        if not value:
            raise TreeError("an empty list is no tree", hint="a node is [label, child, ...]")
        return Tree(_label(value[0]), tuple(_child(c, depth) for c in value[1:]))
    raise TreeError("this is no tree", expected="text, nested lists or a Tree", found=repr(value))


def _child(value: Any, depth: int) -> Tree | None:
    if value is None:
        return None
    return Tree(_label(value)) if isinstance(value, str) else _convert(value, depth + 1)


def _label(value: Any) -> str:
    if not isinstance(value, str) or not value or any(c.isspace() or c in "()" for c in value):
        raise TreeError(
            "this is no label", expected="a word without brackets or spaces", found=repr(value)
        )
    return value


class _Parser:
    """Reads one tree of words and brackets."""

    def __init__(self, text: str, at: Span | None) -> None:
        self.text = text
        self.start = at
        self.words = list(_words(text))
        self.next = 0

    def fail(self, summary: str, place: int, size: int = 1, expected: str = "") -> TreeError:
        """The error at an offset of the text."""
        if self.start is None:
            found = f"{self.text[:60]!r} at {place + 1}"
            return TreeError(summary, expected=expected, found=found)
        at = self.start
        span = Span(at.file, at.line, at.col + place, at.line, at.col + place + size)
        return TreeError(summary, span, expected=expected)

    def whole(self) -> Tree:
        if not self.words:
            raise self.fail("there is no tree here", 0, expected="( LABEL child ... )")
        tree = self.tree(0)
        if self.next < len(self.words):
            word, place = self.words[self.next]
            raise self.fail("the tree ends before this", place, len(word))
        if tree is None:
            raise self.fail("a tree has at least one node", 0)
        return tree

    def take(self) -> tuple[str, int]:
        if self.next == len(self.words):
            raise self.fail("a bracket is never closed", max(0, len(self.text) - 1))
        self.next += 1
        return self.words[self.next - 1]

    def tree(self, depth: int) -> Tree | None:
        word, place = self.take()
        if word == ")":
            raise self.fail("this bracket closes nothing", place)
        if word != "(":
            return Tree(word)
        if depth >= DEEPEST:
            raise self.fail(f"the tree nests deeper than {DEEPEST} levels", place)
        label, at = self.take()
        if label == ")":
            return None
        if label == "(":
            raise self.fail("a label is needed after a bracket", at, expected="( LABEL child ... )")
        children: list[Tree | None] = []
        while self.next < len(self.words) and self.words[self.next][0] != ")":
            children.append(self.tree(depth + 1))
        self.take()
        return Tree(label, tuple(children))


def _words(text: str) -> Iterator[tuple[str, int]]:
    at = 0
    for part in text.replace("(", " ( ").replace(")", " ) ").split():
        at = text.index(part, at)
        yield part, at
        at += len(part)
