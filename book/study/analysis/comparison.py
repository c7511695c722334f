"""Records beside reported numbers: what was measured, how far it lies from the paper, and the verdict.

Imports no torch, so that the book builds quickly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from stlib.protocol import CATEGORIES, SEEDS_FOR_A_VERDICT, TOLERANCES, Metric, Profile
from stlib.records.reported import METHOD_NAMES, PAPERS, Reported, reported
from stlib.records.schema import Run, Summary

Verdict = Literal["agrees", "lower", "higher", "not run", "not comparable", "not reported"]

METHODS = PAPERS
"""The methods of this study, in the order of their publication."""
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap replicates that bound an interval."""


@dataclass(frozen=True)
class ComparisonRow:
    """One line of a comparison. All scores are fractions in [0, 1]; None where there is nothing to show."""

    category: str
    verdict: Verdict
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
    """Bootstrap interval over test images, of the mean over seeds."""
    difference: float | None = None
    """Reproduced minus reported."""
    provisional: bool = False
    """True when the verdict rests on fewer than SEEDS_FOR_A_VERDICT seeds."""
    note: str = ""
    records: tuple[str, ...] = ()
    """Paths of the records behind the number, relative to the folder of records."""

    @property
    def inside(self) -> bool:
        """Whether chance in the test images alone could explain the difference from the reported number."""
        ends = (self.low, self.reported_number, self.high)
        low, printed, high = (end if end is not None else float("nan") for end in ends)
        return low <= printed <= high


def verdict(reproduced: float | None, reported: float | None, metric: Metric) -> Verdict:
    """The pre-registered rule: agreement is a difference of at most TOLERANCES[metric].

    >>> verdict(0.951, 0.970, "pixel_auroc"), verdict(0.970, 0.980, "pixel_auroc")
    ('lower', 'agrees')
    """
    if reproduced is None:
        return "not run"
    if reported is None:
        return "not reported"
    difference = round(reproduced - reported, 9)  # 0.98 - 0.97 is a little more than 0.01 in binary
    if abs(difference) <= TOLERANCES[metric]:
        return "agrees"
    return "lower" if difference < 0 else "higher"


def select(
    records: Iterable[Run], method: str, *, profile: Profile = "paper", variant: str = ""
) -> list[Run]:
    """All runs of one method, variant and profile, failed ones included."""
    return [r for r in records if (r.method, r.profile, r.variant) == (method, profile, variant)]


def comparable(records: Iterable[Run]) -> list[Run]:
    """The finished runs that may enter a mean or a verdict: those without labels."""
    return [r for r in records if r.status == "finished" and not r.labels()]


def comparison(
    records: Iterable[Summary], method: str, metric: Metric, *, profile: Profile = "paper", variant: str = ""
) -> pd.DataFrame:
    """Reported and reproduced: fields of `ComparisonRow`, a row per MVTec AD category and one for the mean.

    The last row covers the categories with a comparable run only, on both sides. Raises ValueError for an
    unknown method.
    """
    runs = select(records, method, profile=profile, variant=variant)
    groups = {name: [r for r in runs if r.category == name] for name in CATEGORIES}
    rows = [_category_row(group, method, metric, name, variant) for name, group in groups.items()]
    frame = pd.DataFrame([asdict(row) for row in (*rows, _mean_row(rows, groups, metric))])
    frame.attrs = {"method": method, "metric": metric}
    return frame


def _category_row(
    runs: list[Summary], method: str, metric: Metric, category: str, variant: str
) -> ComparisonRow:
    printed = reported(method, metric, category, variant=variant)
    reported_number = printed.number if printed else None
    clean = [r for r in comparable(runs) if metric in r.metrics]
    shown = clean or [r for r in runs if r.status == "finished"]
    values = [r.metrics[metric] for r in shown if metric in r.metrics]
    mean = fmean(values) if values else None
    rule: Verdict = verdict(mean, reported_number, metric) if clean or not shown else "not comparable"
    low, high = _interval(_draws(shown, metric))
    return ComparisonRow(
        category,
        rule,
        f"{printed.exact:f}" if printed else None,
        reported_number,
        printed.source if printed else "",
        reproduced=mean,
        sd=stdev(values) if len(values) > 1 else None,
        seeds=len(shown),
        low=low,
        high=high,
        difference=None if rule == "not comparable" else _difference(mean, reported_number),
        provisional=_is_provisional(rule, len(shown)),
        note=_note(runs, shown, metric),
        records=tuple(r.path.as_posix() for r in shown),
    )


