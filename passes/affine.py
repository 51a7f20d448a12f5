"""Losses of the form w * rest + c, collected over the choices of a program.

`None` stands for a factor of one and a term of zero, so that strategies that only pass a value on
(reparameterisation) cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.clone import Env
from ..ir.core import Block, Op, Value, free_values
from ..ir.types import I32, TensorType


@dataclass(frozen=True)
class Affine:
    """rest -> factor * rest + term."""

    factor: Value | None = None
    term: Value | None = None

    @classmethod
    def of(cls, b: Builder, block: Block, rest: Value, env: Env) -> Affine:
        """The result of `block` as a function of `rest`; what does not depend on it is in `env`."""
        form = _Form(b, rest, {r: op for op in block.ops for r in op.results}, env)
        factor, term = form(block.results[0])
        return cls(
            None if factor == 1.0 else form.value(factor, rest),
            None if term == 0.0 else form.value(term, rest),
        )

    @staticmethod
    def joined(forms: Sequence[Affine]) -> Affine:
        """Which parts any of `forms` has (their values are examples of the types)."""
        factor = next((f.factor for f in forms if f.factor is not None), None)
        term = next((f.term for f in forms if f.term is not None), None)
        return Affine(factor, term)

    @property
    def parts(self) -> list[Value]:
        """The factor and the term, where there are any."""
        return [v for v in (self.factor, self.term) if v is not None]

    def padded(self, b: Builder, shape: Affine) -> list[Value]:
        """The parts that `shape` has, ones and zeros filled in."""
        out = []
        if shape.factor is not None:
            out.append(self.factor or b.const(1.0, shape.factor))
        if shape.term is not None:
            out.append(self.term or b.const(0.0, shape.term))
        return out

    def of_parts(self, values: Sequence[Value]) -> Affine:
        """The form of this one's shape with other values."""
        rest = list(values)
        factor = rest.pop(0) if self.factor is not None else None
        return Affine(factor, rest.pop(0) if self.term is not None else None)

    def then(self, b: Builder, inner: Affine) -> Affine:
        """This one after `inner`: the inner choice is made later."""
        term = inner.term
        if term is not None and self.factor is not None:
            term = b.mul(self.factor, term)
        if self.term is not None:
            term = self.term if term is None else b.add(self.term, term)
        factor = self.factor or inner.factor
        if self.factor is not None and inner.factor is not None:
            factor = b.mul(self.factor, inner.factor)
        return Affine(factor, term)

    def apply(self, b: Builder, rest: Value) -> Value:
        """factor * rest + term."""
        out = rest if self.factor is None else b.mul(self.factor, rest)
        return out if self.term is None else b.add(out, self.term)


def sequence(b: Builder, trip: Affine, stacked: Sequence[Value], reverse: bool) -> Affine:
    """The form of a loop from those of its trips, whose parts are stacked in index order."""
    forms = trip.of_parts(stacked)
    if forms.term is None:
        factor = None if forms.factor is None else b.reduce_prod(forms.factor, axes=(0,))
        return Affine(factor)
    if forms.factor is None:
        return Affine(None, b.reduce_sum(forms.term, axes=(0,)))
    scalar = trip.parts[0].type
    index = Value(TensorType(I32), "i")
    factor, term, w, c = (Value(scalar, n) for n in ("factor", "term", "w", "c"))
    region = Block([index, factor, term, w, c])
    region.results = Affine(factor, term).then(Builder(region, b.span), Affine(w, c)).parts
    starts = [b.const(v, trip.parts[0]) for v in (1.0, 0.0)]
    operands = [*starts, forms.factor, forms.term]
    trips = b.type(forms.term).shape[0]
    return Affine(*b.op("for", operands, [region], trips=trips, carries=2, reverse=reverse))


def affine_in(block: Block, rest: Value) -> bool:
    """Whether the block's result is factor * rest + term."""
    makers = {r: op for op in block.ops for r in op.results}
    return _is_affine(block.results[0], rest, makers)


def _depends(v: Value, rest: Value, makers: dict[Value, Op]) -> bool:
    pending, seen = [v], set()
    while pending:
        at = pending.pop()
        if at is rest:
            return True
        op = makers.get(at)
        if at in seen or op is None:
            continue
        seen.add(at)
        pending += op.operands
        pending += [free for region in op.regions for free in free_values(region)]
    return False


def _is_affine(v: Value, rest: Value, makers: dict[Value, Op]) -> bool:
    if v is rest or not _depends(v, rest, makers):
        return True
    op = makers[v]
    match op.name, op.operands:
        case "add" | "sub" | "neg", operands:
            return all(_is_affine(x, rest, makers) for x in operands)
        case "mul", (x, y) if not _depends(x, rest, makers):
            return _is_affine(y, rest, makers)
        case "mul" | "div", (x, y) if not _depends(y, rest, makers):
            return _is_affine(x, rest, makers)
    return False


Number = Value | float


class _Form:
    """Writes the factor and the term of an affine value; numbers stay numbers."""

    def __init__(self, b: Builder, rest: Value, makers: dict[Value, Op], env: Env) -> None:
        self.b = b
        self.rest = rest
        self.makers = makers
        self.env = env

    def __call__(self, v: Value) -> tuple[Number, Number]:
        if v is self.rest:
            return 1.0, 0.0
        if not _depends(v, self.rest, self.makers):
            return 0.0, self.env.get(v, v)
        op = self.makers[v]
        match op.name, op.operands:
            case "mul", (x, y) if not _depends(x, self.rest, self.makers):
                factor, term = self(y)
                by = self.env.get(x, x)
                return self.times(factor, by), self.times(term, by)
            case "mul", (x, y):
                factor, term = self(x)
                by = self.env.get(y, y)
                return self.times(factor, by), self.times(term, by)
            case "div", (x, y):
                factor, term = self(x)
                by = self.b.div(self.b.const(1.0, y), self.env.get(y, y))
                return self.times(factor, by), self.times(term, by)
            case "neg", (x,):
                factor, term = self(x)
                return self.negative(factor), self.negative(term)
        (factor, term), (factor2, term2) = map(self, op.operands)
        if op.name == "sub":
            factor2, term2 = self.negative(factor2), self.negative(term2)
        return self.plus(factor, factor2), self.plus(term, term2)

    def value(self, x: Number, like: Value) -> Value:
        """x as a value of the IR."""
        return x if isinstance(x, Value) else self.b.const(x, like)

    def times(self, x: Number, y: Value) -> Number:
        if isinstance(x, Value):
            return self.b.mul(x, y)
        return x if x == 0.0 else y if x == 1.0 else self.b.mul(self.b.const(x, y), y)

    def negative(self, x: Number) -> Number:
        return self.b.neg(x) if isinstance(x, Value) else -x

    def plus(self, x: Number, y: Number) -> Number:
        if isinstance(x, Value):
            return x if y == 0.0 else self.b.add(x, self.value(y, x))
        return y if x == 0.0 else self.b.add(self.value(x, y), y) if isinstance(y, Value) else x + y
