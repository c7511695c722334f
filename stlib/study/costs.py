"""What runs, modules and peers cost: from the records and from `results/benchmarks`. Imports no torch."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, ValidationError

from stlib.paths import RESULTS
from stlib.protocol import METRICS, Metric
from stlib.study.estimate import Processor, estimate, total
from stlib.study.figures import BLUE, GREEN, ORANGE, RED, canvas
from stlib.study.grid import Cell
from stlib.study.html import Html, Text, plain, to_html
from stlib.study.pages import NOT_RUN
from stlib.study.records import Record
from stlib.study.reported import METHOD_NAMES

BENCHMARKS = RESULTS / "benchmarks"
MARKS = {"stpm": ("o", BLUE), "et_stpm": ("s", ORANGE), "destseg": ("^", GREEN), "pfadseg": ("D", RED)}

ALT = {
    "accuracy_against_cost": "Scatter plots, one per metric: the score of each run against the minutes of "
    "one processor core that it took. Filled marks are full schedules, hollow ones shortened schedules. The "
    "same numbers are in the records.",
}


class Timing(BaseModel):
    """One candidate of a side-by-side comparison (benchmarks/side_by_side.py)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    seconds: float
    """Median of the turns."""
    lowest: float
    highest: float
    cpu_seconds: float
    items_per_second: float
    ratio: float
    """Median of its time over ours in the same turn."""
    ratio_lowest: float
    ratio_highest: float


