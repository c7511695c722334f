"""Does training in bfloat16 change the numbers? Pairs of runs beside the seeds' spread."""

from collections.abc import Sequence

import pandas as pd

from stlib.protocol import METRICS, SEEDS_FOR_A_VERDICT, Metric, Profile
from stlib.records.schema import Record
from study.analysis.comparison import RunGroup
from study.analysis.paired import Couple, PairedDifference, compare, match_runs, row_of


def couples(records: Sequence[Record], method: str, profile: Profile) -> list[Couple]:
    """All pairs of finished runs as published, the first trained in bf16, the second in fp32."""
    own, bf16, fp32 = (
        RunGroup(method, variant, profile).of(records) for variant in ("", "precision=bf16", "precision=fp32")
    )
    found = match_runs(bf16, own, other_precision=True) + match_runs(own, fp32, other_precision=True)
    return [(a, b) for a, b in found if (a.precision, b.precision) == ("bf16", "fp32")]


def rounding(found: Sequence[Couple], metric: Metric) -> dict[str, object] | None:
    """What fp32 changes against bf16 in one metric, and what another seed changes; None where no pair has it.

    The fields of the mean pair, `paired.row_of`; `spread`, the standard deviation over seeds, mean over
    categories, of the precision that spreads less; `inside`: whether the difference is no larger.
    """
    kept = [pair for pair in found if all(run.bootstrap.get(metric) for run in pair)]
    if not kept:
        return None
    scores = pd.DataFrame(
        [(a.category, a.metrics[metric], b.metrics[metric]) for a, b in kept],
        columns=["category", "bf16", "fp32"],
    )
    spreads = scores.groupby("category").std().mean().dropna()
    spread = float(spreads.min()) if len(spreads) else None
    mean = compare(kept, metric)[-1]
    return {"metric": metric} | row_of(mean) | {"spread": spread, "inside": _inside(mean, spread)}


def _inside(pair: PairedDifference, spread: float | None) -> str:
    """Yes, then bf16 may stand for fp32, and no need the whole interval on one side."""
    if spread is None or len(pair.seeds) < SEEDS_FOR_A_VERDICT:
        return "too few seeds"
    if max(abs(pair.low), abs(pair.high)) <= spread:
        return "yes"
    return "no" if pair.low > spread or pair.high < -spread else "inconclusive"


def frame(found: Sequence[Couple]) -> pd.DataFrame:
    """`rounding` of every metric that a pair has."""
    return pd.DataFrame([row for metric in METRICS if (row := rounding(found, metric))], dtype=object)
