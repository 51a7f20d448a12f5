"""Train a tree machine on one of four tasks, score it on every split, and print its program.

    python examples/dtm/train.py active_logical --out runs/active --data FOLDER
    python examples/dtm/train.py car_cdr_seq --out runs/seq
    python examples/dtm/train.py active_logical --out runs/active --show 3

Running it again goes on where it stopped; Ctrl-C saves. Without --data the splits are generated,
and with it those that the folder lacks. The curve of accuracies goes to curve.csv in the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import wengert as wg

sys.path.insert(0, str(Path(__file__).parent))
from machine import Config, Machine, Pair

STEPS = {  # of the machines for each task, as published
    "active_logical": 16,
    "passive_logical": 28,
    "passive_to_logical": 20,
    "car_cdr_seq": 12,
}
LOOKED_AT = 200  # validation trees of each point of the curve


def splits(task: str, folder: Path | None, seed: int) -> dict[str, list[Pair]]:
    """The pairs of every split: from files `{split}.jsonl`, else generated."""
    found = {}
    for name in wg.trees.SPLITS:
        path = folder / f"{name}.jsonl" if folder is not None else None
        if path is not None and path.exists():
            found[name] = wg.trees.read_pairs(path)
        else:
            found[name] = wg.trees.generate(task, name, seed=seed)
    return found


def fresh(arguments: argparse.Namespace, train: list[Pair]) -> Machine:
    """A machine for the labels of some pairs, and room for more."""
    trees = [t for p in train for t in (p.source, p.target)]
    vocabulary = wg.trees.Vocabulary.of(trees, spare=arguments.spare)
    given = {k: v for k, v in vars(arguments).items() if v is not None}
    known = {f.name for f in dataclasses.fields(Config)}
    changes = {k: v for k, v in given.items() if k in known}
    changes["steps"] = given.get("machine_steps", STEPS[arguments.task])
    changes["rows"] = max(t.size for t in trees)
    return Machine(Config(**{**changes, "fillers": vocabulary.size}), vocabulary)


def train(
    machine: Machine, pairs: dict[str, list[Pair]], given: argparse.Namespace, last_try: bool
) -> str:
    """Train, with a line of progress and of the curve now and then; why it ended: "steps",
    "interrupt", or "stuck": the loss is not what it should be by then, and there is another try.
    """
    held_out = pairs["validation"][:LOOKED_AT]
    curve, every = given.out / "curve.csv", given.every
    if machine.fit is None:
        curve.write_text("step,seconds,loss,trees,tokens\n")
    before = machine.fit.steps if machine.fit is not None else 0
    last, began = before, time.monotonic()

    def progress(result: wg.FitResult) -> bool:
        nonlocal last
        if result.steps < last + every:
            return False
        due, last = last < given.judged_at <= result.steps, result.steps
        scored = machine.score(held_out)
        loss = float(result.losses[-every:].mean())
        row = (
            f"{result.steps},{result.seconds:.1f},{loss:.3g},{scored.trees:.4f},{scored.tokens:.4f}"
        )
        with curve.open("a") as file:
            file.write(row + "\n")
        print(f"step {result.steps:6d}  loss {loss:9.3g}  validation {scored}", flush=True)
        return due and loss > given.good and not last_try

    result = machine.train(pairs["train"], given.out, progress)
    pace = (time.monotonic() - began) / max(1, result.steps - before)
    print(f"{result.steps} steps, {pace * 1e3:.0f} ms a step here, stopped by {result.stopped}")
    return {"callback": "stuck"}.get(result.stopped, result.stopped)


def show(machine: Machine, pairs: list[Pair], count: int) -> None:
    """Print the program that the machine runs on some trees, each with another root."""
    roots = dict.fromkeys(p.source.label for p in pairs)
    chosen = [next(p for p in pairs if p.source.label == r) for r in list(roots)[:count]]
    for pair in chosen:
        print(machine.program(pair.source).text())
        print("should be", pair.target, end="\n\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("task", choices=list(wg.trees.TASKS))
    add("--out", type=Path, required=True, help="folder of the model, to go on from")
    add("--data", type=Path, help="folder with train.jsonl, validation.jsonl, ...")
    add("--show", type=int, metavar="N", help="only print the program on N trees")
    add("--tries", type=int, default=5, help="seeds that are tried until one learns")
    add("--judged-at", type=int, default=2000, help="the step at which that is judged...")
    add("--good", type=float, default=0.1, help="...by whether the loss is below this")
    add("--every", type=int, default=250, help="steps between points of the curve")
    add("--data-seed", type=int, default=0, help="of the generated splits")
    add("--spare", type=int, default=31, help="free numbers of fillers, for labels met later")
    add("--machine-steps", type=int, help="steps of the machine, by default as published")
    for field in dataclasses.fields(Config):
        if field.name not in ("task", "steps", "fillers", "rows"):
            kind: Any = type(field.default)
            add(f"--{field.name.replace('_', '-')}", type=kind, help=f"{field.default}")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 1 if training was stopped."""
    given = parse(arguments)
    pairs = splits(given.task, given.data, given.data_seed)
    machine = fresh(given, pairs["train"])
    if (given.out / "model.json").exists():
        machine = Machine.load(given.out)
        if machine.config.task != given.task:
            print(f"{given.out} is a machine for {machine.config.task}")
            return 2
    given.out.mkdir(parents=True, exist_ok=True)
    last_seed = (given.seed or 0) + given.tries - 1
    while given.show is None:
        ended = train(machine, pairs, given, machine.config.seed >= last_seed)
        if ended == "interrupt":
            print(f"saved in {given.out}; the same command goes on")
            return 1
        if ended == "steps":
            break
        print(f"seed {machine.config.seed} is stuck, so another one is tried")
        changed = dataclasses.replace(machine.config, seed=machine.config.seed + 1)
        machine = Machine(changed, machine.vocabulary)
    show(machine, pairs["validation"], given.show or 2)
    for name in () if given.show else pairs:
        print(f"{name:15s} {machine.score(pairs[name])}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except wg.WengertError as error:
        sys.exit(f"{error}")
