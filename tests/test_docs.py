"""The documents say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from wengert.frontend import builtin_docs
from wengert.frontend.program import compile_text
from wengert.ir.op_table import updated

import wengert as wg

ROOT = Path(__file__).parent.parent
LANGUAGE = (ROOT / "docs" / "language.md").read_text()
BLOCKS = re.findall(r"```wg\n(.*?)```", LANGUAGE, re.S)


def test_op_table_is_current():
    page = (ROOT / "docs" / "ir.md").read_text()
    assert page == updated(page), "run: python -m wengert.ir.op_table"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: b.split("\n")[0][:30])
def test_language_examples_compile(block):
    text = "\n".join(line for line in block.splitlines() if not line.startswith('import "'))
    compile_text(text)


def test_builtin_table_is_current():
    assert LANGUAGE == builtin_docs.updated(LANGUAGE), (
        "run: python -m wengert.frontend.builtin_docs"
    )


def test_language_examples_run():
    text = next(b for b in BLOCKS if "fn statements" in b)
    program = wg.compile(text, backend="interp", real="f64")
    assert np.isfinite(program.statements(np.array([0.5, 3.5, -1.0]), 1))
    text = next(b for b in BLOCKS if "fn derivatives" in b)
    out = wg.compile(text, backend="interp").derivatives(np.ones(2, np.float32))
    np.testing.assert_allclose(out["g"], [4, 4])


def test_readme_program_and_dump(tmp_path):
    readme = (ROOT / "README.md").read_text()
    source = re.search(r"```\n(# mixture.wg.*?)```", readme, re.S)
    code = re.search(r"```python\n(.*?)```", readme, re.S)
    assert source and code
    (tmp_path / "mixture.wg").write_text(source.group(1))
    names: dict[str, object] = {}
    exec(code.group(1).replace('"mixture.wg"', repr(str(tmp_path / "mixture.wg"))), names)
    assert np.isfinite(names["fit"].loss)
    f = wg.compile("fn f(x: real[n]): return sum(sin(x) * x)").f
    assert f.ir(np.ones(3), derivative="grad") in readme


VI = (ROOT / "docs" / "vi.md").read_text()
VI_BLOCKS = re.findall(r"```wg\n(.*?)```", VI, re.S)
PROGRAM = "\nobjective uses(p: real):\n    x ~ normal(p, 1.0)\n    return x\n"


@pytest.mark.parametrize("block", VI_BLOCKS, ids=lambda b: b.split("\n")[0][:30])
def test_programs_of_the_vi_page_compile(block):
    program = wg.compile(block + PROGRAM)
    assert np.isfinite(program.uses(0.5, key=wg.key(0)))


def test_dumps_of_the_vi_page_are_real():
    quoted = re.findall(r"```ir (\w+)\n(.*?)```", VI, re.S)
    assert {stage for stage, _ in quoted} == {"lower", "estimators"}
    elbo = wg.compile(VI_BLOCKS[0]).elbo
    for stage, body in quoted:
        text = elbo.ir(np.zeros(4), 5.0, key=wg.key(0), after=stage)
        lines = {line.strip() for line in text.splitlines()}
        assert not [line for line in body.splitlines() if line not in lines]


def test_the_vi_page_names_the_whole_library():
    for file, kind in (("distributions", "distribution"), ("strategies", "strategy")):
        text = (ROOT / "stdlib" / f"{file}.wg").read_text()
        names = re.findall(rf"^{kind} (\w+)", text, re.M)
        assert names and not [n for n in names if n not in VI]


def test_the_objective_of_the_vi_page_is_a_bound():
    own = next(b for b in VI_BLOCKS if "chi_square" in b)
    text = own + (
        "\nmodel m():\n    u ~ normal(0.0, 1.0)\n    x ~ normal(u, 1.0)\n"
        "\nguide q():\n    u ~ normal(0.4, 0.9)\n"
        "\nobjective f(x: real): return chi_square(m(), q(), {x})\n"
    )
    value = wg.compile(text, real="f64").f(1.0, key=wg.key(0), samples=20_000)
    log_evidence = -0.25 - 0.5 * np.log(4 * np.pi)
    assert -log_evidence - 0.2 < value < 0.1 - log_evidence


def test_the_refusal_on_the_vi_page_is_real():
    quoted = re.search(r"```\n(cone.wg:.*?)\n```", VI, re.S)
    body = "objective f(a: real):\n    x ~ normal(a, 1.0) by reparam\n    return x if x > 0.0 else 0.5\n"
    with pytest.raises(wg.WengertError) as caught:
        wg.compile("\n" * 11 + body, "cone.wg").f.grad(0.3, key=wg.key(0))
    assert quoted and str(caught.value) == quoted.group(1)
