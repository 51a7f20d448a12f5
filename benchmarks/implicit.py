"""A page of text as one closed-form function of 8 000 operations, drawn at 1024 x 1024.

The function is the minimum over strokes of letters: boxes at an angle and rings cut by a line
(in the spirit of the text of Keeter, "Massively parallel rendering of complex closed-form
implicit surfaces", 2020; letters, page and program are our own). Bars: drawn with interval
pruning at least 10 times faster than by evaluating every pixel with the ordinary compiled,
batched function, pictures identical; and a straight-line program of 8 000 operations, and that
page, compiled cold in at most 3 s. Figures say which of them include compilation.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import alternate, bar, finish
from wengert.runtime.shapes.pruned import sample

import wengert as wg

SIZE = 1024
OPERATIONS = 8000
COLUMNS = 24
LINES = [
    "FOR A FUNCTION OF A POINT",
    "THE COMPILER MAKES ANOTHER",
    "ONE OF BOXES AND ASKS IT ",
    "WHERE NOTHING IS TO DRAW",
    "WHAT REMAINS ARE EDGES OF",
    "LETTERS AND THERE IT ONLY",
    "COMPUTES THE FEW STROKES",
    "THAT A SMALL TILE MEETS ",
    "WITH THE SAME OPERATIONS ",
    "AS IF EVERY PIXEL WAS RUN",
]
# Strokes in a box of 4 x 6: "x y x y" is a line, "o x y r side" a ring of which one side is kept.
GLYPHS = {
    "A": "0 0 2 6, 4 0 2 6, 1 2 3 2",
    "B": "0 0 0 6, o 1 1.5 1.5 r, o 1 4.5 1.5 r, 0 0 1 0, 0 3 1 3, 0 6 1 6",
    "C": "o 3 3 3 l", "D": "0 0 0 6, o 0 3 3 r",
    "E": "0 0 0 6, 0 0 3.5 0, 0 3 3 3, 0 6 3.5 6", "F": "0 0 0 6, 0 3 3 3, 0 6 3.5 6",
    "G": "o 3 3 3 l, 3 0 3 2.5, 2 2.5 3 2.5", "H": "0 0 0 6, 4 0 4 6, 0 3 4 3",
    "I": "2 0 2 6", "J": "3 1.5 3 6, o 1.5 1.5 1.5 b", "K": "0 0 0 6, 0 2.5 3.5 6, 1 3.5 4 0",
    "L": "0 0 0 6, 0 0 3.5 0", "M": "0 0 0 6, 4 0 4 6, 0 6 2 2, 4 6 2 2",
    "N": "0 0 0 6, 4 0 4 6, 0 6 4 0", "O": "o 2 1.9 1.9 b, o 2 4.1 1.9 t, 0.1 2 0.1 4, 3.9 2 3.9 4",
    "P": "0 0 0 6, o 1 4.5 1.5 r, 0 3 1 3, 0 6 1 6", "Q": "o 2 3 2 t, o 2 3 2 b, 2.5 1 4 0",
    "R": "0 0 0 6, o 1 4.5 1.5 r, 0 3 1 3, 0 6 1 6, 1.5 3 4 0",
    "S": "o 2 4.5 1.5 l, o 2 1.5 1.5 r, 2 6 3.5 6, 0.5 0 2 0", "T": "2 0 2 6, 0 6 4 6",
    "U": "0 2 0 6, 4 2 4 6, o 2 2 2 b", "V": "0 6 2 0, 4 6 2 0",
    "W": "0 6 1 0, 4 6 3 0, 1 0 2 4, 3 0 2 4", "X": "0 0 4 6, 0 6 4 0",
    "Y": "0 6 2 3, 4 6 2 3, 2 0 2 3", "Z": "0 6 4 6, 0 0 4 0, 0 0 4 6",
}  # fmt: skip


def stroke(text: str, at: tuple[float, float], scale: float, width: float) -> tuple[str, int]:
    """The field of one stroke as an expression of x and y, and its number of operations."""
    parts = text.split()
    if parts[0] == "o":
        cx, cy, radius = (float(v) * scale for v in parts[1:4])
        cx, cy = cx + at[0], cy + at[1]
        ring = f"abs(sqrt((x - {cx:.4f})^2 + (y - {cy:.4f})^2) - {radius:.4f}) - {width:.4f}"
        kept = {
            "l": f"x - {cx:.4f}",
            "r": f"{cx:.4f} - x",
            "b": f"y - {cy:.4f}",
            "t": f"{cy:.4f} - y",
        }
        return f"max({ring}, {kept[parts[4]]})", 11
    x0, y0, x1, y1 = (float(v) * scale for v in parts)
    length = math.hypot(x1 - x0, y1 - y0)
    c, s = (x1 - x0) / length, (y1 - y0) / length
    mx, my = at[0] + (x0 + x1) / 2, at[1] + (y0 + y1) / 2
    u = f"abs((x - {mx:.4f}) * {c:.5f} + (y - {my:.4f}) * {s:.5f}) - {length / 2 + width:.4f}"
    v = f"abs((y - {my:.4f}) * {c:.5f} - (x - {mx:.4f}) * {s:.5f}) - {width:.4f}"
    return f"max({u}, {v})", 13


def page_text(operations: int) -> tuple[str, int]:
    """A program that draws lines of text on [-1, 1]^2, and how many operations it has."""
    step, height = 2 / (COLUMNS + 2), 2 / (len(LINES) + 1)
    scale = step * 0.14
    lines, count = ["fn page(p: real[2]) -> real:", "    x = p[0]", "    y = p[1]"], 0
    name = ""
    for row, line in enumerate(LINES):
        for column, letter in enumerate(line[:COLUMNS]):
            if letter == " ":
                continue
            at = (-1 + (column + 1.2) * step, 1 - (row + 1.1) * height)
            for text in GLYPHS[letter].split(","):
                if count >= operations:
                    continue
                field, used = stroke(text, at, scale, scale * 0.35)
                lines.append(f"    t = {field}")
                lines.append("    d = min(d, t)" if name else "    d = t")
                name, count = "d", count + used + 1
    return "\n".join([*lines, "    return d", ""]), count


def straight_text(operations: int) -> str:
    """Straight-line code without structure: each line combines earlier ones."""
    rng = np.random.default_rng(0)
    lines = ["fn page(p: real[2]) -> real:", "    v0 = p[0]", "    v1 = p[1]"]
    forms = [
        "v{a} * {c}",
        "v{a} + v{b}",
        "v{a} - {c}",
        "min(v{a}, v{b})",
        "max(v{a}, v{b})",
        "v{a} * v{b}",
    ]
    for i in range(2, operations + 2):
        # Each line uses the one before, so that all of them are needed.
        a, b = i - 1, int(rng.integers(max(0, i - 30), i))
        form = forms[int(rng.integers(len(forms)))]
        lines.append(f"    v{i} = " + form.format(a=a, b=b, c=f"{rng.uniform(0.3, 0.7):.4f}"))
    return "\n".join([*lines, f"    return v{operations + 1}", ""])


CHILD = """
import sys, time
import numpy as np
import wengert as wg
from wengert.runtime.shapes.pruned import sample
wg.compile("fn f(x: f32[n, n]): return x @ x").f(np.ones((64, 64), np.float32))
wg.compile("fn f(x: f32): return min(x, 1.0)").f(1.0)
text, how = open(sys.argv[1]).read(), sys.argv[2]
axis = (np.arange(64) + 0.5) / 32 - 1
points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
start, used = time.perf_counter(), time.process_time()
f = wg.compile(text).page
out = f.batched(points) if how == "plain" else sample(f, [axis, axis])
print(time.perf_counter() - start, time.process_time() - used)
"""


def cold(text: str, how: str) -> tuple[float, float]:
    """Seconds from text to the first result in a new process without a cache: wall clock, CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.wg"
        path.write_text(text)
        environment = os.environ | {"WENGERT_CACHE_DIR": folder}
        command = [sys.executable, "-c", CHILD, str(path), how]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, cpu = map(float, out.stdout.split())
    return wall, cpu


