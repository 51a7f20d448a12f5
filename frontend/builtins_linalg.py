"""Builtins on matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ir.core import Value
from ..ir.span import Span
from .arithmetic import is_weak
from .builtin_table import builtin
from .builtins_math import float_tensor
from .operators import binary, dot
from .type_errors import CallMistake, DTypeMistake, SizeMistake, StaticNeeded, TypeMistake
from .values import Staged, Static, Tensor, describe

if TYPE_CHECKING:
    from .lower import Lowering


@builtin("dot(x, y)")
def _dot(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """x @ y."""
    return binary(low.a, "@", x, y, span)


@builtin("outer(x, y)")
def _outer(low: Lowering, span: Span, x: Staged, y: Staged) -> Staged:
    """Products of every element of vector x with every one of vector y."""
    a, b = low.a.promote([x, y], span, "'outer'")
    if low.a.type(a).rank != 1 or low.a.type(b).rank != 1:
        found = f"{describe(x)} and {describe(y)}"
        raise TypeMistake("'outer' needs two vectors", span, found=found)
    return Tensor(dot(low.a, a, b, (), (), (), ()))


@builtin("einsum(formula, *xs)")
def _einsum(low: Lowering, span: Span, formula: Staged, xs: tuple[Staged, ...]) -> Staged:
    """Einstein summation of one or more arrays: einsum("ij,jk->ik", a, b)."""
    if not isinstance(formula, Static) or not isinstance(formula.value, str):
        raise StaticNeeded(
            "'einsum' takes its formula as a string first", span, found=describe(formula)
        )
    left, arrow, out = formula.value.replace(" ", "").partition("->")
    labels = left.split(",")
    if not arrow or len(labels) != len(xs):
        raise CallMistake(
            "the formula does not match the arrays",
            span,
            expected="a group of letters for every array, then '->' and those of the result",
            found=f"{formula.value!r} with {len(xs)} arrays",
        )
    values = low.a.promote(xs, span, "'einsum'")
    if not low.a.type(values[0]).dtype.is_number:
        raise DTypeMistake("'einsum' needs numbers", span, found=describe(xs[0]))
    _check_labels(low, labels, values, out, span)
    current, label = values[0], labels[0]
    for i, (value, following) in enumerate(zip(values[1:], labels[1:])):
        later = set(out) | set("".join(labels[i + 2 :]))
        current, label = _pair(low, current, label, value, following, later)
    return Tensor(_finish(low, current, label, out))


def _check_labels(
    low: Lowering, labels: list[str], values: Sequence[Value], out: str, span: Span
) -> None:
    """Raise unless every letter names one axis of each array, with one size throughout."""
    sizes: dict[str, int] = {}
    for label, value in zip(labels, values):
        shape = low.a.type(value).shape
        letters = not label or (label.isalpha() and len(set(label)) == len(label))
        if len(label) != len(shape) or not letters:
            raise TypeMistake(
                f"'{label}' does not name the axes of {low.a.type(value)} once each", span
            )
        for letter, size in zip(label, shape):
            if sizes.setdefault(letter, size) != size:
                found = f"{sizes[letter]} and {size}"
                raise SizeMistake(f"axis '{letter}' has two sizes", span, found=found)
    if len(set(out)) != len(out) or not set(out) <= set(sizes):
        raise TypeMistake(f"the result '{out}' must use axes of the arrays once each", span)


def _pair(
    low: Lowering, a: Value, la: str, b: Value, lb: str, later: set[str]
) -> tuple[Value, str]:
    """Contract two arrays over the labels that nothing later needs."""
    a, la = _sum_out(low, a, la, set(lb) | later)
    b, lb = _sum_out(low, b, lb, set(la) | later)
    batch = [c for c in la if c in lb and c in later]
    contract = [c for c in la if c in lb and c not in later]
    out = dot(
        low.a,
        a,
        b,
        [la.index(c) for c in batch],
        [lb.index(c) for c in batch],
        [la.index(c) for c in contract],
        [lb.index(c) for c in contract],
    )
    label = "".join(batch) + "".join(c for c in la if c not in lb)
    return out, label + "".join(c for c in lb if c not in la)


def _sum_out(low: Lowering, v: Value, label: str, needed: set[str]) -> tuple[Value, str]:
    drop = tuple(i for i, c in enumerate(label) if c not in needed)
    if not drop:
        return v, label
    return low.b.reduce_sum(v, axes=drop), "".join(c for c in label if c in needed)


def _finish(low: Lowering, v: Value, label: str, out: str) -> Value:
    v, label = _sum_out(low, v, label, set(out))
    perm = tuple(label.index(c) for c in out)
    if perm == tuple(range(len(perm))):
        return v
    return low.b.transpose(v, perm=perm)


def _matrix(low: Lowering, x: Staged, span: Span, what: str) -> Value:
    v = float_tensor(low, x, span, what)
    shape = low.a.type(v).shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise SizeMistake(f"'{what}' needs square matrices", span, found=str(low.a.type(v)))
    return v


@builtin("cholesky(x)")
def _cholesky(low: Lowering, span: Span, x: Staged) -> Staged:
    """Lower factor of positive definite matrices; NaN where one is not positive definite."""
    return Tensor(low.b.cholesky(_matrix(low, x, span, "cholesky")))


@builtin("solve_triangular(a, b, lower=True, trans=False)")
def _solve(low: Lowering, span: Span, a: Staged, b: Staged, lower: Staged, trans: Staged) -> Staged:
    """x with a x = b (a' x = b if `trans`) for triangular a; b is a vector or a matrix."""
    m = _matrix(low, a, span, "solve_triangular")
    v = float_tensor(low, b, span, "solve_triangular")
    left, right = low.a.type(m), low.a.type(v)
    vector = right.rank == left.rank - 1
    shape = (*right.shape, 1) if vector else right.shape
    if shape[:-1] != left.shape[:-1] or left.dtype is not right.dtype:
        raise SizeMistake(
            "the right side does not fit the matrix",
            span,
            expected=f"{left.dtype}[{', '.join(map(str, left.shape[:-1]))}] or with columns",
            found=f"{left} and {right}",
        )
    v = low.b.reshape(v, shape=shape) if vector else v
    flags = {
        "lower": low.a.static_bool(lower, span, "lower"),
        "trans": low.a.static_bool(trans, span, "trans"),
    }
    out = low.b.triangular_solve(m, v, **flags)
    return Tensor(low.b.reshape(out, shape=right.shape) if vector else out)


@builtin("diag(x)")
def _diag(low: Lowering, span: Span, x: Staged) -> Staged:
    """The diagonals of matrices (last two axes), or the diagonal matrix of a vector."""
    v = low.a.tensor(x, span)
    type = low.a.type(v)
    if type.rank == 0:
        raise TypeMistake("'diag' needs a vector or a matrix", span, found=str(type))
    if type.rank == 1:
        return Tensor(_diagonal_matrix(low, v), is_weak(x))
    *lead, n, m = type.shape
    count = min(n, m)
    flat = low.b.reshape(v, shape=(*lead, n * m))
    limit = (count - 1) * (m + 1) + 1 if count else 0
    ones = (1,) * len(lead)
    zeros = (0,) * len(lead)
    out = low.b.slice(flat, start=(*zeros, 0), limit=(*lead, limit), stride=(*ones, m + 1))
    return Tensor(out, is_weak(x))


def _diagonal_matrix(low: Lowering, v: Value) -> Value:
    """A vector spread with n zeros behind every element but the last: n * n elements."""
    n = low.a.type(v).shape[0]
    fill = low.b.zeros(low.a.type(v).with_shape(()))
    flat = low.b.pad(v, fill, low=(0,), high=(0,), interior=(n,))
    return low.b.reshape(flat, shape=(n, n))


@builtin("trace(x)")
def _trace(low: Lowering, span: Span, x: Staged) -> Staged:
    """Sum of the diagonal of matrices (last two axes)."""
    diagonal = low.a.tensor(_diag(low, span, x), span)
    if low.a.type(low.a.tensor(x, span)).rank < 2:
        raise TypeMistake("'trace' needs matrices", span, found=describe(x))
    return Tensor(low.b.reduce_sum(diagonal, axes=(low.a.type(diagonal).rank - 1,)))
