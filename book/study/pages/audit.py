"""The audit of the papers' arithmetic as the book shows it: tables, and sentences that depend on the data."""

from collections.abc import Hashable, Mapping
from html import escape

import pandas as pd

from stlib.records.reported import METHOD_NAMES, REPORTED_METRICS
from study.analysis.paper_tables import conventions
from study.tables import Html, Markup, Text, plain, signed, to_html

CLASSES = {
    "supported": "verdict-agree",
    "not supported": "verdict-lower",
    "cannot be checked": "verdict-notrun",
}
"""Colours of the verdicts, in book/_static/custom.css; the others, which only describe, are grey."""

Cells = Mapping[Hashable, object]


def _rows(frame: pd.DataFrame) -> list[dict[Hashable, object]]:
    return [{k: None if v != v else v for k, v in row.items()} for row in frame.to_dict("records")]


def _name(method: object) -> str:
    return "no module" if method == "none" else METHOD_NAMES.get(str(method), str(method))


def _metric(row: Cells) -> str:
    return REPORTED_METRICS[str(row["metric"])]


def _number(row: Cells, key: str) -> float:
    value = row[key]
    assert isinstance(value, float)
    return value


def _badge(verdict: object) -> Markup:
    css = CLASSES.get(str(verdict), "badge-partial")
    return Html(f'<span class="{css}">{escape(str(verdict))}</span>')


def _statement(row: Cells) -> Markup:
    """The quote, where it stands, and what must be known about reading it."""
    note = f"; {row['note']}" if row["note"] else ""
    told = escape(f"{row['source']}{note}")
    return Html(
        f"{escape(_name(row['paper']))}: \u201c{escape(str(row['quote']))}\u201d<br><small>{told}</small>"
    )


def _average(row: Cells) -> str:
    mean, _, part = str(row["average"]).partition("_")
    return f"{_name(row['method'])}, {_metric(row)}, {mean}" + (f" of {part}s" if part else "")


def means_html(averages: pd.DataFrame) -> Markup:
    """The printed averages that are not the rounded average of their rows."""
    rows: list[dict[str, object]] = [
        {
            "Average": _average(row),
            "Where": row["place"],
            "Printed": row["printed"],
            "Recomputed": f"{_number(row, 'recomputed'):.5f}",
            "Error": f"{_number(row, 'error'):+.5f}",
            "Verdict": row["verdict"],
        }
        for row in _rows(averages[~averages["rounds"]])
    ]
    return to_html(
        plain(rows),
        "Printed averages that are not the rounded average of their rows. Error: printed minus recomputed",
    )


def means_text(averages: pd.DataFrame) -> Text:
    """How many averages hold, and the ones that nothing explains."""
    verdicts = averages["verdict"]
    wrong = averages[verdicts.str.startswith("differs")]
    counts = {
        "are the average of their rows, rounded": averages["rounds"],
        "are that average cut off instead of rounded": verdicts == "truncates to it",
        "are neither, but within what the rounding of the rows allows": verdicts
        == "within the rounding of the rows",
        "cannot be explained by rounding": verdicts.str.startswith("differs"),
    }
    counted = "; ".join(f"{found.sum()} {words}" for words, found in counts.items())
    named = [
        f"{_average(row)} ({row['place']}), is printed as {row['printed']} and its rows give "
        f"{_number(row, 'recomputed'):.4f}"
        for row in _rows(wrong)
    ]
    ending = f" Not explained: {'; '.join(named)}." if named else ""
    return Text(f"Of {len(averages)} printed averages with all their rows, {counted}.{ending}")


def conventions_html(averages: pd.DataFrame) -> Markup:
    """Rounding against truncation, table by table."""
    names = {
        "place": "Table",
        "averages": "Averages",
        "rounds": "Fit rounding",
        "truncates": "Fit truncation",
        "rows": "Fit neither, but rounded rows",
        "differs": "Unexplained",
    }
    text = "How each table makes its averages; about half of all rounded averages fit truncation by chance"
    return to_html(conventions(averages).rename(columns=names), text)


def gains_html(gains: pd.DataFrame) -> Markup:
    """Every stated gain, against each work that prints the baseline."""
    rows: list[dict[str, object]] = [
        {
            "Statement": _statement(row),
            "Metric": _metric(row),
            "Gain of": f"{_name(row['method'])} over {_name(row['baseline'])}",
            "Stated": f"{row['stated']} {row['unit']}" if row["stated"] else "no number",
            "Printed means": row["found"],
            "Verdict": _badge(row["verdict"]),
            "From the rows": _of_rows(row),
        }
        for row in _rows(gains)
    ]
    text = "Stated gains, recomputed. A baseline that several works print has one line for each"
    return to_html(plain(rows), text)


def _of_rows(row: Cells) -> str | None:
    if row["gain_of_rows"] is None:
        return None
    return f"{_number(row, 'gain_of_rows'):+.4f}" + (
        f"; stated gain {row['of_rows']}" if row["of_rows"] else ""
    )


