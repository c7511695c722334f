"""What the scripts in `benchmarks/` measured: their committed outcomes as tables."""

from collections.abc import Mapping
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from stlib.paths import BENCHMARKS


class Benchmark(BaseModel, frozen=True, extra="forbid"):
    """One run of a script in `benchmarks/`."""

    benchmark: str
    made: datetime
    commit: str | None
    dirty: bool | None
    machine: Mapping[str, str | int | float]
    turns: int
    results: Mapping[str, object]

    @property
    def packages(self) -> dict[str, object]:
        """Versions of the packages that were timed."""
        return {k: v for k, v in self.machine.items() if k not in {"processor", "cores", "threads", "load"}}


def read_benchmark(name: str, device: str = "cpu", folder: Path = BENCHMARKS) -> Benchmark | None:
    """What `benchmarks/NAME.py --save` wrote on that kind of device; None where it has not been run.

    Raises ValueError for a damaged file.
    """
    path = folder / f"{name}-{device}.json"
    if not path.is_file():
        return None
    try:
        return Benchmark.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({error}): run benchmarks/{name}.py --save again") from error


def rows(found: Benchmark | None, *keys: str) -> list[dict[str, Any]]:
    """What lies at `keys` in the results, a row per `name`: a candidate, a method, a detector, ours first.

    Timings have `seconds`, `lowest`, `highest`, `cpu_seconds`, `items_per_second` and `ratio`, its time over
    ours, with `ratio_lowest` and `ratio_highest` (benchmarks/side_by_side.py). Empty where it was not run.
    """
    if found is None:
        return []
    part: Any = found.results
    for key in keys:
        part = part[key]
    return [{"name": name} | values for name, values in part.items()]


def steps(found: Benchmark | None) -> list[dict[str, Any]]:
    """A training step of DeSTSeg's networks and of PFADSeg's, in every form that was timed.

    Beside the timing of `rows`: `step`, its network and stage, and the `share` that the form reaches of the
    processor's own limits, a large matrix product and a convolution forward and backward.
    """
    if found is None:
        return []
    results: Any = found.results
    seconds = "cpu_seconds" if "CPU" in str(found.machine["processor"]) else "seconds"
    return [
        row
        | {"step": step}
        | {"share": {k: part["operations"] / row[seconds] / v for k, v in results["limits"].items()}}
        for step, part in results["steps"].items()
        for row in rows(found, "steps", step, "times")
    ]


def readings(found: Benchmark | None) -> pd.DataFrame:
    """The readings of PFADSeg's text after their first steps, from benchmarks/readings.py.

    A row per `reading`: its `runs`, means of `loss` and `pixel_ap`, and `d_loss` and `d_pixel_ap`, their mean
    distances from the first reading on the same category and seed, with the extremes `_low` and `_high`.
    """
    made: Any = found.results["runs"] if found else []
    if not made:
        return pd.DataFrame()
    runs = pd.DataFrame(made)
    own = runs[runs["reading"] == runs["reading"][0]]
    beside = runs.merge(own, on=["category", "seed"], suffixes=("", "_own"))
    for value in ("loss", "pixel_ap"):
        beside[f"d_{value}"] = beside[value] - beside[f"{value}_own"]
    grouped = beside.groupby("reading", sort=False)
    distances = {
        f"d_{value}{end}": (f"d_{value}", how)
        for value in ("loss", "pixel_ap")
        for end, how in (("", "mean"), ("_low", "min"), ("_high", "max"))
    }
    return grouped.agg(
        runs=("seed", "size"), loss=("loss", "mean"), pixel_ap=("pixel_ap", "mean"), **distances
    ).reset_index()


