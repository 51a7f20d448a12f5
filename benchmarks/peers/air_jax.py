"""Attend-Infer-Repeat (Eslami et al. 2016) in hand-written JAX, with three estimators.

A canvas holds up to three objects. For step i = 0, 1, 2, while the step before had an object:

    present_i ~ bernoulli(0.5)
    where_i = (scale, x, y) ~ normal((3, 0, 0), (0.1, 1, 1)), if present_i
    what_i ~ normal(0, 1) [50], if present_i

and the canvas ~ normal(sum of the objects present, 0.3), pixel by pixel. An object is the decoder's
window of 20 x 20 for `what`, put at `where`. The guide unrolls an LSTM over the same steps:

    state_i = lstm(state_{i-1}, (image, where_{i-1}, what_{i-1}))         zeros before step 0
    logit_i, mean_i [3], raw_sd_i [3] = predict(state_i)
    present_i ~ bernoulli(sigmoid(logit_i)),  where_i ~ normal(mean_i, softplus(raw_sd_i))
    what_i ~ normal(encoder(attend(image, where_i)))

(Where step i matters, present_{i-1} is 1, so it is no input of the LSTM.) As `present` is a run of
ones and then zeros, it is the same thing as a count from 0 to 3, and since a step's variables count
only if it is present, one run of the guide "as if all present" serves every count.

where and what are reparameterised; the `estimators` of the gradient through `present` are
    reinforce   the score function, without a baseline
    enum        the exact expectation over the four counts
    mvd         measure-valued: each step's probability times the difference of the two outcomes

Functions are written for one image and batched with `jax.vmap`. Sizes follow the arrays' shapes:

    {"rnn": {"w_image": [2500, 4 * 256], "w_object": [3 + 50, 4 * 256],
             "w_state": [256, 4 * 256], "b": [4 * 256]},      gates in order: in, forget, new, out
     "predict": {"w": [256, 7], "b": [7]},                    logit, means, raw sds
     "encoder": {"w1": [400, 200], "b1": [200],
                 "w2": [200, 2 * 50], "b2": [2 * 50]},        means, raw sds
     "decoder": {"w1": [50, 200], "b1": [200], "w2": [200, 400], "b2": [400]}}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

STEPS, BATCH, RATE = 3, 64, 1e-4
PRESENT = 0.5
WHERE_MEAN, WHERE_SD = (3.0, 0.0, 0.0), (0.1, 1.0, 1.0)
PIXEL_SD = 0.3
PRIOR_LOGIT = math.log(PRESENT / (1 - PRESENT))

Params = dict[str, dict[str, Array]]
Sampler = Callable[[Array, Array, Array], Array]


class Sizes(NamedTuple):
    """Sizes of the arrays; the defaults are those of Pyro's tutorial."""

    canvas: int = 50
    window: int = 20
    what: int = 50
    state: int = 256
    hidden: int = 200


TUTORIAL = Sizes()


class Noise(NamedTuple):
    """All random numbers for one image, or for a batch with a leading axis more."""

    present: Array  # [3], uniform on [0, 1)
    where: Array  # [3, 3], standard normal
    what: Array  # [3, 50], standard normal


class Trajectory(NamedTuple):
    """The guide's run for one image, as if all objects were present."""

    logits: Array  # [3], log odds of `present`
    objects: Array  # [3, 50, 50], on the canvas
    log_ratios: Array  # [3], log p - log q of where and what


def init(key: Array, sizes: Sizes = TUTORIAL) -> Params:
    """Normal weights of variance 1 / inputs; biases make objects present, centred and dark."""
    canvas, window, what, state, hidden = sizes
    keys = jax.random.split(key, 8)

    def weight(key: Array, n: int, m: int) -> Array:
        return jax.random.normal(key, (n, m)) / math.sqrt(n)

    rnn = {
        "w_image": weight(keys[0], canvas**2, 4 * state),
        "w_object": weight(keys[1], 3 + what, 4 * state),
        "w_state": weight(keys[2], state, 4 * state),
        "b": jnp.zeros(4 * state),
    }
    predict = {
        "w": 0.1 * weight(keys[3], state, 7),
        "b": jnp.array([2.0, *WHERE_MEAN, -2.0, -2.0, -2.0]),
    }
    encoder = {
        "w1": weight(keys[4], window**2, hidden),
        "b1": jnp.zeros(hidden),
        "w2": weight(keys[5], hidden, 2 * what),
        "b2": jnp.zeros(2 * what),
    }
    decoder = {
        "w1": weight(keys[6], what, hidden),
        "b1": jnp.zeros(hidden),
        "w2": weight(keys[7], hidden, window**2),
        "b2": jnp.full(window**2, -2.0, jnp.float32),
    }
    return {"rnn": rnn, "predict": predict, "encoder": encoder, "decoder": decoder}


