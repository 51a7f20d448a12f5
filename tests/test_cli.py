"""The command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wengert.cli import run

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f.wg"
    path.write_text(
        "fn f(x: real[n], k: real = 2.0) -> real: return sum(x^2) * k\nfn g(k: key): return normal(k)\n"
    )
    return str(path)


def test_check(file, tmp_path, capsys):
    assert run(["check", file, str(EXAMPLES / "gmm.wg")]) == 0
    bad = tmp_path / "bad.wg"
    bad.write_text("fn f(x) return x\n")
    assert run(["check", str(bad)]) == 1
    assert "bad.wg:1:9" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["llvm", "xla", "interp"])
def test_run(backend, file, capsys):
    assert run(["run", file, "f", "x=[1, 2]", "k=3", "--grad", "--backend", backend]) == 0
    out = capsys.readouterr().out
    assert "value = 15.0" in out and "grad = [ 6. 12.]" in out


def test_data_files_and_keys(file, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([1.0, 2.0]))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert run(["run", file, "f", f"x=@{tmp_path / 'x.npy'}"]) == 0
    assert run(["run", file, "g", "k=0"]) == 0
    assert "10.0" in capsys.readouterr().out
    assert run(["run", file, "f", f"x=@{tmp_path / 'x.csv'}"]) == 1
    assert run(["run", file, "f", "x=oops"]) == 1
    assert run(["run", file, "h", "x=1"]) == 1
    assert run(["run", file, "f", "x=@nowhere.npy"]) == 1
    assert "neither JSON" in capsys.readouterr().err


def test_fit_ir_and_emit(file, tmp_path, capsys):
    target = str(tmp_path / "fit.npz")
    assert (
        run(["fit", file, "f", "x=[1, 2]", "k=1", "--steps", "300", "--rate", "0.05", "-o", target])
        == 0
    )
    assert "300 steps" in capsys.readouterr().out and Path(target).exists()
    assert run(["ir", file, "f", "x=[1, 2]", "--derivative", "grad"]) == 0
    assert "entry fn @f" in capsys.readouterr().out
    assert run(["ir", file, "f", "x=[1, 2]", "--dot"]) == 0
    assert capsys.readouterr().out.startswith("digraph")
    assert run(["emit", file, "f", "x=[1, 2]", "--kind", "llvm"]) == 0
