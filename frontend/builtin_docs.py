"""The table of builtins in docs/language.md, made from their declarations.

`python -m wengert.frontend.builtin_docs` writes it between the markers of the page.
"""

from __future__ import annotations

from pathlib import Path

from ..ir.op_table import between
from .builtin_table import BUILTINS

BEGIN, END = "<!-- builtins: begin -->", "<!-- builtins: end -->"


def builtin_table() -> str:
    """A Markdown table of every builtin: call and first sentence."""
    lines = ["| call | meaning |", "| --- | --- |"]
    for name in sorted(BUILTINS):
        doc = " ".join(BUILTINS[name].doc.split("\n\n")[0].split()).replace("|", "\\|")
        lines.append(f"| `{BUILTINS[name].text}` | {doc} |")
    return "\n".join(lines)


def updated(page: str) -> str:
    """The page with the table between its markers made anew."""
    return between(page, BEGIN, END, builtin_table())


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "docs" / "language.md"
    path.write_text(updated(path.read_text()))
