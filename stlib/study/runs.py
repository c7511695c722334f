"""The runs themselves: how they were made, how long they took, how to repeat them, what a choice changes.

Imports no torch, like `stlib.study.tables`.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean, median

import numpy as np
import pandas as pd

from stlib.protocol import CATEGORIES, History, Metric
from stlib.study.records import Record, Runtime
from stlib.study.reported import METHOD_NAMES
from stlib.study.tables import comparable, select

CHANGES = {
    "maps=sum": "sum of the levels",
    "score=top100": "mean of the 100 largest",
    "masks=any": "mask: any non-zero",
    "masks=full": "mask: only full",
    "checkpoint=last": "last epoch",
    "maps=distances": "student's distances alone",
    "score=max": "largest pixel",
}
"""Keys of `Record.sensitivity`, with the words shown to readers."""


def sensitivity(records: Iterable[Record], method: str, metric: Metric) -> pd.DataFrame:
    """Scores of the same trained models with one choice changed: a column per change, a row per category.

    The column 'as tested' holds the study's own choice; means over seeds, comparable runs only, and the
    mean of these categories last. Changes that cannot move the metric are left out. Empty without runs.
    """
    runs = [r for r in comparable(select(records, method)) if metric in r.metrics]
    # 'test=' is no choice: it is the part of the test set that the leakage question needs
    blind = ("test=", "masks=" if metric.startswith("image") else "score=")
    known = dict.fromkeys(key for r in runs for key in r.sensitivity if not key.startswith(blind))
    rows = {}
    for category in (name for name in CATEGORIES if any(r.category == name for r in runs)):
        group = [r for r in runs if r.category == category]
        row = {"as tested": fmean(r.metrics[metric] for r in group)}
        for key in known:
            values = [r.sensitivity[key][metric] for r in group if metric in r.sensitivity.get(key, {})]
            row[CHANGES.get(key, key)] = fmean(values) if len(values) == len(group) else np.nan
        rows[category] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if len(frame):
        frame.loc[f"mean of {len(frame)} of {len(CATEGORIES)}"] = frame.mean(skipna=False)
    return frame


def readings(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """Every finished run on a line of its own: as tested, and the same networks' maps read in other ways."""
    rows = {
        f"{r.variant or 'as published'}, {r.category}, seed {r.seed}": {
            "as tested": r.metrics[metric],
            **{CHANGES.get(k, k): v[metric] for k, v in r.sensitivity.items() if k.startswith("maps=")},
        }
        for r in records
        if metric in r.metrics
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def histories(records: Iterable[Record], method: str, categories: Iterable[str]) -> dict[str, list[History]]:
    """The trainings of the comparable runs, by category."""
    runs = comparable(select(records, method))
    found = {name: [r.history for r in runs if r.category == name and r.history] for name in categories}
    return {name: trainings for name, trainings in found.items() if trainings}


def caption(records: Sequence[Record]) -> str:
    """How the finished runs among `records` were made: number, seeds, precision, teacher and device."""
    runs = [r for r in records if r.status == "finished"]
    if not runs:
        return "No run has finished yet."
    seeds = [str(seed) for seed in sorted({r.seed for r in runs})]
    parts: dict[str, list[str]] = {
        "": [_count(len(runs), "run")],
        "seeds " if len(seeds) > 1 else "seed ": seeds,
        "training in ": sorted({str(r.precision) for r in runs}),
        "teacher ": sorted({r.teacher.source for r in runs}),
        "on ": sorted({r.runtime.device for r in runs}),
    }
    return "; ".join(name + ", ".join(values) for name, values in parts.items()) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def rerun_command(record: Record) -> str:
    """The shell command that makes this record again; a weight file is named, its folder is the reader's."""
    known = {"torchvision IMAGENET1K_V1": "torchvision", "demo": "demo", "random": "random"}
    teacher = known.get(record.teacher.source, f"path/to/{record.teacher.source}")
    data = {"MVTec AD": "data/mvtec_ad", "demo": "build/demo"}.get(record.dataset.name, "path/to/data")
    variant = f"--variant {record.variant} " if record.variant else ""
    textures = "--textures data/dtd " if record.textures and record.textures.source == "DTD" else ""
    return (
        f"stlib run {record.method} {record.category} --seed {record.seed} --profile {record.profile} "
        f"{variant}--data {data} {textures}--teacher {teacher} --precision {record.precision}"
    )


def runtimes(records: Iterable[Record]) -> pd.DataFrame:
    """Median minutes and largest memory of the finished runs per method, profile, device and precision.

    Reads `records` once and keeps none of them.
    """
    groups: dict[tuple[str, ...], list[Runtime]] = {}
    for r in records:
        if r.status == "finished":
            device = f"{r.runtime.device}, {_count(r.runtime.threads, 'thread')}"
            name = f"{METHOD_NAMES[r.method]} {r.variant}".strip()
            key = (f"{name}, {r.profile}", device, r.precision)
            groups.setdefault(key, []).append(r.runtime)
    rows = [
        (
            *key,
            len(group),
            f"{median(r.train_seconds for r in group) / 60:.1f}",
            f"{median(r.evaluate_seconds for r in group) / 60:.1f}",
            f"{max(r.peak_memory_mb for r in group) / 1024:.1f}",
        )
        for key, group in sorted(groups.items())
    ]
    names = ["Method, profile", "Device", "Precision", "Runs"]
    return pd.DataFrame(rows, columns=[*names, "Training, min", "Evaluation, min", "Memory, GiB"])
