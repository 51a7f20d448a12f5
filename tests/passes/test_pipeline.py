"""Inlining, the order of passes, dumps, and what a failing pass leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wengert.ir.builder import Builder
from wengert.ir.core import Block, Function, Module, Value, walk
from wengert.ir.errors import CompilerBug, WengertError
from wengert.ir.interp import run
from wengert.ir.types import BOOL, F64, TensorType
from wengert.passes import pipeline
from wengert.passes.inline import inline, inline_function
from wengert.passes.pipeline import FRONT, LOOPS, PASSES, Pass, run_pipeline

X = TensorType(F64, (2,))


def function(name: str, make: Any, types: Any = (X,)) -> Function:
    block = Block([Value(type, "x") for type in types])
    block.results = list(make(Builder(block), *block.params))
    return Function(name, block)


def call(b: Any, fn: str, *xs: Value, **rules: str) -> Value:
    return b.call(*xs, fn=fn, types=(X,), **rules)  # type: ignore[no-any-return]


def in_branch(b: Any, p: Value, x: Value) -> Any:
    then, other = Block(), Block()
    then.results = [call(Builder(then), "twice", x)]
    other.results = [x]
    return b.op("if", [p], [then, other])


@pytest.fixture
def module() -> Module:
    """@main calls @twice in a branch, which calls @sine twice; @unused is not called."""
    functions = [
        function("sine", lambda b, x: [b.sin(x)]),
        function("twice", lambda b, x: [call(b, "sine", call(b, "sine", x))]),
        function("main", in_branch, (TensorType(BOOL), X)),
        function("unused", lambda b, x: [call(b, "sine", x)]),
        function("sine_rule", lambda b, x, t: [b.sin(x), b.mul(b.cos(x), t)], (X, X)),
        function("ruled", lambda b, x: [call(b, "sine", x, jvp="sine_rule"), call(b, "sine", x)]),
    ]
    return Module({f.name: f for f in functions}, "main")


def names(f: Function) -> list[str]:
    return [op.name for op in walk(f.body)]


def test_inline_flattens_calls_in_regions_and_drops_functions(module: Module) -> None:
    out = inline(module)
    assert list(out.functions) == ["main"]
    assert names(out.main) == ["if", "sin", "sin"]
    x = np.array([0.5, 2.0])
    np.testing.assert_array_equal(run(out, [np.True_, x])[0], np.sin(np.sin(x)))


def test_inline_leaves_its_argument_alone(module: Module) -> None:
    inline(module)
    assert "call" in names(module.functions["twice"])


def test_calls_with_a_derivative_rule_stay_unless_asked(module: Module) -> None:
    assert names(inline_function(module, "ruled")) == ["call", "sin"]
    assert names(inline_function(module, "ruled", custom=True)) == ["sin", "sin"]


def test_functions_that_a_rule_names_are_kept(module: Module) -> None:
    module.entry = "ruled"
    assert set(inline(module).functions) == {"ruled", "sine", "sine_rule"}


def test_dumps_come_in_order(module: Module) -> None:
    seen: list[str] = []
    out = run_pipeline(module, FRONT, on_dump=lambda name, m: seen.append(name), verify=True)
    assert tuple(seen) == FRONT
    assert "call" not in names(out.main)


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_is_found(name: str, module: Module) -> None:
    assert PASSES[name].doc
    run_pipeline(module, [*FRONT, name], verify=True)


def test_pipelines_name_passes() -> None:
    assert set(FRONT + LOOPS) <= set(PASSES)


def fails(module: Module) -> Module:
    raise KeyError("oops")


def breaks(module: Module) -> Module:
    """Use a value before it exists."""
    stray = Value(X, "stray")
    body = Block(module.main.params, module.main.body.ops, [stray])
    return Module({"main": Function("main", body)}, "main")


def refuses(module: Module) -> Module:
    raise WengertError("this cannot be differentiated")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above as passes."""
    for f in (fails, breaks, refuses):
        record = Pass(f.__name__, "a test", ("", ""))
        monkeypatch.setitem(pipeline.PASSES, f.__name__, record)
    run_now = {"fails": fails, "breaks": breaks, "refuses": refuses}
    plain = Pass.run
    monkeypatch.setattr(
        Pass, "run", lambda self, m: run_now.get(self.name, lambda m: plain(self, m))(m)
    )


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("name", ["fails", "breaks"])
def test_failing_pass_is_named_and_its_input_kept(name: str, module: Module) -> None:
    with pytest.raises(CompilerBug, match=f"pass '{name}' failed") as caught:
        run_pipeline(module, ["inline", name], verify=True)
    path = Path(str(caught.value).rsplit("IR before it: ", 1)[1].splitlines()[0])
    text = path.read_text()
    path.unlink()
    assert "@main" in text
    assert "call" not in text


@pytest.mark.usefixtures("added")
def test_errors_for_the_user_pass_through(module: Module) -> None:
    with pytest.raises(WengertError, match="cannot be differentiated") as caught:
        run_pipeline(module, ["refuses"])
    assert not isinstance(caught.value, CompilerBug)