def last_steps(found: Benchmark | None) -> pd.DataFrame:
    """How much the tested step is worth in pixel AP, from benchmarks/last_steps.py.

    A row per run: `row`, `category`, `seed`; `low`, `high` and `last` over the evaluations, and `change`,
    the mean distance of one from the one before.
    """
    runs: Any = found.results["runs"] if found else []
    return pd.DataFrame(
        {name: run[name] for name in ("row", "category", "seed")}
        | {"low": min(seen), "high": max(seen), "last": seen[-1], "change": float(abs(np.diff(seen)).mean())}
        for run in runs
        for seen in [run["pixel_ap"]]
    )


def moved_together(found: Benchmark | None) -> pd.DataFrame:
    """Whether two runs rise and fall at the same evaluations, from benchmarks/last_steps.py.

    A row per `differs`, what they differ in ('row', 'category', 'category and seed', ...): how many `pairs`
    of runs, and the `correlation` of their changes between evaluations, its mean with the extremes `low` and
    `high`.
    """
    runs: Any = found.results["runs"] if found else []
    names = ("row", "category", "seed")
    pairs = []
    for first, second in combinations(runs, 2):
        differs = " and ".join(name for name in names if first[name] != second[name])
        changes = [np.diff(run["pixel_ap"]) for run in (first, second)]
        pairs.append({"differs": differs, "correlation": float(np.corrcoef(changes)[0, 1])})
    if not pairs:
        return pd.DataFrame()
    grouped = pd.DataFrame(pairs).groupby("differs", sort=False)["correlation"]
    return grouped.agg(pairs="size", correlation="mean", low="min", high="max").reset_index()


def jumps(found: Benchmark | None) -> pd.DataFrame:
    """Every epoch of the runs of benchmarks/jumps.py, and what fresh statistics of BatchNorm change.

    A row per `category`, `seed` and `epoch`: `loss`, `validation`, whether that is a `jump`; of the epochs
    that were looked at `pixel_auroc`, with `validation_anew` and `pixel_auroc_anew` of the same weights, and
    whether the jump is then `gone` by the rule that finds one.
    """
    if found is None:
        return pd.DataFrame(columns=["jump"], dtype=bool)
    results: Any = found.results
    frame = pd.DataFrame(
        {"category": run["category"], "seed": run["seed"], "epoch": number} | epoch
        for run in results["runs"]
        for number, epoch in enumerate(run["epochs"], 1)
    )
    limit = results["times"] * frame.groupby(["category", "seed"])["validation"].cummin()
    frame["jump"] = frame["validation"] > limit
    frame["gone"] = frame["jump"] & (frame["validation_anew"] <= limit)
    return frame


def statistics_anew(jumps: pd.DataFrame) -> pd.DataFrame:
    """What fresh statistics of BatchNorm change, by category: at the jumps, elsewhere and at the last epoch.

    A row per `category` and `where`: how many `epochs`, how many of them are jumps that are `gone`, and means
    of the scores with both statistics, named as in `jumps`.
    """
    if not len(jumps):
        return jumps
    looked = jumps.dropna(subset="validation_anew")
    last = looked["epoch"] == looked.groupby("category")["epoch"].transform("max")
    scores = {
        f"{name}{when}": "mean"
        for name in ("image_auroc", "pixel_auroc", "pixel_ap")
        for when in ("", "_anew")
    }
    parts = [
        looked[rows]
        .groupby("category", sort=False)
        .agg({"epoch": "size", "gone": "sum"} | scores)
        .assign(where=where)
        for where, rows in (("jumps", looked["jump"]), ("others", ~looked["jump"]), ("last", last))
    ]
    frame = pd.concat(parts).rename(columns={"epoch": "epochs"}).reset_index()
    return frame.sort_values("category", kind="stable", ignore_index=True)


def invariance(found: Benchmark | None) -> list[dict[str, Any]]:
    """What the sixth power of the scores, which keeps their order, changes in each metric."""
    return [
        {"name": row["name"]} | {metric: row["s^6"][metric] - value for metric, value in row["s"].items()}
        for row in rows(found, "invariance")
    ]
