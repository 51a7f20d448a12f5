"""Small arrays become scalars: a point's coordinates, a rotation, the legs of a table.

Straight-line code on arrays of at most MOST elements is written element by element; loops and
other ops get their arrays put together again. Sums are taken in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Function, Module, Op, Value, used_values
from ..ir.linalg import free_axes
from ..ir.opdef import OPS
from ..ir.reductions import identity
from ..ir.types import KEY, TensorType

MOST = 16
Array = np.ndarray[Any, np.dtype[Any]]  # of scalar values


def scalarize(module: Module) -> Module:
    """Every function with its small arrays taken apart; `simplify` clears what is left of them."""
    if not any(_gains(op) for f in module.functions.values() for op in f.body.ops):
        return module
    out = Module({}, module.entry)
    for name, f in module.functions.items():
        out.functions[name] = _Writer(f).function
    return out


def _gains(op: Op) -> bool:
    """Whether an op computes with small arrays, rather than only picks from them."""
    if op.name in ("slice", "reshape", "const") or op.regions:
        return False
    return any(small(v) for v in (*op.operands, *op.results))


def small(v: Value) -> bool:
    """Whether a value is an array to be taken apart."""
    type = Builder.type(v)
    return bool(type.shape) and 0 < type.size <= MOST and type.dtype is not KEY


class _Writer:
    """Writes a function again. `parts` holds the elements of small arrays by old value."""

    def __init__(self, source: Function) -> None:
        params = [Value(p.type, p.name) for p in source.params]
        block = Block(params)
        self.b: Any = Builder(block, source.span)
        self.env: dict[Value, Value] = dict(zip(source.params, params))
        self.parts: dict[Value, Array] = {}
        for op in source.body.ops:
            self.b.span = op.span
            self._op(op)
        block.results = [self.whole(v) for v in source.results]
        self.function = Function(source.name, block, source.span, dict(source.attrs))

    def _op(self, op: Op) -> None:
        rule = RULES.get(op.name)
        if rule is None and OPS[op.name].elementwise:
            rule = _elementwise
        touched = [v for v in (*op.operands, *op.results) if small(v)]
        fits = all(small(v) or not Builder.type(v).shape for v in (*op.operands, *op.results))
        if rule is not None and touched and fits:
            (result,) = op.results
            made = rule(self, op, [self.elements(v) for v in op.operands])
            if made is not None:
                if small(result):
                    self.parts[result] = made
                else:
                    self.env[result] = made.item()
                return
        for v in used_values(op):
            if v in self.parts:
                self.env[v] = self.whole(v)
        clone_op(self.b, op, self.env)

    def elements(self, v: Value) -> Array:
        """The elements of an array, or the only one of a scalar."""
        found = self.parts.get(v)
        if found is None:
            new, shape = self.env[v], Builder.type(v).shape
            found = _filled(shape, lambda at: self._element(new, at) if shape else new)
            if shape:
                self.parts[v] = found
        return found

    def _element(self, v: Value, at: tuple[int, ...]) -> Value:
        limit = tuple(i + 1 for i in at)
        one = self.b.slice(v, start=at, limit=limit, stride=(1,) * len(at))
        out: Value = self.b.reshape(one, shape=())
        return out

    def whole(self, v: Value) -> Value:
        """The new array of v, put together where it was taken apart."""
        if v not in self.env and v in self.parts:
            rows = [self.b.reshape(x, shape=(1,)) for x in self.parts[v].ravel()]
            flat = rows[0] if len(rows) == 1 else self.b.concatenate(*rows, axis=0)
            self.env[v] = self.b.reshape(flat, shape=Builder.type(v).shape)
        return self.env[v]


def _filled(shape: Sequence[int], element: Callable[[tuple[int, ...]], Value]) -> Array:
    """The array of what `element` gives at each index."""
    out = np.empty(shape, object)
    for at in np.ndindex(*shape):
        out[at] = element(at)
    return out


Rule = Callable[[_Writer, Op, Sequence[Array]], Array | None]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return add


def _elementwise(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    shape = Builder.type(op.results[0]).shape
    return _filled(shape, lambda at: w.b.op(op.name, [x[at] for x in xs], **op.attrs)[0])


@_rule("const")
def _const(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    type = op.attrs["type"]
    values = np.broadcast_to(op.attrs["value"], type.shape)
    return _filled(type.shape, lambda at: w.b.const(values[at], TensorType(type.dtype)))


@_rule("iota")
def _iota(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    type, axis = op.attrs["type"], op.attrs["axis"]
    return _filled(type.shape, lambda at: w.b.const(at[axis], TensorType(type.dtype)))


@_rule("broadcast")
def _broadcast(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    shape, axes = op.attrs["shape"], op.attrs["axes"]
    return _filled(shape, lambda at: xs[0][tuple(at[a] for a in axes)])


_MOVES: dict[str, Callable[[dict[str, Any], Array], Array]] = {
    "reshape": lambda at, x: x.reshape(at["shape"]),
    "transpose": lambda at, x: x.transpose(at["perm"]),
    "slice": lambda at, x: x[tuple(map(slice, at["start"], at["limit"], at["stride"]))],
    "reverse": lambda at, x: np.flip(x, at["axes"]),
}


@_rule(*_MOVES)
def _moved(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    return _MOVES[op.name](op.attrs, xs[0])


@_rule("concatenate")
def _concatenate(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    return np.concatenate(xs, axis=op.attrs["axis"])


_JOIN = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min"}


@_rule(*_JOIN)
def _reduce(w: _Writer, op: Op, xs: Sequence[Array]) -> Array | None:
    """In order. The new term stands left, so that a product there is fused with the sum so far."""
    x, axes = xs[0], op.attrs["axes"]
    dtype = Builder.type(op.operands[0]).dtype
    if not dtype.is_number:
        return None
    kept = [i for i in range(x.ndim) if i not in axes]
    moved = x.transpose(*kept, *axes).reshape([x.shape[i] for i in kept] + [-1])
    out = np.empty(moved.shape[:-1], object)
    for at in np.ndindex(*out.shape):
        total: Value | None = None
        for v in moved[at]:
            total = v if total is None else w.b.op(_JOIN[op.name], [v, total])[0]
        if total is None:
            kind = {"reduce_sum": "add", "reduce_prod": "mul"}.get(op.name, op.name[7:])
            total = w.b.const(identity(kind, dtype), TensorType(dtype))
        out[at] = total
    return out


@_rule("dot_general")
def _dot(w: _Writer, op: Op, xs: Sequence[Array]) -> Array:
    x, y = xs
    at = op.attrs
    free = [
        free_axes(v.ndim, at[f"{side}_batch"], at[f"{side}_contract"])
        for v, side in ((x, "lhs"), (y, "rhs"))
    ]
    batch = [x.shape[i] for i in at["lhs_batch"]]
    inner = [x.shape[i] for i in at["lhs_contract"]]
    rows, columns = [x.shape[i] for i in free[0]], [y.shape[i] for i in free[1]]
    left = x.transpose(*at["lhs_batch"], *free[0], *at["lhs_contract"])
    right = y.transpose(*at["rhs_batch"], *free[1], *at["rhs_contract"])
    out = np.empty((*batch, *rows, *columns), object)
    ranges = [[range(n) for n in part] for part in (batch, rows, columns, inner)]
    for g, r, c in itertools.product(*(list(itertools.product(*p)) for p in ranges[:3])):
        total: Value | None = None
        for k in itertools.product(*ranges[3]):
            term = w.b.mul(left[(*g, *r, *k)], right[(*g, *c, *k)])
            total = term if total is None else w.b.add(term, total)
        out[(*g, *r, *c)] = total
    return out
