"""A training step of a tree machine: batch 16, 16 steps, trees of 12 levels, 98 fillers.

Every form of trees runs in a process of its own, so that memory is its own. A step of `fit` is the
gradient, the optimiser and the minibatch. The peer is the same model in jitted JAX with the
published dense matrices; both are checked against each other first, on a machine of 4 steps, where
no form drops anything. Bars: at most 0.15 s and 2 GB a step on the better backend; sparse and
shared 10 times faster and smaller than dense; 10 times faster than the peer.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import bar, finish

import wengert as wg

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "examples" / "dtm" / "machine.wg"
BATCH, STEPS, DEPTH, FILLERS, ROWS = 16, 16, 12, 98, 24
FORMS: dict[str, dict[str, Any]] = {
    "shared": {"levels": 5},
    "sparse": {"capacity": 64},
    "positional": {},
    "dense": {},
}
COUNTS = {"shared": 60, "sparse": 12, "positional": 2, "dense": 0}  # timed beside the first
CHECKED = 4  # steps of the machine that is compared with the peer


def batch(count: int) -> tuple[Any, ...]:
    """Labels and places of sources and targets."""
    pairs = wg.trees.generate("active_logical", "train", count)
    sides = [p.source for p in pairs], [p.target for p in pairs]
    vocabulary = wg.trees.Vocabulary.of([t for side in sides for t in side], FILLERS)
    made = [wg.trees.encode(side, vocabulary, DEPTH, ROWS) for side in sides]
    return tuple(a for e in made for a in (e.labels, e.places))


def options(form: str) -> dict[str, Any]:
    """What `loss` takes to hold trees in a form."""
    return {"depth": DEPTH, "form": form, **FORMS[form]}


def ours(form: str, backend: str) -> dict[str, float]:
    """Seconds of one step of `fit`, and the memory of a process that runs it, in bytes."""
    program = wg.load(SOURCE, backend=backend)
    names = ("labels", "places", "target_labels", "target_places")
    data = dict(zip(names, batch(4 * BATCH))) | options(form)
    machine = program.init(wg.key(0), STEPS, FILLERS, DEPTH)
    machine = map_arrays(machine)
    settings: dict[str, Any] = {
        "data": data,
        "rows": list(names),
        "batch_size": BATCH,
        "optimizer": wg.adamw(1e-4, clip=1.0),
        "progress": False,
    }
    first = wg.fit(program.loss, {"machine": machine}, steps=1, **settings)
    seconds, count = first.seconds, COUNTS[form]
    if count:  # the first step meets cold memory
        started = time.perf_counter()
        wg.fit(program.loss, {"machine": machine}, steps=1 + count, resume=first, **settings)
        seconds = (time.perf_counter() - started) / count
    return {"seconds": seconds, "bytes": memory(), "compile": first.compile_seconds}


def map_arrays(value: Any) -> Any:
    """Weights as NumPy arrays."""
    if isinstance(value, dict):
        return {k: map_arrays(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(map_arrays, value))
    return np.asarray(value)


def memory() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def peer(kind: str) -> dict[str, float]:
    """Seconds of a gradient of the peer, with dense matrices or shifts of index."""
    import jax
    from peers import trees_jax

    machine = map_arrays(wg.load(SOURCE).init(wg.key(0), STEPS, FILLERS, DEPTH))
    data = batch(BATCH)
    run = trees_jax.make_gradient(DEPTH, machine, data, shifts=kind == "shifts")
    started = time.perf_counter()
    jax.block_until_ready(run(machine, data))
    return {"seconds": time.perf_counter() - started, "bytes": memory()}


def check() -> dict[str, float]:
    """Losses and gradients of our forms are those of the peer, on a machine of few steps."""
    import jax
    from peers import trees_jax

    program = wg.load(SOURCE)
    machine = map_arrays(program.init(wg.key(0), CHECKED, FILLERS, DEPTH))
    data = batch(2)
    wanted, slopes = trees_jax.make_gradient(DEPTH, machine, data, shifts=True)(machine, data)
    worst = 0.0
    for form in ("shared", "positional"):
        value, found = program.loss.value_and_grad(
            machine, *data, wg.key(0), wrt="machine", **options(form)
        )
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        both = list(zip(jax.tree.leaves(found), jax.tree.leaves(slopes), strict=True))
        scale = max(float(np.abs(w).max()) for _, w in both)
        for g, w in both:
            np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-5 * scale)
            worst = max(worst, float(np.abs(g - w).max()) / scale)
    return {"difference": worst}


def child(*arguments: str) -> dict[str, float]:
    """What another process of this script prints."""
    command = [sys.executable, str(HERE / "trees.py"), *arguments]
    out = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    print(" ", *arguments, {k: f"{v:.4g}" for k, v in found.items()}, flush=True)
    return found


def main() -> None:
    """Measure every form and the peers, and print the bars."""
    child("check")
    steps = {form: child("ours", form, "llvm") for form in FORMS}
    on_xla = child("ours", "shared", "xla")
    dense = child("peer", "dense")
    child("peer", "shifts")
    best = min(steps["shared"], on_xla, key=lambda s: s["seconds"])
    bar("trees_step_seconds", best["seconds"], "<=", 0.15)
    bar("trees_step_gigabytes", best["bytes"] / 1e9, "<=", 2.0)
    for form in ("shared", "sparse"):
        for what in ("seconds", "bytes"):
            bar(
                f"trees_dense_over_{form}_{what}",
                steps["dense"][what] / steps[form][what],
                ">=",
                10,
            )
    bar("trees_jax_over_llvm", dense["seconds"] / steps["shared"]["seconds"], ">=", 10)
    bar("trees_jax_over_xla", dense["seconds"] / on_xla["seconds"], ">=", 10)
    finish()


if __name__ == "__main__":
    modes = {"ours": ours, "peer": peer, "check": check}
    if len(sys.argv) > 1:
        print(json.dumps(modes[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
