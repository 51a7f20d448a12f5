"""The prob dialect: random choices, traces of programs, expectations. No backend sees it.

A model, guide or objective is a function of the module whose body holds `prob.sample` ops. Keys
are operands, so a program is a pure function of its key; `passes/densities.py` makes traces
plain functions and `passes/estimators.py` choices, following their strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .core import Attrs, Block, Function, Module, Op, Value, walk
from .errors import IRError
from .opdef import OpDef, declare, need
from .span import Span
from .types import TensorType, Type


def _given(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    return list(attrs["types"])


def _one(operands: Sequence[Value], attrs: Attrs, regions: Sequence[Block]) -> list[Type]:
    need(len(attrs["types"]) == 1, "gives one value")
    return list(attrs["types"])


declare(
    OpDef(
        "prob.sample",
        "a choice at address `at` from distribution `dist`: operands are its parameters, a key, "
        "then the options of strategy `by`. Functions: `sampler` (parameters, key; also options "
        "where the strategy passes values of another type on) -> value, `density` (value, "
        "parameters) -> log density, `rule` (operands) -> loss, the strategy, which calls the rest "
        "of the program by `prob.rest`. `biased` says why gradients are; `moving` names the "
        "parameters by which the strategy has no derivative, as they move the support",
        _one,
        attrs=(
            ("dist", "str"),
            ("by", "str"),
            ("at", "str"),
            ("support", "str"),
            ("biased", "str"),
            ("moving", "strs"),
            ("sampler", "symbol"),
            ("density", "symbol"),
            ("rule", "symbol"),
            ("types", "types"),
        ),
    )
)

declare(
    OpDef(
        "prob.rest",
        "in a strategy: the loss that the rest of the program has for this value of the choice",
        _one,
        attrs=(("types", "types"),),
        arity=1,
    )
)

declare(
    OpDef(
        "prob.trace",
        "run program `fn` with the choices `given` fixed: operands are its arguments, then these "
        "choices; results are all its choices in order, what it returns, and the sum of the log "
        "densities of the choices `scored`. Choices in loops are stacked; those of a branch that "
        "is not taken score nothing and are as given, or zeros. `at` is the address of the whole "
        "in the program around it",
        _given,
        attrs=(
            ("fn", "symbol"),
            ("at", "str"),
            ("given", "strs"),
            ("scored", "strs"),
            ("types", "types"),
        ),
    )
)

declare(
    OpDef(
        "prob.expect",
        "an unbiased estimate, with its gradient, of the expectation of what program `fn` returns",
        _one,
        attrs=(("fn", "symbol"), ("types", "types")),
    )
)


declare(
    OpDef(
        "prob.assess",
        "the log density of choices under program `fn`. Operands: its arguments, the choices "
        "`given`, numbers for the choices `free`, and for each of the samplers `listed` all values "
        "that it draws, on a first axis. Results: the free choices, and the log density. What the "
        "samplers `mapped` draw is made of numbers by `maps`, (numbers, parameters) -> (choice, "
        "log determinant). Other choices are summed over the values listed",
        _given,
        attrs=(
            ("fn", "symbol"),
            ("given", "strs"),
            ("free", "strs"),
            ("listed", "strs"),
            ("mapped", "strs"),
            ("maps", "symbols"),
            ("types", "types"),
        ),
    )
)


@dataclass(frozen=True)
class Choice:
    """A choice of a program: its address, `/` between nested ones, and what it can be.

    type: of all its values; each loop around it adds a leading axis.
    support: of the distribution, as declared; the first one where branches differ.
    certain: whether every run makes it, and not only those that take some branch.
    """

    address: str
    type: TensorType
    support: str
    span: Span | None
    certain: bool = True


# Supports that unconstrained numbers are mapped onto (stdlib/supports.wg), each with the shape of
# the numbers for a choice of a shape.
FREE_SHAPES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    **dict.fromkeys(("real", "positive", "unit", "interval", "circle"), lambda shape: shape),
    "simplex": lambda shape: (*shape[:-1], shape[-1] - 1),
    "correlation_cholesky": lambda shape: (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2),
}


def free_type(choice: Choice) -> TensorType:
    """The type of the unconstrained numbers for a choice."""
    return choice.type.with_shape(FREE_SHAPES[choice.support](choice.type.shape))


def choices_of(module: Module, function: Function) -> list[Choice]:
    """The choices that a program can make, in order; choices of one address in two branches
    are one choice.

    Raises IRError, at the second place, where one run would make two choices at an address.
    """
    found: dict[str, Choice] = {}
    for choice in _block_choices(module, function.body):
        _add(found, choice)
    return list(found.values())


def _add(found: dict[str, Choice], choice: Choice) -> None:
    if choice.address in found:
        first = found[choice.address].span
        raise IRError(
            f"two choices have the address '{choice.address}'",
            choice.span,
            hint=f"the first is at {first}; give one of them another name",
        )
    found[choice.address] = choice


def op_choices(module: Module, op: Op) -> list[Choice]:
    """The choices that one op of a program makes, its regions included."""
    match op.name:
        case "prob.sample":
            (type,) = op.attrs["types"]
            return [Choice(op.attrs["at"], type, op.attrs["support"], op.span)]
        case "prob.trace" if op.attrs["at"]:
            inner = choices_of(module, module.functions[op.attrs["fn"]])
            at = op.attrs["at"]
            return [replace(c, address=f"{at}/{c.address}", span=op.span) for c in inner]
        case "for":
            trips = op.attrs["trips"]
            return [
                replace(c, type=c.type.with_shape((trips, *c.type.shape)))
                for c in _block_choices(module, op.regions[0])
            ]
        case "if" | "switch":
            return _branch_choices(module, op)
        case "while" if any(has_choices(r) for r in op.regions):
            raise IRError("a 'while' loop cannot make choices: their number is not known", op.span)
    return []


def _block_choices(module: Module, block: Block) -> Iterator[Choice]:
    for op in block.ops:
        yield from op_choices(module, op)


def _branch_choices(module: Module, op: Op) -> list[Choice]:
    joined: dict[str, Choice] = {}
    branches: list[dict[str, Choice]] = []
    for region in op.regions:
        branch: dict[str, Choice] = {}
        branches.append(branch)
        for choice in _block_choices(module, region):
            _add(branch, choice)
        for address, choice in branch.items():
            known = joined.setdefault(address, choice)
            if known.type != choice.type:
                raise IRError(
                    f"the branches choose '{address}' of different types",
                    choice.span,
                    expected=str(known.type),
                    found=str(choice.type),
                )
    certain = {a for a in joined if all(a in b and b[a].certain for b in branches)}
    return [replace(c, certain=a in certain) for a, c in joined.items()]


def sample_sites(module: Module, function: Function) -> Iterator[tuple[str, Op]]:
    """Every `prob.sample` that makes a choice of a program, with the address of the choice."""
    for op in walk(function.body):
        if op.name == "prob.sample":
            yield op.attrs["at"], op
        elif op.name == "prob.trace" and op.attrs["at"]:
            for address, site in sample_sites(module, module.functions[op.attrs["fn"]]):
                yield f"{op.attrs['at']}/{address}", site


def has_choices(block: Block) -> bool:
    """Whether a choice is made in `block` or a region of it."""
    return any(op.name in ("prob.sample", "prob.trace") for op in walk(block))