def _mean_row(
    rows: Sequence[ComparisonRow], groups: dict[str, list[Summary]], metric: Metric
) -> ComparisonRow:
    """The mean over the comparable categories, beside the reported mean of the same categories."""
    measured = [row for row in rows if row.verdict not in ("not run", "not comparable")]
    measured = [row for row in measured if row.reported_number is not None] or measured
    name = f"mean of {len(measured)} of {len(rows)}"
    if not measured:
        return ComparisonRow(name, "not run")
    runs = [[r for r in comparable(groups[row.category]) if metric in r.metrics] for row in measured]
    mean = fmean(fmean(r.metrics[metric] for r in group) for group in runs)
    printed = [row.reported_number for row in measured if row.reported_number is not None]
    reported_number = fmean(printed) if printed else None
    seeds = min(len(group) for group in runs)
    draws = [_draws(group, metric) for group in runs]
    low, high = _interval([np.mean(d, axis=0) for d in draws] if all(draws) else [])
    rule = verdict(mean, reported_number, metric)
    return ComparisonRow(
        name,
        rule,
        f"{reported_number:.4f}" if reported_number is not None else None,
        reported_number,
        reproduced=mean,
        sd=_spread_of_mean(runs, metric),
        seeds=seeds,
        low=low,
        high=high,
        difference=_difference(mean, reported_number),
        provisional=_is_provisional(rule, seeds),
    )


def _spread_of_mean(runs: Sequence[Sequence[Summary]], metric: Metric) -> float | None:
    """Standard deviation over seeds of the mean over categories; None unless all share the same seeds."""
    by_seed = [{r.seed: r.metrics[metric] for r in group} for group in runs]
    if len(by_seed[0]) < 2 or any(scores.keys() != by_seed[0].keys() for scores in by_seed):
        return None
    return stdev(fmean(scores[seed] for scores in by_seed) for seed in by_seed[0])


def _draws(runs: Iterable[Summary], metric: Metric) -> list[Sequence[float]]:
    return [r.bootstrap[metric] for r in runs if r.bootstrap.get(metric)]


def _interval(replicates: Sequence[ArrayLike]) -> tuple[float | None, float | None]:
    """Percentile interval of paired replicates, averaged over the first axis."""
    if not replicates:
        return None, None
    low, high = np.nanpercentile(np.mean(np.asarray(replicates, float), axis=0), INTERVAL)
    return float(low), float(high)


def _difference(reproduced: float | None, reported: float | None) -> float | None:
    return None if reproduced is None or reported is None else reproduced - reported


def _is_provisional(rule: Verdict, seeds: int) -> bool:
    return rule in ("agrees", "lower", "higher") and seeds < SEEDS_FOR_A_VERDICT


def _note(runs: list[Summary], shown: list[Summary], metric: Metric) -> str:
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


def level(records: Iterable[Summary], method: str, metric: Metric) -> Level:
    """Of the runs at the paper's schedule."""
    runs = [r for r in select(records, method) if r.status == "finished"]
    *rows, mean = rows_of(comparison(runs, method, metric))
    judged = [row for row in rows if row.difference is not None]
    return Level(method, metric, reported(method, metric), mean, judged, len(runs), len(comparable(runs)))


def means(records: Sequence[Summary], method: str, metrics: Iterable[Metric]) -> pd.DataFrame:
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


def state_of_study(
    records: Iterable[Summary],
    methods: Sequence[str] = METHODS,
    categories: Iterable[str] = tuple(CATEGORIES),
) -> pd.DataFrame:
    """What is measured under the paper's schedule, one row per method and category.

    Columns: `method` (the name shown to readers), `category`, `seeds` (comparable runs), `labelled` (finished
    runs that are not comparable), `failed`, `text` ('2 seeds', 'not run', ...).
    """
    runs = list(records)
    rows = []
    for method in methods:
        own = select(runs, method)
        for category in categories:
            group = [r for r in own if r.category == category]
            seeds, failed = len(comparable(group)), sum(r.status == "failed" for r in group)
            labelled = len(group) - seeds - failed
            text = _state(seeds, labelled, failed)
            rows.append((METHOD_NAMES[method], category, seeds, labelled, failed, text))
    return pd.DataFrame(rows, columns=["method", "category", "seeds", "labelled", "failed", "text"])


def progress(state: pd.DataFrame) -> pd.DataFrame:
    """From `state_of_study`, a row per method: `categories` with comparable runs, the `fewest` and `most`
    seeds of them, and `labelled`, categories with other finished runs.
    """
    measured = state["seeds"].where(state["seeds"] > 0)
    marks = state.assign(measured=measured, others=state["labelled"] > 0).groupby("method", sort=False)
    return marks.agg(
        categories=("measured", "count"),
        fewest=("measured", "min"),
        most=("measured", "max"),
        labelled=("others", "sum"),
    ).reset_index()


def _state(seeds: int, labelled: int, failed: int) -> str:
    if seeds:
        return f"{seeds} seed{'s' * (seeds > 1)}"
    return "not comparable" if labelled else "failed" if failed else "not run"
