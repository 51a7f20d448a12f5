"""Interval rules of control flow: every branch that may be taken runs, and the results join."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.builder import Builder
from ..ir.core import Block, Op, Value
from ..ir.types import BOOL, I32, TensorType
from .boxes import INTERVAL, Box, Boxes, NoInterval, known


def _pair(v: Value) -> list[Value]:
    """Parameters for the bounds of v."""
    return [Value(v.type, f"{v.name}_lo"), Value(v.type, f"{v.name}_hi")]


def _flat(boxes: Sequence[Box], known_: Sequence[bool]) -> list[Value]:
    """The values of boxes, one for each that is known in every case."""
    return [v for x, one in zip(boxes, known_) for v in (x[:1] if one else x)]


def _boxes(values: Sequence[Value], known_: Sequence[bool]) -> list[Box]:
    """`_flat` undone."""
    flat = iter(values)
    return [known(next(flat)) if one else Box(next(flat), next(flat)) for one in known_]


@INTERVAL.register("if", "switch")
def _branches(w: Boxes, op: Op) -> Sequence[Box]:
    """The branch that is known to be taken; of an uncertain choice the hull of all that may."""
    test = w[op.operands[0]]
    if not test.known:
        return _joined(w, op, test)
    blocks, results = [], []
    for region in op.regions:
        inner = w.inside(Block())
        inner.run(region)
        results.append([inner[v] for v in region.results])
        blocks.append(inner.b.block)
    one = [all(x.known for x in xs) for xs in zip(*results)]
    for block, boxes in zip(blocks, results):
        block.results = _flat(boxes, one)
    return _boxes(w.b.op(op.name, [test.lo], blocks), one)


def _joined(w: Boxes, op: Op, test: Box) -> Sequence[Box]:
    options = []
    for region in op.regions:
        inner = w.inside(w.b.block)
        inner.run(region)
        options.append([inner[v] for v in region.results])
    if op.name == "if":
        return [w.choose(test, x, y) for x, y in zip(*options)]
    out = options[-1]
    for k in range(len(options) - 2, -1, -1):
        here = _at_most(w, test, k)
        out = [w.choose(here, x, y) for x, y in zip(options[k], out)]
    return out


def _at_most(w: Boxes, x: Box, k: int) -> Box:
    """Whether a whole number is k or less."""
    c = w.const(k, x.lo)
    return Box(w.b.le(x.hi, c), w.b.le(x.lo, c))


class _Loop:
    """A loop body over boxes; carries that do not stay known become pairs, by a fixed point."""

    def __init__(self, w: Boxes, op: Op, body: Block, first: int, carries: int) -> None:
        self.w = w
        self.body = body
        self.first = first  # parameters before the carries
        self.carries = carries
        self.known = [w[v].known for v in op.operands]
        while True:
            self.inner = self._run(body)
            results = [self.inner[v] for v in body.results]
            grown = [i for i in range(carries) if self.known[i] and not results[i].known]
            if not grown:
                break
            for i in grown:
                self.known[i] = False

    def _run(self, region: Block) -> Boxes:
        """Write a region with its parameters as known or as pairs."""
        out = Block()
        inner = self.w.inside(out)
        for p in region.params[: self.first]:
            out.params.append(Value(p.type, p.name))
            inner.env[p] = known(out.params[-1])
        for p, one in zip(region.params[self.first :], self.known):
            new = [Value(p.type, p.name)] if one else _pair(p)
            out.params += new
            inner.env[p] = Box(new[0], new[-1])
        inner.run(region)
        return inner

    def operands(self, op: Op) -> list[Value]:
        """The loop's operands."""
        return _flat([self.w[v] for v in op.operands], self.known)


@INTERVAL.register("for")
def _for(w: Boxes, op: Op) -> Sequence[Box]:
    (body,) = op.regions
    carries = op.attrs["carries"]
    loop = _Loop(w, op, body, 1, carries)
    results = [loop.inner[v] for v in body.results]
    one = loop.known[:carries] + [x.known for x in results[carries:]]
    block = loop.inner.b.block
    block.results = _flat(results, one)
    attrs = op.attrs | {"carries": sum(1 if k else 2 for k in one[:carries])}
    return _boxes(w.b.op("for", loop.operands(op), [block], **attrs), one)


