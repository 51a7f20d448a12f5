"""Driving a compiled training loop: chunks of steps, Ctrl-C, bad losses, results on disk."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import WengertError
from .errors import ArtifactError
from .progress import Progress
from .values import Array

CHUNK_SECONDS = 0.2  # how long one call of the loop should take: Ctrl-C waits for it
FIRST_CHUNK = 8
WINDOW = 100  # steps whose mean loss `tolerance` compares with the mean of the WINDOW before
FORMAT = "wengert fit 1"

Execute = Callable[[Sequence[Any]], list[Any]]


@dataclass
class FitResult:
    """What `fit` found, and all that is needed to go on.

    params: the parameters, nested as they were given; NumPy arrays and scalars.
    losses: the objective before each step, `[steps]`.
    steps: how many steps are done, those before a resume included.
    seconds, compile_seconds: time spent in steps, and in compiling before them.
    stopped: why the run ended: "steps", "tolerance", "callback", "interrupt" or "nonfinite".
    state, key: the optimiser's state and the packed random key.
    """

    params: dict[str, Any]
    losses: Array
    steps: int
    seconds: float
    compile_seconds: float
    stopped: str
    state: list[Array]
    key: int

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run early; `fit(..., resume=result)` goes on."""
        return self.stopped == "interrupt"

    @property
    def loss(self) -> float:
        """The last loss; NaN before the first step."""
        return float(self.losses[-1]) if len(self.losses) else math.nan

    def __repr__(self) -> str:
        return f"<FitResult {self.steps} steps, loss {self.loss:.6g}, stopped by {self.stopped}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one .npz file, which is there whole or not at all."""
        arrays: dict[str, Array] = {"losses": self.losses}
        skeleton = _skeleton(self.params, arrays)
        arrays |= {f"state{i}": np.asarray(s) for i, s in enumerate(self.state)}
        facts = {
            "format": FORMAT,
            "params": skeleton,
            "state": len(self.state),
            "steps": self.steps,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "stopped": self.stopped,
            "key": self.key,
        }
        target = Path(path)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FitResult:
        """Read what `save` wrote; ArtifactError for a file that is truncated or foreign."""
        data = Path(path).read_bytes()
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                facts = json.loads(str(file["facts"]))
                if facts["format"] != FORMAT:
                    raise ArtifactError(f"{path} was saved by another version: {facts['format']}")
                arrays = {name: file[name] for name in file.files}
                return cls(
                    _fill(facts["params"], arrays),
                    arrays["losses"],
                    int(facts["steps"]),
                    float(facts["seconds"]),
                    float(facts["compile_seconds"]),
                    str(facts["stopped"]),
                    [arrays[f"state{i}"] for i in range(facts["state"])],
                    int(facts["key"]),
                )
        except ArtifactError:
            raise
        except Exception as error:  # damaged archives raise whatever their bytes ask for
            raise ArtifactError(f"{path} is not a saved fit, or it is damaged: {error}") from None


