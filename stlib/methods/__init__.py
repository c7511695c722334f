"""The detectors, by name: every file of this folder that ends in `METHOD = MethodEntry(...)` is one."""

import pkgutil
from importlib import import_module

from stlib.methods.entry import Method, MethodEntry

__all__ = ["METHODS", "Method", "MethodEntry", "get_method"]


def _entries() -> dict[str, MethodEntry]:
    modules = {
        found.name: import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    }
    found = {name: vars(module).get("METHOD") for name, module in modules.items()}
    entries = {name: entry for name, entry in found.items() if isinstance(entry, MethodEntry)}
    files: dict[str, str] = {}
    for name, entry in entries.items():
        if (other := files.setdefault(entry.title, name)) != name:
            raise ValueError(
                f"{other}.py and {name}.py in stlib/methods are both '{entry.title}': rename one"
            )
    return entries


METHODS = _entries()


def get_method(method: str) -> MethodEntry:
    """The registry's entry for `method`. Raises ValueError for an unknown name."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")
    return METHODS[method]
