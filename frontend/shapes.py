"""Shape programs: statements that draw, and what can be asked of a shape.

Primitives, transforms and combinators are declared in the language (stdlib/shapes.wg has the
library's). Their methods become functions of the module, which ops of the shape dialect name.
A program is lowered once for each type of point that it is asked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ir.core import Block, Function, Value
from ..ir.shape import requirements_of
from ..ir.span import Span
from ..ir.types import BOOL, DType, TensorType
from . import syntax as s
from .arithmetic import is_weak
from .distributions import outlined
from .lifting import lift
from .loops import Rows, counted
from .scopes import assigned
from .signatures import Sizes, bind, coerce_arguments
from .type_errors import CallMistake, ShapeMistake
from .values import (
    Closure,
    ProgramCall,
    Staged,
    Static,
    Tensor,
    ToolType,
    Tuple,
    Unbound,
    describe,
    key_of,
    named_params,
    rebuild,
    tensors,
)

if TYPE_CHECKING:
    from .lower import Lowering
    from .program import SourceModule

PART = "part"
TOOLS = {  # methods of each kind of tool: those it must have, those it may
    "primitive": (("distance",), ()),
    "transform": ((), ("back", "distance")),
    "combinator": (("join", "first"), ()),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A primitive, transform or combinator with its parameters, sizes bound with them."""

    type: ToolType
    parameters: dict[str, Staged]
    span: Span

    @property
    def decl(self) -> s.ShapeTool:
        """Its declaration."""
        return self.type.decl

    @property
    def operands(self) -> list[Value]:
        """The tensors of its parameters."""
        return [t.value for v in self.parameters.values() for t in tensors(v)]


# Names


def known(module: SourceModule, name: str) -> tuple[s.Decl, SourceModule] | None:
    """What shape programs of a file know as `name` without a declaration of its own: the
    library's tools and axes.
    """
    for home in module.prelude:
        decl = home.declarations.get(name)
        if home.path == "<stdlib>/shapes.wg" and isinstance(decl, s.ShapeTool | s.ConstDecl):
            return decl, home
    return None


def _called(expr: s.Expr) -> tuple[s.Expr, tuple[s.Argument, ...]]:
    """The function and the arguments of a head: `union`, `translate(1, 2, 3)`."""
    return (expr.function, expr.arguments) if isinstance(expr, s.Call) else (expr, ())


def _is_part(low: Lowering, function: s.Expr) -> bool:
    named = isinstance(function, s.Name) and function.name == PART
    return named and PART not in low.env and PART not in low.module.declarations


# Statements


def lower_drawing(low: Lowering, stmt: s.Drawing) -> None:
    """`head: body`."""
    function, arguments = _called(stmt.head)
    if _is_part(low, function):
        _part(low, stmt, arguments)
    else:
        head = low.expr(function)
        if not isinstance(head, ToolType) or head.decl.kind == "primitive":
            raise ShapeMistake(
                "a block cannot be drawn under this",
                stmt.head.span,
                expected="part(...), a transform or a combinator",
                found=describe(head),
            )
        tool = _tool(low, head, arguments, stmt.head.span)
        if head.decl.kind == "combinator":
            _combine(low, tool, stmt)
        else:
            _place(low, tool, stmt)
    for name in assigned(stmt.body):
        low.env[name] = Unbound(f"it is set inside the block at line {stmt.span.line}")


def lower_draw(low: Lowering, stmt: s.ExprStmt) -> None:
    """A primitive with its parameters, or a shape program with its arguments."""
    function, arguments = _called(stmt.value)
    if isinstance(stmt.value, s.Call) and not _is_part(low, function):
        head = low.expr(function)
        if isinstance(head, ToolType) and head.decl.kind == "primitive":
            _draw(low, _tool(low, head, arguments, stmt.span))
            return
        value = head if isinstance(head, ToolType) else low.expr(stmt.value)
    else:
        value = low.expr(stmt.value)
    if not is_shape(value):
        hint = None
        if isinstance(value, ToolType):
            hint = f"a {value.decl.kind} draws the block below it: {value.decl.name}(...): ..."
        raise ShapeMistake(
            "this draws nothing",
            stmt.span,
            expected="a primitive, or a shape program with its arguments",
            found=describe(value),
            hint=hint,
        )
    assert isinstance(value, ProgramCall)
    low.b.op("shape.call", operands(value), fn=lowered(low, value, _point(low), stmt.span))


