"""Does training in bfloat16 change the numbers? Pairs of runs beside the seeds' spread. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from stlib.protocol import METRICS, SEEDS_FOR_A_VERDICT, Metric, Profile
from stlib.records.schema import Record
from study.analysis.paired import Couple, PairedDifference, RunGroup, compare, match_runs, row_of


@dataclass(frozen=True)
class Rounding:
    """What fp32 changes against bf16 in one metric, and what another seed changes."""

    difference: PairedDifference
    """fp32 minus bf16: the mean over categories and seeds."""
    spread: float | None
    """Standard deviation over seeds, mean over categories, of the precision that spreads less."""

    @property
    def inside(self) -> Literal["yes", "no", "inconclusive", "too few seeds"]:
        """Whether the difference is no larger than that spread: then bf16 may stand for fp32.

        Yes and no need the whole interval on one side.
        """
        pair = self.difference
        if self.spread is None or len(pair.seeds) < SEEDS_FOR_A_VERDICT:
            return "too few seeds"
        if max(abs(pair.low), abs(pair.high)) <= self.spread:
            return "yes"
        return "no" if pair.low > self.spread or pair.high < -self.spread else "inconclusive"


def couples(records: Sequence[Record], method: str, profile: Profile) -> list[Couple]:
    """All pairs of finished runs as published, the first trained in bf16, the second in fp32."""
    own, bf16, fp32 = (
        RunGroup(method, variant, profile).of(records) for variant in ("", "precision=bf16", "precision=fp32")
    )
    found = match_runs(bf16, own, other_precision=True) + match_runs(own, fp32, other_precision=True)
    return [(a, b) for a, b in found if (a.precision, b.precision) == ("bf16", "fp32")]


def rounding(found: Sequence[Couple], metric: Metric) -> Rounding | None:
    """The comparison in one metric; None where no pair has it."""
    kept = [pair for pair in found if all(run.bootstrap.get(metric) for run in pair)]
    if not kept:
        return None
    scores = pd.DataFrame(
        [(a.category, a.metrics[metric], b.metrics[metric]) for a, b in kept],
        columns=["category", "bf16", "fp32"],
    )
    spreads = scores.groupby("category").std().mean().dropna()
    return Rounding(compare(kept, metric)[-1], float(spreads.min()) if len(spreads) else None)


def frame(found: Sequence[Couple]) -> pd.DataFrame:
    """`rounding` of every metric that a pair has: `metric`, `spread`, `inside`, the mean pair."""
    rows = [
        {"metric": metric} | row_of(change.difference) | {"spread": change.spread, "inside": change.inside}
        for metric in METRICS
        if (change := rounding(found, metric))
    ]
    return pd.DataFrame(rows, dtype=object)
