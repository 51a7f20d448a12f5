"""Tree functions as Python callables: trees in, trees out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...frontend import syntax
from ...frontend.trees import TreeOptions
from ...ir.tree import DEEPEST
from ..function import CompiledFunction
from ..requests import Request
from ..values import Array, to_python, unflatten
from .data import check_capacity, encode
from .errors import TreeError
from .score import labels_of, tree_of
from .tree import Tree
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..program import Program

ROOM = 8  # nodes of an argument are counted in steps of this, so that few sizes are compiled
_STRING = re.compile(r'"([^"\s()]+)"')


class TreeFunction(CompiledFunction):
    """A `tree fn`. Trees are given as text, nested lists or Trees, and come back as Trees.

    Labels and depth are those of the program's `trees` option; without one, those of the arguments
    and of the strings in the program. A result that is a sum of trees has the label of the largest
    filler wherever its filler is more than half a label; None is a tree without nodes.
    """

    def __init__(self, program: Program, decl: syntax.FunctionDecl) -> None:
        super().__init__(program, decl)
        self._others: dict[TreeOptions, CompiledFunction] = {}

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self.program.trees is None:
            return self._own(args, kwargs)(*args, **kwargs)
        special, bound = self._bind(args, kwargs)
        lowered = special.lowered
        values = iter(special.run(Request(), bound.arrays))
        marked = zip(values, (i in lowered.trees for i in itertools.count()))
        vocabulary = _vocabulary(self.program.trees)

        def give(pair: tuple[Any, bool]) -> Any:
            value, tree = pair
            return tree_of(labels_of(np.asarray(value)), vocabulary) if tree else to_python(value)

        return unflatten(lowered.result, marked, give)

    def _own(self, args: Sequence[Any], kwargs: dict[str, Any]) -> CompiledFunction:
        """This function under the labels and the depth of its arguments."""
        values = dict(zip(self._names, args)) | kwargs
        declared = {p.name for p in self.decl.parameters if is_tree(p.annotation)}
        trees = [Tree.of(v) for n, v in values.items() if n in declared]
        labels = {node.label for t in trees for node in t.nodes()}
        for text in self.program.source.sources.values():
            labels |= set(_STRING.findall(text))
        vocabulary = Vocabulary(tuple(sorted(labels)), max(1, len(labels)))
        depth = max([t.depth for t in trees] + [1])
        options = TreeOptions(vocabulary.labels, vocabulary.size, depth)
        if options not in self._others:
            program = self.program.with_options(trees=options)
            self._others[options] = getattr(program, self.decl.name)
        return self._others[options]


def is_tree(annotation: syntax.TypeExpr | None) -> bool:
    """Whether a parameter's type is a tree."""
    return isinstance(annotation, syntax.NamedType) and annotation.name == "tree"


def argument(value: Any, options: TreeOptions | None) -> tuple[Array, Array]:
    """The labels and places of a tree given from Python; TreeError where it does not fit."""
    if options is None:
        raise TreeError(
            "labels and depth of trees are not known",
            hint="load the program with trees=wg.trees.options(vocabulary, depth)",
        )
    if options.depth > DEEPEST:
        raise TreeError(f"trees have at most {DEEPEST} levels", found=str(options.depth))
    tree = Tree.of(value)
    check_capacity([tree], options.form, options.capacity)
    nodes = -(-tree.size // ROOM) * ROOM
    made = encode([tree], _vocabulary(options), options.depth, nodes)
    return made.labels[0], made.places[0]


def _vocabulary(options: TreeOptions) -> Vocabulary:
    return Vocabulary(options.labels, options.fillers)
