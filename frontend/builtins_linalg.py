"""Builtins on matrices."""

from __future__ import annotations

from typing import Any

from ..ir.span import Span

from .builtin_table import builtin
from .builtins_arrays import axes_of
from .builtins_math import float_tensor
from .values import SizeMistake, Staged, Static, Tensor, TypeMistake, describe


@builtin("dot", "x", "y")
def _dot(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """x @ y."""
    return low.a.binary("@", x, y, span)  # type: ignore[no-any-return]


@builtin("outer", "x", "y")
def _outer(low: Any, span: Span, x: Staged, y: Staged) -> Staged:
    """Products of every element of vector x with every one of vector y."""
    a, b = low.a.promote([x, y], span, "'outer'")
    if low.a.type(a).rank != 1 or low.a.type(b).rank != 1:
        raise TypeMistake("'outer' needs two vectors", span, found=f"{describe(x)} and {describe(y)}")
    return Tensor(low.a.dot(a, b, (), (), (), ()))


@builtin("einsum", "spec", "x", variadic=True)
def _einsum(low: Any, span: Span, spec: Staged, x: Staged, rest: list[Staged]) -> Staged:
    """Einstein summation of one or more arrays: einsum("ij,jk->ik", a, b)."""
    if not isinstance(spec, Static) or not isinstance(spec.value, str):
        raise TypeMistake("'einsum' takes its formula as a string first", span)
    left, arrow, out = spec.value.replace(" ", "").partition("->")
    labels = left.split(",")
    values = low.a.promote([x, *rest], span, "'einsum'")
    if not arrow or len(labels) != len(values):
        raise TypeMistake("the formula does not match the arrays", span, expected="one group an array, then '->'", found=spec.value)
    _check_labels(low, labels, values, out, span)
    current, label = values[0], labels[0]
    for value, next_label, later in zip(values[1:], labels[1:], _later(labels, out)):
        current, label = _pair(low, current, label, value, next_label, later)
    return Tensor(_finish(low, current, label, out))


def _later(labels: list[str], out: str) -> list[set[str]]:
    """For each contraction, the labels still needed after it."""
    return [set(out) | set("".join(labels[i + 2 :])) for i in range(len(labels) - 1)]


def _check_labels(low: Any, labels: list[str], values: list[Any], out: str, span: Span) -> None:
    sizes: dict[str, int] = {}
    for label, value in zip(labels, values):
        shape = low.a.type(value).shape
        if len(label) != len(shape) or len(set(label)) != len(label) or not (label.isalpha() or not label):
            raise TypeMistake(
                f"'{label}' does not name the axes of {low.a.type(value)} once each", span
            )
        for letter, size in zip(label, shape):
            if sizes.setdefault(letter, size) != size:
                raise SizeMistake(
                    f"axis '{letter}' has two sizes", span, found=f"{sizes[letter]} and {size}"
                )
    if len(set(out)) != len(out) or not set(out) <= set(sizes):
        raise TypeMistake(f"the result '{out}' must use axes of the arrays once each", span)


def _pair(low: Any, a: Any, la: str, b: Any, lb: str, later: set[str]) -> tuple[Any, str]:
    """Contract two arrays over the labels that nothing later needs."""
    a, la = _sum_out(low, a, la, set(lb) | later)
    b, lb = _sum_out(low, b, lb, set(la) | later)
    shared = [c for c in la if c in lb]
    batch = [c for c in shared if c in later]
    contract = [c for c in shared if c not in later]
    out = low.a.dot(
        a,
        b,
        [la.index(c) for c in batch],
        [lb.index(c) for c in batch],
        [la.index(c) for c in contract],
        [lb.index(c) for c in contract],
    )
    label = "".join(batch) + "".join(c for c in la if c not in shared) + "".join(c for c in lb if c not in shared)
    return out, label


def _sum_out(low: Any, v: Any, label: str, needed: set[str]) -> tuple[Any, str]:
    drop = tuple(i for i, c in enumerate(label) if c not in needed)
    if not drop:
        return v, label
    return low.b.reduce_sum(v, axes=drop), "".join(c for c in label if c in needed)


def _finish(low: Any, v: Any, label: str, out: str) -> Any:
    v, label = _sum_out(low, v, label, set(out))
    perm = tuple(label.index(c) for c in out)
    return v if perm == tuple(range(len(perm))) else low.b.transpose(v, perm=perm)


def _matrix(low: Any, x: Staged, span: Span, what: str) -> Any:
    v = float_tensor(low, x, span, what)
    shape = low.a.type(v).shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise SizeMistake(f"'{what}' needs square matrices", span, found=str(low.a.type(v)))
    return v


@builtin("cholesky", "x")
def _cholesky(low: Any, span: Span, x: Staged) -> Staged:
    """Lower factor of positive definite matrices; NaN where one is not positive definite."""
    return Tensor(low.b.cholesky(_matrix(low, x, span, "cholesky")))


@builtin("solve_triangular", "a", "b", ("lower", Static(True)), ("trans", Static(False)))
def _solve(low: Any, span: Span, a: Staged, b: Staged, lower: Staged, trans: Staged) -> Staged:
    """x with a x = b (a' x = b if `trans`) for triangular a; b is a vector or a matrix."""
    m = _matrix(low, a, span, "solve_triangular")
    v = float_tensor(low, b, span, "solve_triangular")
    vector = low.a.type(v).rank == low.a.type(m).rank - 1
    if vector:
        v = low.b.reshape(v, shape=(*low.a.type(v).shape, 1))
    flags = {"lower": bool(getattr(lower, "value", True)), "trans": bool(getattr(trans, "value", False))}
    out = low.b.triangular_solve(m, v, **flags)
    return Tensor(low.b.reshape(out, shape=low.a.type(out).shape[:-1]) if vector else out)




@builtin("diag", "x")
def _diag(low: Any, span: Span, x: Staged) -> Staged:
    """The diagonal of a matrix, or the diagonal matrix of a vector."""
    v = low.a.tensor(x, span)
    shape = low.a.type(v).shape
    if len(shape) == 1:
        n = shape[0]
        flat = low.b.const(0, low.a.type(v).with_shape((n * n,)))
        if n:
            flat = low.b.pad(v, low.b.const(0, low.a.type(v).dtype), low=(0,), high=(0,), interior=(n,))
        return Tensor(low.b.reshape(flat, shape=(n, n)))
    if len(shape) != 2 or shape[0] != shape[1]:
        raise TypeMistake("'diag' needs a vector or a square matrix", span, found=str(low.a.type(v)))
    n = shape[0]
    flat = low.b.reshape(v, shape=(n * n,))
    return Tensor(low.b.slice(flat, start=(0,), limit=(n * n,), stride=(n + 1,)) if n else flat)


@builtin("trace", "x")
def _trace(low: Any, span: Span, x: Staged) -> Staged:
    """Sum of the diagonal of a matrix."""
    return Tensor(low.b.reduce_sum(_diag(low, span, x).value, axes=(0,)))


@builtin("norm", "x", ("axis", Static(None)))
def _norm(low: Any, span: Span, x: Staged, axis: Staged) -> Staged:
    """Square root of the sum of squares."""
    v = float_tensor(low, x, span, "norm")
    axes = axes_of(low, axis, low.a.type(v).rank, span)
    return Tensor(low.b.sqrt(low.b.reduce_sum(low.b.mul(v, v), axes=axes)))
