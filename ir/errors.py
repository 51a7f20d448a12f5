"""The root of every error a user can meet, and the error of a broken compiler.

Each layer derives its own classes, one per kind of mistake; the layout of the message
(place, source line, caret, expected, found, hint) is written once, here.
"""

from __future__ import annotations

from .span import Span, excerpt


class WengertError(Exception):
    """A mistake in a program or in a call, told in the user's terms.

    `summary` is one sentence; `expected`, `found` and `hint` are optional lines below it.
    """

    def __init__(
        self,
        summary: str,
        span: Span | None = None,
        *,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.summary = summary
        self.span = span
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message, several lines long, without a trailing newline."""
        lines = [f"{self.span}: {self.summary}" if self.span else self.summary]
        if self.span and (quote := excerpt(self.span)):
            lines.append(quote)
        for label, text in (
            ("expected", self.expected),
            ("found", self.found),
            ("hint", self.hint),
        ):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)


class ErrorGroup(WengertError):
    """Several mistakes found in one go; `errors` holds each."""

    def __init__(self, errors: list[WengertError]) -> None:
        self.errors = errors
        first = errors[0]
        super().__init__(first.summary, first.span)

    def render(self) -> str:
        """Every message, then their count."""
        return "\n\n".join(e.render() for e in self.errors) + f"\n\n{len(self.errors)} errors"


class IRError(WengertError):
    """An op whose operands, attributes or regions do not fit its declaration."""


class CompilerBug(Exception):
    """A fault of wengert itself, never of the user's program; says so and asks for a report."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"{message}\nThis is a fault in wengert, not in your program; please report it "
            "with the program and the IR before the failing pass."
        )