def main() -> None:
    """Check that both pictures are one, then time drawing and compiling."""
    text, operations = page_text(OPERATIONS)
    straight = straight_text(OPERATIONS)
    print(f"  a page of {operations} operations")
    f = wg.compile(text).page
    axis = ((np.arange(SIZE) + 0.5) / (SIZE / 2) - 1).astype(np.float32)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    every = (f.batched(points) <= 0).reshape(SIZE, SIZE)
    found = sample(f, [axis, axis])
    assert (found.inside == every).all(), "the pictures differ"
    assert 0.05 < every.mean() < 0.5
    print(f"  {found.statistics.share:.1%} of the pixels computed; cells {found.statistics.cells}")
    times = alternate(
        {
            "every pixel": lambda: f.batched(points) <= 0,
            "with intervals": lambda: sample(f, [axis, axis]),
        },
        rounds=9,
        seconds=3.0,
    )
    bar("implicit_pruning_speedup", times["every pixel"] / times["with intervals"], ">=", 10.0)
    for name, program, how in (
        ("straight_line", straight, "plain"),
        ("page", text, "plain"),
        ("page_pruned", text, "pruned"),
    ):
        seconds = sorted(cold(program, how) for _ in range(3))
        shown = ", ".join(f"{wall:.2f} ({cpu:.2f} of the processor)" for wall, cpu in seconds)
        print(f"  compiled cold, {name}: {shown} s")
        bar(f"implicit_compile_{name}_s", seconds[1][0], "<=", 3.0)
    finish()


if __name__ == "__main__":
    main()