def draw_noise(params: Params, key: Array, batch: int) -> Noise:
    """Fresh random numbers for a batch of images."""
    what = params["decoder"]["w1"].shape[0]
    keys = jax.random.split(key, 3)
    return Noise(
        jax.random.uniform(keys[0], (batch, STEPS)),
        jax.random.normal(keys[1], (batch, STEPS, 3)),
        jax.random.normal(keys[2], (batch, STEPS, what)),
    )


# The spatial transformer. Pixel k of n is a sample at (2 k + 1) / n - 1, so that an image spans
# [-1, 1], as in torch's `grid_sample(align_corners=False)`. Outside it, images are zero.


def gather_bilinear(image: Array, rows: Array, cols: Array) -> Array:
    """Samples on a grid of fractional pixels: image [h, w], rows [m], cols [n] -> [m, n].

    Two gathers of rows, then two of columns. A border of zeros takes every index outside.
    """

    def corners(at: Array, size: int) -> tuple[Array, Array, Array]:
        low = jnp.floor(at)
        index = low.astype(jnp.int32) + 1
        return jnp.clip(index, 0, size + 1), jnp.clip(index + 1, 0, size + 1), at - low

    padded = jnp.pad(image, 1)
    top, bottom, down = corners(rows, image.shape[0])
    left, right, across = corners(cols, image.shape[1])
    lines = padded[top] * (1 - down)[:, None] + padded[bottom] * down[:, None]
    return lines[:, left] * (1 - across) + lines[:, right] * across


def tent_bilinear(image: Array, rows: Array, cols: Array) -> Array:
    """What `gather_bilinear` gives, as two products with matrices of interpolation weights.

    Pixel k has weight max(0, 1 - |row - k|): equation 5 of Jaderberg et al. (2015). Here the
    transform has no rotation, so the sum separates. Its gradient needs no scatter.
    """
    down = jnp.maximum(1 - jnp.abs(rows[:, None] - jnp.arange(image.shape[0])), 0)
    across = jnp.maximum(1 - jnp.abs(cols[:, None] - jnp.arange(image.shape[1])), 0)
    return down @ image @ across.T


def attend(image: Array, where: Array, window: int, sampler: Sampler) -> Array:
    """Cut out the window at `where`: image [c, c], where [3] -> [w, w]."""
    scale, x, y = where
    centres = (2 * jnp.arange(window) + 1) / window - 1
    pixel = lambda u: ((u + 1) * image.shape[0] - 1) / 2  # noqa: E731
    return sampler(image, pixel((centres - y) / scale), pixel((centres - x) / scale))


def place(window: Array, where: Array, canvas: int, sampler: Sampler) -> Array:
    """Put a window on an empty canvas, the inverse of `attend`: [w, w], [3] -> [c, c]."""
    scale, x, y = where
    centres = (2 * jnp.arange(canvas) + 1) / canvas - 1
    pixel = lambda u: ((u + 1) * window.shape[0] - 1) / 2  # noqa: E731
    return sampler(window, pixel(scale * centres + y), pixel(scale * centres + x))


def lstm(gates: Array, cell: Array) -> tuple[Array, Array]:
    """The new state and cell from summed gates: [4 * s], [s] -> [s], [s]."""
    into, forget, new, out = jnp.split(gates, 4)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
    return jax.nn.sigmoid(out) * jnp.tanh(cell), cell


