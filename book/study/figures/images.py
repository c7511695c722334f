"""Pictures of images: samples, anomaly maps, and the maps of several methods side by side. Imports no torch.

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
from stlib.protocol import LAYERS, Profile
from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Record, record_path
from study.analysis.comparison import METHODS
from study.figures.style import ORANGE, Values, canvas


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


def write(kept: KeptMaps, path: Path) -> None:
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


def read(path: Path) -> KeptMaps:
    """What `write` left. Raises ValueError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            words = {"method": str(file["method"]), "fingerprint": str(file["fingerprint"])}
            names = tuple(map(str, file["names"]))
            return KeptMaps(
                **words, names=names, images=file["images"], masks=file["masks"], maps=file["maps"]
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no maps of a run ({error}): delete it and run the notebook again"
        ) from error


def load_maps(
    runs: Path, category: str, *, profile: Profile, seed: int = 0, methods: Iterable[str] = METHODS
) -> list[KeptMaps]:
    """What the methods' runs on one category left under `runs`, as far as there is something."""
    paths = [runs / record_path(method, category, seed, profile).with_suffix(".npz") for method in methods]
    return [read(path) for path in paths if path.is_file()]


def side_by_side(kept: Sequence[KeptMaps], *, rows: int | None = None) -> Figure:
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


def samples(
    images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_] | None], names: Sequence[str]
) -> Figure:
    """A row of (S, S, 3) RGB images under their names, defects outlined where a (S, S) mask is given."""
    figure, axes = canvas(1, len(images), 2.2)
    for axis, image, mask, name in zip(axes[0], images, masks, names, strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[], title=name)
        if mask is not None:
            axis.contour(mask, levels=[0.5], colors=[ORANGE], linewidths=2)
    return figure


def gallery_rows(scores: Values, defective: NDArray[np.bool_]) -> dict[str, int]:
    """Which test images a gallery shows, by rank of score: caption -> index into (M,) `scores`.

    The rule sees scores and labels only, so nobody picks. Raises ValueError without a defective image.
    """
    ranked = [int(i) for i in np.argsort(-scores, kind="stable")]
    defects = [i for i in ranked if defective[i]]
    normal = [i for i in ranked if not defective[i]]
    if not defects:
        raise ValueError("the test set holds no defective image: nothing to show")
    rows = {
        "highest score": defects[0],
        "median defect": defects[len(defects) // 2],
        "lowest defect": defects[-1],
    }
    return rows | ({"highest good": normal[0]} if normal else {})


def gallery(
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    maps: Values,
    names: Sequence[str],
    *,
    rows: Sequence[str],
) -> Figure:
    """One line per image: image, outline of the true defect, anomaly map laid over it.

    `images` (K, S, S, 3) RGB, `masks` and `maps` (K, S, S); `names` and `rows` say which image each line
    shows and why. The maps share one colour scale. Raises ValueError when the numbers differ.
    """
    if len({len(images), len(masks), len(maps), len(names), len(rows)}) != 1:
        raise ValueError("images, masks, maps, names and rows must be equally many")
    figure, axes = canvas(len(images), 3, 2.3 * len(images))
    scale = PowerNorm(0.5, vmin=0, vmax=max(float(np.max(maps)), 1e-12))  # maps of products have long tails
    for line, image, mask, anomaly, name, row in zip(axes, images, masks, maps, names, rows, strict=True):
        for axis in line:
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{row}\n{name}", fontsize=9)
        if mask.any():
            line[1].contour(mask, levels=[0.5], colors=[ORANGE], linewidths=2)
        shown = line[2].imshow(anomaly, cmap="magma", norm=scale, alpha=0.75)
    for axis, title in zip(axes[0], ("image", "true defect", "anomaly map"), strict=True):
        axis.set_title(title)
    figure.colorbar(shown, ax=axes[:, 2], label="anomaly score, one scale")
    return figure


def feature_maps(
    image: NDArray[np.uint8], before: Sequence[NDArray[np.floating]], after: Sequence[NDArray[np.floating]]
) -> Figure:
    """(S, S, 3) image beside the (h, w) mean activations of every level, before and after fine-tuning."""
    figure, axes = canvas(2, 1 + len(before), 3.6)
    for line, maps, name in zip(axes, (before, after), ("before", "after"), strict=True):
        line[0].imshow(image)
        line[0].set_ylabel(name)
        for axis, values, level in zip(line[1:], maps, LAYERS, strict=True):
            axis.imshow(values, cmap="magma", extent=(0, 1, 0, 1))
            if name == "before":
                axis.set_title(level)
    for axis in axes.ravel().tolist():
        axis.set(xticks=[], yticks=[])
    return figure
