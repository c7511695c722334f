"""Does training in bfloat16 change the numbers? Pairs of runs beside the seeds' spread. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from stlib.protocol import METRICS, Metric, Profile
from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Summary
from study.analysis.comparison import select
from study.analysis.paired import PairedDifference, alike, compare
from study.tables import NOT_RUN, Markup, Text, interval, plain, signed, to_html

Couple = tuple[Summary, Summary]
"""A run in bf16 and one in fp32 with the same method, category and seed."""


@dataclass(frozen=True)
class Rounding:
    """What fp32 changes against bf16 in one metric, and what another seed changes."""

    difference: PairedDifference
    """fp32 minus bf16: the mean over categories and seeds."""
    spread: float | None
    """Standard deviation over seeds, mean over categories, of the precision that spreads less."""

    @property
    def inside(self) -> bool:
        """Whether the difference is no larger than that spread: then bf16 may stand for fp32."""
        return self.spread is not None and abs(self.difference.difference) <= self.spread


def couples(records: Sequence[Summary], method: str, profile: Profile) -> list[Couple]:
    """All pairs of finished runs as published, one trained in bf16, one in fp32."""
    own = {(r.category, r.seed): r for r in select(records, method, profile=profile) if r.metrics}
    found = []
    for variant in ("precision=bf16", "precision=fp32"):
        for other in select(records, method, profile=profile, variant=variant):
            run = own.get((other.category, other.seed))
            if run and other.metrics and {run.precision, other.precision} == {"bf16", "fp32"}:
                found.append((run, other) if run.precision == "bf16" else (other, run))
    return found


def rounding(found: Sequence[Couple], metric: Metric) -> Rounding | None:
    """The comparison in one metric; None where no pair has it."""
    kept = [pair for pair in alike(found) if all(run.bootstrap.get(metric) for run in pair)]
    if not kept:
        return None
    spreads = []
    for side in (0, 1):
        groups: dict[str, list[float]] = {}
        for pair in kept:
            groups.setdefault(pair[side].category, []).append(pair[side].metrics[metric])
        several = [stdev(values) for values in groups.values() if len(values) > 1]
        spreads.append(fmean(several) if several else None)
    known = [spread for spread in spreads if spread is not None]
    return Rounding(compare(kept, metric)[-1], min(known) if known else None)


def precisions_html(records: Sequence[Summary], method: str, profile: Profile) -> Markup:
    """A row per metric: fp32 minus bf16 with its interval, the seeds' spread, and whether it is inside."""
    found = couples(records, method, profile)
    name = f"{METHOD_NAMES[method]}, {profile} schedule"
    if not found:
        return Text(f"{name}: {NOT_RUN}")
    rows: list[dict[str, object]] = []
    for metric, label in METRICS.items():
        change = rounding(found, metric)
        if change:
            pair = change.difference
            rows.append(
                {
                    "Metric": label,
                    "fp32 - bf16": signed(pair.difference),
                    "95 % interval": interval(pair.low, pair.high),
                    "Spread over seeds": "one seed" if change.spread is None else f"{change.spread:.3f}",
                    "Inside": "-" if change.spread is None else ("yes" if change.inside else "no"),
                }
            )
    where = ", ".join(f"{a.category} s{a.seed}" for a, _ in found)
    labels = dict.fromkeys(label for pair in found for run in pair for label in run.labels())
    told = f". Labels of the runs: {'; '.join(labels)}" if labels else ""
    return to_html(plain(rows), f"{name}: {len(found)} pairs ({where}){told}")
