"""Records beside reported numbers: what was measured, how far it lies from the paper, and the verdict.

Imports no torch, so that the book builds quickly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import pandas as pd

from stlib.protocol import ABLATION_ROWS, CATEGORIES, SEEDS_FOR_A_VERDICT, TOLERANCES, Metric, Profile
from stlib.records.reported import PAPERS, Reported, reported
from stlib.records.schema import Record
from study.analysis.inference import equivalent, prediction

Verdict = Literal[
    "agrees, equivalence shown",
    "agrees, equivalence not shown",
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
"""Systems that the papers compare themselves with: here with ResNet-18, printed with another network."""
UNJUDGED = ("not run", "not comparable", "different backbone")
"""Verdicts of scores that no printed number is held against."""
RIVALS = {"stpm": "et_stpm", "et_stpm": "stpm", "destseg": "pfadseg", "pfadseg": "destseg"}
"""The method that one is said to beat, or to be beaten by: can a tolerance tell the two apart?"""


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a comparison. All scores are fractions in [0, 1]; None where there is nothing to show."""

    category: str
    verdict: Verdict
    tolerance: float
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
    """Reproduced minus reported."""
    rival: str = ""
    gap: float | None = None
    """The rival's printed score minus this one's: a tolerance as wide cannot tell the two apart."""
    provisional: bool = False
    """True when the verdict rests on fewer than SEEDS_FOR_A_VERDICT seeds."""
    note: str = ""
    records: tuple[str, ...] = ()
    """Paths of the records behind the number, relative to the folder of records."""

    @property
    def inside(self) -> bool:
        """Whether the reported number lies where one more run has to be expected."""
        ends = (self.low, self.reported_number, self.high)
        low, printed, high = (end if end is not None else float("nan") for end in ends)
        return low <= printed <= high


def verdict(values: Sequence[float], reported: float | None, metric: Metric) -> Verdict:
    """The rule, of the scores of several seeds: does their mean lie within TOLERANCES[metric], and provably?

    >>> [verdict(seeds, 0.970, "pixel_auroc") for seeds in ([0.951], [0.979, 0.981], [0.974, 0.975, 0.976])]
    ['lower', 'agrees, equivalence not shown', 'agrees, equivalence shown']
    """
    if not values:
        return "not run"
    if reported is None:
        return "not reported"
    difference = round(fmean(values) - reported, 9)  # 0.98 - 0.97 is a little more than 0.01 in binary
    if abs(difference) > TOLERANCES[metric]:
        return "lower" if difference < 0 else "higher"
    shown = len(values) > 1 and equivalent(values, reported, TOLERANCES[metric])
    return "agrees, equivalence shown" if shown else "agrees, equivalence not shown"


def select(
    records: Iterable[Record], method: str, *, profile: Profile = "paper", variant: str = ""
) -> list[Record]:
    """All runs of one method, variant and profile, failed ones included."""
    return [r for r in records if (r.method, r.profile, r.variant) == (method, profile, variant)]


def comparable(records: Iterable[Record]) -> list[Record]:
    """The finished runs that may enter a mean or a verdict: those without labels."""
    return [r for r in records if r.status == "finished" and not r.labels()]


def comparison(
    records: Iterable[Record],
    method: str,
    metric: Metric,
    *,
    profile: Profile = "paper",
    variant: str = "",
    paper: str | None = None,
) -> pd.DataFrame:
    """Reported and reproduced: fields of `ComparisonRow`, a row per MVTec AD category and one for the mean.

    The last row covers the categories with a comparable run only, on both sides. `paper`: where the reported
    values are printed, if not where `reported` asks first. Raises ValueError for an unknown method or paper.
    """
    runs = select(records, method, profile=profile, variant=variant)
    groups = {name: [r for r in runs if r.category == name] for name in CATEGORIES}
    row = variant if variant in ABLATION_ROWS else ""
    known = {c: reported(method, metric, c, variant=row, paper=paper) for c in (*CATEGORIES, "mean")}
    rows = [_category_row(group, method, metric, name, known[name]) for name, group in groups.items()]
    mean = _mean_row(rows, groups, metric, _gap(method, metric, "mean", known["mean"]))
    frame = pd.DataFrame([asdict(row) for row in (*rows, mean)])
    frame["rival"] = RIVALS.get(method, "")
    frame.attrs = {"method": method, "metric": metric}
    return frame


def _gap(method: str, metric: Metric, category: str, printed: Reported | None) -> float | None:
    other = reported(RIVALS[method], metric, category) if method in RIVALS else None
    return other.number - printed.number if other and printed else None


def _category_row(
    runs: list[Record], method: str, metric: Metric, category: str, printed: Reported | None
) -> ComparisonRow:
    reported_number = printed.number if printed else None
    clean = [r for r in comparable(runs) if metric in r.metrics]
    shown = clean or [r for r in runs if r.status == "finished"]
    values = [r.metrics[metric] for r in shown if metric in r.metrics]
    mean = fmean(values) if values else None
    rule: Verdict = verdict(values, reported_number, metric) if clean or not shown else "not comparable"
    if method in COMPARATORS and clean:
        rule = "different backbone"
    low, high = _one_more(values)
    return ComparisonRow(
        category,
        rule,
        TOLERANCES[metric],
        f"{printed.exact:f}" if printed else None,
        reported_number,
        printed.source if printed else "",
        reproduced=mean,
        sd=stdev(values) if len(values) > 1 else None,
        seeds=len(shown),
        low=low,
        high=high,
        difference=None if rule in UNJUDGED else _difference(mean, reported_number),
        gap=_gap(method, metric, category, printed),
        provisional=_is_provisional(rule, len(shown)),
        note=_note(runs, shown, metric),
        records=tuple(r.path.as_posix() for r in shown),
    )


