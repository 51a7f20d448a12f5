"""Training the digits network: a whole run of `fit`, beside hand-written JAX with optax.

The peer compiles its loop over steps with `lax.scan`, as `fit` compiles its own; both draw
minibatches on the device. Bars: time a step at most 1.2 times the peer's, on both backends.
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
HIDDEN, STEPS, RATE = 64, 1000, 1e-3
BATCHES = (32, 128, 512)


def peer_loss(net: Any, images: Any, labels: Any) -> Any:
    """The loss as a JAX user would write it."""
    hidden = jax.nn.relu(images @ net["w1"] + net["b1"])
    logits = hidden @ net["w2"] + net["b2"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_peer(batch: int, images: Any, labels: Any) -> Any:
    """A jitted function of (net, key) that trains for STEPS steps."""
    optimizer = optax.adam(RATE)
    per_epoch = len(images) // batch

    def step(carry: Any, i: Any) -> Any:
        net, state, order, key = carry
        begins = i % per_epoch == 0
        fresh = lambda: jax.random.permutation(jax.random.fold_in(key, i), len(images))  # noqa: E731
        order = jax.lax.cond(begins, fresh, lambda: order)
        rows = jax.lax.dynamic_slice(order, ((i % per_epoch) * batch,), (batch,))
        loss, grads = jax.value_and_grad(peer_loss)(net, images[rows], labels[rows])
        moves, state = optimizer.update(grads, state)
        return (optax.apply_updates(net, moves), state, order, key), loss

    def train(net: Any, key: Any) -> Any:
        order = jnp.arange(len(images))
        start = (net, optimizer.init(net), order, key)
        (net, *_), losses = jax.lax.scan(step, start, jnp.arange(STEPS))
        return net, losses

    return jax.jit(train)


def check_gradients(program: Any, net: Any, images: Any, labels: Any) -> None:
    """The two losses and gradients agree before anything is timed."""
    value, grad = program.loss.value_and_grad(net, images, labels)
    want, peers = jax.value_and_grad(peer_loss)(net, images, labels)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for name, g in grad.items():
        np.testing.assert_allclose(g, peers[name], rtol=1e-3, atol=1e-6)


def main() -> None:
    """Time every batch size and print the bars on the worst ratios."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    programs = {b: wg.load(SOURCE, backend=b) for b in ("llvm", "xla")}
    net = {k: np.asarray(v) for k, v in programs["llvm"].init(HIDDEN, wg.key(0)).items()}
    worst = dict.fromkeys(programs, 0.0)
    for program in programs.values():
        check_gradients(program, net, images, labels)
    for batch in BATCHES:
        peer = make_peer(batch, jnp.asarray(images), jnp.asarray(labels))
        key = jax.random.key(0)

        def ours(program: Any, batch: int = batch) -> Any:
            return wg.fit(
                program.loss,
                {"net": net},
                images=images,
                labels=labels,
                steps=STEPS,
                batch_size=batch,
                optimizer=wg.adam(RATE),
                progress=False,
            )

        final = {name: float(np.mean(ours(p).losses[-20:])) for name, p in programs.items()}
        final["jax"] = float(np.mean(np.asarray(peer(net, key)[1])[-20:]))
        assert max(final.values()) < 1.3 * min(final.values()), final
        print(f"batch {batch}: {STEPS} steps a call, last losses {final}")
        candidates: dict[str, Any] = {
            name: (lambda p=program: ours(p)) for name, program in programs.items()
        }
        candidates["jax"] = lambda peer=peer, key=key: jax.block_until_ready(peer(net, key))
        times = alternate(candidates, rounds=11)
        for name in programs:
            worst[name] = max(worst[name], times[name] / times["jax"])
        print("  ratios:", {name: round(times[name] / times["jax"], 3) for name in programs})
    for name, ratio in worst.items():
        bar(f"digits_{name}_step_over_jax", ratio, "<=", 1.2)
    finish()


if __name__ == "__main__":
    main()
