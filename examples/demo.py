"""`make demo`: a Gaussian mixture of Old Faithful's eruptions, digits, a chair, sentences as trees.

Everything is written to `out/`: the IR after each pass and a picture.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("dtm", "shapes")]
import fit_chair  # noqa: E402
import small  # noqa: E402

HERE = Path(__file__).parent
OUT = HERE.parent / "out"


def old_faithful() -> np.ndarray[Any, Any]:
    """Eruption minutes and waiting minutes of 272 eruptions."""
    return np.loadtxt(HERE / "data" / "old_faithful.csv", delimiter=",", skiprows=1)


def fit_mixture() -> None:
    """Two components by gradient descent on the log-likelihood."""
    program = wg.load(HERE / "gmm.wg", real="f64")
    data = old_faithful()
    centre, scale = data.mean(axis=0), data.std(axis=0)
    x = (data - centre) / scale
    start = {
        "alphas": np.zeros(2),
        "means": np.array([[-1.0, -1.0], [1.0, 1.0]]),
        "icf": np.zeros((2, 3)),
    }
    before = float(program.log_likelihood(start, x))
    result = wg.fit(program.loss, {"mixture": start}, x=x, steps=1500, optimizer=wg.adam(2e-2))
    mixture = result.params["mixture"]
    after = float(program.log_likelihood(mixture, x))
    weights = np.exp(mixture["alphas"]) / np.exp(mixture["alphas"]).sum()
    print(f"Old Faithful: log-likelihood {before:.2f} -> {after:.2f} in {result.seconds:.2f} s")
    for weight, mean in zip(weights, mixture["means"] * scale + centre):
        print(f"  {weight:4.0%} of eruptions: {mean[0]:.2f} min long, {mean[1]:.1f} min apart")
    dump_passes(program, mixture, x)
    plot_mixture(program, mixture, data, x)


def dump_passes(program: wg.Program, mixture: Any, x: Any) -> None:
    """The IR of the gradient after each pass, one file a pass."""
    folder = OUT / "gmm_gradient_ir"
    folder.mkdir(parents=True, exist_ok=True)
    text = program.loss.ir(mixture, x, derivative="grad", after="all", spans=True)
    for number, part in enumerate(text.split("// after ")[1:]):
        name, _, body = part.partition("\n")
        (folder / f"{number:02d}_{name.replace('#', '_')}.ir").write_text(body)
    print(f"  IR after each pass: {folder}")


def plot_mixture(program: wg.Program, mixture: Any, data: Any, x: Any) -> None:
    """Eruptions coloured by the component that they belong to."""
    try:
        import matplotlib
    except ImportError:
        print("  no picture: pip install 'wengert[plot]'")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = program.responsibilities(mixture, x)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    points = axes.scatter(data[:, 0], data[:, 1], c=shares[:, 1], cmap="coolwarm", s=18)
    figure.colorbar(points, label="probability of the second component")
    axes.set_xlabel("eruption (minutes)")
    axes.set_ylabel("wait until the next (minutes)")
    figure.tight_layout()
    figure.savefig(OUT / "old_faithful.png", dpi=120)
    print(f"  picture: {OUT / 'old_faithful.png'}")


def train_digits(steps: int = 2000) -> float | None:
    """A network with one hidden layer on scikit-learn's digits; the test accuracy."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        print("digits: skipped, pip install 'wengert[data]'")
        return None
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    images, labels = digits.data[order] / 16.0, digits.target[order]
    program = wg.load(HERE / "digits.wg")
    net = program.init(128, wg.key(0))
    started = time.perf_counter()
    result = wg.fit(
        program.loss,
        {"net": net},
        images=images[:1437],
        labels=labels[:1437],
        steps=steps,
        batch_size=64,
        optimizer=wg.adam(2e-3),
        key=wg.key(1),
    )
    seconds = time.perf_counter() - started
    accuracy = float(program.accuracy(result.params["net"], images[1437:], labels[1437:]))
    print(f"digits: {accuracy:.1%} of 360 test images right after {steps} steps in {seconds:.2f} s")
    return accuracy


def main() -> int:
    """Run all; 1 if the network, the chair or the tree machine learned less than they should."""
    OUT.mkdir(exist_ok=True)
    fit_mixture()
    accuracy = train_digits()
    overlap = fit_chair.main()
    print("trees: sentences as logical forms by examples/dtm/rules.wg")
    learned = small.main()
    return 0 if learned and overlap >= 0.95 and (accuracy is None or accuracy >= 0.97) else 1


if __name__ == "__main__":
    sys.exit(main())
