"""What all functions of one specialisation share: the module being built, calls, conversions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..ir.core import Block, Function, Module, Value, free_values
from ..ir.errors import WengertError
from ..ir.span import Span
from ..ir.types import DTYPES, DType, TensorType
from . import syntax as s
from .lower import Lowering
from .resolve import names_of
from .values import (
    Closure,
    ModuleRef,
    Record,
    RecordType,
    RecursionMistake,
    SizeMistake,
    Staged,
    Static,
    StaticNeeded,
    Tensor,
    Tuple,
    TypeMistake,
    UserFunction,
    describe,
    is_function,
    key_of,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .program import SourceModule

DEEPEST_CALLS = 200


class Session:
    """One `specialize` call."""

    def __init__(self, real: DType) -> None:
        self.real = real
        self.module = Module()
        self.cache: dict[Any, tuple[str, Staged]] = {}
        self.rules: dict[Any, dict[str, str]] = {}  # names of custom derivative rules
        self.stack: list[tuple[Any, str]] = []
        self.constants: dict[tuple[str, str], Staged] = {}

    # Declarations

    def declared(
        self, low: Any, module: SourceModule, decl: s.Decl, span: Span
    ) -> Staged:
        """What a top-level declaration denotes."""
        match decl:
            case s.FunctionDecl():
                return UserFunction(decl, module)
            case s.RecordDecl():
                return RecordType(decl, module)
            case s.ImportDecl():
                return ModuleRef(module.imports[decl.name])
            case s.ConstDecl():
                inner = Lowering(self, module, {}, low.b.block)
                value = inner.expr(decl.value)
                if decl.annotation is not None:
                    value = self.coerce(inner, value, decl.annotation, {}, decl.span)
                return value
        raise TypeMistake(f"'{decl.name}' has no value", span)

    # Calls

    def call_declared(
        self,
        low: Any,
        decl: s.FunctionDecl,
        module: SourceModule,
        args: Sequence[Staged],
        named: dict[str, Staged],
        span: Span,
    ) -> Staged:
        """Call a declared function: its specialisation for these arguments, made once."""
        bound = self.bind(low, decl.name, decl.parameters, args, named, span, module)
        bound = self.coerce_arguments(low, decl, module, bound, span)
        keys = tuple(key_of(v) for v in bound.values())
        if None in keys:  # a closure among the arguments: its code is part of the call
            return self.inline(low, decl, module, bound, span)
        key = (module.path, decl.name, keys)
        name, result = self.specialised(decl, module, bound, key, span)
        operands = [t.value for v in bound.values() for t in tensors(v)]
        rules = self.custom_rules(decl, module, bound, key, span)
        types = tuple(t.type for t in tensors(result))
        out = low.b.op("call", operands, fn=name, types=types, **rules)
        return rebuild(result, iter(out))

    def bind(
        self,
        low: Any,
        name: str,
        parameters: Sequence[s.Parameter],
        args: Sequence[Staged],
        named: dict[str, Staged],
        span: Span,
        module: SourceModule,
    ) -> dict[str, Staged]:
        """Arguments by parameter name, defaults filled in."""
        names = [p.name for p in parameters]
        bound: dict[str, Staged] = dict(zip(names, args))
        wrong = [n for n in named if n not in names or n in bound]
        if len(args) > len(names) or wrong:
            raise TypeMistake(
                f"'{name}' does not take these arguments",
                span,
                expected=f"{name}({', '.join(names)})",
                found=f"{len(args)} positional" + (f", '{wrong[0]}'" if wrong else ""),
            )
        bound |= named
        for p in parameters:
            if p.name not in bound:
                if p.default is None:
                    raise TypeMistake(f"'{name}' misses its argument '{p.name}'", span)
                bound[p.name] = Lowering(self, module, {}, low.b.block).expr(p.default)
                low.b.span = span
        return {n: bound[n] for n in names}

    def coerce_arguments(
        self,
        low: Any,
        decl: s.FunctionDecl,
        module: SourceModule,
        bound: dict[str, Staged],
        span: Span,
    ) -> dict[str, Staged]:
        """Static numbers made arrays where the parameter's type asks for that."""
        out: dict[str, Staged] = {}
        for p in decl.parameters:
            value = bound[p.name]
            if isinstance(p.annotation, s.StaticType):
                check_static(p, value, span)
            elif p.annotation is not None:
                value = self.shape_free(low, value, p.annotation, module, span, p)
            elif isinstance(value, Static) and isinstance(value.value, float):
                value = low.a.materialise(value, span)
            out[p.name] = value
        return out

    def shape_free(
        self, low: Any, value: Staged, type: s.TypeExpr, module: SourceModule, span: Span, p: s.Parameter
    ) -> Staged:
        """`value` with statics materialised and dtypes checked against `type`; sizes come later."""
        match type, value:
            case s.NamedType(_, name), Static() if name in DTYPES or name == "real":
                return Tensor(low.a.tensor(value, span, self.dtype(name)))
            case s.NamedType(_, name), Tensor() if name in DTYPES or name == "real":
                wanted = self.dtype(name)
                if value.type.dtype is not wanted:
                    raise TypeMistake(
                        f"argument '{p.name}' has another type",
                        span,
                        expected=f"{wanted} (declared at {p.span})",
                        found=str(value.type),
                        hint=f"convert it: {wanted}(...)" if wanted.is_number else None,
                    )
                return value
            case s.TupleType(_, items), Tuple(parts) if len(items) == len(parts):
                return Tuple(
                    tuple(self.shape_free(low, v, t, module, span, p) for v, t in zip(parts, items))
                )
            case s.NamedType(_, name), Record(_, fields):
                record = module.declarations.get(name)
                if isinstance(record, s.RecordDecl) and {f.name for f in record.fields} == set(fields):
                    typed = {
                        f.name: self.shape_free(low, fields[f.name], f.annotation, module, span, f)
                        for f in record.fields
                        if f.annotation is not None
                    }
                    return Record(name, typed)
        raise TypeMistake(
            f"argument '{p.name}' does not fit its type",
            span,
            expected=f"{type_text(type)} (declared at {p.span})",
            found=describe(value),
        )

    def specialised(
        self,
        decl: s.FunctionDecl,
        module: SourceModule,
        bound: dict[str, Staged],
        key: Any,
        span: Span,
    ) -> tuple[str, Staged]:
        """(IR function name, result pattern) of a function for these arguments."""
        found = self.cache.get(key)
        if found is not None:
            return found
        self.enter(key, decl.name, span)
        name = self.module.fresh_name(decl.name)
        self.module.functions[name] = Function(name, Block())  # holds the name meanwhile
        block = Block()
        env: dict[str, Staged] = {}
        for p in decl.parameters:
            value = bound[p.name]
            params = [Value(t.type, p.name) for t in tensors(value)]
            block.params += params
            env[p.name] = rebuild(value, iter(params))
        try:
            result = self.run_body(decl, module, env, block)
        except RecursionError:
            raise RecursionMistake(f"'{decl.name}' nests too deeply to compile", decl.span) from None
        block.results = [t.value for t in tensors(result)]
        self.module.functions[name] = Function(name, block, decl.span)
        self.stack.pop()
        self.cache[key] = (name, result)
        return name, result

    def enter(self, key: Any, name: str, span: Span) -> None:
        """Note a function being specialised; raise where it is inside itself for good."""
        chain = [n for _, n in self.stack]
        if any(k == key for k, _ in self.stack):
            raise RecursionMistake(
                f"'{name}' calls itself without end",
                span,
                found=" -> ".join([*chain[-3:], name]),
                hint="recursion must shrink a static argument; use a loop for run-time counts",
            )
        if len(self.stack) >= DEEPEST_CALLS:
            raise RecursionMistake(
                f"calls nest deeper than {DEEPEST_CALLS}",
                span,
                found=" -> ".join([*chain[-3:], name]),
            )
        self.stack.append((key, name))

    def run_body(
        self, decl: s.FunctionDecl, module: SourceModule, env: dict[str, Staged], block: Block
    ) -> Staged:
        """Lower a function body over `env` (its sizes added) and check its result."""
        low = Lowering(self, module, env, block)
        low.b.span = decl.span
        self.bind_sizes(low, decl, env, module)
        result = low.body(decl.body)
        if result is None:
            raise TypeMistake(f"'{decl.name}' ends without returning a value", decl.span)
        if is_function(result):
            raise TypeMistake(f"'{decl.name}' cannot return a function", decl.span)
        low.b.span = decl.span
        if decl.result is not None:
            result = self.coerce(low, result, decl.result, low.env, decl.result.span)
        return low.a.materialise(result, decl.span)

    def inline(
        self,
        low: Any,
        decl: s.FunctionDecl,
        module: SourceModule,
        bound: dict[str, Staged],
        span: Span,
    ) -> Staged:
        """Lower a function's body at the place of the call."""
        self.enter(object(), decl.name, span)
        result = self.run_body(decl, module, dict(bound), low.b.block)
        self.stack.pop()
        return result

    def call_closure(
        self, low: Any, f: Closure, args: Sequence[Staged], named: dict[str, Staged], span: Span
    ) -> Staged:
        """Call a lambda or local function: its body is lowered in place."""
        bound = self.bind(low, f.name, f.parameters, args, named, span, f.module)
        env = dict(f.env) | bound
        self.enter(object(), f.name, span)
        inner = Lowering(self, f.module, env, low.b.block)
        if isinstance(f.body, tuple):
            decl = s.FunctionDecl(f.span, f.name, f.parameters, None, f.body)
            self.bind_sizes(inner, decl, env, f.module)
            result = inner.body(f.body)
            if result is None:
                raise TypeMistake(f"'{f.name}' ends without returning a value", f.span)
        else:
            result = inner.expr(f.body)
        self.stack.pop()
        return result

    def lift(
        self, low: Any, function: Staged, args: Sequence[Staged], span: Span
    ) -> tuple[str, list[Value], Staged]:
        """An IR function for `function` at arguments like `args`.

        Returns (name, captured values to pass after the arguments, result pattern). Its
        parameters are the tensors of `args`, then the captured values.
        """
        block = Block()
        staged = []
        for i, arg in enumerate(args):
            params = [Value(t.type, t.value.name or f"x{i}") for t in tensors(arg)]
            block.params += params
            staged.append(rebuild(arg, iter(params)))
        module = low.module
        inner = Lowering(self, module, {}, block)
        inner.b.span = span
        result = inner.a.materialise(inner.apply(function, staged, {}, span), span)
        block.results = [t.value for t in tensors(result)]
        captured = free_values(block)
        fresh = [Value(v.type, v.name) for v in captured]
        from ..ir.clone import clone_block

        body = clone_block(block, dict(zip(captured, fresh)))
        body.params += fresh
        name = self.module.fresh_name(_stem(function))
        self.module.add(Function(name, body, span))
        return name, captured, result

    def custom_rules(
        self,
        decl: s.FunctionDecl,
        module: SourceModule,
        bound: dict[str, Staged],
        key: Any,
        span: Span,
    ) -> dict[str, str]:
        """The attributes of a call of a function with `@jvp` or `@vjp`.

        A rule may call the function itself: its name stands before its body is lowered.
        """
        from .custom_rules import lower_rules, reserve_rules

        if not decl.decorators:
            return {}
        if key not in self.rules:
            self.rules[key] = reserve_rules(self, decl, module)
            lower_rules(self, decl, module, bound, self.rules[key], span)
        return self.rules[key]

    def make_record(
        self,
        low: Any,
        decl: s.RecordDecl,
        args: Sequence[Staged],
        named: dict[str, Staged],
        span: Span,
    ) -> Staged:
        """`Params(a, b=...)`."""
        bound = self.bind(low, decl.name, decl.fields, args, named, span, low.module)
        module = next(
            m for m in [low.module, *low.module.imports.values()] if m.declarations.get(decl.name) is decl
        )
        fields: dict[str, Staged] = {}
        for f in decl.fields:
            assert f.annotation is not None
            fields[f.name] = self.shape_free(low, bound[f.name], f.annotation, module, span, f)
        return Record(decl.name, fields)

    # Types and sizes

    def dtype(self, name: str) -> DType:
        """The dtype that a type name stands for."""
        return self.real if name == "real" else DTYPES[name]

    def bind_sizes(
        self, low: Any, decl: s.FunctionDecl, env: dict[str, Staged], module: SourceModule
    ) -> None:
        """Bind the size variables of a function's parameters and check every written size."""
        taken = {p.name for p in decl.parameters}
        found: dict[str, tuple[int, str]] = {}
        checks: list[tuple[s.Expr, int, s.Parameter, str]] = []
        for p in decl.parameters:
            if p.annotation is not None and not isinstance(p.annotation, s.StaticType):
                self._match(env[p.name], p.annotation, p, p.name, found, checks, module, taken)
        for name, (size, _) in found.items():
            env[name] = Static(size)
        for size, actual, p, path in checks:
            low.b.span = size.span
            wanted = low.a.static_int(low.expr(size), size.span, "a size")
            if wanted != actual:
                at = f"{size.name} = {wanted} from '{found[size.name][1]}'" if isinstance(size, s.Name) and size.name in found else str(wanted)
                raise SizeMistake(
                    f"'{path}' of '{decl.name}' has the wrong size", p.span, expected=at, found=str(actual)
                )

    def _match(
        self,
        value: Staged,
        type: s.TypeExpr,
        p: s.Parameter,
        path: str,
        found: dict[str, tuple[int, str]],
        checks: list[tuple[s.Expr, int, s.Parameter, str]],
        module: SourceModule,
        taken: set[str],
    ) -> None:
        """Collect sizes of one parameter: bare names bind at first sight, the rest is checked."""
        match type, value:
            case s.TupleType(_, items), Tuple(parts):
                for i, (t, v) in enumerate(zip(items, parts)):
                    self._match(v, t, p, f"{path}[{i}]", found, checks, module, taken)
            case s.NamedType(_, name), Record(_, fields):
                record = module.declarations[name]
                assert isinstance(record, s.RecordDecl)
                for f in record.fields:
                    assert f.annotation is not None
                    self._match(fields[f.name], f.annotation, p, f"{path}.{f.name}", found, checks, module, taken)
            case s.NamedType(_, _, sizes), Tensor():
                if len(sizes) != value.type.rank:
                    raise SizeMistake(
                        f"'{path}' has the wrong number of axes",
                        p.span,
                        expected=type_text(type),
                        found=str(value.type),
                    )
                for size, actual in zip(sizes, value.type.shape):
                    free = isinstance(size, s.Name) and size.name not in module.declarations and size.name not in taken
                    if free and isinstance(size, s.Name) and size.name not in found:
                        found[size.name] = (actual, path)
                    else:
                        checks.append((size, actual, p, path))

    def coerce(
        self, low: Any, value: Staged, type: s.TypeExpr, env: dict[str, Staged], span: Span
    ) -> Staged:
        """`value` checked against an annotation whose sizes are all known; statics materialised."""
        match type, value:
            case s.TupleType(_, items), Tuple(parts) if len(items) == len(parts):
                return Tuple(tuple(self.coerce(low, v, t, env, span) for v, t in zip(parts, items)))
            case s.NamedType(_, name), Record(_, fields):
                record = low.module.declarations.get(name)
                if isinstance(record, s.RecordDecl) and [f.name for f in record.fields] == list(fields):
                    return Record(name, self._coerce_fields(low, fields, record))
            case s.NamedType(_, name, sizes), Tensor() | Static() if name in DTYPES or name == "real":
                x = low.a.tensor(value, span, self.dtype(name) if isinstance(value, Static) else None)
                wanted = TensorType(self.dtype(name), tuple(self._size(low, e, span) for e in sizes))
                if isinstance(value, Static):
                    x = low.b.expand(x, wanted.shape)
                if x.type == wanted:
                    return Tensor(x)
                raise TypeMistake("the value has another type than declared", span, expected=str(wanted), found=str(x.type))
        raise TypeMistake("the value has another type than declared", span, expected=type_text(type), found=describe(value))

    def _coerce_fields(self, low: Any, fields: dict[str, Staged], record: s.RecordDecl) -> dict[str, Staged]:
        """Dtypes of a record's fields checked; its sizes are its own."""
        out = {}
        for f in record.fields:
            assert f.annotation is not None
            out[f.name] = self.shape_free(low, fields[f.name], f.annotation, low.module, f.span, f)
        return out

    def _size(self, low: Any, expr: s.Expr, span: Span) -> int:
        unknown = [n for n in names_of(expr) if n not in low.env and n not in low.module.declarations]
        if unknown:
            raise SizeMistake(
                f"the size '{unknown[0]}' is not known here", expr.span, hint="sizes come from parameters"
            )
        return int(low.a.static_int(low.expr(expr), expr.span, "a size"))


