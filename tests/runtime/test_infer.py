"""Guides written for models, `vi` and its diagnostics, against posteriors that are known."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import gammaln
from wengert.ir.errors import WengertError
from wengert.runtime.errors import ArgumentError, BackendError, CallError
from wengert.runtime.infer import DataError, GuideError, NonFiniteDensity
from wengert.runtime.infer.psis import pareto_fit

import wengert as wg

MODELS = """
model regression(x: real[n, d], noise: real):
    w ~ normal(zeros(d), 2.0)
    y ~ normal(x @ w, noise)
    return x @ w

model rates(n: static int):
    rate ~ gamma([3.0, 5.0], 1.0)
    for i in 0..n:
        y ~ poisson(rate)

model one_rate(n: static int):
    rate ~ gamma(3.0, 1.0)
    y ~ poisson(rate * ones(n))

model shares():
    p ~ dirichlet([1.0, 2.0, 3.0])
    q ~ beta(2.0, 3.0)
    for i in 0..6:
        k ~ categorical(p)
        b ~ bernoulli(q)

model mixture(n: static int):
    w ~ uniform(0.0, 1.0)
    for i in 0..n:
        z ~ bernoulli(w)
        y ~ normal(2.0 * real(z), 1.0)

model level(n: static int, walk: real, error: real):
    first ~ normal(0.0, 1.0)
    at = first
    for i in 0..n:
        at ~ normal(at, walk)
        y ~ normal(at, error)

model part(m: real):
    a ~ normal(m, 1.0)
    y ~ normal(a, 0.5)
    return a

model whole(data: real):
    m ~ normal(data, 1.0)
    inside ~ part(m)
    z ~ normal(inside, 1.0)
