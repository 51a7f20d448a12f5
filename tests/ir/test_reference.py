"""The reference semantics of ops against NumPy, SciPy and jax.lax; every core op has a case."""

from __future__ import annotations

import numpy as np
import pytest
from jax import lax
from scipy import special
from wengert.ir import F32, F64, I32, OPS, TensorType

X = np.array([[0.3, -1.5, 2.0], [0.9, 0.0, -0.7]])
P = np.abs(X) + 0.1
U = np.clip(X / 3, -0.9, 0.9)
I = np.array([[7, -7, 0], [5, 3, -2]], np.int32)
J = np.array([[2, 2, 3], [0, -1, 5]], np.int32)
B = X > 0
SPD = np.array([[4.0, 1.0], [1.0, 3.0]])


def ref(name, *arrays, **attrs):
    return OPS[name].reference(attrs, *arrays)


UNARY = {
    "exp": (np.exp, X), "expm1": (np.expm1, X), "log": (np.log, P), "log1p": (np.log1p, P),
    "sqrt": (np.sqrt, P), "rsqrt": (lambda x: x**-0.5, P), "sin": (np.sin, X), "cos": (np.cos, X),
    "tan": (np.tan, X), "asin": (np.arcsin, U), "acos": (np.arccos, U), "atan": (np.arctan, X),
    "sinh": (np.sinh, X), "cosh": (np.cosh, X), "tanh": (np.tanh, X), "asinh": (np.arcsinh, X),
    "acosh": (np.arccosh, P + 1), "atanh": (np.arctanh, U), "sigmoid": (special.expit, X),
    "softplus": (lambda x: np.log1p(np.exp(x)), X),
    "erf": (special.erf, X), "erfc": (special.erfc, X), "erfinv": (special.erfinv, U),
    "lgamma": (special.gammaln, P), "digamma": (special.digamma, P),
    "trigamma": (lambda x: special.polygamma(1, x), P), "floor": (np.floor, X), "ceil": (np.ceil, X),
    "round": (np.round, X), "trunc": (np.trunc, X), "is_finite": (np.isfinite, X), "neg": (np.negative, X),
    "abs": (np.abs, X), "sign": (np.sign, X), "not": (np.invert, B), "stop_gradient": (lambda x: x, X),
}  # fmt: skip
BINARY = {
    "add": (np.add, X, P), "sub": (np.subtract, X, P), "mul": (np.multiply, X, P), "div": (np.divide, X, P),
    "pow": (np.power, P, X), "atan2": (np.arctan2, X, P), "max": (np.maximum, X, U), "min": (np.minimum, X, U),
    "mod": (np.mod, X, P), "floordiv": (np.floor_divide, X, P), "and": (np.logical_and, B, ~B),
    "or": (np.logical_or, B, B), "xor": (np.logical_xor, B, B), "eq": (np.equal, I, J), "ne": (np.not_equal, I, J),
    "lt": (np.less, X, U), "le": (np.less_equal, X, X), "gt": (np.greater, X, U), "ge": (np.greater_equal, X, X),
    "shl": (lambda a, b: a << b, np.abs(I), np.array([[1, 2, 3], [4, 5, 6]], np.int32)),
    "shr": (lambda a, b: a >> b, np.abs(I), np.array([[1, 2, 3], [4, 5, 6]], np.int32)),
}  # fmt: skip
OTHER = {
    "down": lambda: (
        ref("down", np.array([1.0, 0.0, np.inf]), ulps=2),
        [1 - 2**-51, -np.finfo(float).tiny, np.finfo(float).max],
    ),
    "up": lambda: (ref("up", np.array([1.0, -np.inf]), ulps=1), [1 + 2**-52, -np.finfo(float).max]),
    "select": lambda: (ref("select", B, X, P), np.where(B, X, P)),
    "convert": lambda: (
        ref("convert", np.array([1.9, -1.9, np.nan, 1e20]), dtype=I32),
        [1, -1, 0, 2**31 - 1],
    ),
    "bitcast": lambda: (ref("bitcast", np.float32([1.0]), dtype=I32), [0x3F800000]),
    "threefry": lambda: (ref("threefry", np.uint64([0]), np.uint64([0])), [0x99BA4EFE_6B200159]),
    "key_make": lambda: (ref("key_make", np.uint32([1]), np.uint32([2])), [(2 << 32) | 1]),
    "key_lo": lambda: (ref("key_lo", np.uint64([(2 << 32) | 1])), [1]),
    "key_hi": lambda: (ref("key_hi", np.uint64([(2 << 32) | 1])), [2]),
    "const": lambda: (ref("const", value=2.0, type=TensorType(F32, (2,))), [2, 2]),
    "iota": lambda: (ref("iota", axis=1, type=TensorType(I32, (2, 3))), [[0, 1, 2]] * 2),
    "broadcast": lambda: (
        ref("broadcast", X, shape=(2, 4, 3), axes=(0, 2)),
        np.repeat(X[:, None], 4, 1),
    ),
    "reshape": lambda: (ref("reshape", X, shape=(3, 2)), X.reshape(3, 2)),
    "transpose": lambda: (ref("transpose", X, perm=(1, 0)), X.T),
    "slice": lambda: (ref("slice", X, start=(0, 0), limit=(2, 3), stride=(1, 2)), X[:, ::2]),
    "dynamic_slice": lambda: (
        ref("dynamic_slice", X, np.int32(5), np.int32(-1), sizes=(1, 2)),
        X[1:2, :2],
    ),
    "dynamic_update": lambda: (
        ref("dynamic_update", X, P[:1, :1], np.int32(9), np.int32(0))[1, 0],
        P[0, 0],
    ),
    "gather": lambda: (ref("gather", X, np.int32([2, 9, -4]), axis=1, batch=0), X[:, [2, 2, 0]]),
    "scatter_add": lambda: (
        ref("scatter_add", np.zeros(3), np.int32([1, 1, 7]), np.ones(3), axis=0, batch=0),
        [0, 2, 1],
    ),
    "concatenate": lambda: (ref("concatenate", X, P, axis=1), np.concatenate([X, P], 1)),
    "pad": lambda: (
        ref("pad", np.ones(2), np.float64(5), low=(1,), high=(0,), interior=(1,)),
        [5, 1, 5, 1],
    ),
    "reverse": lambda: (ref("reverse", X, axes=(1,)), X[:, ::-1]),
    "reduce_sum": lambda: (ref("reduce_sum", X, axes=(0,)), X.sum(0)),
    "reduce_prod": lambda: (ref("reduce_prod", X, axes=(1,)), X.prod(1)),
    "reduce_max": lambda: (ref("reduce_max", np.zeros((0, 2)), axes=(0,)), [-np.inf] * 2),
    "reduce_min": lambda: (ref("reduce_min", B, axes=(1,)), B.all(1)),
    "argmax": lambda: (ref("argmax", np.array([1.0, np.nan, 3.0]), axis=0), 1),
    "argmin": lambda: (ref("argmin", X, axis=1), X.argmin(1)),
    "cumsum": lambda: (ref("cumsum", X, axis=1, reverse=True), X[:, ::-1].cumsum(1)[:, ::-1]),
    "sort": lambda: (
        ref("sort", np.array([2.0, np.nan, 1.0, 2.0]), np.arange(4), axis=0)[1],
        [2, 0, 3, 1],
    ),
    "dot_general": lambda: (
        ref(
            "dot_general",
            X,
            P,
            lhs_batch=(0,),
            rhs_batch=(0,),
            lhs_contract=(1,),
            rhs_contract=(1,),
        ),
        (X * P).sum(1),
    ),
    "cholesky": lambda: (ref("cholesky", np.triu(SPD) + np.tril(SPD, -1)), np.linalg.cholesky(SPD)),
    "triangular_solve": lambda: (
        ref("triangular_solve", SPD, X[:, :1], lower=True, trans=True),
        np.linalg.solve(np.tril(SPD).T, X[:, :1]),
    ),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    function, x = UNARY[name]
    np.testing.assert_allclose(ref(name, x), function(x), rtol=1e-12)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    function, x, y = BINARY[name]
    np.testing.assert_allclose(ref(name, x, y), function(x, y), rtol=1e-12)


@pytest.mark.parametrize("name", OTHER)
def test_other(name):
    got, want = OTHER[name]()
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_every_core_op_has_a_case():
    structural = {"if", "switch", "for", "while", "call", "linear_call"}
    core = {n for n in OPS if "." not in n} - structural
    assert core == set(UNARY) | set(BINARY) | set(OTHER)


def test_integer_edges_are_those_documented():
    low = np.int32(-(2**31))
    np.testing.assert_array_equal(ref("floordiv", I, J), [[3, -4, 0], [0, -3, -1]])
    np.testing.assert_array_equal(ref("mod", I, J), [[1, 1, 0], [0, 0, 3]])
    assert ref("floordiv", np.array(low), np.array(np.int32(-1))) == low
    np.testing.assert_array_equal(ref("shl", np.int32([1, 1]), np.int32([31, 32])), [low, 0])
    np.testing.assert_array_equal(ref("shr", np.int32([-1]), np.int32([28])), [15])


def test_nan_rules_match_xla():
    x, y = np.float32([np.nan, 1, np.inf]), np.float32([1, np.nan, -np.inf])
    np.testing.assert_array_equal(ref("max", x, y), lax.max(x, y))
    np.testing.assert_array_equal(ref("min", x, y), lax.min(x, y))
    assert np.isnan(ref("sign", np.array([np.nan]))[0])
    assert np.isnan(ref("cholesky", -np.eye(2))).all()
    assert F64.numpy == np.float64
