"""Scripts that no test runs whole still take names that are there."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from stlib.paths import ROOT

SCRIPTS = sorted([*(ROOT / "workflow").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_names_that_a_script_takes_from_the_packages_and_its_neighbours_exist(script: Path):
    """Also those inside functions: `drain.py` lost one in a move, and would have lost a rented GPU's hour."""
    assert not [f"{module}.{name}" for module, name in taken(script) if not has(script, module, name)]


def taken(script: Path) -> Iterator[tuple[str, str]]:
    """Every `from module import name`, and every `name.attribute` of a module imported so."""
    tree, modules = ast.parse(script.read_text()), dict[str, str]()
    ours = {"stlib", "study", *(path.stem for path in script.parent.glob("*.py"))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ours:
            for alias in node.names:
                yield node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def has(script: Path, module: str, name: str) -> bool:
    """Whether the module has the name; what is no module, such as an imported class, is not looked into."""
    neighbour = script.with_name(f"{module}.py")
    if neighbour.is_file():  # read, not imported: it may ask for a peer's package
        return name in names(neighbour)
    try:
        found = import_module(module)
    except ModuleNotFoundError:
        return True
    if hasattr(found, name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def names(script: Path) -> set[str]:
    """What a script defines or imports at its top."""
    found = set[str]()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found
