"""Lark's parse tree to the records of `syntax.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..ir.span import Span
from . import syntax as s
from .errors import SyntaxMistake
from .scopes import returns

_RULES: dict[str, Callable[[_Build, Any, Span], Any]] = {}


def _rule(*names: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        for name in names:
            _RULES[name] = function
        return function

    return add


def build_file(tree: Any, path: str) -> s.File:
    """The syntax tree of a parsed file."""
    build = _Build(path)
    return s.File(path, tuple(build.all(tree.children)))


class _Build:
    def __init__(self, path: str) -> None:
        self.path = path

    def span(self, item: Any) -> Span:
        """Where a token or a tree stands."""
        at = item.meta if hasattr(item, "meta") else item
        if getattr(at, "line", None) is None:
            return Span(self.path, 1, 1, 1, 2)
        return Span(
            self.path, at.line, at.column, at.end_line or at.line, at.end_column or at.column + 1
        )

    def __call__(self, tree: Any) -> Any:
        return _RULES[tree.data](self, tree.children, self.span(tree))

    def all(self, children: list[Any]) -> list[Any]:
        """Every child tree built; placeholders and tokens dropped."""
        return [self(c) for c in children if hasattr(c, "data")]

    def maybe(self, tree: Any) -> Any:
        """The child built, or None for a placeholder."""
        return None if tree is None else self(tree)

    def target(self, expr: Any) -> s.Target:
        """An expression read as the left side of an assignment."""
        match expr:
            case s.Name(span, name):
                return s.NameTarget(span, name)
            case s.TupleLiteral(span, items):
                return s.TupleTarget(span, tuple(self.target(i) for i in items))
            case s.Subscript(span) | s.Attribute(span):
                root: Any = expr
                while isinstance(root, s.Subscript | s.Attribute):
                    root = root.value
                if isinstance(root, s.Name):
                    return s.UpdateTarget(span, root.name, expr)
        raise SyntaxMistake(
            "this cannot be assigned to",
            expr.span,
            expected="a name, a tuple of names, x[index] or record.field",
        )

    def targets(self, tree: Any) -> s.Target:
        """The `expressions` left of `=` or after `for`."""
        items = self.all(tree.children)
        trailing = tree.children[-1] is not None and not hasattr(tree.children[-1], "data")
        if len(items) == 1 and not trailing:
            return self.target(items[0])
        return s.TupleTarget(self.span(tree), tuple(self.target(i) for i in items))


@_rule("function")
def _function(b: _Build, c: list[Any], span: Span) -> Any:
    decorators = tuple(b(d) for d in c if hasattr(d, "data") and d.data == "decorator")
    return _declared(b, c[len(decorators) :], decorators, "fn")


@_rule("program")
def _program(b: _Build, c: list[Any], span: Span) -> Any:
    decorators = tuple(b(d) for d in c if hasattr(d, "data") and d.data == "decorator")
    kind, *rest = c[len(decorators) :]
    return _declared(b, rest, decorators, str(kind))


def _declared(b: _Build, c: list[Any], decorators: tuple[s.Call, ...], kind: str) -> Any:
    """A function of any kind; a program gets its key, and a model returns something."""
    name, parameters, result, suite = c
    body = tuple(b(suite))
    doc = ""
    if body and isinstance(body[0], s.ExprStmt) and isinstance(body[0].value, s.String):
        doc, body = body[0].value.value, body[1:]
    head = b.span(name)
    params = b.maybe(parameters) or ()
    if kind.startswith("tree"):
        kind, tree = "tree", s.NamedType(head, "tree")
        params = tuple(replace(p, annotation=p.annotation or tree) for p in params)
    if kind in s.PROGRAM_KINDS and all(p.name != "key" for p in params):
        params += (s.Parameter(head, "key", s.NamedType(head, "key"), s.FreshKey(head)),)
    if kind == "shape" or (kind in ("model", "guide") and not returns(body)):
        body += (s.Return(head, s.TupleLiteral(head, ())),)
    return s.FunctionDecl(head, str(name), params, b.maybe(result), body, doc, decorators, kind)


@_rule("distribution")
def _distribution(b: _Build, c: list[Any], span: Span) -> Any:
    name, parameters, doc, support, *methods = c
    text = _unquote(doc.children[0]) if doc is not None else ""
    return s.DistributionDecl(
        b.span(name),
        str(name),
        b.maybe(parameters) or (),
        b(support.children[0]),
        tuple(b(m) for m in methods),
        text,
    )


@_rule("shape_tool")
def _shape_tool(b: _Build, c: list[Any], span: Span) -> Any:
    kind, name, parameters, doc, *rest = c
    made = b.all(rest)
    return s.ShapeTool(
        b.span(name),
        str(name),
        str(kind),
        b.maybe(parameters) or (),
        tuple(r for r in made if isinstance(r, s.Require)),
        tuple(m for m in made if isinstance(m, s.FunctionDecl)),
        _unquote(doc.children[0]) if doc is not None else "",
    )


@_rule("require")
def _require(b: _Build, c: list[Any], span: Span) -> Any:
    condition, message = c
    text = _unquote(message) if message is not None else "a requirement does not hold"
    return s.Require(span, b(condition), text)


@_rule("drawing", "drawn_block")
def _drawing(b: _Build, c: list[Any], span: Span) -> Any:
    head, *body = b.all(c)
    return s.Drawing(span, head, tuple(_statements(body)))


@_rule("drawn_name")
def _drawn_name(b: _Build, c: list[Any], span: Span) -> Any:
    name = s.Name(b.span(c[0]), str(c[0]))
    return name if c[1] is None else s.Attribute(span, name, str(c[1]))


@_rule("drawn_call")
def _drawn_call(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Call(span, _drawn_name(b, c[:2], b.span(c[0])), b.maybe(c[2]) or ())


@_rule("drawn_last")
def _drawn_last(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ExprStmt(span, b(c[0]))


@_rule("drawn_field")
def _drawn_field(b: _Build, c: list[Any], span: Span) -> Any:
    return _field_drawing(b(c[0]), b(c[1]), span)


def _field_drawing(head: Any, value: Any, span: Span) -> s.FieldDrawing:
    """`field(p) = value`, of its two sides."""
    match head:
        case s.Call(_, s.Name(_, "field"), (s.Argument(_, None, s.Name(_, point)),)):
            return s.FieldDrawing(span, point, value)
    raise SyntaxMistake(
        "this cannot be assigned to", head.span, expected="in a shape program: field(p) = ..."
    )


@_rule("sample")
def _sample(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Sample(span, b.target(b(c[0])), b(c[1]), b.maybe(c[2]))


@_rule("decorator")
def _decorator(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Call(span, s.Name(b.span(c[0]), str(c[0])), b.maybe(c[1]) or ())


@_rule("parameters", "sizes", "arguments")
def _tuple_of(b: _Build, c: list[Any], span: Span) -> Any:
    return tuple(b.all(c))


@_rule("parameter")
def _parameter(b: _Build, c: list[Any], span: Span) -> Any:
    name, annotation, default = c
    return s.Parameter(b.span(name), str(name), b.maybe(annotation), b.maybe(default))


@_rule("parameters_plain")
def _parameters_plain(b: _Build, c: list[Any], span: Span) -> Any:
    return tuple(s.Parameter(b.span(n), str(n)) for n in c if n is not None)


@_rule("record")
def _record(b: _Build, c: list[Any], span: Span) -> Any:
    return s.RecordDecl(b.span(c[0]), str(c[0]), tuple(b.all(c)))


@_rule("field")
def _field(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Parameter(b.span(c[0]), str(c[0]), b(c[1]))


@_rule("const")
def _const(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ConstDecl(b.span(c[0]), str(c[0]), b(c[2]), b.maybe(c[1]))


@_rule("import_name")
def _import_name(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ImportDecl(b.span(c[0]), str(c[1] or c[0]), str(c[0]))


@_rule("import_path")
def _import_path(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ImportDecl(b.span(c[0]), str(c[1]), _unquote(c[0]))


@_rule("named_type")
def _named_type(b: _Build, c: list[Any], span: Span) -> Any:
    name = f"{c[0]}.{c[1]}" if c[1] else str(c[0])
    return s.NamedType(span, name, b.maybe(c[2]) or ())


@_rule("tuple_type")
def _tuple_type(b: _Build, c: list[Any], span: Span) -> Any:
    return s.TupleType(span, tuple(b.all(c)))


@_rule("static_type")
def _static_type(b: _Build, c: list[Any], span: Span) -> Any:
    return s.StaticType(span, str(c[0]))


@_rule("suite")
def _suite(b: _Build, c: list[Any], span: Span) -> Any:
    return _statements(b.all(c))


def _statements(items: list[Any]) -> list[Any]:
    """The statements of a block; functions among them are local ones."""
    return [s.LocalFunction(i.span, i) if isinstance(i, s.FunctionDecl) else i for i in items]


@_rule("assign")
def _assign(b: _Build, c: list[Any], span: Span) -> Any:
    if len(c[0].children) == 2 and c[0].children[1] is None:
        head = c[0].children[0]
        if head.data == "call" and head.children[0].children[:1] == ["field"]:
            return _field_drawing(b(head), b(c[1]), span)
    return s.Assign(span, b.targets(c[0]), b(c[1]))


@_rule("augmented")
def _augmented(b: _Build, c: list[Any], span: Span) -> Any:
    op = str(c[1])[:-1]
    return s.Assign(span, b.target(b(c[0])), b(c[2]), "^" if op == "**" else op)


@_rule("annotated")
def _annotated(b: _Build, c: list[Any], span: Span) -> Any:
    target = b.target(b(c[0]))
    if not isinstance(target, s.NameTarget):
        raise SyntaxMistake("only a name can have a type annotation", target.span)
    return s.Assign(span, s.NameTarget(target.span, target.name, b(c[1])), b(c[2]))


@_rule("bare_tuple", "tuple")
def _tuple(b: _Build, c: list[Any], span: Span) -> Any:
    return s.TupleLiteral(span, tuple(b.all(c)))


@_rule("empty_tuple")
def _empty_tuple(b: _Build, c: list[Any], span: Span) -> Any:
    return s.TupleLiteral(span, ())


@_rule("return_")
def _return(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Return(span, b.maybe(c[0]) or s.TupleLiteral(span, ()))


@_rule("pass_")
def _pass(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Pass(span)


@_rule("assert_")
def _assert(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Assert(span, b(c[0]), b.maybe(c[1]))


@_rule("expression_statement")
def _expression_statement(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ExprStmt(span, b(c[0]))


@_rule("if_")
def _if(b: _Build, c: list[Any], span: Span) -> Any:
    condition, suite, *more = c
    orelse: tuple[Any, ...] = ()
    for part in reversed([p for p in more if p is not None]):
        if part.data == "else_":
            orelse = tuple(b(part.children[0]))
        else:
            test, body = part.children
            orelse = (s.If(b.span(part), b(test), tuple(b(body)), orelse),)
    return s.If(span, b(condition), tuple(b(suite)), orelse)


@_rule("for_")
def _for(b: _Build, c: list[Any], span: Span) -> Any:
    targets, source, checkpoint, suite = c
    policy = str(checkpoint) if checkpoint else "all"
    if policy not in ("all", "carry", "sqrt"):
        raise SyntaxMistake(
            f"no checkpoint policy is called '{policy}'",
            b.span(checkpoint),
            expected="all, carry or sqrt",
        )
    return s.For(span, b.targets(targets), b(source), tuple(b(suite)), policy)


@_rule("while_")
def _while(b: _Build, c: list[Any], span: Span) -> Any:
    return s.While(span, b(c[0]), tuple(b(c[2])), b.maybe(c[1]))


@_rule("conditional")
def _conditional(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Conditional(span, b(c[1]), b(c[0]), b(c[2]))


@_rule("lambda_")
def _lambda(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Lambda(span, b.maybe(c[0]) or (), b(c[1]))


@_rule("or_")
def _or(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Binary(span, "or", b(c[0]), b(c[1]))


@_rule("and_")
def _and(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Binary(span, "and", b(c[0]), b(c[1]))


@_rule("not_")
def _not(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Unary(span, "not", b(c[0]))


@_rule("comparison")
def _comparison(b: _Build, c: list[Any], span: Span) -> Any:
    values = [b(v) for v in c[::2]]
    pairs = [
        s.Binary(x.span.until(y.span), str(op), x, y)
        for x, op, y in zip(values, c[1::2], values[1:])
    ]
    out = pairs[0]
    for pair in pairs[1:]:
        out = s.Binary(span, "and", out, pair)
    return out


@_rule("range")
def _range(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Range(span, b(c[0]), b(c[1]))


@_rule("sum", "product", "power")
def _binary(b: _Build, c: list[Any], span: Span) -> Any:
    op = str(c[1])
    return s.Binary(span, "^" if op == "**" else op, b(c[0]), b(c[2]))


@_rule("negative")
def _negative(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Unary(span, str(c[0]), b(c[1]))


@_rule("attribute")
def _attribute(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Attribute(span, b(c[0]), str(c[1]))


@_rule("call")
def _call(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Call(span, b(c[0]), b.maybe(c[1]) or ())


@_rule("argument")
def _argument(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Argument(span, None, b(c[0]))


@_rule("keyword")
def _keyword(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Argument(span, str(c[0]), b(c[1]))


@_rule("subscript")
def _subscript(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Subscript(span, b(c[0]), tuple(b.all(c[1].children)))


@_rule("slice")
def _slice(b: _Build, c: list[Any], span: Span) -> Any:
    return s.SliceIndex(span, b.maybe(c[0]), b.maybe(c[1]), b.maybe(c[2]))


@_rule("newaxis")
def _newaxis(b: _Build, c: list[Any], span: Span) -> Any:
    return s.NewAxis(span)


@_rule("ellipsis")
def _ellipsis(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Ellipsis(span)


@_rule("name")
def _name(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Name(span, str(c[0]))


@_rule("number")
def _number(b: _Build, c: list[Any], span: Span) -> Any:
    text = str(c[0]).replace("_", "")
    degrees = text.endswith("deg")
    digits = text.removesuffix("deg")
    value: int | float = int(digits) if digits.isdigit() else float(digits)
    return s.Number(span, value * math.pi / 180 if degrees else value)


def _unquote(token: Any) -> str:
    body = str(token)[1:-1]
    for escape, plain in (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\'", "'"), ("\\\\", "\\")):
        body = body.replace(escape, plain)
    return body


@_rule("string")
def _string(b: _Build, c: list[Any], span: Span) -> Any:
    return s.String(span, _unquote(c[0]))


@_rule("true")
def _true(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Bool(span, True)


@_rule("false")
def _false(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Bool(span, False)


@_rule("list")
def _list(b: _Build, c: list[Any], span: Span) -> Any:
    return s.ListLiteral(span, tuple(b.all(c)))


@_rule("comprehension")
def _comprehension(b: _Build, c: list[Any], span: Span) -> Any:
    element, *generators = b.all(c)
    return s.Comprehension(span, element, tuple(generators))


@_rule("generator")
def _generator(b: _Build, c: list[Any], span: Span) -> Any:
    return s.Generator(span, b.targets(c[0]), b(c[1]))


@_rule("record_literal")
def _record_literal(b: _Build, c: list[Any], span: Span) -> Any:
    return s.RecordLiteral(span, tuple(b.all(c)))


@_rule("record_field")
def _record_field(b: _Build, c: list[Any], span: Span) -> Any:
    value = b.maybe(c[1]) or s.Name(b.span(c[0]), str(c[0]))
    return s.Field(span, str(c[0]), value)
