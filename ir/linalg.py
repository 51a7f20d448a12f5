"""Matrix ops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core import Attrs, Block, Value
from .opdef import Array, OpDef, declare, need, tensor
from .types import Type


def free_axes(rank: int, batch: Sequence[int], contract: Sequence[int]) -> list[int]:
    """Axes of a dot_general operand that are neither batched nor contracted."""
    return [i for i in range(rank) if i not in batch and i not in contract]


def _dot_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    a, b = tensor(operands[0]), tensor(operands[1])
    la, lb = attrs["lhs_batch"], attrs["rhs_batch"]
    ca, cb = attrs["lhs_contract"], attrs["rhs_contract"]
    need(a.dtype is b.dtype and a.dtype.is_number, f"dot_general of {a} and {b}")
    for axes, t in ((la + ca, a), (lb + cb, b)):
        need(
            len(set(axes)) == len(axes) and all(0 <= i < t.rank for i in axes),
            f"dot_general axes {list(axes)} of {t}",
        )
    need(
        len(la) == len(lb) and all(a.shape[i] == b.shape[j] for i, j in zip(la, lb)),
        f"dot_general batch axes {list(la)} of {a} and {list(lb)} of {b}",
    )
    need(
        len(ca) == len(cb) and all(a.shape[i] == b.shape[j] for i, j in zip(ca, cb)),
        f"dot_general contracts axes {list(ca)} of {a} with {list(cb)} of {b}",
    )
    shape = [a.shape[i] for i in la]
    shape += [a.shape[i] for i in free_axes(a.rank, la, ca)]
    shape += [b.shape[i] for i in free_axes(b.rank, lb, cb)]
    return [a.with_shape(tuple(shape))]


def _dot(attrs: Attrs, a: Array, b: Array) -> Array:
    la, lb = attrs["lhs_batch"], attrs["rhs_batch"]
    ca, cb = attrs["lhs_contract"], attrs["rhs_contract"]
    label_a = list(range(a.ndim))
    label_b = [a.ndim + i for i in range(b.ndim)]
    for i, j in zip(la + ca, lb + cb):
        label_b[j] = label_a[i]
    free_a = [label_a[i] for i in free_axes(a.ndim, la, ca)]
    free_b = [label_b[i] for i in free_axes(b.ndim, lb, cb)]
    out = [label_a[i] for i in la] + free_a + free_b
    with np.errstate(all="ignore"):
        return np.asarray(np.einsum(a, label_a, b, label_b, out), dtype=a.dtype)


declare(
    OpDef(
        "dot_general",
        "products of a and b summed over the contracted axes; axes of the result: batch, "
        "free axes of a, free axes of b",
        _dot_infer,
        _dot,
        attrs=(
            ("lhs_batch", "ints"),
            ("rhs_batch", "ints"),
            ("lhs_contract", "ints"),
            ("rhs_contract", "ints"),
        ),
        arity=2,
    )
)


def _cholesky_infer(
    operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]
) -> list[Type]:
    a = tensor(operands[0])
    need(
        a.rank >= 2 and a.shape[-1] == a.shape[-2] and a.dtype.is_float,
        f"cholesky needs square float matrices, not {a}",
    )
    return [a]


def _cholesky(attrs: Attrs, a: Array) -> Array:
    out = np.full(a.shape, np.nan, a.dtype)
    for index in np.ndindex(*a.shape[:-2]):
        lower = np.tril(a[index])
        try:
            out[index] = np.linalg.cholesky(lower + np.tril(lower, -1).T)
        except np.linalg.LinAlgError:
            continue
    return out


declare(
    OpDef(
        "cholesky",
        "lower factor of positive definite matrices (last two axes; the upper triangle is not "
        "read); all NaN where a matrix is not positive definite",
        _cholesky_infer,
        _cholesky,
        arity=1,
    )
)


def _solve_infer(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    a, b = tensor(operands[0]), tensor(operands[1])
    need(
        a.rank >= 2 and a.shape[-1] == a.shape[-2] and a.dtype.is_float and a.dtype is b.dtype,
        f"triangular_solve needs square float matrices, not {a} with {b}",
    )
    need(
        b.rank == a.rank and b.shape[:-1] == a.shape[:-1],
        f"triangular_solve of {a} needs a right side like it, not {b}",
    )
    return [b]


def _solve(attrs: Attrs, a: Array, b: Array) -> Array:
    from scipy.linalg import solve_triangular

    out = np.empty_like(b)
    for index in np.ndindex(*a.shape[:-2]):
        triangle = np.tril(a[index]) if attrs["lower"] else np.triu(a[index])
        if b.shape[-1] == 0 or b.shape[-2] == 0:
            continue
        if np.any(np.diag(triangle) == 0) or not np.isfinite(triangle).all():
            out[index] = _substitute(triangle.T if attrs["trans"] else triangle, b[index])
            continue
        out[index] = solve_triangular(  # type: ignore[call-overload]
            triangle, b[index], trans=int(attrs["trans"]), lower=attrs["lower"], check_finite=False
        )
    return out


def _substitute(a: Array, b: Array) -> Array:
    """Plain substitution, which lets zeros on the diagonal give inf and NaN."""
    n = a.shape[0]
    lower = bool(np.all(np.triu(a, 1) == 0))
    x = np.zeros_like(b)
    with np.errstate(all="ignore"):
        for i in range(n) if lower else reversed(range(n)):
            known = range(i) if lower else range(i + 1, n)
            total = b[i].copy()
            for j in known:
                total = total - a[i, j] * x[j]
            x[i] = total / a[i, i]
    return x


declare(
    OpDef(
        "triangular_solve",
        "x with a x = b (a' x = b if `trans`), the `lower` or upper triangle of a; last two axes",
        _solve_infer,
        _solve,
        attrs=(("lower", "bool"), ("trans", "bool")),
        arity=2,
    )
)
