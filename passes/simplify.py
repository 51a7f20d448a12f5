"""Simplification: a function written again through a builder that simplifies as it goes.

Every op goes through the rules (rewrite_rules.py), then through constant folding and common
subexpression elimination; ops in a loop that do not depend on the loop are written before it;
what turns out dead is dropped at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, Op, Value
from ..ir.opdef import OPS
from ..ir.types import I32, DType, TensorType
from .dce import dce_function
from .rewrite_rules import RULES

FOLD_AT_MOST = 4096  # elements of a folded constant
ROUNDS = 3


def simplify(module: Module) -> Module:
    """Every function simplified."""
    out = Module({}, module.entry)
    for name, function in module.functions.items():
        for _ in range(ROUNDS):
            before = _count(function.body)
            function = dce_function(_rewrite(function))
            if _count(function.body) == before:
                break
        out.functions[name] = function
    return out


def _count(block: Block) -> int:
    return sum(1 + sum(_count(r) for r in op.regions) for op in block.ops)


def _rewrite(function: Function) -> Function:
    body = function.body
    params = [Value(p.type, p.name) for p in body.params]
    block = Block(params)
    b = Simplifier(block, None, hoists=False)
    b.define(params)
    env = dict(zip(body.params, params))
    _copy(body, b, env)
    block.results = [env.get(v, v) for v in body.results]
    return Function(function.name, block, function.span, dict(function.attrs))


def _copy(block: Block, b: Simplifier, env: dict[Value, Value]) -> None:
    """Write the ops of `block` through `b`, regions first."""
    for op in block.ops:
        operands = [env.get(v, v) for v in op.operands]
        chosen = _chosen_region(op, operands, b)
        if chosen is not None:
            inner, args = chosen
            env.update(zip(inner.params, args))
            _copy(inner, b, env)
            env.update(zip(op.results, (env.get(v, v) for v in inner.results)))
            continue
        regions = [_region(r, b, env, op.name in ("for", "while")) for r in op.regions]
        b.span = op.span
        results = b.op(op.name, operands, regions, [r.name for r in op.results], **op.attrs)
        env.update(zip(op.results, results))


def _region(block: Block, outer: Simplifier, env: dict[Value, Value], loop: bool) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    out = Block(params)
    b = Simplifier(out, outer, hoists=loop)
    b.define(params)
    env.update(zip(block.params, params))
    _copy(block, b, env)
    out.results = [env.get(v, v) for v in block.results]
    return out


def _chosen_region(
    op: Op, operands: Sequence[Value], b: Simplifier
) -> tuple[Block, list[Value]] | None:
    """The only region that can run, with its arguments, where that is known now."""
    if op.name in ("if", "switch"):
        known = b.splat(operands[0])
        if known is None:
            return None
        index = (0 if known else 1) if op.name == "if" else int(known)
        return op.regions[min(max(index, 0), len(op.regions) - 1)], []
    if op.name == "for" and op.attrs["trips"] == 1:
        carries = op.attrs["carries"]
        if len(op.results) > carries:
            return None
        rows = [b.reshape(x, shape=Builder.type(x).shape[1:]) for x in operands[carries:]]
        return op.regions[0], [b.const(0, I32), *operands[:carries], *rows]
    return None


class Simplifier(Builder):
    """A builder that looks before it writes. `outer` is the one of the enclosing block.

    hoists: ops that use nothing of this block are written in the enclosing one.
    """

    def __init__(self, block: Block, outer: Simplifier | None, hoists: bool) -> None:
        super().__init__(block)
        self.outer = outer
        self.hoists = hoists
        self.depth: int = outer.depth + 1 if outer else 0
        self.depths: dict[Value, int] = outer.depths if outer else {}
        self.makers: dict[Value, Op] = outer.makers if outer else {}
        self.seen: dict[Any, tuple[Value, ...]] = {}

    def define(self, values: Sequence[Value]) -> None:
        """Note values of this block."""
        for v in values:
            self.depths[v] = self.depth

    def maker(self, v: Value) -> Op | None:
        """The op that defines v, None for a parameter."""
        return self.makers.get(v)

    def splat(self, v: Value) -> Any:
        """The number that fills v, or None."""
        op = self.makers.get(v)
        if op is None or op.name != "const" or isinstance(op.attrs["value"], np.ndarray):
            return None
        return op.attrs["value"]

    def op(
        self,
        name: str,
        operands: Sequence[Value] = (),
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """Write the op, or find what it equals."""
        home = self._home(name, operands, regions)
        if home is not self:
            home.span = self.span
            return home.op(name, operands, regions, names, **attrs)
        rule = RULES.get(name)
        if rule is not None:
            found = rule(self, operands, attrs)
            if found is not None:
                return tuple(found)
        folded = self._fold(name, operands, attrs, names)
        if folded is not None:
            return folded
        if regions or not OPS[name].pure:
            return self._write(name, operands, regions, names, attrs)
        key = (name, tuple(operands), _freeze(attrs))
        known = self._lookup(key)
        if known is None:
            known = self.seen[key] = self._write(name, operands, regions, names, attrs)
        return known

    def _write(
        self, name: str, operands: Any, regions: Any, names: Any, attrs: Any
    ) -> tuple[Value, ...]:
        results = super().op(name, operands, regions, names, **attrs)
        self.define(results)
        op = self.block.ops[-1]
        for r in results:
            self.makers[r] = op
        return results

    def _home(self, name: str, operands: Sequence[Value], regions: Sequence[Block]) -> Simplifier:
        """The builder that should hold the op: an outer one for constants and loop invariants."""
        if self.outer is None or regions or not OPS[name].pure:
            return self
        if not (self.hoists or name in ("const", "iota")):
            return self
        if any(self.depths.get(v, 0) >= self.depth for v in operands):
            return self
        return self.outer

    def _lookup(self, key: Any) -> tuple[Value, ...] | None:
        builder: Simplifier | None = self
        while builder is not None:
            if key in builder.seen:
                return builder.seen[key]
            builder = builder.outer
        return None

    def _fold(
        self, name: str, operands: Sequence[Value], attrs: dict[str, Any], names: Sequence[str]
    ) -> tuple[Value, ...] | None:
        """The op computed now, where its operands are constants and the result is small."""
        definition = OPS[name]
        if definition.reference is None or not operands or name == "stop_gradient":
            return None
        makers = [self.makers.get(v) for v in operands]
        if any(m is None or m.name not in ("const", "iota") for m in makers):
            return None
        if definition.elementwise:
            splats = [self.splat(v) for v in operands]
            if all(s is not None for s in splats):
                return self._fold_splat(name, operands, attrs, names)
        sizes = [Builder.type(v).size for v in operands]
        if max(sizes) > FOLD_AT_MOST:
            return None
        types = definition.infer(operands, attrs, ())
        if any(isinstance(t, TensorType) and t.size > FOLD_AT_MOST for t in types):
            return None
        arrays = [OPS[m.name].reference(m.attrs) for m in makers if m]  # type: ignore[misc]
        out = definition.reference(attrs, *arrays)
        results = out if isinstance(out, tuple) else (out,)
        values = [
            self._literal(np.asarray(r), t, names)
            for r, t in zip(results, types)
            if isinstance(t, TensorType)
        ]
        return tuple(values)

    def _fold_splat(
        self, name: str, operands: Sequence[Value], attrs: dict[str, Any], names: Sequence[str]
    ) -> tuple[Value, ...]:
        definition = OPS[name]
        assert definition.reference is not None
        scalars = [np.asarray(self.splat(v), Builder.type(v).dtype.numpy) for v in operands]
        (type,) = definition.infer(operands, attrs, ())
        out = np.asarray(definition.reference(attrs, *scalars))
        return self.op("const", names=names, value=out.item(), type=type)

    def _literal(self, array: Any, type: TensorType, names: Sequence[str]) -> Value:
        flat = array.ravel()
        if flat.size and (flat == flat[0]).all() and not (flat.dtype.kind == "f" and flat[0] == 0):
            return self.op("const", names=names, value=flat[0].item(), type=type)[0]
        if not type.shape:
            return self.op("const", names=names, value=array.item(), type=type)[0]
        value = np.ascontiguousarray(array, type.dtype.numpy).reshape(type.shape)
        return self.op("const", names=names, value=value, type=type)[0]


def _freeze(attrs: dict[str, Any]) -> Any:
    """Attributes as a hashable key; -0.0 and NaN told apart by their text."""
    return tuple((k, _freeze_value(v)) for k, v in sorted(attrs.items()))


def _freeze_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return tuple(value)
    return value if not isinstance(value, DType) else value.name