def lower_field(low: Lowering, stmt: s.FieldDrawing) -> None:
    """`field(p) = value`."""
    parameter = s.Parameter(stmt.span, stmt.point)
    own = Closure("field", (parameter,), None, stmt.value, dict(low.env), low.module, stmt.span)
    point = Tensor(Value(_point(low), stmt.point))
    lifted = lift(low, own, [point], stmt.span)
    result = lifted.result
    if not isinstance(result, Tensor) or result.type != TensorType(low.session.real):
        raise ShapeMistake(
            "a field is one number at every point",
            stmt.value.span,
            expected=str(low.session.real),
            found=describe(result),
        )
    _captured_first(low, lifted.name, len(lifted.captured))
    low.b.span = stmt.span
    low.b.op("shape.draw", lifted.captured, primitive="field", distance=lifted.name)


def _captured_first(low: Lowering, name: str, count: int) -> None:
    """Move the last `count` parameters of a function to the front."""
    body = low.session.module.functions[name].body
    at = len(body.params) - count
    body.params = [*body.params[at:], *body.params[:at]]


def _part(low: Lowering, stmt: s.Drawing, arguments: Sequence[s.Argument]) -> None:
    values: dict[str, Staged] = {}
    for name, argument in zip(("name", "color"), [a for a in arguments if a.name is None]):
        values[name] = low.expr(argument.value)
    values |= {a.name: low.expr(a.value) for a in arguments if a.name is not None}
    texts = {k: v.value for k, v in values.items() if isinstance(v, Static)}
    texts.setdefault("color", "")
    unfit = len(values) != len(arguments) or set(texts) != {"name", "color"}
    if unfit or not all(isinstance(t, str) for t in texts.values()):
        raise CallMistake(
            "'part' does not take these arguments",
            stmt.head.span,
            expected='part(name, color="#rrggbb")',
            found=", ".join(describe(v) for v in values.values()) or "no arguments",
        )
    body = _region(low, stmt, _point(low))
    low.b.op("shape.part", [], [body], part=texts["name"], color=texts["color"])


def _region(low: Lowering, stmt: s.Drawing, point: TensorType) -> Block:
    """The body of a block statement, drawn in another space."""
    inner = low.inner(Block())
    inner.point = point
    inner.body(stmt.body)
    low.b.span = stmt.head.span
    return inner.b.block


# Tools


def _tool(low: Lowering, type: ToolType, arguments: Sequence[s.Argument], span: Span) -> Tool:
    """A tool with its arguments: checked, and its sizes bound."""
    decl, module = type.decl, type.module
    args = [low.expr(a.value) for a in arguments if a.name is None]
    named = {a.name: low.expr(a.value) for a in arguments if a.name is not None}
    low.b.span = span
    bound = bind(low, decl.name, decl.parameters, args, named, span, module)
    bound = coerce_arguments(low, decl.parameters, module, bound, span)
    bound = {n: _settled(low, v, span) for n, v in bound.items()}
    home = low.elsewhere(module, dict(bound))
    Sizes(home, decl.name, {}).parameters(decl.parameters, home.env)
    return Tool(type, home.env, span)


def _settled(low: Lowering, value: Staged, span: Span) -> Staged:
    """A parameter without a type as it is passed on: its floats are `real`."""
    if isinstance(value, Tensor) and value.weak:
        return low.a.materialise(value, span)
    return value


def _valid(low: Lowering, tool: Tool) -> dict[str, Any]:
    """The attributes of what a tool requires."""
    decl = tool.decl
    if not decl.requires:
        return {}

    def write(inner: Lowering, args: list[Staged]) -> Staged:
        within = _within(inner, tool, args)
        held = [within.a.tensor(within.expr(r.condition), r.span, BOOL) for r in decl.requires]
        for r, v in zip(decl.requires, held):
            if within.a.type(v) != TensorType(BOOL):
                raise ShapeMistake(
                    "a requirement is one bool", r.condition.span, found=str(within.a.type(v))
                )
        return Tuple(tuple(map(Tensor, held)))

    key = (tool.type.module.path, decl.name)
    made = outlined(low, f"{decl.name}_valid", key, [*tool.parameters.items()], write, tool.span)
    return {"valid": made.name, "needs": tuple(r.message for r in decl.requires)}


def _within(inner: Lowering, tool: Tool, args: Sequence[Staged]) -> Lowering:
    """Where the code of a tool stands: its parameters have the values of `args`."""
    within = inner.elsewhere(tool.type.module, dict(zip(tool.parameters, args)))
    within.kind, within.point = "fn", None
    return within


