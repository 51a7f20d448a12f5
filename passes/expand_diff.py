"""Derivative requests become calls of derived functions, innermost first."""

from __future__ import annotations

from ..ir.clone import Env, copy_module
from ..ir.core import Block, Function, Module, Op, Value, walk
from .derivatives import jvp_function, vjp_function
from .inline import inline_function
from .jvp import NotDifferentiable
from .simplify import simplify
from .streams import streams
from .vectorize import vectorized

DERIVE = {"diff.jvp": jvp_function, "diff.vjp": vjp_function}


def expand_diff(module: Module) -> Module:
    """The entry without `diff.*` ops, calls, custom derivatives; other functions are dropped."""
    work = copy_module(module)
    done: set[str] = set()
    derived: dict[tuple[str, str, tuple[int, ...]], str] = {}
    _expand(work, work.entry, done, derived)
    entry = inline_function(work, work.entry, custom=True)
    for op in walk(entry.body):
        if op.name == "linear_call":
            raise NotDifferentiable(
                "a function with @vjp has no forward-mode derivative",
                op.span,
                hint="use @jvp, which serves both modes",
            )
    return Module({entry.name: entry}, module.entry)


def _expand(
    module: Module,
    name: str,
    done: set[str],
    derived: dict[tuple[str, str, tuple[int, ...]], str],
) -> None:
    """Rewrite function `name`, after all that it names, so that it holds no `diff.*` op."""
    if name in done:
        return
    done.add(name)
    function = module.functions[name]
    for op in walk(function.body):
        for key in ("fn", "jvp", "fwd", "bwd"):
            if op.attrs.get(key):
                _expand(module, op.attrs[key], done, derived)
    if not any(op.name in DERIVE for op in walk(function.body)):
        return
    body = _rewrite(module, function.body, {}, done, derived)
    module.functions[name] = Function(name, body, function.span, dict(function.attrs))


def _prepare(module: Module, name: str) -> None:
    """Simplify a function before it is differentiated: array code derives to array code."""
    alone = streams(Module({name: inline_function(module, name)}, name)).main
    module.functions[name] = simplify(Module({name: vectorized(module, alone)}, name)).main


def _rewrite(
    module: Module,
    block: Block,
    env: Env,
    done: set[str],
    derived: dict[tuple[str, str, tuple[int, ...]], str],
) -> Block:
    params = [Value(p.type, p.name) for p in block.params]
    env.update(zip(block.params, params))
    ops = []
    for op in block.ops:
        attrs, kind = op.attrs, op.name
        if kind in DERIVE:
            key = (kind, attrs["fn"], attrs["wrt"])
            if key not in derived:
                _prepare(module, attrs["fn"])
                derived[key] = DERIVE[kind](module, attrs["fn"], attrs["wrt"])
                done.add(derived[key])
            kind = "call"
            attrs = {"fn": derived[key], "jvp": "", "fwd": "", "bwd": "", "types": attrs["types"]}
        regions = tuple(_rewrite(module, r, env, done, derived) for r in op.regions)
        results = tuple(Value(v.type, v.name) for v in op.results)
        operands = tuple(env.get(v, v) for v in op.operands)
        ops.append(Op(kind, operands, attrs, regions, results, op.span))
        env.update(zip(op.results, results))
    return Block(params, ops, [env.get(v, v) for v in block.results])