def _mean_row(
    rows: Sequence[ComparisonRow], groups: dict[str, list[Record]], metric: Metric, gap: float | None
) -> ComparisonRow:
    """The mean over the comparable categories, beside the reported mean of the same categories."""
    measured = [row for row in rows if row.verdict not in ("not run", "not comparable")]
    measured = [row for row in measured if row.reported_number is not None] or measured
    name = f"mean of {len(measured)} of {len(rows)}"
    if not measured:
        return ComparisonRow(name, "not run", TOLERANCES[metric])
    runs = [[r for r in comparable(groups[row.category]) if metric in r.metrics] for row in measured]
    mean = fmean(fmean(r.metrics[metric] for r in group) for group in runs)
    printed = [row.reported_number for row in measured if row.reported_number is not None]
    reported_number = fmean(printed) if printed else None
    seeds = min(len(group) for group in runs)
    means = _means_of_seeds(runs, metric)
    gaps = [row.gap for row in measured if row.gap is not None]
    rule = verdict(means or [mean], reported_number, metric)
    if all(row.verdict == "different backbone" for row in measured):
        rule = "different backbone"
    low, high = _one_more(means)
    return ComparisonRow(
        name,
        rule,
        TOLERANCES[metric],
        f"{reported_number:.4f}" if reported_number is not None else None,
        reported_number,
        reproduced=mean,
        sd=stdev(means) if means else None,
        seeds=seeds,
        low=low,
        high=high,
        difference=None if rule in UNJUDGED else _difference(mean, reported_number),
        gap=fmean(gaps) if gaps else gap,
        provisional=_is_provisional(rule, seeds),
    )


def _means_of_seeds(runs: Sequence[Sequence[Record]], metric: Metric) -> list[float]:
    """Of every seed the mean over categories; empty unless all categories share two seeds or more."""
    by_seed = [{r.seed: r.metrics[metric] for r in group} for group in runs]
    if len(by_seed[0]) < 2 or any(scores.keys() != by_seed[0].keys() for scores in by_seed):
        return []
    return [fmean(scores[seed] for scores in by_seed) for seed in by_seed[0]]


def _one_more(values: Sequence[float]) -> tuple[float | None, float | None]:
    """`prediction`, within what a score can be; None for fewer than two."""
    if len(values) < 2:
        return None, None
    low, high = prediction(values)
    return max(low, 0.0), min(high, 1.0)


def _difference(reproduced: float | None, reported: float | None) -> float | None:
    return None if reproduced is None or reported is None else reproduced - reported


def _is_provisional(rule: Verdict, seeds: int) -> bool:
    return rule.startswith(("agrees", "lower", "higher")) and seeds < SEEDS_FOR_A_VERDICT


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


def rows_of(frame: pd.DataFrame) -> list[ComparisonRow]:
    """The rows of a comparison as they were before pandas turned None into NaN."""
    cells: list[dict[str, Any]] = [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
    return [ComparisonRow(**row) for row in cells]


@dataclass(frozen=True)
class Level:
    """Does a method reach its printed score?"""

    method: str
    metric: Metric
    printed: Reported | None
    """The mean over 15 categories."""
    mean: ComparisonRow
    judged: list[ComparisonRow]
    """The categories with a verdict."""
    finished: int
    """Runs, labelled ones included."""
    compared: int
    """Runs without a label."""


def level(records: Iterable[Record], method: str, metric: Metric) -> Level:
    """Of the runs at the paper's schedule."""
    runs = [r for r in select(records, method) if r.status == "finished"]
    *rows, mean = rows_of(comparison(runs, method, metric))
    judged = [row for row in rows if row.difference is not None]
    return Level(method, metric, reported(method, metric), mean, judged, len(runs), len(comparable(runs)))


def means(records: Sequence[Record], method: str, metrics: Iterable[Metric]) -> pd.DataFrame:
    """The mean rows of several comparisons, with their `metric`; empty where no run can be judged."""
    rows = [comparison(records, method, m).iloc[-1].to_dict() | {"metric": m} for m in metrics]
    return pd.DataFrame(rows if any(row["verdict"] != "not run" for row in rows) else [])


def differing(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The categories that the comparisons call lower or higher, with the `metric`; no mean rows."""
    shown = [
        frame[frame["verdict"].isin(["lower", "higher"]) & frame["category"].isin(list(CATEGORIES))].assign(
            metric=frame.attrs["metric"]
        )
        for frame in frames
    ]
    for frame in shown:
        frame.attrs = {}
    return pd.concat(shown)


def side_by_side(columns: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A `ComparisonRow` per category and comparison; each has its own mean, over its own categories."""
    rows = {name: rows_of(frame) for name, frame in columns.items()}
    return pd.DataFrame({"Category": [*CATEGORIES, "mean"]} | rows, dtype=object)
