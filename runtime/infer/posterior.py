"""What variational inference gives: draws, their weights, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..errors import BackendError, CallError
from ..fit import FitResult
from ..function import check_samples
from ..keys import key as make_key
from ..keys import split_key
from ..values import Array
from .guides import Guide
from .problem import flat
from .psis import Smoothed, psis

CHUNK = 500  # draws that one call makes
JUDGED = 2000  # draws that the diagnostics look at
SEED = 1  # of draws where no key is given


class Posterior:
    """A fitted guide in place of the posterior.

    guide: with its text, `.guide.source`; fit: the result of `wg.fit`, `.params` with the guide's
    parameters; elbo: the objective before each step, `[steps]`.
    """

    def __init__(self, guide: Guide, fit: FitResult) -> None:
        self.guide = guide
        self.fit = fit
        self._drawn: tuple[Any, dict[str, Any]] | None = None

    @property
    def params(self) -> dict[str, Any]:
        """The guide's parameters."""
        found: dict[str, Any] = self.fit.params["phi"]
        return found

    @property
    def elbo(self) -> Array:
        """The estimate of the evidence lower bound before each step, `[steps]`."""
        return self.fit.losses

    def sample(self, n: int = 1000, key: Any = None) -> dict[str, Any]:
        """n draws of the latent choices: nested dicts by address, with a new first axis.

        Equal keys (`wg.key(1)` by default) give equal draws here, in `returned` and
        `log_weights`. Discrete choices that were summed out are not among them.
        """
        found: dict[str, Any] = self._draws(n, key)["choices"]
        return found

    def returned(self, n: int = 1000, key: Any = None) -> Any:
        """What the model returns at n draws. CallError where that is nothing, or not known
        because discrete choices were summed out.
        """
        drawn = self._draws(n, key)
        if "value" not in drawn:
            problem = self.guide.problem
            raise CallError(
                f"what the model '{problem.model.__name__}' returns is not known",
                problem.model.decl.span,
                found=f"{', '.join(problem.summed)} summed out" if problem.summed else "nothing",
            )
        return drawn["value"]

    def log_weights(self, n: int = 1000, key: Any = None) -> Array:
        """log p(choices, data) - log q(choices) of n draws: importance weights, not normalised."""
        return np.asarray(self._draws(n, key)["log_weight"], np.float64)

    # Diagnostics

    @cached_property
    def smoothed(self) -> Smoothed:
        """The importance weights of 2000 draws, smoothed; with k-hat and effective size."""
        return psis(self.log_weights(JUDGED))

    @property
    def khat(self) -> float:
        """Pareto k-hat: below 0.7 the guide is near enough for importance sampling, and likely
        for its own draws too; above, it misses a part of the posterior.
        """
        return self.smoothed.khat

    @property
    def ess(self) -> float:
        """How many independent draws of the posterior 2000 weighted draws are worth."""
        return self.smoothed.ess

    @property
    def log_evidence(self) -> float:
        """Log of the mean weight of 2000 draws: an estimate of log p(data)."""
        return float(logsumexp(self.log_weights(JUDGED)) - np.log(JUDGED))

    def weights(self, n: int = JUDGED, key: Any = None) -> Array:
        """Smoothed importance weights of n draws, with sum 1."""
        return np.exp(psis(self.log_weights(n, key)).log_weights)

    def mean(self, n: int = JUDGED, key: Any = None) -> dict[str, Any]:
        """Posterior means of the latent choices: of n draws with their `weights`, which correct
        what the guide cannot represent. Nested as `sample` gives the draws.
        """
        weights = self.weights(n, key)
        return _each(self.sample(n, key), lambda x: np.tensordot(weights, x, axes=1))

    def summary(self, n: int = JUDGED) -> str:
        """A table of means, deviations and quantiles of n draws, and the diagnostics."""
        head = f"{'':<20} {'mean':>10} {'sd':>10} {'5%':>10} {'50%':>10} {'95%':>10}"
        lines = [head, *(_line(k, v) for k, v in _numbers(self.sample(n)))]
        elbo = self.log_weights(JUDGED).mean()
        trust = "can be trusted" if self.smoothed.reliable else "misses part of the posterior"
        return "\n".join(
            [
                *lines,
                f"ELBO {elbo:.3f}, log evidence about {self.log_evidence:.3f}",
                f"k-hat {self.khat:.2f}: {trust}; {JUDGED} draws are worth {self.ess:.0f}",
            ]
        )

    def to_arviz(self, n: int = 1000, key: Any = None) -> Any:
        """Draws as one chain, and the data, as ArviZ takes them (needs the extra `arviz`)."""
        try:
            import arviz
        except ImportError:
            raise BackendError(
                "ArviZ is not installed", hint="pip install 'wengert[arviz]'"
            ) from None
        draws = {k: np.asarray(v)[None] for k, v in _dotted(self.sample(n, key)).items()}
        groups = {"posterior": draws}
        if self.guide.problem.data:
            groups["observed_data"] = _dotted(self.guide.problem.data)
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict(groups)
        return arviz.from_dict(**groups)

    def __repr__(self) -> str:
        return f"<Posterior of {self.guide.problem.model.__name__}, {self.fit.steps} steps>"

    def _draws(self, n: int, key: Any) -> dict[str, Any]:
        """n draws, in calls of CHUNK; the last ones are kept."""
        if not check_samples(n):
            raise CallError("draws are counted from 1", found=repr(n))
        root = make_key(SEED) if key is None else key
        where = (int(n), np.asarray(root).tobytes())
        if self._drawn is None or self._drawn[0] != where:
            self._drawn = (where, self._draw(int(n), root))
        return self._drawn[1]

    def _draw(self, n: int, key: Any) -> dict[str, Any]:
        given = {"phi": self.params, **self.guide.given}
        shared: dict[str, int | None] = dict.fromkeys(given)
        keys = split_key(key, -(-n // CHUNK) * CHUNK)
        draws = self.guide.program.draws
        parts = [
            draws.batched(**given, key=keys[i : i + CHUNK], axes=shared)
            for i in range(0, len(keys), CHUNK)
        ]
        joined: dict[str, Any] = _joined(parts, n)
        return joined


def _joined(parts: list[Any], n: int) -> Any:
    """The first n draws of nested results."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {k: _joined([p[k] for p in parts], n) for k in first}
    if isinstance(first, tuple):
        return tuple(_joined([p[i] for p in parts], n) for i in range(len(first)))
    return np.concatenate([np.asarray(p) for p in parts])[:n]


def _each(value: Any, change: Callable[[Array], Any]) -> Any:
    if isinstance(value, Mapping):
        return {k: _each(v, change) for k, v in value.items()}
    return change(np.asarray(value))


def _dotted(values: Mapping[str, Any]) -> dict[str, Array]:
    return {k.replace("/", "."): np.asarray(v) for k, v in flat(values).items()}


def _numbers(draws: Mapping[str, Any]) -> list[tuple[str, Array]]:
    """Every single number of the draws with its name, `theta[0]`."""
    out = []
    for name, array in _dotted(draws).items():
        for index in np.ndindex(array.shape[1:]):
            place = f"[{','.join(map(str, index))}]" if index else ""
            out.append((name + place, array[(slice(None), *index)]))
    return out


def _line(name: str, draws: Array) -> str:
    columns = [draws.mean(), draws.std(), *np.quantile(draws, [0.05, 0.5, 0.95])]
    return f"{name:<20} " + " ".join(f"{c:>10.4g}" for c in columns)
