"""Reads the text form of the IR back into the records that printed it."""

from __future__ import annotations

import functools
import importlib.resources
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import attribute_default
from .core import Attrs, Block, Function, Module, Op, Value
from .errors import IRError, WengertError
from .opdef import OPS, OpDef
from .span import Span, register_source
from .types import DTYPES, BufferType, TensorType, TreeType, Type

if TYPE_CHECKING:
    from lark import Lark


class IRSyntaxError(WengertError):
    """Text that is not the text form of any module."""


@functools.cache
def _parser() -> Lark:
    from lark import Lark

    grammar = importlib.resources.files(__package__).joinpath("ir.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def parse_module(text: str, file: str = "<ir>") -> Module:
    """The module that `text` prints; raises IRSyntaxError and IRError with the place."""
    from lark.exceptions import UnexpectedInput

    register_source(file, text)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        line, col = max(1, error.line), max(1, error.column)
        found = str(getattr(error, "token", "")) or "end of text"
        span = Span(file, line, col, line, col + max(1, len(found)))
        raise IRSyntaxError("this is not IR", span, found=repr(found)) from None
    module = Module()
    for child in tree.children:
        _Reader(file).function(child, module)
    return module


class _Reader:
    """Reads one function; `values` are those in scope, by the name in the text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values: dict[str, Value] = {}

    def span(self, tree: Any) -> Span:
        """Where a tree or token stands."""
        at = tree.meta if hasattr(tree, "meta") else tree
        return Span(self.file, at.line, at.column, at.end_line, at.end_column)

    def function(self, tree: Any, module: Module) -> None:
        """Add the function of a tree to `module`."""
        entry, name, params, _, attrs, *rest = tree.children
        *ops, returned = rest
        body = Block(self.params(params))
        self.ops(ops, body)
        body.results = [self.use(v) for v in (returned.children if returned else ())]
        facts = dict(self.attrs(attrs))
        module.add(Function(str(name), body, None, facts))
        if entry is not None:
            module.entry = str(name)

    def params(self, tree: Any) -> list[Value]:
        """Parameters, defined."""
        if tree is None:
            return []
        return [self.define(p.children[0], self.type(p.children[1])) for p in tree.children]

    def define(self, token: Any, type: Type) -> Value:
        """A new value under the name of the text."""
        name = str(token)[1:]
        value = self.values[name] = Value(type, name)
        return value

    def use(self, token: Any) -> Value:
        """The value of a name; IRError where there is none."""
        found = self.values.get(str(token)[1:])
        if found is None:
            raise IRError(f"{token} is not defined", self.span(token))
        return found

    def type(self, tree: Any) -> Type:
        """A type."""
        amp, name, *rest = tree.children
        sizes = rest[0] if rest else None
        prefix, _, kind = str(name).rpartition(".")
        dtype = DTYPES.get(kind) if prefix in ("", "tree") else None
        if dtype is None:
            raise IRError(f"no type is called {name}", self.span(tree))
        shape = tuple(int(t) for t in sizes.children) if sizes is not None else ()
        if prefix:
            if len(shape) != 2:
                raise IRError(f"{name} takes a depth and a number of fillers", self.span(tree))
            return TreeType(dtype, *shape)
        return BufferType(dtype, shape) if amp else TensorType(dtype, shape)

    def ops(self, trees: list[Any], block: Block) -> None:
        """Ops, appended to `block`."""
        for tree in trees:
            if tree is not None and tree.data == "op":
                block.ops.append(self.op(tree))

    def op(self, tree: Any) -> Op:
        """One op."""
        results, name, constant, values, attrs, *rest = tree.children
        *regions, types = rest
        definition = OPS.get(str(name))
        if definition is None:
            raise IRError(f"no op is called {name}", self.span(name))
        operands = tuple(self.use(v) for v in (values.children if values else ()))
        blocks = tuple(self.region(r) for r in regions if r is not None)
        kinds = tuple(self.type(t) for t in (types.children if types else ()))
        full = self.full_attrs(definition, dict(self.attrs(attrs)), kinds)
        if constant is not None:
            full["value"] = self.constant(constant, kinds[0])
        names = results.children if results else ()
        defined = tuple(self.define(n, k) for n, k in zip(names, kinds, strict=True))
        return Op(str(name), operands, full, blocks, defined)

    def region(self, tree: Any) -> Block:
        """A region."""
        _, params, *rest = tree.children
        *ops, yielded = rest
        block = Block(self.params(params))
        self.ops(ops, block)
        block.results = [self.use(v) for v in (yielded.children if yielded else ())]
        return block

    def full_attrs(self, definition: OpDef, given: Attrs, types: tuple[Type, ...]) -> Attrs:
        """Attributes with those that the text leaves out."""
        out: Attrs = {}
        for name, kind in definition.attrs:
            if name == "type":
                out[name] = types[0]
            elif name == "types":
                out[name] = types
            elif name in given:
                value = given.pop(name)
                out[name] = tuple(value) if kind in ("ints", "strs", "symbols") else value
            else:
                out[name] = attribute_default(kind)
        if given:
            raise IRError(f"{definition.name} has no attribute {', '.join(given)}")
        return out

    def attrs(self, tree: Any) -> list[tuple[str, Any]]:
        """Written attributes."""
        if tree is None:
            return []
        return [(str(a.children[0]), self.attr(a.children[1])) for a in tree.children]

    def attr(self, tree: Any) -> Any:
        """An attribute's value."""
        match tree.data:
            case "number":
                return self.number(tree)
            case "string":
                body = str(tree.children[0])[1:-1]
                return body.replace('\\"', '"').replace("\\\\", "\\")
            case "list":
                return [self.attr(t) for t in tree.children if t is not None]
            case _:
                return DTYPES[str(tree.children[0])]

    def number(self, tree: Any) -> int | float | bool:
        """A number."""
        (token,) = tree.children
        text = str(token)
        if text in ("true", "false"):
            return text == "true"
        return int(text) if token.type == "INT" else float(text)

    def constant(self, tree: Any, type: Type) -> Any:
        """The value of a `const`: one number, or a dense array of the op's type."""
        (inner,) = tree.children
        if inner.data == "number":
            value = self.number(inner)
            return float(value) if type.dtype.is_float else value
        items = [self.number(n) for n in inner.children if n is not None]
        return np.array(items, type.dtype.numpy).reshape(type.shape)
