"""Each elementwise op of the LLVM backend against the reference, with an error in ulps."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.backends.llvm.executable import Executable
from wengert.ir import F32, F64, OPS, Function, IRError, Module, TensorType, function_block
from wengert.ir.interp import run
from wengert.passes.bufferize import bufferize

EDGE = [0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1e30, -1e30]
EDGE += [100, -100, 0.999, -0.999, 1e-3, 3.5, 2.5, -2.5, 10, -10.5]
# Largest error in units in the last place of the reference; ops not named here are exact.
ULPS = dict.fromkeys(
    ["exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"]
    + ["tanh", "asinh", "acosh", "atanh", "sigmoid", "softplus", "erf", "pow", "atan2", "rsqrt"],
    4,
)
# Near zeros of the function, and in tails where SciPy itself is off, an absolute error counts.
ABSOLUTE = {"lgamma": 1e-14, "digamma": 1e-12, "trigamma": 1e-12, "erfc": 1e-15, "erfinv": 4e-15}
SKIPPED = {"select", "threefry", "key_make", "key_lo", "key_hi", "convert", "bitcast"}
OPERATORS = [n for n, d in OPS.items() if d.elementwise and n not in SKIPPED]


def inputs(dtype):
    rng = np.random.default_rng(0)
    parts = [EDGE, rng.normal(size=500), rng.normal(size=500) * 20, rng.uniform(-1, 1, 500)]
    x = np.concatenate([*parts, np.exp(rng.normal(size=300) * 8)]).astype(dtype.numpy)
    return x, rng.permutation(x)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_op(name, dtype):
    x, y = inputs(dtype)
    arity = OPS[name].arity
    block, b = function_block([TensorType(dtype, x.shape)] * arity)
    try:
        block.results = list(b.op(name, block.params))
    except IRError:
        pytest.skip(f"{name} takes no floats")
    module = Module(entry="f")
    module.add(Function("f", block))
    (want,) = run(module, [x, y][:arity])
    (got,) = Executable.compile(bufferize(module))([x, y][:arity])
    keep = np.ones(len(x), bool)
    if name in ("lgamma", "trigamma", "digamma"):
        keep = ~np.isinf(x) & ((x > 0) | (name == "lgamma"))  # SciPy's own convention at -inf
    if want.dtype == bool:
        np.testing.assert_array_equal(got, want)
        return
    same = (got == want) | (np.isnan(got) & np.isnan(want)) | ~keep
    with np.errstate(all="ignore"):
        gap = np.abs(got.astype(np.float64) - want.astype(np.float64))
        unit = np.spacing(np.abs(want)).astype(np.float64)
    allowed = ULPS.get(name, 0) * unit
    if name in ABSOLUTE:
        relative = 8 * np.finfo(dtype.numpy).eps
        allowed = np.maximum(ABSOLUTE[name] if dtype is F64 else 3e-6, relative * np.abs(want))
    bad = ~same & ~(gap <= allowed)
    assert not bad.any(), (name, x[bad][:3], y[bad][:3], got[bad][:3], want[bad][:3])


def test_huge_arguments_of_sine_are_reduced_exactly():
    x = np.array([1e5, 1e10, 1e22, 1e300])
    block, b = function_block([TensorType(F64, (4,))])
    block.results = [b.sin(block.params[0])]
    module = Module(entry="f")
    module.add(Function("f", block))
    np.testing.assert_allclose(Executable.compile(bufferize(module))([x])[0], np.sin(x), rtol=1e-14)


def test_a_rounded_product_is_not_joined_with_a_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1000)).astype(np.float32)
    z = -(x * y)
    block, b = function_block([TensorType(F32, (1000,))] * 3)
    p, q, r = block.params
    block.results = [b.add(b.mul(p, q, rounded=True), r), b.add(b.mul(p, q), r)]
    module = Module(entry="f")
    module.add(Function("f", block))
    apart, joined = Executable.compile(bufferize(module))([x, y, z])
    assert (apart == 0).all()
    once = np.float32(x.astype(np.float64) * y.astype(np.float64) + z.astype(np.float64))
    assert ((joined == once) | (joined == 0)).all()  # joined where the processor can
