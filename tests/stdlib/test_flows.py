"""flows.wg: inverses, and log determinants against Jacobians."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wengert as wg

TEXT = """
import flows
fn coupling_init(k: key, n: static int): return flows.coupling_init(k, n, 3, 8)
fn coupling(layers, z): return flows.coupling_forward(layers, z)
fn coupling_inverse(layers, u): return flows.coupling_inverse(layers, u)
fn coupling_slopes(layers, z): return jacobian(lambda v: flows.coupling_forward(layers, v)[0], z)
fn planar_init(k: key, n: static int): return flows.planar_init(k, n, 3)
fn planar(layers, z): return flows.planar_forward(layers, z)
fn planar_slopes(layers, z): return jacobian(lambda v: flows.planar_forward(layers, v)[0], z)
"""


@pytest.fixture(scope="module")
def program() -> wg.Program:
    return wg.compile(TEXT, real="f64")


def moved(value: Any, rng: Any) -> Any:
    """Parameters far from those of `_init`."""
    if isinstance(value, dict):
        return {k: moved(v, rng) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(v, rng) for v in value)
    return value + 0.5 * rng.normal(size=np.shape(value))


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("flow", ["coupling", "planar"])
def test_log_determinant(program: wg.Program, flow: str, n: int) -> None:
    rng = np.random.default_rng(n)
    layers = moved(getattr(program, f"{flow}_init")(wg.key(0), n), rng)
    z = rng.normal(size=n)
    u, logdet = getattr(program, flow)(layers, z)
    sign, want = np.linalg.slogdet(getattr(program, f"{flow}_slopes")(layers, z))
    assert sign == 1 and not np.allclose(u, z, atol=0.1)
    assert logdet == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_coupling_inverse(program: wg.Program, n: int) -> None:
    rng = np.random.default_rng(n)
    layers = moved(program.coupling_init(wg.key(1), n), rng)
    z = rng.normal(size=n)
    u, logdet = program.coupling(layers, z)
    back, same = program.coupling_inverse(layers, u)
    np.testing.assert_allclose(back, z, rtol=1e-9, atol=1e-12)
    assert same == pytest.approx(logdet, rel=1e-9)


@pytest.mark.parametrize("flow", ["coupling", "planar"])
def test_flows_start_at_the_identity(program: wg.Program, flow: str) -> None:
    layers = getattr(program, f"{flow}_init")(wg.key(0), 4)
    z = np.array([0.3, -1.0, 2.0, 0.1])
    u, logdet = getattr(program, flow)(layers, z)
    np.testing.assert_allclose(u, z, atol=1e-4)
    assert logdet == pytest.approx(0.0, abs=1e-4)


def test_planar_layers_stay_invertible(program: wg.Program) -> None:
    """w v far below -1 is brought above it: the map of one number keeps the order."""
    layers = ({"w": np.array([2.0]), "v": np.array([-9.0]), "b": 0.1},)
    z = np.linspace(-3, 3, 61)
    us = [float(program.planar(layers, np.array([v]))[0][0]) for v in z]
    assert (np.diff(us) > 0).all()
