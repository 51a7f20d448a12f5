"""Staged values: what an expression denotes while a program is lowered.

Sizes, literals, functions and structure are known then (static); arrays are IR values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..ir.core import Value
from ..ir.span import Span
from ..ir.struct import RecordStruct, Struct, TupleStruct
from ..ir.types import TensorType, TreeType
from . import syntax
from .type_errors import Mistake

if TYPE_CHECKING:
    from .program import SourceModule


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array or a scalar that the compiled program computes.

    weak: it comes from literals alone, so that it takes the dtype of what it meets.
    """

    value: Value
    weak: bool = False

    @property
    def type(self) -> TensorType:
        """Its IR type."""
        assert isinstance(self.value.type, TensorType)
        return self.value.type


@dataclass(frozen=True, slots=True)
class Tree:
    """A sum of weighted trees that the compiled program computes."""

    value: Value

    @property
    def type(self) -> TreeType:
        """Its IR type."""
        assert isinstance(self.value.type, TreeType)
        return self.value.type


@dataclass(frozen=True, slots=True)
class Static:
    """A number, bool, string or None that is known now; numbers take the type they meet."""

    value: Any


@dataclass(frozen=True, slots=True)
class Tuple:
    """Several values in order."""

    items: tuple[Staged, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Named fields; `name` is "" for a record literal."""

    name: str
    fields: dict[str, Staged]


@dataclass(frozen=True, slots=True)
class Zip:
    """What `zip` and `enumerate` make: iterated over as tuples. An item None counts from 0."""

    items: tuple[Staged | None, ...]


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function declared at the top level of a file."""

    decl: syntax.FunctionDecl
    module: SourceModule


@dataclass(frozen=True, slots=True, eq=False)
class Closure:
    """A lambda or a local function with the names around it, as they were where it is written."""

    name: str
    parameters: tuple[syntax.Parameter, ...]
    result: syntax.TypeExpr | None
    body: syntax.Expr | tuple[syntax.Stmt, ...]
    env: dict[str, Staged]
    module: SourceModule
    span: Span


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function of the language itself, or a conversion such as `f32`."""

    name: str


@dataclass(frozen=True, slots=True)
class Partial:
    """A builtin of functions waiting for arguments: `grad(f)`; `options` are its keywords."""

    builtin: str
    functions: tuple[Staged, ...]
    options: dict[str, Staged] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Pullback:
    """What `vjp` gives beside the value: a function from cotangents to gradients."""

    function: Staged
    arguments: tuple[Staged, ...]
    wrt: Staged
    result: Staged


@dataclass(frozen=True, slots=True)
class RecordType:
    """A declared record, callable to make one."""

    decl: syntax.RecordDecl
    module: SourceModule


@dataclass(frozen=True, slots=True)
class ModuleRef:
    """An imported file."""

    module: SourceModule


@dataclass(frozen=True, slots=True)
class DistributionType:
    """A declared distribution, callable with its parameters."""

    decl: syntax.DistributionDecl
    module: SourceModule


@dataclass(frozen=True, slots=True)
class ToolType:
    """A declared primitive, transform or combinator."""

    decl: syntax.ShapeTool
    module: SourceModule


@dataclass(frozen=True, slots=True)
class Dist:
    """A distribution with parameters: `normal(0.0, 1.0)`."""

    decl: syntax.DistributionDecl
    module: SourceModule
    parameters: dict[str, Staged]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a distribution: `d.sample`."""

    dist: Dist
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """In a strategy: the rest of the program, from the choice's value to the loss.

    seen: the types of the values that it was called with.
    """

    seen: list[TensorType]


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A model or guide with arguments, not run yet: `cone()`, `naive(phi)`."""

    function: UserFunction
    arguments: dict[str, Staged]


@dataclass(frozen=True, slots=True)
class Derived:
    """A program made from others, `marginal(...)` or `normalize(...)`.

    draw, density: the library's objectives that draw from it and assess choices under it.
    options: what both take first.
    """

    name: str
    draw: UserFunction
    density: UserFunction
    options: dict[str, Staged]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run of a program gives.

    choices: a Record, nested by address; score: its log density; value: what it returned;
    supports: of each choice, by address.
    """

    choices: Staged
    score: Staged
    value: Staged
    supports: dict[str, str]


@dataclass(frozen=True, slots=True)
class Unbound:
    """A name without a usable value: why, or the error that a use of it raises.

    Neither means that the error has been reported already.
    """

    reason: str = ""
    mistake: Mistake | None = None


Staged = (
    Tensor
    | Tree
    | Static
    | Tuple
    | Record
    | Zip
    | UserFunction
    | Closure
    | Builtin
    | Partial
    | Pullback
    | RecordType
    | ModuleRef
    | DistributionType
    | ToolType
    | Dist
    | Method
    | Rest
    | ProgramCall
    | Derived
    | Trace
    | Unbound
)
FUNCTIONS = (
    UserFunction,
    Closure,
    Builtin,
    Partial,
    Pullback,
    RecordType,
    DistributionType,
    Method,
    Rest,
)
NONE = Static(None)


def is_function(value: Staged) -> bool:
    """Whether `value` can be called."""
    return isinstance(value, FUNCTIONS)


def is_number(value: Staged) -> bool:
    """Whether `value` is a literal number (bools are none)."""
    return (
        isinstance(value, Static)
        and isinstance(value.value, int | float)
        and not isinstance(value.value, bool)
    )


def is_none(value: Staged) -> bool:
    """Whether `value` is None."""
    return isinstance(value, Static) and value.value is None


def tensors(value: Staged) -> Iterator[Any]:
    """The tensors in `value`, in order, and the trees."""
    match value:
        case Tensor() | Tree():
            yield value
        case Tuple(items):
            for item in items:
                yield from tensors(item)
        case (
            Record(_, fields)
            | Dist(parameters=fields)
            | ProgramCall(arguments=fields)
            | Derived(options=fields)
        ):
            for item in fields.values():
                yield from tensors(item)
        case Trace(choices, score, result):
            for item in (choices, score, result):
                yield from tensors(item)


def rebuild(value: Staged, values: Iterator[Value]) -> Staged:
    """`value` with its tensors replaced, in order."""
    match value:
        case Tensor(_, weak):
            return Tensor(next(values), weak)
        case Tree():
            return Tree(next(values))
        case Tuple(items):
            return Tuple(tuple(rebuild(i, values) for i in items))
        case Record(name, fields):
            return Record(name, {k: rebuild(v, values) for k, v in fields.items()})
        case Dist(decl, module, fields):
            return Dist(decl, module, {k: rebuild(v, values) for k, v in fields.items()})
        case ProgramCall(function, fields):
            return ProgramCall(function, {k: rebuild(v, values) for k, v in fields.items()})
        case Derived(name, draw, density, fields):
            options = {k: rebuild(v, values) for k, v in fields.items()}
            return Derived(name, draw, density, options)
        case Trace(choices, score, result, supports):
            choices, score, result = (rebuild(v, values) for v in (choices, score, result))
            return Trace(choices, score, result, supports)
    return value


def from_struct(struct: Struct, values: Iterator[Value]) -> Staged:
    """The staged form of a parameter of structure `struct`."""
    match struct:
        case TensorType():
            return Tensor(next(values))
        case TupleStruct(items):
            return Tuple(tuple(from_struct(i, values) for i in items))
        case RecordStruct(name, fields):
            return Record(name, {k: from_struct(v, values) for k, v in fields})


def to_struct(value: Staged) -> Struct:
    """The structure of a value made of tensors only."""
    match value:
        case Tensor():
            return value.type
        case Tuple(items):
            return TupleStruct(tuple(to_struct(i) for i in items))
        case Record(name, fields):
            return RecordStruct(name, tuple((k, to_struct(v)) for k, v in fields.items()))
        case Trace(choices, score, result):
            parts = (("choices", choices), ("score", score), ("value", result))
            return RecordStruct("", tuple((k, to_struct(v)) for k, v in parts))
    raise TypeError(f"{value} has no run-time structure")


def named_params(name: str, value: Staged) -> list[Value]:
    """Fresh IR values of the types of `value`'s tensors, named after their places in it."""
    match value:
        case Tensor() | Tree():
            return [Value(value.type, name)]
        case Tuple(items):
            return [v for i, x in enumerate(items) for v in named_params(f"{name}_{i}", x)]
        case (
            Record(_, fields)
            | Dist(parameters=fields)
            | ProgramCall(arguments=fields)
            | Derived(options=fields)
        ):
            return [v for k, x in fields.items() for v in named_params(f"{name}_{k}", x)]
        case Trace(choices, score, result):
            parts = {"": choices, "_score": score, "_value": result}
            return [v for k, x in parts.items() for v in named_params(f"{name}{k}", x)]
    return []


def describe(value: Staged | None) -> str:
    """What a message calls a value: its type, or what it is."""
    match value:
        case Tensor():
            return str(value.type)
        case Tree():
            return f"a tree of at most {value.type.depth} levels with {value.type.fillers} fillers"
        case Static(None):
            return "None"
        case Static(bool() as v):
            return f"the bool {str(v).lower()}"
        case Static(v):
            return f"the {type(v).__name__} {v!r}"
        case Tuple(items):
            return f"a tuple ({', '.join(describe(i) for i in items)})"
        case Record(name, fields):
            inside = ", ".join(f"{k}: {describe(v)}" for k, v in fields.items())
            return f"{name or 'a record'} {{{inside}}}"
        case Zip(items):
            return f"zip({', '.join(describe(i) for i in items)})"
        case UserFunction(decl, _):
            return f"the function '{decl.name}'"
        case Closure(name):
            return f"the function '{name}'"
        case Builtin(name) | Partial(name):
            return f"the builtin '{name}'"
        case Pullback():
            return "a pullback"
        case RecordType(decl, _):
            return f"the record type '{decl.name}'"
        case ModuleRef(module):
            return f"the module {module.path}"
        case DistributionType(decl, _) | Dist(decl, _, _):
            return f"the distribution '{decl.name}'"
        case ToolType(decl, _):
            return f"the {decl.kind} '{decl.name}'"
        case Method(dist, name):
            return f"the method '{name}' of the distribution '{dist.decl.name}'"
        case Rest():
            return "the rest of the program"
        case ProgramCall(function):
            return f"the {function.decl.kind} '{function.decl.name}'"
        case Derived(name):
            return f"the program {name}(...)"
        case Trace(choices):
            return f"a trace {describe(choices).removeprefix('a record ')}"
    return "a name without a value"


def key_of(value: Staged) -> Any:
    """A hashable key: calls with equal ones share a specialisation. None: there is no such key."""
    match value:
        case Tensor(_, weak):
            return (value.type, weak)
        case Tree():
            return value.type
        case Static(v):
            return ("static", type(v).__name__, repr(v))
        case Tuple(items):
            parts = tuple(key_of(i) for i in items)
            return None if None in parts else ("tuple", parts)
        case Record(name, fields):
            keyed = tuple((k, key_of(v)) for k, v in fields.items())
            return None if any(k is None for _, k in keyed) else ("record", name, keyed)
        case UserFunction(decl, module):
            return ("fn", module.path, decl.name)
        case Builtin(name):
            return ("builtin", name)
        case Partial(name, functions, options):
            parts = tuple(key_of(f) for f in (*functions, *options.values()))
            return None if None in parts else ("partial", name, parts, tuple(options))
        case RecordType(decl, module) | DistributionType(decl, module) | ToolType(decl, module):
            return ("type", module.path, decl.name)
        case Dist(decl, module, fields):
            return _keyed(("dist", module.path, decl.name), fields)
        case ProgramCall(UserFunction(decl, module), fields):
            return _keyed(("program", module.path, decl.name), fields)
        case Derived(name, _, _, fields):
            return _keyed(("derived", name), fields)
        case Trace(choices, score, result, supports):
            inside = {"choices": choices, "score": score, "value": result}
            return _keyed(("trace", tuple(supports.items())), inside)
    return None


def _keyed(head: tuple[Any, ...], fields: dict[str, Staged]) -> Any:
    keyed = tuple((k, key_of(v)) for k, v in fields.items())
    return None if any(k is None for _, k in keyed) else (*head, keyed)
