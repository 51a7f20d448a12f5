"""Every tensor op through the loop level: the interpreter gives the same before and after."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.ir.opdef import OPS
from wengert.ir.types import BOOL, F32, F64, I32, I64, KEY, U32, TensorType

RNG = np.random.default_rng(3)
NOT_HERE = {"call", "linear_call", "diff.jvp", "diff.vjp"}  # earlier passes remove them
WITH_REGIONS = {"if", "switch", "for", "while"}  # test_bufferize_control.py
FLOATS = (
    "exp expm1 sin cos tan sinh cosh tanh asinh atan sigmoid softplus erf erfc floor ceil round trunc "
    "down up "
    "digamma trigamma lgamma log log1p sqrt rsqrt acosh is_finite sign abs neg stop_gradient"
).split()
UNIT = ["asin", "acos", "atanh", "erfinv"]
BINARY = "add sub mul div pow atan2 floordiv mod max min eq ne lt le gt ge".split()


def t(dtype, *shape):
    return TensorType(dtype, shape)


def sample(type: TensorType) -> np.ndarray:
    """Positive floats, small integers of both signs, any bits for bools and keys."""
    if type.dtype.is_float:
        return np.asarray(RNG.uniform(1.1, 3, type.shape)).astype(type.dtype.numpy)
    if type.dtype is BOOL:
        return np.asarray(RNG.integers(0, 2, type.shape)).astype(bool)
    if type.dtype is KEY:
        return np.asarray(RNG.integers(0, 2**63, type.shape)).astype(np.uint64)
    return np.asarray(RNG.integers(0, 9, type.shape)).astype(type.dtype.numpy)


V, M = t(F64, 5), t(F64, 3, 4)
CASES = {name: [([M], lambda b, x, n=name: b.op(n, [x])[0])] for name in FLOATS}
CASES |= {
    name: [([V], lambda b, x, n=name: b.op(n, [b.sub(b.div(x, x), b.const(0.4, V))])[0])]
    for name in UNIT
}
CASES |= {name: [([M, M], lambda b, x, y, n=name: b.op(n, [x, y])[0])] for name in BINARY}
for _name in ("and", "or", "xor", "shl", "shr"):
    CASES[_name] = [([t(U32, 6), t(U32, 6)], lambda b, x, y, n=_name: b.op(n, [x, y])[0])]


def dot(types, lb, rb, lc, rc):
    attrs = {"lhs_batch": lb, "rhs_batch": rb, "lhs_contract": lc, "rhs_contract": rc}
    return types, lambda b, x, y: b.dot_general(x, y, **attrs)


def spd(b, x):
    """Positive definite matrices from any: x x' + 4 I."""
    product = b.dot_general(
        x, x, lhs_batch=(0,), rhs_batch=(0,), lhs_contract=(2,), rhs_contract=(2,)
    )
    n = b.type(product).shape[-1]
    eye = b.const(np.eye(n) * 4, t(F64, n, n))
    return b.add(product, b.broadcast(eye, shape=b.type(product).shape, axes=(1, 2)))


