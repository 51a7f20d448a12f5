"""Text of the notation to programs, with messages for people where it is not of the notation."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...ir.errors import ErrorGroup, WengertError
from ...ir.span import Span, register_source
from .errors import NotationMistake, UnknownKind, WrongLoop, WrongParameters
from .kinds import Kind, find_kind
from .model import Draw, Rot, Statement, Trans
from .parts import arm_of, line_degrees, push_of

if TYPE_CHECKING:
    from lark import Lark, Token

VECTORS = {"arm": ("P1", "P2"), "line": ("P1", "P2")}  # of a kind; of the others P and G
NUMBERS = {"arm": ("t", "r", "angle"), "line": ("r",), "tilted": ("theta", "f")}
AXES = ("h", "a", "b")
MARKS = ("theta*i", "axis")  # which the authors print behind a turning body


@functools.cache
def _parser() -> Lark:
    from lark import Lark
    from lark.indenter import Indenter

    class Indentation(Indenter):
        """Blocks by indentation. Brackets don't switch it off: the authors leave some open."""

        NL_type = "_NL"
        OPEN_PAREN_types: list[str] = []
        CLOSE_PAREN_types: list[str] = []
        INDENT_type = "_INDENT"
        DEDENT_type = "_DEDENT"
        tab_len = 4

    grammar = importlib.resources.files(__package__).joinpath("notation.lark").read_text("utf-8")
    return Lark(grammar, parser="lalr", postlex=Indentation(), maybe_placeholders=True)


def read(text: str, path: str) -> list[Statement]:
    """The statements of a text. Raises NotationMistake or a subclass, or an ErrorGroup of them."""
    from lark.exceptions import UnexpectedInput
    from lark.indenter import DedentError

    register_source(path, text)
    try:
        tree = _parser().parse(text + "\n")
    except UnexpectedInput as error:
        raise _explained(error, text, path) from None
    except DedentError:
        raise _bad_dedent(text, path) from None
    reader = _Reader(path)
    statements = reader.statements(tree.children, ())
    if reader.errors:
        raise reader.errors[0] if len(reader.errors) == 1 else ErrorGroup(reader.errors)
    return statements


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a loop."""

    kind: str
    count: int
    shift: str  # name of the vector that bodies move by: u, u1, u2
    arguments: _Arguments
    span: Span


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What stands between brackets: vectors, the names of their shifts, numbers, places."""

    vectors: dict[str, tuple[int, ...]]
    shifts: dict[str, tuple[str, ...]]
    numbers: dict[str, int]
    spans: dict[str, Span]


