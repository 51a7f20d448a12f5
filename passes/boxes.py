"""What the interval rules share: bounds of values, the writer of their ops, the table of rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Op, Value
from ..ir.errors import CompilerBug, WengertError
from ..ir.opdef import RuleTable
from ..ir.types import BOOL, DType, TensorType

ROUNDED = 2  # ulps: two values rounded from one number, and the step outward itself


class NoInterval(WengertError):
    """A program, or a part of it, that has no bounds on boxes."""


class Box(NamedTuple):
    """Bounds of a value. One value twice: it is known, whatever the point."""

    lo: Value
    hi: Value

    @property
    def known(self) -> bool:
        """Whether it does not depend on the point."""
        return self.lo is self.hi


def known(v: Value) -> Box:
    """The box of a value that does not depend on the point."""
    return Box(v, v)


def is_float(v: Value) -> bool:
    """Whether v holds floats."""
    return Builder.type(v).dtype.is_float


# Exact on floats: of known operands they give a known value. Others round.
EXACT = frozenset(
    ["neg", "abs", "sign", "floor", "ceil", "round", "trunc", "max", "min", "select", "sort"]
    + ["stop_gradient", "reduce_max", "reduce_min", "const", "iota", "broadcast", "reshape"]
    + ["transpose", "slice", "dynamic_slice", "dynamic_update", "gather", "concatenate", "pad"]
    + ["reverse", "bitcast"]
)
# Of known operands these are taken as computed: their errors have no bound of a few ulps.
AS_COMPUTED = frozenset(["cholesky", "triangular_solve"])


class Boxes:
    """Writes the interval form of ops. `env` maps old values to their bounds.

    nonnegative: old float values that are nowhere below 0. numbers: old values that are filled
    with one number.
    """

    def __init__(self, b: Builder) -> None:
        self.b: Any = b
        self.env: dict[Value, Box] = {}
        self.nonnegative: set[Value] = set()
        self.numbers: dict[Value, Any] = {}

    def inside(self, block: Block) -> Boxes:
        """A writer into a region, with the values of this one."""
        inner = Boxes(Builder(block, self.b.span))
        inner.env = dict(self.env)
        inner.nonnegative = set(self.nonnegative)
        inner.numbers = self.numbers
        return inner

    def __getitem__(self, v: Value) -> Box:
        return self.env[v]

    def run(self, block: Block) -> None:
        """Write every op of `block`."""
        for op in block.ops:
            self.b.span = op.span
            if self._stays(op):
                self._copy(op)
            else:
                rule = INTERVAL.get(op.name)
                if rule is None:
                    raise CompilerBug(f"no interval rule for {op.name}")
                self.env.update(zip(op.results, rule(self, op), strict=True))
            if len(op.results) == 1 and never_negative(self, op):
                self.nonnegative.update(op.results)

    def _stays(self, op: Op) -> bool:
        """Whether the op gives a known value that no backend computes differently."""
        if op.regions or not all(self.env[v].known for v in op.operands):
            return False
        if op.name in EXACT or op.name in AS_COMPUTED:
            return True
        return not any(is_float(r) for r in op.results)

    def _copy(self, op: Op) -> None:
        new = {v: self.env[v].lo for v in op.operands}
        for old, result in zip(op.results, clone_op(self.b, op, new)):
            self.env[old] = known(result)
        value = op.attrs.get("value")
        if op.name == "const" and not isinstance(value, np.ndarray):
            self.numbers[op.results[0]] = value

    # Bounds

    def const(self, value: Any, like: Value | TensorType | DType) -> Value:
        """A literal of the type of `like`."""
        out: Value = self.b.const(value, like)
        return out

    def lower(self, x: Value, ulps: int = ROUNDED, floor: int = 0) -> Value:
        """x moved down by `ulps` units in its last place, and by `floor` units of 1's."""
        x = self.b.down(x, ulps=ulps)
        return self.b.sub(x, self.units(floor, x)) if floor else x

    def upper(self, x: Value, ulps: int = ROUNDED, floor: int = 0) -> Value:
        """x moved up likewise."""
        x = self.b.up(x, ulps=ulps)
        return self.b.add(x, self.units(floor, x)) if floor else x

    def units(self, count: int, like: Value) -> Value:
        """`count` units in the last place of 1."""
        return self.const(count * float(np.finfo(Builder.type(like).dtype.numpy).eps), like)

    def outward(
        self,
        lo: Value,
        hi: Value,
        ulps: int = ROUNDED,
        floor: int = 0,
        *,
        nonnegative: bool = False,
    ) -> Box:
        """Bounds of what has been rounded; not below 0 where the exact value is not."""
        lo = self.lower(lo, ulps, floor)
        if nonnegative:
            lo = self.b.max(lo, self.const(0, lo))
        return Box(lo, self.upper(hi, ulps, floor))

    def least(self, values: Sequence[Value]) -> Value:
        """The smallest, NaN if one is; for bools whether all hold."""
        return _fold(self.b.and_ if _bools(values[0]) else self.b.min, values)

    def most(self, values: Sequence[Value]) -> Value:
        """The largest, NaN if one is; for bools whether any holds."""
        return _fold(self.b.or_ if _bools(values[0]) else self.b.max, values)

    def hull(self, *boxes: Box) -> Box:
        """The smallest box around several."""
        return Box(self.least([x.lo for x in boxes]), self.most([x.hi for x in boxes]))

    def contains(self, x: Box, number: float) -> Value:
        """Whether a box holds a number; false where nothing is known."""
        c = self.const(number, x.lo)
        out: Value = self.b.and_(self.b.le(x.lo, c), self.b.ge(x.hi, c))
        return out

    def where(self, test: Value, x: Value, y: Value | float) -> Value:
        """x where `test` holds, else y."""
        other = y if isinstance(y, Value) else self.const(y, x)
        out: Value = self.b.select(test, x, other)
        return out

    def unknown(self, test: Value, x: Box) -> Box:
        """x, or nothing known where `test` holds."""
        nan = self.const(math.nan, x.lo)
        return Box(self.where(test, nan, x.lo), self.where(test, nan, x.hi))

    def magnitudes(self, x: Box) -> Box:
        """Bounds of the absolute value."""
        b = self.b
        if x.known:
            return known(b.abs(x.lo))
        least = b.max(b.max(x.lo, b.neg(x.hi)), self.const(0, x.lo))
        return Box(least, b.max(b.neg(x.lo), x.hi))

    def choose(self, test: Box, x: Box, y: Box) -> Box:
        """x or y by a scalar bool that may be uncertain; elements join where it is."""
        b = self.b
        shape = Builder.type(x.lo).shape
        wide = [v if Builder.type(v).shape == shape else b.expand(v, shape) for v in test]
        return Box(
            b.select(wide[0], x.lo, b.select(wide[1], self.least([x.lo, y.lo]), y.lo)),
            b.select(wide[0], x.hi, b.select(wide[1], self.most([x.hi, y.hi]), y.hi)),
        )


