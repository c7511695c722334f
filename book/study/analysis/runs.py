"""The runs themselves: how they were made, how long they took, how to repeat them.

Imports no torch, like `study.analysis.comparison`.
"""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import History, Record, Runtime, Summary
from study.analysis.comparison import comparable, select


def histories(records: Iterable[Record], method: str, categories: Iterable[str]) -> dict[str, list[History]]:
    """The trainings of the comparable runs, by category."""
    runs = comparable(select(records, method))
    found = {name: [r.history for r in runs if r.category == name and r.history] for name in categories}
    return {name: trainings for name, trainings in found.items() if trainings}


def good_and_defective(record: Record) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Image scores of the record, (good,) and (defective,)."""
    good = [item.score for item in record.image_scores if item.image.startswith("good/")]
    defective = [item.score for item in record.image_scores if not item.image.startswith("good/")]
    return np.array(good, float), np.array(defective, float)


def caption(records: Sequence[Summary]) -> str:
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


def rerun_command(record: Summary) -> str:
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


def runtimes(records: Iterable[Summary]) -> pd.DataFrame:
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
