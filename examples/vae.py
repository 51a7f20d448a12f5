"""A variational autoencoder of scikit-learn's digits, 8 x 8 pixels in black and white."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import wengert as wg

HERE = Path(__file__).parent


def digits() -> tuple[Any, Any]:
    """White pixels of 1437 and of 360 other images, `bool[n, 64]`."""
    from sklearn.datasets import load_digits

    images = load_digits().data > 8
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:1437]], images[order[1437:]]


def train(images: Any, hidden: int = 100, codes: int = 8, **options: Any) -> Any:
    """The program and its parameters after a fit."""
    program = wg.load(HERE / "vae.wg")
    start = program.init(images.shape[1], hidden, codes, wg.key(0))
    options = {"steps": 3000, "batch_size": 128, "optimizer": wg.adam(2e-3)} | options
    return program, wg.fit(program.loss, {"vae": start}, images=images, **options).params["vae"]


def elbo(program: wg.Program, vae: Any, images: Any, samples: int = 20) -> float:
    """The mean ELBO of images, in nats."""
    return -float(program.loss(vae, images, key=wg.key(9), samples=samples))


def base_rate(train: Any, test: Any) -> float:
    """Mean log likelihood of images whose pixels are independent, at the training frequencies."""
    rate = train.mean(axis=0).clip(1e-3, 1 - 1e-3)
    return float(np.where(test, np.log(rate), np.log1p(-rate)).sum(axis=1).mean())


def picture(image: Any, shades: str = " .:*#") -> list[str]:
    """Lines of characters for numbers in [0, 1]."""
    levels = (np.asarray(image) * (len(shades) - 1)).round().astype(int)
    return ["".join(shades[i] * 2 for i in row) for row in levels.reshape(8, 8)]


def main() -> int:
    """Fit, compare with independent pixels, and draw new digits; 1 if little was learned."""
    try:
        images, others = digits()
    except ImportError:
        print("skipped: pip install 'wengert[data]'")
        return 0
    program, vae = train(images)
    bound, base = elbo(program, vae, others), base_rate(images, others)
    print(f"ELBO of other images {bound:.2f} nats; independent pixels {base:.2f}")
    codes = np.random.default_rng(1).normal(size=(6, len(vae["decoder"]["w1"])))
    odds = program.decode.batched(vae["decoder"], codes, axes={"net": None})
    for lines in zip(*(picture(1 / (1 + np.exp(-row))) for row in odds)):
        print("  ".join(lines))
    return 0 if bound > base + 5 else 1


if __name__ == "__main__":
    sys.exit(main())
