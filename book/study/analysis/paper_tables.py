"""The papers' tables in their own layout, with this study's score in every cell.

The layout is the order of the rows in `results/reported`: who adds a table there gets it here, and who adds
records of a method that a table prints fills its column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import cast

import pandas as pd

from stlib.protocol import ABLATION_ROWS, CATEGORIES, Metric
from stlib.records.schema import Record
from study.analysis.comparison import ComparisonRow, RunGroup, Verdict, measured, printed_row
from study.analysis.reported import AVERAGES, Reported

MARKS: dict[Verdict, str] = {"not comparable": "setting", "different backbone": "backbone"}
"""Why a reproduced score is no match for the printed one: its runs carry a label, or the method comes from
outside the study's papers and runs here on the study's ResNet-18, not on the printed number's network."""

HERE = "mean of the categories run here"
"""A row that no paper prints: both sides averaged over the same categories."""


@dataclass(frozen=True)
class PrintedTable:
    """A table of a paper: `cells` by row and column, a column being a method and a metric."""

    paper: str
    name: str
    source: str
    rows: list[str]
    columns: list[tuple[str, Metric]]
    cells: Mapping[tuple[str, str, Metric], ComparisonRow]

    @property
    def filled(self) -> int:
        """Printed cells with a reproduced score."""
        return sum(bool(cell.seeds) for cell in self.cells.values() if cell.category != HERE)

    @property
    def marks(self) -> list[str]:
        """The marks that its cells carry."""
        return sorted({MARKS[cell.verdict] for cell in self.cells.values() if cell.verdict in MARKS})


def printed_tables(printed: Iterable[Reported], records: Iterable[Record]) -> list[PrintedTable]:
    """Every table of `printed` values that the papers' texts print, with the runs at the papers' schedules.

    A printed average has a reproduced score only where all of its categories were run without a label.
    What is printed elsewhere, in a text or with a code, is left out.
    """
    runs = [r for r in records if r.profile == "paper" and r.status == "finished"]
    groups: dict[tuple[str, str], list[Reported]] = {}
    for row in printed:
        if row.table.startswith("Table"):
            groups.setdefault((row.paper, row.table), []).append(row)
    return [_table(paper, name, group, runs) for (paper, name), group in groups.items()]


def _table(paper: str, name: str, printed: Sequence[Reported], runs: Sequence[Record]) -> PrintedTable:
    cells = {}
    for row in printed:
        own = RunGroup(row.method, ABLATION_ROWS.get(row.variant, row.variant)).of(runs)
        cell = printed_row(row.method, cast(Metric, row.metric), row.variant or row.category, row)
        if row.spread is not None:
            cell = replace(cell, reported=f"{cell.reported} ± {row.spread:.{row.decimals}f}")
        categories = AVERAGES.get(row.category, (row.category,))
        cells[cell.category, cell.method, cell.metric] = _with_runs(cell, own, categories)
    names = list(dict.fromkeys(place for place, _, _ in cells))
    columns = list(dict.fromkeys((method, metric) for _, method, metric in cells))
    judged = {
        column: [
            one
            for n in names
            if n in CATEGORIES and (one := cells.get((n, *column))) and one.difference is not None
        ]
        for column in columns
    }
    places = [{cell.category for cell in column} for column in judged.values() if column]
    shared = set.intersection(*places) if places else set()
    for (method, metric), column in judged.items():
        run = [cell for cell in column if cell.category in shared]
        if told := [cell.reported_number for cell in run if cell.reported_number is not None]:
            mean = replace(printed_row(method, metric, HERE, None), reported_number=fmean(told))
            mean = replace(mean, reported=f"{fmean(told):.3f}")
            cells[HERE, method, metric] = _with_runs(
                mean, RunGroup(method).of(runs), [c.category for c in run]
            )
    names += [HERE] * any(place == HERE for place, _, _ in cells)
    return PrintedTable(paper, name, printed[0].source, names, columns, cells)


def _with_runs(cell: ComparisonRow, runs: Sequence[Record], categories: Iterable[str]) -> ComparisonRow:
    measuring = [r for r in runs if cell.metric in r.metrics]
    return measured(cell, [[r for r in measuring if r.category == name] for name in categories])


def tidy(table: PrintedTable) -> pd.DataFrame:
    """The table as plain numbers, a line per cell, for a download."""
    return pd.DataFrame(
        [
            {
                "paper": table.paper,
                "table": table.name,
                "row": cell.category,
                "method": cell.method,
                "metric": cell.metric,
                "reported": cell.reported_number,
                "reproduced": cell.reproduced,
                "difference": cell.distance,
                "seeds": cell.seeds,
                "mark": MARKS.get(cell.verdict, ""),
                "records": " ".join(cell.records),
            }
            for cell in table.cells.values()
        ]
    )
