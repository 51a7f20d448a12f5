"""Each program in `bad/` and the message it gets. `--update-golden` rewrites the messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from wengert.frontend import errors
from wengert.frontend.program import compile_text
from wengert.frontend.specialize import specialize
from wengert.frontend.syntax import NamedType, Number
from wengert.ir import DTYPES, TensorType, WengertError

BAD = Path(__file__).parent / "bad"
PROGRAMS = sorted(BAD.glob("*.wg"))
# Raised for files and for import circles, which the programs here cannot make.
ELSEWHERE = {"SourceError"}


def message(path: Path) -> tuple[str, list[WengertError]]:
    """What checking the program and then lowering its `f` says."""
    try:
        program = compile_text(path.read_text(), path.name)
        specialize(program, "f", arguments(program))
    except WengertError as error:
        return error.render() + "\n", getattr(error, "errors", [error])
    raise AssertionError(f"{path.name} is accepted")


def arguments(program):
    """Types for the parameters of `f` from its annotations, f32 where it has none."""
    out = {}
    for p in program.functions["f"].parameters:
        note = p.annotation
        sizes = note.sizes if isinstance(note, NamedType) else ()
        shape = tuple(s.value if isinstance(s, Number) else 3 for s in sizes)
        name = note.name if isinstance(note, NamedType) else "f32"
        out[p.name] = TensorType(DTYPES[name], shape)
    return out


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_message(path, request):
    text, _ = message(path)
    expected = path.with_suffix(".txt")
    if request.config.getoption("--update-golden"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_every_error_class_has_a_program():
    seen = {type(e).__name__ for path in PROGRAMS for e in message(path)[1]}
    declared = {
        n
        for n, c in vars(errors).items()
        if isinstance(c, type) and c.__module__ == errors.__name__
    }
    assert declared - seen <= ELSEWHERE
