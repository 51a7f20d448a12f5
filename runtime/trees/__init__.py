"""Trees from Python: values, vocabularies, data files, tasks to learn, and tree functions."""

from ...frontend.trees import TreeOptions
from .data import Encoded, Pair, check_capacity, encode, read_pairs, write_pairs
from .errors import TreeError
from .score import Score, label_trees, labels_of, score, tree_of
from .tasks import SPLITS, TASKS, generate
from .tree import Tree
from .vocabulary import Vocabulary

__all__ = [
    "SPLITS",
    "TASKS",
    "Encoded",
    "Pair",
    "Score",
    "Tree",
    "TreeError",
    "TreeOptions",
    "Vocabulary",
    "check_capacity",
    "encode",
    "generate",
    "label_trees",
    "labels_of",
    "options",
    "read_pairs",
    "score",
    "tree_of",
    "write_pairs",
]


def options(
    vocabulary: Vocabulary, depth: int, form: str = "auto", capacity: int = 0, levels: int = 0
) -> TreeOptions:
    """How trees come into a program: `wg.load(path, trees=wg.trees.options(vocabulary, depth))`.

    depth: the most levels of an argument. form, capacity, levels: see docs/trees.md.
    """
    return TreeOptions(vocabulary.labels, vocabulary.size, depth, form, capacity, levels)