def _bools(v: Value) -> bool:
    return Builder.type(v).dtype is BOOL


def _fold(join: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
    unique = list(dict.fromkeys(values))
    out = unique[0]
    for v in unique[1:]:
        out = join(out, v)
    return out


_ALWAYS = frozenset(["abs", "sqrt", "exp", "sigmoid", "softplus", "cosh", "erfc", "acos", "acosh"])
_KEPT_BY_ALL = frozenset(
    ["add", "mul", "min", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min"]
    + ["broadcast", "reshape", "transpose", "slice", "reverse", "cumsum", "stop_gradient"]
    + ["concatenate", "pad", "floor", "ceil", "round", "trunc", "sign", "dot_general", "atan"]
    + ["asinh", "sinh", "tanh", "expm1", "log1p", "erf"]
)


def never_negative(w: Boxes, op: Op) -> bool:
    """Whether the only result of an op is a float that is nowhere below 0."""
    if not is_float(op.results[0]):
        return False
    if op.name == "const":
        value = op.attrs["value"]
        return bool(np.all(np.asarray(value) >= 0))
    facts = [v in w.nonnegative for v in op.operands]
    if op.name == "max":
        return any(facts)
    if op.name == "mul" and op.operands[0] is op.operands[1]:
        return True
    if op.name == "select":
        return all(facts[1:])
    if op.name == "reduce_max" and not Builder.type(op.operands[0]).size:
        return False
    if op.name == "gather" or op.name == "dynamic_slice":
        return facts[0]
    return op.name in _ALWAYS or (op.name in _KEPT_BY_ALL and bool(facts) and all(facts))


# A rule gets the writer and an op that is not copied; it returns a box for each result.
Rule = Callable[[Boxes, Op], Sequence[Box]]
INTERVAL: RuleTable[Rule] = RuleTable("interval")
