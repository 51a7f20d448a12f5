"""Trees become arrays (design, section 5): the `tree` dialect to plain tensor code.

Each encoding says how its tree is held, or leaves that to this pass, which then tries the exact
forms and takes the cheapest; `tree_forms.py` says what a form is, `tree_lowering.py` how forms
follow the values. The entry notes the choice, its cost and that of the others in its attribute
`trees`, which dumps show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..ir.builder import Builder
from ..ir.core import Block, Function, Module, walk
from ..ir.opdef import symbols
from ..ir.types import TensorType
from .tree_lowering import Lowering, has_trees

EXACT = ("shared", "positional")  # what is tried where the form is left to the pass
ATTRIBUTE = "trees"


@dataclass(frozen=True)
class Cost:
    """Bytes that ops write and multiplications in products, loops counted."""

    bytes: int
    products: int

    @property
    def seconds(self) -> float:
        """A rough time, to compare by: memory at 8 GB/s, products at 10 G/s."""
        return self.bytes / 8e9 + self.products / 1e10

    def __str__(self) -> str:
        return f"{_amount(self.bytes)}B written, {_amount(self.products)}products"


def trees(module: Module) -> Module:
    """The module without trees."""
    if not any(map(has_trees, module.functions.values())):
        return module
    ops = [op for f in module.functions.values() for op in walk(f.body)]
    auto = any(op.name == "tree.encode" and op.attrs["form"] == "auto" for op in ops)
    made = []
    for choice in EXACT if auto else ("",):
        lowering = Lowering(module, choice)
        out = lowering.run()
        made.append((cost(out, out.entry), choice, out, lowering.report()))
    made.sort(key=lambda m: m[0].seconds)
    spent, _, best, report = made[0]
    others = "".join(f"; {choice} would be {c}" for c, choice, _, _ in made[1:])
    main = best.main
    attrs = {**main.attrs, ATTRIBUTE: f"{report}: {spent}{others}"}
    best.functions[main.name] = Function(main.name, main.body, main.span, attrs)
    return best


def cost(module: Module, name: str) -> Cost:
    """What a run of a function costs, what it calls included."""
    return _block_cost(module, module.functions[name].body)


def _block_cost(module: Module, block: Block) -> Cost:
    size = products = 0
    for op in block.ops:
        size += sum(r.type.nbytes for r in op.results if isinstance(r.type, TensorType))
        if op.name == "dot_general":
            left = Builder.type(op.operands[0])
            summed = math.prod(left.shape[a] for a in op.attrs["lhs_contract"])
            products += Builder.type(op.result).size * summed
        inside = [_block_cost(module, r) for r in op.regions]
        inside += [_block_cost(module, module.functions[n].body) for n in symbols(op)]
        times = op.attrs["trips"] if op.name == "for" else 1
        size += times * sum(c.bytes for c in inside)
        products += times * sum(c.products for c in inside)
    return Cost(size, products)


def _amount(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} "
