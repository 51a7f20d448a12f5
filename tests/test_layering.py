"""Imports run one way, and `import wengert` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {
    "ir": set(),
    "frontend": {"ir"},
    "passes": {"ir"},
    "backends": {"ir"},
    "runtime": {"ir", "frontend", "passes", "backends"},
    "wengert": {"ir", "frontend", "passes", "backends", "runtime"},
}


def imported_layers(path: Path, layer: str) -> set[str]:
    depth = len(path.relative_to(ROOT).parts) - 1  # packages between the file and `wengert`
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            up = node.level - 1
            inside = ["wengert", *path.relative_to(ROOT).parts[:-1]]
            if layer == "wengert":
                inside = ["wengert"]
            base = inside[: len(inside) - up] + (node.module or "").split(".")
            names = [p for p in base if p][1:2] or [a.name for a in node.names]
            found |= {n for n in names if n in BELOW}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wengert."):
            found.add(node.module.split(".")[1])
    assert depth >= 1
    return found - {layer}


@pytest.mark.parametrize("layer", BELOW)
def test_imports_go_down_only(layer):
    paths = list((ROOT / layer).rglob("*.py"))
    assert paths
    for path in paths:
        extra = imported_layers(path, layer) - BELOW[layer]
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


def test_import_wengert_loads_no_heavy_library():
    code = (
        "import sys, wengert; heavy = {'jax', 'scipy', 'llvmlite', 'lark', 'networkx', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
