"""A Differentiable Tree Machine in jitted JAX, with the matrices of Soulos et al. (2023).

Trees are `[places, fillers]` over orthonormal roles; car, cdr and cons multiply by the dense
matrices D0, D1, E0 and E1. `shifts=True` uses the canonical roles instead, where these are changes
of index.
The agent and its parameters are those of stdlib/trees.wg.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = Any


def child_rows(depth: int, bit: int) -> Any:
    """Rows of a subtree in a tree whose place p is in row p - 1."""
    places = np.arange(1, 2 ** (depth - 1))
    tops = 2 ** np.floor(np.log2(places)).astype(int)
    return places + (1 + bit) * tops - 1


def matrices(depth: int, seed: int = 0) -> dict[str, Any]:
    """Random orthonormal roles, and the matrices of going down and up."""
    count = 2**depth - 1
    noise = np.random.default_rng(seed).normal(size=(count, count))
    roles = np.linalg.qr(noise)[0].astype(np.float32)
    inner = 2 ** (depth - 1) - 1
    down = [roles[:inner].T @ roles[child_rows(depth, bit)] for bit in (0, 1)]
    return {
        "roles": jnp.asarray(roles),
        "down": tuple(jnp.asarray(d) for d in down),
        "up": tuple(jnp.asarray(d.T.copy()) for d in down),
    }


# Layers


def norm(p: Params, x: Any) -> Any:
    """Layer norm of the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * p["scale"] + p["shift"]


def dense(p: Params, x: Any) -> Any:
    """An affine map."""
    return x @ p["w"] + p["b"]


def transformer(p: Params, x: Any) -> Any:
    """A pre-norm layer over the rows of x."""
    y, a = norm(p["norm1"], x), p["attention"]
    q, k, v = (jnp.einsum("nd,dhe->hne", y, a[n]) for n in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("hnd,hmd->hnm", q, k) / math.sqrt(q.shape[-1]))
    x = x + jnp.einsum("hne,hed->nd", jnp.einsum("hnm,hme->hne", weights, v), a["out"])
    inner = jax.nn.gelu(dense(p["up"], norm(p["norm2"], x)), approximate=False)
    return x + dense(p["down"], inner)


def place_codes(way: Any, levels: int) -> Any:
    """The sum of codes on the way to each place of the top levels."""
    level = way[0, :1]
    codes = [level]
    for i in range(levels - 1):
        level = (level[:, None] + way[i + 1]).reshape(-1, way.shape[-1])
        codes.append(level)
    return jnp.concatenate(codes)


def read(p: Params, fillers: Any, codes: Any) -> Any:
    """Attention of queries to nodes."""
    mass = (fillers**2).sum(1)[:, None]
    scores = (fillers @ p["key"] + codes @ p["place_key"]) @ p["query"].T
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(0))) * (mass + 1e-4)
    values = fillers @ p["value"] + mass * (codes @ p["place_value"])
    return ((weights / weights.sum(0)).T @ values).reshape(-1) @ p["out"]


# Trees


class Dense:
    """Trees over roles: car, cdr and cons are products with matrices."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.roles, self.down, self.up = made["roles"], made["down"], made["up"]

    def encode(self, rows: Any) -> Any:
        return self.roles.T @ rows

    def top(self, tree: Any, count: int) -> Any:
        return self.roles[:count] @ tree

    def child(self, tree: Any, bit: int) -> Any:
        return self.down[bit] @ tree

    def cons(self, left: Any, right: Any, root: Any) -> Any:
        return self.up[0] @ left + self.up[1] @ right + jnp.outer(self.roles[0], root)


class Shifted:
    """Trees over canonical roles: car, cdr and cons move rows."""

    def __init__(self, depth: int) -> None:
        self.rows = [child_rows(depth, bit) for bit in (0, 1)]
        self.count, self.inner = 2**depth - 1, 2 ** (depth - 1) - 1

    def encode(self, rows: Any) -> Any:
        return rows

    def top(self, tree: Any, count: int) -> Any:
        return tree[:count]

    def child(self, tree: Any, bit: int) -> Any:
        below = jnp.zeros((self.count - self.inner, tree.shape[1]))
        return jnp.concatenate([tree[self.rows[bit]], below])

    def cons(self, left: Any, right: Any, root: Any) -> Any:
        out = jnp.zeros_like(left).at[0].set(root)
        out = out.at[self.rows[0]].set(left[: self.inner])
        return out.at[self.rows[1]].set(right[: self.inner])


def rows_of(labels: Any, places: Any, depth: int, fillers: int) -> Any:
    """One-hot fillers by place."""
    one_hot = jax.nn.one_hot(labels, fillers) * (places > 0)[:, None]
    return jnp.zeros((2**depth, fillers)).at[places].add(one_hot)[1:]


def answer(params: Params, algebra: Any, tree: Any, view: int) -> Any:
    """The last tree of a machine."""
    codes = place_codes(params["reader"]["way"], view)

    def see(t: Any) -> Any:
        return read(params["reader"], algebra.top(t, len(codes)), codes) + params["kind"]

    tokens, memory = jnp.concatenate([params["start"], see(tree)[None]]), [tree]
    for layer in params["layers"]:
        tokens = transformer(layer, tokens)
        y = norm(params["norm"], tokens)
        operation = jax.nn.softmax(dense(params["operation"], y[0]))
        arguments = jax.nn.softmax(dense(params["argument"], y[2:]).T)
        root = dense(params["root"], y[1])
        car, cdr, left, right = jnp.einsum("at,tpf->apf", arguments, jnp.stack(memory))
        made = algebra.cons(left, right, root) * operation[2]
        made += algebra.child(car, 0) * operation[0] + algebra.child(cdr, 1) * operation[1]
        tokens = jnp.concatenate([tokens, see(made)[None]])
        memory.append(made)
    return memory[-1]


def loss(params: Params, algebra: Any, batch: Any, depth: int, view: int = 4) -> Any:
    """The mean over examples of squared errors a node of the target."""
    fillers = params["root"]["b"].shape[0]

    def one(labels: Any, places: Any, target_labels: Any, target_places: Any) -> Any:
        source, target = (
            algebra.encode(rows_of(x, p, depth, fillers))
            for x, p in ((labels, places), (target_labels, target_places))
        )
        made = answer(params, algebra, source, view)
        return ((made - target) ** 2).sum() / (target_places > 0).sum()

    return jax.vmap(one)(*batch).mean()


def make_gradient(depth: int, params: Params, batch: Any, shifts: bool = False) -> Any:
    """Compiled (params, batch) -> (loss, gradient) for arguments like these.

    The matrices are arguments of the compiled code.
    """
    made = None if shifts else matrices(depth)

    def run(params: Params, batch: Any, made: Any) -> Any:
        algebra = Shifted(depth) if made is None else Dense(made)
        return jax.value_and_grad(loss)(params, algebra, batch, depth)

    compiled = jax.jit(run).lower(params, batch, made).compile()
    return lambda params, batch: compiled(params, batch, made)
