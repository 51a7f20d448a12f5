"""The cone model in hand-written JAX: ELBO, IWELBO and a compiled run of gradient ascent.

Model: x, y ~ normal(0, 10); rs = x^2 + y^2; z ~ normal(rs, 0.1 + rs / 100), and z is observed.
Guide: x ~ normal(phi[0], exp(phi[1])), y ~ normal(phi[2], exp(phi[3])). The second argument of
`normal` is a standard deviation.

Every estimate has two forms. One takes the guide's standard normal noise as an argument, so that
another implementation can be checked against it number for number; the other draws the noise from
a key, for all particles at once, which is how the loop of `make_fit` uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

OBSERVED = 5.0
PARTICLES, INNER = 64, 5
STEPS, RATE = 5000, 1e-3
# From here plain ascent with this rate stays smooth and ends in an optimum of either objective.
INITIAL = (2.0, -2.0, 1.0, -2.0)

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
Objective = Callable[[Array, Array | float, Array], Array]
Fit = Callable[[Array, Array | float, Array], tuple[Array, Array]]


def log_normal(x: Array | float, mean: Array | float, sd: Array | float) -> Array:
    """The log density of a normal distribution; cheaper than `norm.logpdf`, which squares sd."""
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - HALF_LOG_TWO_PI


def log_joint(x: Array, y: Array, z: Array | float) -> Array:
    """log p(x, y, z), of scalars."""
    rs = x**2 + y**2
    return log_normal(x, 0.0, 10.0) + log_normal(y, 0.0, 10.0) + log_normal(z, rs, 0.1 + rs / 100)


def log_weight(phi: Array, z: Array | float, noise: Array) -> Array:
    """log p(x, y, z) - log q(x, y) at the guide's sample: phi [4], noise [2] -> [].

    The guide's density is that of the noise, divided by the two standard deviations.
    """
    x = phi[0] + jnp.exp(phi[1]) * noise[0]
    y = phi[2] + jnp.exp(phi[3]) * noise[1]
    log_guide = log_normal(noise[0], 0.0, 1.0) + log_normal(noise[1], 0.0, 1.0) - phi[1] - phi[3]
    return log_joint(x, y, z) - log_guide


def elbo_at(phi: Array, z: Array | float, noise: Array) -> Array:
    """The ELBO estimate at given noise: phi [4], noise [2, particles] -> []."""
    return jnp.mean(jax.vmap(log_weight, (None, None, 1))(phi, z, noise))


def iwelbo_at(phi: Array, z: Array | float, noise: Array) -> Array:
    """The IWELBO estimate at given noise: phi [4], noise [2, inner, particles] -> []."""
    over_particles = jax.vmap(log_weight, (None, None, 1))
    log_weights = jax.vmap(over_particles, (None, None, 1))(phi, z, noise)  # [inner, particles]
    return jnp.mean(logsumexp(log_weights, axis=0)) - math.log(noise.shape[1])


def elbo(phi: Array, z: Array | float, key: Array, particles: int = PARTICLES) -> Array:
    """The ELBO estimate over fresh samples."""
    return elbo_at(phi, z, jax.random.normal(key, (2, particles)))


def iwelbo(
    phi: Array, z: Array | float, key: Array, particles: int = PARTICLES, inner: int = INNER
) -> Array:
    """The estimate of IWELBO(inner), the mean of `particles` independent ones."""
    return iwelbo_at(phi, z, jax.random.normal(key, (2, inner, particles)))


def make_fit(objective: Objective = elbo, steps: int = STEPS, rate: float = RATE) -> Fit:
    """A compiled function (phi [4], z, key) -> (phi [4], losses [steps]): gradient ascent.

    `losses[i]` is the negative estimate of the objective before step i.
    """
    value_and_grad = jax.value_and_grad(objective)

    @jax.jit
    def fit(phi: Array, z: Array | float, key: Array) -> tuple[Array, Array]:
        def step(phi: Array, key: Array) -> tuple[Array, Array]:
            value, grad = value_and_grad(phi, z, key)
            return phi + rate * grad, -value

        return jax.lax.scan(step, phi, jax.random.split(key, steps))

    return fit
