"""The gradient of a variational autoencoder, 784-200-10, beside hand-written JAX.

Both get the same parameters, images and noise, and their gradients are compared before anything is
timed. Bars: on XLA at most 1.03 times the peer's time, on LLVM no slower than it.
"""

from __future__ import annotations

import os

# Where this names old processors' kernels for SciPy's BLAS, XLA would still use all instructions.
os.environ.pop("OPENBLAS_CORETYPE", None)

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, bar, finish
from peers import multi_digits, vae_jax

import wengert as wg

SOURCE = Path(__file__).parent.parent / "examples" / "vae.wg"
PATH = ("#1", "#1", "t", "code")  # of a code's key under that of its image: draws and addresses


def noise_of(key: Any, count: int) -> Any:
    """The noise of the guide's codes in `loss`, which folds indices and addresses into its key."""

    def one(i: Any) -> Any:
        k = jax.random.fold_in(key, i)
        for address in PATH:
            k = jax.random.fold_in(k, zlib.crc32(address.encode()))
        return jax.random.normal(k, (vae_jax.CODE,))

    return jax.vmap(one)(jnp.arange(count))


def check(program: wg.Program, params: Any, images: Any, key: Any) -> None:
    """Loss and gradient are the peer's at the same noise."""
    noise = noise_of(jax.random.PRNGKey(0), len(images))
    want, grads = jax.value_and_grad(vae_jax.loss_at)(params, images.astype(np.float32), noise)
    value, found = program.loss.value_and_grad(params, images, key=key)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for g, w in zip(jax.tree.leaves(found), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-3, atol=2e-5 * np.abs(w).max())


def main() -> None:
    """Check and time every batch size, and print the bars on the worst ratios."""
    digits = multi_digits.digit_images(28).reshape(-1, vae_jax.PIXELS) > 0.5
    programs = {b: wg.load(SOURCE, backend=b) for b in ("xla", "llvm")}
    on_device = vae_jax.init(jax.random.key(0))
    params = {"xla": on_device, "llvm": jax.tree.map(np.asarray, on_device)}
    peer, key, peers_key = vae_jax.make_gradient(), wg.key(0), jax.random.key(0)
    worst = dict.fromkeys(programs, 0.0)
    for batch in vae_jax.BATCHES:
        images = digits[:batch]
        inputs = {"xla": jnp.asarray(images), "llvm": images}
        for name, program in programs.items():
            check(program, params[name], images, key)
        floats = jnp.asarray(images, jnp.float32)

        def ours(name: str, inputs: Any = inputs) -> Any:
            return programs[name].loss.value_and_grad(params[name], inputs[name], key=key)

        print(f"batch {batch}")
        times = alternate(
            {
                "jax": lambda: jax.block_until_ready(peer(on_device, floats, peers_key)),
                "xla": lambda: jax.block_until_ready(ours("xla")),
                "llvm": lambda: ours("llvm"),
            },
            rounds=31,
            seconds=1.5,
        )
        ratios = {name: times[name] / times["jax"] for name in programs}
        print("  ratios:", {name: round(r, 3) for name, r in ratios.items()})
        worst = {name: max(worst[name], r) for name, r in ratios.items()}
    bar("vae_xla_gradient_over_jax", worst["xla"], "<=", 1.03)
    bar("vae_llvm_gradient_over_jax", worst["llvm"], "<=", 1.0)
    finish()


if __name__ == "__main__":
    main()
