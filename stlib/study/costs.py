"""What runs cost, from the records. Imports no torch."""

from collections.abc import Iterable, Sequence
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from stlib.protocol import METRICS, Metric
from stlib.study.estimate import estimate, held_seconds, seconds, total
from stlib.study.figures import BLUE, GREEN, ORANGE, RED, canvas
from stlib.study.grid import Cell
from stlib.study.html import Html, Text, plain, to_html
from stlib.study.records import Processor, Summary
from stlib.study.reported import METHOD_NAMES

MARKS = {"stpm": ("o", BLUE), "et_stpm": ("s", ORANGE), "destseg": ("^", GREEN), "pfadseg": ("D", RED)}

ALT = {
    "accuracy_against_cost": "Scatter plots, one per metric: the score of each run against the minutes of "
    "one processor core that it took. Filled marks are runs in the paper's setting, hollow ones carry a "
    "label such as a shortened schedule. The same numbers are in the records.",
}


def study_html(cells: Sequence[Cell], records: Sequence[Summary]) -> Html:
    """What the whole grid costs on GPUs or on CPUs, as far as there are records to tell."""
    rows: list[dict[str, object]] = [
        {
            "Method": METHOD_NAMES[cost.method],
            "Runs": cost.runs,
            "On": cost.processor,
            "Minutes a run": "-" if cost.seconds is None else f"{cost.seconds / 60:.1f}",
            "Hours in all": "unknown" if cost.hours is None else f"{cost.hours:,.0f}",
            "From": cost.source,
        }
        for cost in estimate(cells, records)
    ]
    return to_html(
        plain(rows), f"All {len(cells)} runs of the paper's grid: hours of one core, or of one GPU."
    )


def study_sentence(cells: Sequence[Cell], records: Sequence[Summary]) -> Text:
    """What is known of the whole, and what is not."""
    costs = estimate(cells, records)
    processors: tuple[Processor, Processor] = ("CPU", "GPU")
    parts = []
    for kind in processors:
        hours, unknown = total(costs, kind)
        known = len(cells) - unknown
        parts.append(
            f"On {kind}s, {known} of {len(cells)} runs would take {hours:,.0f} hours"
            if known
            else f"On {kind}s nothing has been measured"
        )
    return Text(". ".join(parts) + ". The others have no record of their method and schedule to go by.")


def spent(records: Iterable[Summary]) -> Text:
    """Core hours and GPU hours in the records."""
    runs = [r for r in records if r.profile != "demo"]
    hours = {
        kind: sum(held_seconds(r) for r in runs if r.runtime.processor == kind) / 3600
        for kind in ("CPU", "GPU")
    }
    share = median(r.runtime.evaluate_seconds / seconds(r) for r in runs) if runs else 0.0
    return Text(
        f"The {len(runs)} recorded runs on MVTec AD took {hours['CPU']:.1f} hours of one CPU core and "
        f"{hours['GPU']:.1f} GPU hours; evaluation (maps, metrics, bootstrap and every other reading "
        f"of the same model) is {share:.0%} of a run in the median."
    )


def accuracy_against_cost(records: Iterable[Summary], metrics: Sequence[Metric]) -> Figure:
    """Score over core minutes, a point per run of a method as published, on a CPU.

    Filled: the paper's schedule and setting. Hollow: with a label, such as a shortened schedule.
    """
    runs = [
        r
        for r in records
        if r.profile != "demo" and r.status == "finished" and not r.variant and r.runtime.processor == "CPU"
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
