"""Text to syntax tree, with messages for people where the text is not of the language."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..ir.errors import ErrorGroup, WengertError
from ..ir.pause import paused_collection
from ..ir.span import Span, register_source
from . import syntax
from .errors import IndentationMistake, SyntaxMistake, UnclosedBracket

if TYPE_CHECKING:
    from lark import Lark

MOST_ERRORS = 20
DEEPEST_NESTING = 100
_DECLARATION = re.compile(
    r"^(fn|tree +fn|record|const|import|model|guide|objective|strategy|distribution|"
    r"shape|primitive|transform|combinator)\b|^@"
)
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@functools.cache
def _parser() -> Lark:
    from lark import Lark
    from lark.indenter import Indenter

    class Indentation(Indenter):
        """Blocks by indentation; brackets switch it off."""

        NL_type = "_NEWLINE"
        OPEN_PAREN_types = ["LPAR", "LSQB", "LBRACE"]
        CLOSE_PAREN_types = ["RPAR", "RSQB", "RBRACE"]
        INDENT_type = "_INDENT"
        DEDENT_type = "_DEDENT"
        tab_len = 4

    grammar = importlib.resources.files(__package__).joinpath("grammar.lark").read_text("utf-8")
    lark = Lark(
        grammar,
        parser="lalr",
        postlex=Indentation(),
        propagate_positions=True,
        maybe_placeholders=True,
    )
    _pass_on(lark)
    return lark


def _pass_on(lark: Lark) -> None:
    """Make rules that only pass on another's tree do just that.

    An operand goes through a dozen of them, one for each precedence; lark would look at its
    position anew in each. Without that, a program of many small lines is read twice as fast.
    """
    callbacks = lark.parser.parser.parser.callbacks
    for rule in callbacks:
        expansion: Any = getattr(rule, "expansion", ())
        if len(expansion) == 1 and rule.options.expand1 and not expansion[0].is_term:
            callbacks[rule] = itemgetter(0)


def parse(text: str, path: str = "<text>") -> syntax.File:
    """The syntax tree of `text`.

    Raises SyntaxMistake or a subclass; several mistakes at once as an ErrorGroup. After a
    mistake, reading goes on at the next top-level declaration.
    """
    register_source(path, text)
    errors: list[WengertError] = []
    remaining = text
    while True:
        try:
            file = _parse_once(remaining, path)
            break
        except WengertError as error:
            errors.append(error)
            remaining = _without_declaration(remaining, error.span)
            if len(errors) >= MOST_ERRORS or not remaining.strip():
                break
    if errors:
        raise errors[0] if len(errors) == 1 else ErrorGroup(errors)
    return file


def _parse_once(text: str, path: str) -> syntax.File:
    from lark.exceptions import UnexpectedInput
    from lark.indenter import DedentError

    from .transform import build_file

    check_layout(text, path)
    try:
        with paused_collection():
            return build_file(_parser().parse(text + "\n"), path)
    except UnexpectedInput as error:
        raise explain(error, text, path) from None
    except DedentError:
        raise _bad_dedent(text, path) from None


def _without_declaration(text: str, span: Span | None) -> str:
    """`text` with the declaration that holds line `span.line` blanked, lines kept."""
    lines = text.splitlines()
    at = min(span.line if span else len(lines), len(lines)) - 1
    first = at
    while first > 0 and not _DECLARATION.match(lines[first]):
        first -= 1
    last = at + 1
    while last < len(lines) and not _DECLARATION.match(lines[last]):
        last += 1
    return "\n".join([*lines[:first], *[""] * (last - first), *lines[last:]])


def check_layout(text: str, path: str) -> None:
    """Raise for what the lexer would report badly: stray characters, brackets, nesting."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise SyntaxMistake("a NUL character is not text", Span(path, line, 1, line, 2))
    open_at: list[tuple[str, Span]] = []
    for character, span in _brackets(text, path):
        if character in _PAIRS:
            open_at.append((character, span))
            if len(open_at) > DEEPEST_NESTING:
                raise SyntaxMistake(f"brackets are nested deeper than {DEEPEST_NESTING}", span)
        elif not open_at:
            raise UnclosedBracket(f"'{character}' closes nothing", span)
        else:
            opener, where = open_at.pop()
            if _PAIRS[opener] != character:
                raise UnclosedBracket(
                    f"'{character}' does not close '{opener}'",
                    span,
                    expected=f"'{_PAIRS[opener]}' for the '{opener}' at {where.line}:{where.col}",
                )
    if open_at:
        opener, where = open_at[-1]
        raise UnclosedBracket(f"'{opener}' is never closed", where, expected=f"'{_PAIRS[opener]}'")


_TOKENS = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*(\"?)|'(?:\\.|[^'\\\n])*('?)|[()\[\]{}]|\n")


def _brackets(text: str, path: str) -> Iterator[tuple[str, Span]]:
    """Brackets outside strings and comments, in order; raises for an unterminated string."""
    line, start = 1, 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        col = match.start() - start + 1
        if token == "\n":
            line, start = line + 1, match.end()
        elif token[0] in "\"'":
            if not (match.group(1) or match.group(2)):
                span = Span(path, line, col, line, col + len(token))
                raise UnclosedBracket("the string is never closed", span, expected=token[0])
        elif token[0] != "#":
            yield token, Span(path, line, col, line, col + 1)


