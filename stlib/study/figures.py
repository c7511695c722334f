"""The study's pictures: numpy arrays, records and tables in, matplotlib figures out. Imports no torch.

Every figure is white, uses seaborn's colour-blind-safe palette with a second cue beside colour (line style,
marker, hatch or word), and has its text for readers who cannot see it in `ALT`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from stlib.protocol import METRICS, SEEDS_FOR_A_VERDICT, TOLERANCES, History
from stlib.study.records import Record
from stlib.study.tables import rows_of

BLUE, ORANGE, GREEN, RED = sns.color_palette("colorblind")[:4]
WIDTH = 7.0
"""Inches; at 100 dots per inch the width of a page's column."""
PANELS = 3
"""Charts side by side."""
STYLE = {"font.size": 11, "axes.titlesize": 11, "figure.facecolor": "white", "savefig.facecolor": "white"}

ALT = {
    "samples": "A row of photographs: a training image, then test images with the outline of their defect.",
    "training_curves": "Line charts, one per recorded series such as loss and validation score, over the "
    "epochs; one line per run, and a dashed line at the epoch whose student is tested.",
    "score_histogram": "Two overlaid histograms of image scores, of good and of defective test images.",
    "roc_pr": "Two line charts: ROC curves and precision-recall curves, of pixels and of images.",
    "gallery": "A grid of test images: image, outline of its defect and anomaly map side by side; one row "
    "each for the highest, median and lowest score among defects and the highest among good images.",
    "reported_vs_reproduced": "Dot plot, one line per category: a bar for the reported value and its "
    "tolerance, a dot for the reproduced mean and its interval. The same numbers are in the table.",
    "progress_grid": "A grid with one row per method and one column per category; every measured cell holds "
    "its number of seeds, cells without a run are empty. The same content is in the table.",
    "across_works": "Dot plot, one line per category: the score of one method as printed in several works, "
    "one marker per work. The same numbers are in the table.",
}
"""What each figure plots, for the `alt` attribute; never what came out."""

Values = NDArray[np.floating]