def _skeleton(value: Any, arrays: dict[str, Array]) -> Any:
    """Nested params as JSON: fields of dicts, items of tuples, names of arrays."""
    if isinstance(value, dict):
        return {"dict": [[k, _skeleton(v, arrays)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_skeleton(v, arrays) for v in value]}
    name = f"param{len(arrays)}"
    arrays[name] = np.asarray(value)
    return name


def _fill(skeleton: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(skeleton, str):
        array = arrays[skeleton]
        return array if array.ndim else array[()]
    if "dict" in skeleton:
        return {k: _fill(v, arrays) for k, v in skeleton["dict"]}
    return tuple(_fill(v, arrays) for v in skeleton["tuple"])


class NonFiniteLoss(WengertError):
    """The loss (or a parameter) became NaN or infinite.

    `step` is the step whose loss it was; `result` holds the last parameters with a finite one.
    """

    def __init__(self, step: int, value: float, result: FitResult) -> None:
        self.step = step
        self.result = result
        super().__init__(
            f"the loss is {value} at step {step}"
            if not math.isfinite(value)
            else f"step {step - 1} made a parameter NaN or infinite",
            hint="a smaller learning rate or clip= often helps; the error's .result has the "
            "last good parameters",
        )


@dataclass(frozen=True)
class Snapshot:
    """Trained tensors and optimiser state after `step` steps."""

    step: int
    arrays: tuple[Any, ...]


@dataclass
class Driver:
    """Runs a loop made by `build_loop` in chunks.

    execute: the compiled loop. fixed: its arguments after the counts. trained: how many of the
    snapshot's arrays are parameters. result: makes the FitResult of a snapshot, its losses
    since the start, and the reason to stop.
    """

    execute: Execute
    key: int
    fixed: Sequence[Any]
    trained: int
    capacity: int
    now: Snapshot
    result: Callable[[Snapshot, Array, str], FitResult]
    on_nonfinite: str = "raise"
    tolerance: float | None = None
    callback: Callable[[FitResult], Any] | None = None
    losses: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = self.before = self.now

    def advance(self, since: Snapshot, count: int) -> tuple[Snapshot, Array]:
        """The snapshot `count` steps after `since`, and the losses of those steps."""
        first, steps = np.array(since.step, np.int32), np.array(count, np.int32)
        key = np.array(self.key, np.uint64)
        *arrays, losses = self.execute([*since.arrays, key, first, steps, *self.fixed])
        return Snapshot(since.step + count, tuple(arrays)), np.array(losses)[:count]

    def run(self, steps: int, show: bool) -> FitResult:
        """Run until `steps` steps are done in all, or something else ends the run."""
        reason = "steps"
        with Progress(steps, self.now.step, show) as progress:
            try:
                for chunk in self._chunks(steps):
                    progress.update(self.now.step, float(chunk[-1]))
                    if self.callback is not None and self.callback(self._partial("callback")):
                        reason = "callback"
                        break
                    if self._settled():
                        reason = "tolerance"
                        break
            except KeyboardInterrupt:
                reason = "interrupt"
            except _Stopped as stop:
                return stop.result
        return self._partial(reason)

    def _chunks(self, steps: int) -> Iterator[Array]:
        """Run chunk after chunk; the losses of each."""
        size = WINDOW if self.tolerance is not None else FIRST_CHUNK
        while self.now.step < steps:
            count = min(size, steps - self.now.step, self.capacity)
            began = time.perf_counter()
            after, losses = self.advance(self.now, count)
            took = time.perf_counter() - began
            if self.on_nonfinite != "ignore":
                self._check(after, losses, after.step == steps)
            self.losses.append(losses)
            self.before, self.now = self.now, after
            yield losses
            if self.tolerance is None:
                size = max(1, min(self.capacity, int(count * CHUNK_SECONDS / max(took, 1e-9))))

    def _partial(self, reason: str) -> FitResult:
        """The result so far. An interrupt may fall between the two records: steps decide."""
        done = np.concatenate(self.losses) if self.losses else np.zeros(0, np.float32)
        return self.result(self.now, done[: self.now.step - self.start.step], reason)

    def _settled(self) -> bool:
        """Whether the mean loss of the last window is that of the window before."""
        if self.tolerance is None or len(self.losses) < 2:
            return False
        last, before = (float(np.mean(c)) for c in (self.losses[-1], self.losses[-2]))
        return abs(last - before) <= self.tolerance * max(1.0, abs(last))

    def _check(self, after: Snapshot, losses: Array, final: bool) -> None:
        """Stop at the first loss that is not finite, with the parameters of the step before."""
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            step, value = self.now.step + int(bad[0]), float(losses[bad[0]])
        elif final and not all(
            np.isfinite(np.asarray(a)).all() for a in after.arrays[: self.trained]
        ):
            step, value = after.step, math.inf if not len(losses) else float(losses[-1])
        else:
            return
        good, known = self._rewind(step, losses)
        result = self.result(good, known, "nonfinite")
        if self.on_nonfinite == "raise":
            raise NonFiniteLoss(step, value, result)
        raise _Stopped(result)

    def _rewind(self, step: int, losses: Array) -> tuple[Snapshot, Array]:
        """The snapshot whose loss was the last finite one, by running again from before it."""
        known = np.concatenate([*self.losses, losses])
        target = max(step - 1, self.start.step)
        since = self.now if target >= self.now.step else self.before
        good = self.advance(since, target - since.step)[0] if target > since.step else since
        return good, known[: good.step - self.start.step]


class _Stopped(Exception):
    """Carries the result out of the loop where `on_nonfinite="stop"`."""

    def __init__(self, result: FitResult) -> None:
        self.result = result
        super().__init__()
