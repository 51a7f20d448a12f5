"""The verifier: what every pass must leave true."""

from __future__ import annotations

from collections.abc import Sequence

from .core import Block, Function, Module, Op, Value
from .errors import IRError
from .opdef import OPS, symbols
from .printer import block_window
from .prob import choices_of
from .types import TensorType, Type

CALLS = ("call", "linear_call", "diff.jvp", "diff.vjp")
SYMBOLS = ("fn", "jvp", "fwd", "bwd")
SAMPLE = ("sampler", "density", "rule")


def verify(module: Module) -> None:
    """Raise IRError, with the function, the op and the lines around it, unless all holds:

    the entry exists; values are defined once and before use, in their block or one around it;
    operand counts, regions and result types are what the op's declaration says; calls name
    functions of the module with fitting types, rules of derivatives too, and so do choices and
    traces; no function calls itself.
    """
    if module.entry not in module.functions:
        raise IRError(f"the module has no function @{module.entry} to enter")
    _no_recursion(module)
    for function in module.functions.values():
        _Verifier(module, function).run()


class _Verifier:
    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.function = function
        self.seen: set[Value] = set()

    def run(self) -> None:
        self.block(self.function.body, set())

    def fail(self, op: Op, message: str) -> IRError:
        """The error for a fault at `op`."""
        window = block_window(self.function, op)
        return IRError(f"@{self.function.name}: {op.name}: {message}\n{window}", op.span)

    def define(self, values: Sequence[Value], scope: set[Value], where: str) -> None:
        for v in values:
            if v in self.seen:
                raise IRError(f"@{self.function.name}: {v} is defined twice ({where})")
            self.seen.add(v)
            scope.add(v)

    def block(self, block: Block, outer: set[Value]) -> None:
        scope = _Scope(outer)
        self.define(block.params, scope, "parameter")
        for op in block.ops:
            self.op(op, scope)
            self.define(op.results, scope, op.name)
        for v in block.results:
            if v not in scope:
                raise IRError(f"@{self.function.name}: {v} is returned but not defined there")

    def op(self, op: Op, scope: set[Value]) -> None:
        definition = OPS.get(op.name)
        if definition is None:
            raise self.fail(op, "no such op")
        for v in op.operands:
            if v not in scope:
                raise self.fail(op, f"operand {v} is not defined here")
        if definition.arity is not None and len(op.operands) != definition.arity:
            raise self.fail(op, f"takes {definition.arity} operands, not {len(op.operands)}")
        if set(op.attrs) != {name for name, _ in definition.attrs}:
            raise self.fail(op, f"has attributes {sorted(op.attrs)}")
        names = definition.regions
        if names[-1:] != ("*",) and len(op.regions) != len(names):
            raise self.fail(op, f"has {len(op.regions)} regions, not {len(names)}")
        for region in op.regions:
            self.block(region, scope)
        self.types(op)
        if op.name in CALLS:
            self.call(op)
        elif op.name.startswith("prob."):
            self.program(op)

    def types(self, op: Op) -> None:
        """Result types, inferred again."""
        try:
            wanted = OPS[op.name].infer(op.operands, op.attrs, op.regions)
        except IRError as error:
            raise self.fail(op, error.summary) from None
        found = [r.type for r in op.results]
        if found != list(wanted):
            raise self.fail(op, f"gives {wanted}, but its results are declared {found}")

    def call(self, op: Op) -> None:
        """The functions that a call names, and their signatures."""
        for key in SYMBOLS:
            name = op.attrs.get(key)
            if name and name not in self.module.functions:
                raise self.fail(op, f"names @{name}, which the module does not have")
        required = "bwd" if op.name == "linear_call" else "fn"
        if not op.attrs[required]:
            raise self.fail(op, "names no function")
        callee = self.module.functions[op.attrs[required]]
        given = [v.type for v in op.operands]
        if op.name == "call":
            self.fits(op, callee, given, list(op.attrs["types"]))
            self.rules(op)
        elif op.name == "linear_call":
            self.transpose(op, callee)
        elif op.name.startswith("diff."):
            results = [r.type for r in op.results[: len(callee.results)]]
            self.fits(op, callee, given[: len(callee.params)], results)

    def rules(self, op: Op) -> None:
        """The signatures of a call's own derivative."""
        jvp, fwd, bwd = (self.module.functions.get(op.attrs[k]) for k in ("jvp", "fwd", "bwd"))
        args, results = [v.type for v in op.operands], list(op.attrs["types"])
        if jvp is not None:
            given = [*args, *_floats(args)]
            self.fits(op, jvp, given, [*results, *_floats(results)], "its jvp rule ")
        if (fwd is None) != (bwd is None):
            raise self.fail(op, "has one of fwd and bwd, which go together")
        if fwd is not None and bwd is not None:
            residuals = [r.type for r in fwd.results[len(results) :]]
            self.fits(op, fwd, args, [*results, *residuals], "its fwd rule ")
            given = [*residuals, *_floats(results)]
            self.fits(op, bwd, given, _floats(args), "its bwd rule ")

    def transpose(self, op: Op, callee: Function) -> None:
        """The signature of a linear call's transpose: cotangents go the other way."""
        count = op.attrs["residuals"]
        if not 0 <= count <= len(op.operands):
            raise self.fail(op, f"has {count} residuals among {len(op.operands)} operands")
        types = [v.type for v in op.operands]
        given = [*types[:count], *op.attrs["types"]]
        self.fits(op, callee, given, types[count:], "its transpose ")

    def program(self, op: Op) -> None:
        """The functions that an op of the prob dialect names, and their signatures."""
        functions = self.module.functions
        for name in symbols(op):
            if name not in functions:
                raise self.fail(op, f"names @{name}, which the module does not have")
        given, types = [v.type for v in op.operands], list(op.attrs["types"])
        unnamed = [k for k in ("fn", *SAMPLE) if op.attrs.get(k) == ""]
        if unnamed:
            raise self.fail(op, f"names no {unnamed[0]}")
        match op.name:
            case "prob.sample":
                sampler, density, rule = (functions[op.attrs[k]] for k in SAMPLE)
                count = len(density.params)
                self.fits(op, sampler, given[: len(sampler.params)], types, "its sampler ")
                scalar = [r.type for r in rule.results]
                self.fits(op, density, [*types, *given[: count - 1]], scalar, "its density ")
                self.fits(op, rule, given, scalar[:1], "its strategy ")
            case "prob.expect":
                self.fits(op, functions[op.attrs["fn"]], given, types)
            case "prob.trace":
                self.trace(op, functions[op.attrs["fn"]])

    def trace(self, op: Op, program: Function) -> None:
        """The signature of a trace: the choices are those that the program makes."""
        choices = {c.address: c.type for c in choices_of(self.module, program)}
        unknown = {*op.attrs["given"], *op.attrs["scored"]} - {*choices}
        if unknown:
            raise self.fail(op, f"@{program.name} makes no choice {sorted(unknown)}")
        types = [v.type for v in op.operands]
        count = len(types) - len(op.attrs["given"])
        fixed = [choices[a] for a in op.attrs["given"]]
        if types[count:] != fixed:
            raise self.fail(op, f"gives {types[count:]} for choices of types {fixed}")
        results = list(op.attrs["types"])
        if results[: len(choices)] != [*choices.values()] or not _floats(results[-1:]):
            raise self.fail(op, f"gives {results}, not choices {[*choices.values()]}, ..., a score")
        self.fits(op, program, types[:count], results[len(choices) : -1])

    def fits(
        self,
        op: Op,
        callee: Function,
        given: Sequence[Type],
        results: Sequence[Type],
        role: str = "",
    ) -> None:
        """Raise unless a function takes `given` and returns `results`."""
        wanted = [p.type for p in callee.params]
        if given != wanted:
            raise self.fail(op, f"passes {given} to {role}@{callee.name}, which takes {wanted}")
        returned = [r.type for r in callee.results]
        if results != returned:
            raise self.fail(
                op, f"expects {results} of {role}@{callee.name}, which gives {returned}"
            )


def _floats(types: Sequence[Type]) -> list[Type]:
    """The types that have tangents."""
    return [t for t in types if isinstance(t, TensorType) and t.dtype.is_float]


class _Scope(set[Value]):
    """Values of a block; those of the enclosing blocks are found through `outer`."""

    def __init__(self, outer: set[Value]) -> None:
        super().__init__()
        self.outer = outer

    def __contains__(self, v: object) -> bool:
        return super().__contains__(v) or v in self.outer


def _no_recursion(module: Module) -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise IRError(f"functions call each other in a circle: {' -> '.join((*above, name))}")
        if name in done or name not in module.functions:
            return
        for callee in _callees(module.functions[name].body):
            visit(callee, (*above, name))
        done.add(name)

    for name in module.functions:
        visit(name, ())


def _callees(block: Block) -> list[str]:
    found = []
    for op in block.ops:
        if op.name in CALLS:
            found += [op.attrs[k] for k in ("fn",) if op.attrs.get(k)]
        elif op.name.startswith(("prob.", "shape.")) and op.name in OPS:
            found += symbols(op)
        for region in op.regions:
            found += _callees(region)
    return found
