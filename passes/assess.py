"""`prob.assess`: log densities of programs with choices given, made of numbers, or summed out.

Each becomes a call of a copy of its program. A choice that is given or made of unconstrained
numbers is known where it is chosen. One that is summed out takes all that depends on it into a
loop over its values, and the log of the sum of what these score is its score: what does not
depend on it is written outside. So choices that have nothing to do with each other cost the sum,
not the product, of their numbers of values, and choices in a loop are summed trip by trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.builder import Builder, row_of
from ..ir.clone import Env
from ..ir.core import Block, Function, Module, Op, Value, used_values, walk
from ..ir.errors import WengertError
from ..ir.prob import choices_of, op_choices
from ..ir.types import I32, TensorType

MOST_JOINT = 4096  # joint values of choices that are summed out together

Plain = Callable[[Builder, Op, Env], None]


class EnumerationMistake(WengertError):
    """A choice that cannot be summed out where it stands."""


@dataclass(frozen=True)
class Copy:
    """A function that assesses a program: (arguments, given, free, listed values) -> (free
    choices, those values returned that `returned` marks, score); others depend on sums.
    """

    name: str
    returned: tuple[bool, ...]


class Assessment:
    """Writes what one `prob.assess` calls. `plain` writes the ops without choices."""

    def __init__(self, module: Module, out: Module, op: Op, plain: Plain) -> None:
        self.module = module
        self.out = out
        self.plain = plain
        self.maps = dict(zip(op.attrs["mapped"], op.attrs["maps"]))
        score = op.results[-1].type
        assert isinstance(score, TensorType)
        self.score = score
        given, free, listed = (op.attrs[k] for k in ("given", "free", "listed"))
        self.arguments = len(op.operands) - len(given) - len(free) - len(listed)
        numbers = op.operands[self.arguments + len(given) :]
        self.listed = dict(zip(listed, (Builder.type(v) for v in numbers[len(free) :])))
        self.copies: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Copy] = {}
        types = {a: Builder.type(v) for a, v in zip(free, numbers)}
        self.entry = self.copy(op.attrs["fn"], tuple(given), types)

    def call(self, b: Builder, operands: Sequence[Value]) -> list[Value]:
        """Call the copy for the operands of the op: (free choices, score)."""
        results = self.called(b, self.entry, operands)
        return [*results[: len(results) - 1 - sum(self.entry.returned)], results[-1]]

    def called(self, b: Builder, copy: Copy, operands: Sequence[Value]) -> tuple[Value, ...]:
        """Call a copy."""
        types = tuple(r.type for r in self.out.functions[copy.name].results)
        return b.op("call", operands, fn=copy.name, types=types)

    def copy(self, name: str, given: tuple[str, ...], free: Mapping[str, TensorType]) -> Copy:
        """The copy of program `name` for these choices, made once."""
        key = (name, given, tuple(free))
        if key not in self.copies:
            fresh = self.out.fresh_name(f"{name}_assess")
            function = self.module.functions[name]
            self.out.functions[fresh] = function  # reserves the name
            body, returned = self._body(function, given, free)
            self.out.functions[fresh] = Function(fresh, body, function.span)
            self.copies[key] = Copy(fresh, returned)
        return self.copies[key]

    def _body(
        self, function: Function, given: Sequence[str], free: Mapping[str, TensorType]
    ) -> tuple[Block, tuple[bool, ...]]:
        types = {c.address: c.type for c in choices_of(self.module, function)}
        params = [Value(p.type, p.name) for p in function.params]
        known = Known(
            {a: Value(types[a], a.rpartition("/")[2]) for a in given},
            {a: Value(t, a.rpartition("/")[2]) for a, t in free.items()},
        )
        listed = {n: Value(t, "values") for n, t in self.listed.items()}
        out = Block([*params, *known.given.values(), *known.free.values(), *listed.values()])
        b = Builder(out, function.span)
        env: Env = dict(zip(function.params, params))
        writer = _Writer(self, listed)
        found = writer.block(b, function.body.ops, env, known)
        returned = tuple(v not in writer.lost for v in function.results)
        kept = [env.get(v, v) for v, there in zip(function.results, returned) if there]
        score = found.score if found.score is not None else b.const(0.0, self.score)
        out.results = [*(found.made[a] for a in free), *kept, score]
        return out, returned


@dataclass(frozen=True)
class Known:
    """Choices by address: those given, and the numbers that the free ones are made of."""

    given: Mapping[str, Value]
    free: Mapping[str, Value]

    def inside(self, at: str) -> Known:
        """Those of the program at an address, by their addresses there."""
        parts = [
            {a.removeprefix(f"{at}/"): v for a, v in part.items() if a.startswith(f"{at}/")}
            for part in (self.given, self.free)
        ]
        return Known(*parts)


@dataclass
class _Found:
    """What a block made: free choices by address, and its score (None: nothing scored)."""

    made: dict[str, Value] = field(default_factory=dict)
    score: Value | None = None

    def add(self, b: Builder, score: Value | None) -> None:
        """Add to the score."""
        if self.score is None or score is None:
            self.score = self.score or score
        else:
            self.score = b.add(self.score, score)


class _Writer:
    """Writes one copy. `lost`: values that depend on a choice summed out, with its address."""

    def __init__(self, owner: Assessment, listed: Mapping[str, Value]) -> None:
        self.owner = owner
        self.module = owner.module
        self.listed = listed
        self.lost: dict[Value, str] = {}
        self.joint = 1

    def block(self, b: Builder, ops: Sequence[Op], env: Env, known: Known) -> _Found:
        """Write ops; the sums over choices come last, when all that they use is there."""
        found = _Found()
        sums: list[tuple[Op, list[Op]]] = []
        later: set[Op] = set()  # what the sums hold
        for i, op in enumerate(ops):
            if op in later:
                self.early(b, op, env, known, found)
            elif self.is_summed(op, known):
                rest = [o for o in ops[i + 1 :] if o not in later]
                inside = self.dependent(op, rest, known)
                sums.append((op, inside))
                later.update(inside)
            else:
                self.op(b, op, env, known, found)
        for op, inside in sums:
            part = self.sum(b, op, inside, env, known)
            found.made |= part.made
            found.add(b, part.score)
        return found

    def op(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """Write an op that no sum of this block holds."""
        b.span = op.span
        random = bool(op_choices(self.module, op))
        gone = [v for v in used_values(op) if v in self.lost]
        if gone and random:
            raise self.mistake(self.lost[gone[0]], op)
        if gone:
            self.lost.update(dict.fromkeys(op.results, self.lost[gone[0]]))
        elif not random:
            self.owner.plain(b, op, env)
        elif op.name == "prob.sample":
            self.sample(b, op, env, known, found)
        elif op.name == "prob.trace":
            self.nested(b, op, env, known, found)
        elif op.name == "for":
            self.loop(b, op, env, known, found)
        else:
            self.branches(b, op, env, known, found)

    # One choice

    def sample(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        if op.result not in env:
            self.choose(b, op, env, known, found)
        found.add(b, self.density(b, op, env))

    def density(self, b: Builder, op: Op, env: Env) -> Value:
        density = self.module.functions[op.attrs["density"]]
        parameters = [env.get(v, v) for v in op.operands[: len(density.params) - 1]]
        types = tuple(r.type for r in density.results)
        return b.op("call", [env[op.result], *parameters], fn=density.name, types=types)[0]

    def choose(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """Bind a choice: it is given, or made of numbers by its map."""
        at = op.attrs["at"]
        if at in known.given:
            env[op.result] = known.given[at]
            return
        mapped = self.module.functions[self.owner.maps[op.attrs["sampler"]]]
        needed = _needed(mapped)
        operands = [known.free[at]]
        for p, v in zip(mapped.params[1:], op.operands):
            operands.append(env.get(v, v) if p in needed else b.zeros(Builder.type(p)))
        types = tuple(r.type for r in mapped.results)
        x, logdet = b.op("call", operands, fn=mapped.name, types=types)
        env[op.result] = found.made[at] = x
        found.add(b, logdet)

    # Sums

    def is_summed(self, op: Op, known: Known) -> bool:
        """Whether `op` makes a choice that is neither given nor free."""
        return op.name == "prob.sample" and not _is_known(op.attrs["at"], known)

    def early(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """What is written outside of the sum that holds an op: the known choices that it makes."""
        b.span = op.span
        if op.name == "prob.sample" and _is_known(op.attrs["at"], known):
            self.choose(b, op, env, known, found)
        elif op.name == "prob.trace":
            addresses = [c.address for c in op_choices(self.module, op)]
            made = zip(addresses, op.results)
            env.update({v: known.given[a] for a, v in made if a in known.given})

    def dependent(self, first: Op, rest: Sequence[Op], known: Known) -> list[Op]:
        """The ops of `rest` to write in the sum over the choice `first`.

        They use it, or they use another choice to be summed out whose sum holds some of these.
        """
        inside, varying = self.reached(first, rest, known)
        others = [o for o in rest if self.is_summed(o, known)]
        waiting = True
        while waiting:
            waiting = False
            for op in [o for o in others if o not in inside]:
                more, values = self.reached(op, rest[rest.index(op) + 1 :], known)
                if more & inside:
                    inside |= more | {op}
                    varying |= values
                    waiting = True
        for op in inside:
            for address in self.moved(op, varying, known):
                raise EnumerationMistake(
                    f"the bounds of '{address}' depend on '{first.attrs['at']}', "
                    "which is summed out",
                    op.span,
                )
        return [o for o in rest if o in inside]

    def reached(self, first: Op, rest: Sequence[Op], known: Known) -> tuple[set[Op], set[Value]]:
        """The ops that use a choice, and the values that vary with it."""
        inside: set[Op] = set()
        varying = {first.result}
        for op in rest:
            if not varying.isdisjoint(used_values(op)):
                inside.add(op)
                varying.update(self.varying_results(op, known))
        return inside, varying

    def varying_results(self, op: Op, known: Known) -> Iterable[Value]:
        """The results of an op that vary when its operands do: choices that are given don't."""
        if op.name == "prob.sample" and _is_known(op.attrs["at"], known):
            return ()
        if op.name == "prob.trace" and op.attrs["at"]:
            addresses = [c.address for c in op_choices(self.module, op)]
            fixed = [v for a, v in zip(addresses, op.results) if a in known.given]
            return [v for v in op.results if v not in fixed]
        return op.results

    def moved(self, op: Op, varying: set[Value], known: Known) -> set[str]:
        """The free choices that an op makes and that vary, since their bounds do."""
        if op.name == "prob.sample":
            return self.moved_choice(op, varying, known)
        if op.name == "prob.trace":
            at, callee = op.attrs["at"], self.module.functions[op.attrs["fn"]]
            inner = {p for p, v in zip(callee.params, op.operands) if v in varying}
            found = self.moved_in(callee.body.ops, inner, known.inside(at))
            return {f"{at}/{address}" for address in found}
        if op.name != "for" and varying.intersection(op.operands):
            return {c.address for c in op_choices(self.module, op) if c.address in known.free}
        return {
            a for region in op.regions for a in self.moved_by_region(op, region, varying, known)
        }

    def moved_choice(self, op: Op, varying: set[Value], known: Known) -> set[str]:
        """`moved`, of one choice."""
        if op.attrs["at"] not in known.free:
            return set()
        mapped = self.module.functions[self.owner.maps[op.attrs["sampler"]]]
        needed = _needed(mapped)
        bounds = [v for p, v in zip(mapped.params[1:], op.operands) if p in needed]
        return set() if varying.isdisjoint(bounds) else {op.attrs["at"]}

    def moved_by_region(self, op: Op, region: Block, varying: set[Value], known: Known) -> set[str]:
        """`moved`, in a region; what a loop is given varies as a whole."""
        inner = set(varying)
        if varying.intersection(op.operands):
            inner.update(region.params[1:])
        found = self.moved_in(region.ops, inner, known)
        if inner.intersection(region.results[: op.attrs.get("carries", 0)]):
            found = self.moved_in(region.ops, {*inner, *region.params[1:]}, known)
        return found

    def moved_in(self, ops: Sequence[Op], varying: set[Value], known: Known) -> set[str]:
        """`moved`, for ops in order; adds what varies to `varying`."""
        found: set[str] = set()
        for op in ops:
            if not varying.isdisjoint(used_values(op)):
                moved = self.moved(op, varying, known)
                found |= moved
                varying.update(op.results if moved else self.varying_results(op, known))
        return found

    def sum(self, b: Builder, first: Op, inside: Sequence[Op], env: Env, known: Known) -> _Found:
        """The log of the sum over the values of a choice of what it and `inside` score.

        The free choices that `inside` makes are the same for all values.
        """
        b.span = first.span
        listed = self.listed[first.attrs["sampler"]]
        count = b.type(listed).shape[0]
        self.joint *= count
        if self.joint > MOST_JOINT:
            raise EnumerationMistake(
                f"too many joint values to sum '{first.attrs['at']}' out",
                first.span,
                expected=f"at most {MOST_JOINT}",
                found=str(self.joint),
                hint="choices in the trips of a loop are summed trip by trip, where a trip uses "
                "only its own",
            )
        row = Value(b.type(first.result), first.result.name)
        region = Block([Value(TensorType(I32), "i"), row])
        inner = Builder(region, first.span)
        within = env | {first.result: row}
        score = self.density(inner, first, within)
        part = self.block(inner, inside, within, known)
        part.add(inner, score)
        region.results = [*part.made.values(), *([part.score] if part.score is not None else [])]
        *made, scores = b.op("for", [listed], [region], trips=count, carries=0)
        self.joint //= count
        for op in (first, *inside):
            at = first.attrs["at"]
            self.lost.update({v: at for v in op.results if v not in env})
        rows = {a: b.row(v, 0) for a, v in zip(part.made, made)}
        return _Found(rows, _log_sum_exp(b, scores))

    # Ops that hold choices

    def nested(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """A program inside: its own choices by their addresses there."""
        at = op.attrs["at"]
        callee = self.module.functions[op.attrs["fn"]]
        addresses = [c.address for c in choices_of(self.module, callee)]
        inside = known.inside(at)
        given = {a: inside.given[a] for a in addresses if a in inside.given}
        free = {a: inside.free[a] for a in addresses if a in inside.free}
        types = {a: b.type(v) for a, v in free.items()}
        copy = self.owner.copy(callee.name, tuple(given), types)
        operands = [env.get(v, v) for v in op.operands]
        operands += [*given.values(), *free.values(), *self.listed.values()]
        results = self.owner.called(b, copy, operands)
        made = dict(zip(free, results))
        returned = iter(results[len(free) :])
        for address, value in zip(addresses, op.results):
            self.bind(env, value, given.get(address) or made.get(address), f"{at}/{address}")
        for value, there in zip(op.results[len(addresses) :], copy.returned):
            self.bind(env, value, next(returned) if there else None, at)
        found.made |= {f"{at}/{a}": v for a, v in made.items()}
        found.add(b, results[-1])

    def bind(self, env: Env, old: Value, new: Value | None, at: str) -> None:
        """Note what a value became; None: it depends on a choice summed out."""
        if new is None:
            self.lost[old] = at
        else:
            env[old] = new

    def loop(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """A loop: known choices stream in, those made and the scores are stacked."""
        (body,) = op.regions
        inside = [c.address for c in op_choices(self.module, op)]
        given = {a: row_of(known.given[a]) for a in inside if a in known.given}
        free = {a: row_of(known.free[a]) for a in inside if a in known.free}
        params = [Value(p.type, p.name) for p in body.params]
        env.update(zip(body.params, params))
        region = Block()
        part = self.block(Builder(region, op.span), body.ops, env, Known(given, free))
        kept = [i for i, v in enumerate(body.results) if v not in self.lost]
        carries = op.attrs["carries"]
        dropped = {i for i in range(carries) if i not in kept}
        self.check_carries(op, dropped)
        region.params = [p for i, p in enumerate(params) if i - 1 not in dropped]
        region.params += [*given.values(), *free.values()]
        region.results = [env.get(body.results[i], body.results[i]) for i in kept]
        region.results += [*part.made.values()]
        region.results += [part.score] if part.score is not None else []
        operands = [env.get(v, v) for i, v in enumerate(op.operands) if i not in dropped]
        operands += [*(known.given[a] for a in given), *(known.free[a] for a in free)]
        attrs = op.attrs | {"carries": carries - len(dropped)}
        results = b.op("for", operands, [region], **attrs)
        self.settle(op, body.results, kept, results, env)
        found.made |= dict(zip(part.made, results[len(kept) :]))
        if part.score is not None:
            found.add(b, b.reduce_sum(results[-1], axes=(0,)))

    def check_carries(self, op: Op, lost: Iterable[int]) -> None:
        """A choice summed out may be carried only where no trip reads it."""
        (body,) = op.regions
        read = {v for o in body.ops for v in used_values(o)} | set(body.results)
        for i in lost:
            if body.params[1 + i] in read:
                raise EnumerationMistake(
                    f"'{self.lost[body.results[i]]}' of one trip reaches the next, so that it "
                    "cannot be summed out trip by trip",
                    op.span,
                    hint="a choice that is summed out may be used in its own trip only",
                )

    def branches(self, b: Builder, op: Op, env: Env, known: Known, found: _Found) -> None:
        """Branches: each scores its own choices; what one does not make is zero there."""
        union = {c.address: c.type for c in op_choices(self.module, op) if c.address in known.free}
        blocks, parts = [], []
        for region in op.regions:
            inner = Builder(Block(), op.span)
            parts.append(self.block(inner, region.ops, env, known))
            blocks.append(inner)
        ends = [
            next((v for v in values if v in self.lost), values[0])
            for values in zip(*(r.results for r in op.regions))
        ]
        kept = [i for i, v in enumerate(ends) if v not in self.lost]
        for region, inner, part in zip(op.regions, blocks, parts):
            inner.block.results = [env.get(region.results[i], region.results[i]) for i in kept]
            inner.block.results += [part.made.get(a) or inner.zeros(t) for a, t in union.items()]
            score = part.score if part.score is not None else inner.const(0.0, self.owner.score)
            inner.block.results.append(score)
        operands = [env.get(v, v) for v in op.operands]
        results = b.op(op.name, operands, [inner.block for inner in blocks], **op.attrs)
        self.settle(op, ends, kept, results, env)
        found.made |= dict(zip(union, results[len(kept) :]))
        found.add(b, results[-1])

    def settle(
        self,
        op: Op,
        ends: Sequence[Value],
        kept: Sequence[int],
        results: Sequence[Value],
        env: Env,
    ) -> None:
        """Bind the results of an op with regions, of which only some were `kept`."""
        new = dict(zip(kept, results))
        for i, (old, end) in enumerate(zip(op.results, ends)):
            self.bind(env, old, new.get(i), self.lost.get(end, ""))

    def mistake(self, at: str, op: Op) -> EnumerationMistake:
        """A choice whose sum would have to hold an op, but cannot."""
        names = ", ".join(f"'{c.address}'" for c in op_choices(self.module, op))
        return EnumerationMistake(
            f"'{at}' is summed out where it is chosen, but {names} of the program around it "
            "depends on it",
            op.span,
            hint="move what uses it into the loop, branch or program that chooses it",
        )


def _is_known(address: str, known: Known) -> bool:
    return address in known.given or address in known.free


def _needed(function: Function) -> set[Value]:
    """The parameters that a function uses."""
    read = {v for op in walk(function.body) for v in used_values(op)} | set(function.results)
    return read.intersection(function.params)


def _log_sum_exp(b: Builder, x: Value) -> Value:
    top = b.stop_gradient(b.reduce_max(x, axes=(0,)))
    top = b.select(b.is_finite(top), top, b.const(0.0, top))
    shifted = b.sub(x, b.broadcast(top, shape=b.type(x).shape, axes=()))
    return b.add(b.log(b.reduce_sum(b.exp(shifted), axes=(0,))), top)
