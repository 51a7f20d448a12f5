"""Sums of matrix products: the operands are summed first, and the product shrinks."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.core import walk
from wengert.ir.interp import run
from wengert.passes.simplify import simplify

RNG = np.random.default_rng(2)
DOT = {"lhs_batch": (1,), "rhs_batch": (0,), "lhs_contract": (2,), "rhs_contract": (2,)}


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2), (0, 1), (0,)])
def test_sum_of_a_batched_product(ad, axes):
    """lhs [4, 3, 5] and rhs [3, 6, 5] give [3, 4, 6]; a sum over the batch axis stays."""

    def make(b, x, y):
        return b.reduce_sum(b.neg(b.dot_general(x, y, **DOT)), axes=axes)

    m = ad.module([(4, 3, 5), (3, 6, 5)], make)
    args = [RNG.normal(size=(4, 3, 5)), RNG.normal(size=(3, 6, 5))]
    after = simplify(m)
    np.testing.assert_allclose(run(after, args)[0], run(m, args)[0], rtol=1e-12)
    (dot,) = [op for op in walk(after.main.body) if op.name == "dot_general"]
    summed = 0 not in axes
    assert (dot.result.type.size < 72) == summed
