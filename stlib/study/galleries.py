"""Anomaly maps of several methods side by side, from what their notebooks leave behind. Imports no torch.

A notebook keeps the maps of a few test images beside its checkpoints, never in the repository. Which images
is decided by their names alone: the first of every kind, so that all methods show the same and nobody picks.
"""

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stlib.files import write_atomic
from stlib.protocol import Profile
from stlib.study.figures import ORANGE, canvas
from stlib.study.records import Record, record_path
from stlib.study.reported import METHOD_NAMES
from stlib.study.tables import METHODS

ALT = {
    "side_by_side": "A grid: one row per test image, with the image, the outline of its defect, and the "
    "anomaly map of every method, each method on a colour scale of its own that rises with the square root.",
}
"""What each figure plots, for the `alt` attribute; never what came out."""


@dataclass(frozen=True)
class Kept:
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
    maps: NDArray[np.float32]
    """(K, S, S) anomaly maps; larger is more anomalous."""


def first_of_each(names: Sequence[str]) -> list[int]:
    """Places of the first image of every folder, good ones last.

    >>> first_of_each(["good/000.png", "scratch/000.png", "scratch/001.png", "dent/003.png"])
    [3, 1, 0]
    """
    first: dict[str, int] = {}
    for place, name in sorted(enumerate(names), key=lambda item: item[1]):
        first.setdefault(name.partition("/")[0], place)
    return [first[kind] for kind in sorted(first, key=lambda kind: (kind == "good", kind))]


def path_of(record: Record, runs: Path) -> Path:
    """Where a run's maps are kept: beside its checkpoint."""
    return (runs / record.path).with_suffix(".npz")


def write(kept: Kept, path: Path) -> None:
    """Whole or not at all. Raises OSError."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        method=np.array(kept.method),
        fingerprint=np.array(kept.fingerprint),
        names=np.array(kept.names),
        images=kept.images,
        masks=kept.masks,
        maps=kept.maps,
    )
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> Kept:
    """What `write` left. Raises ValueError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            words = {"method": str(file["method"]), "fingerprint": str(file["fingerprint"])}
            names = tuple(map(str, file["names"]))
            return Kept(**words, names=names, images=file["images"], masks=file["masks"], maps=file["maps"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no maps of a run ({error}): delete it and run the notebook again"
        ) from error


def found(
    runs: Path, category: str, *, profile: Profile, seed: int = 0, methods: Iterable[str] = METHODS
) -> list[Kept]:
    """What the methods' runs on one category left under `runs`, as far as there is something."""
    paths = [runs / record_path(method, category, seed, profile).with_suffix(".npz") for method in methods]
    return [read(path) for path in paths if path.is_file()]


def side_by_side(kept: Sequence[Kept], *, rows: int | None = None) -> Figure:
    """A row per test image, or the first `rows`: image, outline of the true defect, the map of every method.

    Scores of different methods have different units, so each method has its own colour scale, from its
    smallest to its largest score here. Raises ValueError for nothing to show, and for runs on different data.
    """
    if len({(one.fingerprint, one.names) for one in kept}) != 1:
        raise ValueError("the methods must show the same images: none were kept, or their data differ")
    finest = max(kept, key=lambda one: one.images.shape[1])
    whole = (0, 1, 1, 0)  # sides differ between methods: everything is drawn into one unit square
    shown = finest.names[:rows]
    figure, axes = canvas(len(shown), 2 + len(kept), 7.4 / (2 + len(kept)) * len(shown), share="")
    for k, (line, name) in enumerate(zip(axes, shown, strict=True)):
        for axis in line:
            axis.imshow(finest.images[k], extent=whole)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.removesuffix(".png"), fontsize=8)
        if finest.masks[k].any():
            line[1].contour(finest.masks[k], levels=[0.5], colors=[ORANGE], linewidths=2, extent=(0, 1, 0, 1))
        for axis, one in zip(line[2:], kept, strict=True):
            scale = PowerNorm(0.5, vmin=float(np.min(one.maps)), vmax=float(np.max(one.maps)))
            axis.imshow(one.maps[k], cmap="magma", norm=scale, alpha=0.75, extent=whole)
    titles = ("image", "true defect", *(METHOD_NAMES[one.method] for one in kept))
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    return figure
