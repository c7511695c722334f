"""Records beside reported numbers: what was measured, how far it lies from the paper, and the verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean, stdev
from typing import Literal

import pandas as pd

from stlib.protocol import (
    ABLATION_ROWS,
    CATEGORIES,
    METRICS,
    SEEDS_FOR_A_VERDICT,
    TOLERANCES,
    Metric,
    Profile,
)
from stlib.records.schema import Record
from study.analysis.inference import apart, equivalent, prediction
from study.analysis.reported import PAPERS, Reported, reported

Verdict = Literal[
    "inside, proven",
    "inside, not proven",
    "outside, not proven",
    "lower",
    "higher",
    "not run",
    "not comparable",
    "not reported",
    "different backbone",
]

METHODS = PAPERS
"""The methods of this study, in the order of their publication."""
COMPARATORS = ("patchcore", "padim", "spade", "rd4ad", "aand")
"""Systems that the papers compare themselves with: here with ResNet-18, printed with another network,
so that no verdict holds one against the other."""
OUTSIDE = ("outside, not proven", "lower", "higher")
"""Verdicts of means that lie farther from the printed number than the tolerance."""
UNJUDGED = ("not run", "not comparable", "different backbone")
"""Verdicts of scores that no printed number is held against."""
RIVALS = {"stpm": "et_stpm", "et_stpm": "stpm", "destseg": "pfadseg", "pfadseg": "destseg"}
"""The method that one is said to beat, or to be beaten by: can a tolerance tell the two apart?"""


@dataclass(frozen=True)
class ComparisonRow:
    """A reported score beside the reproduced one, as fractions; None where there is nothing to show."""

    method: str
    metric: Metric
    category: str
    """Or what else the score is of: a mean over categories, a row of an ablation."""
    tolerance: float
    verdict: Verdict = "not run"
    reported: str | None = None
    """As printed, as a fraction: '0.988' for 98.8 percent."""
    reported_number: float | None = None
    source: str = ""
    """Where the reported value is printed."""
    reproduced: float | None = None
    """Mean over seeds."""
    sd: float | None = None
    """Standard deviation over seeds (n - 1); None for one seed."""
    seeds: int = 0
    low: float | None = None
    high: float | None = None
    """95 % prediction interval over seeds: where one more run, the published one, has to be expected."""
    difference: float | None = None
    """`distance`, where a verdict rests on it."""
    rival: str = ""
    gap: float | None = None
    """The rival's printed score minus this one's: a tolerance as wide cannot tell the two apart."""
    note: str = ""
    records: tuple[str, ...] = ()
    """Paths of the records behind the number, relative to the folder of records."""

    @property
    def distance(self) -> float | None:
        """Reproduced minus reported, whatever the verdict."""
        if self.reproduced is None or self.reported_number is None:
            return None
        return round(self.reproduced - self.reported_number, 9)

    @property
    def inside(self) -> bool:
        """Whether the reported number lies where one more run has to be expected."""
        ends = (self.low, self.reported_number, self.high)
        low, printed, high = (end if end is not None else float("nan") for end in ends)
        return low <= printed <= high


def verdict(values: Sequence[float], reported: float | None, metric: Metric) -> Verdict:
    """The rule: does the mean over seeds lie within TOLERANCES[metric], or outside of it, and provably?

    Fewer than SEEDS_FOR_A_VERDICT seeds prove nothing.

    >>> [verdict(seeds, 0.97, "iap") for seeds in ([0.9], [0.96, 0.96, 0.97], [0.90, 0.89, 0.90])]
    ['outside, not proven', 'inside, proven', 'lower']
    """
    if not values:
        return "not run"
    if reported is None:
        return "not reported"
    tolerance, enough = TOLERANCES[metric], len(values) >= SEEDS_FOR_A_VERDICT
    difference = round(fmean(values) - reported, 9)  # 0.98 - 0.97 is a little more than 0.01 in binary
    if abs(difference) <= tolerance:
        return (
            "inside, proven" if enough and equivalent(values, reported, tolerance) else "inside, not proven"
        )
    side: Verdict = "lower" if difference < 0 else "higher"
    return side if enough and apart(values, reported, tolerance) else "outside, not proven"


@dataclass(frozen=True)
class RunGroup:
    """Which runs: a method, one of its variants, and a profile."""

    method: str
    variant: str = ""
    profile: Profile = "paper"

    def of(self, records: Iterable[Record]) -> list[Record]:
        """Its runs, failed ones included."""
        wanted = (self.method, self.variant, self.profile)
        return [r for r in records if (r.method, r.variant, r.profile) == wanted]


def comparable(records: Iterable[Record]) -> list[Record]:
    """The finished runs that may enter a mean or a verdict: those without labels."""
    return [r for r in records if r.status == "finished" and not r.labels()]


def comparison(
    records: Iterable[Record],
    method: str,
    metric: Metric,
    *,
    variant: str = "",
    paper: str | None = None,
) -> list[ComparisonRow]:
    """Reported and reproduced: a row per MVTec AD category and one for the mean.

    The last row covers the categories with a comparable run only, on both sides. `paper`: where the reported
    values are printed, if not where `reported` asks first. Raises ValueError for an unknown method or paper.
    """
    runs = RunGroup(method, variant).of(records)
    groups = {name: [r for r in runs if r.category == name] for name in CATEGORIES}
    label = variant if variant in ABLATION_ROWS else ""
    known = {c: reported(method, metric, c, variant=label, paper=paper) for c in (*CATEGORIES, "mean")}
    gaps = {c: _gap(method, metric, c, printed) for c, printed in known.items()}
    rows = [
        replace(measured(printed_row(method, metric, name, known[name]), [group]), gap=gaps[name])
        for name, group in groups.items()
    ]
    covered = [row for row in rows if row.verdict not in ("not run", "not comparable")]
    covered = [row for row in covered if row.reported_number is not None] or covered
    mean = printed_row(method, metric, f"mean of {len(covered)} of {len(rows)}", None)
    if not covered:
        return [*rows, mean]
    if printed := [row.reported_number for row in covered if row.reported_number is not None]:
        mean = replace(mean, reported=f"{fmean(printed):.4f}", reported_number=fmean(printed))
    mean = measured(mean, [groups[row.category] for row in covered])
    told = [row.gap for row in covered if row.gap is not None]
    return [*rows, replace(mean, gap=fmean(told) if told else gaps["mean"], note="", records=())]


def _gap(method: str, metric: Metric, category: str, printed: Reported | None) -> float | None:
    other = reported(RIVALS[method], metric, category) if method in RIVALS else None
    if other is None or printed is None:
        return None
    beside = reported(method, metric, category, paper=other.paper) or printed  # in one table, if it can be
    return other.number - beside.number


def printed_row(method: str, metric: Metric, category: str, printed: Reported | None) -> ComparisonRow:
    """The row of a score with its reported side only."""
    row = ComparisonRow(method, metric, category, TOLERANCES[metric], rival=RIVALS.get(method, ""))
    if printed is None:
        return row
    return replace(row, reported=printed.shown, reported_number=printed.number, source=printed.source)


def measured(row: ComparisonRow, groups: Sequence[Sequence[Record]]) -> ComparisonRow:
    """`row` with its reproduced side: the runs of its category, or the mean over a group of runs for each.

    Without a comparable run a single category shows those that carry a label; a mean then stays as it was.
    """
    clean = [[r for r in comparable(group) if row.metric in r.metrics] for group in groups]
    if not all(clean) and len(groups) > 1:
        return row
    shown = clean if all(clean) else [[r for r in group if r.status == "finished"] for group in groups]
    values, seeds = _by_seed(shown, row.metric), min(map(len, shown))
    rule = verdict(values, row.reported_number, row.metric)
    if seeds and row.method in COMPARATORS:
        rule = "different backbone"
    if seeds and not all(clean):
        rule = "not comparable"
    low, high = _one_more(values)
    found = replace(
        row,
        verdict=rule,
        reproduced=fmean(values) if values else None,
        sd=stdev(values) if len(values) > 1 else None,
        seeds=seeds,
        low=low,
        high=high,
        note=_note(list(chain(*groups)), list(chain(*shown)), row.metric),
        records=tuple(r.path.as_posix() for group in shown for r in group),
    )
    return found if rule in UNJUDGED else replace(found, difference=found.distance)


def _by_seed(groups: Sequence[Sequence[Record]], metric: Metric) -> list[float]:
    """Of every seed the mean over the groups; their mean alone unless all of them share their seeds."""
    scores = [{r.seed: r.metrics[metric] for r in group if metric in r.metrics} for group in groups]
    if any(group.keys() != scores[0].keys() for group in scores):
        return [fmean(fmean(group.values()) for group in scores)]
    return [fmean(group[seed] for group in scores) for seed in scores[0]]


def _one_more(values: Sequence[float]) -> tuple[float | None, float | None]:
    """`prediction`, within what a score can be; None for fewer than two."""
    if len(values) < 2:
        return None, None
    low, high = prediction(values)
    return max(low, 0.0), min(high, 1.0)


def _note(runs: list[Record], shown: list[Record], metric: Metric) -> str:
    """What a reader must know of a row: labels, remarks, why a value is absent, runs that are not in it."""
    notes = [note for r in shown for note in r.labels() + r.remarks()]
    notes += [r.undefined[metric] for r in shown if metric in r.undefined]
    failed = sum(r.status == "failed" for r in runs)
    left_out = len(runs) - len(shown) - failed
    if failed:
        notes.append(f"{failed} failed")
    if left_out:
        notes.append(f"{left_out} not comparable and left out")
    return "; ".join(dict.fromkeys(notes))


def side_by_side(records: Sequence[Record], method: str, metrics: Iterable[Metric]) -> pd.DataFrame:
    """A `ComparisonRow` per metric for categories that were run; a mean is over its metric's categories."""
    columns = {METRICS[metric]: comparison(records, method, metric) for metric in metrics}
    frame = pd.DataFrame({"Category": [*CATEGORIES, "mean"]} | columns, dtype=object)
    return frame[[any(row.reproduced is not None for row in cells) for cells in zip(*columns.values())]]