def canvas(
    rows: int, columns: int, height: float, *, share: Literal["x", "y", ""] = "x"
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of the page's width with a (rows, columns) array of axes.

    Those of a column share their x axis; with `share="y"` those of a row share y instead, with "" none.
    """
    with sns.axes_style("whitegrid", rc=STYLE):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(WIDTH, height),
            squeeze=False,
            sharex="col" if share == "x" else False,
            sharey="row" if share == "y" else False,
            layout="constrained",
        )
    plt.close(figure)  # the caller returns it; otherwise a notebook would show it twice
    return figure, axes


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


def training_curve(history: History, name: str = "") -> Figure:
    """Every curve of one training over the epochs, with the tested epoch marked."""
    return training_curves({name: [history]})


def training_curves(histories: Mapping[str, Sequence[History]], legend: Sequence[str] = ()) -> Figure:
    """A row per name with a panel per curve; the trainings of a name, such as seeds, share the panels.

    `legend` names the trainings of a row. Raises ValueError without a training.
    """
    if not any(histories.values()):
        raise ValueError("no training to draw: pass at least one history")
    names = list(dict.fromkeys(curve for group in histories.values() for h in group for curve in h.curves))
    lines = [names[i : i + PANELS] for i in range(0, len(names), PANELS)]
    rows = [(label, line) for label in histories for line in lines]
    figure, axes = canvas(len(rows), len(lines[0]), 2.1 * len(rows) + 0.6)
    for drawn, (label, line) in zip(axes, rows, strict=True):
        for axis, name in zip(drawn, line, strict=False):
            _curves(axis, histories[label], name)
            axis.set_title(f"{label} {name.replace('_', ' ')}".strip())
        for axis in drawn[len(line) :]:
            axis.set_axis_off()
    by_epoch = any("epoch" in h.selected for group in histories.values() for h in group)
    for axis in axes[-1]:
        axis.set_xlabel("epoch (dashed: tested)" if by_epoch else "logged means")
    if legend:
        marks = [Line2D([], [], color=colour) for colour in _colours(len(legend))]
        figure.legend(marks, legend, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _colours(count: int) -> list[tuple[float, float, float]]:
    return list(islice(cycle(sns.color_palette("colorblind")), count))


def _curves(axis: Axes, histories: Sequence[History], name: str) -> None:
    """One collection for all trainings: an artist for each is slow where there are hundreds."""
    shown = [(h, c) for h, c in zip(histories, _colours(len(histories)), strict=True) if h.curves.get(name)]
    colours = [colour for _, colour in shown]
    lines = [list(enumerate(history.curves[name], 1)) for history, _ in shown]
    axis.add_collection(LineCollection(lines, colors=colours, linewidths=1.5))
    if min((value for line in lines for _, value in line), default=0) > 0:
        axis.set_yscale("log")
    axis.autoscale_view()
    tested = [[(e, 0), (e, 1)] for h, _ in shown for e in [h.selected.get("epoch", np.nan)]]
    upright = axis.get_xaxis_transform()
    dashed = LineCollection(tested, colors=colours, linestyles="--", linewidths=1.5, transform=upright)
    axis.add_collection(dashed, autolim=False)


def good_and_defective(record: Record) -> tuple[Values, Values]:
    """Image scores of the record, (good,) and (defective,)."""
    good = [item.score for item in record.image_scores if item.image.startswith("good/")]
    defective = [item.score for item in record.image_scores if not item.image.startswith("good/")]
    return np.array(good, float), np.array(defective, float)


def score_histogram(good: Values, defective: Values) -> Figure:
    """Distribution of (G,) and (D,) image scores over common bins."""
    figure, axes = canvas(1, 1, 2.8)
    axis = axes[0, 0]
    bins = np.histogram_bin_edges(np.concatenate([good, defective]), bins=30)
    axis.hist(good, bins, color=BLUE, alpha=0.6, label="good")
    axis.hist(defective, bins, histtype="step", color=RED, linewidth=2, hatch="//", label="defective")
    axis.set(xlabel="image score", ylabel="test images")
    axis.legend()
    return figure


def roc_pr(pixel_curves: Mapping[str, Sequence[float]], good: Values, defective: Values) -> Figure:
    """ROC and precision-recall: of pixels from a record's thinned curves, of images from their scores."""
    figure, axes = canvas(1, 2, 3.4)
    image = image_curves(good, defective)
    for curves, label, style, colour in ((pixel_curves, "pixels", "-", BLUE), (image, "images", "--", RED)):
        if curves:
            axes[0, 0].plot([0, *curves["fpr"]], [0, *curves["recall"]], style, color=colour, label=label)
            axes[0, 1].plot(curves["recall"], curves["precision"], style, color=colour, label=label)
    axes[0, 0].set(xlabel="false positive rate", ylabel="recall")
    axes[0, 1].set(xlabel="recall", ylabel="precision", ylim=(-0.02, 1.02))
    for axis in axes[0]:
        axis.legend()
    return figure


def image_curves(good: Values, defective: Values) -> dict[str, list[float]]:
    """'fpr', 'recall' and 'precision' at every distinct image score, falling; empty with one class only."""
    if not (len(good) and len(defective)):
        return {}
    thresholds = np.unique(np.concatenate([good, defective]))[::-1]
    tp = (defective[None] >= thresholds[:, None]).sum(1)
    fp = (good[None] >= thresholds[:, None]).sum(1)
    return {
        "fpr": list(fp / len(good)),
        "recall": list(tp / len(defective)),
        "precision": list(tp / (tp + fp)),
    }


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


def reported_vs_reproduced(frame: pd.DataFrame) -> Figure:
    """`tables.comparison` as a dot plot: reported value and tolerance, reproduced mean and interval.

    Filled dots are comparable runs, hollow ones are not; a category without a run has no dot.
    """
    metric = frame.attrs["metric"]
    tolerance = TOLERANCES[metric]
    rows = rows_of(frame)[:-1]
    figure, axes = canvas(1, 1, 4.8)
    axis: Axes = axes[0, 0]
    for y, row in enumerate(rows):
        if row.reported_number is not None:
            axis.barh(y, 2 * tolerance, left=row.reported_number - tolerance, color="#dddddd")
            axis.plot(row.reported_number, y, "|", color="black", markersize=12)
        if row.reproduced is not None:
            if row.low is not None and row.high is not None:
                axis.plot([row.low, row.high], [y, y], color=BLUE)
            face = "white" if row.verdict == "not comparable" else BLUE
            axis.plot(row.reproduced, y, "o", color=BLUE, markerfacecolor=face)
    axis.set_yticks(range(len(rows)), [row.category for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(right=min(axis.get_xlim()[1], 1.005))
    axis.set_xlabel(f"{METRICS[metric]} (bar: reported with tolerance; dot: reproduced with 95 % interval)")
    return figure


def across_works(printed: pd.DataFrame, metric: str) -> Figure:
    """`audit.across_works` as a dot plot: a line per category, a marker and colour per work."""
    scores = printed.astype(float)
    figure, axes = canvas(1, 1, 5.2)
    axis: Axes = axes[0, 0]
    lines = range(len(scores))
    axis.hlines(lines, scores.min(axis=1), scores.max(axis=1), color="#bbbbbb")
    for name, marker, colour in zip(scores, cycle("osD^v"), cycle(sns.color_palette("colorblind"))):
        axis.plot(scores[name], lines, marker, color=colour, fillstyle="none", markeredgewidth=2, label=name)
    axis.set_yticks(lines, list(scores.index))
    axis.invert_yaxis()
    axis.set_xlabel(metric)
    axis.legend(loc="best", framealpha=1)
    return figure


def progress_grid(state: pd.DataFrame) -> Figure:
    """`tables.state_of_study` as a grid: the number of seeds as a figure and a shade in every cell."""
    methods, categories = state["method"].unique(), state["category"].unique()
    marks = [_mark(*row) for row in state[["seeds", "labelled", "failed"]].to_numpy()]
    grid = state.assign(mark=marks).set_index(["method", "category"])
    seeds = grid["seeds"].unstack().loc[methods, categories]
    figure, axes = canvas(1, 1, 1.2 + 0.4 * len(seeds))
    shades = ListedColormap(["#f2f2f2", *sns.light_palette(BLUE, SEEDS_FOR_A_VERDICT + 1)[1:]])
    numbers = grid["mark"].unstack().loc[methods, categories]
    cells = {"annot": numbers, "fmt": "", "linewidths": 1, "linecolor": "white", "cbar": False}
    shown = seeds.clip(upper=SEEDS_FOR_A_VERDICT)
    sns.heatmap(shown, ax=axes[0, 0], cmap=shades, vmin=0, vmax=SEEDS_FOR_A_VERDICT, **cells)
    axes[0, 0].set(
        ylabel="", xlabel="number: seeds;  empty: not run;  p: incomplete data or other labels;  x: failed"
    )
    axes[0, 0].tick_params("x", rotation=60)
    axes[0, 0].tick_params("y", rotation=0)
    return figure


def _mark(seeds: int, labelled: int, failed: int) -> str:
    return str(seeds) if seeds else "p" if labelled else "x" if failed else ""
