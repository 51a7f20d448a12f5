"""The same key gives the same numbers as `jax.random`, on every backend."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import wengert as wg

TEXT = """
fn bits(k: key): return random_bits(k, (7, 3))
fn unit(k: key): return uniform(k, (100,))
fn gauss(k: key): return normal(k, (100,))
fn noise(k: key): return gumbel(k, (50,))
fn coins(k: key): return bernoulli(k, 0.3, (200,))
fn order(k: key): return permutation(k, 37)
fn dice(k: key): return randint(k, (50,), 1, 7)
fn pick(k: key, logits: real[n, m]): return categorical(k, logits)
fn keys(k: key): return split(k, 3)
fn folded(k: key, i: i32): return fold_in(k, i)
"""
KEY = jax.random.key(42)
OURS = wg.key(42)


@pytest.fixture(params=["interp", "llvm", "xla"])
def program(request):
    return wg.compile(TEXT, backend=request.param)


def test_integers_are_equal_bit_for_bit(program):
    np.testing.assert_array_equal(program.bits(OURS), jax.random.bits(KEY, (7, 3)))
    np.testing.assert_array_equal(program.coins(OURS), jax.random.bernoulli(KEY, 0.3, (200,)))
    np.testing.assert_array_equal(program.order(OURS), jax.random.permutation(KEY, 37))
    np.testing.assert_array_equal(program.dice(OURS), jax.random.randint(KEY, (50,), 1, 7))
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.testing.assert_array_equal(program.pick(OURS, logits), jax.random.categorical(KEY, logits))


def test_keys_split_and_fold_as_jax(program):
    np.testing.assert_array_equal(program.keys(OURS), jax.random.key_data(jax.random.split(KEY, 3)))
    want = jax.random.key_data(jax.random.fold_in(KEY, 9))
    np.testing.assert_array_equal(program.folded(OURS, 9), want)


def test_floats_agree_to_rounding(program):
    np.testing.assert_array_equal(program.unit(OURS), jax.random.uniform(KEY, (100,)))
    np.testing.assert_allclose(
        program.gauss(OURS), jax.random.normal(KEY, (100,)), rtol=3e-6, atol=1e-7
    )
    np.testing.assert_allclose(
        program.noise(OURS), jax.random.gumbel(KEY, (50,)), rtol=1e-5, atol=1e-6
    )


def test_f64_draws_are_those_of_jax_in_64_bit_mode(program):
    wide = program.with_options(real="f64")
    with jax.enable_x64(True):
        want = np.asarray(jax.random.uniform(KEY, (100,), np.float64))
        gauss = np.asarray(jax.random.normal(KEY, (100,), np.float64))
    np.testing.assert_array_equal(wide.unit(OURS), want)
    np.testing.assert_allclose(wide.gauss(OURS), gauss, rtol=1e-12, atol=1e-14)


def test_seeds_are_those_of_jax():
    for seed in (0, 1, -1, 2**31, 12345):
        np.testing.assert_array_equal(wg.key(seed), jax.random.key_data(jax.random.key(seed)))


def test_sample_means_split_the_key_once(program):
    text = "fn f(k: key, m: real): return (normal(k) + m)^2"
    f = wg.compile(text, backend=program.backend).f
    keys = jax.random.split(KEY, 16)
    want = np.mean([(float(jax.random.normal(k)) + 1.0) ** 2 for k in keys])
    np.testing.assert_allclose(f(OURS, 1.0, samples=16), want, rtol=1e-5)
