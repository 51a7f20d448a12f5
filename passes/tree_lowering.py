"""How the forms of trees follow the values of a module.

Straight code keeps exact forms. Carries of a loop are held in a form that holds their start and
their end, branches in one that holds what each yields; functions are copied for the forms of their
arguments. What a form shares (its context) is used from around, and passed to copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.builder import Builder
from ..ir.clone import clone_op
from ..ir.core import Block, Function, Module, Op, Value, walk
from ..ir.errors import CompilerBug, WengertError
from ..ir.opdef import symbols
from ..ir.types import TreeType
from . import tree_rows as rows
from .tree_dense import dense
from .tree_forms import Form, Held, Positional, encoded
from .tree_shared import shared
from .tree_sparse import sparse

MOST_ROUNDS = 64  # of a loop, until its carries keep their forms
CALLS = ("call", "diff.jvp", "diff.vjp")

Env = dict[Value, Any]  # a Value for an array, Held for a tree


class TreeMistake(WengertError):
    """A tree where the compiler cannot hold one."""


def is_tree(value: Value) -> bool:
    """Whether a value is a tree."""
    return isinstance(value.type, TreeType)


def has_trees(function: Function) -> bool:
    """Whether a function has to do with trees itself."""
    return any(map(is_tree, function.params)) or any(
        op.name.startswith("tree.") or any(map(is_tree, op.results)) for op in walk(function.body)
    )


@dataclass(frozen=True)
class _Copy:
    """A function for arguments in some forms.

    results: what it returns, a form (over the copy's own values) for each tree, None for an array.
    passed: the values of the caller's contexts that it takes last, with its own names for them.
    fresh: values of its own that forms of results need; they are returned last.
    """

    name: str
    results: tuple[Form | None, ...]
    passed: dict[Value, Value]
    fresh: tuple[Value, ...]


class Lowering:
    """One lowering of a module; auto: the form of encodings that leave it open."""

    def __init__(self, module: Module, auto: str) -> None:
        self.module = module
        self.auto = auto
        self.out = Module({}, module.entry)
        self.copies: dict[Any, _Copy] = {}
        self.deepest = max((d for f in module.functions.values() for d in _depths(f)), default=1)
        self.largest: dict[str, tuple[int, str]] = {}

    def run(self) -> Module:
        """The module without trees."""
        plain = {n: f for n, f in self.module.functions.items() if not _signed(f)}
        self.out.functions |= plain  # reserves the names
        for name, function in plain.items():
            if has_trees(function):
                body = self._block(function.body, {})
                self.out.functions[name] = Function(name, body, function.span, dict(function.attrs))
        return self.out

    def report(self) -> str:
        """The forms in use, each with the largest tree that it holds."""
        return ", ".join(f"{n} ({text})" for n, (_, text) in self.largest.items()) or "none"

    def _note(self, held: Held) -> Held:
        size = sum(t.nbytes for t in held.form.arrays)
        if size >= self.largest.get(held.form.name, (0, ""))[0]:
            self.largest[held.form.name] = (size, held.form.describe())
        return held

    # Blocks

    def _block(self, block: Block, env: Env) -> Block:
        """A copy of a block whose parameters are arrays and whose results are too."""
        params = [Value(p.type, p.name) for p in block.params]
        env.update(zip(block.params, params))
        out = Block(params)
        self._ops(Builder(out), block.ops, env)
        out.results = [env.get(v, v) for v in block.results]
        return out

    def _ops(self, b: Builder, ops: Sequence[Op], env: Env) -> None:
        for op in ops:
            b.span = op.span
            if op.name.startswith("tree."):
                self._tree(b, op, env)
            elif not self._touches(op):
                clone_op(b, op, env)
            elif op.name in CALLS:
                self._call(b, op, env)
            elif op.name in ("for", "while"):
                self._loop(b, op, env)
            elif op.name in ("if", "switch"):
                self._branches(b, op, env)
            else:
                raise TreeMistake(
                    f"{op.name} can neither take nor give a tree",
                    op.span,
                    hint="pass arrays, and encode or decode there",
                )

    def _touches(self, op: Op) -> bool:
        """Whether an op, its regions or the signature of what it calls have to do with trees."""
        if op.name.startswith("tree.") or any(map(is_tree, (*op.operands, *op.results))):
            return True
        if any(_signed(self.module.functions[n]) for n in symbols(op)):
            return True
        return any(self._touches(o) for region in op.regions for o in region.ops)

    # Ops of the dialect

    def _tree(self, b: Builder, op: Op, env: Env) -> None:
        xs = [env.get(v, v) for v in op.operands]
        held = [x for x in xs if isinstance(x, Held)]
        attrs = op.attrs
        made: Held | None = None
        match op.name:
            case "tree.encode":
                made = self._encode(b, op, xs)
            case "tree.nil":
                made = Held(Positional(attrs["type"], ()), ())
            case "tree.car" | "tree.cdr":
                made = held[0].form.child(b, held[0].arrays, int(op.name == "tree.cdr"))
            case "tree.resize":
                made = held[0].form.resize(b, held[0].arrays, attrs["depth"])
            case "tree.cons":
                form, (x, y) = _together(b, held)
                assert isinstance(op.result.type, TreeType)
                made = form.cons(b, x, y, xs[2], op.result.type.depth)
            case "tree.blend":
                form, akin = _together(b, held)
                made = form.blend(b, xs[0], akin)
            case "tree.product":
                form, (x, y) = _together(b, held)
                env[op.result] = form.product(b, x, y)
            case "tree.filler":
                env[op.result] = held[0].form.filler(b, held[0].arrays)
            case "tree.decode":
                env[op.result] = held[0].form.decode(b, held[0].arrays, attrs["levels"])
            case "tree.nodes":
                found = held[0].form.nodes(b, held[0].arrays, attrs["count"])
                env.update(zip(op.results, found))
            case _:
                raise CompilerBug(f"no form of trees knows {op.name}")
        if made is not None:
            _name(made, op.result.name)
            env[op.result] = self._note(made)

    def _encode(self, b: Builder, op: Op, xs: Sequence[Value]) -> Held:
        type = op.result.type
        assert isinstance(type, TreeType)
        fillers, places, *roles = xs
        form = op.attrs["form"]
        match self.auto if form == "auto" else form:
            case "dense":
                return dense(b, type, fillers, places, roles, self.deepest)
            case "sparse":
                return sparse(b, type, fillers, places, op.attrs["capacity"])
            case "shared":
                return shared(b, type, fillers, places, op.attrs["levels"])
        return encoded(b, type, fillers, places)

    # Calls

    def _call(self, b: Builder, op: Op, env: Env) -> None:
        """A call, or a derivative, of a function that takes or gives trees."""
        function = self.module.functions[op.attrs["fn"]]
        given = [env.get(v, v) for v in op.operands]
        count = len(function.params)
        args, seeds = given[:count], given[count:]
        if any(isinstance(x, Held) for x in seeds) or (op.name != "call" and _gives(function)):
            raise TreeMistake("a tree has no derivative", op.span, hint="decode it first")
        rules = [k for k in ("jvp", "fwd", "bwd") if op.attrs.get(k)]
        if rules:
            raise TreeMistake("a function with a derivative rule takes and gives arrays", op.span)
        copy = self._copy(function, args)
        flat: list[Value] = []
        starts = []
        for x in args:
            starts.append(len(flat))
            flat += x.arrays if isinstance(x, Held) else [x]
        operands = [*flat, *copy.passed, *seeds]
        inner = self.out.functions[copy.name]
        types = tuple(r.type for r in inner.results)
        attrs: dict[str, Any] = {"fn": copy.name}
        if op.name != "call":
            attrs["wrt"] = tuple(starts[i] for i in op.attrs["wrt"])
            types += tuple(r.type for r in op.results[len(function.results) :])
        out = b.op(op.name, operands, types=types, **attrs)
        self._results(op, copy, out, len(inner.results), env)

    def _results(self, op: Op, copy: _Copy, out: Sequence[Value], count: int, env: Env) -> None:
        """Bind the results of a call: arrays, trees, then derivatives behind them."""
        back = {own: outer for outer, own in copy.passed.items()}
        back |= dict(zip(copy.fresh, out[count - len(copy.fresh) : count]))
        at = 0
        for r, form in zip(op.results, copy.results):
            if form is None:
                env[r] = out[at]
                at += 1
            else:
                size = len(form.arrays)
                outer = form.with_context([back[v] for v in form.context])
                env[r] = Held(outer, tuple(out[at : at + size]))
                at += size
        env.update(zip(op.results[len(copy.results) :], out[count:]))

    def _copy(self, function: Function, args: Sequence[Value | Held]) -> _Copy:
        """The copy of a function for the forms of its arguments, made once."""
        forms = tuple(x.form if isinstance(x, Held) else None for x in args)
        key = (function.name, forms)
        if key in self.copies:
            return self.copies[key]
        name = self.out.fresh_name(function.name)
        self.out.functions[name] = function  # reserves the name
        shared_values = dict.fromkeys(v for f in forms if f is not None for v in f.context)
        passed = {v: Value(v.type, v.name) for v in shared_values}
        env: Env = {}
        params: list[Value] = []
        for p, form in zip(function.params, forms):
            if form is None:
                own = [Value(p.type, p.name)]
                env[p] = own[0]
            else:
                own = [Value(t, p.name) for t in form.arrays]
                inner = form.with_context([passed[v] for v in form.context])
                env[p] = Held(inner, tuple(own))
            params += own
        out = Block([*params, *passed.values()])
        self._ops(Builder(out), function.body.ops, env)
        results = [env.get(v, v) for v in function.results]
        found = tuple(x.form if isinstance(x, Held) else None for x in results)
        known = set(passed.values())
        needed = dict.fromkeys(v for f in found if f is not None for v in f.context)
        fresh = tuple(v for v in needed if v not in known)
        out.results = [v for x in results for v in _arrays(x)] + list(fresh)
        self.out.functions[name] = Function(name, out, function.span)
        self.copies[key] = _Copy(name, found, passed, fresh)
        return self.copies[key]

    # Loops and branches

    def _loop(self, b: Builder, op: Op, env: Env) -> None:
        """A loop: its carries are held in forms that the body keeps."""
        carries = op.attrs["carries"] if op.name == "for" else len(op.operands)
        starts = [env.get(v, v) for v in op.operands[:carries]]
        streams = [env.get(v, v) for v in op.operands[carries:]]
        forms = [x.form if isinstance(x, Held) else None for x in starts]
        for _ in range(MOST_ROUNDS):
            regions = [self._region(op, i, forms, env) for i in range(len(op.regions))]
            ends = regions[-1].results[:carries]
            wanted = [
                None if f is None else _meeting(f, e.form, regions[-1].block)
                for f, e in zip(forms, ends)
            ]
            if wanted == forms:
                break
            forms = wanted
        else:
            raise TreeMistake("the form of a tree that the loop carries keeps growing", op.span)
        inits = [v for x, f in zip(starts, forms) for v in _converted(b, x, f)]
        blocks = [r.finish(forms if i == len(regions) - 1 else []) for i, r in enumerate(regions)]
        attrs = dict(op.attrs)
        if op.name == "for":
            attrs["carries"] = len(inits)
        out = b.op(op.name, [*inits, *streams], blocks, [], **attrs)
        left = self._bind(op.results[:carries], forms, out, env)
        env.update(zip(op.results[carries:], left))

    def _region(self, op: Op, index: int, forms: Sequence[Form | None], env: Env) -> _Region:
        """A region of a loop, written for carries in some forms."""
        block = op.regions[index]
        lead = 1 if op.name == "for" else 0
        inner = dict(env)
        params: list[Value] = []
        for i, p in enumerate(block.params):
            form = forms[i - lead] if lead <= i < lead + len(forms) else None
            own = [Value(t, p.name) for t in form.arrays] if form else [Value(p.type, p.name)]
            inner[p] = Held(form, tuple(own)) if form else own[0]
            params += own
        return self._written(op, block, params, inner)

    def _written(self, op: Op, block: Block, params: list[Value], env: Env) -> _Region:
        out = Block(params)
        b = Builder(out, op.span)
        self._ops(b, block.ops, env)
        return _Region(out, b, [env.get(v, v) for v in block.results])

    def _branches(self, b: Builder, op: Op, env: Env) -> None:
        """Branches: each tree that they yield is held in one form."""
        regions = [self._written(op, r, [], dict(env)) for r in op.regions]
        forms: list[Form | None] = []
        for column in zip(*(r.results for r in regions)):
            form = column[0].form if isinstance(column[0], Held) else None
            for region, x in zip(regions, column):
                if form is not None:
                    form = _meeting(form, x.form, region.block)
            forms.append(form)
        blocks = [r.finish(forms) for r in regions]
        out = b.op(op.name, [env.get(v, v) for v in op.operands], blocks, [], **op.attrs)
        self._bind(op.results, forms, out, env)

    def _bind(
        self, results: Sequence[Value], forms: Sequence[Form | None], out: Sequence[Value], env: Env
    ) -> Sequence[Value]:
        """Bind results in their forms; the values that are left over."""
        at = 0
        for r, form in zip(results, forms):
            if form is None:
                env[r] = out[at]
                at += 1
            else:
                size = len(form.arrays)
                env[r] = self._note(Held(form, tuple(out[at : at + size])))
                at += size
        return out[at:]


@dataclass
class _Region:
    """A region that is written but for its last conversions."""

    block: Block
    b: Builder
    results: list[Any]

    def finish(self, forms: Sequence[Form | None]) -> Block:
        """The block, with its first results in these forms."""
        found: list[Value] = []
        for i, x in enumerate(self.results):
            found += _converted(self.b, x, forms[i] if i < len(forms) else None)
        self.block.results = found
        return self.block


def _depths(function: Function) -> Iterator[int]:
    """How many levels the trees of a function have."""
    made = [r for op in walk(function.body) for r in op.results]
    for v in (*function.params, *made):
        if isinstance(v.type, TreeType):
            yield v.type.depth


def _together(b: Builder, trees: Sequence[Held]) -> tuple[Form, list[Held]]:
    """A form that holds all of some trees, and the trees in forms of its kind."""
    form = trees[0].form
    for other in trees[1:]:
        form = _joined(form, other.form)
    return form, [_akin(b, t, form) for t in trees]


def _akin(b: Builder, x: Held, form: Form) -> Held:
    """A tree in a form of another's kind, no larger than needed."""
    if _is_kin(x.form, form):
        return x
    if isinstance(x.form, Positional):
        return form.adopted(b, x.form.rows(x.arrays))
    return Held(form, tuple(_converted(b, x, form)))


def _is_kin(x: Form, form: Form) -> bool:
    return type(x) is type(form) and set(x.context) <= set(form.context)


def _joined(x: Form, y: Form) -> Form:
    """A form that trees of both can be held in."""
    if x == y:
        return x
    found = x.joined(y) or _positional(x).joined(_positional(y))
    assert found is not None
    return found


def _positional(x: Form) -> Positional:
    if isinstance(x, Positional):
        return x
    return Positional(x.type, rows.all_places(x.type.depth))


def _meeting(x: Form, y: Form, block: Block) -> Form:
    """Like `_joined`, but without contexts from inside a region, which end with it."""
    inside = {r for op in block.ops for r in op.results} | set(block.params)
    y = y if inside.isdisjoint(y.context) else _positional(y)
    x = x if inside.isdisjoint(x.context) else _positional(x)
    return _joined(x, y)


def _converted(b: Builder, x: Value | Held, form: Form | None) -> Sequence[Value]:
    if not isinstance(x, Held):
        return (x,)
    if form is None or x.form == form:
        return x.arrays
    if isinstance(form, Positional) or _is_kin(x.form, form):
        return x.form.converted(b, x.arrays, form)
    between = _positional(x.form)
    return between.converted(b, x.form.converted(b, x.arrays, between), form)


def _arrays(x: Value | Held) -> Sequence[Value]:
    return x.arrays if isinstance(x, Held) else (x,)


def _signed(function: Function) -> bool:
    """Whether trees stand in a function's signature."""
    return any(map(is_tree, [*function.params, *function.results]))


def _gives(function: Function) -> bool:
    return any(map(is_tree, function.results))


def _name(held: Held, name: str) -> None:
    for v in held.arrays:
        v.name = v.name or name