def _method(
    low: Lowering, tool: Tool, name: str, extra: Mapping[str, Staged]
) -> tuple[str, Staged] | None:
    """(parameters of the tool, extra) -> the method's result, a function, and the pattern of its
    result; None where the tool has no such method. A method may leave out the last of `extra`.
    """
    decl = tool.decl.method(name)
    if decl is None:
        return None
    count = len(tool.parameters)
    known_as = [*extra]
    names = [p.name for p in decl.parameters]
    if len(names) > len(known_as):
        raise CallMistake(
            f"'{tool.decl.name}.{name}' takes more than it is given",
            decl.span,
            expected=f"{name}({', '.join(known_as)})",
            found=f"{name}({', '.join(names)})",
        )
    _check_point(tool, decl, extra)

    def write(inner: Lowering, args: list[Staged]) -> Staged:
        within = _within(inner, tool, args[:count])
        within.env |= dict(zip(names, args[count:]))
        with low.session.entering(object(), f"{tool.decl.name}.{name}", tool.span):
            Sizes(within, f"{tool.decl.name}.{name}", {}).parameters(decl.parameters, within.env)
            return within.returned(decl.body, decl.name, decl.span)

    key = (tool.type.module.path, tool.decl.name, name)
    arguments = [*tool.parameters.items(), *extra.items()]
    made = outlined(low, f"{tool.decl.name}_{name}", key, arguments, write, tool.span)
    return made.name, made.result


def _check_point(tool: Tool, decl: s.FunctionDecl, extra: Mapping[str, Staged]) -> None:
    """Raise where a method takes points of another number of coordinates."""
    for p, value in zip(decl.parameters, extra.values()):
        match p.annotation, value:
            case s.NamedType(_, _, (s.Number(_, int() as wanted),)), Tensor():
                found = value.type.shape[0] if value.type.rank == 1 else 0
                if found and found != wanted:
                    raise ShapeMistake(
                        f"'{tool.decl.name}' is a shape of {wanted} dimensions",
                        tool.span,
                        expected=f"points of {wanted} coordinates",
                        found=f"{found} coordinates here",
                        hint="turn it solid with extrude(height): ... or revolve(): ..."
                        if wanted == 2
                        else "it cannot be drawn in the plane",
                    )


def _scalar(
    low: Lowering, tool: Tool, name: str, extra: Mapping[str, Staged], dtype: DType | None = None
) -> str:
    """A method that gives one float (or another scalar), as a function; "" where there is none."""
    found = _method(low, tool, name, extra)
    if found is None:
        return ""
    return _returning(tool, name, found, TensorType(dtype or low.session.real))


def _returning(tool: Tool, name: str, found: tuple[str, Staged], type: TensorType) -> str:
    fn, result = found
    if not isinstance(result, Tensor) or result.type != type:
        decl = tool.decl.method(name)
        raise ShapeMistake(
            f"'{tool.decl.name}.{name}' does not give what is needed",
            decl.span if decl else tool.span,
            expected=str(type),
            found=describe(result),
        )
    return fn


def _point(low: Lowering) -> TensorType:
    """The type of points where the statement draws."""
    if low.point is None:
        raise ShapeMistake("only shape programs draw", low.b.span)
    return low.point


def _given(type: TensorType) -> Tensor:
    return Tensor(Value(type, "p"))


def _draw(low: Lowering, tool: Tool) -> None:
    distance = _scalar(low, tool, "distance", {"p": _given(_point(low))})
    valid = _valid(low, tool)
    low.b.span = tool.span
    low.b.op("shape.draw", tool.operands, primitive=tool.decl.name, distance=distance, **valid)


def _place(low: Lowering, tool: Tool, stmt: s.Drawing) -> None:
    """A transform of what its block draws."""
    outside = inside = _point(low)
    back = _method(low, tool, "back", {"p": _given(outside)})
    if back is not None:
        inside = _inside(low, tool, back)
    distance = Tensor(Value(TensorType(low.session.real), "d"))
    scaled = _scalar(low, tool, "distance", {"d": distance, "p": _given(outside)})
    valid = _valid(low, tool)
    body = _region(low, stmt, inside)
    low.b.op(
        "shape.place",
        tool.operands,
        [body],
        transform=tool.decl.name,
        back=back[0] if back else "",
        distance=scaled,
        **valid,
    )


def _inside(low: Lowering, tool: Tool, back: tuple[str, Staged]) -> TensorType:
    """The type of the points that a transform gives its block."""
    real = low.session.real
    result = back[1]
    if isinstance(result, Tensor) and result.type == TensorType(real, (2,)):
        return result.type
    _returning(tool, "back", back, TensorType(real, (3,)))
    return TensorType(real, (3,))


