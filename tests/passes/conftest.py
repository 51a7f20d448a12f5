"""Helpers for tests of passes: build a function, transform it, check it by numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value
from wengert.ir.interp import run
from wengert.ir.types import F64, TensorType
from wengert.ir.verify import verify
from wengert.passes.bufferize import bufferize
from wengert.passes.derivatives import jvp_function, vjp_function

Make = Callable[..., Any]


class Derivatives:
    """The derivative passes on functions written with a builder, run by the interpreter."""

    def module(self, types: Sequence[Any], make: Make, name: str = "f") -> Module:
        """A module of one function: `make(builder, *params)` gives its result or results."""
        shapes = [t if isinstance(t, TensorType) else TensorType(F64, tuple(t)) for t in types]
        params = [Value(t, f"x{i}") for i, t in enumerate(shapes)]
        block = Block(params)
        out = make(Builder(block), *params)
        block.results = [out] if isinstance(out, Value) else list(out)
        module = Module({name: Function(name, block)}, name)
        verify(module)
        return module

    def jvp(self, m: Module, args: Sequence[Any], ts: Sequence[Any], wrt: Any = None) -> list[Any]:
        """Results, then tangents of the float results."""
        name = jvp_function(m, m.entry, self.wrt(m, wrt))
        verify(m)
        return run(m, [*args, *ts], name)

    def vjp(self, m: Module, args: Sequence[Any], cts: Sequence[Any], wrt: Any = None) -> list[Any]:
        """Results, then cotangents of the arguments in `wrt`."""
        name = vjp_function(m, m.entry, self.wrt(m, wrt))
        verify(m)
        return run(m, [*args, *cts], name)

    def wrt(self, m: Module, wrt: Any) -> tuple[int, ...]:
        """`wrt`, by default every float parameter."""
        if wrt is not None:
            return tuple(wrt)
        return tuple(i for i, p in enumerate(m.main.params) if p.type.dtype.is_float)

    def check(
        self,
        m: Module,
        args: Sequence[Any],
        *,
        wrt: Any = None,
        reverse: bool = True,
        tol: float = 2e-6,
    ) -> None:
        """JVP against central differences; VJP against JVP by <ct, J v> = <J' ct, v>."""
        wrt = self.wrt(m, wrt)
        rng = np.random.default_rng(5)
        args = [np.asarray(a) for a in args]
        vs = [np.asarray(rng.normal(size=args[i].shape)) for i in wrt]
        base = run(m, args)
        floats = [i for i, r in enumerate(m.main.results) if r.type.dtype.is_float]
        forward = self.jvp(m, args, vs, wrt)
        tangents = forward[len(base) :]
        step = 1e-6

        def moved(sign: float) -> list[Any]:
            new = list(args)
            for i, v in zip(wrt, vs):
                new[i] = args[i] + sign * step * v
            return run(m, new)

        above, below = moved(1), moved(-1)
        for k, (i, t) in enumerate(zip(floats, tangents, strict=True)):
            slope = (above[i] - below[i]) / (2 * step)
            np.testing.assert_allclose(t, slope, rtol=tol * 10, atol=tol, err_msg=f"tangent {k}")
        for before, after in zip(base, forward):
            np.testing.assert_array_equal(before, after)
        if not reverse:
            return
        cts = [np.asarray(rng.normal(size=base[i].shape)) for i in floats]
        back = self.vjp(m, args, cts, wrt)
        for before, after in zip(base, back):
            np.testing.assert_array_equal(before, after)
        left = sum(float(np.sum(c * t)) for c, t in zip(cts, tangents))
        right = sum(float(np.sum(g * v)) for g, v in zip(back[len(base) :], vs, strict=True))
        np.testing.assert_allclose(right, left, rtol=1e-9, atol=1e-10)


@pytest.fixture
def ad() -> Derivatives:
    """The helpers of this file."""
    return Derivatives()


def _check_loops(types: Sequence[Any], make: Make, args: Sequence[Any]) -> Module:
    """Interpret a function before and after bufferisation; its loop-level module.

    `make(builder, *params)` gives the result or results. Inputs must stay as they are.
    """
    module = Derivatives().module(types, make)
    args = [np.asarray(a) for a in args]
    want = run(module, [a.copy() for a in args])
    loops = bufferize(module)
    verify(loops)
    got = [np.full(w.shape, 7).astype(w.dtype) for w in want]
    given = [a.copy() for a in args]
    run(loops, [*given, *got])
    for before, after in zip(args, given):
        np.testing.assert_array_equal(before, after, err_msg="an input was overwritten")
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5 if w.dtype == np.float32 else 1e-11)
    return loops


@pytest.fixture
def check_loops() -> Callable[..., Module]:
    """The function that checks bufferisation."""
    return _check_loops