"""
RNG = np.random.default_rng(1)
X = RNG.normal(size=(20, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
Y = X @ np.array([1.0, -2.0, 0.5]) + 0.5 * RNG.normal(size=20)
PRECISION = np.eye(3) / 4 + X.T @ X / 0.25
COVARIANCE = np.linalg.inv(PRECISION)
MEAN = COVARIANCE @ X.T @ Y / 0.25
EVIDENCE = stats.multivariate_normal(np.zeros(20), 0.25 * np.eye(20) + 4 * X @ X.T).logpdf(Y)


@pytest.fixture(scope="module")
def program() -> wg.Program:
    return wg.compile(MODELS, real="f64")


def regression(program: wg.Program, guide: str, **options: Any) -> Any:
    return wg.infer.vi(program.regression, {"y": Y}, X, 0.5, guide=guide, **options)


# Posteriors that are known


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_full_rank_is_a_normal_posterior(program: wg.Program, backend: str) -> None:
    found = regression(program.with_options(backend=backend), "full_rank")
    draws = found.sample(4000)["w"]
    deviation = np.sqrt(np.diag(COVARIANCE))
    # 4000 draws: standard errors of 0.016 deviations, and of 0.022 relative for the variances
    np.testing.assert_allclose((draws.mean(axis=0) - MEAN) / deviation, 0.0, atol=0.07)
    scaled = np.cov(draws.T) / np.outer(deviation, deviation)
    np.testing.assert_allclose(scaled, COVARIANCE / np.outer(deviation, deviation), atol=0.1)
    # the guide is the posterior, so that the weights are all the evidence
    np.testing.assert_allclose(found.log_weights(500), EVIDENCE, atol=0.05)
    assert found.log_evidence == pytest.approx(EVIDENCE, abs=0.01)
    assert found.khat < 0.5 and found.ess > 1900
    assert found.elbo.shape == (3000,) and found.elbo[-100:].mean() == pytest.approx(
        EVIDENCE, abs=0.02
    )
    np.testing.assert_allclose(found.mean()["w"], MEAN, atol=0.1 * deviation.max())


def test_single_precision_is_the_default() -> None:
    found = regression(wg.compile(MODELS), "full_rank")
    assert found.params["loc"].dtype == np.float32
    np.testing.assert_allclose(found.params["loc"], MEAN, atol=0.02)


def test_mean_field_has_the_variances_of_the_conditionals(program: wg.Program) -> None:
    found = regression(program, "mean_field")
    deviations = np.exp(found.params["log_scale"])
    np.testing.assert_allclose(found.params["loc"], MEAN, atol=0.02)
    np.testing.assert_allclose(deviations, 1 / np.sqrt(np.diag(PRECISION)), rtol=0.05)
    gap = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])
    assert found.log_weights(4000).mean() == pytest.approx(EVIDENCE - gap, abs=0.05)


@pytest.mark.parametrize(
    ("guide", "size", "gap"), [("low_rank", 3, 0.02), ("low_rank", 1, 0.3), ("flow", None, 0.05)]
)
def test_other_guides_of_a_normal_posterior(
    program: wg.Program, guide: str, size: int | None, gap: float
) -> None:
    found = regression(program, guide, size=size)
    bound = found.log_weights(4000).mean()
    assert EVIDENCE - gap < bound < EVIDENCE + 0.02
    deviation = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose((found.mean(4000)["w"] - MEAN) / deviation, 0.0, atol=0.1)


COUNTS = RNG.poisson([2.0, 6.0], size=(5, 2))


def gamma_poisson(prior: float, counts: Any) -> tuple[float, float, float]:
    """(mean, deviation, log evidence) of a rate of prior gamma(prior, 1)."""
    a, b = prior + counts.sum(), 1.0 + len(counts)
    evidence = gammaln(a) - gammaln(prior) - a * np.log(b) - gammaln(counts + 1.0).sum()
    return a / b, np.sqrt(a) / b, evidence


@pytest.mark.parametrize("guide", ["full_rank", "flow"])
def test_positive_choices(program: wg.Program, guide: str) -> None:
    found = wg.infer.vi(program.rates, {"y": COUNTS}, 5, guide=guide)
    known = [gamma_poisson(p, c) for p, c in zip((3.0, 5.0), COUNTS.T)]
    means, deviations, evidences = map(np.array, zip(*known))
    draws = found.sample(4000)["rate"]
    assert draws.min() > 0
    np.testing.assert_allclose((draws.mean(axis=0) - means) / deviations, 0.0, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), deviations, rtol=0.1)
    assert found.log_evidence == pytest.approx(evidences.sum(), abs=0.02)


def test_planar_flow_of_one_number(program: wg.Program) -> None:
    counts = COUNTS[:, 0]
    found = wg.infer.vi(program.one_rate, {"y": counts}, 5, guide="planar")
    mean, deviation, evidence = gamma_poisson(3.0, counts)
    assert found.sample(4000)["rate"].mean() == pytest.approx(mean, abs=0.1 * deviation)
    assert found.log_weights(4000).mean() == pytest.approx(evidence, abs=0.03)


def test_simplex_and_unit_choices(program: wg.Program) -> None:
    k, b = np.array([0, 1, 1, 2, 2, 2]), np.array([True, True, False, True, True, False])
    found = wg.infer.vi(program.shares, {"k": k, "b": b})
    draws = found.sample(4000)
    np.testing.assert_allclose(draws["p"].sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.mean(4000)["p"], np.array([2, 4, 6]) / 12, atol=0.02)
    assert found.mean(4000)["q"] == pytest.approx(6 / 11, abs=0.02)


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_discrete_choices_are_summed_out(program: wg.Program, backend: str) -> None:
    y = np.array([-0.5, 2.5, 1.8, 0.4, 2.2])
    model = program.with_options(backend=backend).mixture
    found = wg.infer.vi(model, {"y": y}, 5)

    def joint(w: float) -> float:
        return float(np.prod(w * stats.norm.pdf(y, 2.0) + (1 - w) * stats.norm.pdf(y)))

    evidence = integrate.quad(joint, 0, 1)[0]
    mean = integrate.quad(lambda w: w * joint(w), 0, 1)[0] / evidence
    assert found.log_evidence == pytest.approx(np.log(evidence), abs=0.02)
    assert found.mean(4000)["w"] == pytest.approx(mean, abs=0.01)
    assert set(found.sample(5)) == {"w"}
    with pytest.raises(CallError, match="what the model 'mixture' returns is not known"):
        found.returned()


def test_sequential_choices_in_a_loop(program: wg.Program) -> None:
    y = np.array([0.5, 0.1, 1.2, 0.9, 1.5, 1.1])
    walk, error = 0.4, 0.6
    sums = np.tril(np.ones((6, 6)))
    prior = 1.0 + walk**2 * sums @ sums.T  # first, which all have in common, and the steps
    gain = prior @ np.linalg.inv(prior + error**2 * np.eye(6))
    mean, covariance = gain @ y, prior - gain @ prior
    found = wg.infer.vi(program.level, {"y": y}, 6, walk, error)
    draws = found.sample(4000)["at"]
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(axis=0) - mean) / deviation, 0.0, atol=0.08)
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.08)
    evidence = stats.multivariate_normal(np.zeros(6), prior + error**2 * np.eye(6)).logpdf(y)
    np.testing.assert_allclose(found.log_weights(200), evidence, atol=0.05)


def test_data_inside_nested_programs(program: wg.Program) -> None:
    """m, a and the data are jointly normal; the argument `data` does not get in the way."""
    data = {"z": 1.4, "inside": {"y": 0.8}}
    found = wg.infer.vi(program.whole, data, 0.3)
    precision = np.array([[2.0, -1.0], [-1.0, 1.0 + 4.0 + 1.0]])
    mean = np.linalg.solve(precision, [0.3, 4 * 0.8 + 1.4])
    draws = found.sample(4000)
    assert draws["m"].mean() == pytest.approx(mean[0], abs=0.06)
    assert draws["inside"]["a"].mean() == pytest.approx(mean[1], abs=0.04)


# Draws


def test_draws_depend_on_the_key_alone(program: wg.Program) -> None:
    found = regression(program, "full_rank", steps=50)
    first, weights, returned = found.sample(7), found.log_weights(7), found.returned(7)
    np.testing.assert_array_equal(found.sample(7, wg.key(1))["w"], first["w"])
    assert not np.array_equal(found.sample(7, wg.key(2))["w"], first["w"])
    np.testing.assert_array_equal(found.log_weights(7), weights)
    np.testing.assert_allclose(returned, first["w"] @ X.T, rtol=1e-12)
    many = found.sample(1200)["w"]
    assert many.shape == (1200, 3) and len(np.unique(many[:, 0])) == 1200
    with pytest.raises(CallError, match="counted from 1"):
        found.sample(0)


def test_fits_repeat_and_differ_by_key(program: wg.Program) -> None:
    runs = [regression(program, "full_rank", steps=20, key=wg.key(k)).elbo for k in (3, 3, 4)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_options_of_fit_and_other_starts(program: wg.Program) -> None:
    start = {"loc": MEAN}
    found = regression(program, "full_rank", steps=0, start=start)
    np.testing.assert_array_equal(found.params["loc"], MEAN)
    seen: list[Any] = []
    options = {"callback": lambda result: seen.append(result) or True}
    stopped = regression(program, "full_rank", steps=100_000, options=options)
    assert stopped.fit.stopped == "callback" and seen
    quick = regression(program, "mean_field", steps=30, samples=2, optimizer=wg.sgd(1e-3))
    assert np.isfinite(quick.elbo).all()


def test_summary_names_every_number(program: wg.Program) -> None:
    text = wg.infer.vi(program.rates, {"y": COUNTS}, 5, steps=200).summary()
    lines = text.splitlines()
    assert lines[0].split() == ["mean", "sd", "5%", "50%", "95%"]
    assert lines[1].startswith("rate[0]") and lines[2].startswith("rate[1]")
    assert lines[-2].startswith("ELBO") and "k-hat" in lines[-1] and "2000 draws" in lines[-1]


# The text


def test_source_is_a_program_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "models.wg").write_text(MODELS)
    model = wg.load(tmp_path / "models.wg", real="f64").regression
    guide = wg.infer.autoguide(model, {"y": Y}, X, 0.5, kind="low_rank", size=2)
    (tmp_path / "guide.wg").write_text(guide.source)
    saved = wg.load(tmp_path / "guide.wg", real="f64")
    given = {"phi": guide.start(), "x": X, "noise": 0.5, "data": {"y": Y}, "key": wg.key(0)}
    assert saved.elbo(**given) == guide.program.elbo(**given)
    assert "u[0:3]  w  f64[3], real" in guide.source


@pytest.mark.parametrize("kind", ["mean_field", "full_rank", "low_rank", "flow", "planar"])
def test_estimates_of_the_bound_are_those_of_the_weights(program: wg.Program, kind: str) -> None:
    """The objective to climb has the mean of the log weights, and another gradient estimate."""
    guide = wg.infer.autoguide(program.rates, {"y": COUNTS}, 5, kind=kind)
    given = {"phi": guide.start(), **guide.given, "key": wg.key(5)}
    bound = guide.program.elbo(**given)
    assert guide.program.draws(**given)["log_weight"] == pytest.approx(bound, rel=1e-9)


def test_names_of_a_model_that_the_text_needs() -> None:
    text = """
