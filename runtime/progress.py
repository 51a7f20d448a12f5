"""A progress line for long runs, on a terminal only."""

from __future__ import annotations

import sys
import time
from typing import Any

PATIENCE = 1.0  # seconds before a run counts as long


class Progress:
    """Shows steps done, loss and speed on standard error while a run lasts; then disappears.

    Silent where `show` is False or standard error is no terminal, and for the first second.
    """

    def __init__(self, steps: int, done: int = 0, show: bool = True) -> None:
        self.steps = steps
        self.done = done
        self.wanted = show and sys.stderr.isatty()
        self.start = time.perf_counter()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, loss: float) -> None:
        """Say that `done` steps are done and what the loss is."""
        self.done = done
        if not self.wanted:
            return
        if self.bar is None:
            if time.perf_counter() - self.start < PATIENCE:
                return
            self._open()
        self.bar.update(self.task, completed=done, loss=loss)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self.bar = Bar(
            TextColumn("fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.6g}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.bar.start()
        self.task = self.bar.add_task("fit", total=self.steps, loss=float("nan"))
