"""The models of examples/eight_schools.wg and logistic.wg in NumPyro, and long NUTS runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS


def eight_schools(y: Any, error: Any) -> None:
    """Effects mu + tau eta."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    eta = numpyro.sample("eta", dist.Normal(0.0, 1.0).expand([len(error)]))
    effect = numpyro.deterministic("effect", mu + tau * eta)
    numpyro.sample("y", dist.Normal(effect, error), obs=y)


def logistic(y: Any, x: Any) -> None:
    """Labels from standardised features."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.5))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([x.shape[1]]))
    numpyro.sample("y", dist.BernoulliLogits(intercept + x @ slope), obs=y)


def nuts(
    model: Callable[..., None], *args: Any, draws: int, chains: int = 4, accept: float = 0.9
) -> dict[str, np.ndarray[Any, Any]]:
    """Draws of a long run by name, chains joined. Numbers of double precision."""
    with jax.enable_x64(True):
        kernel = NUTS(model, target_accept_prob=accept)
        run = MCMC(
            kernel,
            num_warmup=2000,
            num_samples=draws,
            num_chains=chains,
            chain_method="sequential",
            progress_bar=False,
        )
        run.run(jax.random.key(0), *args)
        return {k: np.asarray(v) for k, v in run.get_samples().items()}
