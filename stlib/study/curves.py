"""Pictures of comparisons and of fine-tuned teachers, styled like `stlib.study.figures`. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from stlib.protocol import METRICS, Metric
from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Record, Summary
from stlib.records.teacher import TeacherRecord
from stlib.study import sensitivity
from stlib.study.estimate import held_seconds, processor
from stlib.study.figures import BLUE, GREEN, ORANGE, RED, canvas
from stlib.study.paired import Pair
from stlib.study.ranks import Ranking
from stlib.study.sensitivity import Effect, Effects

ALT = {
    "against_epochs": "Line charts, a panel per category: the change of the score against STPM over the "
    "number of fine-tuning epochs, a line per seed with its intervals; 0 epochs is STPM.",
    "teacher_curves": "Three line charts over the epochs of the fine-tuning: held-out accuracy, relative "
    "weight change and feature cosine to the original teacher, the last two with a line per level.",
    "feature_maps": "A grid: a defective image, and the mean activation of each level of the teacher before "
    "and after fine-tuning.",
    "forest": "Dot plot of paired differences with their 95 % intervals and a line at zero; hollow marks are "
    "the differences that the papers report. The same numbers are beside it.",
    "critical_difference": "Lines of ranks: every method at its average rank over the categories, 1 being "
    "best; a bar joins methods whose ranks lie closer together than the critical difference. The ranks are "
    "written beside the names.",
    "pixel_curves": "Two line charts of pixels: ROC curves up to a false positive rate of 0.3 and "
    "precision-recall curves; a colour and line style per category, a line per run.",
    "effects": "Dot plots, one panel per metric and one line per choice: the mean change of the score when "
    "that choice alone is changed; hollow marks are the gains that papers claim, and a band spans the "
    "smallest of them in both directions. The same numbers are in the table.",
    "accuracy_against_cost": "Scatter plots, one per metric: the score of each run against the minutes of "
    "one processor core that it took. Filled marks are runs in the paper's setting, hollow ones carry a "
    "label such as a shortened schedule. The same numbers are in the records.",
    "scores_by_method": "Dot plot: one line per category, one mark per method, reproduced scores. The same "
    "numbers are in the tables.",
}
"""What each figure plots, for the `alt` attribute; never what came out."""

LEVELS = ("layer1", "layer2", "layer3")
STYLES = ("-", "--", ":")
MARKS = {"stpm": ("o", BLUE), "et_stpm": ("s", ORANGE), "destseg": ("^", GREEN), "pfadseg": ("D", RED)}
"""By method."""
FPR_SHOWN = 0.3
"""Where the drawn ROC curves end: beyond it every pixel detector is of no use, and AUPRO stops there too."""


def against_epochs(frame: pd.DataFrame, metric: Metric) -> Figure:
    """`teacher_epochs.against_epochs`: a panel per category, a line per seed with its intervals."""
    names = list(dict.fromkeys(frame["category"])) or [""]
    figure, axes = canvas(1, len(names), 2.8, share="y")
    colours = dict(zip(sorted(set(frame["seed"])), cycle(sns.color_palette("colorblind")), strict=False))
    for axis, name in zip(axes[0], names, strict=True):
        runs = frame[frame["category"] == name].sort_values("epochs")
        seeds = {seed: group[["epochs", "difference"]].to_numpy() for seed, group in runs.groupby("seed")}
        own = [colours[seed] for seed in runs["seed"]]
        axis.axhline(0, color="black", linewidth=1)
        axis.add_collection(LineCollection(list(seeds.values()), colors=[colours[seed] for seed in seeds]))
        axis.vlines(runs["epochs"], runs["low"], runs["high"], own)
        axis.scatter(runs["epochs"], runs["difference"], c=own, zorder=3)
        axis.set(title=name, xlabel="full epochs")
    axes[0, 0].set_ylabel(f"{METRICS[metric]},\nminus STPM's")
    marks = [Line2D([], [], color=colour, marker="o") for colour in colours.values()]
    figure.legend(
        marks, [f"seed {seed}" for seed in colours], loc="outside lower center", ncols=6, fontsize=9
    )
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
    """The last pair (the mean) of every comparison with its interval; `reported` differences hollow.

    A comparison with neither is left out.
    """
    names = [name for name, group in found.items() if group or reported.get(name) is not None]
    figure, axes = canvas(1, 1, 1.2 + 0.45 * max(len(names), 1))
    axis = axes[0, 0]
    for y, name in enumerate(names):
        for pair in found[name][-1:]:
            axis.plot([pair.low, pair.high], [y, y], color=BLUE, linewidth=2)
            axis.plot(pair.difference, y, "o", color=BLUE)
        told = reported.get(name)
        if told is not None:
            axis.plot(told, y, "D", color=ORANGE, markerfacecolor="white", markersize=8)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("difference (dot: reproduced; hollow: reported)")
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


def effects(found: Mapping[Metric, Effects], claims: Mapping[Metric, Mapping[str, float]]) -> Figure:
    """`sensitivity.effects` by metric: mean effects with their spread, and the claimed gains (hollow)."""
    choices = [
        c for c in sensitivity.choices(found.values()) if any(group.get(c) for group in found.values())
    ]
    told = dict.fromkeys(sides for metric in found for sides in claims[metric])
    rows = [*choices, *told]
    lines = (len(found) + 1) // 2
    figure, axes = canvas(lines, 2, lines * (0.9 + 0.21 * len(rows)), share="y")
    panels: list[Axes] = axes.ravel().tolist()
    for axis, (metric, group) in zip(panels, found.items(), strict=False):
        axis.axvline(0, color="black", linewidth=1)
        if claims[metric]:
            width = min(map(abs, claims[metric].values()))
            axis.axvspan(-width, width, color="#e8e8e8", zorder=0, label="the smallest claimed gain")
        for name in choices:
            _effect(axis, rows.index(name), group.get(name, []))
        for sides, gain in claims[metric].items():
            label = "claimed gain"
            axis.plot(gain, rows.index(sides), "D", color=ORANGE, markerfacecolor="white", label=label)
        axis.set_title(METRICS[metric])
        axis.set_yticks(range(len(rows)), rows)
        axis.set_ylim(len(rows) - 0.5, -0.5)
    for axis in panels[len(found) :]:
        axis.set_axis_off()
    named = {text: mark for axis in panels for mark, text in zip(*axis.get_legend_handles_labels())}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _effect(axis: Axes, y: int, found: Sequence[Effect]) -> None:
    if not found:
        return
    mean = found[-1]
    label = "trained again: mean, 95 % interval" if mean.paired else "read again: mean, range of categories"
    axis.plot(mean.change, y, "o" if mean.paired else "s", color=BLUE, markersize=5)
    if mean.low is not None and mean.high is not None:
        style = "-" if mean.paired else ":"
        axis.plot([mean.low, mean.high], [y, y], style, marker="|", color=BLUE, linewidth=2, label=label)


def critical_difference(found: Mapping[str, Ranking]) -> Figure:
    """A line of ranks per ranking: methods with their average rank, bars over those not told apart."""
    figure, axes = canvas(len(found), 1, 2.1 * len(found), share="")
    for axis, (title, ranking) in zip(axes[:, 0], found.items(), strict=True):
        _ranks(axis, ranking)
        axis.set_title(title, loc="left")
    return figure


def _ranks(axis: Axes, ranking: Ranking) -> None:
    """The better half of the names stands on the left, the other on the right: no lines cross."""
    count, cliques = len(ranking.ranks), ranking.cliques()
    edges = 1 - 0.3 * (count - 1), count + 0.3 * (count - 1)
    top = 0.4 * len(cliques) + 1
    axis.set(xlim=edges, ylim=(-(count + 1) // 2 - 0.3, top + 0.4), yticks=[])
    axis.grid(visible=False)
    axis.spines[["left", "right", "bottom"]].set_visible(False)
    axis.xaxis.tick_top()
    axis.set_xticks(range(1, count + 1))
    end = min(1 + ranking.critical_difference, count)
    axis.plot([1, end], [top, top], "-", marker="|", color="black")
    axis.text(end, top, f"  critical difference {ranking.critical_difference:.2f}", fontsize=9, va="center")
    for place, (name, rank) in enumerate(ranking.ranks.items()):
        left = place < (count + 1) // 2
        y, edge = (-place - 1, edges[0]) if left else (place - count, edges[1])
        axis.plot([rank, rank, edge], [0, y, y], color="#999999", linewidth=1)
        axis.plot(rank, 0, "o", color=BLUE)
        axis.text(edge, y, f"{name} {rank:.2f}", ha="left" if left else "right", va="bottom", fontsize=10)
    for line, (best, worst) in enumerate(cliques):
        ends = [ranking.ranks[best] - 0.04, ranking.ranks[worst] + 0.04]
        axis.plot(ends, [0.4 * (line + 1)] * 2, color=ORANGE, linewidth=4, solid_capstyle="butt")


def pixel_curves(records: Sequence[Record]) -> Figure:
    """ROC and precision-recall of pixels from the records' thinned curves: a colour per category."""
    figure, axes = canvas(1, 2, 4.2, share="")
    names = list(dict.fromkeys(r.category for r in records))
    styles = dict(zip(names, cycle(STYLES), strict=False))
    colours = dict(zip(names, cycle(sns.color_palette("colorblind")), strict=False))
    for record in (r for r in records if r.pixel_curves):  # a test set of one class has none
        name, curves = record.category, record.pixel_curves
        look = {"color": colours[name], "linestyle": styles[name], "label": name}
        axes[0, 0].plot([0, *curves["fpr"]], [0, *curves["recall"]], **look)
        axes[0, 1].plot(curves["recall"], curves["precision"], **look)
    axes[0, 0].set(xlabel="false positive rate", ylabel="recall", xlim=(-0.01, FPR_SHOWN))
    axes[0, 1].set(xlabel="recall", ylabel="precision", ylim=(-0.02, 1.02))
    named = dict(zip(*axes[0, 1].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5, fontsize=9)
    return figure


def accuracy_against_cost(records: Iterable[Summary], metrics: Sequence[Metric]) -> Figure:
    """Score over core minutes, a point per run of a method as published, on a CPU.

    Filled: the paper's schedule and setting. Hollow: with a label, such as a shortened schedule.
    """
    runs = [
        r
        for r in records
        if r.profile != "demo" and r.status == "finished" and not r.variant and processor(r) == "CPU"
    ]
    figure, axes = canvas(1, len(metrics), 3.2, share="")
    for axis, metric in zip(axes[0], metrics, strict=True):
        for (method, full), group in _groups(runs).items():
            marker, colour = MARKS[method]
            points = [(held_seconds(r) / 60, r.metrics[metric]) for r in group if metric in r.metrics]
            if points:
                axis.plot(
                    *zip(*points),
                    marker,
                    color=colour,
                    markerfacecolor=colour if full else "white",
                    label=METHOD_NAMES[method] + ("" if full else ", labelled"),
                )
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("core minutes of a run")
        axis.set_title(METRICS[metric])
    marks, names = axes[0][0].get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _groups(runs: Iterable[Summary]) -> dict[tuple[str, bool], list[Summary]]:
    groups: dict[tuple[str, bool], list[Summary]] = {}
    for run in runs:
        groups.setdefault((run.method, not run.labels()), []).append(run)
    return groups
