"""Training the digits network, beside a hand-written jitted JAX + optax loop.

Bar: time per step within 1.2 times of JAX's on both backends. Both sides run whole chunks of
steps inside one compiled loop over the same minibatch size, Adam, f32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import alternate, bar, finish
from sklearn.datasets import load_digits

import wengert as wg

SOURCE = Path(__file__).parent.parent / "examples" / "digits.wg"
STEPS, BATCH, HIDDEN, ROWS = 500, 64, 128, 1437


def jax_loop(images: Any, labels: Any) -> Any:
    """`STEPS` steps as a JAX user would write them: scan over shuffled minibatches."""
    optimizer = optax.adam(2e-3)

    def loss(net: Any, x: Any, y: Any) -> Any:
        hidden = jax.nn.relu(x @ net["w1"] + net["b1"])
        logits = hidden @ net["w2"] + net["b2"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    per_epoch = ROWS // BATCH
    epochs = -(-STEPS // per_epoch)

    @jax.jit
    def run(net: Any, state: Any, key: Any) -> Any:
        orders = jax.vmap(lambda k: jax.random.permutation(k, ROWS))(jax.random.split(key, epochs))
        batches = orders[:, : per_epoch * BATCH].reshape(-1, BATCH)[:STEPS]

        def step(carry: Any, rows: Any) -> Any:
            net, state = carry
            value, grads = jax.value_and_grad(loss)(net, images[rows], labels[rows])
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(net, updates), state), value

        return jax.lax.scan(step, (net, state), batches)

    return optimizer, run


def main() -> None:
    """Time `STEPS` steps of each in alternation."""
    digits = load_digits()
    images = (digits.data[:ROWS] / 16.0).astype(np.float32)
    labels = digits.target[:ROWS].astype(np.int32)
    programs = {name: wg.load(SOURCE, backend=name) for name in ("llvm", "xla")}
    net = {k: np.asarray(v) for k, v in programs["llvm"].init(HIDDEN, wg.key(0)).items()}
    optimizer, run = jax_loop(jnp.asarray(images), jnp.asarray(labels))
    theirs = jax.tree.map(jnp.asarray, net)
    state = optimizer.init(theirs)

    def ours(name: str) -> Any:
        return wg.fit(
            programs[name].loss,
            {"net": net},
            images=images,
            labels=labels,
            steps=STEPS,
            batch_size=BATCH,
            optimizer=wg.adam(2e-3),
            key=wg.key(1),
            progress=False,
        )

    final = {name: float(np.mean(np.asarray(ours(name).losses)[-50:])) for name in programs}
    peer = float(np.mean(run(theirs, state, jax.random.key(1))[1][-50:]))
    assert all(abs(v - peer) < 0.05 for v in final.values()), (final, peer)
    times = alternate(
        {
            "llvm": lambda: ours("llvm"),
            "xla": lambda: ours("xla"),
            "jax + optax": lambda: jax.block_until_ready(run(theirs, state, jax.random.key(1))),
        },
        rounds=7,
        seconds=3.0,
    )
    for name in ("llvm", "xla"):
        bar(f"digits_{name}_step_over_jax", times[name] / times["jax + optax"], "<=", 1.2)
    finish()


if __name__ == "__main__":
    main()
