"""Builtins that draw random numbers from keys; see ir/random.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..ir import random
from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import I32, I64, KEY, U32, TensorType
from .builtin_table import builtin
from .builtins_math import float_tensor
from .type_errors import DTypeMistake, SizeMistake, TypeMistake
from .values import Staged, Static, Tensor, describe, is_none

if TYPE_CHECKING:
    from .lower import Lowering


def one_key(low: Lowering, key: Staged, span: Span) -> Value:
    """One random key, or TypeMistake."""
    if isinstance(key, Tensor) and key.type == TensorType(KEY):
        return key.value
    hint = "add a parameter 'k: key'"
    if isinstance(key, Tensor) and key.type.dtype is KEY:
        hint = "take one of them: ks[0]"
    raise TypeMistake("a random key is needed", span, found=describe(key), hint=hint)


def draw_shape(low: Lowering, shape: Staged, span: Span) -> tuple[int, ...]:
    """The shape of a draw; one draw counts its elements in 32 bits."""
    sizes = low.a.shape_of(shape, span)
    if TensorType(U32, sizes).size >= 2**32:
        raise SizeMistake("one draw gives fewer than 2^32 numbers", span, found=str(list(sizes)))
    return sizes


@builtin("key(seed)")
def _key(low: Lowering, span: Span, seed: Staged) -> Staged:
    """The key of a whole number known when compiling, or of a run-time i32."""
    if isinstance(seed, Static):
        packed = random.key_words(low.a.static_int(seed, span, "a seed"))
        words = [low.b.const(packed >> (32 * i) & 0xFFFFFFFF, U32) for i in range(2)]
        return Tensor(low.b.key_make(*words))
    word = low.a.tensor(seed, span)
    if low.a.type(word) not in (TensorType(I32), TensorType(U32)):
        raise TypeMistake("a seed is one i32", span, found=describe(seed))
    word = low.b.bitcast(word, dtype=U32) if low.a.type(word).dtype is I32 else word
    return Tensor(low.b.key_make(low.b.const(0, word), word))


@builtin("split(key, n=2)")
def _split(low: Lowering, span: Span, key: Staged, n: Staged) -> Staged:
    """n independent keys: key[n]; also k1, k2 = split(key)."""
    count = low.a.count_of(n, span)
    draw_shape(low, n, span)
    return Tensor(random.split(low.b, one_key(low, key, span), count))


@builtin("fold_in(key, data)")
def _fold_in(low: Lowering, span: Span, key: Staged, data: Staged) -> Staged:
    """The key of an integer (a loop index, an address) under a key."""
    value = low.a.tensor(data, span)
    if low.a.type(value).dtype not in (I32, I64, U32) or low.a.type(value).rank:
        raise TypeMistake("'fold_in' takes one integer", span, found=describe(data))
    return Tensor(random.fold_in(low.b, one_key(low, key, span), value))


@builtin("random_bits(key, shape=())")
def _bits(low: Lowering, span: Span, key: Staged, shape: Staged) -> Staged:
    """u32 random bits."""
    return Tensor(random.bits(low.b, one_key(low, key, span), draw_shape(low, shape, span)))


@builtin("uniform(key, shape=(), low=0.0, high=1.0)")
def _uniform(
    cx: Lowering, span: Span, key: Staged, shape: Staged, low: Staged, high: Staged
) -> Staged:
    """Uniform numbers in [low, high)."""
    sizes, real = draw_shape(cx, shape, span), cx.session.real
    bounds = []
    for bound in (low, high):
        v = cx.a.tensor(bound, span, real if isinstance(bound, Static) else None)
        if cx.a.type(v).dtype is not real:
            raise DTypeMistake(f"a bound must be {real}", span, found=describe(bound))
        bounds.append(cx.b.expand(v, sizes))
    return Tensor(random.uniform(cx.b, one_key(cx, key, span), sizes, real, *bounds))


def _declare_standard(name: str, draw: Callable[..., Value], doc: str) -> None:
    def run(low: Lowering, span: Span, key: Staged, shape: Staged) -> Staged:
        sizes = draw_shape(low, shape, span)
        return Tensor(draw(low.b, one_key(low, key, span), sizes, low.session.real))

    builtin(f"{name}(key, shape=())", doc)(run)


_declare_standard("normal", random.normal, "Standard normal numbers.")
_declare_standard("gumbel", random.gumbel, "Standard Gumbel numbers.")
_declare_standard("exponential", random.exponential, "Exponential numbers of rate 1.")


@builtin("bernoulli(key, p, shape=None)")
def _bernoulli(low: Lowering, span: Span, key: Staged, p: Staged, shape: Staged) -> Staged:
    """Bools that are true with probability p, in the shape of p unless one is given."""
    v = float_tensor(low, p, span, "bernoulli")
    sizes = low.a.type(v).shape if is_none(shape) else draw_shape(low, shape, span)
    return Tensor(random.bernoulli(low.b, one_key(low, key, span), low.b.expand(v, sizes), sizes))


@builtin("categorical(key, logits)")
def _categorical(low: Lowering, span: Span, key: Staged, logits: Staged) -> Staged:
    """An index (i32) along the last axis with probability softmax(logits)."""
    v = float_tensor(low, logits, span, "categorical")
    if not low.a.type(v).rank or not low.a.type(v).shape[-1]:
        raise SizeMistake("'categorical' needs at least one logit", span, found=str(low.a.type(v)))
    return Tensor(random.categorical(low.b, one_key(low, key, span), v))


@builtin("permutation(key, n)")
def _permutation(low: Lowering, span: Span, key: Staged, n: Staged) -> Staged:
    """A random order (i32) of 0 .. n-1."""
    count = low.a.count_of(n, span)
    draw_shape(low, n, span)
    return Tensor(random.permutation(low.b, one_key(low, key, span), count))


@builtin("randint(key, shape, low, high)")
def _randint(
    cx: Lowering, span: Span, key: Staged, shape: Staged, low: Staged, high: Staged
) -> Staged:
    """Whole numbers (i32) in [low, high); the bounds are known when compiling."""
    first, last = (cx.a.static_int(v, span, "a bound") for v in (low, high))
    if not -(2**31) <= first < last < 2**31:
        raise SizeMistake(
            "'randint' needs low < high, within i32", span, found=f"{first} and {last}"
        )
    sizes = draw_shape(cx, shape, span)
    return Tensor(random.randint(cx.b, one_key(cx, key, span), sizes, first, last))