def _bad_dedent(text: str, path: str) -> WengertError:
    """The first line whose indentation matches no open block."""
    levels = [0]
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        body = line.strip()
        width = len(line.expandtabs(4)) - len(line.lstrip().expandtabs(4))
        if body and not body.startswith("#") and depth == 0:
            if width > levels[-1]:
                levels.append(width)
            while width < levels[-1]:
                levels.pop()
            if width != levels[-1]:
                span = Span(path, number, 1, number, len(line) - len(line.lstrip()) + 1)
                return IndentationMistake(
                    "this line is indented to no open block",
                    span,
                    expected=f"{' or '.join(str(v) for v in levels)} spaces",
                    found=str(width),
                )
        depth += sum(body.count(c) for c in "([{") - sum(body.count(c) for c in ")]}")
    return IndentationMistake("the indentation matches no open block")


WORDS = {
    "COLON": "':'",
    "EQUAL": "'='",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "COMMA": "','",
    "DOT": "'.'",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "_NEWLINE": "the end of the line",
    "_INDENT": "an indented block",
    "_DEDENT": "the end of the block",
    "__ANON_0": "'->'",
    "SUM_OP": "'+' or '-'",
    "PRODUCT_OP": "'*' or '/'",
    "POWER_OP": "'^'",
    "COMPARE": "a comparison",
    "_FN": "'fn'",
    "IN": "'in'",
    "ELSE": "'else'",
    "PROGRAM": "'model', 'guide', 'objective', 'strategy' or 'shape'",
    "SHAPE_TOOL": "'primitive', 'transform' or 'combinator'",
}


def explain(error: Any, text: str, path: str) -> WengertError:
    """A message for a lark error: the mistake named where it is a common one."""
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    lines = text.splitlines() or [""]
    line = error.line if error.line and error.line > 0 else len(lines)
    col = error.column if error.column and error.column > 0 else 1
    if isinstance(error, UnexpectedCharacters):
        character = lines[line - 1][col - 1] if col <= len(lines[line - 1]) else "end of line"
        span = Span(path, line, col, line, col + 1)
        special = _common(character, "", lines[line - 1], col, set(error.allowed or ()))
        return _mistake(special, span, set(error.allowed or ()), f"{character!r}")
    assert isinstance(error, UnexpectedToken)
    token = error.token
    kind = token.type
    if kind in ("_NEWLINE", "$END", "_DEDENT", "_INDENT"):
        if kind in ("$END", "_DEDENT"):
            line = max(1, min(line, len(lines)))
        col = len(lines[line - 1]) + 1 if kind != "_INDENT" else 1
        span = Span(path, line, col, line, col + 1)
        found = {"_INDENT": "an indented line"}.get(kind, "the end of the line")
    else:
        span = Span(path, line, col, line, col + max(1, len(str(token))))
        found = f"'{token}'"
    special = _common(str(token), kind, lines[line - 1], col, error.accepts or error.expected)
    return _mistake(special, span, error.accepts or error.expected, found)


def _mistake(
    special: tuple[str, str | None] | None, span: Span, accepts: set[str], found: str
) -> WengertError:
    if special is not None:
        summary, hint = special
        cls = IndentationMistake if "indent" in summary else SyntaxMistake
        return cls(summary, span, found=found, hint=hint)
    words = sorted({WORDS.get(t, f"'{t.lower()}'") for t in accepts})
    if {"NAME", "NUMBER"} <= set(accepts):
        words = ["a value"]
    expected = " or ".join(words) if len(words) <= 6 else None
    return SyntaxMistake("this does not belong here", span, expected=expected, found=found)


_TYPOS = {
    "def": ("functions are declared with 'fn'", "write: fn name(...):"),
    "class": ("there are no classes", "declare data with: record Name:"),
    "struct": ("data is declared with 'record'", "write: record Name:"),
    "let": ("variables need no 'let'", "write: name = value"),
    "var": ("variables need no 'var'", "write: name = value"),
    "from": ("modules are imported whole", "write: import name"),
    "&&": ("conditions are joined with 'and'", None),
    "||": ("conditions are joined with 'or'", None),
    "!": ("conditions are negated with 'not'", None),
    ";": ("statements end with the line, without ';'", None),
    "++": ("there is no '++'", "write: name += 1"),
}


def _common(
    token: str, kind: str, line: str, col: int, accepts: set[str]
) -> tuple[str, str | None] | None:
    """(summary, hint) of a mistake that people often make, or None."""
    first = line.split()[0] if line.split() else ""
    if first in _TYPOS and kind != "_INDENT":
        return _TYPOS[first]
    if token in _TYPOS:
        return _TYPOS[token]
    if kind == "_INDENT":
        return "this line is indented deeper than its block", "remove the extra spaces"
    if "_INDENT" in accepts and kind != "_NEWLINE":
        return "an indented block is needed here", "indent the lines of the block"
    opens = first in ("if", "elif", "else", "for", "while", "fn", "record", "distribution")
    if kind == "_NEWLINE" and opens and "COLON" in accepts:
        return f"the '{first}' line needs a ':' at its end", None
    if token == "=" and first in ("if", "elif", "while"):
        return "'=' assigns; a condition compares", "write '=='"
    if kind == "NAME" and token in ("True", "False"):
        return f"'{token}' is written {token.lower()}", None
    return None
