"""What runs cost, from the records. Imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from stlib.records.schema import Record
from study.plan.estimate import held_seconds, seconds


@dataclass(frozen=True)
class Spent:
    """What the recorded runs on MVTec AD took."""

    runs: int
    cpu_hours: float
    """Of one core."""
    gpu_hours: float
    evaluation: float
    """Share of a run that is evaluation, in the median: maps, metrics, bootstrap, every other reading."""


def spent(records: Iterable[Record]) -> Spent:
    """Core hours and GPU hours in the records."""
    runs = [r for r in records if r.profile != "demo"]
    cpu, gpu = (
        sum(held_seconds(r) for r in runs if r.runtime.processor == kind) / 3600 for kind in ("CPU", "GPU")
    )
    share = median(r.runtime.evaluate_seconds / seconds(r) for r in runs) if runs else 0.0
    return Spent(len(runs), cpu, gpu, share)
