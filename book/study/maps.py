"""What a run leaves for pictures of its maps: a few images, beside its checkpoint.

Notebooks write it, never into the repository. Which images is decided by their names alone: the first of
every kind, so that all methods show the same and nobody picks.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stlib.files import write_atomic
from stlib.paths import BUILD
from stlib.records.schema import Record, record_path
from study.analysis.comparison import METHODS


@dataclass(frozen=True)
class KeptMaps:
    """K test images of side S with what one run made of them."""

    method: str
    fingerprint: str
    """Of the category's files."""
    names: tuple[str, ...]
    """Paths inside the category's `test` folder."""
    images: NDArray[np.uint8]
    """(K, S, S, 3) RGB."""
    masks: NDArray[np.bool_]
    """(K, S, S)."""
    rates: NDArray[np.float32]
    """(K, S, S) false positive rates of the anomaly map: which share of normal pixels scores as high."""
    layers: NDArray[np.float32]
    """(K, L + 1, S, S) the same of the student's distance at every level, and of their product."""


def choose_maps(
    record: Record,
    names: Sequence[str],
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    *,
    maps: NDArray[np.floating],
    layers: NDArray[np.floating],
) -> KeptMaps:
    """The first image of every kind out of a run's test images, with their maps as false positive rates.

    `names` of M images, `images` (M, S, S, 3), `masks` and `maps` (M, S, S), `layers` (M, L, S, S). Scores of
    different methods have different units; how rare a score is among normal pixels means the same for all.
    """
    chosen = first_of_each(names)
    levels = [*layers.transpose(1, 0, 2, 3), layers.prod(axis=1)]
    return KeptMaps(
        record.method,
        record.dataset.fingerprint,
        tuple(names[place] for place in chosen),
        images[chosen],
        masks[chosen],
        _rates(maps, masks, chosen),
        np.stack([_rates(level, masks, chosen) for level in levels], axis=1),
    )


def _rates(
    maps: NDArray[np.floating], masks: NDArray[np.bool_], chosen: Sequence[int]
) -> NDArray[np.float32]:
    normal = np.sort(maps[~masks])
    below = np.searchsorted(normal, maps[chosen], side="left")
    return (1 - below / len(normal)).astype(np.float32)


def first_of_each(names: Sequence[str]) -> list[int]:
    """Places of the first image of every folder, good ones last.

    >>> first_of_each(["good/000.png", "scratch/000.png", "scratch/001.png", "dent/003.png"])
    [3, 1, 0]
    """
    first: dict[str, int] = {}
    for place, name in sorted(enumerate(names), key=lambda item: item[1]):
        first.setdefault(name.partition("/")[0], place)
    return [first[kind] for kind in sorted(first, key=lambda kind: (kind == "good", kind))]


def path_of_maps(record: Path, runs: Path) -> Path:
    """Where the maps of the run with that `record` are kept under `runs`: beside its checkpoint."""
    return (runs / record).with_suffix(".rates.npz")


def write_maps(kept: KeptMaps, path: Path) -> None:
    """Whole or not at all. Raises OSError."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(kept))
    write_atomic(path, buffer.getvalue())


def read_maps(path: Path) -> KeptMaps:
    """What `write_maps` left. Raises ValueError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(map(str, file["names"]))
            words = str(file["method"]), str(file["fingerprint"]), names
            return KeptMaps(*words, *(file[name] for name in ("images", "masks", "rates", "layers")))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no maps of a run ({error}): delete it and run the notebook again"
        ) from error


def demo_maps(*methods: str) -> list[KeptMaps]:
    """What the demo's runs of `methods`, or of all papers', on the washer left, if they left something."""
    records = [record_path(method, "washer", 0, "demo") for method in methods or METHODS]
    paths = [path_of_maps(record, BUILD / "runs") for record in records]
    return [read_maps(path) for path in paths if path.is_file()]
