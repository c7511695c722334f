"""Scripts that no test runs whole still import what is there."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from stlib.paths import ROOT

SCRIPTS = sorted([*(ROOT / "workflow").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_names_that_a_script_takes_from_the_packages_exist(script: Path):
    """Also those inside functions: `drain.py` lost one in a move, and would have lost a rented GPU's hour."""
    taken = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("stlib", "study")
        for alias in node.names
    ]
    missing = [f"{module}.{name}" for module, name in taken if module and not _has(module, name)]
    assert not missing


def _has(module: str, name: str) -> bool:
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