class Benchmark(BaseModel):
    """One run of a script in `benchmarks/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    made: datetime
    commit: str | None
    dirty: bool | None
    machine: Mapping[str, str | int | float]
    turns: int
    results: Mapping[str, object]

    def timings(self, *keys: str) -> dict[str, Timing]:
        """The comparison at `keys` in the results, by candidate; ours is the first."""
        found: object = self.results
        for key in keys:
            assert isinstance(found, Mapping)
            found = found[key]
        assert isinstance(found, Mapping)
        return {str(name): Timing.model_validate(row) for name, row in found.items()}

    def where(self) -> str:
        """Machine, turns and versions, for a caption."""
        m = self.machine
        packages = ", ".join(
            f"{k} {v}" for k, v in m.items() if k not in {"processor", "cores", "threads", "load"}
        )
        return f"{m['processor']}, {m['threads']} of {m['cores']} cores, {self.turns} turns; {packages}"


def read_benchmark(name: str, device: str = "cpu", folder: Path = BENCHMARKS) -> Benchmark | None:
    """What `benchmarks/NAME.py --save` wrote on that kind of device; None where it has not been run.

    Raises ValueError for a damaged file.
    """
    path = folder / f"{name}-{device}.json"
    if not path.is_file():
        return None
    try:
        return Benchmark.model_validate(json.loads(path.read_text()))
    except (ValidationError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): run benchmarks/{name}.py --save again") from error


def timings_html(found: Benchmark | None, *keys: str, caption: str, each: str = "") -> Html | Text:
    """A comparison as a table; `each` names what is counted per second."""
    if found is None:
        return NOT_RUN
    rows: list[dict[str, object]] = [
        {
            "": name,
            "Seconds": f"{t.seconds:.3g}",
            "Range": f"{t.lowest:.3g} to {t.highest:.3g}",
            "CPU seconds": f"{t.cpu_seconds:.3g}",
        }
        for name, t in found.timings(*keys).items()
    ]
    for row, t in zip(rows, found.timings(*keys).values(), strict=True):
        if each:
            row[f"{each} per second"] = f"{t.items_per_second:.3g}"
        row["Times the first"] = f"{t.ratio:.2f} ({t.ratio_lowest:.2f} to {t.ratio_highest:.2f})"
    return to_html(plain(rows), f"{caption} {found.where()}.")


def modules_html(found: Benchmark | None) -> Html | Text:
    """Parameters, operations and seconds of every method and row of the ablation."""
    if found is None:
        return NOT_RUN
    methods = found.results["methods"]
    assert isinstance(methods, Mapping)
    rows: list[dict[str, object]] = []
    for name, about in methods.items():
        stages = [f"{about['seconds'][stage]:.2f}" for stage in about["seconds"]]
        work = [f"{about['step_flops'][stage] / 1e9:.0f}" for stage in about["step_flops"]]
        rows.append(
            {
                "Networks": name,
                "Parameters, M": f"{about['parameters'] / 1e6:.1f}",
                "GFLOP to score an image": f"{about['image_flops'] / 1e9:.0f}",
                "GFLOP to train on one": " + ".join(work),
                "Seconds to train on one": " + ".join(stages),
            }
        )
    caption = (
        "Networks as deployed, teacher included; training on one image, for DeSTSeg and PFADSeg first the "
        f"student's stage, then the segmentation net's; {found.results['precision']}. {found.where()}."
    )
    return to_html(plain(rows), caption)


def growth_html(found: Benchmark | None) -> Html | Text:
    """How time grows with batch, resolution and number of test images."""
    if found is None:
        return NOT_RUN
    rows: list[dict[str, object]] = []
    for key, what in (
        ("batch", "STPM's step, 256 pixels"),
        ("side", "STPM's step, 8 images"),
        ("maps", "all pixel metrics"),
    ):
        table = found.timings("growth", key)
        first = next(iter(table.values()))
        rows += [
            {
                "Of": what,
                "With": name,
                "Seconds": f"{t.seconds:.3g}",
                "CPU seconds": f"{t.cpu_seconds:.3g}",
                "Times the first": f"{t.cpu_seconds / first.cpu_seconds:.1f}",
            }
            for name, t in table.items()
        ]
    return to_html(plain(rows), f"Growth, by CPU seconds. {found.where()}.")


def limit_sentence(found: Benchmark | None) -> Text:
    """How close a training step of STPM comes to the processor's fastest matrix product."""
    if found is None:
        return NOT_RUN
    limits, shares = found.results["limit_flops"], found.results["share_of_limit"]
    assert isinstance(limits, Mapping)
    assert isinstance(shares, Mapping)
    parts = [
        f"{limits[name] / 1e9:,.0f} GFLOP/s in {name}, of which a training step reaches {share:.0%}"
        for name, share in shares.items()
    ]
    return Text("A large matrix product reaches " + ", and ".join(parts) + ".")


def invariance_html(found: Benchmark | None) -> Html | Text:
    """What the sixth power of the scores, which keeps their order, changes in each implementation."""
    if found is None:
        return NOT_RUN
    table = found.results["invariance"]
    assert isinstance(table, Mapping)
    names: tuple[Metric, ...] = ("pixel_auroc", "pixel_ap", "aupro")
    rows: list[dict[str, object]] = [
        {"": who}
        | {
            METRICS[name]: f"{values['s^6'][name] - values['s'][name]:+.5f}" if name in values["s"] else "-"
            for name in names
        }
        for who, values in table.items()
    ]
    return to_html(
        plain(rows), "Change of each metric when every score is raised to the sixth power; 20 maps."
    )


def deployed_html(found: Benchmark | None) -> Iterator[Html | Text]:
    """Latency and throughput of every method, with the largest difference to ONNX Runtime."""
    if found is None:
        yield NOT_RUN
        return
    methods, batch = found.results["methods"], found.results["batch"]
    assert isinstance(methods, Mapping)
    for method, about in methods.items():
        gap = f"largest difference of a pixel {about['largest_difference']:.0e}, largest pixel"
        title = f"{METHOD_NAMES[method]} on one image; {gap} {about['largest_pixel']:.2g}."
        yield timings_html(found, "methods", method, "one", caption=title)
        title = f"{METHOD_NAMES[method]} on {batch} images."
        yield timings_html(found, "methods", method, "batch", caption=title, each="images")


