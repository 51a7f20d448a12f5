"""A variational autoencoder for 28 x 28 images, 784-200-10, in hand-written JAX.

Model: code [10] ~ normal(0, 1); each pixel ~ bernoulli(sigmoid(logit)), logits from the decoder.
Guide: code ~ normal(mean, exp(log_sd)), both from the encoder, sampled by reparameterisation.

Parameters are nested dictionaries of arrays, a weight `w` used as `x @ w + b`:

    {"encoder": {"w1": [784, 200], "b1": [200],
                 "w_mean": [200, 10], "b_mean": [10], "w_log_sd": [200, 10], "b_log_sd": [10]},
     "decoder": {"w1": [10, 200], "b1": [200], "w2": [200, 784], "b2": [784]}}
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

PIXELS, HIDDEN, CODE = 784, 200, 10
BATCHES = (64, 128, 256, 512, 1024)

Params = dict[str, dict[str, Array]]
Activation = Callable[[Array], Array]


def init(key: Array, pixels: int = PIXELS, hidden: int = HIDDEN, code: int = CODE) -> Params:
    """Normal weights of variance 1 / inputs, and no biases."""
    keys = jax.random.split(key, 5)

    def weight(key: Array, n: int, m: int) -> Array:
        return jax.random.normal(key, (n, m)) / jnp.sqrt(n)

    encoder = {
        "w1": weight(keys[0], pixels, hidden),
        "b1": jnp.zeros(hidden),
        "w_mean": weight(keys[1], hidden, code),
        "b_mean": jnp.zeros(code),
        "w_log_sd": weight(keys[2], hidden, code),
        "b_log_sd": jnp.zeros(code),
    }
    decoder = {
        "w1": weight(keys[3], code, hidden),
        "b1": jnp.zeros(hidden),
        "w2": weight(keys[4], hidden, pixels),
        "b2": jnp.zeros(pixels),
    }
    return {"encoder": encoder, "decoder": decoder}


def encode(net: dict[str, Array], images: Array, activation: Activation) -> tuple[Array, Array]:
    """Means and log standard deviations of the codes: [n, 784] -> [n, 10], [n, 10]."""
    hidden = activation(images @ net["w1"] + net["b1"])
    return hidden @ net["w_mean"] + net["b_mean"], hidden @ net["w_log_sd"] + net["b_log_sd"]


def decode(net: dict[str, Array], codes: Array, activation: Activation) -> Array:
    """Logits of the pixels: [n, 10] -> [n, 784]."""
    hidden = activation(codes @ net["w1"] + net["b1"])
    return hidden @ net["w2"] + net["b2"]


def loss_at(
    params: Params, images: Array, noise: Array, activation: Activation = jnp.tanh
) -> Array:
    """The mean negative ELBO at given noise: images [n, 784], noise [n, 10] -> [].

    log p(code) - log q(code): the normalisers of the two normal densities cancel.
    """
    mean, log_sd = encode(params["encoder"], images, activation)
    codes = mean + jnp.exp(log_sd) * noise
    logits = decode(params["decoder"], codes, activation)
    log_likelihood = jnp.sum(images * logits - jax.nn.softplus(logits), axis=1)
    log_ratio = jnp.sum(0.5 * (noise**2 - codes**2) + log_sd, axis=1)
    return -jnp.mean(log_likelihood + log_ratio)


def loss(params: Params, images: Array, key: Array, activation: Activation = jnp.tanh) -> Array:
    """The mean negative ELBO with one fresh sample per image."""
    code = params["encoder"]["b_mean"].size
    return loss_at(params, images, jax.random.normal(key, (len(images), code)), activation)


def make_gradient(
    activation: Activation = jnp.tanh,
) -> Callable[[Params, Array, Array], tuple[Array, Params]]:
    """A compiled function (params, images [n, 784], key) -> (loss, gradient).

    `activation` is that of both hidden layers, `jnp.tanh` or `jax.nn.softplus`.
    """
    value_and_grad: Any = jax.value_and_grad(partial(loss, activation=activation))
    return jax.jit(value_and_grad)
