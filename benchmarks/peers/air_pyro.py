"""The Attend-Infer-Repeat model and guide of `air_jax` in Pyro: one SVI step on a batch.

`reinforce` is `TraceGraph_ELBO` (score function for the presences, each with the costs that depend
on it), `enum` is `TraceEnum_ELBO` with the presences enumerated in parallel. Pyro has no
measure-valued estimator. Networks are torch modules; spatial transformers are torch's own.

Measured on two cores: the `JitTrace...` forms of the losses were no faster, and while other
processes ran, torch with two threads took ten times as long as with one (`use_best_threads`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from peers.air_jax import PIXEL_SD, PRESENT, RATE, STEPS, TUTORIAL, WHERE_MEAN, WHERE_SD, Sizes
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor, nn
from torch.nn import functional as F

ESTIMATORS = {"reinforce": TraceGraph_ELBO, "enum": TraceEnum_ELBO}


def sample_grid(images: Tensor, scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """Bilinear samples at `scale * u + shift`: [n, s, s], [n], [n, 2] -> [n, size, size]."""
    across = torch.stack([scale, torch.zeros_like(scale), shift[:, 0]], 1)
    down = torch.stack([torch.zeros_like(scale), scale, shift[:, 1]], 1)
    transform = torch.stack([across, down], 1)
    grid = F.affine_grid(transform, [len(images), 1, size, size], align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


class Air(nn.Module):
    """Networks, model and guide. Images are [n, canvas, canvas]."""

    def __init__(self, sizes: Sizes = TUTORIAL, enumerate_counts: bool = False) -> None:
        super().__init__()
        canvas, window, what, state, hidden = sizes
        self.sizes = sizes
        self.infer = {"enumerate": "parallel"} if enumerate_counts else {}
        self.rnn = nn.LSTMCell(canvas**2 + 3 + what, state)
        self.predict = nn.Linear(state, 7)
        self.encoder = nn.Sequential(
            nn.Linear(window**2, hidden), nn.ReLU(), nn.Linear(hidden, 2 * what)
        )
        self.decoder = nn.Sequential(
            nn.Linear(what, hidden), nn.ReLU(), nn.Linear(hidden, window**2), nn.Sigmoid()
        )

    def attend(self, images: Tensor, where: Tensor) -> Tensor:
        """Windows at where [n, 3], flat: [n, window ** 2]."""
        scale = where[:, :1]
        return sample_grid(
            images, 1 / scale[:, 0], -where[:, 1:] / scale, self.sizes.window
        ).flatten(1)

    def place(self, windows: Tensor, where: Tensor) -> Tensor:
        """Windows [n, window ** 2] on empty canvases [n, canvas, canvas]."""
        windows = windows.view(-1, self.sizes.window, self.sizes.window)
        return sample_grid(windows, where[:, 0], where[:, 1:], self.sizes.canvas)

    def model(self, images: Tensor) -> None:
        """Up to three objects, while there are any, and the canvas that shows them."""
        pyro.module("air", self)
        n = len(images)
        where_mean, where_sd = images.new_tensor(WHERE_MEAN), images.new_tensor(WHERE_SD)
        what_mean = images.new_zeros(self.sizes.what)
        present, canvas = images.new_ones(n), torch.zeros_like(images)
        with pyro.plate("images", n), poutine.scale(scale=1 / n):
            for i in range(STEPS):
                present = pyro.sample(f"present_{i}", dist.Bernoulli(PRESENT * present))
                with poutine.mask(mask=present.bool()):
                    where = pyro.sample(
                        f"where_{i}", dist.Normal(where_mean, where_sd).expand([n, 3]).to_event(1)
                    )
                    what = pyro.sample(
                        f"what_{i}",
                        dist.Normal(what_mean, 1.0).expand([n, self.sizes.what]).to_event(1),
                    )
                canvas = canvas + present[..., None, None] * self.place(self.decoder(what), where)
            pyro.sample("image", dist.Normal(canvas, PIXEL_SD).to_event(2), obs=images)

    def guide(self, images: Tensor) -> None:
        """The LSTM's guess of each step's variables."""
        n = len(images)
        flat = images.flatten(1)
        present, where = images.new_ones(n), images.new_zeros(n, 3)
        what = images.new_zeros(n, self.sizes.what)
        state = cell = images.new_zeros(n, self.sizes.state)
        with pyro.plate("images", n), poutine.scale(scale=1 / n):
            for i in range(STEPS):
                state, cell = self.rnn(torch.cat([flat, where, what], 1), (state, cell))
                guess = self.predict(state)
                chance = torch.sigmoid(guess[:, 0]) * present
                present = pyro.sample(f"present_{i}", dist.Bernoulli(chance), infer=self.infer)
                with poutine.mask(mask=present.bool()):
                    where = pyro.sample(
                        f"where_{i}",
                        dist.Normal(guess[:, 1:4], F.softplus(guess[:, 4:])).to_event(1),
                    )
                    mean, raw_sd = self.encoder(self.attend(images, where)).chunk(2, 1)
                    what = pyro.sample(
                        f"what_{i}", dist.Normal(mean, F.softplus(raw_sd)).to_event(1)
                    )


def load(air: Air, params: dict[str, dict[str, Any]]) -> None:
    """Copy the parameters of `air_jax` into the torch modules."""

    def put(target: Tensor, *arrays: Any) -> None:
        joined = np.concatenate([np.asarray(a) for a in arrays]).T
        target.data.copy_(torch.from_numpy(joined.copy()))

    rnn = params["rnn"]
    put(air.rnn.weight_ih, rnn["w_image"], rnn["w_object"])
    put(air.rnn.weight_hh, rnn["w_state"])
    put(air.rnn.bias_ih, rnn["b"])
    nn.init.zeros_(air.rnn.bias_hh)
    put(air.predict.weight, params["predict"]["w"])
    put(air.predict.bias, params["predict"]["b"])
    for name, net in (("encoder", air.encoder), ("decoder", air.decoder)):
        for layer, k in ((net[0], 1), (net[2], 2)):
            put(layer.weight, params[name][f"w{k}"])
            put(layer.bias, params[name][f"b{k}"])


def make_step(
    estimator: str,
    params: dict[str, dict[str, Any]] | None = None,
    sizes: Sizes = TUTORIAL,
    rate: float = RATE,
) -> tuple[Air, Callable[[Tensor], float]]:
    """The networks, and a function (images [n, c, c]) -> loss that takes one step of Adam.

    The loss is the mean negative ELBO. `params` are those of `air_jax`; without them torch's
    initial weights are used. This empties Pyro's parameter store, so that only the latest step
    function may be called.
    """
    pyro.clear_param_store()
    air = Air(sizes, enumerate_counts=estimator == "enum")
    if params is not None:
        load(air, params)
    elbo = ESTIMATORS[estimator](max_plate_nesting=1)
    svi = SVI(air.model, air.guide, pyro.optim.Adam({"lr": rate}), elbo)

    def step(images: Tensor) -> float:
        with pyro.validation_enabled(False):  # its checks of every site cost time
            return svi.step(images)

    return air, step


def use_best_threads(step: Callable[[Tensor], float], images: Tensor, steps: int = 5) -> int:
    """Take a few steps with one thread and with all, and keep the faster number for torch."""
    seconds = {}
    for threads in {1, torch.get_num_threads()}:
        torch.set_num_threads(threads)
        step(images)
        start = time.perf_counter()
        for _ in range(steps):
            step(images)
        seconds[threads] = time.perf_counter() - start
    best = min(seconds, key=lambda threads: seconds[threads])
    torch.set_num_threads(best)
    return best
