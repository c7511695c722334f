"""Pictures of comparisons: reproduced beside reported, paired differences, ranks, what is measured."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlib.protocol import METRICS, Metric
from study.analysis import sensitivity
from study.analysis.comparison import ComparisonRow
from study.analysis.paired import PairedDifference
from study.analysis.ranks import Ranking
from study.analysis.sensitivity import Effect, Effects
from study.figures.style import BLUE, NARROW, ORANGE, canvas


def against_epochs(frame: pd.DataFrame, metric: Metric) -> Figure:
    """`teacher_epochs.against_epochs`: a panel per category, a line per seed with its intervals."""
    names = list(dict.fromkeys(frame["category"])) or [""]
    figure, axes = canvas(1, len(names), 2.8, share="y", width=NARROW)
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
        marks, [f"seed {seed}" for seed in colours], loc="outside lower center", ncols=3, fontsize=9
    )
    return figure


def in_short(levels: Sequence[ComparisonRow], gains: pd.DataFrame) -> Figure:
    """Above `comparison.comparison` as differences on the tolerance, below `teacher_epochs.tested_epochs`."""
    rows = [row for row in levels[:-1] if row.difference is not None]
    tolerance = levels[0].tolerance
    figure, axes = canvas(2, 1, 1.9 + 0.3 * (len(rows) + len(gains)), share="", width=NARROW)
    above, below = axes[:, 0]
    above.axvspan(-tolerance, tolerance, color="#dddddd")
    for y, row in enumerate(rows):
        if row.reported_number is not None and row.low is not None and row.high is not None:
            above.plot([row.low - row.reported_number, row.high - row.reported_number], [y, y], color=BLUE)
        above.plot(row.difference, y, "o", color=BLUE)
    for y, pair in enumerate(gains.to_dict("records")):
        below.plot([pair["low"], pair["high"]], [y, y], color=BLUE)
        below.plot(pair["difference"], y, "o", color=BLUE, label="chosen epoch")
        below.plot(pair["last"], y, "x", color="#555555", label="last epoch")
        if pair["claim"] is not None:
            below.plot(pair["claim"], y, "D", color=ORANGE, markerfacecolor="white", label="printed")
    _keep_in_sight(below, gains)
    for axis, names in ((above, [row.category for row in rows]), (below, list(gains["category"]))):
        axis.axvline(0, color="black", linewidth=1)
        axis.locator_params(axis="x", nbins=4)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
    above.set_title("pixel AUROC: STPM minus printed")
    below.set_title("pixel AUROC: ET-STPM minus STPM")
    marks = dict(zip(*below.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _keep_in_sight(axis: Axes, gains: pd.DataFrame) -> None:
    """Limit `axis` to the intervals and printed gains; a last epoch beyond them is a number at its edge."""
    ends = gains[["low", "high", "claim", "difference"]].astype(float)
    low, high = min(ends.min().min(), 0.0), max(ends.max().max(), 0.0)
    room = 0.3 * (high - low)
    axis.set_xlim(low - room, high + room)
    for y, last in enumerate(gains["last"]):
        if not low - room <= last <= high + room:
            side, place, text = (
                ("left", 0.01, f"← {last:.3f}") if last < low else ("right", 0.99, f"{last:.3f} →")
            )
            axis.text(
                place, y, text.replace("-", "\u2212"), transform=axis.get_yaxis_transform(),
                ha=side, va="center", fontsize=8, color="#555555",
            )  # fmt: skip


def forest(found: Mapping[str, Sequence[PairedDifference]], reported: Mapping[str, float | None]) -> Figure:
    """The last pair (the mean) of every comparison with its interval; `reported` differences hollow.

    A comparison with neither is left out.
    """
    names = [name for name, group in found.items() if group or reported.get(name) is not None]
    figure, axes = canvas(1, 1, 1.2 + 0.4 * max(len(names), 1), width=NARROW)
    axis = axes[0, 0]
    for y, name in enumerate(names):
        for pair in found[name][-1:]:
            axis.plot([pair.low, pair.high], [y, y], color=BLUE, linewidth=2)
            axis.plot(pair.difference, y, "o", color=BLUE)
        value = reported.get(name)
        if value is not None:
            axis.plot(value, y, "D", color=ORANGE, markerfacecolor="white", markersize=8)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.locator_params(axis="x", nbins=4)
    figure.supxlabel("difference; dot: reproduced, hollow: reported", fontsize=9)
    return figure


def choice_effects(found: Mapping[Metric, Effects], claims: Mapping[Metric, Mapping[str, float]]) -> Figure:
    """`sensitivity.effects` by metric: mean effects with their spread, and the claimed gains (hollow)."""
    choices = [
        c for c in sensitivity.choices(found.values()) if any(group.get(c) for group in found.values())
    ]
    claimed = dict.fromkeys(sides for metric in found for sides in claims[metric])
    rows = [*choices, *claimed]
    figure, axes = canvas(len(found), 1, len(found) * (0.7 + 0.21 * len(rows)), share="", width=NARROW)
    for axis, (metric, group) in zip(axes[:, 0], found.items(), strict=True):
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
    named = {text: mark for axis in axes[:, 0] for mark, text in zip(*axis.get_legend_handles_labels())}
    figure.legend(named.values(), named.keys(), loc="outside lower center", fontsize=9)
    return figure


def _effect(axis: Axes, y: int, found: Sequence[Effect]) -> None:
    if not found:
        return
    mean = found[-1]
    label = "trained again: mean, 95 % interval" if mean.seeds else "read again: mean, range of categories"
    axis.plot(mean.change, y, "o" if mean.seeds else "s", color=BLUE, markersize=5)
    if mean.low is not None and mean.high is not None:
        style = "-" if mean.seeds else ":"
        axis.plot([mean.low, mean.high], [y, y], style, marker="|", color=BLUE, linewidth=2, label=label)


def critical_difference(found: Sequence[Ranking]) -> Figure:
    """A line of ranks per ranking: methods with their average rank, bars over those not told apart."""
    figure, axes = canvas(len(found), 1, 2.1 * len(found), share="", width=NARROW)
    for axis, ranking in zip(axes[:, 0], found, strict=True):
        _ranks(axis, ranking)
        axis.set_title(ranking.title, loc="left")
    return figure


def _ranks(axis: Axes, ranking: Ranking) -> None:
    """The better half of the names stands on the left, the other on the right: no lines cross."""
    count, bars = len(ranking.ranks), ranking.bars()
    edges = 1 - 0.3 * (count - 1), count + 0.3 * (count - 1)
    top = 0.4 * len(bars) + 1
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
    for line, bar in enumerate(bars):
        ends = [ranking.ranks[bar[0]] - 0.04, ranking.ranks[bar[-1]] + 0.04]
        axis.plot(ends, [0.4 * (line + 1)] * 2, color=ORANGE, linewidth=4, solid_capstyle="butt")


def reported_vs_reproduced(compared: Sequence[ComparisonRow]) -> Figure:
    """`comparison.comparison` as a dot plot: reported value and tolerance, reproduced mean and interval.

    Filled dots are comparable runs, hollow ones are not; a category without a run has no dot.
    """
    rows = compared[:-1]
    metric, tolerance = rows[0].metric, rows[0].tolerance
    figure, axes = canvas(1, 1, 4.8, width=NARROW)
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
    axis.locator_params(axis="x", nbins=4)
    axis.set_xlabel(f"{METRICS[metric]}\nbar: reported, tolerance\ndot, line: reproduced, one more run 95 %")
    return figure


def across_works(printed: pd.DataFrame, metric: str) -> Figure:
    """`audit.across_works` as a dot plot: a line per category, a marker and colour per work."""
    scores = printed.astype(float)
    figure, axes = canvas(1, 1, 5.2, width=NARROW)
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