model awkward(phi: real, u: real, data: real, exp: real, score: static int):
    t ~ normal(phi + u, exp)
    run ~ normal(data + t, exp * real(score))
"""
    model = wg.compile(text, real="f64").awkward
    found = wg.infer.vi(model, {"run": 2.0}, 0.5, 0.25, 0.1, 1.5, score=2)
    mean = np.average([0.75, 1.9], weights=[1 / 1.5**2, 1 / 3.0**2])
    assert found.params["loc"] == pytest.approx(mean, abs=0.01)


def test_choices_of_a_model(program: wg.Program) -> None:
    found = {c.address: (str(c.type), c.support) for c in program.rates.choices(3)}
    assert found == {"rate": ("f64[2]", "positive"), "y": ("i32[3,2]", "naturals")}
    assert [c.address for c in program.whole.choices(0.1)] == ["m", "inside/a", "inside/y", "z"]
    sometimes = wg.compile(SOMETIMES).m.choices(True)
    assert {c.address: c.certain for c in sometimes} == {"x": False, "y": True}
    plain = wg.compile("fn f(x: real): return x\n").f
    with pytest.raises(CallError, match="makes no choices"):
        plain.choices(1.0)


# Guides of a program

GUIDES = """
guide narrow(m: real[2], s: real[2], noise: real):
    w ~ mvn_diag(m, exp(s) * noise)

