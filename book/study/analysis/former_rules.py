"""The rule for scores until 2026-11-25, on today's records, beside the one that holds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stlib.protocol import Metric
from stlib.records.schema import Record
from study.analysis.comparison import OUTSIDE, comparison

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
