"""The benchmarks' peers run, learn, and agree with each other (extra `bench`)."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
pytestmark = pytest.mark.slow


def peer(name: str, *packages: str):
    """The module `peers.name`, or a skip that names the package it lacks."""
    for package in packages:
        reason = f"the peer {name} needs {package}: pip install -e '.[bench]'"
        pytest.importorskip(package, reason=reason)
    return importlib.import_module(f"peers.{name}")


def assert_same_mean(a, b, what: str) -> None:
    """Two sets of independent samples [n, ...] have means within Monte Carlo error."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    distance = np.abs(a.mean(0) - b.mean(0))
    assert np.all(distance <= 5 * error + 1e-5 * np.abs(a.mean(0)) + 1e-6), (
        f"{what}: {np.max(distance / (error + 1e-12)):.1f} standard errors apart"
    )


def assert_decreases(losses) -> None:
    losses = np.asarray(losses)
    tenth = len(losses) // 10
    assert np.all(np.isfinite(losses))
    assert losses[-tenth:].mean() < losses[:tenth].mean()


# The cone


def cone_fit(name: str, objective: str, steps: int = 5000):
    cone = peer("cone_jax")
    if name == "numpyro":
        fit = peer("cone_numpyro", "numpyro").make_fit(steps)
    else:
        fit = cone.make_fit(getattr(cone, objective), steps)
    return fit(jnp.array(cone.INITIAL), cone.OBSERVED, jax.random.key(0))


@pytest.mark.parametrize(
    "name, objective, best",
    [("jax", "elbo", -8.08), ("numpyro", "elbo", -8.08), ("jax", "iwelbo", -7.54)],
)
def test_cone_reaches_its_optimum(name: str, objective: str, best: float):
    cone = peer("cone_jax")
    phi, losses = cone_fit(name, objective)
    assert_decreases(losses)
    value = getattr(cone, objective)(phi, cone.OBSERVED, jax.random.key(1), 100_000)
    assert float(value) == pytest.approx(best, abs=0.04)


def test_cone_estimates_agree_with_scipy():
    from scipy import stats

    cone = peer("cone_jax")
    phi, z = np.array([0.5, -0.7, 1.5, -1.1]), 5.0
    noise = np.random.default_rng(0).normal(size=(2, 5, 3))
    x, y = phi[0] + np.exp(phi[1]) * noise[0], phi[2] + np.exp(phi[3]) * noise[1]
    rs = x**2 + y**2
    want = stats.norm.logpdf(x, 0, 10) + stats.norm.logpdf(y, 0, 10)
    want += stats.norm.logpdf(z, rs, 0.1 + rs / 100)
    want -= stats.norm.logpdf(x, phi[0], np.exp(phi[1])) + stats.norm.logpdf(
        y, phi[2], np.exp(phi[3])
    )
    np.testing.assert_allclose(
        cone.elbo_at(jnp.array(phi), z, jnp.array(noise[:, 0])), want[0].mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        cone.iwelbo_at(jnp.array(phi), z, jnp.array(noise)),
        np.log(np.exp(want).mean(0)).mean(),
        rtol=1e-4,
    )


def test_numpyro_estimates_the_same_elbo():
    cone, numpyro_cone = peer("cone_jax"), peer("cone_numpyro", "numpyro")
    svi = numpyro_cone.make_svi(particles=64)
    phi = jnp.array([1.0, -1.0, 1.5, -1.0])

    def numpyro_loss(phi, key):
        return svi.loss.loss(key, {"phi": phi}, svi.model, svi.guide, 5.0)

    def jax_loss(phi, key):
        return -cone.elbo(phi, 5.0, key)

    def over_keys(loss, keys):
        values, grads = jax.lax.map(lambda key: jax.value_and_grad(loss)(phi, key), keys)
        return jnp.column_stack([values, grads])

    keys = jax.random.split(jax.random.key(1), 2000)
    assert_same_mean(over_keys(jax_loss, keys), over_keys(numpyro_loss, keys[::-1]), "numpyro")


# The variational autoencoder


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.softplus])
def test_vae_learns(activation):
    optax, vae = pytest.importorskip("optax"), peer("vae_jax")
    data = peer("multi_digits", "sklearn").digit_images(28).reshape(-1, 784)
    images = jnp.asarray((data[:128] > 0.5).astype(np.float32))
    optimizer, gradient = optax.adam(1e-3), vae.make_gradient(activation)
    params = vae.init(jax.random.key(0))
    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(1), 60):
        loss, grad = gradient(params, images, key)
        moves, state = optimizer.update(grad, state)
        params = optax.apply_updates(params, moves)
        losses.append(float(loss))
    assert jax.tree.structure(grad) == jax.tree.structure(params)
    assert_decreases(losses)


