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
from ..ir.types import DType, TensorType
from . import rewrite_contractions, rewrite_indexing  # noqa: F401  (they add rules)
from .dce import dce_function
from .rewrite_table import RULES
from .simplify_control import chosen_branch, count_ops, unroll, unrolls, without_invariants

FOLD_AT_MOST = 4096  # elements of a folded constant
ROUNDS = 3


def simplify(module: Module) -> Module:
    """Every function simplified."""
    out = Module({}, module.entry)
    for name, function in module.functions.items():
        for _ in range(ROUNDS):
            before = count_ops(function.body)
            function = dce_function(_rewrite(function))
            if count_ops(function.body) == before:
                break
        out.functions[name] = function
    return out


def _rewrite(function: Function) -> Function:
    body = function.body
    params = [Value(p.type, p.name) for p in body.params]
    block = Block(params)
    b = Simplifier(block, None, hoists=False)
    b.define(params)
    env = dict(zip(body.params, params))
    b.copy(body, env)
    block.results = [env.get(v, v) for v in body.results]
    return Function(function.name, block, function.span, dict(function.attrs))


def _region(block: Block, outer: Simplifier, env: dict[Value, Value], loop: bool) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    out = Block(params)
    b = Simplifier(out, outer, hoists=loop)
    b.define(params)
    env.update(zip(block.params, params))
    b.copy(block, env)
    out.results = [env.get(v, v) for v in block.results]
    return out


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

    def copy(self, block: Block, env: dict[Value, Value]) -> None:
        """Write the ops of `block`, renamed by `env`, regions first."""
        for op in block.ops:
            self.span = op.span
            branch = chosen_branch(op, self, env)
            if branch is not None:
                self.copy(branch, env)
                env.update(zip(op.results, (env.get(v, v) for v in branch.results)))
            elif unrolls(op, self, env):
                unroll(op, self, env)
            else:
                self._copy_op(without_invariants(op, self, env), env)

    def _copy_op(self, op: Op, env: dict[Value, Value]) -> None:
        operands = [env.get(v, v) for v in op.operands]
        regions = [_region(r, self, env, op.name in ("for", "while")) for r in op.regions]
        self.span = op.span
        results = self.op(op.name, operands, regions, [r.name for r in op.results], **op.attrs)
        env.update(zip(op.results, results))
        if op.name in ("if", "switch"):
            for result, options in zip(op.results, zip(*(r.results for r in regions))):
                if all(v is options[0] for v in options):
                    env[result] = options[0]

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
        key = (name, self._ordered(name, operands), _freeze(attrs))
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

    def _ordered(self, name: str, operands: Sequence[Value]) -> tuple[Value, ...]:
        """Operands as a key: in one order where they commute."""
        if OPS[name].commutative:
            return tuple(sorted(operands, key=id))
        return tuple(operands)

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
        if flat.size and _filled(flat):
            return self.op("const", names=names, value=flat[0].item(), type=type)[0]
        if not type.shape:
            return self.op("const", names=names, value=array.item(), type=type)[0]
        value = np.ascontiguousarray(array, type.dtype.numpy).reshape(type.shape)
        return self.op("const", names=names, value=value, type=type)[0]


def _filled(flat: Any) -> bool:
    """Whether all elements are one number, the sign of zero included."""
    if not (flat == flat[0]).all():
        return False
    return flat.dtype.kind != "f" or bool((np.signbit(flat) == np.signbit(flat[0])).all())


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
