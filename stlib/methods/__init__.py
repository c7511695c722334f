"""The detectors, by name: every file of this folder that ends in `METHOD = MethodEntry(...)` is one."""

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from stlib.methods.entry import Method, MethodEntry

__all__ = ["METHODS", "Method", "MethodEntry", "get_method"]


def _entries() -> Iterator[tuple[str, MethodEntry]]:
    for found in pkgutil.iter_modules(__path__):
        entry = getattr(import_module(f"{__name__}.{found.name}"), "METHOD", None)
        if isinstance(entry, MethodEntry):
            yield found.name, entry


METHODS = dict(_entries())


def get_method(method: str) -> MethodEntry:
    """The registry's entry for `method`. Raises ValueError for an unknown name."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")
    return METHODS[method]
