"""The kinds of guides that can be written for a model: their text and where their fit starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...frontend import program as front
from ..keys import key as make_key
from ..values import Array

FIRST_SCALE = 0.1  # of a guide's numbers where the fit starts
SCALE = float(np.log(FIRST_SCALE))

Start = Callable[[Array, int], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """A kind of guide of n unconstrained numbers u, with parameters in a record `phi`.

    title: what it is, for the first line of the text. imports: of the library.
    declarations: text that declares `guide approximation` and what else is needed; {n} is n.
    run: the guide with its arguments. steps: statements from its trace `t` to `u`.
    density: log q(u) where `phi` is known, `stopped` that with constant parameters, for gradients
    that vanish where q is the posterior (Roeder et al. 2017). start: (u, size option) -> phi.
    rate: of adam, for a start. least: how many numbers it needs.
    """

    title: str
    imports: tuple[str, ...]
    declarations: str
    run: str
    steps: tuple[str, ...]
    density: str
    stopped: str
    start: Start
    rate: float = 0.05
    least: int = 1


def _normal(title: str, doc: str, distribution: str, start: Start) -> Family:
    declarations = f'''guide approximation(phi):
    "{doc}"
    scale = exp(phi.log_scale)
    u ~ {distribution}
'''
    return Family(
        title,
        (),
        declarations,
        "approximation(phi)",
        ("u = t.u",),
        "score(t)",
        "logpdf(approximation(stop_gradient(phi)), t)",
        start,
    )


def _mean_field(at: Array, size: int) -> dict[str, Any]:
    return {"loc": at, "log_scale": np.full_like(at, SCALE)}


def _full_rank(at: Array, size: int) -> dict[str, Any]:
    return _mean_field(at, size) | {"below": np.zeros((len(at), len(at)))}


def _low_rank(at: Array, size: int) -> dict[str, Any]:
    columns = np.random.default_rng(0).normal(size=(len(at), size)) / np.sqrt(size)
    return _mean_field(at, size) | {"columns": columns}


FLOW = """guide approximation():
    "Standard normal numbers, which a flow maps to u."
    z ~ mvn_diag(zeros({n}), ones({n}))

fn onto_u(phi, z):
    "(u, log determinant): layers, then a scale and a shift of every number."
    y, logdet = flows.{flow}_forward(phi.layers, z)
    return (phi.loc + exp(phi.log_scale) * y, logdet + sum(phi.log_scale))
"""
INVERSE = """
fn log_q(phi, u):
    "Log density of u, from the z that the flow maps to it."
    z, logdet = flows.coupling_inverse(phi.layers, (u - phi.loc) * exp(-phi.log_scale))
    return logpdf(approximation(), {{z}}) - logdet - sum(phi.log_scale)
"""
WIDTH = 32  # hidden features of a coupling layer


def _layers(name: str, *args: Any) -> Any:
    """What an `_init` function of flows.wg makes."""
    from ..program import Program

    flows = Program(front.library("flows"), real="f64")
    return getattr(flows, f"{name}_init")(make_key(0), *args)


def _coupling(at: Array, size: int) -> dict[str, Any]:
    return _mean_field(at, size) | {"layers": _layers("coupling", len(at), size, WIDTH)}


def _planar(at: Array, size: int) -> dict[str, Any]:
    return _mean_field(at, size) | {"layers": _layers("planar", len(at), size)}


FAMILIES: dict[str, Family] = {
    "mean_field": _normal(
        "A mean-field normal guide",
        "Independent normal numbers.",
        "mvn_diag(phi.loc, scale)",
        _mean_field,
    ),
    "full_rank": _normal(
        "A full-rank normal guide",
        "Normal numbers of any covariance.",
        "mvn_cholesky(phi.loc, scale[:, None] * (eye({n}) + tril(phi.below, -1) / sqrt({n})))",
        _full_rank,
    ),
    "low_rank": _normal(
        "A low-rank normal guide",
        "Normal numbers with the covariance of a few columns and noise.",
        "mvn_lowrank(phi.loc, scale[:, None] * phi.columns, scale * scale)",
        _low_rank,
    ),
    "flow": Family(
        "A normalising flow of coupling layers",
        ("flows",),
        FLOW.replace("{flow}", "coupling") + INVERSE,
        "approximation()",
        ("u, logdet = onto_u(phi, t.z)",),
        "(score(t) - logdet)",
        "log_q(stop_gradient(phi), u)",
        _coupling,
        rate=0.01,
        least=2,
    ),
    "planar": Family(
        "A planar normalising flow",
        ("flows",),
        FLOW.replace("{flow}", "planar"),
        "approximation()",
        ("u, logdet = onto_u(phi, t.z)",),
        "(score(t) - logdet)",
        "(score(t) - logdet)",
        _planar,
        rate=0.02,
    ),
}
SIZES = {"low_rank": 5, "flow": 4, "planar": 8}  # columns or layers, where nothing is asked