def check_static(p: s.Parameter, value: Staged, span: Span) -> None:
    """Raise StaticNeeded unless `value` is what the static parameter `p` takes."""
    assert isinstance(p.annotation, s.StaticType)
    kind = p.annotation.kind
    python = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(kind)
    if kind == "fn":
        ok = is_function(value)
    else:
        ok = isinstance(value, Static) and python is not None and isinstance(value.value, python)
        if kind in ("int", "float") and isinstance(value, Static) and isinstance(value.value, bool):
            ok = False
    if not ok:
        raise StaticNeeded(
            f"argument '{p.name}' must be known when compiling",
            span,
            expected=f"static {kind} (declared at {p.span})",
            found=describe(value),
        )


def type_text(type: s.TypeExpr) -> str:
    """An annotation as it is written, sizes shortened to names."""
    match type:
        case s.NamedType(_, name, sizes):
            inside = ", ".join(_size_text(e) for e in sizes)
            return f"{name}[{inside}]" if sizes else name
        case s.TupleType(_, items):
            return f"({', '.join(type_text(t) for t in items)})"
        case s.StaticType(_, kind):
            return f"static {kind}"
    return "?"


def _size_text(expr: s.Expr) -> str:
    match expr:
        case s.Name(_, name):
            return name
        case s.Number(_, value):
            return str(value)
        case s.Binary(_, op, left, right):
            return f"{_size_text(left)} {op} {_size_text(right)}"
    return "..."


def _stem(function: Staged) -> str:
    match function:
        case UserFunction(decl):
            return decl.name
        case Closure(name):
            return name
    return "function"