def study_html(cells: Sequence[Cell], records: Sequence[Record]) -> Html:
    """What the whole grid costs on GPUs or on CPUs, as far as there are records to tell."""
    rows: list[dict[str, object]] = [
        {
            "Method": METHOD_NAMES[cost.method],
            "Runs": cost.runs,
            "On": cost.processor,
            "Minutes a run": "-" if cost.seconds is None else f"{cost.seconds / 60:.1f}",
            "Hours in all": "unknown" if cost.hours is None else f"{cost.hours:,.0f}",
            "From": cost.source,
        }
        for cost in estimate(cells, records)
    ]
    return to_html(
        plain(rows), f"All {len(cells)} runs of the paper's grid: hours of one core, or of one GPU."
    )


def study_sentence(cells: Sequence[Cell], records: Sequence[Record]) -> Text:
    """What is known of the whole, and what is not."""
    costs = estimate(cells, records)
    processors: tuple[Processor, Processor] = ("CPU", "GPU")
    parts = []
    for processor in processors:
        hours, unknown = total(costs, processor)
        known = len(cells) - unknown
        parts.append(
            f"On {processor}s, {known} of {len(cells)} runs would take {hours:,.0f} hours"
            if known
            else f"On {processor}s nothing has been measured"
        )
    return Text("; ".join(parts) + ". The others have no record of their method and schedule to go by.")


def seconds(record: Record) -> float:
    """Of a whole run, training and evaluation."""
    return record.runtime.train_seconds + record.runtime.evaluate_seconds


def core_minutes(record: Record) -> float:
    """Minutes of one core that a CPU run took: the study's proxy for energy."""
    return seconds(record) * record.runtime.threads / 60


def spent(records: Iterable[Record]) -> Text:
    """Core hours and GPU hours in the records."""
    runs = [r for r in records if r.profile != "demo"]
    on_cpu = [r for r in runs if r.runtime.device.startswith("CPU")]
    gpu_seconds = sum(seconds(r) for r in runs if r not in on_cpu)
    hours = sum(map(core_minutes, on_cpu)) / 60
    share = median(r.runtime.evaluate_seconds / seconds(r) for r in runs) if runs else 0.0
    return Text(
        f"The {len(runs)} recorded runs on MVTec AD took {hours:.1f} hours of one CPU core and "
        f"{gpu_seconds / 3600:.1f} GPU hours; evaluation (maps, metrics, bootstrap and every other reading "
        f"of the same model) is {share:.0%} of a run in the median."
    )


def accuracy_against_cost(records: Iterable[Record], metrics: Sequence[Metric]) -> Figure:
    """Score over core minutes, a point per run on a CPU; full schedules filled, shortened ones hollow."""
    runs = [
        r
        for r in records
        if r.profile != "demo" and r.status == "finished" and r.runtime.device.startswith("CPU")
    ]
    figure, axes = canvas(1, len(metrics), 3.2, share="")
    for axis, metric in zip(axes[0], metrics, strict=True):
        for (method, full), group in _groups(runs).items():
            marker, colour = MARKS[method]
            points = [(core_minutes(r), r.metrics[metric]) for r in group if metric in r.metrics]
            if points:
                axis.plot(
                    *zip(*points),
                    marker,
                    color=colour,
                    markerfacecolor=colour if full else "white",
                    label=METHOD_NAMES[method] + ("" if full else ", short"),
                )
        axis.set_xscale("log")
        axis.set_xlabel("core minutes of a run")
        axis.set_title(METRICS[metric])
    marks, names = axes[0][0].get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _groups(runs: Iterable[Record]) -> dict[tuple[str, bool], list[Record]]:
    groups: dict[tuple[str, bool], list[Record]] = {}
    for run in runs:
        groups.setdefault((run.method, run.profile == "paper"), []).append(run)
    return groups
