"""Programs made by exchanging expressions: they lower to valid IR, or a clear error tells why."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from wengert.frontend import syntax as s
from wengert.frontend.program import Program, compile_text
from wengert.frontend.specialize import specialize
from wengert.ir.core import walk
from wengert.ir.errors import WengertError
from wengert.ir.interp import run as interpret
from wengert.ir.types import BOOL, F32, I32, KEY, TensorType
from wengert.ir.verify import verify

TEXTS = [
    """
record P:
    a: f32[n]
    b: i32
fn g(u, v=2): return u * v
fn f(x: f32[n], m: f32[n, n], i: i32, c: bool, k: key):
    p = P(a=x, b=i)
    p.a[1:] += m[0, :2]
    t = (x, {q: m})
    if c:
        x = g(x) + t[1].q[i]
    s = 0
    for j, r in enumerate(m):
        s += sum(r * p.a) + real(j)
        x[j] = s
    y = [g(v, w) for v in x for w in 0..2]
    z, last = scan(lambda a, b: (a + b, a * b), 0.0, x)
    return y if s > 0 else y + 1, z, last, where(x > 0, x, 0), p
""",
    """
fn h(u, k: static int): return u if k == 0 else h(u, k - 1) + 1
fn f(x: f32[n], m: f32[n, n], i: i32, c: bool, k: key):
    a, b = split(k)
    w = normal(a, (n, 2)) @ [[1, 2], [3, 4.5]]
    e = lambda v: v^2 - h(v, 3)
    while sum(x) > 1 max 5:
        x = x * 0.5
    r = concat((x, take(x, arange(2)))) + x[-1]
    u = grad(lambda q: sum(e(q)), x)
    for z in i..(i + 2):
        x += f32(z)
    return reshape(w, (2, -1)), e(x[i]), map(e, m), max(r, axis=0), max(i, 2), u, not c, shape(m)
""",
]
TYPES = {
    "x": TensorType(F32, (3,)),
    "m": TensorType(F32, (3, 3)),
    "i": TensorType(I32),
    "c": TensorType(BOOL),
    "k": TensorType(KEY),
}


def expressions(node: Any) -> Iterator[s.Expr]:
    if isinstance(node, tuple):
        for item in node:
            yield from expressions(item)
    elif isinstance(node, s.Node):
        if isinstance(node, s.Expr):
            yield node
        if not isinstance(node, s.UpdateTarget):
            for field in dataclasses.fields(node):
                yield from expressions(getattr(node, field.name))


def replaced(node: Any, old: s.Expr, new: s.Expr) -> Any:
    if node is old:
        return new
    if isinstance(node, tuple):
        return tuple(replaced(item, old, new) for item in node)
    if isinstance(node, s.Node) and not isinstance(node, s.UpdateTarget):
        fields = dataclasses.fields(node)
        changed = {f.name: replaced(getattr(node, f.name), old, new) for f in fields}
        return dataclasses.replace(node, **changed)
    return node


def spliced(rng: random.Random, program: Program, pool: list[s.Expr]) -> s.FunctionDecl:
    decl = program.functions["f"]
    body = decl.body
    for _ in range(rng.randint(1, 2)):
        old = rng.choice(list(expressions(body)))
        alike = [e for e in pool if type(e) is type(old)]  # more of these lower
        body = replaced(body, old, rng.choice(alike if rng.random() < 0.8 else pool))
    return dataclasses.replace(decl, body=body)


@pytest.mark.parametrize("seed", range(4))
def test_spliced_programs(seed: int) -> None:
    rng, values = random.Random(seed), np.random.default_rng(seed)
    pool = [e for text in TEXTS for e in expressions(compile_text(text).root.declarations)]
    pool += [s.Number(pool[0].span, v) for v in (0, -1, 10**12, 0.5)]
    outcomes = {"lowered": 0, "refused": 0}
    for _ in range(80):
        program = compile_text(TEXTS[rng.randrange(2)])
        program.main.declarations["f"] = spliced(rng, program, pool)
        try:
            lowered = specialize(program, "f", TYPES)
        except WengertError as error:
            assert error.span is not None and str(error)
            outcomes["refused"] += 1
            continue
        outcomes["lowered"] += 1
        verify(lowered.module)
        ops = [op for fn in lowered.module.functions.values() for op in walk(fn.body)]
        if any(op.name.startswith("diff.") for op in ops):
            continue
        arrays = [values.integers(0, 3, t.shape).astype(t.dtype.numpy) for t in TYPES.values()]
        found = interpret(lowered.module, arrays)
        for array, value in zip(found, lowered.module.main.results, strict=True):
            assert array.shape == value.type.shape
            assert array.dtype == value.type.dtype.numpy
    assert min(outcomes.values()) > 5, outcomes
