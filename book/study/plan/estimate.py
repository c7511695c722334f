"""What the missing runs will cost, from the runs that are recorded."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from stlib.protocol import CATEGORIES
from stlib.records.schema import Processor, Record
from study.plan.grid import Cell


@dataclass(frozen=True)
class Cost:
    """What `runs` missing runs of one method cost on one kind of processor."""

    method: str
    processor: Processor
    runs: int
    seconds: float | None
    """Of one run, training and evaluation: the mean over the missing ones; None without a record."""
    hours: float | None
    """Of all of them: GPU hours, or hours of a CPU's core."""
    source: str
    """Which records the numbers come from."""


def seconds(record: Record) -> float:
    """Of a whole run, training and evaluation."""
    return record.runtime.train_seconds + record.runtime.evaluate_seconds


def held_seconds(record: Record) -> float:
    """Seconds that a run held one GPU, or one core for each of its threads."""
    return seconds(record) * (record.runtime.threads if record.runtime.processor == "CPU" else 1)


def estimate(missing: Iterable[Cell], records: Iterable[Record]) -> list[Cost]:
    """Two lines per method, GPU and CPU, from finished records of that method under the same profile.

    Where a recipe counts epochs, a run takes the median time per training image, times the images of its
    category. Variants count as their method. A teacher's fine-tuning, made once for many runs, is not in it.
    """
    finished = [record for record in records if record.status == "finished"]
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in missing:
        groups.setdefault((cell.method, cell.profile), []).append(cell)
    return [
        _cost(cells, kind, [r for r in finished if (r.method, r.profile) == name])
        for name, cells in groups.items()
        for kind in ("GPU", "CPU")
    ]


def total(costs: Iterable[Cost], kind: Processor) -> tuple[float, int]:
    """Hours of all methods that have a record, and the number of runs whose cost is unknown."""
    lines = [cost for cost in costs if cost.processor == kind]
    return sum(cost.hours or 0.0 for cost in lines), sum(cost.runs for cost in lines if cost.hours is None)


def _cost(cells: Sequence[Cell], kind: Processor, records: Sequence[Record]) -> Cost:
    method, runs = cells[0].method, len(cells)
    timed = [r for r in records if r.runtime.processor == kind]
    if not timed:
        return Cost(method, kind, runs, None, None, "no record")
    held, wall = (_expected(cells, timed, cost) for cost in (held_seconds, seconds))
    where = ", ".join(sorted({f"{r.runtime.device}, {r.precision}" for r in timed}))
    source = f"{len(timed)} record{'s' if len(timed) > 1 else ''} on {where}"
    return Cost(method, kind, runs, fmean(wall), sum(held) / 3600, source)


def _expected(cells: Sequence[Cell], timed: Sequence[Record], cost: Callable[[Record], float]) -> list[float]:
    """Seconds that every missing run will take, going by `cost` of the `timed` ones."""
    typical = median(map(cost, timed))
    if not all("epochs" in r.config for r in timed):
        return [typical] * len(cells)
    per_image = median(cost(r) / r.dataset.train_images for r in timed)
    official = [CATEGORIES.get(cell.category) for cell in cells]
    return [counts.train_good * per_image if counts else typical for counts in official]
