"""Pictures of runs and of fine-tuned teachers: trainings, scores, ROC and precision-recall curves."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlib.protocol import LAYERS, METRICS, Metric
from stlib.records.schema import History
from stlib.records.teacher import TeacherRecord
from study.analysis.reported import METHOD_NAMES
from study.figures.style import BLUE, NARROW, ORANGE, RED, Values, canvas

PANELS = 2
"""Charts side by side."""
STYLES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
MARKERS = "osD^v"
"""Of seeds, in their order."""


def training_curve(history: History) -> Figure:
    """Every curve of one training over the epochs, with the tested epoch marked."""
    return training_curves({"": [history]})


def training_curves(histories: Mapping[str, Sequence[History]]) -> Figure:
    """A row per name with a panel per curve; the trainings of a name, such as seeds, share the panels.

    Raises ValueError without a training.
    """
    if not any(histories.values()):
        raise ValueError("no training to draw: pass at least one history")
    names = list(dict.fromkeys(curve for group in histories.values() for h in group for curve in h.curves))
    lines = [names[i : i + PANELS] for i in range(0, len(names), PANELS)]
    rows = [(label, line) for label in histories for line in lines]
    figure, axes = canvas(len(rows), len(lines[0]), 2.1 * len(rows) + 0.6, width=NARROW)
    for drawn, (label, line) in zip(axes, rows, strict=True):
        for axis, name in zip(drawn, line, strict=False):
            _curves(axis, histories[label], name)
            axis.set_title(f"{label} {name.replace('_', ' ')}".strip())
        for axis in drawn[len(line) :]:
            axis.set_axis_off()
    by_epoch = any("epoch" in h.selected for group in histories.values() for h in group)
    for axis in axes[-1]:
        axis.set_xlabel("epoch (dashed: tested)" if by_epoch else "logged means")
    return figure


def _curves(axis: Axes, histories: Sequence[History], name: str) -> None:
    """One collection for all trainings: an artist for each is slow where there are hundreds."""
    palette = cycle(sns.color_palette("colorblind"))
    shown = [(h, c) for h, c in zip(histories, palette, strict=False) if h.curves.get(name)]
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


def jumps(frame: pd.DataFrame) -> Figure:
    """The validation error of `study.analysis.benchmarks.jumps` over the epochs, a panel per category.

    Where statistics were taken anew a dot shows what the same weights then reach. Raises ValueError without
    a run.
    """
    if not len(frame):
        raise ValueError("no run to draw: make one with benchmarks/jumps.py")
    panels = frame.groupby("category")
    figure, axes = canvas(panels.ngroups, 1, 0.9 + 1.8 * panels.ngroups, width=NARROW)
    for axis, (category, part) in zip(axes[:, 0], panels, strict=True):
        for number, (_, run) in enumerate(part.groupby("seed")):
            label = "" if number else "running statistics"
            axis.plot(run["epoch"], run["validation"], color=BLUE, label=label)
        axis.plot(part["epoch"], part["validation_anew"], "o", color=ORANGE, label="taken anew, same weights")
        axis.set(title=f"{category}: validation error", yscale="log")
    axes[-1, 0].set_xlabel("epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def convergence(frame: pd.DataFrame) -> Figure:
    """The ratios of `study.analysis.schedules.convergence` over the epochs, a panel per category.

    A line per method and seed, STPM's solid and the other's dashed; dotted, the paper's 100 epochs. Raises
    ValueError without a run.
    """
    if not len(frame):
        raise ValueError("no run to draw: it takes STPM and ET-STPM with epochs=200 on one category")
    panels = frame.groupby("category", sort=False)
    rows = -(-panels.ngroups // 3)
    figure, axes = canvas(rows, 3, 0.7 + 1.9 * rows, share="y")
    flat = axes.ravel().tolist()
    for axis, (category, part) in zip(flat, panels, strict=False):
        for (method, _), run in part.groupby(["method", "seed"], sort=False):
            colour, style = (BLUE, "-") if method == "stpm" else (ORANGE, "--")
            axis.plot(run["epoch"], run["ratio"], style, color=colour, label=METHOD_NAMES[str(method)])
        axis.axvline(100, color="0.4", linestyle=":")
        axis.set(title=category, yscale="log")
    for axis in flat[panels.ngroups :]:
        axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    named = dict(zip(*axes[0, 0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def learning_curves(
    runs: Mapping[str, Mapping[str, Mapping[int, History]]], metrics: Sequence[Metric]
) -> Figure:
    """A row of panels per group, a panel per metric, a line per name and seed of the group.

    The test set's score after so many steps of the last stage, below 0 of the student before it. A name is a
    colour and a line style, a seed a marker. Raises ValueError without a run that has such a curve.
    """
    watched = {
        group: {
            (name, seed): training.learning_curve
            for name, seeds in members.items()
            for seed, training in seeds.items()
            if training.learning_curve
        }
        for group, members in runs.items()
    }
    watched = {group: curves for group, curves in watched.items() if curves}
    if not watched:
        raise ValueError("no learning curve to draw: pass at least one run that has one")
    figure, axes = canvas(len(watched), len(metrics), 1.2 + 2.1 * len(watched), width=NARROW)
    keys = [key for curves in watched.values() for key in curves]
    names = list(dict.fromkeys(name for name, _ in keys))
    styles = dict(zip(names, cycle(STYLES), strict=False))
    markers = dict(zip(sorted({seed for _, seed in keys}), cycle(MARKERS), strict=False))
    for row, (group, curves) in zip(axes, watched.items(), strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            for (name, seed), curve in curves.items():
                points = {step: scores[metric] for step, scores in sorted(curve.items()) if metric in scores}
                axis.plot(
                    list(points), list(points.values()), styles[name],
                    marker=markers[seed], markersize=5, color=f"C{names.index(name)}",
                )  # fmt: skip
            axis.set(title=f"{group}: {METRICS[metric]}")
    for axis in axes[-1]:
        axis.set_xlabel("steps of the segmentation net", fontsize=9)
    told = [Line2D([], [], color=f"C{n}", linestyle=styles[name], label=name) for n, name in enumerate(names)]
    if len(markers) > 1:
        told += [
            Line2D([], [], color="grey", linestyle="", marker=marker, label=f"seed {seed}")
            for seed, marker in markers.items()
        ]
    figure.legend(handles=told, loc="outside lower center", ncols=3, fontsize=9)
    return figure


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


def teacher_curves(record: TeacherRecord) -> Figure:
    """Held-out accuracy, weight change and feature cosine after the head (0) and every full epoch."""
    figure, axes = canvas(3, 1, 5.4, width=NARROW)
    for axis, name in zip(axes[:, 0], ("accuracy", "weight_change", "feature_cosine"), strict=True):
        series = [name] if name == "accuracy" else [f"{name}_{level}" for level in LAYERS]
        for one, style in zip(series, STYLES, strict=False):
            values = record.curves[one]
            axis.plot(range(len(values)), values, style, marker="o", label=one.rpartition("_")[2])
        if name == "weight_change":  # the levels keep their lines in the next panel, which has no room
            axis.legend()
        axis.set(title=name.replace("_", " "))
    axes[-1, 0].set_xlabel("full epochs")
    return figure
