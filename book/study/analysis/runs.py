"""The runs themselves: which there are, how they were made, how long they took, how to repeat them."""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from stlib.protocol import CATEGORIES, METRICS
from stlib.records.schema import History, Record
from study.analysis.comparison import RunGroup, comparable
from study.analysis.reported import METHOD_NAMES, reported
from study.plan.estimate import held_seconds, seconds
from study.plan.grid import Cell

JUMP = 3
"""A validation error of more than this many times the lowest is a jump; so it is in benchmarks/jumps.py."""


def histories(records: Iterable[Record], method: str, categories: Iterable[str]) -> dict[str, list[History]]:
    """The trainings of the comparable runs, by category."""
    runs = comparable(RunGroup(method).of(records))
    found = {name: [r.history for r in runs if r.category == name and r.history] for name in categories}
    return {name: trainings for name, trainings in found.items() if trainings}


def last_epochs(records: Iterable[Record]) -> pd.DataFrame:
    """Every training that chose its epoch by a validation error: what its last epoch would have given.

    Columns: method, variant, category, seed; `ratio` of the last epoch's error to the lowest; `last`, its
    pixel AUROC, and `fall`, that of the tested epoch minus it; `last_anew`, that of the last epoch with
    BatchNorm's statistics taken anew, None where the run did not measure it.
    """
    rows = [
        (
            *(r.method, r.variant, r.category, r.seed, errors[-1] / min(errors)),
            last["pixel_auroc"],
            r.metrics["pixel_auroc"] - last["pixel_auroc"],
            r.sensitivity.get("statistics=anew,checkpoint=last", {}).get("pixel_auroc"),
        )
        for r in records
        if r.status == "finished" and r.history and (errors := r.history.curves.get("val_score"))
        if "pixel_auroc" in (last := r.sensitivity.get("checkpoint=last", {}))
    ]
    columns = ["method", "variant", "category", "seed", "ratio", "last", "fall", "last_anew"]
    return pd.DataFrame(rows, columns=columns)


def good_and_defective(record: Record) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Image scores of the record, (good,) and (defective,)."""
    good = [item.score for item in record.image_scores if item.image.startswith("good/")]
    defective = [item.score for item in record.image_scores if not item.image.startswith("good/")]
    return np.array(good, float), np.array(defective, float)


def auroc(good: NDArray[np.floating], defective: NDArray[np.floating]) -> float | None:
    """Share of pairs in the right order, ties one half, by SciPy; None where one side has no score."""
    if not (len(good) and len(defective)):
        return None
    won = mannwhitneyu(defective, good, method="asymptotic").statistic  # whose p value nobody reads
    return float(won / (len(good) * len(defective)))


def made(records: Iterable[Record]) -> dict[str, object]:
    """How the finished ones of the `runs` were made; every value once, in order.

    `seeds` are those of every category, and `more` by category those that only some have; all of them are
    `seeds` where no category shares one with all others.
    """
    runs = [r for r in records if r.status == "finished"]
    own: dict[str, set[int]] = {}
    for r in runs:
        own.setdefault(r.category, set()).add(r.seed)
    shared = set.intersection(*own.values()) if own else set()
    more = {category: sorted(seeds - shared) for category, seeds in own.items() if shared and seeds - shared}
    return {
        "runs": len(runs),
        "seeds": sorted(shared or {r.seed for r in runs}),
        "more": more,
        "precisions": sorted({str(r.precision) for r in runs}),
        "teachers": sorted({r.teacher.source for r in runs}),
        "devices": sorted({r.runtime.device for r in runs}),
    }


def families(records: Iterable[Record]) -> list[dict[str, object]]:
    """The runs that differ in nothing but their seed, a row each: what they share, and their `records`."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        found.setdefault((r.method, r.variant, r.category, r.profile), []).append(r)
    names = ("method", "variant", "category", "profile")
    return [dict(zip(names, key, strict=True)) | {"records": group} for key, group in found.items()]


