"""What the scripts in `benchmarks/` measured: their committed outcomes as tables. Imports no torch."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stlib.paths import BENCHMARKS
from stlib.protocol import METRICS, Metric
from stlib.records.reported import METHOD_NAMES
from study.tables import NOT_RUN, Markup, Text, plain, to_html


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
        return (
            f"{m['processor']}, {m['threads']} of {m['cores']} cores, load {m['load']}, {self.turns} turns; "
            f"{packages}"
        )


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


def timings_html(found: Benchmark | None, *keys: str, caption: str, each: str = "") -> Markup:
    """A comparison as a table; `each` names what is counted per second."""
    if found is None:
        return NOT_RUN
    rows: list[dict[str, object]] = [
        {
            "What": name,
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


def modules_html(found: Benchmark | None) -> Markup:
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


def growth_html(found: Benchmark | None) -> Markup:
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
                "CPU, times the first": f"{t.cpu_seconds / first.cpu_seconds:.1f}",
            }
            for name, t in table.items()
        ]
    return to_html(plain(rows), f"Growth, by CPU seconds. {found.where()}.")


def limit_sentence(found: Benchmark | None) -> Text:
    """How close STPM comes to the processor's fastest matrix product, and how far ahead it could be."""
    if found is None:
        return NOT_RUN
    limits, shares, needed = (found.results[name] for name in ("limit_flops", "share_of_limit", "operations"))
    assert isinstance(limits, Mapping)
    assert isinstance(shares, Mapping)
    assert isinstance(needed, Mapping)
    inference = found.timings("inference")
    fastest = {name: limit / (2 * needed["forward"]) for name, limit in limits.items()}  # teacher and student
    on_cpu = "CPU" in str(found.machine["processor"])
    parts, ahead = [], []
    for name, share in shares.items():
        own = inference[f"ours, {name}"]
        seconds = own.cpu_seconds if on_cpu else own.seconds
        parts.append(
            f"{limits[name] / 1e9:,.0f} GFLOP/s in {name}, of which a training step reaches {share:.0%} and "
            f"inference {1 / seconds / fastest[name]:.0%}"
        )
        peer = inference.get("anomalib Stfpm, fp32")
        if peer:
            seconds = peer.cpu_seconds if on_cpu else peer.seconds
            ahead.append(f"{fastest[name] * seconds:.1f} times in {name}")
    unit = "a core" if on_cpu else "the GPU"
    text = f"A large matrix product reaches, on {unit}, " + ", and ".join(parts) + "."
    if ahead:
        text += f" At that limit, inference would be faster than anomalib's in fp32 {' and '.join(ahead)}."
    return Text(text)


def waiting_html(found: Benchmark | None) -> Markup:
    """Shares of a training step: the device at work, waiting, and the making of its images."""
    if found is None:
        return NOT_RUN
    steps = found.results["steps"]
    assert isinstance(steps, Mapping)
    rows: list[dict[str, object]] = [
        {
            "Step of": name,
            "At work": f"{share['working']:.1%}",
            "Between operators": f"{1 - share['working']:.1%}",
            "Making its images": f"{share['data']:.1%}",
        }
        for name, share in steps.items()
    ]
    caption = f"Shares of one training step on {found.results['batch']} images, {found.results['precision']}."
    return to_html(plain(rows), f"{caption} {found.where()}.")


def invariance_html(found: Benchmark | None) -> Markup:
    """What the sixth power of the scores, which keeps their order, changes in each implementation."""
    if found is None:
        return NOT_RUN
    table = found.results["invariance"]
    assert isinstance(table, Mapping)
    names: tuple[Metric, ...] = ("pixel_auroc", "pixel_ap", "aupro")
    rows: list[dict[str, object]] = [
        {"What": who}
        | {
            METRICS[name]: f"{values['s^6'][name] - values['s'][name]:+.5f}" if name in values["s"] else "-"
            for name in names
        }
        for who, values in table.items()
    ]
    return to_html(plain(rows), "Change of each metric when every score is raised to the sixth power.")


def deployed_html(found: Benchmark | None) -> Iterator[Markup]:
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


def rounding_html(found: Benchmark | None) -> Markup:
    """What bfloat16 at inference changes in the metrics of trained detectors: a row each."""
    if found is None:
        return NOT_RUN
    rows: list[dict[str, object]] = []
    for name, metrics in found.results.items():
        assert isinstance(metrics, Mapping)
        row: dict[str, object] = {"Detector": name}
        row |= {METRICS[m]: f"{metrics[m]['change']:+.5f}" if m in metrics else "-" for m in METRICS}
        rows.append(row)
    caption = (
        "Change of each metric with the maps in bf16 instead of fp32; the detectors carry the labels of "
        f"their runs and are compared with no paper. {found.where()}."
    )
    return to_html(plain(rows), caption)