guide too_much(m: real[3]):
    w ~ normal(m, 1.0)
    v ~ normal(m, 1.0)

guide too_little(m: real[3]):
    v ~ normal(m, 1.0)

model line(x: real[n, d], noise: real):
    w ~ mvn_diag(zeros(d), 2.0 * ones(d))
    y ~ normal(x @ w, noise)

guide positive(m: real):
    p ~ normal(m, 1.0)

model chance():
    p ~ beta(2.0, 2.0)
    y ~ bernoulli(p)
"""


def test_a_guide_of_the_program() -> None:
    program = wg.compile(GUIDES, real="f64")
    x = X[:, :2]
    start = {"m": [0.0, 0.0], "s": [0.0, 0.0]}
    found = wg.infer.vi(
        program.line, {"y": Y}, x, 0.5, guide=program.narrow, start=start, steps=2000
    )
    precision = np.eye(2) / 4 + x.T @ x / 0.25
    np.testing.assert_allclose(
        found.params["m"], np.linalg.solve(precision, x.T @ Y / 0.25), atol=0.02
    )
    deviations = 0.5 * np.exp(found.params["s"])
    np.testing.assert_allclose(deviations, 1 / np.sqrt(np.diag(precision)), rtol=0.1)
    assert found.sample(10)["w"].shape == (10, 2)


def test_a_guide_of_another_program() -> None:
    models, guides = (
        wg.compile(MODELS, real="f64", path="m.wg"),
        wg.compile(GUIDES, real="f64", path="g.wg"),
    )
    with pytest.raises(WengertError, match="0"):
        wg.infer.vi(
            models.regression, {"y": Y}, X[:, :0], 0.5, guide=guides.narrow, start={"m": 0.0}
        )
    start = {"m": [0.0, 0.0], "s": [0.0, 0.0]}
    found = wg.infer.vi(
        models.regression, {"y": Y}, X[:, :2], 0.5, guide=guides.narrow, start=start, steps=100
    )
    assert found.elbo[-1] > found.elbo[0]


# Mistakes


def bad(kind: type[WengertError], *parts: str) -> Any:
    def check(error: WengertError) -> bool:
        assert isinstance(error, kind), repr(error)
        missing = [p for p in parts if p not in str(error)]
        assert not missing, str(error)
        return True

    return check


DISCRETE = "model m():\n    z ~ bernoulli(0.5)\n    y ~ normal(real(z), 1.0)\n"
COUNTED = (
    "model m():\n    x ~ normal(0.0, 1.0)\n    z ~ poisson(2.0)\n    y ~ normal(real(z), 1.0)\n"
)
SOMETIMES = "model m(c: bool):\n    if c:\n        x ~ normal(0.0, 1.0)\n    y ~ normal(0.0, 1.0)\n"
UNNAMED = "model m():\n    x = draw(normal(0.0, 1.0))\n    y ~ normal(x, 1.0)\n"
EMPTY = "model m():\n    x ~ normal(zeros(0), 1.0)\n    y ~ normal(sum(x), 1.0)\n"
EVERY = [
    (MODELS, "regression", ({"yy": Y}, X, 0.5), {}, bad(DataError, "no choice called 'yy'", "did you mean 'y'?")),
    (MODELS, "regression", ({"y": Y[:5]}, X, 0.5), {}, bad(ArgumentError, "data: y", "f64[20]", "f64[5]")),
    (MODELS, "rates", ({"y": COUNTS + 0.5}, 5), {}, bad(ArgumentError, "data: y", "expected: i32")),
    (MODELS, "rates", ([1, 2], 5), {}, bad(DataError, "data as a dict by address")),
    (MODELS, "regression", ({"y": {"y": Y}}, X, 0.5), {}, bad(DataError, "no choice called 'y/y'")),
    (MODELS, "regression", ({"y": Y}, X), {}, bad(CallError, "misses 1 argument 'noise'")),
    (MODELS, "regression", ({"y": Y}, X, 0.5), {"guide": "fullrank"}, bad(GuideError, "'fullrank'", "did you mean 'full_rank'?")),
    (MODELS, "regression", ({"y": Y}, X, 0.5), {"size": 3}, bad(GuideError, "does not take this size")),
    (MODELS, "regression", ({"y": Y}, X, 0.5), {"guide": "flow", "size": 0}, bad(GuideError, "1 or more")),
    (MODELS, "regression", ({"y": Y}, X, 0.5), {"start": {"mean": 0}}, bad(CallError, "fields of the guide's parameters", "loc, log_scale, below")),
    (MODELS, "one_rate", ({"y": COUNTS[:, 0]}, 5), {"guide": "flow"}, bad(GuideError, "needs 2 latent numbers")),
    (MODELS, "regression", ({"y": Y, "w": MEAN}, X, 0.5), {}, bad(GuideError, "no latent choice of real numbers")),
    (DISCRETE, "m", ({"y": 1.0},), {}, bad(GuideError, "no latent choice of real numbers", "summed out exactly")),
    (COUNTED, "m", ({"y": 1.0},), {}, bad(WengertError, "'z' of the model 'm' is missing", "no finite list")),
    (SOMETIMES, "m", ({"y": 1.0}, True), {}, bad(GuideError, "only some runs of the model 'm' make the choice 'x'")),
    (UNNAMED, "m", ({"y": 1.0},), {}, bad(GuideError, "no guide can be written", "a name")),
    (EMPTY, "m", ({"y": 1.0},), {}, bad(GuideError, "hold no numbers", "x: f64[0]")),
]  # fmt: skip


@pytest.mark.parametrize("case", EVERY, ids=lambda c: f"{c[1]}-{list(c[3])}")
def test_bad_input(case: Any) -> None:
    text, name, args, options, check = case
    with pytest.raises(WengertError) as caught:
        wg.infer.vi(getattr(wg.compile(text, real="f64"), name), *args, steps=1, **options)
    assert check(caught.value)


def test_only_models_have_posteriors(program: wg.Program) -> None:
    guides = wg.compile(GUIDES)
    for what in (guides.narrow, lambda: 0, "model"):
        with pytest.raises(CallError, match="takes a model of a program first"):
            wg.infer.vi(what, {})  # type: ignore[arg-type]
        with pytest.raises(CallError, match="takes a model of a program first"):
            wg.infer.autoguide(what, {})  # type: ignore[arg-type]


def test_guides_that_do_not_fit() -> None:
    program = wg.compile(GUIDES, real="f64")
    args = (program.line, {"y": Y}, X, 0.5)
    with pytest.raises(GuideError, match="lacks w"):
        wg.infer.vi(*args, guide=program.too_little, start={"m": MEAN})
    with pytest.raises(GuideError, match="v is none of them"):
        wg.infer.vi(*args, guide=program.too_much, start={"m": MEAN})
    with pytest.raises(CallError, match="needs start values"):
        wg.infer.vi(*args, guide=program.too_little)
    with pytest.raises(CallError, match="a guide of a program, which has no size"):
        wg.infer.vi(*args, guide=program.line, start={"m": MEAN})
    with pytest.raises(WengertError, match="drawn with support real"):
        wg.infer.vi(program.chance, {"y": True}, guide=program.positive, start={"m": 0.5}, steps=1)


@pytest.mark.parametrize(
    ("model", "data", "address", "part"),
    [
        ("y ~ gamma(exp(x), 1.0)", {"y": -1.0}, "y", "the data for 'y' of the model 'm' is -inf"),
        ("y ~ normal(x, 1.0)", {"y": np.nan}, "y", "the data for 'y' of the model 'm' is nan"),
        ("v ~ normal(x, -1.0)\n    y ~ normal(v, 1.0)", {"y": 0.0}, "v", "the latent choice 'v'"),
    ],
)
def test_densities_that_are_nowhere_finite(
    model: str, data: dict[str, Any], address: str, part: str
) -> None:
    text = f"model m():\n    x ~ normal(0.0, 1.0)\n    {model}\n"
    with pytest.raises(NonFiniteDensity, match=part) as caught:
        wg.infer.vi(wg.compile(text, real="f64").m, data)
    assert caught.value.address == address


def test_a_fit_starts_at_the_most_probable_of_some_places() -> None:
    """At the origin the scale is zero: the fit starts elsewhere."""
    text = "model m():\n    x ~ normal(0.0, 1.0)\n    y ~ normal(x, abs(x))\n"
    guide = wg.infer.autoguide(wg.compile(text, real="f64").m, {"y": 1.0})
    for key in (None, wg.key(7)):
        loc = guide.start(key)["loc"]
        assert guide.program.log_joint(loc, **guide.given) > -2.5 and 0.2 < abs(loc[0]) < 2.0
    assert not np.isfinite(guide.program.log_joint(np.zeros(1), **guide.given))


# Diagnostics


@pytest.mark.parametrize("rate", [1.25, 2.0, 3.0])
def test_khat_of_exponential_tails(rate: float) -> None:
    """Draws of Exp(rate) for Exp(1): weights have a Pareto tail of shape (rate - 1) / rate."""
    x = np.random.default_rng(0).exponential(size=100_000) / rate
    found = wg.infer.psis((rate - 1.0) * x)
    assert found.khat == pytest.approx((rate - 1) / rate, abs=0.1)
    assert found.reliable == ((rate - 1) / rate < 0.7 and found.khat < 0.7)


@pytest.mark.parametrize(
    ("n", "shape", "fitted"),
    [
        (20, -0.3, (0.049186792740795, 1.770989739962182)),
        (100, 0.4, (0.416739791131189, 1.973838083282504)),
        (1000, 0.9, (0.895044503539096, 2.000692919083054)),
    ],
)
def test_pareto_fit_is_that_of_arviz(n: int, shape: float, fitted: tuple[float, float]) -> None:
    """ArviZ 0.23.4's `_gpdfit` of the n quantiles of a distribution of scale 2."""
    chances = (np.arange(n) + 0.5) / n
    x = 2.0 * np.expm1(-shape * np.log1p(-chances)) / shape
    assert pareto_fit(x) == pytest.approx(fitted, rel=1e-9)


