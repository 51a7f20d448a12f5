"""`fit` as a process: a real Ctrl-C, the progress line, and the command line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from wengert.runtime.fit import FitResult
from wengert.runtime.progress import Progress

PROGRAM = """
fn loss(w: real[d], x: real[n, d]) -> real:
    return mean((x @ w - 1.0)^2) + 0.001 * sum(w^2)
"""

LONG = """
import numpy as np, sys
import wengert as wg
loss = wg.load(sys.argv[1], backend=sys.argv[3]).loss
x = np.random.default_rng(0).normal(size=(64, 8)).astype("f")
print("ready", flush=True)
said = []
def go(result):
    if not said:
        said.append(print("running", flush=True))
result = wg.fit(loss, {"w": np.zeros(8, "f")}, x=x, steps=10**9, callback=go)
result.save(sys.argv[2])
print("interrupted" if result.interrupted else "done", result.steps == len(result.losses))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "loss.wg"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("backend", ["llvm", "xla"])
def test_ctrl_c_ends_a_run_with_its_result(source: Path, tmp_path: Path, backend: str) -> None:
    saved = tmp_path / "part.npz"
    run = subprocess.Popen(
        [sys.executable, "-c", LONG, str(source), str(saved), backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline().strip() == "ready"
    assert run.stdout.readline().strip() == "running"
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=30)
    assert out.strip() == "interrupted True", errors
    assert FitResult.load(saved).steps > 8


def test_progress_shows_on_a_terminal_and_goes_away() -> None:
    code = (
        "import time\nfrom wengert.runtime import progress\nprogress.PATIENCE = 0.0\n"
        "with progress.Progress(10) as p:\n"
        "    for i in range(10):\n        p.update(i + 1, 0.5)\n        time.sleep(0.03)\n"
    )
    master, slave = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm"}
        subprocess.run([sys.executable, "-c", code], stderr=slave, check=True, env=environment)
        text = os.read(master, 100_000).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "10/10" in text and "loss 0.5" in text
    assert text.rstrip().endswith("\x1b[2K")


def test_progress_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(3) as progress:
        progress.start -= 100
        progress.update(2, 0.1)
    assert capfd.readouterr() == ("", "")


def test_command_line(source: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    command = [sys.executable, "-m", "wengert", "fit", str(source), "loss", "w=[0, 0, 0, 0]"]
    command += [f"x=@{tmp_path}/x.npy", "--steps", "200", "--rate", "0.1", "--batch-size", "2"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out.npz")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("200 steps in") and "w = [" in done.stdout
    result = FitResult.load(tmp_path / "out.npz")
    np.testing.assert_allclose(result.params["w"], 1, atol=0.05)


def test_command_line_keeps_what_was_found(tmp_path: Path) -> None:
    """A loss that becomes NaN, or a file that cannot be written, loses no work."""
    (tmp_path / "f.wg").write_text("fn cliff(u: real) -> real: return log(u)\n")
    command = [sys.executable, "-m", "wengert", "fit", str(tmp_path / "f.wg"), "cliff", "u=3"]
    command += ["--rate", "0.5", "-o"]
    found = tmp_path / "out.npz"
    run = subprocess.run([*command, str(found)], capture_output=True, text=True)
    assert run.returncode == 1 and "loss is nan" in run.stderr and str(found) in run.stderr
    assert FitResult.load(found).params["u"] > 0
    for target in (tmp_path / "nowhere" / "out.npz", tmp_path):
        run = subprocess.run([*command, str(target)], capture_output=True, text=True)
        assert run.returncode == 1 and run.stderr == f"cannot write {target}\n"
