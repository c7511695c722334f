"""What the pages of the book show: comparisons, runs and the state of the study."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

import pandas as pd

from stlib.protocol import CATEGORIES, METRICS, PROFILES, SEEDS_FOR_A_VERDICT, TOLERANCES, Metric
from stlib.records.reported import METHOD_NAMES, reported
from stlib.records.schema import Summary, record_path
from study.analysis.comparison import (
    METHODS,
    ComparisonRow,
    Verdict,
    comparable,
    comparison,
    differing,
    means,
    rows_of,
    select,
)
from study.analysis.runs import caption, rerun_command
from study.tables import NOT_RUN, Html, Markup, Text, plain, score, signed, to_html

RECORDS_URL = "../records/"
"""From a page of the book to the records: the site serves `results/` at its root (`html_extra_path`)."""

STUDIED = {method: METHOD_NAMES[method] for method in METHODS}
"""The methods of this study, with the names shown to readers."""

VERDICT_CLASSES: dict[Verdict, str] = {
    "agrees": "verdict-agree",
    "lower": "verdict-lower",
    "higher": "verdict-higher",
    "not comparable": "badge-partial",
    "not run": "verdict-notrun",
    "not reported": "verdict-notrun",
}
"""Colours of the words, in book/_static/custom.css."""


def verdict_html(row: ComparisonRow) -> Markup:
    """The verdict in its colour with the signed difference, and below it what a reader must know."""
    words = f"{row.verdict} {signed(row.difference)}" if row.difference is not None else row.verdict
    notes = "; ".join(filter(None, ["provisional" if row.provisional else "", row.note]))
    return _badge(row.verdict, words) + Html(f"<br><small>{escape(notes)}</small>" if notes else "")


def _badge(verdict: Verdict, words: str = "") -> Markup:
    return Html(f'<span class="{VERDICT_CLASSES[verdict]}">{escape(words or verdict)}</span>')


WRAP = "white-space: pre-wrap; overflow-wrap: anywhere"


def comparison_html(frame: pd.DataFrame, caption: str, *, first: str = "Category") -> Markup:
    """A comparison (`comparison.comparison`, `comparison.means`) with a link to every record."""
    rows: list[dict[str, object]] = [
        {
            first: row.category,
            "Reported": _reported(row),
            "Reproduced": score(row.reproduced) + (f" \u00b1 {row.sd:.3f}" if row.sd is not None else ""),
            "Seeds": _links(row.records) or str(row.seeds or "-"),
            "95 % interval": f"{score(row.low)} to {score(row.high)}" if row.low is not None else "-",
            "Verdict, difference": verdict_html(row),
        }
        for row in rows_of(frame)
    ]
    return to_html(plain(rows), caption)


def _reported(row: ComparisonRow) -> Markup:
    return Html(f'<span title="{escape(row.source)}">{row.reported}</span>' if row.reported else "-")


def _links(paths: Iterable[str]) -> Markup:
    """The seeds of the records, each a link to its file."""
    seeds = {path: path.rpartition("-s")[2].removesuffix(".json") for path in paths}
    link = '<a href="{url}{path}" download aria-label="record {path}">{seed}</a>'
    return Html(", ".join(link.format(url=RECORDS_URL, path=path, seed=seed) for path, seed in seeds.items()))


def comparison_caption(records: Sequence[Summary], method: str, metric: Metric) -> str:
    """What a table of comparison holds, and how its runs were made."""
    runs = comparable(select(records, method))
    return (
        f"{METHOD_NAMES[method]}, {METRICS[metric]}. Reproduced: mean \u00b1 standard deviation over seeds. "
        f"Agreement: within {TOLERANCES[metric]:.3f} of the reported value. Runs compared: {caption(runs)}"
    )


def differing_html(frames: Sequence[pd.DataFrame]) -> Markup:
    """The lines of several comparisons whose verdict is lower or higher."""
    parts = []
    for frame in frames:
        lines = frame[frame["category"].isin(differing([frame]))]
        parts.append(lines.assign(category=lines["category"] + ", " + METRICS[frame.attrs["metric"]]))
    found = pd.concat(parts)
    if found.empty:
        return Text("No measured category is called lower or higher.")
    return comparison_html(found, "Categories whose verdict is lower or higher", first="Category and metric")


def means_html(records: Sequence[Summary], method: str, metrics: Sequence[Metric]) -> Markup:
    """`comparison.means` of one method; one line where no run can be judged."""
    frame = means(records, method, metrics)
    if all(row.verdict == "not run" for row in rows_of(frame)):
        return Text(f"{METHOD_NAMES[method]}: no run that can be judged.")
    caption = f"{METHOD_NAMES[method]}, means over the categories that can be judged"
    return comparison_html(frame, caption, first="Metric, categories")


def metrics_html(records: Sequence[Summary], method: str, metrics: Sequence[Metric]) -> Markup:
    """Several metrics side by side: reproduced score, reported score where there is one, and verdict.

    One line where nothing has been run.
    """
    if not any(r.status == "finished" for r in select(records, method)):
        return Text(f"{METHOD_NAMES[method]} at the paper's schedule: {NOT_RUN}")
    frames = {metric: comparison(records, method, metric) for metric in metrics}
    columns: dict[str, object] = {
        METRICS[m]: [_compact(row) for row in rows_of(f)] for m, f in frames.items()
    }
    # Each metric has its own comparable categories, so the cells of the last row say how many they cover.
    names = [*frames[metrics[0]].category[:-1], "mean"]
    runs = comparable(select(records, method))
    text = f"{METHOD_NAMES[method]}, other metrics, means over seeds. {caption(runs)}"
    return to_html(plain({"Category": names, **columns}), text)


def _compact(row: ComparisonRow) -> Markup:
    if row.verdict == "not run":
        told = f"<br><small>reported {row.reported}</small>" if row.reported else ""
        return Html(str(NOT_RUN) + told)
    covers = f" ({row.category.removeprefix('mean of ')})" if row.category.startswith("mean") else ""
    if row.verdict == "not reported":
        return Html(score(row.reproduced) + covers)
    told = f"<small>reported {row.reported}</small><br>" if row.reported else ""
    return Html(f"{score(row.reproduced)}{covers}<br>{told}") + verdict_html(
        replace(row, note="", difference=None)
    )


def sensitivity_html(frame: pd.DataFrame, caption: str) -> Markup:
    """`sensitivity.readings` as scores, each change with its distance from the score as tested."""
    if frame.empty:
        return Text(f"{escape(caption)}: {NOT_RUN}")
    shown: dict[str, object] = {
        "Category": list(frame.index),
        "as tested": [score(value) for value in frame["as tested"]],
    }
    for name in frame.columns.drop("as tested"):
        pairs = zip(frame[name], frame["as tested"], strict=True)
        shown[name] = [f"{score(value)} ({signed(value - base)})" for value, base in pairs]
    return to_html(plain(shown), caption)


def scores_html(records: Sequence[Summary], metrics: Sequence[Metric], caption: str) -> Markup:
    """Every finished run on a line of its own with its labels: for runs that no table compares."""
    rows: list[dict[str, object]] = [
        {
            "Run": _named(r),
            **{METRICS[metric]: score(r.metrics.get(metric)) for metric in metrics},
            "Labels and remarks": "; ".join(r.labels() + r.remarks()) or "none",
        }
        for r in records
        if r.status == "finished"
    ]
    return to_html(plain(rows), caption) if rows else NOT_RUN


def _named(record: Summary) -> str:
    variant = f" (variant {record.variant})" if record.variant else ""
    return f"{METHOD_NAMES[record.method]}{variant}, {record.category}, seed {record.seed}"


def rerun_html(records: Sequence[Summary]) -> Markup:
    """Per run the command that repeats it, ready to copy, and its record."""
    link = '<a href="{url}" download>{name}</a>'
    # the class brings a copy button
    block = '<div class="highlight"><pre style="{style}">{command}</pre></div>'
    urls = [RECORDS_URL + r.path.as_posix() for r in records]
    rows: list[dict[str, object]] = [
        {
            "Record": Html(link.format(url=url, name=f"{r.variant} {r.category}, seed {r.seed}".strip())),
            "Command": Html(block.format(style=WRAP, command=escape(rerun_command(r)))),
        }
        for r, url in zip(records, urls, strict=True)
    ]
    return to_html(plain(rows), "Records, and the commands that repeat them") if rows else NOT_RUN


def methods_html(records: Sequence[Summary], metric: Metric) -> Markup:
    """Reproduced scores of every method side by side, with a label where a run is not the paper's setting."""
    columns: dict[str, object] = {}
    for method, name in STUDIED.items():
        rows = rows_of(comparison(records, method, metric))[:-1]
        columns.setdefault("Category", [row.category for row in rows])
        columns[name] = [_method_cell(row) for row in rows]
    return to_html(plain(columns), f"{METRICS[metric]}, reproduced, the papers' schedules")


