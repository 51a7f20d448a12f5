"""Facts about syntax trees: what statements bind, where they return, which names stand where."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import syntax as s

if TYPE_CHECKING:
    from .program import SourceModule


def has_return(body: Sequence[s.Stmt]) -> bool:
    """Whether `body` holds a `return` outside loops."""
    return any(
        isinstance(stmt, s.Return)
        or (isinstance(stmt, s.If) and (has_return(stmt.body) or has_return(stmt.orelse)))
        for stmt in body
    )


def first_return(body: Sequence[s.Stmt]) -> s.Return | None:
    """The first `return` in `body`, inside loops too; those of nested functions don't count."""
    for stmt in body:
        inner: tuple[s.Stmt, ...] = ()
        match stmt:
            case s.Return():
                return stmt
            case s.If(_, _, then, orelse):
                inner = (*then, *orelse)
            case s.For(_, _, _, inside) | s.While(_, _, inside) | s.Drawing(_, _, inside):
                inner = inside
        found = first_return(inner)
        if found is not None:
            return found
    return None


def target_names(target: s.Target) -> list[str]:
    """Names that an assignment to `target` binds."""
    match target:
        case s.NameTarget(_, name) | s.UpdateTarget(_, name):
            return [name]
        case s.TupleTarget(_, items):
            return [n for item in items for n in target_names(item)]
    return []


def assigned(body: Sequence[s.Stmt]) -> list[str]:
    """Names that `body` rebinds, in order; loop variables are their loop's own."""
    names: dict[str, None] = {}
    for stmt in body:
        match stmt:
            case s.Assign(_, target) | s.Sample(_, target):
                names |= dict.fromkeys(target_names(target))
            case s.If(_, _, then, orelse):
                names |= dict.fromkeys([*assigned(then), *assigned(orelse)])
            case s.For(_, target, _, inside):
                own = target_names(target)
                names |= dict.fromkeys(n for n in assigned(inside) if n not in own)
            case s.While(_, _, inside):
                names |= dict.fromkeys(assigned(inside))
            case s.Drawing(_, _, inside):
                names |= dict.fromkeys(assigned(inside))
            case s.LocalFunction(_, function):
                names[function.name] = None
    return list(names)


def children(node: s.Node) -> list[s.Node]:
    """The nodes directly inside an expression or index."""
    out: list[s.Node] = []
    for name in node.__slots__ if hasattr(node, "__slots__") else ():
        value = getattr(node, name)
        if isinstance(value, s.Node):
            out.append(value)
        elif isinstance(value, tuple):
            out += [v for v in value if isinstance(v, s.Node)]
    return out


def names_of(expr: s.Node) -> list[str]:
    """Names used in an expression."""
    if isinstance(expr, s.Name):
        return [expr.name]
    return [name for child in children(expr) for name in names_of(child)]


def returns(body: Sequence[s.Stmt]) -> bool:
    """Whether every way through `body` returns."""
    for stmt in body:
        if isinstance(stmt, s.Return):
            return True
        if isinstance(stmt, s.If) and returns(stmt.body) and returns(stmt.orelse):
            return True
    return False


def suggest(name: str, known: Sequence[str]) -> str | None:
    """A hint with the nearest known name, if one is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{close[0]}'?" if close else None


def find_record(module: SourceModule, name: str) -> tuple[s.RecordDecl, SourceModule] | None:
    """The record that type `name` (or `module.name`) means in a file, and its home."""
    first, dot, rest = name.partition(".")
    if dot:
        return find_record(module.imports[first], rest) if first in module.imports else None
    decl = module.declarations.get(name)
    return (decl, module) if isinstance(decl, s.RecordDecl) else None


def record_sizes(decl: s.RecordDecl, home: SourceModule) -> set[str]:
    """The size variables of a record of file `home`; those of records in it are its own affair."""
    found: set[str] = set()
    pending = [f.annotation for f in decl.fields]
    while pending:
        match pending.pop():
            case s.TupleType(_, items):
                pending += items
            case s.NamedType(_, _, sizes):
                found |= {n for size in sizes for n in names_of(size)} - set(home.declarations)
    return found
