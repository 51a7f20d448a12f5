"""ADBench's GMM objective and its gradient, beside hand-written JAX.

Bars: gradient / primal at most 3.0 on LLVM; the LLVM gradient no slower than
`jax.jit(jax.grad(...))`; the XLA backend's gradient within 5% of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, bar, finish
from jax.scipy.special import logsumexp

import wengert as wg

SIZES = [(n, d, k) for n in (1000, 10_000) for d in (10, 20) for k in (10, 25)]
GAMMA, FREEDOM = 1.0, 1.0
SOURCE = Path(__file__).parent.parent / "examples" / "gmm.wg"


def jax_objective(alphas: Any, means: Any, icf: Any, x: Any) -> Any:
    """The objective as a JAX user would write it."""
    n, d = x.shape
    rows, cols = np.tril_indices(d, -1)
    order = np.lexsort((rows, cols))
    log_diag, lower = icf[:, :d], icf[:, d:]
    factors = jax.vmap(jnp.diag)(jnp.exp(log_diag))
    factors = factors.at[:, rows[order], cols[order]].set(lower)
    scaled = jnp.einsum("kij,nkj->nki", factors, x[:, None, :] - means)
    log_det = jnp.sum(log_diag, axis=1)
    logp = alphas + log_det - 0.5 * jnp.sum(scaled**2, axis=2)
    points = jnp.sum(logsumexp(logp, axis=1))
    prior = 0.5 * GAMMA**2 * (jnp.sum(jnp.exp(log_diag) ** 2) + jnp.sum(lower**2))
    prior = prior - FREEDOM * jnp.sum(log_diag)
    return points - n * (logsumexp(alphas) + 0.5 * d * jnp.log(2 * jnp.pi)) - prior


def problem(n: int, d: int, k: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random parameters and points in f32."""
    rng = np.random.default_rng(n + d + k)
    mixture = {
        "alphas": rng.normal(size=k),
        "means": rng.normal(size=(k, d)),
        "icf": 0.3 * rng.normal(size=(k, d + d * (d - 1) // 2)),
    }
    x = rng.normal(size=(n, d))
    return {name: v.astype(np.float32) for name, v in mixture.items()}, x.astype(np.float32)


def close(ours: dict[str, Any], peers: tuple[Any, ...]) -> None:
    """Check that two gradients agree before anything is timed."""
    for (name, a), b in zip(ours.items(), peers):
        a, b = np.asarray(a), np.asarray(b)
        assert np.allclose(a, b, rtol=2e-3, atol=2e-3 * np.abs(b).max()), name


def main() -> None:
    """Time every size and print the bars on the worst ratios."""
    llvm = wg.load(SOURCE).objective
    xla = wg.load(SOURCE, backend="xla").objective
    peer = jax.jit(jax.grad(jax_objective, argnums=(0, 1, 2)))
    peer_value = jax.jit(jax_objective)
    ratios: dict[str, list[float]] = {"primal": [], "jax": [], "xla": []}
    for n, d, k in SIZES:
        mixture, x = problem(n, d, k)
        args = [jnp.asarray(v) for v in (*mixture.values(), x)]
        on_device = dict(zip(mixture, args))
        close(llvm.grad(mixture, x, GAMMA, FREEDOM), peer(*args))
        close(xla.grad(on_device, args[3], GAMMA, FREEDOM), peer(*args))
        print(f"n={n} d={d} k={k}")
        times = alternate(
            {
                "llvm primal": lambda: llvm(mixture, x, GAMMA, FREEDOM),
                "llvm gradient": lambda: llvm.grad(mixture, x, GAMMA, FREEDOM),
                "jax primal": lambda: peer_value(*args).block_until_ready(),
                "jax gradient": lambda: jax.block_until_ready(peer(*args)),
                "xla gradient": lambda: jax.block_until_ready(
                    xla.grad(on_device, args[3], GAMMA, FREEDOM)
                ),
            }
        )
        ratios["primal"].append(times["llvm gradient"] / times["llvm primal"])
        ratios["jax"].append(times["llvm gradient"] / times["jax gradient"])
        ratios["xla"].append(times["xla gradient"] / times["jax gradient"])
        print("  ratios:", {name: round(r[-1], 3) for name, r in ratios.items()})
    bar("gmm_llvm_gradient_over_primal", max(ratios["primal"]), "<=", 3.0)
    bar("gmm_llvm_gradient_over_jax", max(ratios["jax"]), "<=", 1.0)
    bar("gmm_xla_gradient_over_jax", max(ratios["xla"]), "<=", 1.05)
    finish()


if __name__ == "__main__":
    main()
