"""The detectors, by name. A method is built from a config, a frozen teacher and an execution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel
from torch import Tensor, nn

from stlib.methods import stpm
from stlib.methods.execution import Execution
from stlib.nn.maps import Maps
from stlib.protocol import History, Profile


class Method(Protocol):
    """What `study.experiment` needs of a detector."""

    snapshots: dict[str, dict[str, Tensor]]

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train on (N, 3, S, S) uint8 normal images."""
        ...

    def use(self, snapshot: str) -> None:
        """Choose among `snapshots`; `fit` leaves the one that the recipe tests in use."""
        ...

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps and scores of (M, 3, S, S) uint8 images, on the CPU."""
        ...


@dataclass(frozen=True)
class Entry:
    """One line of the registry."""

    title: str
    """The name shown to readers."""
    profiles: Mapping[Profile, BaseModel]
    """The recipe under each profile."""
    build: Callable[[Any, nn.Module, Execution], Method]  # Any: each method takes its own Config


METHODS: dict[str, Entry] = {"stpm": Entry("STPM", stpm.PROFILES, stpm.STPM)}


def entry(method: str) -> Entry:
    """The registry's line for `method`. Raises ValueError for an unknown name."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")
    return METHODS[method]
