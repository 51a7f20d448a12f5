"""Random numbers as composites of core ops: the same bits, samples and splits as `jax.random`
(its default, partitionable threefry), whatever backend runs them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .builder import Builder
from .core import Value
from .types import F64, I32, I64, U32, DType, TensorType

Shape = Sequence[int]


def counters(b: Builder, shape: Shape) -> Value:
    """0, 1, 2, ... in row-major order as keys: word 1 counts, word 0 is 0."""
    shape = tuple(shape)
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError("more than 2^32 random numbers in one draw")
    line = b.iota(type=TensorType(U32, (size,)), axis=0)
    packed = b.key_make(b.const(0, line), line)
    return b.reshape(packed, shape=shape)


def split(b: Builder, key: Value, n: int) -> Value:
    """`key[n]`: n independent keys."""
    return b.threefry(b.broadcast(key, shape=(n,), axes=()), counters(b, (n,)))


def fold_in(b: Builder, key: Value, data: Value) -> Value:
    """The key for number `data` (i32, i64 or u32 scalar) under `key`."""
    if b.type(data).dtype is I64:
        data = b.convert(data, dtype=I32)
    word = data if b.type(data).dtype is U32 else b.bitcast(data, dtype=U32)
    return b.threefry(key, b.key_make(b.const(0, word), word))


def blocks(b: Builder, key: Value, shape: Shape) -> Value:
    """One 64-bit cipher block an element, as keys."""
    shape = tuple(shape)
    return b.threefry(b.broadcast(key, shape=shape, axes=()), counters(b, shape))


def bits(b: Builder, key: Value, shape: Shape) -> Value:
    """`u32[shape]` random bits."""
    block = blocks(b, key, shape)
    return b.xor(b.key_hi(block), b.key_lo(block))


def unit(b: Builder, key: Value, shape: Shape, dtype: DType) -> Value:
    """Uniform floats in [0, 1): random mantissas under the exponent of 1, less 1."""
    if dtype is F64:
        block = blocks(b, key, shape)
        # JAX packs 64 bits with the first word high; ours is low, so swap before reading i64.
        swapped = b.key_make(b.key_hi(block), b.key_lo(block))
        word = b.bitcast(swapped, dtype=I64)
        mantissa = b.shr(word, b.const(12, word))
        one = b.const(np.float64(1.0).view(np.int64).item(), word)
    else:
        word = bits(b, key, shape)
        mantissa = b.shr(word, b.const(9, word))
        one = b.const(np.float32(1.0).view(np.uint32).item(), word)
    floats = b.bitcast(b.or_(mantissa, one), dtype=dtype)
    return b.sub(floats, b.const(1.0, floats))


def uniform(
    b: Builder,
    key: Value,
    shape: Shape,
    dtype: DType,
    low: Value | float = 0.0,
    high: Value | float = 1.0,
) -> Value:
    """Uniform floats in [low, high); the bounds are numbers or arrays of the shape."""
    u = unit(b, key, shape, dtype)
    lo, hi = (v if isinstance(v, Value) else b.const(v, u) for v in (low, high))
    return b.max(lo, b.add(b.mul(u, b.sub(hi, lo)), lo))


def normal(b: Builder, key: Value, shape: Shape, dtype: DType) -> Value:
    """Standard normal floats: the inverse error function of uniform ones."""
    low = float(np.nextafter(dtype.numpy.type(-1), dtype.numpy.type(0)))
    u = uniform(b, key, shape, dtype, low, 1.0)
    root = b.const(dtype.numpy.type(np.sqrt(2)), u)
    return b.mul(root, b.erfinv(u))


def bernoulli(b: Builder, key: Value, p: Value, shape: Shape) -> Value:
    """Bools that are true with probability p (of the shape)."""
    return b.lt(unit(b, key, shape, b.type(p).dtype), p)


def exponential(b: Builder, key: Value, shape: Shape, dtype: DType) -> Value:
    """Exponential floats of rate 1."""
    return b.neg(b.log1p(b.neg(unit(b, key, shape, dtype))))


def gumbel(b: Builder, key: Value, shape: Shape, dtype: DType) -> Value:
    """Standard Gumbel floats."""
    tiny = float(np.finfo(dtype.numpy).tiny)
    u = uniform(b, key, shape, dtype, tiny, 1.0)
    return b.neg(b.log(b.neg(b.log(u))))


def categorical(b: Builder, key: Value, logits: Value) -> Value:
    """i32 indices along the last axis of `logits`, each with probability softmax(logits)."""
    type = b.type(logits)
    noise = gumbel(b, key, type.shape, type.dtype)
    return b.argmax(b.add(noise, logits), axis=type.rank - 1)


def permutation(b: Builder, key: Value, n: int) -> Value:
    """A random order of 0 .. n-1 as i32[n], by sorting under random words until ties are rare."""
    order = b.iota(type=TensorType(I32, (n,)), axis=0)
    rounds = math.ceil(3 * math.log(max(1, n)) / math.log(2**32 - 1))
    for _ in range(rounds):
        pair = split(b, key, 2)
        key, sub = (b.row(pair, i) for i in range(2))
        words = bits(b, sub, (n,))
        _, order = b.op("sort", [words, order], axis=0)
    return order


def randint(b: Builder, key: Value, shape: Shape, low: int, high: int) -> Value:
    """i32 numbers in [low, high), each as likely up to a bias below 2^-32, as JAX draws them."""
    pair = split(b, key, 2)
    upper, lower = (bits(b, b.row(pair, i), shape) for i in range(2))
    span = b.const(high - low, upper)
    multiplier = b.const(pow(pow(2, 16, high - low), 2, high - low) % (high - low), upper)
    mixed = b.add(b.mul(b.mod(upper, span), multiplier), b.mod(lower, span))
    offset = b.bitcast(b.mod(mixed, span), dtype=I32)
    return b.add(offset, b.const(low, offset))


def key_words(seed: int) -> int:
    """The packed key of a seed, as `jax.random.PRNGKey` makes it from a 32-bit one."""
    low = seed & 0xFFFFFFFF
    high = (seed >> 32) & 0xFFFFFFFF if not -(2**31) <= seed < 2**32 else 0
    return high | (low << 32)
