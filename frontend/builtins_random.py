"""Builtins that draw random numbers from keys; see ir/random.py."""

from __future__ import annotations

from typing import Any

from ..ir import random
from ..ir.core import Value
from ..ir.span import Span
from ..ir.types import KEY, U32, TensorType
from .builtin_table import builtin
from .builtins_math import float_tensor
from .values import SizeMistake, Staged, Static, Tensor, Tuple, TypeMistake, describe

SCALAR = Tuple(())


def one_key(low: Any, key: Staged, span: Span) -> Value:
    """One random key, or TypeMistake."""
    if isinstance(key, Tensor) and key.type == TensorType(KEY):
        return key.value
    hint = "take one of them: ks[0]" if isinstance(key, Tensor) and key.type.dtype is KEY else "add a parameter 'k: key'"
    raise TypeMistake("a random key is needed", span, found=describe(key), hint=hint)


@builtin("key", "seed")
def _key(low: Any, span: Span, seed: Staged) -> Staged:
    """The key of a whole number known when compiling, or of a run-time i32."""
    if isinstance(seed, Static):
        packed = random.key_words(low.a.static_int(seed, span, "a seed"))
        words = [low.b.const(packed >> (32 * i) & 0xFFFFFFFF, U32) for i in range(2)]
        return Tensor(low.b.key_make(*words))
    word = low.b.bitcast(low.a.tensor(seed, span), dtype=U32)
    return Tensor(low.b.key_make(low.b.const(0, word), word))


@builtin("split", "key", ("n", Static(2)))
def _split(low: Any, span: Span, key: Staged, n: Staged) -> Staged:
    """n independent keys."""
    count = low.a.shape_of(n, span)[0]
    return Tensor(random.split(low.b, one_key(low, key, span), count))


@builtin("fold_in", "key", "data")
def _fold_in(low: Any, span: Span, key: Staged, data: Staged) -> Staged:
    """The key for an integer under a key."""
    value = low.a.tensor(data, span)
    if not low.a.type(value).dtype.is_int or low.a.type(value).rank:
        raise TypeMistake("'fold_in' takes one integer", span, found=describe(data))
    return Tensor(random.fold_in(low.b, one_key(low, key, span), value))


@builtin("random_bits", "key", ("shape", SCALAR))
def _bits(low: Any, span: Span, key: Staged, shape: Staged) -> Staged:
    """u32 random bits."""
    return Tensor(random.bits(low.b, one_key(low, key, span), low.a.shape_of(shape, span)))


@builtin("uniform", "key", ("shape", SCALAR), ("low_", Static(0.0)), ("high", Static(1.0)))
def _uniform(low: Any, span: Span, key: Staged, shape: Staged, low_: Staged, high: Staged) -> Staged:
    """Uniform numbers in [low_, high)."""
    sizes = low.a.shape_of(shape, span)
    bounds = [low.b.expand(low.a.tensor(v, span, low.session.real), sizes) for v in (low_, high)]
    return Tensor(random.uniform(low.b, one_key(low, key, span), sizes, low.session.real, *bounds))


def _standard(name: str, draw: Any, doc: str) -> None:
    def run(low: Any, span: Span, key: Staged, shape: Staged) -> Staged:
        sizes = low.a.shape_of(shape, span)
        return Tensor(draw(low.b, one_key(low, key, span), sizes, low.session.real))

    run.__doc__ = doc
    builtin(name, "key", ("shape", SCALAR))(run)


_standard("normal", random.normal, "Standard normal numbers.")
_standard("gumbel", random.gumbel, "Standard Gumbel numbers.")
_standard("exponential", random.exponential, "Exponential numbers of rate 1.")


@builtin("bernoulli", "key", "p", ("shape", Static(None)))
def _bernoulli(low: Any, span: Span, key: Staged, p: Staged, shape: Staged) -> Staged:
    """Bools that are true with probability p."""
    v = float_tensor(low, p, span, "bernoulli")
    sizes = low.a.type(v).shape
    if not (isinstance(shape, Static) and shape.value is None):
        sizes = low.a.shape_of(shape, span)
    return Tensor(random.bernoulli(low.b, one_key(low, key, span), low.b.expand(v, sizes), sizes))


@builtin("categorical", "key", "logits")
def _categorical(low: Any, span: Span, key: Staged, logits: Staged) -> Staged:
    """An index along the last axis with probability softmax(logits)."""
    v = float_tensor(low, logits, span, "categorical")
    if not low.a.type(v).rank or not low.a.type(v).shape[-1]:
        raise SizeMistake("'categorical' needs at least one logit", span, found=str(low.a.type(v)))
    return Tensor(random.categorical(low.b, one_key(low, key, span), v))


@builtin("permutation", "key", "n")
def _permutation(low: Any, span: Span, key: Staged, n: Staged) -> Staged:
    """A random order of 0 .. n-1."""
    count = low.a.shape_of(n, span)[0]
    return Tensor(random.permutation(low.b, one_key(low, key, span), count))


@builtin("randint", "key", "shape", "low_", "high")
def _randint(low: Any, span: Span, key: Staged, shape: Staged, low_: Staged, high: Staged) -> Staged:
    """Whole numbers in [low_, high); the bounds are known when compiling."""
    first, last = (low.a.static_int(v, span, "a bound") for v in (low_, high))
    if last <= first:
        raise SizeMistake("'randint' needs low < high", span, found=f"{first} and {last}")
    sizes = low.a.shape_of(shape, span)
    return Tensor(random.randint(low.b, one_key(low, key, span), sizes, first, last))
