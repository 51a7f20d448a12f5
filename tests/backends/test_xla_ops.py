"""Every core op on XLA beside the reference interpreter, one named test an op and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from wengert.backends.xla.lower import CONTROL, XlaExecutable
from wengert.backends.xla.rules import LOWER
from wengert.ir.builder import function_block
from wengert.ir.core import Function, Module
from wengert.ir.interp import run
from wengert.ir.opdef import OPS
from wengert.ir.types import BOOL, F32, F64, I32, I64, KEY, U32, DType, TensorType

FLOATS, INTS = (F32, F64), (I32, I64, U32)
NUMBERS = FLOATS + INTS
INF, NAN = np.inf, np.nan
REALS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.3, 2.5, -3.5, 7.25, 1e-4, -20.0, 30.0, INF, -INF, NAN]
WHOLE = [0, 1, -1, 2, -2, 3, 7, -7, 31, 32, 33, 63, 64, 100, -(2**31), 2**31 - 1]
Case = tuple[str, dict[str, Any], list[Any]]


def values(dtype: DType, which: Sequence[float] | None = None) -> Any:
    """Special and ordinary values of a dtype."""
    if dtype is KEY:
        return np.random.default_rng(0).integers(0, 2**64, 12, dtype=np.uint64)
    if dtype is BOOL:
        return np.array([True, False, True])
    if dtype.is_float:
        return np.array(REALS if which is None else which, dtype.numpy)
    return np.array(WHOLE if which is None else which, np.int64).astype(dtype.numpy)


def pairs(dtype: DType) -> list[Any]:
    """Every combination of two values."""
    return [np.ascontiguousarray(g.reshape(-1)) for g in np.meshgrid(values(dtype), values(dtype))]


def data(dtype: DType, *shape: int, seed: int = 0) -> Any:
    """Ordinary random values."""
    rng = np.random.default_rng(seed)
    if dtype is BOOL:
        return rng.random(shape) < 0.5
    if dtype is KEY:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)
    if dtype.is_float:
        return rng.normal(size=shape).astype(dtype.numpy)
    return rng.integers(0 if dtype is U32 else -9, 10, shape).astype(dtype.numpy)


def type_of(array: Any) -> TensorType:
    names = {t.numpy: t for t in (F32, F64, I32, I64, U32, BOOL, KEY)}
    return TensorType(names[array.dtype], array.shape)


def run_both(name: str, attrs: dict[str, Any], args: list[Any]) -> tuple[list[Any], list[Any]]:
    """The results of one op from XLA and from the interpreter."""
    args = [np.asarray(a) for a in args]
    block, b = function_block([type_of(a) for a in args])
    block.results = list(b.op(name, block.params, **attrs))
    module = Module({"f": Function("f", block)}, "f")
    ours = [np.asarray(x) for x in XlaExecutable(module)(args)]
    words = [
        x.view(np.uint64).reshape(x.shape[:-1]) if r.type.dtype is KEY else x
        for x, r in zip(ours, block.results, strict=True)
    ]
    return words, run(module, args)


# What a float op may differ by, relative and absolute; exact where not listed.
LOOSE = {
    "pow": 1e-5,
    "lgamma": 2e-4,
    "digamma": 2e-4,
    "trigamma": 2e-4,
    "erfinv": 1e-5,
    "cholesky": 1e-4,
    "triangular_solve": 1e-4,
}
# Every other op that has no rounding must agree to the bit.
ROUNDED = {n for n, d in OPS.items() if d.elementwise} - {"add", "sub", "mul", "div"}
ROUNDED -= {"floor", "ceil", "round", "trunc", "neg", "abs", "sign", "max", "min", "select"}
ROUNDED -= {"stop_gradient", "convert", "bitcast", "floordiv"}
ROUNDED |= {"reduce_sum", "reduce_prod", "cumsum", "dot_general", "scatter_add"}
ROUNDED |= {"cholesky", "triangular_solve"}

UNARY_REAL = [n for n, d in OPS.items() if d.elementwise and d.arity == 1]
CASES: dict[str, Case] = {}


def case(label: str, name: str, args: list[Any], **attrs: Any) -> None:
    CASES[f"{name}-{label}"] = (name, attrs, args)


for _t in FLOATS:
    for _n in UNARY_REAL:
        if (
            _n in ("neg", "abs", "sign", "stop_gradient", "not", "convert", "bitcast")
            or "key" in _n
        ):
            continue
        case(str(_t), _n, [values(_t)])
    for _n in ("div", "pow", "atan2"):
        case(str(_t), _n, pairs(_t))
for _t in NUMBERS:
    for _n in ("neg", "abs", "sign"):
        case(str(_t), _n, [values(_t)])
    for _n in ("add", "sub", "mul", "floordiv", "mod", "max", "min", "lt", "le", "gt", "ge"):
        case(str(_t), _n, pairs(_t))
    case(str(_t), "iota", [], axis=1, type=TensorType(_t, (2, 3)))
    for _n in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"):
        case(str(_t), _n, [data(_t, 3, 4, 2)], axes=(0, 2))
        case(f"{_t}-none", _n, [data(_t, 3, 2)], axes=())
        case(f"{_t}-empty", _n, [data(_t, 3, 0)], axes=(1,))
        case(f"{_t}-specials", _n, [values(_t)], axes=(0,))
    for _n in ("argmax", "argmin"):
        case(str(_t), _n, [data(_t, 3, 5)], axis=1)
        case(f"{_t}-specials", _n, [values(_t)], axis=0)
    case(str(_t), "cumsum", [data(_t, 3, 5)], axis=1, reverse=False)
    case(f"{_t}-reverse", "cumsum", [data(_t, 3, 5)], axis=0, reverse=True)
    case(f"{_t}-empty", "cumsum", [data(_t, 3, 0)], axis=1, reverse=False)
    case(str(_t), "sort", [values(_t), np.arange(len(values(_t)), dtype=np.int32)], axis=0)
    case(f"{_t}-rows", "sort", [data(_t, 4, 3), data(KEY, 4, 3)], axis=0)
    case(
        str(_t),
        "dot_general",
        [data(_t, 2, 3, 4), data(_t, 4, 2, 5, seed=1)],
        lhs_batch=(0,),
        rhs_batch=(1,),
        lhs_contract=(2,),
        rhs_contract=(0,),
    )
    case(
        f"{_t}-empty",
        "dot_general",
        [data(_t, 2, 0), data(_t, 0, 3)],
        lhs_batch=(),
        rhs_batch=(),
        lhs_contract=(1,),
        rhs_contract=(0,),
    )
    case(
        str(_t),
        "scatter_add",
        [data(_t, 4, 3), np.array([0, 9, -5, 0], np.int32), data(_t, 4, 3, seed=1)],
        axis=0,
        batch=0,
    )
    case(
        f"{_t}-batch",
        "scatter_add",
        [data(_t, 2, 3, 4), np.array([[0, 3, 3], [1, -1, 7]]), data(_t, 2, 3, 3, seed=1)],
        axis=2,
        batch=1,
    )
    for _u in (*NUMBERS, BOOL):
        case(f"{_t}-{_u}", "convert", [values(_t)], dtype=_u)
for _t in (BOOL, *NUMBERS):
    case(f"bool-{_t}", "convert", [values(BOOL)], dtype=_t)
for _t in INTS:
    for _n in ("and", "or", "xor", "shl", "shr"):
        case(str(_t), _n, pairs(_t))
    case(str(_t), "not", [values(_t)])
for _n in ("and", "or", "xor"):
    case("bool", _n, pairs(BOOL))
case("bool", "not", [values(BOOL)])
for _n in ("reduce_max", "reduce_min"):
    case("bool", _n, [data(BOOL, 3, 4)], axes=(1,))
    case("bool-empty", _n, [data(BOOL, 3, 0)], axes=(1,))
for _a, _b in ((F32, I32), (F32, U32), (I32, U32), (F64, I64), (KEY, F64), (KEY, I64), (I64, KEY)):
    case(f"{_a}-{_b}", "bitcast", [values(_a)], dtype=_b)
    case(f"{_b}-{_a}", "bitcast", [values(_b)], dtype=_a)
for _t in (*NUMBERS, BOOL, KEY):
    _x = data(_t, 3, 4)
    case(str(_t), "eq", pairs(_t))
    case(str(_t), "ne", pairs(_t))
    case(str(_t), "stop_gradient", [_x])
    case(str(_t), "select", [data(BOOL, 3, 4), _x, data(_t, 3, 4, seed=1)])
    case(str(_t), "const", [], value=_x, type=type_of(_x))
    case(f"{_t}-one", "const", [], value=_x[0, 0].item(), type=type_of(_x))
    case(str(_t), "broadcast", [_x], shape=(3, 2, 4), axes=(0, 2))
    case(f"{_t}-empty", "broadcast", [_x], shape=(3, 0, 4), axes=(0, 2))
    case(str(_t), "reshape", [_x], shape=(2, 6))
    case(str(_t), "transpose", [data(_t, 2, 3, 4)], perm=(2, 0, 1))
    case(str(_t), "slice", [_x], start=(1, 0), limit=(3, 4), stride=(1, 3))
    for _i, _j in ((1, 2), (-1, 9), (-(2**31), 2**31 - 1)):
        _at = [np.array(_i, np.int32), np.array(_j, np.int32)]
        case(f"{_t}@{_i},{_j}", "dynamic_slice", [_x, *_at], sizes=(2, 2))
        case(f"{_t}@{_i},{_j}", "dynamic_update", [_x, data(_t, 2, 3, seed=2), *_at])
    case(f"{_t}-i64", "dynamic_slice", [_x, np.array(2**40), np.array(-(2**40))], sizes=(2, 2))
    _index = np.array([[0, 3, -1], [7, 2, -(2**31)]], np.int32)
    case(str(_t), "gather", [_x, _index], axis=1, batch=0)
    case(f"{_t}-batch", "gather", [data(_t, 2, 4, 3), _index], axis=1, batch=1)
    case(f"{_t}-inner", "gather", [data(_t, 2, 3, 4), _index], axis=2, batch=1)
    case(f"{_t}-none", "gather", [_x, _index[:, :0]], axis=0, batch=0)
    case(str(_t), "concatenate", [_x, data(_t, 3, 2, seed=3), data(_t, 3, 0)], axis=1)
    case(
        str(_t),
        "pad",
        [_x, data(_t, 1, seed=4).reshape(())],
        low=(1, 0),
        high=(0, 2),
        interior=(0, 1),
    )
    case(f"{_t}-empty", "pad", [_x[:0], _x[0, 0]], low=(1, 0), high=(0, 2), interior=(2, 1))
    case(str(_t), "reverse", [_x], axes=(1,))
case("key", "threefry", [data(KEY, 5), data(KEY, 5, seed=1)])
case("key", "key_make", [data(U32, 5), data(U32, 5, seed=1)])
case("key", "key_lo", [data(KEY, 5)])
case("key", "key_hi", [data(KEY, 5)])
for _t in FLOATS:
    _a = data(_t, 2, 4, 4)
    _spd = (_a @ np.swapaxes(_a, 1, 2) + 2 * np.eye(4)).astype(_t.numpy)
    case(str(_t), "cholesky", [_spd])
    case(f"{_t}-upper_not_read", "cholesky", [np.tril(_spd)])
    case(f"{_t}-not_definite", "cholesky", [np.stack([_spd[0], -_spd[1]])])
    case(f"{_t}-empty", "cholesky", [_spd[:0]])
    for _lower in (True, False):
        for _trans in (True, False):
            _label = f"{_t}-{'lower' if _lower else 'upper'}{'-trans' if _trans else ''}"
            _args = [_spd, data(_t, 2, 4, 3)]
            case(_label, "triangular_solve", _args, lower=_lower, trans=_trans)


@pytest.mark.parametrize("label", CASES)
def test_op(label: str) -> None:
    name, attrs, args = CASES[label]
    ours, reference = run_both(name, attrs, args)
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if name not in ROUNDED or b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
            continue
        narrow = b.dtype == np.float32
        scale = LOOSE.get(name, 3e-6) if narrow else LOOSE.get(name, 3e-6) * 1e-6
        np.testing.assert_allclose(a, b, rtol=scale, atol=scale)


def test_every_core_op_has_a_rule() -> None:
    assert LOWER.missing(OPS) == []
    assert set(CONTROL) <= set(LOWER.without)


def test_every_rule_has_a_case() -> None:
    tested = {name for name, _, _ in CASES.values()}
    assert sorted(set(LOWER.rules) - tested) == []