CUBE = t(F64, 2, 3, 4)
CASES |= {
    "not": [([t(BOOL, 4)], lambda b, x: b.not_(x)), ([t(I32, 4)], lambda b, x: b.not_(x))],
    "select": [([t(BOOL, 5), V, V], lambda b, c, x, y: b.select(c, x, y))],
    "convert": [
        ([V], lambda b, x: (b.convert(x, dtype=I32), b.convert(x, dtype=F32))),
        ([t(I64, 5)], lambda b, x: (b.convert(x, dtype=F64), b.convert(x, dtype=BOOL))),
    ],
    "bitcast": [([t(F32, 5)], lambda b, x: b.bitcast(x, dtype=U32))],
    "threefry": [([t(KEY, 3), t(KEY, 3)], lambda b, k, c: b.threefry(k, c))],
    "key_make": [([t(U32, 3), t(U32, 3)], lambda b, x, y: b.key_make(x, y))],
    "key_lo": [([t(KEY, 3)], lambda b, k: b.key_lo(k))],
    "key_hi": [([t(KEY, 3)], lambda b, k: b.key_hi(k))],
    "const": [
        ([], lambda b: (b.const(2.5, M), b.const(np.arange(12.0).reshape(3, 4), M))),
        ([], lambda b: b.const(3, t(I32))),
        ([], lambda b: (b.const(True, t(BOOL, 0)), b.const(5, t(KEY, 2)))),
    ],
    "iota": [
        ([], lambda b: (b.iota(axis=0, type=M), b.iota(axis=1, type=t(I64, 2, 3)))),
    ],
    "broadcast": [
        ([t(F64, 3)], lambda b, x: b.broadcast(x, shape=(2, 3, 4), axes=(1,))),
        ([t(F64)], lambda b, x: b.broadcast(b.exp(x), shape=(4,), axes=())),
    ],
    "reshape": [
        ([CUBE], lambda b, x: b.exp(b.reshape(b.exp(x), shape=(4, 6)))),
        ([CUBE], lambda b, x: (b.reshape(x, shape=(24,)), b.reshape(x, shape=(1, 6, 1, 4)))),
        ([t(F64, 3, 0)], lambda b, x: b.reshape(x, shape=(0, 5, 2))),
        ([t(F64, 1, 1)], lambda b, x: b.reshape(b.neg(x), shape=())),
    ],
    "transpose": [([CUBE], lambda b, x: b.transpose(b.exp(x), perm=(2, 0, 1)))],
    "slice": [
        ([M], lambda b, x: b.slice(b.neg(x), start=(1, 0), limit=(3, 4), stride=(1, 3))),
        ([V], lambda b, x: b.slice(x, start=(2,), limit=(2,), stride=(1,))),
    ],
    "reverse": [([M], lambda b, x: b.reverse(b.neg(x), axes=(1,)))],
    "concatenate": [
        ([M, t(F64, 3, 1)], lambda b, x, y: b.concatenate(x, y, b.exp(x), axis=1)),
        ([t(F64, 0), t(F64, 0)], lambda b, x, y: b.concatenate(x, y, axis=0)),
        ([t(F64, 0), V], lambda b, x, y: b.concatenate(x, y, x, axis=0)),
        ([V], lambda b, x: b.concatenate(*[b.mul(x, b.const(i, V)) for i in range(20)], axis=0)),
    ],
    "pad": [
        ([M, t(F64)], lambda b, x, f: b.pad(x, f, low=(1, 0), high=(0, 2), interior=(2, 0))),
        ([t(F64, 0), t(F64)], lambda b, x, f: b.pad(x, f, low=(2,), high=(1,), interior=(0,))),
    ],
    "reduce_sum": [
        ([CUBE], lambda b, x: b.reduce_sum(b.exp(x), axes=(0, 2))),
        ([CUBE], lambda b, x: b.reduce_sum(x, axes=())),
        ([t(F64, 0, 3)], lambda b, x: b.reduce_sum(x, axes=(0,))),
    ],
    "reduce_prod": [([M], lambda b, x: b.reduce_prod(x, axes=(0, 1)))],
    "reduce_max": [
        ([M], lambda b, x: b.reduce_max(x, axes=(1,))),
        ([t(BOOL, 3, 4)], lambda b, x: b.reduce_max(x, axes=(1,))),
        ([t(F64, 0)], lambda b, x: b.reduce_max(x, axes=(0,))),
    ],
    "reduce_min": [
        ([M], lambda b, x: b.reduce_min(x, axes=(0,))),
        ([t(BOOL, 3)], lambda b, x: b.reduce_min(x, axes=(0,))),
    ],
    "argmax": [([CUBE], lambda b, x: b.argmax(x, axis=1))],
    "argmin": [([M], lambda b, x: b.argmin(b.neg(x), axis=1))],
    "cumsum": [
        ([CUBE], lambda b, x: b.cumsum(b.exp(x), axis=1, reverse=False)),
        ([V], lambda b, x: b.cumsum(x, axis=0, reverse=True)),
        ([t(F64, 2, 0)], lambda b, x: b.cumsum(x, axis=1, reverse=False)),
    ],
    "sort": [
        ([M, t(I32, 3, 4)], lambda b, x, y: b.sort(x, y, axis=1)),
        ([CUBE], lambda b, x: b.sort(b.neg(x), axis=0)),
    ],
    "dot_general": [
        dot([M, t(F64, 4, 2)], (), (), (1,), (0,)),
        dot([M, M], (), (), (0, 1), (0, 1)),
        dot([CUBE, t(F64, 2, 5, 4)], (0,), (0,), (2,), (2,)),
        dot([t(I32, 3, 4), t(I32, 4)], (), (), (1,), (0,)),
        dot([t(F64, 20, 30), t(F64, 30, 10)], (), (), (1,), (0,)),
        dot([t(F64, 30, 20), t(F64, 10, 30)], (), (), (0,), (1,)),
        dot([t(F64, 16, 4, 30), t(F64, 30, 4, 12)], (1,), (1,), (2,), (0,)),
        dot([t(F64, 5, 30, 6), t(F64, 6, 5, 40)], (), (), (0, 2), (1, 0)),
        dot([V, t(F64, 3)], (), (), (), ()),
    ],
    "cholesky": [([t(F64, 2, 3, 3)], lambda b, x: b.cholesky(spd(b, x)))],
    "triangular_solve": [
        (
            [t(F64, 3, 3), t(F64, 3, 2)],
            lambda b, a, y, lo=lo, tr=tr: b.triangular_solve(a, b.neg(y), lower=lo, trans=tr),
        )
        for lo in (False, True)
        for tr in (False, True)
    ],
}
START = {
    "dynamic_slice": lambda b, x, i, j: b.dynamic_slice(b.neg(x), i, j, sizes=(2, 3)),
    "dynamic_update": lambda b, x, i, j: b.dynamic_update(
        x, b.slice(x, start=(0, 0), limit=(2, 3), stride=(1, 1)), i, j
    ),
}
CASES |= {
    name: [
        ([M, t(I32), t(I64)], make, [sample(M), np.int32(i), np.int64(j)])
        for i, j in ((0, 0), (1, 1), (-4, 9))
    ]
    for name, make in START.items()
}
PICKS = np.array([[2, 0, 9], [-1, 1, 1]], np.int32)
CASES["gather"] = [
    ([M, t(I32, 2, 3)], lambda b, x, i: b.gather(x, i, axis=1, batch=0), [sample(M), PICKS]),
    ([M, t(I32, 2, 3)], lambda b, x, i: b.gather(b.exp(x), i, axis=0, batch=0), [sample(M), PICKS]),
    (
        [t(F64, 2, 3, 4), t(I32, 2, 3)],
        lambda b, x, i: b.gather(x, i, axis=2, batch=1),
        [sample(t(F64, 2, 3, 4)), PICKS],
    ),
    (
        [t(F64, 0), t(I32, 0)],
        lambda b, x, i: b.gather(x, i, axis=0, batch=0),
        [np.zeros(0), np.zeros(0, np.int32)],
    ),
]
CASES["scatter_add"] = [
    (
        [M, t(I32, 2, 3), t(F64, 2, 3, 4)],
        lambda b, x, i, u: b.scatter_add(x, i, u, axis=0, batch=0),
        [sample(M), PICKS, sample(CUBE)],
    ),
    (
        [t(F64, 2, 3, 4), t(I32, 2, 3), t(F64, 2, 3, 3)],
        lambda b, x, i, u: b.scatter_add(b.exp(x), i, u, axis=2, batch=1),
        [sample(CUBE), PICKS, sample(t(F64, 2, 3, 3))],
    ),
]
FLAT = [(name, *case) for name, cases in CASES.items() for case in cases]


@pytest.mark.parametrize("case", FLAT, ids=lambda c: c[0])
def test_op(case, check_loops) -> None:
    _, types, make, *args = case
    check_loops(types, make, args[0] if args else [sample(p) for p in types])


def test_every_op_has_a_case() -> None:
    ops = (
        {n for n in OPS if not n.startswith(("loop.", "prob.", "shape.", "tree."))}
        - NOT_HERE
        - WITH_REGIONS
    )
    assert ops == set(CASES)
