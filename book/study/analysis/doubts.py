"""What a sceptical reviewer counts: the runs behind the verdicts, how firm they are."""

from collections.abc import Iterable, Sequence
from statistics import median, stdev

import numpy as np
import pandas as pd

from stlib.protocol import CATEGORIES, METRICS, SEEDS_FOR_A_VERDICT, Metric
from stlib.records.schema import Record
from study.analysis.comparison import METHODS, RunGroup, comparable, comparison
from study.analysis.paired import compare, match_runs
from study.analysis.runs import auroc, good_and_defective


def on_mvtec(records: Iterable[Record]) -> list[Record]:
    """The finished runs on MVTec AD, whatever their labels."""
    return [r for r in records if r.status == "finished" and r.dataset.name == "MVTec AD"]


def coverage(records: Sequence[Record]) -> pd.DataFrame:
    """A row per method: its `judged` categories, those `run` at all, those with `enough` seeds.

    `runs`: as published, without a label. `labelled`: with a label; `labels`: which ones. `variants`: those
    that deviate from the published method, whatever their labels.
    """
    rows = []
    for method in METHODS:
        runs = [r for r in on_mvtec(records) if r.method == method]
        clean = [r for r in comparable(runs) if not r.variant]
        seeds = pd.Series([r.category for r in clean], dtype=object).value_counts()
        rows.append(
            {
                "method": method,
                "judged": len(seeds),
                "run": [name for name in CATEGORIES if any(r.category == name for r in runs)],
                "enough": int((seeds >= SEEDS_FOR_A_VERDICT).sum()),
                "runs": len(clean),
                "labelled": sum(bool(r.labels()) for r in runs if not r.variant),
                "variants": sum(bool(r.variant) for r in runs),
                "labels": list(dict.fromkeys(label for r in runs for label in r.labels())),
            }
        )
    return pd.DataFrame(rows)


def teachers(records: Sequence[Record]) -> dict[str, object]:
    """How many runs had which `sources` of weights, which `layers` a file lacks and in how many runs.

    `partial`: runs with such a file; `tuned`: those of them that fine-tuned it; `hashes`: of the tensors that
    are used without fine-tuning.
    """
    runs = on_mvtec(records)
    partial = [r for r in runs if r.teacher.missing]
    return {
        "runs": len(runs),
        "sources": pd.Series([r.teacher.source for r in runs], dtype=object)
        .value_counts(sort=False)
        .to_dict(),
        "partial": len(partial),
        "layers": sorted({name.partition(".")[0] for r in partial for name in r.teacher.missing}),
        "tuned": sum(bool(r.teacher.tuned and r.teacher.tuned.epochs) for r in partial),
        "hashes": len({r.teacher.pyramid_sha256 for r in runs if not r.teacher.tuned}),
    }


def seed_spread(records: Sequence[Record], metrics: Sequence[Metric]) -> pd.DataFrame:
    """Standard deviation over the seeds of a `method` on a `category`, where two or more can be compared.

    A column per metric, and the number of `seeds`. The `variant` is empty, or the first row of the ablation.
    """
    rows: list[dict[str, object]] = []
    for method, variant in [*((method, "") for method in METHODS), ("pfadseg", "none")]:
        clean = comparable(RunGroup(method, variant).of(records))
        for category in CATEGORIES:
            group = [r for r in clean if r.category == category]
            if len(group) > 1:
                scores = {m: [r.metrics[m] for r in group if m in r.metrics] for m in metrics}
                spreads = {m: stdev(values) if len(values) > 1 else None for m, values in scores.items()}
                place = {"method": method, "variant": variant, "category": category, "seeds": len(group)}
                rows.append(place | spreads)
    return pd.DataFrame(rows)


def verdicts(records: Sequence[Record]) -> pd.DataFrame:
    """Every category's `verdict`: `method`, `metric`, `seeds`, and the `share` of the tolerance."""
    rows = [
        (method, metric, row.verdict, row.seeds, abs(row.difference) / row.tolerance)
        for method in METHODS
        for runs in [RunGroup(method).of(records)]
        for metric in METRICS
        for row in comparison(runs, method, metric)[:-1]
        if row.difference is not None
    ]
    return pd.DataFrame(rows, columns=["method", "metric", "verdict", "seeds", "share"])


def basic_intervals(records: Sequence[Record], metrics: Iterable[Metric]) -> pd.DataFrame:
    """The images' part of paired intervals by Student's rule and as basic bootstrap intervals, by `metric`.

    Every single run that can be paired with STPM's. `pairs`; `moved`, how far an end moves as a share of the
    interval's width, in the median; `turned`, intervals that then lie on another side of zero.
    """
    everything = list(records)
    stpm = RunGroup("stpm").of(everything)
    others = [r for r in everything if r.profile == "paper" and (r.method, r.variant) != ("stpm", "")]
    variants = {(r.method, r.variant) for r in others}
    rows = []
    for metric in metrics:
        moved, turned = [], 0
        for variant in sorted(variants):
            for a, b in match_runs(stpm, RunGroup(*variant).of(others), metric):
                pair = compare([(a, b)], metric)[0]
                draws = np.subtract(b.bootstrap[metric], a.bootstrap[metric])
                low, high = 2 * pair.difference - np.percentile(draws, (97.5, 2.5))
                if width := pair.high - pair.low:
                    moved.append(max(abs(low - pair.low), abs(high - pair.high)) / width)
                    turned += (np.sign(low) + np.sign(high)) != (np.sign(pair.low) + np.sign(pair.high))
        if moved:
            rows.append(
                {"metric": metric, "pairs": len(moved), "moved": median(moved), "turned": int(turned)}
            )
    return pd.DataFrame(rows, columns=["metric", "pairs", "moved", "turned"])


def counted_again(records: Iterable[Record]) -> list[float]:
    """Per run, how far its image AUROC lies from that of its image scores, counted by SciPy."""
    runs = [r for r in on_mvtec(records) if "image_auroc" in r.metrics]
    counted = ((r, auroc(*good_and_defective(r))) for r in runs)
    return [abs(again - r.metrics["image_auroc"]) for r, again in counted if again is not None]
