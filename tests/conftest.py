"""What all tests share: a cache of their own, and programs to run in every way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import wengert as wg


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite expected transcripts")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache; every pass is verified."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WENGERT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WENGERT_VERIFY", "1")
        yield


@pytest.fixture
def on_every_backend():
    """A function that calls program functions on all backends and compares the results."""

    def run(text: str, name: str, *args, method: str = "__call__", rtol: float = 2e-5, **kwargs):
        results = {}
        for backend in ("interp", "llvm", "xla"):
            program = wg.compile(text, backend=backend, real="f64")
            results[backend] = getattr(getattr(program, name), method)(*args, **kwargs)
        for backend in ("llvm", "xla"):
            compare(results["interp"], results[backend], rtol, f"{name} on {backend}")
        return results["interp"]

    return run


def compare(want, got, rtol: float, what: str) -> None:
    """Assert that nested results agree in structure, types, shapes and numbers."""
    if isinstance(want, dict):
        assert isinstance(got, dict) and set(want) == set(got), what
        for key in want:
            compare(want[key], got[key], rtol, f"{what}.{key}")
    elif isinstance(want, tuple):
        assert isinstance(got, tuple) and len(want) == len(got), what
        for i, (x, y) in enumerate(zip(want, got)):
            compare(x, y, rtol, f"{what}[{i}]")
    elif want is None:
        assert got is None, what
    else:
        want, got = np.asarray(want), np.asarray(got)
        assert (want.dtype, want.shape) == (got.dtype, got.shape), what
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6, err_msg=what)
