"""The four tree-to-tree tasks of Soulos et al. (2023), generated.

Sentences have two noun phrases and a verb. Adjectives of the lexical split are in no other; noun
phrases of the structural split have more adjectives than any other, and so deeper trees.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .data import Pair
from .errors import TreeError
from .tree import Tree

SPLITS = {
    "train": 10_000,
    "validation": 1_250,
    "test": 1_250,
    "ood_lexical": 1_250,
    "ood_structural": 1_250,
}


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


DETERMINERS = words("a her his my one our some the your")
NOUNS = words(
    "bamboo bear blossom burro cactus cat cheetah cow crocodile dog donkey elephant flower fox "
    "giraffe goat horse lamb leopard pig rabbit reindeer rose sheep snake tree weed zebra"
)
VERBS = words(
    "bought bumped chased convinced delivered discovered followed found hugged ignored kissed led "
    "lost photographed remembered rinsed smashed sold suprised touched walked washed watched"
)
ADJECTIVES = words(
    "blue brown cool fat funny green happy hot hungry large medium orange pink polka-dotted poor "
    "red rich rough round sad sharp silly small smooth square stripped thin"
)
UNSEEN = words("ancient bright clever fuzzy gentle narrow purple quiet shiny tiny wild young")
USUAL = (1, 2)  # adjectives of both noun phrases together
LONGER = {"passive_logical": (3, 4), "passive_to_logical": (3, 4), "car_cdr_seq": (3, 3)}
LONG = (3, 5)  # adjectives of the longest noun phrase in the structural split
SEQUENCES = ["".join(s) for n in range(1, 5) for s in itertools.product("AD", repeat=n)]
CHOICES = 20  # sentences tried until one has a subtree at the end of a sequence


@dataclass(frozen=True)
class Sentence:
    """What is said: who did it, to whom; the three are trees."""

    agent: Tree
    verb: Tree
    patient: Tree

    def active(self) -> Tree:
        """`the cat chased a dog`."""
        return Tree("S", (self.agent, Tree("VP", (self.verb, self.patient))))

    def passive(self) -> Tree:
        """`a dog was chased by the cat`."""
        by = Tree("PPPS", (Tree("PPS", (Tree("by"),)), self.agent))
        done = Tree("VPPS", (self.verb, by))
        return Tree("S", (self.patient, Tree("VP", (Tree("AUXPS", (Tree("was"),)), done))))

    def logical(self) -> Tree:
        """`chased(the cat, a dog)`."""
        return Tree("LF", (self.verb, Tree("ARGS", (self.agent, self.patient))))


@dataclass
class Speaker:
    """Makes sentences. words: the adjectives; fewest, most: of one sentence, or of its longest
    noun phrase where `longest` is set.
    """

    random: np.random.Generator
    words: list[str] = field(default_factory=lambda: ADJECTIVES)
    fewest: int = USUAL[0]
    most: int = USUAL[1]
    longest: bool = False

    def sentence(self) -> Sentence:
        """A sentence."""
        count = int(self.random.integers(self.fewest, self.most + 1))
        others = int(self.random.integers(0, USUAL[1] + 1)) if self.longest else 0
        first = count if self.longest else int(self.random.integers(0, count + 1))
        counts = [first, others if self.longest else count - first]
        if self.random.integers(2):
            counts.reverse()
        agent, patient = (self.phrase(n) for n in counts)
        return Sentence(agent, Tree("V", (self.pick(VERBS),)), patient)

    def phrase(self, adjectives: int) -> Tree:
        """A noun phrase."""
        inner = Tree("AP", (Tree("N", (self.pick(NOUNS),)),))
        for _ in range(adjectives):
            inner = Tree("AP", (Tree("ADJ", (self.pick(self.words),)), inner))
        return Tree("NP", (Tree("DET", (self.pick(DETERMINERS),)), inner))

    def pick(self, words: list[str]) -> Tree:
        """One of some words."""
        return Tree(words[int(self.random.integers(len(words)))])


def _active(speaker: Speaker) -> Pair:
    said = speaker.sentence()
    return _either_way(speaker, said.active(), said.logical())


def _passive(speaker: Speaker) -> Pair:
    said = speaker.sentence()
    return _either_way(speaker, said.passive(), said.logical())


def _to_logical(speaker: Speaker) -> Pair:
    said = speaker.sentence()
    spoken = said.passive() if speaker.random.integers(2) else said.active()
    return Pair(spoken, said.logical())


def _either_way(speaker: Speaker, x: Tree, y: Tree) -> Pair:
    return Pair(x, y) if speaker.random.integers(2) else Pair(y, x)


def _sequence(speaker: Speaker) -> Pair:
    """A label such as CDAR, read from its end, over a tree; the subtree that it leads to.

    All sequences that lead anywhere are as likely, however few trees have them.
    """
    while True:
        letters = SEQUENCES[int(speaker.random.integers(len(SEQUENCES)))]
        for _ in range(CHOICES):
            said = speaker.sentence()
            forms = (said.active(), said.passive(), said.logical())
            tree = forms[int(speaker.random.integers(3))]
            found = _at_end(tree, letters)
            if found is not None:
                return Pair(Tree(f"C{letters}R", (tree,)), found)


def _at_end(tree: Tree | None, letters: str) -> Tree | None:
    """The subtree that a sequence leads to, from its last letter to its first."""
    for letter in reversed(letters):
        children = () if tree is None else tree.children
        bit = "AD".index(letter)
        tree = children[bit] if bit < len(children) else None
    return tree


TASKS: dict[str, Callable[[Speaker], Pair]] = {
    "active_logical": _active,
    "passive_logical": _passive,
    "passive_to_logical": _to_logical,
    "car_cdr_seq": _sequence,
}


def generate(task: str, split: str, count: int | None = None, seed: int = 0) -> list[Pair]:
    """Distinct examples of a task: `active_logical`, `passive_logical` (both ways),
    `passive_to_logical` (active and passive sentences to logical forms) or `car_cdr_seq`.

    split: one of SPLITS; those of one seed have no sentence in common. count: SPLITS[split].
    """
    for name, value, known in (("task", task, TASKS), ("split", split, SPLITS)):
        if value not in known:
            raise TreeError(f"no {name} is called '{value}'", expected=", ".join(known))
    wanted = SPLITS[split] if count is None else count
    return [pair for pair, _ in zip(_stream(task, split, seed), range(wanted))]


def _stream(task: str, split: str, seed: int) -> Iterator[Pair]:
    """Distinct pairs without end; those of train, validation and test are dealt from one."""
    usual = ["train", "validation", "test"]
    special = split not in usual
    part = list(SPLITS).index(split) if special else 0
    random = np.random.default_rng([seed, sorted(TASKS).index(task), part])
    speaker = Speaker(random)
    if split == "ood_lexical":
        speaker.words = UNSEEN
    if split == "ood_structural":
        speaker.fewest, speaker.most = LONGER.get(task, LONG)
        speaker.longest = True
    seen: set[str] = set()
    while True:
        pair = TASKS[task](speaker)
        key = str(pair.source)
        if key in seen:
            continue
        seen.add(key)
        if special or _deal(key) == usual.index(split):
            yield pair


def _deal(text: str) -> int:
    """A split for a source: of 10 000 + 1 250 + 1 250, by a hash of the text."""
    part = zlib.crc32(text.encode()) % 10
    return 0 if part < 8 else 1 if part == 8 else 2
