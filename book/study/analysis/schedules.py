"""STPM for 100 epochs, as its paper says, or for 200, as its authors' command does."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from stlib.protocol import Metric
from stlib.records.schema import Record
from study.analysis.comparison import RunGroup
from study.analysis.paired import compare, labelled, match_runs, pairs, row_of
from study.analysis.reported import reported

PAPER, LONG = RunGroup("stpm"), RunGroup("stpm", "epochs=200")
"""STPM as its paper trains it, and as long as its authors' README says."""
TUNED, TUNED_LONG = RunGroup("et_stpm"), RunGroup("et_stpm", "epochs=200")
"""The same with a tuned teacher."""

COMPARED: tuple[Metric, ...] = ("image_auroc", "pixel_auroc", "pixel_ap")
"""Printed in the authors' README, and the last in PFADSeg's quotation."""


def schedules(records: Iterable[Record]) -> pd.DataFrame:
    """Both schedules on equal seeds beside the printed number: a row per metric and category.

    Columns: `metric`; those of `paired.row_of`, `first` after 100 epochs and `second` after 200; `among` and
    `among_long`, the scores of all seeds after either; `printed` and `source`; `nearer`, the number of epochs
    whose mean lies nearer to it, None where both lie as near. `attrs` holds the `labels` of all runs. Empty
    where only one schedule was run.
    """
    everything = list(records)
    rows: list[dict[str, Any]] = []
    for metric in COMPARED:
        for pair in pairs(everything, PAPER, LONG, metric)[:-1]:
            printed = reported("stpm", metric, pair.category)
            own = [
                [run for run in group.of(everything) if run.category == pair.category]
                for group in (PAPER, LONG)
            ]
            among, among_long = ([r.metrics[metric] for r in runs if metric in r.metrics] for runs in own)
            row: dict[str, Any] = {"metric": metric, "printed": None, "source": "", "nearer": None}
            row |= {"among": among, "among_long": among_long}
            row |= row_of(pair)
            if printed and not pair.labels:  # a run with a label is held against no printed number
                short, long = (abs(score - printed.number) for score in (pair.first, pair.second))
                nearer = None if short == long else 100 if short < long else 200
                row |= {"printed": printed.number, "source": printed.source, "nearer": nearer}
            rows.append(row)
    return labelled(rows)


def tuned_or_longer(records: Iterable[Record]) -> pd.DataFrame:
    """What a tuned teacher brings over STPM, and over STPM that trains twice as long: metric by category.

    Columns: `metric`; those of `paired.row_of`, `first` STPM after 200 epochs and `second` ET-STPM after 100;
    `short`, STPM after 100; `gain`, ET-STPM's over that. All on the categories and seeds that the three have;
    the mean over the categories is the last row of its metric. `attrs` holds the `labels` of all runs.
    """
    everything = list(records)
    paper, long, tuned = (group.of(everything) for group in (PAPER, LONG, TUNED))
    rows: list[dict[str, Any]] = []
    for metric in COMPARED:
        places = {(run.category, run.seed) for run, _ in match_runs(paper, long, metric)}
        common = [run for run in tuned if (run.category, run.seed) in places]
        over_short = compare(match_runs(paper, common, metric), metric)
        for short, pair in zip(over_short, compare(match_runs(long, common, metric), metric), strict=True):
            row = {"metric": metric, "short": short.first, "gain": short.difference}
            rows.append(row | row_of(pair))
    return labelled(rows)


def convergence(records: Iterable[Record]) -> pd.DataFrame:
    """How far the validation errors of STPM and ET-STPM still fall in 200 epochs, where both were run.

    A row per run and epoch: `category`, `seed`, `method`, `epoch`, and `ratio`, the lowest error so far over
    the lowest of all. The errors themselves cannot be compared: two teachers have features of their own.
    """
    everything = list(records)
    rows = [
        {"category": run.category, "seed": run.seed, "method": run.method, "epoch": epoch, "ratio": ratio}
        for pair in match_runs(LONG.of(everything), TUNED_LONG.of(everything), "pixel_auroc")
        for run in pair
        if run.history
        for lowest in [np.minimum.accumulate(run.history.curves["val_score"])]
        for epoch, ratio in enumerate(lowest / lowest[-1], 1)
    ]
    return pd.DataFrame(rows, columns=["category", "seed", "method", "epoch", "ratio"])