def test_smoothed_weights() -> None:
    rng = np.random.default_rng(2)
    raw = 1.5 * rng.normal(size=1000) ** 2
    found = wg.infer.psis(raw + 123.0)
    order = np.argsort(raw)
    assert np.exp(found.log_weights).sum() == pytest.approx(1.0)
    assert (np.diff(found.log_weights[order]) >= -1e-12).all()
    small = order[:800]  # those below the tail keep their ratios
    np.testing.assert_allclose(np.diff(found.log_weights[small]), np.diff(raw[small]), atol=1e-9)
    assert 1 < found.ess < 1000
    equal = wg.infer.psis(np.zeros(50))
    assert equal.ess == pytest.approx(50) and equal.khat == -np.inf and equal.reliable
    few = wg.infer.psis([0.0, -np.inf, 0.0])
    assert few.khat == np.inf and few.ess == pytest.approx(2)
    for wrong in ([], [0.0, np.nan], [np.inf, 0.0], [[0.0, 1.0]], [-np.inf, -np.inf]):
        with pytest.raises(CallError, match="psis takes"):
            wg.infer.psis(wrong)


def test_khat_tells_a_guide_that_is_too_narrow(program: wg.Program) -> None:
    """A normal guide of deviation s for a normal posterior of 1 has khat 1 - s^2."""
    text = "model m():\n    x ~ normal(0.0, 1.0)\n    y ~ normal(0.0, 1.0)\n"
    model = wg.compile(text, real="f64").m
    start = {"loc": [0.0], "log_scale": [np.log(0.3)]}
    found = wg.infer.vi(model, {"y": 0.0}, guide="mean_field", start=start, steps=0)
    assert found.khat > 0.7 and "misses part" in found.summary()
    start["log_scale"] = [0.0]
    exact = wg.infer.vi(model, {"y": 0.0}, guide="mean_field", start=start, steps=0)
    assert exact.khat < 0.5 and "can be trusted" in exact.summary()


