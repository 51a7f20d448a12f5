"""Facts about syntax trees: what statements bind, where they return, which names stand where."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from . import syntax as s


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
            case s.For(_, _, _, inside) | s.While(_, _, inside):
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
            case s.Assign(_, target):
                names |= dict.fromkeys(target_names(target))
            case s.If(_, _, then, orelse):
                names |= dict.fromkeys([*assigned(then), *assigned(orelse)])
            case s.For(_, target, _, inside):
                own = target_names(target)
                names |= dict.fromkeys(n for n in assigned(inside) if n not in own)
            case s.While(_, _, inside):
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
