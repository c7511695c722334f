"""The papers' tables in their own layout, with this study's score in every cell. Imports no torch.

The layout is the order of the rows in `results/reported`: who adds a table there gets it here, and who adds
records of a method that a table prints fills its column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, cast

import pandas as pd

from stlib.protocol import ABLATION_ROWS, CATEGORIES, SEEDS_FOR_A_VERDICT, Metric
from stlib.records.reported import PAPERS, Reported
from stlib.records.schema import Record
from study.analysis.comparison import comparable, select, verdict
from study.analysis.paper_tables import AVERAGES
from study.analysis.status import Status, of_score

Mark = Literal["", "setting", "backbone"]
"""Why a reproduced score is no match for the printed one: its runs carry a label, or the method comes from
outside the study's papers and runs here on the study's ResNet-18, not on the printed number's network."""

HERE = "mean of the categories run here"
"""A row that no paper prints: both sides averaged over the same categories."""


@dataclass(frozen=True)
class Measured:
    """This study's score: the mean over seeds, over one category or several."""

    values: tuple[float, ...] = ()
    """By seed where all categories share their seeds, otherwise the mean alone; empty without a run."""
    seeds: int = 0
    mark: Mark = ""
    records: tuple[str, ...] = ()
    """Paths of the records, relative to the folder of records."""

    @property
    def mean(self) -> float | None:
        """In [0, 1]; None without a run."""
        return fmean(self.values) if self.values else None


@dataclass(frozen=True)
class Cell:
    """One score of a paper's table. Fractions in [0, 1]; None where there is nothing to show."""

    row: str
    """A category, a printed average, a row of an ablation, or HERE."""
    method: str
    metric: Metric
    reported: float
    shown: str
    """As printed, as a fraction: '0.988' for 98.8 percent."""
    measured: Measured

    @property
    def difference(self) -> float | None:
        """Reproduced minus reported."""
        mean = self.measured.mean
        return None if mean is None else round(mean - self.reported, 9)

    @property
    def status(self) -> Status:
        """By the rule of `comparison.verdict`; marked cells get none."""
        if self.measured.mark:
            return ""
        found = verdict(self.measured.values, self.reported, self.metric)
        return of_score(found, provisional=0 < self.measured.seeds < SEEDS_FOR_A_VERDICT)


@dataclass(frozen=True)
class PrintedTable:
    """A table of a paper: `cells` by row and column, a column being a method and a metric."""

    paper: str
    name: str
    source: str
    rows: list[str]
    columns: list[tuple[str, Metric]]
    cells: Mapping[tuple[str, str, Metric], Cell]

    @property
    def filled(self) -> int:
        """Printed cells with a reproduced score."""
        return sum(bool(cell.measured.values) for cell in self.cells.values() if cell.row != HERE)

    @property
    def marks(self) -> list[Mark]:
        """The marks that its cells carry."""
        return sorted({cell.measured.mark for cell in self.cells.values() if cell.measured.mark})


def printed_tables(frame: pd.DataFrame, records: Iterable[Record]) -> list[PrintedTable]:
    """Every table of `load_reported()` that the papers' texts print, with the runs at the papers' schedules.

    A printed average has a reproduced score only where all of its categories were run without a label.
    What is printed elsewhere, in a text or with a code, is left out.
    """
    rows = [Reported.model_validate(row) for row in frame[list(Reported.model_fields)].to_dict("records")]
    runs = [r for r in records if r.profile == "paper" and r.status == "finished"]
    groups: dict[tuple[str, str], list[Reported]] = {}
    for row in rows:
        if row.table.startswith("Table"):
            groups.setdefault((row.paper, row.table), []).append(row)
    return [_table(paper, name, group, runs) for (paper, name), group in groups.items()]


def _table(paper: str, name: str, printed: Sequence[Reported], runs: Sequence[Record]) -> PrintedTable:
    cells = {}
    for row in printed:
        place = (row.variant or row.category, row.method, cast(Metric, row.metric))
        own = select(runs, row.method, variant=ABLATION_ROWS.get(row.variant, row.variant))
        measured = _measure(own, place[2], AVERAGES.get(row.category, (row.category,)))
        cells[place] = Cell(*place, row.number, f"{row.exact:f}", measured)
    names = list(dict.fromkeys(place for place, _, _ in cells))
    columns = list(dict.fromkeys((method, metric) for _, method, metric in cells))
    for method, metric in columns:
        column = [cells[n, method, metric] for n in names if n in CATEGORIES and (n, method, metric) in cells]
        if run := [cell for cell in column if cell.status]:
            told = fmean(cell.reported for cell in run)
            measured = _measure(select(runs, method), metric, [cell.row for cell in run])
            cells[HERE, method, metric] = Cell(HERE, method, metric, told, f"{told:.3f}", measured)
    names += [HERE] * any(place == HERE for place, _, _ in cells)
    return PrintedTable(paper, name, printed[0].source, names, columns, cells)


def _measure(runs: Sequence[Record], metric: Metric, categories: Sequence[str]) -> Measured:
    """Nothing unless every category was run; a mean of several takes no labelled run."""
    groups = [[r for r in runs if r.category == name and metric in r.metrics] for name in categories]
    clean = [comparable(group) for group in groups]
    mark: Mark = "" if all(r.method in PAPERS for r in runs) else "backbone"
    if not all(clean):
        if len(groups) > 1 or not groups[0]:
            return Measured()
        clean, mark = groups, "setting"
    by_seed = [{r.seed: r.metrics[metric] for r in group} for group in clean]
    if all(scores.keys() == by_seed[0].keys() for scores in by_seed):
        values = [fmean(scores[seed] for scores in by_seed) for seed in by_seed[0]]
    else:
        values = [fmean(fmean(scores.values()) for scores in by_seed)]
    paths = tuple(r.path.as_posix() for group in clean for r in group)
    return Measured(tuple(values), min(map(len, by_seed)), mark, paths)


def tidy(table: PrintedTable) -> pd.DataFrame:
    """The table as plain numbers, a line per cell, for a download."""
    return pd.DataFrame(
        [
            {
                "paper": table.paper,
                "table": table.name,
                "row": cell.row,
                "method": cell.method,
                "metric": cell.metric,
                "reported": cell.reported,
                "reproduced": cell.measured.mean,
                "difference": cell.difference,
                "seeds": cell.measured.seeds,
                "mark": cell.measured.mark,
                "records": " ".join(cell.measured.records),
            }
            for cell in table.cells.values()
        ]
    )