def _method_cell(row: ComparisonRow) -> Markup:
    if row.verdict == "not run":
        return NOT_RUN
    spread = f" \u00b1 {row.sd:.3f}" if row.sd is not None else ""
    note = f"<br><small>{escape(row.note)}</small>" if row.note else ""
    return Html(score(row.reproduced) + spread + note)


def reported_html(columns: Mapping[str, tuple[str, str]], metric: Metric) -> Markup:
    """What papers print for several methods: heading -> (method, paper), a row per category and the mean."""
    content: dict[str, object] = {"Category": [*CATEGORIES, "mean"]}
    for name, (method, paper) in columns.items():
        cells = [reported(method, metric, category, paper=paper) for category in (*CATEGORIES, "mean")]
        content[name] = [f"{cell.exact:f}" if cell else "-" for cell in cells]
    return to_html(plain(content), f"{METRICS[metric]} as printed")


def state_html(state: pd.DataFrame) -> Markup:
    """`comparison.state_of_study` with a row per category and a column per method."""
    grid = state.pivot(index="category", columns="method", values="text")
    grid = grid.loc[state["category"].unique(), state["method"].unique()]
    text = "Seeds measured under the paper's schedule, per method and category"
    return to_html(grid.rename_axis("Category").reset_index(), text)


def state_summary(state: pd.DataFrame) -> Text:
    """`comparison.state_of_study` in one paragraph."""
    seeds = state["seeds"]
    enough = (seeds >= SEEDS_FOR_A_VERDICT).sum()
    counts = {
        f"with comparable runs ({enough} with {SEEDS_FOR_A_VERDICT} seeds or more)": seeds > 0,
        "with runs that cannot be compared": state["text"] == "not comparable",
        "with failed runs only": state["text"] == "failed",
        "not run": state["text"] == "not run",
    }
    parts = ", ".join(f"{cells.sum()} {words}" for words, cells in counts.items())
    return Text(f"Of {len(state)} cells (one method on one category): {parts}.")


def tolerances_html() -> Markup:
    """The tolerance of every metric, as the verdict uses it."""
    rows: dict[str, object] = {
        "Metric": list(METRICS.values()),
        "Largest difference that agrees": [TOLERANCES[m] for m in METRICS],
    }
    text = f"Tolerances of the verdict; with fewer than {SEEDS_FOR_A_VERDICT} seeds it is provisional"
    return to_html(plain(rows), text)


def profiles_html() -> Markup:
    """The profiles and what they mean."""
    folders = [Html(f"<code>{record_path('stpm', 'bottle', 0, name)}</code>") for name in PROFILES]
    rows: dict[str, object] = {
        "Profile": list(PROFILES),
        "Meaning": list(PROFILES.values()),
        "Example of a record": folders,
    }
    return to_html(plain(rows), "Profiles, never mixed in one table")