class _Reader:
    """Trees of one text to statements; keeps the mistakes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[WengertError] = []

    def span(self, first: Token, last: Token | None = None) -> Span:
        """The place of a token, or from one to another."""
        end = last or first
        return Span(
            self.path, first.line or 1, first.column or 1, end.end_line or 1, end.end_column or 2
        )

    # Statements

    def statements(self, trees: list[Any], around: tuple[_Head, ...]) -> list[Statement]:
        """Statements under loops, the outermost first; those with mistakes are left out."""
        found: list[Statement] = []
        for tree in trees:
            try:
                if tree.data == "loop":
                    found += self.loop(tree, around)
                else:
                    found.append(self.draw(tree, around))
            except NotationMistake as error:
                self.errors.append(error)
        return found

    def loop(self, tree: Any, around: tuple[_Head, ...]) -> list[Statement]:
        """A loop for each statement of the body."""
        variable, count, kind, *rest = tree.children
        end = next(i for i, c in enumerate(rest) if c is None or getattr(c, "type", "") == "CLOSE")
        span = self.span(variable, rest[end] or kind)
        arguments = self.arguments(rest[:end])
        head = self.head(self.whole(count), kind, arguments, span)
        if around and "Rot" in (head.kind, around[-1].kind):
            raise WrongLoop(
                "a Rot loop stands alone", span, expected="one loop, or two Trans loops"
            )
        return [self.looped(s, head) for s in self.statements(rest[end + 1 :], (*around, head))]

    def head(self, count: int, kind: Token, arguments: _Arguments, span: Span) -> _Head:
        """The first line of a loop, its parameters checked by name."""
        name = kind[1:-1]
        if name not in ("Trans", "Rot"):
            raise UnknownKind(
                f"there is no loop '{name}'",
                self.span(kind),
                expected="'Trans' or 'Rot'",
                found=str(kind),
            )
        if name == "Rot":
            self.check(arguments, "a Rot loop", span, ("theta",), ("axis",), {"axis": AXES})
            return _Head(name, count, "", arguments, span)
        shifts = [n for n in arguments.vectors if n in ("u", "u1", "u2")]
        self.check(
            arguments, "a Trans loop", span, (shifts or ["u"])[:1], (), dict.fromkeys(shifts, AXES)
        )
        return _Head(name, count, shifts[0], arguments, span)

    def looped(self, body: Statement, head: _Head) -> Statement:
        """The loop of a head around one statement."""
        if head.kind == "Trans":
            h, a, b = head.arguments.vectors[head.shift]
            return Trans(head.count, (h, a, b), body, head.span)  # type: ignore[arg-type]
        if not isinstance(body, Draw):
            raise WrongLoop("a Rot loop stands alone", head.span)
        axis = head.arguments.vectors.get("axis", body.position)
        if axis != body.position:
            raise WrongLoop(
                "arms and lines turn about their own start",
                head.arguments.spans["axis"],
                expected=str(body.position),
                found=str(axis),
            )
        theta, count = head.arguments.numbers["theta"], head.count
        printed = (line_degrees(count), int(360 / (count or 1)))
        if body.kind.solid == "line" and theta not in printed:
            raise WrongLoop(
                f"{count} lines turn by other angles",
                head.arguments.spans["theta"],
                expected=f"theta={line_degrees(count)}°",
                found=f"theta={theta}°",
            )
        return Rot(count, theta // 90, body, head.span)

    def draw(self, tree: Any, around: tuple[_Head, ...]) -> Draw:
        """A drawing: what it is called, its parameters, and how it moves with the loops."""
        part, form, *rest = tree.children
        *rest, close, trailing = rest
        span = self.span(part, close)
        kind = find_kind(part[1:-1], form[1:-1], self.span(part, form))
        arguments = self.arguments(rest)
        first, second = VECTORS.get(kind.solid, ("P", "G"))
        names = {first: kind.parameters[:3], second: _sizes(kind)}
        numbers = NUMBERS.get(kind.solid, ())
        needed = (first, second, *(n for n in numbers if n == "theta"))
        self.check(arguments, str(kind), span, needed, numbers, names)
        wanted = tuple(h.shift for h in around if h.kind == "Trans")
        self.check_shift(first, arguments, wanted)
        if second == "P2" and not trailing.children:
            self.check_shift(second, arguments, wanted)
        theta = around[-1].arguments.numbers["theta"] if around and not wanted else 0
        return self.drawing(kind, arguments, theta if around and not wanted else None, span)

    def drawing(self, kind: Kind, given: _Arguments, theta: int | None, span: Span) -> Draw:
        """A drawing from its arguments; theta: by how much a Rot loop turns it."""
        vectors, numbers = given.vectors, given.numbers
        if kind.solid == "tilted":
            size = vectors["G"]
            f = numbers.get("f", push_of(numbers["theta"], size[0]))
            return Draw(kind, (*vectors["P"], *size, f), span)
        if kind.solid not in VECTORS:
            return Draw(kind, (*vectors["P"], *vectors["G"]), span)
        start, end = vectors["P1"], vectors["P2"]
        along = arm_of(start, end)
        if kind.solid == "arm" and theta is not None and (along is None or theta % 90):
            kind = find_kind("Connect", "Line")  # the authors print turning lines as arms
        if kind.solid == "line":
            return Draw(kind, (*start, *end, numbers.get("r", 1)), span)
        if along is None:
            raise WrongParameters(
                "an arm lies along one of the floor's axes",
                given.spans["P2"],
                expected="P2 that differs from P1 in the second or the third number alone",
                hint="use 'Connect', 'Line' for lines in other directions",
            )
        r, angle = numbers.get("r", along[0]), numbers.get("angle", along[1])
        return Draw(kind, (*start, numbers.get("t", 1), r, angle), span)

    # Arguments

    def arguments(self, trees: list[Any]) -> _Arguments:
        """Vectors and numbers by name."""
        found = _Arguments({}, {}, {}, {})
        for tree in trees:
            name, *rest = tree.children
            if tree.data == "mark":
                self.mark(name, rest[0])
                continue
            if name in found.spans:
                raise WrongParameters(f"'{name}' is given twice", self.span(name))
            last = rest[0] if tree.data == "number" else rest[-2]
            found.spans[str(name)] = self.span(name, last)
            if tree.data == "number":
                found.numbers[str(name)] = self.whole(rest[0])
            else:
                found.vectors[str(name)] = tuple(map(self.whole, rest[:-2]))
                found.shifts[str(name)] = tuple(str(c) for c in rest[-1].children[1::2])
        return found

    def mark(self, name: Token, factor: Token | None) -> None:
        """What the authors print behind the body of a Rot loop; it says nothing new."""
        text = f"{name}*{factor}" if factor else str(name)
        if text not in MARKS:
            raise WrongParameters(
                "this is no parameter", self.span(name, factor), found=text, expected="name=value"
            )

    def whole(self, token: Token) -> int:
        """A number of the text. Raises WrongParameters for one with a fraction."""
        value = float(token) if "." in token else int(token)
        if value != int(value):
            raise WrongParameters(
                "parameters are whole numbers", self.span(token), found=str(token)
            )
        return int(value)

    def check(
        self,
        given: _Arguments,
        what: str,
        span: Span,
        needed: Sequence[str],
        optional: Sequence[str],
        vectors: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Raise for missing and unknown parameters, and for vectors of other sizes."""
        for name in given.spans:
            if name not in needed and name not in optional:
                raise WrongParameters(
                    f"{what} has no parameter '{name}'",
                    given.spans[name],
                    expected=", ".join((*needed, *(o for o in optional if o not in needed))),
                    found=name,
                )
        for name in needed:
            if name not in given.spans:
                raise WrongParameters(f"{what} needs '{name}'", span, expected=", ".join(needed))
        for name, where in given.spans.items():
            wanted, found = vectors.get(name, ()), len(given.vectors.get(name, ()))
            if len(wanted) != found:
                raise WrongParameters(
                    f"'{name}' of {what} has {len(wanted)} numbers"
                    if wanted
                    else f"'{name}' of {what} is one number",
                    where,
                    expected=f"{name}=({', '.join(wanted)})" if wanted else f"{name}=1",
                    found=f"{found} numbers in brackets" if found else "one number",
                )

    def check_shift(self, name: str, given: _Arguments, wanted: tuple[str, ...]) -> None:
        """Raise where a position does not move with the loops around it."""
        if given.shifts[name] != wanted:
            text = "".join(f"+{i}*{u}" for i, u in zip("ij", wanted))
            raise WrongParameters(
                f"'{name}' moves with other loops than stand around it",
                given.spans[name],
                expected=f"{name}=(...){text}",
                found="".join(f"+..*{u}" for u in given.shifts[name]) or "no shift",
            )


