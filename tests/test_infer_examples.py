"""The examples of inference do what they claim, with short fits."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import wengert as wg

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_eight_schools() -> None:
    """Means and deviations of a long NUTS run (benchmarks/posteriors.py): mu 4.40 +- 3.31,
    tau 3.61 +- 3.23, the first school's effect 6.26 +- 5.64."""
    posterior = example("eight_schools").infer()
    mean = posterior.mean(8000)
    assert mean["mu"] == pytest.approx(4.40, abs=0.33)
    assert mean["tau"] == pytest.approx(3.61, abs=0.33)
    effects = posterior.weights(8000) @ posterior.returned(8000)
    assert effects[0] == pytest.approx(6.26, abs=0.56) and effects.argmin() == 4
    assert posterior.khat < 0.7


def test_logistic_regression() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'wengert[data]'")
    module = example("logistic")
    x, y = module.breast_cancer()
    posterior = module.infer(x[:400], y[:400], steps=1000)
    chances = module.chances(posterior, x[400:])
    assert np.mean((chances > 0.5) == y[400:]) > 0.95
    assert 0.02 < np.mean((chances > 0.1) & (chances < 0.9)) < 0.3
    assert posterior.khat < 0.7


def test_discrete_mixture() -> None:
    module = example("discrete_mixture")
    data = module.old_faithful()
    x = (data - data.mean(axis=0)) / data.std(axis=0)
    posterior = module.infer(x, steps=1500)
    mean = posterior.mean()
    assert mean["share"] == pytest.approx(0.64, abs=0.02)
    long = (mean["short"] + mean["longer"]) * data.std(axis=0) + data.mean(axis=0)
    np.testing.assert_allclose(long, [4.29, 80.0], rtol=0.01)
    chances = module.chances(posterior, x, 50)
    assert np.mean((chances > 0.5) == (data[:, 0] > 3.1)) > 0.99


def test_kinds_of_eruptions_are_summed_out_exactly() -> None:
    x = np.array([[-1.2, -1.0], [0.9, 1.1], [0.1, 0.2]])
    text = (EXAMPLES / "discrete_mixture.wg").read_text() + (
        "fn total(n: static int, share, short, longer, scale, x):\n"
        "    return score(assess(geyser(n), {share, short, longer, scale, x}))\n"
    )
    share, short, longer = 0.6, np.array([-1.0, -1.1]), np.array([2.0, 1.9])
    scale = np.array([[0.3, 0.4], [0.5, 0.6]])
    found = wg.compile(text, real="f64").total(3, share, short, longer, scale, x)
    parts = [stats.norm.pdf(x, short + k * longer, scale[k]).prod(axis=1) for k in (0, 1)]
    want = np.log((1 - share) * parts[0] + share * parts[1]).sum()
    want += stats.beta.logpdf(share, 2, 2) + stats.norm.logpdf(short, 0, 2).sum()
    want += stats.expon.logpdf(longer).sum() + stats.halfnorm.logpdf(scale).sum()
    assert found == pytest.approx(want, rel=1e-10)


def smoothed(y: Any, walk: float, error: float) -> Any:
    """Means of the levels for known deviations: all are jointly normal."""
    n = len(y)
    sums = np.tril(np.ones((n, n)))
    prior = 1.0 + (walk * error) ** 2 * sums @ sums.T
    return prior @ np.linalg.solve(prior + error**2 * np.eye(n), y)


def test_state_space() -> None:
    module = example("state_space")
    years, flow = module.nile()
    assert years[0] == 1871 and len(flow) == 100 and flow.mean() == pytest.approx(919.35)
    y = (flow - flow.mean()) / flow.std()
    posterior = module.infer(y)
    mean = posterior.mean()
    assert mean["error"] == pytest.approx(0.72, abs=0.06)
    level = posterior.sample(2000)["level"].mean(axis=0)
    want = smoothed(y, float(mean["walk"]), float(mean["error"]))
    assert np.abs(level - want).max() < 0.15 and np.corrcoef(level, want)[0, 1] > 0.99


def test_the_text_in_the_docs_is_that_of_the_guide() -> None:
    page = (EXAMPLES.parent / "docs" / "infer.md").read_text()
    block = re.search(r"```wg\n(.*?)```", page, re.S)
    assert block is not None
    schools = example("eight_schools")
    model = wg.load(EXAMPLES / "eight_schools.wg", real="f64").eight_schools
    guide = wg.infer.autoguide(model, {"y": schools.ESTIMATES}, schools.ERRORS)
    shown = wg.compile(block.group(1), path=str(EXAMPLES / "shown.wg"), real="f64")
    given = {"phi": guide.start(), **guide.given, "key": wg.key(0)}
    assert shown.elbo(**given) == pytest.approx(guide.program.elbo(**given), rel=1e-12)


@pytest.mark.parametrize("name", ["discrete_mixture", "state_space"])
def test_examples_print_what_they_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example(name).main()
    text = capsys.readouterr().out
    assert "k-hat" in text and "nan" not in text


def test_variational_autoencoder() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'wengert[data]'")
    module = example("vae")
    images, others = module.digits()
    program, vae = module.train(images, hidden=50, codes=6, steps=600, progress=False)
    bound, base = module.elbo(program, vae, others), module.base_rate(images, others)
    assert base + 2.5 < bound < 0
    at_start = program.init(64, 50, 6, wg.key(0))
    assert bound > module.elbo(program, at_start, others) + 10


@pytest.fixture(scope="module")
def air() -> Any:
    return example("air")


def small_air(module: Any) -> tuple[wg.Program, Any, Any]:
    program = wg.load(module.HERE / "air.wg")
    return program, program.init(12, 6, 3, 8, 8, wg.key(1)), module.canvases(4)[0][:, 4:16, 4:16]


@pytest.mark.parametrize("how", ["enum", "mvd", "hybrid", "reinforce"])
def test_attend_infer_repeat_learns(air: Any, how: str) -> None:
    """A small net on small canvases: the bound rises by every estimator."""
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'wengert[data]'")
    program, net, images = small_air(air)
    fit = wg.fit(
        program.loss,
        {"net": net},
        images=images,
        how=how,
        steps=150,
        optimizer=wg.adam(3e-3),
        progress=False,
    )
    assert fit.losses[-20:].mean() < fit.losses[:20].mean() - 5


def test_attend_infer_repeat_with_several_particles(air: Any) -> None:
    """IWAE is the ELBO for one particle and tighter for more; wake-sleep steps are finite."""
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'wengert[data]'")
    program, net, images = small_air(air)
    losses = {
        k: [float(program.iwae_loss(net, images, "reinforce", k, key=wg.key(s))) for s in range(60)]
        for k in (1, 3)
    }
    plain = [float(program.loss(net, images, "reinforce", key=wg.key(s))) for s in range(60)]
    error = np.std(plain) / np.sqrt(60)
    assert abs(np.mean(losses[1]) - np.mean(plain)) < 4.5 * np.sqrt(2) * error
    assert np.mean(losses[3]) < np.mean(plain) - 4.5 * error
    _, slope = program.rws_loss.value_and_grad(net, images, 2, key=wg.key(0))
    assert all(np.isfinite(x).all() for part in slope.values() for x in part.values())
