"""Every op's derivative against finite differences, and its transpose against its derivative."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.opdef import OPS
from wengert.ir.types import BOOL, F32, F64, I32, TensorType
from wengert.passes.jvp import NotDifferentiable
from wengert.passes.jvp_rules import JVP
from wengert.passes.transpose_rules import TRANSPOSE

RNG = np.random.default_rng(3)
AROUND = np.array([-1.7, -0.6, -0.2, 0.3, 0.8, 2.3])
INSIDE = np.array([-0.9, -0.4, -0.1, 0.2, 0.5, 0.85])
ABOVE = np.array([0.2, 0.7, 1.3, 2.6, 4.1, 7.5])
DOMAIN = {
    "log": ABOVE, "sqrt": ABOVE, "rsqrt": ABOVE, "acosh": ABOVE + 1, "lgamma": ABOVE,
    "digamma": ABOVE, "asin": INSIDE, "acos": INSIDE, "atanh": INSIDE, "erfinv": INSIDE,
    "log1p": ABOVE - 0.9,
}  # fmt: skip
UNARY = [
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "softplus", "erf", "erfc", "erfinv",
    "lgamma", "digamma", "neg", "abs", "sign", "floor", "ceil", "round", "trunc", "down", "up",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "div", "mod", "max", "min", "atan2", "pow", "floordiv"]


@pytest.mark.parametrize("name", UNARY)
def test_unary(ad, name):
    m = ad.module([(6,)], lambda b, x: getattr(b, name)(x))
    ad.check(m, [DOMAIN.get(name, AROUND)])


@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", BINARY)
def test_binary(ad, name, wrt):
    m = ad.module([(6,), (6,)], lambda b, x, y: getattr(b, name)(x, y))
    first = ABOVE if name == "pow" else AROUND
    ad.check(m, [first, np.array([1.1, -2.0, 0.7, 3.0, -0.45, 1.9])], wrt=wrt)


@pytest.mark.parametrize("name", ["mul", "add", "div", "sub", "atan2", "max"])
def test_binary_of_one_value(ad, name):
    m = ad.module([(6,)], lambda b, x: b.exp(getattr(b, name)(x, x)))
    if name == "max":  # at the tie both halves add up to one, which differences agree with
        ad.check(m, [INSIDE])
    else:
        ad.check(m, [ABOVE / 4])


MATRIX = RNG.normal(size=(3, 4))
STRUCTURAL = {
    "broadcast": lambda b, x: b.broadcast(x, shape=(2, 3, 5, 4), axes=(1, 3)),
    "reshape": lambda b, x: b.reshape(x, shape=(2, 6)),
    "transpose": lambda b, x: b.transpose(x, perm=(1, 0)),
    "slice": lambda b, x: b.slice(x, start=(0, 1), limit=(3, 4), stride=(2, 2)),
    "slice_empty": lambda b, x: b.slice(x, start=(1, 0), limit=(1, 4), stride=(1, 1)),
    "reverse": lambda b, x: b.reverse(x, axes=(1,)),
    "pad": lambda b, x: b.pad(x, b.const(2.0, F64), low=(1, 0), high=(0, 2), interior=(1, 3)),
    "concatenate": lambda b, x: b.concatenate(x, b.exp(x), x, axis=1),
    "cumsum": lambda b, x: b.cumsum(x, axis=1),
    "cumsum_reverse": lambda b, x: b.cumsum(x, axis=0, reverse=True),
    "reduce_sum": lambda b, x: b.reduce_sum(x, axes=(0,)),
    "reduce_sum_all": lambda b, x: b.reduce_sum(x, axes=(0, 1)),
    "reduce_max": lambda b, x: b.reduce_max(x, axes=(1,)),
    "reduce_min": lambda b, x: b.reduce_min(x, axes=(0, 1)),
    "reduce_prod": lambda b, x: b.reduce_prod(x, axes=(0,)),
    "reduce_prod_all": lambda b, x: b.reduce_prod(x, axes=(0, 1)),
    "sort": lambda b, x: b.op("sort", [x, b.exp(x)], axis=0),
    "sort_rows": lambda b, x: b.op("sort", [x], axis=1),
    "sort_order": lambda b, x: b.op("sort", [x, b.iota(type=TensorType(I32, (3, 4)), axis=1)], axis=1),
    "stop_gradient": lambda b, x: b.mul(b.sin(x), b.stop_gradient(b.const(3.0, x))),
    "select": lambda b, x: b.select(b.gt(x, b.const(0.1, x)), b.exp(x), b.mul(x, x)),
    "convert": lambda b, x: b.mul(b.convert(b.gt(x, b.const(0, x)), dtype=F64), x),
    "argmax": lambda b, x: [b.argmax(x, axis=0), b.sin(x)],
    "dynamic_slice": lambda b, x: b.dynamic_slice(x, b.const(1, I32), b.const(9, I32), sizes=(2, 3)),
    "gather": lambda b, x: b.gather(x, b.const(np.array([[2, 0], [2, 7]]), TensorType(I32, (2, 2))), axis=0),
    "gather_batch": lambda b, x: b.gather(
        x, b.const(np.array([[2, 0], [1, 1], [3, 3]]), TensorType(I32, (3, 2))), axis=1, batch=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURAL)
def test_structural(ad, name):
    ad.check(ad.module([(3, 4)], STRUCTURAL[name]), [MATRIX])


@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)])
def test_two_operand_structural(ad, wrt):
    index = np.array([2, 0, 2])

    def scatter(b, x, y):
        return b.scatter_add(x, b.const(index, TensorType(I32, (3,))), y, axis=0)

    def update(b, x, y):
        corner = b.slice(y, start=(0, 0), limit=(2, 3), stride=(1, 1))
        return b.dynamic_update(x, corner, b.const(1, I32), b.const(5, I32))

    def pad(b, x, y):
        fill = b.reduce_sum(y, axes=(0, 1))
        return b.pad(x, fill, low=(0, 1), high=(2, 0), interior=(1, 0))

    for make in (scatter, update, pad):
        m = ad.module([(3, 4), (3, 4)], make)
        ad.check(m, [MATRIX, RNG.normal(size=(3, 4))], wrt=wrt)


DOTS = [
    ((3, 4), (4, 5), (), (), (1,), (0,)),
    ((4, 3), (5, 4), (), (), (0,), (1,)),
    ((2, 3, 4), (4, 2, 5), (0,), (1,), (2,), (0,)),
    ((3, 4, 2), (2, 3, 5), (), (), (2, 0), (0, 1)),
    ((3,), (4,), (), (), (), ()),
    ((4,), (4,), (), (), (0,), (0,)),
    ((2, 4, 3), (5, 3, 2, 4), (0,), (2,), (2, 1), (1, 3)),
]


@pytest.mark.parametrize("case", DOTS)
def test_dot_general(ad, case):
    sa, sb, la, lb, ca, cb = case
    axes = {"lhs_batch": la, "rhs_batch": lb, "lhs_contract": ca, "rhs_contract": cb}
    m = ad.module([sa, sb], lambda b, x, y: b.dot_general(x, y, **axes))
    ad.check(m, [RNG.normal(size=sa), RNG.normal(size=sb)])


def test_dot_of_one_value(ad):
    m = ad.module([(3, 3)], lambda b, x: b.dot_general(x, x, lhs_contract=(1,), rhs_contract=(0,)))
    ad.check(m, [RNG.normal(size=(3, 3))])


def test_cholesky(ad):
    root = RNG.normal(size=(2, 4, 4))
    spd = root @ root.transpose(0, 2, 1) + 4 * np.eye(4)
    ad.check(ad.module([(2, 4, 4)], lambda b, x: b.cholesky(x)), [spd])


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("trans", [True, False])
def test_triangular_solve(ad, lower, trans):
    a = RNG.normal(size=(2, 3, 3)) + 4 * np.eye(3)
    m = ad.module(
        [(2, 3, 3), (2, 3, 2)], lambda b, x, y: b.triangular_solve(x, y, lower=lower, trans=trans)
    )
    ad.check(m, [a, RNG.normal(size=(2, 3, 2))])


def test_convert_between_floats(ad):
    m = ad.module(
        [TensorType(F32, (2,))], lambda b, x: b.convert(b.convert(x, dtype=F64), dtype=F32)
    )
    x = np.ones(2, np.float32)
    assert ad.vjp(m, [x], [3 * x])[1].dtype == np.float32
    np.testing.assert_array_equal(ad.vjp(m, [x], [3 * x])[1], 3 * x)


def gradient(ad, make, *args):
    """Cotangents of the arguments for a cotangent of ones."""
    m = ad.module([np.shape(a) for a in args], make)
    args = [np.asarray(a, np.float64) for a in args]
    shape = m.main.results[0].type.shape
    return ad.vjp(m, args, [np.ones(shape)])[1:]


def test_subgradients_at_kinks(ad):
    assert gradient(ad, lambda b, x: b.abs(x), 0.0) == [0.0]
    assert gradient(ad, lambda b, x, y: b.max(x, y), 2.0, 2.0) == [0.5, 0.5]
    assert gradient(ad, lambda b, x, y: b.min(x, y), 2.0, 2.0) == [0.5, 0.5]
    assert gradient(ad, lambda b, x: b.sqrt(x), 0.0) == [np.inf]
    (ties,) = gradient(ad, lambda b, x: b.reduce_max(x, axes=(0,)), [1.0, 3.0, 3.0, 2.0])
    np.testing.assert_array_equal(ties, [0, 0.5, 0.5, 0])


def test_power_of_zero(ad):
    for exponent, slope in ((0.0, 0.0), (1.0, 1.0), (2.0, 0.0), (3.0, 0.0)):
        (got,) = gradient(ad, lambda b, x, e=exponent: b.pow(x, b.const(e, x)), 0.0)
        assert got == slope
    assert gradient(ad, lambda b, x, y: b.pow(x, y), 0.0, 2.0) == [0.0, 0.0]
    assert np.isnan(gradient(ad, lambda b, x, y: b.pow(x, y), -2.0, 2.0)[1])


def test_product_with_zeros(ad):
    (one,) = gradient(ad, lambda b, x: b.reduce_prod(x, axes=(0,)), [2.0, 0.0, 3.0])
    np.testing.assert_array_equal(one, [0, 6, 0])
    (two,) = gradient(ad, lambda b, x: b.reduce_prod(x, axes=(0,)), [2.0, 0.0, 0.0])
    np.testing.assert_array_equal(two, [0, 0, 0])


def test_a_branch_not_taken_leaks_no_nan_forward(ad):
    def root_or_zero(b, x):
        return b.select(b.gt(x, b.const(0, x)), b.sqrt(x), b.const(0, x))

    m = ad.module([()], root_or_zero)
    _, tangent = ad.jvp(m, [np.array(0.0)], [np.array(1.0)])
    assert tangent == 0


def test_ints_bools_and_stopped_values_carry_no_tangent(ad):
    def make(b, x):
        truth = b.gt(x, b.const(0, x))
        whole = b.convert(x, dtype=I32)
        return [truth, whole, b.mul(b.stop_gradient(x), x)]

    m = ad.module([()], make)
    out = ad.jvp(m, [np.array(3.0)], [np.array(1.0)])
    assert len(out) == 4
    assert out[3] == 3.0  # d(stop(x) x) = stop(x)
    assert m.main.results[0].type == TensorType(BOOL)


def test_every_op_has_a_rule_or_a_reason():
    core = [name for name in OPS if not name.startswith("loop.")]
    assert JVP.missing(core) == []


def test_an_op_without_a_derivative_says_why(ad):
    m = ad.module([(2,)], lambda b, x: b.trigamma(x))
    with pytest.raises(NotDifferentiable, match="trigamma.*polygamma"):
        ad.jvp(m, [np.ones(2)], [np.ones(2)])


def test_rules_exist_only_for_known_ops():
    assert set(JVP.rules) | set(JVP.without) <= set(OPS)
    assert set(TRANSPOSE.rules) <= set(OPS)
