"""The op table of docs/ir.md, made from the declarations.

`python -m wengert.ir.op_table` writes it between the markers of the page.
"""

from __future__ import annotations

from pathlib import Path

from . import OPS

BEGIN, END = "<!-- ops: begin -->", "<!-- ops: end -->"


def op_table() -> str:
    """A Markdown table of every op: operands, attributes, regions, meaning."""
    lines = [
        "| op | operands | attributes | regions | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, d in OPS.items():
        arity = "any" if d.arity is None else str(d.arity)
        attrs = ", ".join(f"{n}: {kind}" for n, kind in d.attrs)
        regions = ", ".join(d.regions)
        lines.append(
            f"| `{name}` | {arity} | {attrs} | {regions} | {d.doc.replace('|', chr(92) + '|')} |"
        )
    return "\n".join(lines)


def between(page: str, begin: str, end: str, table: str) -> str:
    """The page with what stands between two markers replaced."""
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def updated(page: str) -> str:
    """The page with the table between its markers made anew."""
    return between(page, BEGIN, END, op_table())


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "docs" / "ir.md"
    path.write_text(updated(path.read_text()))
