"""Parameters and annotations: arguments bound to names, types and sizes checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Block
from ..ir.span import Span
from ..ir.types import DTYPES, I32, DType
from . import syntax as s
from . import trees
from .scopes import find_record, names_of, suggest
from .type_errors import CallMistake, DTypeMistake, SizeMistake, StaticNeeded, TypeMistake
from .values import (
    Record,
    Staged,
    Static,
    Tensor,
    Tree,
    Tuple,
    describe,
    is_function,
)

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule

STATIC_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}


def bind(
    low: Lowering,
    name: str,
    parameters: Sequence[s.Parameter],
    args: Sequence[Staged],
    named: Mapping[str, Staged],
    span: Span,
    module: SourceModule,
) -> dict[str, Staged]:
    """Arguments by parameter name, defaults (evaluated in `module`) filled in."""
    names = [p.name for p in parameters]
    bound: dict[str, Staged] = dict(zip(names, args))
    wrong = [n for n in named if n not in names]
    twice = [n for n in named if n in bound]
    missing = [p.name for p in parameters[len(args) :] if p.name not in named and not p.default]
    if len(args) > len(names) or wrong or twice or missing:
        found = f"{len(args)} positional arguments"
        found += f", without '{missing[0]}'" if missing else ""
        found += f", no parameter '{wrong[0]}'" if wrong else ""
        found += f", '{twice[0]}' twice" if twice else ""
        raise CallMistake(
            f"'{name}' does not take these arguments",
            span,
            expected=signature_text(name, parameters),
            found=found,
            hint=suggest(wrong[0], names) if wrong else None,
        )
    bound |= named
    for p in parameters:
        if p.name not in bound:
            assert p.default is not None
            bound[p.name] = low.elsewhere(module, {}).expr(p.default)
            low.b.span = span
    return {n: bound[n] for n in names}


def coerce_arguments(
    low: Lowering,
    parameters: Sequence[s.Parameter],
    module: SourceModule,
    bound: Mapping[str, Staged],
    span: Span,
) -> dict[str, Staged]:
    """Arguments with dtypes checked and literals made arrays where a parameter asks for it.

    Without annotation, a float literal becomes an array that still adapts to what it meets;
    whole numbers and bools stay static.
    """
    out: dict[str, Staged] = {}
    for p in parameters:
        value = bound[p.name]
        if isinstance(p.annotation, s.StaticType):
            check_static(p.name, p.annotation, value, span, p.span)
        elif p.annotation is not None:
            value = fit(low, value, p.annotation, module, span, p)
        elif isinstance(value, Static) and isinstance(value.value, float):
            value = Tensor(low.a.tensor(value, span), weak=True)
        out[p.name] = value
    return out


def check_static(name: str, type: s.StaticType, value: Staged, span: Span, declared: Span) -> None:
    """Raise StaticNeeded unless `value` is what a static parameter takes."""
    if type.kind == "fn":
        ok = is_function(value)
    else:
        ok = isinstance(value, Static) and isinstance(value.value, STATIC_KINDS[type.kind])
        if type.kind in ("int", "float") and isinstance(value, Static):
            ok = ok and not isinstance(value.value, bool)
    if not ok:
        raise StaticNeeded(
            f"argument '{name}' must be known when compiling",
            span,
            expected=f"static {type.kind} (declared at {declared})",
            found=describe(value),
        )


def fit(
    low: Lowering,
    value: Staged,
    type: s.TypeExpr,
    module: SourceModule,
    span: Span,
    p: s.Parameter,
) -> Staged:
    """`value` with the structure and dtypes of `type`; sizes are checked by `Sizes`.

    Literals take the dtype; a record with the right fields becomes the declared record.
    """
    match type, value:
        case s.NamedType(_, name), Tensor() | Static() if name in DTYPES or name == "real":
            return _fit_array(low, value, low.session.dtype(name), span, p)
        case s.NamedType(_, "tree"), Tree():
            return value
        case s.NamedType(_, "tree"), Tuple() if trees.is_encoded(value):
            return trees.encode(low, value, span)
        case s.TupleType(_, items), Tuple(parts) if len(items) == len(parts):
            return Tuple(tuple([fit(low, v, t, module, span, p) for v, t in zip(parts, items)]))
        case s.NamedType(_, name), Record(_, fields):
            found = find_record(module, name)
            if found and {f.name for f in found[0].fields} == set(fields):
                return make_record(low, *found, fields, span)
        case s.StaticType(), _:
            check_static(p.name, type, value, span, p.span)
            return value
    raise TypeMistake(
        f"'{p.name}' does not fit its type",
        span,
        expected=f"{type_text(type)} (declared at {p.span})",
        found=describe(value),
        hint=_fields_hint(module, type, value),
    )


def _fit_array(low: Lowering, value: Staged, wanted: DType, span: Span, p: s.Parameter) -> Staged:
    literal = isinstance(value, Static) or (isinstance(value, Tensor) and value.weak)
    x = low.a.tensor(value, span, wanted if literal else None)
    found = low.a.type(x)
    if low.a.lenient and found.dtype is I32 and wanted is low.session.real:
        return Tensor(low.b.convert(x, dtype=wanted))
    if found.dtype is not wanted:
        raise DTypeMistake(
            f"'{p.name}' has another type",
            span,
            expected=f"{wanted} (declared at {p.span})",
            found=str(found),
            hint=f"convert it: {wanted}(...)" if wanted.is_number else None,
        )
    return Tensor(x)


def _fields_hint(module: SourceModule, type: s.TypeExpr, value: Staged) -> str | None:
    if not isinstance(type, s.NamedType) or not isinstance(value, Record):
        return None
    found = find_record(module, type.name)
    if found is None:
        return None
    wanted = [f.name for f in found[0].fields]
    missing = [n for n in wanted if n not in value.fields]
    extra = [n for n in value.fields if n not in wanted]
    parts = ([f"it lacks {', '.join(missing)}"] if missing else []) + (
        [f"{type.name} has no {', '.join(extra)}"] if extra else []
    )
    return "; ".join(parts)


def make_record(
    low: Lowering,
    decl: s.RecordDecl,
    home: SourceModule,
    fields: Mapping[str, Staged],
    span: Span,
) -> Record:
    """A declared record of these fields, with dtypes and sizes checked."""
    made = {}
    for f in decl.fields:
        assert f.annotation is not None
        made[f.name] = fit(low, fields[f.name], f.annotation, home, span, f)
    record = Record(decl.name, made)
    Sizes(low, decl.name, {}).record(record, decl, home, decl.name, span)
    return record


class Sizes:
    """Checks written sizes against actual ones, and binds size variables at first sight.

    known: names that have a size already. A record's size variables belong to each of its
    values. A function shares those of its parameters whose records its own file declares,
    where these agree; records inside records and those of other files keep theirs.
    """

    def __init__(self, low: Lowering, owner: str, known: Mapping[str, Staged]) -> None:
        self.low = low
        self.owner = owner
        self.known = known
        self.found: dict[str, tuple[int, str]] = {}
        self.shared: dict[str, list[tuple[int, str]]] = {}
        self.later: list[tuple[s.Expr, int, str, SourceModule, Span]] = []

    def parameters(self, parameters: Sequence[s.Parameter], env: dict[str, Staged]) -> None:
        """Check every parameter of a function in `env`; its size variables are added there."""
        for p in parameters:
            if p.annotation is not None:
                self.match(env[p.name], p.annotation, self.low.module, p.name, p.span)
        self.finish()
        taken = {p.name for p in parameters}
        env |= {n: Static(size) for n, (size, _) in self.found.items() if n not in taken}

    def match(
        self, value: Staged, type: s.TypeExpr, module: SourceModule, path: str, span: Span
    ) -> None:
        """Collect the sizes of one value; expressions over sizes wait for `finish`."""
        match type, value:
            case s.TupleType(_, items), Tuple(parts):
                for i, (t, v) in enumerate(zip(items, parts)):
                    self.match(v, t, module, f"{path}[{i}]", span)
            case s.NamedType(_, name), Record():
                found = find_record(module, name)
                if found is not None:
                    self.record(value, *found, path, span)
            case s.NamedType(_, "tree", sizes), Tree():
                if len(sizes) not in (0, 2):
                    raise SizeMistake(
                        f"a tree's type has a depth and a number of fillers: '{path}'",
                        span,
                        expected="tree or tree[depth, fillers]",
                        found=type_text(type),
                    )
                for size, actual in zip(sizes, (value.type.depth, value.type.fillers)):
                    self._size(size, actual, path, module, span)
            case s.NamedType(_, _, sizes), Tensor():
                if len(sizes) != value.type.rank:
                    raise SizeMistake(
                        f"'{path}' of '{self.owner}' has {value.type.rank} axes",
                        span,
                        expected=f"{len(sizes)}: {type_text(type)}",
                        found=str(value.type),
                    )
                for size, actual in zip(sizes, value.type.shape):
                    self._size(size, actual, path, module, span)

    def record(
        self, value: Record, decl: s.RecordDecl, home: SourceModule, path: str, span: Span
    ) -> None:
        """Check one record by its own size variables, and share these with the function."""
        inner = Sizes(self.low, f"{self.owner}.{path}" if path != self.owner else path, {})
        for f in decl.fields:
            assert f.annotation is not None
            inner.match(value.fields[f.name], f.annotation, home, f"{path}.{f.name}", span)
        inner.shared.clear()
        inner.finish()
        if home is self.low.module:
            for name, found in inner.found.items():
                self.shared.setdefault(name, []).append(found)

    def _size(self, size: s.Expr, actual: int, path: str, module: SourceModule, span: Span) -> None:
        free = isinstance(size, s.Name) and size.name not in module.declarations
        if isinstance(size, s.Name) and free and size.name not in self.known:
            first = self.found.setdefault(size.name, (actual, path))
            if first[0] != actual:
                self._differ(size.name, first, (actual, path), span)
        else:
            self.later.append((size, actual, path, module, span))

    def _differ(
        self, name: str, first: tuple[int, str], second: tuple[int, str], span: Span
    ) -> None:
        where = f"'{second[1]}'" if first[1] == second[1] else f"'{second[1]}' and '{first[1]}'"
        raise SizeMistake(
            f"sizes of {where} of '{self.owner}' do not agree",
            span,
            expected=f"{name} = {first[0]}, as in '{first[1]}'",
            found=f"{name} = {second[0]} in '{second[1]}'",
        )

    def finish(self) -> None:
        """Add what records agree on, then check sizes that are expressions."""
        for name, all_found in self.shared.items():
            sizes = {size for size, _ in all_found}
            if len(sizes) > 1:
                continue  # two records of one type with sizes of their own
            first = self.found.setdefault(name, all_found[0])
            if first[0] not in sizes:
                self._differ(name, all_found[0], first, self.low.b.span or _nowhere())
        for size, actual, path, module, span in self.later:
            wanted = self.evaluate(size, module)
            if wanted != actual:
                text = f"{size_text(size)} = {wanted}{self._origins(size)}"
                raise SizeMistake(
                    f"'{path}' of '{self.owner}' has another size than declared",
                    span,
                    expected=str(wanted) if isinstance(size, s.Number) else text,
                    found=str(actual),
                )

    def _origins(self, size: s.Expr) -> str:
        """Where the size variables of an expression got their values."""
        names = [n for n in dict.fromkeys(names_of(size)) if n in self.found]
        parts = [f"{n} = {self.found[n][0]} from '{self.found[n][1]}'" for n in names]
        return f" ({', '.join(parts)})" if parts else ""

    def evaluate(self, size: s.Expr, module: SourceModule) -> int:
        """The value of a written size."""
        if isinstance(size, s.Number) and isinstance(size.value, int):
            return size.value
        env = dict(self.known) | {n: Static(v) for n, (v, _) in self.found.items()}
        declared = module.declarations
        unknown = [n for n in names_of(size) if n not in env and n not in declared]
        unknown = [n for n in unknown if not self.low.is_builtin(n)]
        if unknown:
            raise SizeMistake(
                f"the size '{unknown[0]}' is not known here",
                size.span,
                hint="a size variable is bound where it stands alone: f32[n]",
            )
        inner = self.low.elsewhere(module, env, Block())
        return inner.a.static_int(inner.expr(size), size.span, "a size")


def _nowhere() -> Span:
    return Span("<text>", 1, 1, 1, 1)


def annotated(
    low: Lowering,
    value: Staged,
    type: s.TypeExpr,
    known: Mapping[str, Staged],
    owner: str,
    span: Span,
) -> Staged:
    """`value` checked against an annotation of a result or of a local name.

    Sizes in `known` must agree; other bare names are bound at first sight. A literal number
    fills the annotated shape.
    """
    p = s.Parameter(type.span, owner, type)
    out = fit(low, value, type, low.module, span, p)
    sizes = Sizes(low, owner, known)
    literal = isinstance(value, Static) and isinstance(out, Tensor)
    if literal and isinstance(out, Tensor) and isinstance(type, s.NamedType):
        shape = tuple(sizes.evaluate(e, low.module) for e in type.sizes)
        out = Tensor(low.b.expand(out.value, shape))
    sizes.match(out, type, low.module, owner, span)
    sizes.finish()
    return out


def signature_text(name: str, parameters: Sequence[s.Parameter]) -> str:
    """A signature as it is declared: `f(x: f32[n], k: static int = ...)`."""
    parts = []
    for p in parameters:
        text = p.name + (f": {type_text(p.annotation)}" if p.annotation else "")
        parts.append(f"{text} = ..." if p.default else text)
    return f"{name}({', '.join(parts)})"


def type_text(type: s.TypeExpr) -> str:
    """An annotation as it is written."""
    match type:
        case s.NamedType(_, name, sizes):
            return f"{name}[{', '.join(map(size_text, sizes))}]" if sizes else name
        case s.TupleType(_, items):
            return f"({', '.join(map(type_text, items))})"
        case s.StaticType(_, kind):
            return f"static {kind}"
    return "?"


def size_text(expr: s.Expr) -> str:
    """A size expression as it is written (parentheses where they may be needed)."""
    match expr:
        case s.Name(_, name):
            return name
        case s.Number(_, value):
            return str(value)
        case s.Binary(_, op, left, right):
            inner = f"{size_text(right)}"
            return f"{size_text(left)} {op} {f'({inner})' if ' ' in inner else inner}"
    return "..."