# ArviZ


@pytest.mark.parametrize("version", ["0.23.4", "1.3.0"])
def test_arviz_gets_chains_and_data(
    program: wg.Program, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the two forms that `from_dict` has had."""
    fake: Any = types.ModuleType("arviz")
    fake.__version__ = version
    if version[0] == "0":
        fake.from_dict = lambda *, posterior, observed_data: (posterior, observed_data)
    else:
        fake.from_dict = lambda groups: (groups["posterior"], groups["observed_data"])
    monkeypatch.setitem(sys.modules, "arviz", fake)
    found = wg.infer.vi(program.whole, {"z": 1.4, "inside": {"y": 0.8}}, 0.3, steps=10)
    posterior, observed = found.to_arviz(50)
    assert {k: v.shape for k, v in posterior.items()} == {"m": (1, 50), "inside.a": (1, 50)}
    assert {k: float(v) for k, v in observed.items()} == {"z": 1.4, "inside.y": 0.8}


def test_arviz_itself(program: wg.Program) -> None:
    arviz = pytest.importorskip("arviz", reason="needs ArviZ: pip install 'wengert[arviz]'")
    found = regression(program, "full_rank", steps=500)
    data = found.to_arviz(400)
    assert data["posterior"]["w"].shape == (1, 400, 3)
    assert list(arviz.summary(data).index) == ["w[0]", "w[1]", "w[2]"]


def test_arviz_missing(program: wg.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    found = regression(program, "full_rank", steps=1)
    with pytest.raises(BackendError, match=r"pip install 'wengert\[arviz\]'"):
        found.to_arviz()
