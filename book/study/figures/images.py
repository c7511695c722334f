"""Pictures of images: samples, anomaly maps, the maps of several methods side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import label

from stlib.protocol import LAYERS
from study.analysis.paired import SEGMENTING
from study.analysis.reported import METHOD_NAMES
from study.figures.style import ORANGE, Values, canvas
from study.maps import KeptMaps

RAREST = 1e-4
"""Where the colours of false positive rates end."""


def side_by_side(kept: Sequence[KeptMaps]) -> Figure:
    """A row per test image: image, outline of the true defect, a map per method.

    A map shows how rare a pixel's score is among normal pixels, on one scale for all methods; without masks,
    among all pixels. Raises ValueError for nothing to show, and for runs on different data.
    """
    if len({(one.fingerprint, one.names) for one in kept}) != 1:
        raise ValueError("the methods must show the same images: none were kept, or their data differ")
    finest = max(kept, key=lambda one: one.images.shape[1])
    return _maps(finest, {METHOD_NAMES.get(one.method, one.method): one.rates for one in kept})


def levels(kept: KeptMaps, *, rows: int | None = None) -> Figure:
    """The student's distances at every level, their product, and the map; of the first `rows` images."""
    words = [*(f"level {level}" for level in range(1, len(LAYERS) + 1)), "product"]
    shown = dict(zip(words, kept.layers.transpose(1, 0, 2, 3), strict=True))
    if kept.method in SEGMENTING:  # the map of others is the product
        shown["segmentation net"] = kept.rates
    return _maps(kept, shown, rows)


def _maps(kept: KeptMaps, columns: Mapping[str, NDArray[np.float32]], rows: int | None = None) -> Figure:
    """A row per image of `kept`: the image, its true defect, and the (K, S, S) rates of every column."""
    shown = kept.names[:rows]
    width = 2 + len(columns)
    figure, axes = canvas(len(shown), width, 7.4 / width * len(shown) + 0.5, share="")
    whole = (0, 1, 1, 0)  # sides differ between methods: everything is drawn into one unit square
    scale = LogNorm(RAREST, 1, clip=True)
    for k, (line, name) in enumerate(zip(axes, shown, strict=True)):
        for axis in line:
            axis.set(xticks=[], yticks=[])
        for axis in line[:2]:
            axis.imshow(kept.images[k], extent=whole)
        line[0].set_ylabel(name.removesuffix(".png"), fontsize=8)
        if kept.masks[k].any():
            line[1].contour(kept.masks[k], levels=[0.5], colors=[ORANGE], linewidths=2, extent=(0, 1, 0, 1))
        for axis, rates in zip(line[2:], columns.values(), strict=True):
            drawn = axis.imshow(np.maximum(rates[k], RAREST), cmap="magma_r", norm=scale, extent=whole)
    for axis, title in zip(axes[0], ("image", _of_masks(kept.masks), *columns), strict=True):
        axis.set_title(title, fontsize=10)
    bar = figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, aspect=40)
    among = "normal" if kept.masks.any() else "all"
    bar.set_label(f"share of {among} pixels that score at least as high")
    return figure


def _of_masks(masks: NDArray[np.bool_]) -> str:
    """What stands above the outlines of defects: without a mask none is outlined."""
    return "true defect" if masks.any() else "no mask"


def found(kept: KeptMaps, place: int = 0, shares: Sequence[float] = (0.25, 0.55, 0.9)) -> Figure:
    """How IAP counts a region: the pixels above a threshold that covers each share of it, lower and lower.

    `place` is an image with a defect. From more than half of its pixels on, the region counts as found.
    """
    image, mask, rates = kept.images[place], kept.masks[place], kept.rates[place]
    region, _ = label(mask, np.ones((3, 3)))  # diagonal neighbours belong together, as in the metric
    region = region == 1 + np.argmax(np.bincount(region.ravel())[1:])
    figure, axes = canvas(1, len(shares), 2.7)
    for axis, share in zip(axes[0], shares, strict=True):
        marked = rates <= np.quantile(rates[region], share)
        inside = marked[region].mean()
        axis.imshow(image)
        axis.imshow(np.where(marked, 1.0, np.nan), cmap="autumn", alpha=0.55, vmin=0, vmax=1)
        axis.contour(region, levels=[0.5], colors=["black"], linewidths=2)
        verdict = "found" if inside > 0.5 else "not found"
        axis.set(xticks=[], yticks=[], title=f"{inside:.0%} marked: {verdict}")
    return figure


def synthesis(clean: Values, masks: NDArray[np.bool_], textures: Values, corrupted: Values) -> Figure:
    """A row per image of (K, S, S, 3) in [0, 1] and (K, S, S): how a synthetic anomaly is made."""
    figure, axes = canvas(len(clean), 4, 1.85 * len(clean))
    for line, *pictures in zip(axes, clean, masks, textures, corrupted, strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, cmap="gray")
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(
        axes[0], ("good image", "mask (noise)", "foreign texture", "what the student sees"), strict=True
    ):
        axis.set_title(title, fontsize=10)
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

    The rule sees scores and labels only, so nobody picks. A test set without defects, or without good images,
    gives the rows that it has.
    """
    ranked = [int(i) for i in np.argsort(-scores, kind="stable")]
    defects = [i for i in ranked if defective[i]]
    normal = [i for i in ranked if not defective[i]]
    ends = {"highest score": 0, "median defect": len(defects) // 2, "lowest defect": -1}
    rows = {caption: defects[place] for caption, place in ends.items() if defects}
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
    for axis, title in zip(axes[0], ("image", _of_masks(masks), "anomaly map"), strict=True):
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