def encode(net: dict[str, Array], window: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of `what`: [w, w] -> [50], [50]."""
    hidden = jax.nn.relu(window.ravel() @ net["w1"] + net["b1"])
    mean, raw_sd = jnp.split(hidden @ net["w2"] + net["b2"], 2)
    return mean, jax.nn.softplus(raw_sd)


def decode(net: dict[str, Array], what: Array) -> Array:
    """The window that `what` stands for, with values in [0, 1]: [50] -> [w, w]."""
    hidden = jax.nn.relu(what @ net["w1"] + net["b1"])
    pixels = jax.nn.sigmoid(hidden @ net["w2"] + net["b2"])
    side = math.isqrt(pixels.size)
    return pixels.reshape(side, side)


def log_ratio(sample: Array, noise: Array, sd: Array, prior_mean: Any, prior_sd: Any) -> Array:
    """Sum of log p - log q of normal samples; q's density is that of the noise, over sd."""
    standard = (sample - jnp.asarray(prior_mean)) / jnp.asarray(prior_sd)
    return jnp.sum(0.5 * (noise**2 - standard**2) + jnp.log(sd / jnp.asarray(prior_sd)))


def trajectory(
    params: Params, image: Array, noise: Noise, sampler: Sampler = gather_bilinear
) -> Trajectory:
    """Run the guide over one image [c, c], and decode what it finds."""
    rnn, predict = params["rnn"], params["predict"]
    window = math.isqrt(params["decoder"]["b2"].size)
    where, what = jnp.zeros(3), jnp.zeros(noise.what.shape[1])
    state = cell = jnp.zeros(rnn["w_state"].shape[0])
    seen = image.ravel() @ rnn["w_image"] + rnn["b"]  # the same in every step
    logits, objects, log_ratios = [], [], []
    for i in range(STEPS):
        last = jnp.concatenate([where, what]) @ rnn["w_object"]
        state, cell = lstm(seen + last + state @ rnn["w_state"], cell)
        guess = state @ predict["w"] + predict["b"]
        where_sd = jax.nn.softplus(guess[4:7])
        where = guess[1:4] + where_sd * noise.where[i]
        what_mean, what_sd = encode(params["encoder"], attend(image, where, window, sampler))
        what = what_mean + what_sd * noise.what[i]
        logits.append(guess[0])
        objects.append(place(decode(params["decoder"], what), where, image.shape[0], sampler))
        log_ratios.append(
            log_ratio(where, noise.where[i], where_sd, WHERE_MEAN, WHERE_SD)
            + log_ratio(what, noise.what[i], what_sd, 0.0, 1.0)
        )
    return Trajectory(jnp.stack(logits), jnp.stack(objects), jnp.stack(log_ratios))


def log_counts(logits: Array) -> Array:
    """Log probabilities of the counts 0..3 from log odds of going on: [3] -> [4]."""
    zero = jnp.zeros(1)
    went_on = jnp.cumsum(jax.nn.log_sigmoid(logits))
    return jnp.concatenate([zero, went_on]) + jnp.concatenate([jax.nn.log_sigmoid(-logits), zero])


def log_likelihood(image: Array, canvas: Array) -> Array:
    """log p(image | canvas), both [c, c]."""
    constant = math.log(PIXEL_SD) + 0.5 * math.log(2 * math.pi)
    return -0.5 * jnp.sum(((image - canvas) / PIXEL_SD) ** 2) - constant * image.size


def log_weight(image: Array, run: Trajectory, count: Array) -> Array:
    """log p - log q of the image and all variables at one count (an integer) -> []."""
    present = (jnp.arange(STEPS) < count).astype(image.dtype)
    canvas = jnp.tensordot(present, run.objects, 1)
    prior = log_counts(jnp.full(STEPS, PRIOR_LOGIT))
    return (
        log_likelihood(image, canvas)
        + present @ run.log_ratios
        + (prior - log_counts(run.logits))[count]
    )


def log_weights(image: Array, run: Trajectory) -> Array:
    """`log_weight` at the four counts 0..3 -> [4], by running sums."""
    empty = jnp.zeros((1, *image.shape))
    canvases = jnp.concatenate([empty, jnp.cumsum(run.objects, axis=0)])
    ratios = jnp.concatenate([jnp.zeros(1), jnp.cumsum(run.log_ratios)])
    prior = log_counts(jnp.full(STEPS, PRIOR_LOGIT))
    likelihoods = jax.vmap(log_likelihood, (None, 0))(image, canvases)
    return likelihoods + ratios + prior - log_counts(run.logits)


# Estimators: (image, trajectory, uniforms [3]) -> (surrogate, estimate of the ELBO). The gradient
# of the surrogate is an unbiased estimate of the ELBO's gradient.

Estimator = Callable[[Array, Trajectory, Array], tuple[Array, Array]]


def reinforce(image: Array, run: Trajectory, uniforms: Array) -> tuple[Array, Array]:
    """The score function: the log weight times the gradient of the count's log probability."""
    went_on = jnp.cumprod(uniforms < jax.nn.sigmoid(run.logits))
    count = jnp.sum(went_on)
    elbo = log_weight(image, run, count)
    return elbo + jax.lax.stop_gradient(elbo) * log_counts(run.logits)[count], elbo


def enum(image: Array, run: Trajectory, uniforms: Array) -> tuple[Array, Array]:
    """The exact expectation over the counts; `uniforms` are not used."""
    elbo = jnp.exp(log_counts(run.logits)) @ log_weights(image, run)
    return elbo, elbo


def mvd(image: Array, run: Trajectory, uniforms: Array) -> tuple[Array, Array]:
    """Measure-valued: at each step reached, the difference that an object there makes.

    If it is present the run goes on with the uniforms of later steps; if not, the count is i.
    """
    chances = jax.nn.sigmoid(run.logits)
    on = uniforms < chances
    weights = jax.lax.stop_gradient(log_weights(image, run))
    count, gains = jnp.asarray(STEPS), []
    for i in reversed(range(STEPS)):  # before step i, `count` is the one that `on` at i leads to
        gains.append(weights[count] - weights[i])
        count = jnp.where(on[i], count, i)
    reached = jnp.arange(STEPS) <= count
    elbo = log_weight(image, run, count)
    return elbo + jnp.sum(jnp.where(reached, chances * jnp.stack(gains[::-1]), 0.0)), elbo


ESTIMATORS: dict[str, Estimator] = {"reinforce": reinforce, "enum": enum, "mvd": mvd}


def losses_at(
    params: Params,
    images: Array,
    noise: Noise,
    estimator: str = "enum",
    sampler: Sampler = gather_bilinear,
) -> tuple[Array, Array]:
    """Means over a batch [n, c, c] at given noise: (surrogate loss, negative ELBO estimate)."""

    def one(image: Array, noise: Noise) -> tuple[Array, Array]:
        run = trajectory(params, image, noise, sampler)
        return ESTIMATORS[estimator](image, run, noise.present)

    surrogates, elbos = jax.vmap(one)(images, noise)
    return -jnp.mean(surrogates), -jnp.mean(elbos)


def make_gradient(
    estimator: str, sampler: Sampler = gather_bilinear
) -> Callable[[Params, Array, Array], tuple[Array, Params]]:
    """A compiled function (params, images [n, c, c], key) -> (negative ELBO, gradient)."""

    def losses(params: Params, images: Array, key: Array) -> tuple[Array, Array]:
        noise = draw_noise(params, key, len(images))
        return losses_at(params, images, noise, estimator, sampler)

    @jax.jit
    def gradient(params: Params, images: Array, key: Array) -> tuple[Array, Params]:
        (_, loss), grad = jax.value_and_grad(losses, has_aux=True)(params, images, key)
        return loss, grad

    return gradient


def make_step(
    estimator: str, sampler: Sampler = gather_bilinear, rate: float = RATE
) -> tuple[optax.GradientTransformation, Callable[..., tuple[Params, Any, Array]]]:
    """Adam, and a compiled function (params, state, images, key) -> (params, state, loss)."""
    optimizer = optax.adam(rate)
    gradient = make_gradient(estimator, sampler)

    @jax.jit
    def step(params: Params, state: Any, images: Array, key: Array) -> tuple[Params, Any, Array]:
        loss, grad = gradient(params, images, key)
        moves, state = optimizer.update(grad, state)
        return optax.apply_updates(params, moves), state, loss

    return optimizer, step
