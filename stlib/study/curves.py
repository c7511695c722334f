"""Pictures of comparisons and of fine-tuned teachers, styled like `stlib.study.figures`. Imports no torch."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stlib.protocol import METRICS, Metric
from stlib.study.figures import BLUE, ORANGE, canvas
from stlib.study.paired import Pair
from stlib.study.records import TeacherRecord

ALT = {
    "against_epochs": "Line chart: score over the number of fine-tuning epochs, one line per category with "
    "its interval; 0 epochs is STPM.",
    "teacher_curves": "Three line charts over the epochs of the fine-tuning: held-out accuracy, relative "
    "weight change and feature cosine to the original teacher, the last two with a line per level.",
    "feature_maps": "A grid: a defective image, and the mean activation of each level of the teacher before "
    "and after fine-tuning.",
    "forest": "Dot plot of paired differences with their 95 % intervals and a line at zero; hollow marks are "
    "the differences that the papers report. The same numbers are in the table.",
    "scores_by_method": "Dot plot: one line per category, one mark per method, reproduced scores. The same "
    "numbers are in the tables.",
}
"""What each figure plots, for the `alt` attribute; never what came out."""

LEVELS = ("layer1", "layer2", "layer3")
STYLES = ("-", "--", ":")


def against_epochs(frame: pd.DataFrame, metric: Metric) -> Figure:
    """`epochs.against_epochs`: a panel per category, a line per seed, the interval of the gain over STPM."""
    names = list(dict.fromkeys(frame["category"])) or [""]
    figure, axes = canvas(1, len(names), 2.8)
    for axis, name in zip(axes[0], names, strict=True):
        for seed, group in frame[frame["category"] == name].groupby("seed"):
            line = group.sort_values("epochs")
            bounds = np.abs(line[["low", "high"]].to_numpy().T - line["score"].to_numpy())
            axis.errorbar(line["epochs"], line["score"], bounds, marker="o", capsize=3, label=f"seed {seed}")
        axis.set(title=name, xlabel="full epochs")
    axes[0, 0].set_ylabel(METRICS[metric])
    return figure


def teacher_curves(record: TeacherRecord) -> Figure:
    """Held-out accuracy, weight change and feature cosine after the head (0) and every full epoch."""
    figure, axes = canvas(1, 3, 2.8)
    for axis, name in zip(axes[0], ("accuracy", "weight_change", "feature_cosine"), strict=True):
        series = [name] if name == "accuracy" else [f"{name}_{level}" for level in LEVELS]
        for one, style in zip(series, STYLES, strict=False):
            values = record.curves[one]
            axis.plot(range(len(values)), values, style, marker="o", label=one.rpartition("_")[2])
        if name == "weight_change":  # the levels keep their lines in the next panel, which has no room
            axis.legend()
        axis.set(title=name.replace("_", " "), xlabel="full epochs")
    return figure


def feature_maps(
    image: NDArray[np.uint8], before: Sequence[NDArray[np.floating]], after: Sequence[NDArray[np.floating]]
) -> Figure:
    """(S, S, 3) image beside the (h, w) mean activations of every level, before and after fine-tuning."""
    figure, axes = canvas(2, 1 + len(before), 3.6)
    for line, maps, name in zip(axes, (before, after), ("before", "after"), strict=True):
        line[0].imshow(image)
        line[0].set_ylabel(name)
        for axis, values, level in zip(line[1:], maps, LEVELS, strict=True):
            axis.imshow(values, cmap="magma", extent=(0, 1, 0, 1))
            if name == "before":
                axis.set_title(level)
    for axis in axes.ravel().tolist():
        axis.set(xticks=[], yticks=[])
    return figure


def forest(found: Mapping[str, Sequence[Pair]], reported: Mapping[str, float | None]) -> Figure:
    """The last pair (the mean) of every comparison with its interval; `reported` differences hollow."""
    names = [name for name, group in found.items() if group]
    figure, axes = canvas(1, 1, 1.2 + 0.45 * max(len(names), 1))
    axis = axes[0, 0]
    for y, name in enumerate(names):
        pair = found[name][-1]
        axis.plot([pair.low, pair.high], [y, y], color=BLUE, linewidth=2)
        axis.plot(pair.difference, y, "o", color=BLUE)
        told = reported.get(name)
        if told is not None:
            axis.plot(told, y, "D", color=ORANGE, markerfacecolor="white", markersize=8)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("difference (dot: reproduced with 95 % interval; hollow: reported)")
    return figure


def scores_by_method(frames: Mapping[str, pd.DataFrame], metric: Metric) -> Figure:
    """One line per category with a run, a mark per method: `frames` holds `tables.comparison` by name."""
    markers = dict(zip(frames, "os^Dv", strict=False))
    shown = [c for c in next(iter(frames.values()))["category"][:-1] if _any_score(frames, c)]
    figure, axes = canvas(1, 1, 1.2 + 0.4 * max(len(shown), 1))
    axis = axes[0, 0]
    for (name, frame), colour in zip(frames.items(), sns.color_palette("colorblind"), strict=False):
        scores = frame.set_index("category")["reproduced"]
        axis.plot([scores[c] for c in shown], range(len(shown)), markers[name], color=colour, label=name)
    axis.set_yticks(range(len(shown)), shown)
    axis.invert_yaxis()
    axis.set_xlabel(METRICS[metric])
    axis.legend()
    return figure


def _any_score(frames: Mapping[str, pd.DataFrame], category: str) -> bool:
    found = [frame.set_index("category")["reproduced"].get(category) for frame in frames.values()]
    return any(value is not None and not pd.isna(value) for value in found)
