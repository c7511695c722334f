"""The systems that the papers compare themselves with, under this study's protocol.

Printed with other backbones and on crops, here with the ResNet-18 of the papers' own methods on whole images:
the printed number and the one measured here answer different questions, and no verdict joins them.
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from stlib.paths import REPORTED
from stlib.protocol import CATEGORIES, Metric
from stlib.records.schema import Record
from study.analysis.audit import reimplementations
from study.analysis.comparison import COMPARATORS, ComparisonRow, RunGroup, measured, printed_row
from study.analysis.paired import PairedDifference, pairs
from study.analysis.reported import METHOD_NAMES, reported

CONDITIONS = REPORTED.parent / "conditions.csv"
"""Under which conditions each system's numbers were printed, each with its source."""
SYSTEMS = (
    RunGroup("stpm"),
    RunGroup("et_stpm"),
    RunGroup("destseg"),
    RunGroup("pfadseg"),
    RunGroup("patchcore"),
    RunGroup("patchcore", "coreset=1%"),
    RunGroup("padim"),
    RunGroup("spade"),
    RunGroup("rd4ad"),
    RunGroup("aand"),
)
"""Every row of the table of systems, those without a run left out."""
DETERMINISTIC = ("spade",)
"""Draws nothing at random: its one run is that of every seed."""
ROWS = tuple("-".join(filter(None, (group.method, group.variant))) for group in SYSTEMS)
"""Their folders of records."""


def title(group: RunGroup) -> str:
    """The name shown to readers.

    >>> [title(RunGroup(*place)) for place in (("padim",), ("patchcore", "coreset=1%"))]
    ['PaDiM', 'PatchCore (1 % coreset)']
    """
    variant = {"coreset=1%": "1 % coreset"}.get(group.variant, group.variant)
    return METHOD_NAMES[group.method] + (f" ({variant})" if variant else "")


def systems(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """A row per category with a run, a column per system; a cell is a `ComparisonRow`, or None.

    Labelled runs count where there are no others.
    """
    finished = [r for r in records if r.status == "finished" and metric in r.metrics]
    table = {
        title(group): {name: _measured(group.of(finished), name, metric) for name in CATEGORIES}
        for group in SYSTEMS
    }
    frame = pd.DataFrame(table, dtype=object).dropna(axis=1, how="all").dropna(axis=0, how="all")
    return frame.astype(object).where(frame.notna(), None)


def _measured(runs: Iterable[Record], category: str, metric: Metric) -> ComparisonRow | None:
    own = [r for r in runs if r.category == category]
    return measured(printed_row(own[0].method, metric, category, None), [own]) if own else None


def against_stpm(
    records: Sequence[Record], metric: Metric, variant: str = ""
) -> dict[str, list[PairedDifference]]:
    """Each comparator minus STPM, by its name: same images and seeds, complete categories.

    `variant`: of STPM.
    """
    whole = [r for r in records if not r.dataset.gaps]
    base = RunGroup("stpm", variant)
    seeds = {(r.category, r.seed) for r in base.of(whole)} - {(r.category, 0) for r in whole}
    alike = [r for r in whole if r.method in DETERMINISTIC and r.seed == 0]
    whole += [
        r.model_copy(update={"seed": seed}) for r in alike for place, seed in seeds if place == r.category
    ]
    others = [group for group in SYSTEMS if group.method in COMPARATORS]
    found = {title(group): pairs(whole, base, group, metric) for group in others}
    return {name: group for name, group in found.items() if group}


def three_ways(records: Iterable[Record], method: str, metric: Metric) -> pd.DataFrame:
    """A comparator as printed in the seed papers, as others printed it, and as measured here.

    A row per category of MVTec AD: `category`, `printed` (a `Reported` or None), a column per other work, and
    `here` (a `ComparisonRow` or None).
    """
    runs = [r for r in RunGroup(method).of(records) if r.status == "finished" and metric in r.metrics]
    frame = reimplementations(method, metric)
    frame.insert(0, "printed", pd.Series({c: reported(method, metric, c) for c in CATEGORIES}, dtype=object))
    frame["here"] = pd.Series({c: _measured(runs, c, metric) for c in CATEGORIES}, dtype=object)
    return frame.rename_axis("category").reset_index()


def conditions() -> pd.DataFrame:
    """The rows of CONDITIONS, with `title`; texts, '' where the source is silent."""
    frame = pd.read_csv(CONDITIONS, keep_default_na=False)
    frame.insert(0, "title", frame["method"].map(METHOD_NAMES))
    return frame