def test_vae_loss_is_the_negative_elbo():
    from scipy import stats

    vae = peer("vae_jax")
    params = vae.init(jax.random.key(0), 6, 5, 2)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, size=(4, 6)).astype(np.float32)
    noise = rng.normal(size=(4, 2)).astype(np.float32)
    mean, log_sd = map(np.asarray, vae.encode(params["encoder"], images, jnp.tanh))
    codes = mean + np.exp(log_sd) * noise
    logits = np.asarray(vae.decode(params["decoder"], codes, jnp.tanh))
    elbo = stats.bernoulli.logpmf(images, 1 / (1 + np.exp(-logits))).sum(1)
    elbo += (stats.norm.logpdf(codes) - stats.norm.logpdf(codes, mean, np.exp(log_sd))).sum(1)
    np.testing.assert_allclose(vae.loss_at(params, images, noise), -elbo.mean(), rtol=1e-5)


# Attend-Infer-Repeat


@pytest.fixture(scope="module")
def air():
    return peer("air_jax", "optax")


@pytest.fixture(scope="module")
def small(air):
    """Small sizes, parameters, and one image with two objects: (sizes, params, image)."""
    sizes = air.Sizes(canvas=12, window=6, what=4, state=8, hidden=10)
    params = air.init(jax.random.key(0), sizes)
    params["predict"]["b"] = params["predict"]["b"].at[0].set(0.3)
    image, _ = peer("multi_digits", "sklearn").multi_digits(1, 3, canvas=12, digit=5)
    return sizes, params, jnp.asarray(image[0])


def gradients(air, params, image, estimator: str, noise):
    """The gradients at each of n noises, flat: [n, parameters]."""
    loss = lambda params, noise: air.losses_at(params, image[None], noise, estimator)[0]
    flat = lambda noise: jax.flatten_util.ravel_pytree(jax.grad(loss)(params, noise))[0]
    expanded = jax.tree.map(lambda a: a[:, None], noise)
    return jax.jit(partial(jax.lax.map, flat, batch_size=500))(expanded)


def test_air_samplers_agree(air):
    image = jax.random.normal(jax.random.key(0), (9, 14))
    rows, cols = jnp.linspace(-3.2, 11.4, 23), jnp.linspace(-1.6, 15.3, 31)
    np.testing.assert_allclose(
        air.gather_bilinear(image, rows, cols), air.tent_bilinear(image, rows, cols), atol=1e-5
    )
    loss = lambda sampler, image, rows: jnp.sum(sampler(image, rows, cols) ** 2)
    for argnum in (1, 2):
        a, b = (
            jax.grad(loss, argnum)(sampler, image, rows)
            for sampler in (air.gather_bilinear, air.tent_bilinear)
        )
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_air_estimators_agree_over_the_counts(air, small):
    """With where and what's noise fixed, enum's gradient is the others' exact expectation."""
    _, params, image = small
    n = 4000
    one = air.draw_noise(params, jax.random.key(1), 1)
    same = jax.tree.map(lambda a: jnp.repeat(a, n, axis=0), one)
    exact = gradients(air, params, image, "enum", one)
    for i, estimator in enumerate(("reinforce", "mvd")):
        uniforms = jax.random.uniform(jax.random.key(10 + i), same.present.shape)
        sampled = gradients(air, params, image, estimator, same._replace(present=uniforms))
        assert_same_mean(sampled, exact, f"{estimator} and enum")


def test_air_estimators_agree_over_all_noise(air, small):
    _, params, image = small
    estimates = {
        name: gradients(air, params, image, name, air.draw_noise(params, jax.random.key(i), 4000))
        for i, name in enumerate(air.ESTIMATORS)
    }
    assert_same_mean(estimates["enum"], estimates["reinforce"], "enum and reinforce")
    assert_same_mean(estimates["enum"], estimates["mvd"], "enum and mvd")
    assert_same_mean(estimates["mvd"], estimates["reinforce"], "mvd and reinforce")


def test_air_enumeration_is_exact(air, small):
    """Running sums give the log weight of every count, and the counts' probabilities sum to 1."""
    _, params, image = small
    noise = jax.tree.map(lambda a: a[0], air.draw_noise(params, jax.random.key(1), 1))
    run = air.trajectory(params, image, noise)
    single = [air.log_weight(image, run, jnp.asarray(n)) for n in range(4)]
    np.testing.assert_allclose(air.log_weights(image, run), jnp.stack(single), rtol=1e-5)
    assert float(jnp.sum(jnp.exp(air.log_counts(run.logits)))) == pytest.approx(1, abs=1e-5)


def medium(air):
    """Sizes between `small` and the tutorial's, parameters and 16 images."""
    sizes = air.Sizes(canvas=20, window=8, what=8, state=32, hidden=32)
    images, _ = peer("multi_digits", "sklearn").multi_digits(16, canvas=20, digit=8)
    return sizes, air.init(jax.random.key(0), sizes), images


@pytest.mark.parametrize("estimator", ["reinforce", "enum", "mvd"])
def test_air_learns(air, estimator: str):
    _, params, images = medium(air)
    optimizer, step = air.make_step(estimator, rate=1e-3)
    state, losses = optimizer.init(params), []
    for key in jax.random.split(jax.random.key(1), 60):
        params, state, loss = step(params, state, jnp.asarray(images), key)
        losses.append(float(loss))
    assert_decreases(losses)


@pytest.fixture
def air_pyro():
    module = peer("air_pyro", "torch", "pyro")
    import pyro
    import torch

    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


