"""Source positions, and the registry of source texts that error messages quote."""

from __future__ import annotations

from dataclasses import dataclass

_SOURCES: dict[str, list[str]] = {}


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source text. Lines and columns count from 1; `end_col` is exclusive."""

    file: str
    line: int
    col: int
    end_line: int
    end_col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"

    def until(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other` (same file)."""
        return Span(self.file, self.line, self.col, other.end_line, other.end_col)


def register_source(file: str, text: str) -> None:
    """Remember `text` under `file`, so that later errors can quote its lines."""
    _SOURCES[file] = text.splitlines()


def source_line(span: Span) -> str | None:
    """The first source line of `span`, or None where the text was never registered."""
    lines = _SOURCES.get(span.file)
    if lines is None or not 1 <= span.line <= len(lines):
        return None
    return lines[span.line - 1]


def excerpt(span: Span) -> str:
    """The source line with a caret under the span; empty where the text is unknown."""
    line = source_line(span)
    if line is None:
        return ""
    number = str(span.line)
    last = span.end_col if span.end_line == span.line else len(line) + 1
    lead = "".join("\t" if c == "\t" else " " for c in line[: span.col - 1])
    carets = "^" * max(1, min(last, len(line) + 1) - span.col)
    return f"  {number} | {line}\n  {' ' * len(number)} | {lead}{carets}"