def _combine(low: Lowering, tool: Tool, stmt: s.Drawing) -> None:
    """A combinator of what its block draws."""
    body = _region(low, stmt, _point(low))
    real = TensorType(low.session.real)
    pair = {"a": Tensor(Value(real, "a")), "b": Tensor(Value(real, "b"))}
    join = _scalar(low, tool, "join", pair)
    kept = _scalar(low, tool, "first", pair, BOOL)
    valid = _valid(low, tool)
    low.b.span = tool.span
    low.b.op(
        "shape.combine",
        tool.operands,
        [body],
        combinator=tool.decl.name,
        join=join,
        first=kept,
        **valid,
    )


# Shapes as values


def is_shape(value: Staged) -> bool:
    """Whether a value is a shape program with its arguments."""
    return isinstance(value, ProgramCall) and value.function.decl.kind == "shape"


def operands(call: ProgramCall) -> list[Value]:
    """The tensors of a shape's arguments."""
    return [t.value for v in call.arguments.values() for t in tensors(v)]


def lowered(low: Lowering, call: ProgramCall, point: TensorType, span: Span) -> str:
    """The IR function of a shape program for its arguments and points of a type, made once."""
    decl, module = call.function.decl, call.function.module
    keys = tuple(key_of(v) for v in call.arguments.values())
    if None in keys:
        raise CallMistake(
            f"the shape '{decl.name}' takes a function that uses names around it",
            span,
            hint="pass a function declared at the top level, and what it uses as arguments",
        )
    key = ("shape", module.path, decl.name, keys, point)
    made = low.session.outlined
    if key not in made:
        block, env = Block(), {}
        for name, value in call.arguments.items():
            params = named_params(name, value)
            block.params += params
            env[name] = rebuild(value, iter(params))
        with low.session.entering(key, decl.name, span):
            inner = low.elsewhere(module, env, block)
            inner.kind, inner.point, inner.draws = decl.kind, point, None
            inner.a.lenient = True
            Sizes(inner, decl.name, {}).parameters(decl.parameters, env)
            inner.returned(decl.body, decl.name, decl.span)
        name = low.session.module.fresh_name(decl.name)
        low.session.module.add(Function(name, block, decl.span))
        made[key] = name
    found: str = made[key]
    return found


def field_at(low: Lowering, shape: Staged, points: Staged, span: Span) -> tuple[Value, Value]:
    """(distances, parts) of a shape at points `[..., 2 or 3]`: one for each."""
    call = _shape(shape, span)
    real = low.session.real
    p = low.a.tensor(points, span, real if is_weak(points) else None)
    type = low.a.type(p)
    if type.dtype is not real or not type.rank or type.shape[-1] not in (2, 3):
        raise ShapeMistake(
            "these are no points",
            span,
            expected=f"{real}[..., 3], or {real}[..., 2] for a shape in the plane",
            found=describe(points),
        )
    fn = lowered(low, call, TensorType(real, type.shape[-1:]), span)

    def field(inner: Lowering, point: Value) -> tuple[Value, Value]:
        inner.b.span = span
        distance, part = inner.b.op(
            "shape.field", [*operands(call), point], (), ["distance", "part"], fn=fn
        )
        return distance, part

    def along(inner: Lowering, points: Value) -> tuple[Value, Value]:
        """A loop for every axis but the last: the arrays keep their axes."""
        inner.b.span = span
        shape = inner.a.type(points).shape
        if len(shape) == 1:
            return field(inner, points)

        def body(low: Lowering, row: Staged, _: list[Staged]) -> tuple[list[Staged], Staged]:
            assert isinstance(row, Tensor)
            return [], Tuple(tuple(map(Tensor, along(low, row.value))))

        out = counted(inner, Rows(shape[0], rows=Tensor(points)), [], [], body, span).outputs
        assert out is not None
        distance, part = (t.value for t in tensors(out))
        return distance, part

    return along(low, p)


def checked(low: Lowering, shape: Staged, span: Span) -> Value:
    """Whether each requirement of a solid shape holds: bool[count]."""
    call = _shape(shape, span)
    fn = lowered(low, call, TensorType(low.session.real, (3,)), span)
    count = len(requirements_of(low.session.module, low.session.module.functions[fn]))
    low.b.span = span
    (held,) = low.b.op("shape.check", operands(call), (), ["held"], fn=fn, count=count)
    return held


def _shape(value: Staged, span: Span) -> ProgramCall:
    if not is_shape(value):
        raise ShapeMistake(
            "a shape is needed here",
            span,
            expected="a shape program with its arguments",
            found=describe(value),
        )
    assert isinstance(value, ProgramCall)
    return value
