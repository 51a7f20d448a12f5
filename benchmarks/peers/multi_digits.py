"""Canvases with zero to two handwritten digits: the data of Attend-Infer-Repeat, at hand offline.

The digits are scikit-learn's 1 797 images of 8 x 8 pixels, enlarged by bilinear interpolation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CANVAS, DIGIT = 50, 20
MOST = 2
APART = 0.8  # two digits are at least this share of a digit's side apart, along one axis

Images = NDArray[np.float32]


def enlarge(images: NDArray[np.floating], size: int) -> Images:
    """Bilinear interpolation of square images: [n, s, s] -> [n, size, size].

    Pixels are samples at the centres of equal cells; beyond the outer centres the edge is repeated.
    """
    small = images.shape[-1]
    at = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(small)), 0)  # [size, s]
    return (weights @ images @ weights.T).astype(np.float32)


def digit_images(size: int) -> Images:
    """All of scikit-learn's digits, with values in [0, 1]: [1797, size, size]."""
    return enlarge(load_digits().images / 16, size)


def place(rng: np.random.Generator, count: int, free: int, apart: float) -> NDArray[np.int64]:
    """Random corners in [0, free]^2, two of them `apart` or more along one axis: [count, 2]."""
    while True:
        corners = rng.integers(0, free + 1, size=(count, 2))
        if count < 2 or np.abs(corners[0] - corners[1]).max() >= apart:
            return corners


def multi_digits(
    n: int, seed: int = 0, canvas: int = CANVAS, digit: int = DIGIT
) -> tuple[Images, NDArray[np.int32]]:
    """`n` images [n, canvas, canvas] with values in [0, 1], and how many digits each has [n].

    The counts 0, 1 and 2 are equally likely; where digits touch, the brighter pixel shows.
    """
    rng = np.random.default_rng(seed)
    digits = digit_images(digit)
    images = np.zeros((n, canvas, canvas), np.float32)
    counts = rng.integers(0, MOST + 1, size=n, dtype=np.int32)
    for image, count in zip(images, counts):
        for top, left in place(rng, int(count), canvas - digit, APART * digit):
            window = image[top : top + digit, left : left + digit]
            np.maximum(window, digits[rng.integers(len(digits))], out=window)
    return images, counts