def rerun_command(record: Record) -> str:
    """The shell command that makes this record again; a weight file is named, its folder is the reader's."""
    known = {"torchvision IMAGENET1K_V1": "torchvision", "demo": "demo", "random": "random"}
    teacher = known.get(record.teacher.source, f"path/to/{record.teacher.source}")
    data = {"MVTec AD": "data/mvtec_ad", "demo": "build/demo"}.get(record.dataset.name, "path/to/data")
    textures = "--textures data/dtd " if record.textures and record.textures.source == "DTD" else ""
    place = (record.method, record.category, record.seed, record.variant)
    command = Cell(*place, profile=record.profile, needs=record.precision).command()
    device = " --device cuda" if record.runtime.processor == "GPU" else ""
    return f"{command} --data {data} {textures}--teacher {teacher}{device}"


def means(
    records: Iterable[Record], groups: Sequence[RunGroup], category: str, *, official: bool
) -> pd.DataFrame:
    """What each group of runs scores on one category, labelled runs included: a row per group, in order.

    Columns: `method`, `variant`, a mean over seeds per metric, the `seeds` and the `labels` of the runs, and
    `printed`, the papers' numbers by metric: none for own parts that only bear a category's name (not
    `official`), nor for a method that no paper here names.
    """
    everything = [r for r in records if r.category == category and r.status == "finished"]
    rows = []
    for group in groups:
        found = group.of(everything)
        known = METRICS if official and group.method in METHOD_NAMES else ()
        about = {
            "method": group.method,
            "variant": group.variant,
            "seeds": [r.seed for r in found],
            "labels": list(dict.fromkeys(label for r in found for label in r.labels())),
            "printed": {m: reported(group.method, m, category, variant=group.variant) for m in known},
        }
        rows.append(about | dict(pd.DataFrame([r.metrics for r in found], columns=list(METRICS)).mean()))
    return pd.DataFrame(rows)


def spent(records: Iterable[Record]) -> dict[str, float]:
    """What the recorded `runs` on MVTec AD took.

    `cpu_hours` of one core, `gpu_hours`, and `evaluation`, the share of a run that is evaluation, in the
    median: maps, metrics, bootstrap, every other reading.
    """
    runs = [r for r in records if r.profile != "demo"]
    cpu, gpu = (
        sum(held_seconds(r) for r in runs if r.runtime.processor == kind) / 3600 for kind in ("CPU", "GPU")
    )
    share = median(r.runtime.evaluate_seconds / seconds(r) for r in runs) if runs else 0.0
    return {"runs": len(runs), "cpu_hours": cpu, "gpu_hours": gpu, "evaluation": share}


def runtimes(records: Iterable[Record]) -> pd.DataFrame:
    """Medians of the finished runs per `method`, `variant`, `profile`, `device`, `threads` and `precision`.

    Columns besides: `runs`, `training` and `evaluation` (seconds), and `memory` (MiB), the largest. Reads
    `records` once and keeps none of them.
    """
    keys = ["method", "variant", "profile", "device", "threads", "precision"]
    rows = [
        (
            *(METHOD_NAMES.get(r.method, r.method), r.variant, r.profile),
            *(r.runtime.device, r.runtime.threads, r.precision),
            *(r.runtime.train_seconds, r.runtime.evaluate_seconds, r.runtime.peak_memory_mb),
        )
        for r in records
        if r.status == "finished"
    ]
    groups = pd.DataFrame(rows, columns=[*keys, "train", "evaluate", "peak"]).groupby(keys)
    return groups.agg(
        runs=("train", "size"),
        training=("train", "median"),
        evaluation=("evaluate", "median"),
        memory=("peak", "max"),
    ).reset_index()


def state_of_study(records: Iterable[Record], methods: Sequence[str]) -> list[dict[str, object]]:
    """What is measured under the paper's schedule: a row per method, a cell per category.

    A cell counts `seeds` (comparable runs), `labelled` (finished runs that are not comparable), `failed`.
    """
    runs = list(records)
    return [
        {"Method": METHOD_NAMES.get(method, method)}
        | {name: _counts([r for r in RunGroup(method).of(runs) if r.category == name]) for name in CATEGORIES}
        for method in methods
    ]


def _counts(group: Sequence[Record]) -> dict[str, int]:
    seeds, failed = len(comparable(group)), sum(r.status == "failed" for r in group)
    return {"seeds": seeds, "labelled": len(group) - seeds - failed, "failed": failed}