@INTERVAL.register("while")
def _while(w: Boxes, op: Op) -> Sequence[Box]:
    cond, body = op.regions
    loop = _Loop(w, op, body, 0, len(op.operands))
    test = loop._run(cond)
    alive = test[cond.results[0]]
    if not alive.known:
        return _UncertainWhile(w, op).write()
    test.b.block.results = [alive.lo]
    block = loop.inner.b.block
    block.results = _flat([loop.inner[v] for v in body.results], loop.known)
    return _boxes(w.b.op("while", loop.operands(op), [test.b.block, block], **op.attrs), loop.known)


class _UncertainWhile:
    """A loop whose number of trips depends on the box.

    Trips go on while the condition may hold. The result is the hull of the states in which it
    may not: `left`, with a flag for whether there was one yet.
    """

    def __init__(self, w: Boxes, op: Op) -> None:
        if not op.attrs["max_trips"]:
            raise NoInterval(
                "how often this loop runs depends on a box, so it may never end",
                op.span,
                hint="bound its trips: while condition max 100:",
            )
        self.w = w
        self.op = op
        self.pairs = [False] * len(op.operands)
        self.start = [v for x in op.operands for v in w[x]]

    def _region(self) -> tuple[Boxes, list[Box], list[Box], Value, Value]:
        """A writer, the present state, `left`, its flag and the trips, as parameters."""
        types = [v.type for v in self.start]
        params = [Value(t) for t in (*types, *types, TensorType(BOOL), TensorType(I32))]
        n = len(types)
        now, left = _boxes(params[:n], self.pairs), _boxes(params[n : 2 * n], self.pairs)
        return self.w.inside(Block(params)), now, left, params[-2], params[-1]

    def _condition(self, inner: Boxes, now: Sequence[Box]) -> Box:
        cond = self.op.regions[0]
        inner.env.update(zip(cond.params, now))
        inner.run(cond)
        return inner[cond.results[0]]

    @staticmethod
    def _leave(w: Boxes, now: list[Box], left: list[Box], flag: Value, may: Value) -> list[Box]:
        """`left` joined by the present state, where it may be the last."""
        b, out = w.b, []
        for x, y in zip(now, left):
            here, before = (b.expand(v, Builder.type(x.lo).shape) for v in (may, flag))
            joined = [b.select(before, p, q) for p, q in zip(w.hull(x, y), x)]
            out.append(Box(*(b.select(here, p, q) for p, q in zip(joined, y))))
        return out

    def _test(self) -> Block:
        w, now, _, _, count = self._region()
        possible = self._condition(w, now).hi
        more = w.b.lt(count, w.const(self.op.attrs["max_trips"], count))
        w.b.block.results = [w.b.and_(possible, more)]
        block: Block = w.b.block
        return block

    def _step(self) -> Block:
        w, now, left, flag, count = self._region()
        body = self.op.regions[1]
        may = w.b.not_(self._condition(w, now).lo)
        left = self._leave(w, now, left, flag, may)
        w.env.update(zip(body.params, now))
        w.run(body)
        flat = [v for x in (*(w[v] for v in body.results), *left) for v in x]
        trips = w.b.add(count, w.const(1, count))
        w.b.block.results = [*flat, w.b.or_(flag, may), trips]
        block: Block = w.b.block
        return block

    def write(self) -> Sequence[Box]:
        """The loop, and the boxes of its results."""
        w = self.w
        operands = [*self.start, *self.start, w.const(False, BOOL), w.const(0, I32)]
        blocks = [self._test(), self._step()]
        out = w.b.op("while", operands, blocks, max_trips=self.op.attrs["max_trips"])
        n = len(self.start)
        end, left = _boxes(out[:n], self.pairs), _boxes(out[n : 2 * n], self.pairs)
        return self._leave(w, end, left, out[-2], w.const(True, BOOL))
