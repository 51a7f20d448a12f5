"""The cache and saved functions: used when good, passed over when damaged, never wrong."""

from __future__ import annotations

import numpy as np
import pytest
from wengert.backends.llvm import executable
from wengert.runtime import store

import wengert as wg

TEXT = "fn f(x: real[n]) -> real: return sum(x * 2.0)\n"
X = np.arange(5.0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WENGERT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiles(monkeypatch):
    """How often LLVM ran."""
    calls = []
    original = executable.compile_object
    monkeypatch.setattr(executable, "compile_object", lambda f: calls.append(1) or original(f))
    return calls


def test_second_program_comes_from_the_cache(cache, compiles):
    assert wg.compile(TEXT).f(X) == 20 and len(compiles) == 1
    assert wg.compile(TEXT).f(X) == 20 and len(compiles) == 1
    assert wg.compile(TEXT.replace("2.0", "3.0")).f(X) == 30 and len(compiles) == 2
    assert wg.compile(TEXT, real="f64").f(X) == 20 and len(compiles) == 3


@pytest.mark.parametrize("damage", ["truncate", "garbage", "flip", "empty"])
def test_damaged_files_are_compiled_again(damage, cache, compiles):
    wg.compile(TEXT).f(X)
    for path in cache.glob("code-*"):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(
            {
                "truncate": data[:middle],
                "garbage": b"not ours at all" * 100,
                "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "empty": b"",
            }[damage]
        )
    assert wg.compile(TEXT).f(X) == 20 and len(compiles) == 2
    assert wg.compile(TEXT).f(X) == 20 and len(compiles) == 2


def test_a_file_under_another_name_is_foreign(cache, compiles):
    other = TEXT.replace("2.0", "3.0")
    assert wg.compile(TEXT).f(X) == 20 and wg.compile(other).f(X) == 30
    first, second = cache.glob("code-*")
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert wg.compile(TEXT).f(X) == 20 and wg.compile(other).f(X) == 30 and len(compiles) == 4


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WENGERT_CACHE_DIR", str(tmp_path / "file"))
    assert wg.compile(TEXT).f(X) == 20
    monkeypatch.setenv("WENGERT_CACHE_DIR", "")
    assert store.folder() is None and wg.compile(TEXT).f(X) == 20


def test_the_folder_is_trimmed(cache, monkeypatch):
    monkeypatch.setattr(store, "MOST_BYTES", 1000)
    for i in range(10):
        store.write(f"entry{i}", bytes(300))
    assert sum(p.stat().st_size for p in cache.iterdir()) <= 1000
    assert store.read("entry9") is not None


def test_changed_files_and_imports_are_read_again(cache, tmp_path):
    (tmp_path / "part.wg").write_text("const k = 2.0\n")
    (tmp_path / "main.wg").write_text("import part\nfn f(x: real): return part.k * x\n")
    assert wg.load(tmp_path / "main.wg").f(1.0) == 2
    assert wg.load(tmp_path / "main.wg").f(1.0) == 2
    (tmp_path / "part.wg").write_text("const k = 5.0\n")
    assert wg.load(tmp_path / "main.wg").f(1.0) == 5


def test_saved_functions_run_without_their_source(tmp_path):
    f = wg.compile("fn f(p, x: real[n]) -> real: return sum(p.w * x) + p.b").f
    p = {"w": np.ones(3, np.float32), "b": np.float32(2)}
    path = tmp_path / "f.wgc"
    f.save(path, p, np.arange(3.0), derivative="value_and_grad", wrt="p")
    loaded = wg.load_compiled(path)
    value, grad = loaded(p, np.arange(3.0))
    assert value == 5 and grad["b"] == 1
    np.testing.assert_array_equal(grad["w"], [0, 1, 2])
    with pytest.raises(wg.ArgumentError, match="shape"):
        loaded(p, np.arange(4.0))
    for args, named in (((p,), {}), ((p, X), {"x": X}), ((), {"p": p, "y": X})):
        with pytest.raises(wg.CallError, match="does not take these arguments"):
            loaded(*args, **named)


@pytest.mark.parametrize("data", [b"", b"hello", b"WENGERT\x01" + bytes(60)])
def test_foreign_files_are_told(data, tmp_path):
    path = tmp_path / "f.wgc"
    path.write_bytes(data)
    with pytest.raises(wg.ArtifactError):
        wg.load_compiled(path)
    with pytest.raises(wg.ArtifactError):
        wg.load_compiled(tmp_path / "none.wgc")
