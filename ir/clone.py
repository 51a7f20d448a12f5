"""Copying IR under a renaming of values: the base of every pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .builder import Builder
from .core import Block, Module, Op, Value

Env = dict[Value, Value]


def renamed(values: Sequence[Value], env: Env) -> list[Value]:
    """Fresh values like these; `env` gains the renamings."""
    fresh = [Value(v.type, v.name) for v in values]
    env.update(zip(values, fresh))
    return fresh


def clone_op(builder: Builder, op: Op, env: Env) -> tuple[Value, ...]:
    """Append a copy of `op` with operands (and regions) renamed by `env`; extends `env`.

    Values missing from `env` stay as they are: they belong to an enclosing block.
    """
    results = tuple(Value(v.type, v.name) for v in op.results)
    regions = tuple(clone_block(region, env) for region in op.regions)
    operands = tuple(env.get(v, v) for v in op.operands)
    builder.append(Op(op.name, operands, op.attrs, regions, results, op.span))
    env.update(zip(op.results, results))
    return results


def clone_block(block: Block, env: Env) -> Block:
    """A copy of `block` with fresh parameters and results; `env` gains the renamings."""
    out = Block(renamed(block.params, env))
    builder = Builder(out)
    for op in block.ops:
        clone_op(builder, op, env)
    out.results = [env.get(v, v) for v in block.results]
    return out


def rewritten(block: Block, env: Env, write: Callable[[Builder, Op, Env], None]) -> Block:
    """A copy of `block` in which `write` appends what each op becomes, and extends `env`."""
    out = Block(renamed(block.params, env))
    builder = Builder(out)
    for op in block.ops:
        builder.span = op.span
        write(builder, op, env)
    out.results = [env.get(v, v) for v in block.results]
    return out


def clone_with(builder: Builder, op: Op, env: Env, region: Callable[[Block, Env], Block]) -> None:
    """Append a copy of `op` with regions that `region` makes of its own."""
    if not op.regions:
        clone_op(builder, op, env)
        return
    operands = [env.get(v, v) for v in op.operands]
    regions = [region(r, env) for r in op.regions]
    names = [r.name for r in op.results]
    results = builder.op(op.name, operands, regions, names, **op.attrs)
    env.update(zip(op.results, results))


def clone_into(builder: Builder, block: Block, args: list[Value], env: Env) -> list[Value]:
    """Append the ops of `block` with its parameters bound to `args`; the results, renamed."""
    env.update(zip(block.params, args, strict=True))
    for op in block.ops:
        clone_op(builder, op, env)
    return [env.get(v, v) for v in block.results]


def copy_module(module: Module) -> Module:
    """A new module with the same function records; for passes that replace some of them."""
    return Module(dict(module.functions), module.entry)
