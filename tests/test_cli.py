"""The command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wengert.cli import read_value, run

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


BAD_FILES = {
    "ragged.csv": b"a,b\n1,2\n3\n",
    "words.csv": b"1,2\n3,x\n",
    "binary.csv": b"\xff\xfe\x00",
    "empty.npy": b"",
    "short.npy": b"\x93NUMPY\x01\x00v\x00{",
    "short.npz": b"PK\x03\x04" + bytes(40),
    "foreign.npy": b"hello",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_data_files_are_told(name, file, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    assert run(["run", file, "f", f"x=@{path}"]) == 1
    out, errors = capsys.readouterr()
    assert not out and str(path) in errors and "Traceback" not in errors


def test_tables_with_and_without_a_header(file, tmp_path, capsys):
    for text in ("a\n1\n2\n", "1\n\n2\n", "\ufeffa\n1\n2\n"):
        (tmp_path / "x.csv").write_text(text, encoding="utf-8")
        np.testing.assert_array_equal(read_value(f"@{tmp_path / 'x.csv'}"), [[1.0], [2.0]])


BAD_VALUES = {
    "x=[1, [2]]": "rectangular",
    "x=[": "neither JSON",
    "x=": "neither JSON",
    "x=null": "not a number",
    'x={"a": 1}': "not numeric",
    "x=true": "wrong dtype",
    "x": "name=value",
    "x=" + "[" * 20000 + "]" * 20000: "neither JSON",
    "x=" + "9" * 5000: "neither JSON",
    "y=1": "no parameter 'y'",
}


@pytest.mark.parametrize("text", BAD_VALUES, ids=lambda t: t[:12])
def test_bad_values_are_told(text, file, capsys):
    assert run(["run", file, "f", text]) == 1
    errors = capsys.readouterr().err
    assert BAD_VALUES[text] in errors and len(errors) < 2000


def test_bad_seeds_and_repeated_names_are_told(file, capsys):
    assert run(["run", file, "g", "k=99999999999999999999999"]) == 1
    assert run(["run", file, "g", "k=true"]) == 1
    assert run(["run", file, "f", "x=[1]", "x=[2]"]) == 1
    errors = capsys.readouterr().err
    assert "64 bits" in errors and "not a random key" in errors and "given twice" in errors


def test_too_much_memory_is_told(tmp_path, capsys):
    path = tmp_path / "f.wg"
    path.write_text("fn f(x: real): return zeros(1048576, 1048576) + x\n")
    for backend in ("llvm", "xla"):
        assert run(["run", str(path), "f", "x=1", "--backend", backend]) == 1
        assert "bytes of memory" in capsys.readouterr().err


def test_fit_of_no_steps(file, capsys):
    assert run(["fit", file, "f", "x=[1, 2]", "--steps", "0"]) == 0
    assert "0 steps" in capsys.readouterr().out


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


SHOWN = """
fn ball(p: real[3], r: real = 1.0) -> real: return sqrt(sum(p * p)) - r
fn box(p: real[3], half: real[3]) -> real: return max(abs(p) - half)
"""


def test_render(tmp_path, capsys):
    file, out = tmp_path / "ball.wg", tmp_path / "out.png"
    file.write_text(SHOWN)
    shown = ["render", str(file), "-o", str(out), "--size", "20x16"]
    assert run(shown) == 0
    assert "out.png: 20 x 16 pixels\n" in capsys.readouterr().out
    small = out.read_bytes()
    assert run([*shown, "--set", "r=-1"]) == 0
    assert "no shape is seen" in capsys.readouterr().out
    assert (
        run(
            [
                *shown,
                "--shape",
                "box",
                "--set",
                "half=[1, 2, 1]",
                "--azimuth",
                "10",
                "--orthographic",
            ]
        )
        == 0
    )
    assert out.read_bytes() != small
    assert run([*shown, "--turntable", "--frames", "3"]) == 0
    assert (tmp_path / "out.gif").exists()
    mesh = [*shown[:3], str(tmp_path / "ball.stl"), "--resolution", "8"]
    assert run([*mesh, "--bounds", "-2", "2"]) == 0
    assert (tmp_path / "ball.stl").stat().st_size > 1000


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--size", "ten"], "'ten' is no size"),
        (["--set", "q=1"], "ball() has no parameter 'q'"),
        (["--shape", "box"], "box() misses 1 argument 'half'"),
        (["--shape", "cube"], "the program has no shape 'cube'"),
        (["-o", "x.jpg"], "no kind of file ends with '.jpg'"),
        (["--zoom", "0"], "a zoom above 0"),
        (["--set", "r"], "not of the form name=value"),
    ],
)
def test_render_tells_mistakes(extra, message, tmp_path, capsys):
    file = tmp_path / "ball.wg"
    file.write_text(SHOWN)
    assert run(["render", str(file), "-o", str(tmp_path / "x.png"), *extra]) == 1
    assert message in capsys.readouterr().err