def _sizes(kind: Kind) -> tuple[str, ...]:
    """Names of the numbers of the second vector."""
    if kind.solid in VECTORS:
        return kind.parameters[3:6] if kind.solid == "line" else AXES
    return tuple(n for n in kind.parameters[3:] if n != "f")


def _bad_dedent(text: str, path: str) -> NotationMistake:
    """The first line whose indentation is that of no loop around it."""
    levels = [0]
    for number, line in enumerate(text.splitlines(), 1):
        body = line.lstrip()
        if not body or body.startswith("#"):
            continue
        width = len(line[: len(line) - len(body)].expandtabs(4))
        if width > levels[-1]:
            levels.append(width)
        while width < levels[-1]:
            levels.pop()
        if width != levels[-1]:
            span = Span(path, number, 1, number, len(line) - len(body) + 1)
            break
    else:
        span = Span(path, 1, 1, 1, 2)
    return NotationMistake(
        "this line is indented to no open loop",
        span,
        expected=" or ".join(f"{v} spaces" for v in levels),
    )


WORDS = {
    "CLOSE": "')'",
    "LPAR": "'('",
    "COMMA": "','",
    "EQUAL": "'='",
    "LESSTHAN": "'<'",
    "PLUS": "'+'",
    "STAR": "'*'",
    "DEGREE": "'°'",
    "NAME": "a name",
    "NUMBER": "a whole number",
    "STRING": "a name in quotes",
    "FOR": "'for'",
    "DRAW": "'draw'",
    "_NL": "the end of the line",
    "_INDENT": "an indented line",
    "_DEDENT": "the end of the loop",
    "$END": "the end of the text",
}


def _explained(error: Any, text: str, path: str) -> NotationMistake:
    """A message for a lark error."""
    from lark.exceptions import UnexpectedCharacters

    lines = text.splitlines() or [""]
    line = min(max(error.line or len(lines), 1), len(lines)) if error.line != -1 else len(lines)
    col = max(error.column or 1, 1)
    if isinstance(error, UnexpectedCharacters):
        found = repr(lines[line - 1][col - 1 : col])
        allowed, width = error.allowed or set(), 1
    else:
        found, allowed = f"'{error.token}'", error.accepts or error.expected
        width = max(len(str(error.token).splitlines()[0]), 1) if str(error.token).strip() else 1
        if error.token.type in ("_NL", "_DEDENT", "_INDENT", "$END"):
            found = WORDS[error.token.type]
            col = len(lines[line - 1]) + 1 if error.token.type == "_NL" else 1
    span = Span(path, line, col, line, col + width)
    if "_INDENT" in allowed and "_NL" not in allowed:
        return NotationMistake(
            "the body of the loop is missing", span, expected="an indented line", found=found
        )
    words = sorted({WORDS.get(a, a) for a in allowed})
    expected = " or ".join(words) if len(words) <= 4 else None
    return NotationMistake("this is not of the notation", span, expected=expected, found=found)