def gains_text(gains: pd.DataFrame) -> Text:
    """The gains that depend on whose number of the baseline is taken."""
    lines = []
    for _, group in gains.groupby(["paper", "method", "baseline", "metric"], sort=False):
        works = group.drop_duplicates("printed_in")
        first, spread = works.iloc[0].to_dict(), works["gain"].round(3).nunique() > 1
        if spread:
            told = ", ".join(f"{row['gain']:+.3f} ({row['printed_in']})" for row in _rows(works))
            names = f"{_name(first['method'])} over {_name(first['baseline'])}"
            lines.append(f"- {names}, {_metric(first)}: {told}")
    head = "Gains that change with the work from which the baseline's mean is taken:\n\n"
    return Text(
        head + "\n".join(lines) if lines else "No gain depends on whose number of the baseline is taken."
    )


def rankings_html(rankings: pd.DataFrame) -> Markup:
    """Claims of a place, with the place found in the paper's table."""
    rows: list[dict[str, object]] = [
        {
            "Statement": _statement(row),
            "Metric": _metric(row),
            "Method": _name(row["method"]),
            "Claimed": f"{row['unit']}: {row['stated']}",
            "Found": row["found"],
            "Verdict": _badge(row["verdict"]),
            "Higher means in other works": row["elsewhere"] or None,
        }
        for row in _rows(rankings)
    ]
    return to_html(
        plain(rows),
        "Claimed places. The last column lists methods that the paper's table lacks, later ones too",
    )


def leaders_html(leaders: pd.DataFrame) -> Markup:
    """First and second places per category, a column per metric."""
    cells = leaders["first"].astype(str) + " / " + leaders["second"].astype(str)
    shown = leaders.assign(cell=cells, row=_pairs(leaders, "method", "paper"))
    grid = shown.pivot(index="row", columns="metric", values="cell").astype(object)
    grid = grid.loc[shown["row"].unique(), [m for m in REPORTED_METRICS if m in grid]].rename(
        columns=REPORTED_METRICS
    )
    text = "First / second places among the 15 categories of a paper's table; equal scores share a place"
    return to_html(grid.rename_axis("Method, table of").reset_index(), text)


def _pairs(frame: pd.DataFrame, *keys: str) -> list[str]:
    return [", ".join(_name(row[key]) for key in keys) for row in _rows(frame)]


def module_effects_html(effects: pd.DataFrame) -> Markup:
    """What adding one module changes, a column per metric."""
    rows: dict[tuple[object, object], dict[str, object]] = {}
    for row in _rows(effects):
        key = (row["module"], row["added_to"])
        line = rows.setdefault(key, {"Module": f"{key[0]} added to {_name(key[1])}"})
        line[_metric(row)] = signed(_number(row, "change"))
    text = "Differences between rows of PFADSeg's Table 4 that differ by one module"
    return to_html(plain(list(rows.values())), text)


def summary_html(summary: pd.DataFrame) -> Markup:
    """The same method in two works, one line per pair of works."""
    rows: list[dict[str, object]] = [
        {
            "Method and metric": f"{_name(row['method'])}, {_metric(row)}",
            "Works": f"{row['first']} | {row['second']}",
            "Differ": f"{row['differing']} of {row['compared']}",
            "Mean absolute difference": f"{_number(row, 'mean_absolute'):.4f}",
            "Largest": f"{_number(row, 'largest'):.4f} ({row['where']})",
            "Means, second minus first": "-"
            if row["of_means"] is None
            else f"{_number(row, 'of_means'):+.4f}",
        }
        for row in _rows(summary)
    ]
    text = "One score in two works; a value that equals the other once rounded does not count as differing"
    return to_html(plain(rows), text)


def works_html(printed: pd.DataFrame, method: str, metric: str) -> Markup:
    """`paper_tables.across_works` as a table."""
    names = f"{METHOD_NAMES[method]}, {REPORTED_METRICS[metric]}, as printed in each work"
    return to_html(printed.astype(object).rename_axis("Category").reset_index(), names)


def abstracts_html(statements: pd.DataFrame) -> Markup:
    """What each abstract claims, beside what the tables say."""
    rows: list[dict[str, object]] = [
        {
            "Statement": _statement(row),
            "Read as": f"{row['kind']} of {_name(row['method'])}",
            "Metric": _metric(row),
            "Found": row["found"],
            "Verdict": _badge(row["verdict"]),
        }
        for row in _rows(statements)
    ]
    return to_html(plain(rows), "Statements of the abstracts, against the tables of the same paper")


def abstracts_text(statements: pd.DataFrame) -> Text:
    """The verdicts, counted per paper."""
    parts = []
    for paper, group in statements.groupby("paper", sort=False):
        counts = ", ".join(f"{n} {_badge(verdict)}" for verdict, n in group["verdict"].value_counts().items())
        parts.append(f"- {_name(paper)}: {counts}")
    return Text("Statements of each abstract, counted by verdict:\n\n" + "\n".join(parts))
