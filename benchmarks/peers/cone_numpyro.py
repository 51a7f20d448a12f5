"""The cone model of `cone_jax` in NumPyro: SVI with `Trace_ELBO`, its loop compiled."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer import SVI, Trace_ELBO
from peers.cone_jax import INITIAL, PARTICLES, RATE, STEPS


def model(z: Array | float) -> None:
    """x, y ~ normal(0, 10); z ~ normal(x^2 + y^2, 0.1 + (x^2 + y^2) / 100), observed."""
    x = numpyro.sample("x", dist.Normal(0.0, 10.0))
    y = numpyro.sample("y", dist.Normal(0.0, 10.0))
    rs = x**2 + y**2
    numpyro.sample("z", dist.Normal(rs, 0.1 + rs / 100), obs=z)


def guide(z: Array | float) -> None:
    """The naive mean-field guide, with one parameter phi [4]."""
    phi = numpyro.param("phi", jnp.asarray(INITIAL))
    numpyro.sample("x", dist.Normal(phi[0], jnp.exp(phi[1])))
    numpyro.sample("y", dist.Normal(phi[2], jnp.exp(phi[3])))


def make_svi(particles: int = PARTICLES, rate: float = RATE) -> SVI:
    """The inference object: plain gradient descent on the negative ELBO."""
    optimizer = numpyro.optim.SGD(rate)
    return SVI(model, guide, optimizer, Trace_ELBO(num_particles=particles))


def make_fit(
    steps: int = STEPS, particles: int = PARTICLES, rate: float = RATE
) -> Callable[[Array, Array | float, Array], tuple[Array, Array]]:
    """A compiled function (phi [4], z, key) -> (phi [4], losses [steps]).

    `svi.run` scans over a function that it makes anew in each call, so that every bare call is
    traced and compiled again. Under `jax.jit` that happens once.
    """
    svi = make_svi(particles, rate)

    @jax.jit
    def fit(phi: Array, z: Array | float, key: Array) -> tuple[Array, Array]:
        result = svi.run(key, steps, z, progress_bar=False, init_params={"phi": phi})
        return result.params["phi"], result.losses

    return fit
