"""Draw the curves of trained machines: python examples/dtm/curves.py runs/* --out curves.png"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path


def read(folder: Path) -> tuple[str, list[dict[str, float]]]:
    """The task of a machine and the points of its curve."""
    task = json.loads((folder / "model.json").read_text())["config"]["task"]
    with (folder / "curve.csv").open() as file:
        return task, [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def draw(folders: list[Path], out: Path) -> None:
    """Whole-tree accuracy on validation trees, and the loss, by steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True)
    for folder in folders:
        task, points = read(folder)
        steps = [p["step"] for p in points]
        above.plot(steps, [100 * p["trees"] for p in points], label=task)
        below.semilogy(steps, [p["loss"] for p in points])
    above.set_ylabel("validation trees right (%)")
    below.set_ylabel("training loss")
    below.set_xlabel("steps of 16 trees")
    above.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    draw(given.folders, given.out)


if __name__ == "__main__":
    main()
