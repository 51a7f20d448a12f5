"""One gradient step of Attend-Infer-Repeat beside hand-written JAX and Pyro, at Pyro's sizes.

Canvases of 50 x 50 pixels, an LSTM of 256 features, batches of 64; ours is `examples/air.wg` on
XLA. Before anything is timed, the estimators are checked: on average over many keys all of them
have the gradient of the peer's `enum`, within the Monte Carlo error that is printed. Bars: at most
1.10 times JAX's time, and 20 times faster than Pyro. Steps by `hybrid` and of the objectives IWAE
and RWS, which have no peer here, are timed without a bar.
"""

from __future__ import annotations

import os

# Where this names old processors' kernels for SciPy's BLAS, XLA would still use all instructions.
os.environ.pop("OPENBLAS_CORETYPE", None)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from harness import alternate, bar, finish
from peers import air_jax, air_pyro, multi_digits
from wengert.runtime.keys import split_key

import wengert as wg

SOURCE = Path(__file__).parent.parent / "examples" / "air.wg"
SHARED = ("reinforce", "enum", "mvd")  # with the JAX peer
CHECK_IMAGES, CHECK_KEYS = 4, 2000


def flat(tree: Any) -> Any:
    """All leaves of a gradient as one float64 vector."""
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def averaged(gradient: Callable[[int], Any], keys: int) -> tuple[Any, Any]:
    """Mean of a gradient over many keys along fixed random directions, and its standard error."""
    rng = np.random.default_rng(0)
    directions, rows = None, []
    for i in range(keys):
        g = flat(gradient(i))
        if directions is None:
            directions = rng.normal(size=(8, g.size)) / np.sqrt(g.size)
        rows.append(directions @ g)
    found = np.asarray(rows)
    return found.mean(axis=0), found.std(axis=0) / np.sqrt(keys)


def check(program: wg.Program, params: Any, images: Any) -> None:
    """Every estimator has the mean gradient of the peer's enum, by z scores along directions."""
    keys = split_key(wg.key(1), CHECK_KEYS)
    peer = air_jax.make_gradient("enum", air_jax.tent_bilinear)
    want, error = averaged(lambda i: peer(params, images, jax.random.key(i))[1], CHECK_KEYS)
    for how in (*SHARED, "hybrid"):
        step = program.loss.value_and_grad
        got, spread = averaged(lambda i: step(params, images, how, key=keys[i])[1], CHECK_KEYS)
        z = np.abs(got - want) / np.hypot(spread, error)
        print(f"  {how:<10} differs from JAX's enum by {z.max():.2f} standard errors at most")
        assert z.max() < 4.5, how


def main() -> None:
    """Check, then time every estimator."""
    program = wg.load(SOURCE, backend="xla")
    small = air_jax.Sizes(canvas=20, window=8, what=6, state=16, hidden=16)
    few, _ = multi_digits.multi_digits(CHECK_IMAGES, canvas=20, digit=8)
    check(program, air_jax.init(jax.random.key(0), small), few)

    images, _ = multi_digits.multi_digits(air_jax.BATCH)
    params = air_jax.init(jax.random.key(0))
    on_device, in_torch = jax.numpy.asarray(images), torch.from_numpy(images)
    key, peers_key = wg.key(0), jax.random.key(0)

    def ours(how: str) -> Any:
        return jax.block_until_ready(program.loss.value_and_grad(params, on_device, how, key=key))

    for how in SHARED:
        gradient = {
            name: air_jax.make_gradient(how, sampler)
            for name, sampler in (
                ("jax", air_jax.tent_bilinear),
                ("jax gather", air_jax.gather_bilinear),
            )
        }
        print(how)
        times = alternate(
            {"ours": lambda how=how: ours(how)}
            | {
                name: lambda g=g: jax.block_until_ready(g(params, on_device, peers_key))
                for name, g in gradient.items()
            },
            rounds=15,
            seconds=3.0,
        )
        best = min(times["jax"], times["jax gather"])
        bar(f"air_{how}_gradient_over_jax", times["ours"] / best, "<=", 1.10)
        if how in air_pyro.ESTIMATORS:
            _, step = air_pyro.make_step(how, params)
            print(f"  Pyro with {air_pyro.use_best_threads(step, in_torch)} thread(s)")
            times = alternate(
                {"ours": lambda how=how: ours(how), "pyro": lambda s=step: s(in_torch)},
                rounds=5,
                seconds=3.0,
            )
            bar(f"air_{how}_pyro_over_ours", times["pyro"] / times["ours"], ">=", 20.0)

    print("without a peer")
    iwae, rws = program.iwae_loss.value_and_grad, program.rws_loss.value_and_grad
    alternate(
        {
            "hybrid": lambda: ours("hybrid"),
            "iwae, 5 particles, reinforce": lambda: jax.block_until_ready(
                iwae(params, on_device, "reinforce", 5, key=key)
            ),
            "rws, 5 particles": lambda: jax.block_until_ready(rws(params, on_device, 5, key=key)),
        },
        rounds=5,
        seconds=3.0,
    )
    finish()


if __name__ == "__main__":
    main()