def test_air_in_pyro_has_the_same_transformers(air, air_pyro, small):
    import torch

    sizes, _, image = small
    module = air_pyro.Air(sizes)
    where = np.array([[2.5, 0.3, -0.4], [1.8, -0.9, 0.7]], np.float32)
    window = np.random.default_rng(0).random((2, sizes.window, sizes.window), np.float32)
    attended = module.attend(torch.tensor(np.stack([image, image])), torch.tensor(where))
    placed = module.place(torch.tensor(window).flatten(1), torch.tensor(where))
    for i in range(2):
        want = air.attend(image, where[i], sizes.window, air.gather_bilinear)
        np.testing.assert_allclose(attended[i], np.ravel(want), atol=1e-5)
        want = air.place(window[i], where[i], sizes.canvas, air.gather_bilinear)
        np.testing.assert_allclose(placed[i], want, atol=1e-5)


@pytest.mark.parametrize("estimator", ["reinforce", "enum"])
def test_air_in_pyro_is_the_same_estimate(air, air_pyro, small, estimator: str):
    """The loss and the gradients of the biases, means of 200 samples each."""
    import torch

    sizes, params, image = small
    images = np.repeat(np.asarray(image)[None], 200, axis=0)
    module = air_pyro.Air(sizes, enumerate_counts=estimator == "enum")
    air_pyro.load(module, params)
    biases = {
        ("rnn", "b"): module.rnn.bias_ih,
        ("predict", "b"): module.predict.bias,
        ("encoder", "b2"): module.encoder[2].bias,
        ("decoder", "b2"): module.decoder[2].bias,
    }
    elbo = air_pyro.ESTIMATORS[estimator](max_plate_nesting=1)
    gradient = air.make_gradient(estimator)
    ours, theirs = [], []
    for key in jax.random.split(jax.random.key(7), 40):
        module.zero_grad()
        loss = elbo.loss_and_grads(module.model, module.guide, torch.from_numpy(images))
        theirs.append(np.concatenate([[loss], *(bias.grad for bias in biases.values())]))
        loss, grad = gradient(params, jnp.asarray(images), key)
        ours.append(np.concatenate([[loss], *(grad[net][name] for net, name in biases)]))
    assert_same_mean(ours, theirs, f"pyro's {estimator}")


@pytest.mark.parametrize("estimator", ["reinforce", "enum"])
def test_air_in_pyro_learns(air, air_pyro, estimator: str):
    import torch

    sizes, params, images = medium(air)
    batch = torch.from_numpy(images)
    _, step = air_pyro.make_step(estimator, params, sizes, rate=1e-3)
    losses = [step(batch) for _ in range(60)]
    assert_decreases(losses)
    assert air_pyro.use_best_threads(step, batch, steps=1) == torch.get_num_threads()


# The data


def test_multi_digits():
    digits = peer("multi_digits", "sklearn")
    images, counts = digits.multi_digits(300, seed=1)
    again, _ = digits.multi_digits(300, seed=1)
    assert images.shape == (300, 50, 50) and images.dtype == np.float32
    assert images.min() == 0 and 0.9 < images.max() <= 1
    assert set(counts) == {0, 1, 2}
    np.testing.assert_array_equal(images, again)
    ink = images.sum((1, 2))
    assert np.all(ink[counts == 0] == 0)
    assert ink[counts == 2].mean() == pytest.approx(2 * ink[counts == 1].mean(), rel=0.1)


# Posteriors


def test_nuts_of_eight_schools_and_logistic_regression():
    peers = peer("posteriors_numpyro", "numpyro")
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    found = peers.nuts(peers.eight_schools, y, errors, draws=4000, chains=1)
    assert abs(found["mu"].mean() - 4.40) < 0.4 and abs(found["tau"].mean() - 3.61) < 0.4
    assert found["effect"].shape == (4000, 8)
    x = np.linspace(-2, 2, 40)[:, None]
    found = peers.nuts(peers.logistic, (x[:, 0] > 0.1).astype(float), x, draws=500, chains=1)
    assert found["slope"].mean() > 1 and found["slope"].dtype == np.float64


def test_the_matrices_of_trees_are_car_cdr_and_cons() -> None:
    trees_jax = peer("trees_jax", "jax")
    by_matrix, by_index = trees_jax.Dense(trees_jax.matrices(5)), trees_jax.Shifted(5)
    x, y = (jnp.asarray(np.random.default_rng(i).normal(size=(31, 3))) for i in (0, 1))
    for tree in (x, y):
        assert jnp.allclose(by_matrix.top(by_matrix.encode(tree), 31), tree, atol=1e-5)
    dense = [by_matrix.encode(tree) for tree in (x, y)]
    for bit in (0, 1):
        found = by_matrix.top(by_matrix.child(dense[0], bit), 31)
        assert jnp.allclose(found, by_index.child(x, bit), atol=1e-5)
    root = jnp.arange(3.0)
    found = by_matrix.top(by_matrix.cons(*dense, root), 31)
    assert jnp.allclose(found, by_index.cons(x, y, root), atol=1e-5)
