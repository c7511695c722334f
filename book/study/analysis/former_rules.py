"""The rules of verdict until 2026-11-25, on today's records, beside those that hold. Imports no torch."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, t

from stlib.protocol import Metric
from stlib.records.schema import Record
from study.analysis.comparison import OUTSIDE, comparison
from study.analysis.paired import Couple, match_runs
from study.analysis.teacher_epochs import one_teacher, tested_epochs, untuned

Replicates = NDArray[np.float64]

METRICS: tuple[Metric, ...] = ("image_auroc", "pixel_auroc")


def scores(records: Sequence[Record]) -> pd.DataFrame:
    """STPM's judged categories: fields of `ComparisonRow` and the former interval.

    `old_low`, `old_high`: percentiles of the replicates over test images, averaged over seeds; `old_inside`
    and `now_inside`: whether the printed score lies in the former and in today's interval; `old_verdict`.
    """
    rows = []
    for metric in METRICS:
        for row in comparison(records, "stpm", metric)[:-1]:
            if row.difference is None or row.reported_number is None:
                continue
            draws = [r.bootstrap[metric] for r in records if r.path.as_posix() in row.records]
            low, high = np.percentile(np.mean(draws, axis=0), (2.5, 97.5))
            inside = bool(low <= row.reported_number <= high)
            old = {"old_low": low, "old_high": high, "old_inside": inside, "now_inside": row.inside}
            outside = "lower" if row.difference < 0 else "higher"
            old["old_verdict"] = outside if row.verdict in OUTSIDE else "agrees"
            rows.append(vars(row) | old)
    return pd.DataFrame(rows, dtype=object)


def differences(records: Sequence[Record]) -> pd.DataFrame:
    """ET-STPM minus STPM, the teacher of seed 0: columns of `tested_epochs`, `metric`, the former answer."""
    parts = []
    for metric in METRICS:
        tuned = one_teacher(records)
        groups: dict[str, list[Couple]] = {}
        for couple in match_runs(untuned(records, "paper"), tuned, metric):
            groups.setdefault(couple[0].category, []).append(couple)
        draws: dict[object, Replicates] = {name: _drawn_again(g, metric) for name, g in groups.items()}
        for pair in tested_epochs(records, tuned, metric).to_dict("records"):
            old = draws.get(pair["category"], np.array(list(draws.values())).mean(axis=0))
            low, high = np.percentile(old, (2.5, 97.5))
            seeds = len(pair["seeds"])
            sides = ("gain", "loss") if seeds > 1 else ("higher on one seed", "lower on one seed")
            answer = sides[0] if low > 0 else sides[1] if high < 0 else "no difference to be seen"
            parts.append(pair | {"metric": metric, "old_low": low, "old_high": high, "old_answer": answer})
    return pd.DataFrame(parts, dtype=object)


def _drawn_again(couples: Iterable[Couple], metric: Metric) -> Replicates:
    """Replicates of a difference: seeds drawn again, the same draws everywhere, widened for their number."""
    found: Replicates = np.array([np.subtract(b.bootstrap[metric], a.bootstrap[metric]) for a, b in couples])
    count = len(found)
    mean: Replicates = found.mean(axis=0)
    if count == 1:
        return mean
    places = np.random.default_rng(0).integers(count, size=found.shape)
    wider = np.sqrt(count / (count - 1)) * t.ppf(0.975, count - 1) / norm.ppf(0.975)
    again: Replicates = np.take_along_axis(found, places, axis=0).mean(axis=0)
    widened: Replicates = mean + wider * (again - mean)
    return widened
