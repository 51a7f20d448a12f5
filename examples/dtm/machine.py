"""A machine of machine.wg as a Python object: its weights and vocabulary, and what it does."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

Encoded, Pair, Score = wg.trees.Encoded, wg.trees.Pair, wg.trees.Score
Tree, Vocabulary = wg.trees.Tree, wg.trees.Vocabulary

OPERATIONS = ("car", "cdr", "cons")
CHUNK = 50  # trees that are answered at once
SURE = 0.995  # weights from here on are shown as certain
EVERY = 20.0  # seconds between checkpoints


@dataclass(frozen=True)
class Config:
    """What a machine is made of, and how it learns.

    steps: of the machine, a transformer layer each. fillers: numbers of a filler; depth: levels of
    its trees. width, heads, hidden: of the layers. form, capacity, levels, view, nodes, rate, how:
    see machine.wg. rows: nodes that an encoded tree has room for. The others are of the optimiser.
    """

    task: str = "active_logical"
    steps: int = 16
    fillers: int = 128
    depth: int = 12
    width: int = 64
    heads: int = 4
    hidden: int = 256
    form: str = "shared"
    capacity: int = 0
    levels: int = 5
    view: int = 4
    nodes: int = 0
    how: str = "gumbel"
    rate: float = 0.1
    rows: int = 24
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 1000
    training_steps: int = 5000
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0

    @property
    def running(self) -> dict[str, Any]:
        """What all functions of machine.wg take. Choices are disturbed in training alone."""
        names = ("depth", "form", "capacity", "levels", "view", "nodes")
        how = "softmax" if self.how == "gumbel" else self.how
        return {**{n: getattr(self, n) for n in names}, "how": how}


class Machine:
    """A machine and what it has learned so far.

    fit: the training so far, None before it began.
    """

    def __init__(self, config: Config, vocabulary: Vocabulary, backend: str = "llvm") -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.functions = wg.load(Path(__file__).with_name("machine.wg"), backend=backend)
        self.fit: wg.FitResult | None = None
        c = config
        key = wg.key(c.seed)
        sizes = (c.steps, c.fillers, c.depth, c.width, c.heads, c.hidden)
        self.weights = self.functions.init(key, *sizes)

    # Learning

    def train(
        self,
        pairs: Sequence[Pair],
        path: str | os.PathLike[str] | None = None,
        progress: Callable[[wg.FitResult], Any] | None = None,
    ) -> wg.FitResult:
        """Learn until `training_steps` steps are done in all, from where it stopped before.

        path: a folder to save to, every 20 seconds and at the end, after Ctrl-C too. progress:
        called a few times a second with the training so far; it stops by returning something true.
        """
        c = self.config
        source, target = self.encoded(pairs)
        schedule = wg.warmup_cosine(c.learning_rate, warmup=c.warmup, steps=c.training_steps)
        saved = time.monotonic()

        def callback(result: wg.FitResult) -> Any:
            nonlocal saved
            self._take(result)
            if path is not None and time.monotonic() > saved + EVERY:
                self.save(path)
                saved = time.monotonic()
            return progress(result) if progress is not None else None

        result = wg.fit(
            self.functions.loss,
            {"machine": self.weights},
            data={
                "labels": source.labels,
                "places": source.places,
                "target_labels": target.labels,
                "target_places": target.places,
                **c.running,
                "rate": c.rate,
                "how": c.how,
            },
            rows=["labels", "places", "target_labels", "target_places"],
            batch_size=c.batch,
            steps=c.training_steps,
            optimizer=wg.adamw(schedule, b2=0.95, weight_decay=c.decay, clip=c.clip),
            key=wg.key(c.seed + 1),
            resume=self.fit,
            callback=callback,
            progress=False,
        )
        self._take(result)
        if path is not None:
            self.save(path)
        return result

    def _take(self, result: wg.FitResult) -> None:
        self.fit = result
        self.weights = result.params["machine"]

    # What it does

    def encoded(self, pairs: Sequence[Pair]) -> tuple[Encoded, Encoded]:
        """Sources and targets of pairs as arrays; new labels take free numbers."""
        self.know(node.label for p in pairs for t in (p.source, p.target) for node in t.nodes())
        places = [p.at for p in pairs]
        rows = max([self.config.rows, *(t.size for p in pairs for t in (p.source, p.target))])
        sides = ([p.source for p in pairs], [p.target for p in pairs])
        for side in sides:
            wg.trees.check_capacity(side, self.config.form, self.config.capacity, places)
        first, second = (
            wg.trees.encode(side, self.vocabulary, self.config.depth, rows, places)
            for side in sides
        )
        return first, second

    def know(self, labels: Any) -> None:
        """Give numbers to labels that the vocabulary lacks."""
        self.vocabulary = self.vocabulary.extended(labels)

    def answers(self, source: Encoded) -> Any:
        """Numbers of labels by place, `i32[trees, places]`, -1 for no node."""
        parts = []
        for at in range(0, len(source), CHUNK):
            labels, places = (np.zeros((CHUNK, a.shape[1]), np.int32) for a in (source.labels,) * 2)
            count = min(CHUNK, len(source) - at)
            labels[:count] = source.labels[at : at + count]
            places[:count] = source.places[at : at + count]
            out = self.functions.answers(self.weights, labels, places, **self.config.running)
            parts.append(np.asarray(out)[:count])
        return np.concatenate(parts)

    def score(self, pairs: Sequence[Pair]) -> Score:
        """How well it does on pairs."""
        source, target = self.encoded(pairs)
        return wg.trees.score(self.answers(source), target)

    def apply(self, tree: Any) -> Tree | None:
        """What it makes of a tree."""
        return self.program(tree).trees[-1]

    def program(self, tree: Any) -> Program:
        """The program that it runs on a tree."""
        source, _ = self.encoded([Pair(Tree.of(tree), Tree.of(tree))])
        found = self.functions.trace(
            self.weights, source.labels[0], source.places[0], **self.config.running
        )
        made = [wg.trees.tree_of(row, self.vocabulary) for row in np.asarray(found["trees"])]
        roots = np.argmax(found["roots"], axis=1)
        labels = [self.vocabulary.labels[r] if r < len(self.vocabulary) else f"?{r}" for r in roots]
        arguments = tuple(np.asarray(a) for a in found["arguments"])
        return Program(made, np.asarray(found["operations"]), arguments, labels)

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the folder: `model.json` (config, labels) and `fit.npz` (weights, optimiser)."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "config": asdict(self.config),
            "labels": self.vocabulary.labels,
            "size": self.vocabulary.size,
        }
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".model")
        with os.fdopen(handle, "w") as file:
            json.dump(facts, file, indent=1)
        os.replace(temporary, folder / "model.json")
        if self.fit is not None:
            self.fit.save(folder / "fit.npz")

    @classmethod
    def load(cls, path: str | os.PathLike[str], backend: str = "llvm", **changes: Any) -> Machine:
        """The machine of a folder; changes: of its config, such as another `form`."""
        folder = Path(path)
        facts = json.loads((folder / "model.json").read_text())
        config = Config(**{**facts["config"], **changes})
        machine = cls(config, Vocabulary(tuple(facts["labels"]), facts["size"]), backend)
        if (folder / "fit.npz").exists():
            machine._take(wg.FitResult.load(folder / "fit.npz"))
        return machine


@dataclass(frozen=True)
class Program:
    """What a machine does with a tree.

    trees: the source and what each step makes. operations: weights `[steps, 3]`; arguments: weights
    `[4, trees so far]` a step, of car, cdr, and left and right of cons; roots: a label a step.
    """

    trees: list[Tree | None]
    operations: Any
    arguments: tuple[Any, ...]
    roots: list[str]

    def used(self) -> list[int]:
        """The steps that the last tree comes of."""
        found: set[int] = set()
        pending = [len(self.operations) - 1]
        while pending:
            step = pending.pop()
            if step in found or step < 0:
                continue
            found.add(step)
            pending += [t - 1 for t in self._trees_of(step)]
        return sorted(found)

    def _trees_of(self, step: int) -> list[int]:
        operation = int(np.argmax(self.operations[step]))
        rows = (2, 3) if operation == 2 else (operation,)
        return [int(np.argmax(self.arguments[step][r])) for r in rows]

    def line(self, step: int) -> str:
        """One step, such as `t3 = cons(t1, t2, LF)`; weights where it is not sure."""
        weights = self.operations[step]
        operation = int(np.argmax(weights))
        rows = (2, 3) if operation == 2 else (operation,)
        parts = [self._argument(self.arguments[step][r]) for r in rows]
        parts += [self.roots[step]] if operation == 2 else []
        sure = _unsure(float(weights[operation]))
        return f"t{step + 1} = {OPERATIONS[operation]}{sure}({', '.join(parts)})"

    def _argument(self, weights: Any) -> str:
        """The tree of largest weight; equal trees count together."""
        best = int(np.argmax(weights))
        same = [w for w, t in zip(weights, self.trees) if t == self.trees[best]]
        return f"t{best}{_unsure(float(sum(same)))}"

    def text(self, all_steps: bool = False) -> str:
        """The program: the steps that its answer comes of, with the trees that they make."""
        shown = range(len(self.operations)) if all_steps else self.used()
        lines = [f"t0 = {self.trees[0]}"]
        for step in shown:
            lines += [self.line(step), f"   = {_short(self.trees[step + 1])}"]
        return "\n".join(lines)


def _unsure(weight: float) -> str:
    return "" if weight >= SURE else f"[{weight:.2f}]"


def _short(tree: Tree | None, limit: int = 110) -> str:
    text = "nothing" if tree is None else str(tree)
    return text if len(text) <= limit else text[: limit - 4] + " ..."
