"""One run from images to record: the whole flow."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stlib.bootstrap import replicates
from stlib.data.mvtec import Category, load_category, with_mask_rule
from stlib.methods import Method, entry
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.execution import Execution, Progress, quiet
from stlib.metrics import PixelRanking, image_metrics, label_regions, pixel_metrics
from stlib.nn.backbone import load_teacher
from stlib.nn.maps import Maps, fuse, max_score, top_score
from stlib.paths import RECORDS, RUNS
from stlib.protocol import CATEGORIES, METRICS, History, Metric, Precision, Profile, TeacherInfo
from stlib.study.provenance import Clock
from stlib.study.records import Dataset, ImageScore, Record, record_path, write_record

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Run:
    """What to run. Everything that a result depends on is here or in the recipe of the profile."""

    method: str
    category: str
    seed: int = 0
    profile: Profile = "demo"
    data: Path = Path("data/mvtec_ad")
    """Root of the dataset in MVTec AD's layout."""
    teacher: str = "demo"
    """'torchvision', 'demo', 'random' or a weight file."""
    device: str = "cpu"
    precision: Precision = "fp32"

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError for anything that cannot work, before any work is done."""
        if self.profile not in entry(self.method).profiles:
            known = ", ".join(entry(self.method).profiles)
            raise ValueError(f"{self.method} has no profile '{self.profile}': choose one of {known}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"unknown precision '{self.precision}': choose fp32 or bf16")
        if self.profile != "demo" and self.category not in CATEGORIES:
            raise ValueError(
                f"profile '{self.profile}' is for MVTec AD and '{self.category}' is none of its categories: "
                f"choose one of {', '.join(CATEGORIES)}, or profile 'demo'"
            )
        if self.seed < 0:
            raise ValueError(f"seed {self.seed}: choose 0 or a positive whole number")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            device = torch.device("meta")
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"unknown device '{self.device}': choose cpu, cuda or cuda:N")
        count = torch.cuda.device_count()
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ValueError(
                f"device '{self.device}' asked for, but PyTorch sees {count or 'no'} GPU: use device 'cpu'"
            )


@dataclass(frozen=True)
class Outcome:
    """A finished run: its record, and the tensors that pictures are made from."""

    record: Record
    category: Category
    maps: Maps
    checkpoint: Checkpoint

    def keep(self, folder: Path = RECORDS) -> Path:
        """Write the record, then forget the checkpoint: a full disk must not cost the training."""
        path = write_record(self.record, folder)
        self.checkpoint.remove()
        return path


class RunFailed(RuntimeError):  # noqa: N818 - the run failed, the program did not
    """A run that broke off after it had begun; `record` says so and is worth keeping."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.method} on {record.category}, seed {record.seed}: {record.error}")
        self.record = record


def run(spec: Run, *, progress: Progress = quiet, runs: Path = RUNS) -> Outcome:
    """Train, score and measure. Checkpoints go under `runs`; a killed run continues from there.

    Raises ValueError (DatasetError included) or FileNotFoundError for bad input before training starts, and
    RunFailed when training diverges.
    """
    spec.check()
    method = entry(spec.method)
    config = method.profiles[spec.profile]
    teacher, info = load_teacher(spec.teacher)
    category = load_category(spec.data, spec.category, image_size=config.model_dump()["image_size"])
    dataset = _dataset(category)
    checkpoint = _checkpoint(spec, config.model_dump_json(), info, dataset, runs)
    execution = Execution(torch.device(spec.device), spec.precision, progress, checkpoint)
    detector = method.build(config, teacher, execution)
    base: dict[str, object] = {
        "method": spec.method,
        "category": spec.category,
        "seed": spec.seed,
        "profile": spec.profile,
        "config": config.model_dump(),
        "precision": spec.precision,
        "dataset": dataset,
        "teacher": info,
    }
    _deterministic()
    clock = Clock(execution.device)
    try:
        history = detector.fit(category.train, seed=spec.seed)
        clock.trained()
        maps = detector.maps(category.test)
        results = _results(category, detector, maps)
    except FloatingPointError as error:
        raise RunFailed(
            _completed(base, status="failed", error=str(error), runtime=clock.runtime())
        ) from error
    record = _completed(base, history=_rounded_history(history), **results, runtime=clock.runtime())
    return Outcome(record, category, maps, checkpoint)


def _completed(base: dict[str, object], **fields: object) -> Record:
    """`base` with the remaining fields, validated."""
    return Record.model_validate(base | fields)


def _results(category: Category, detector: Method, maps: Maps) -> dict[str, object]:
    """The measured part of a record."""
    measured = measure(category, maps)
    defined = {name: value for name, value in measured.metrics.items() if not math.isnan(value)}
    draws = replicates(measured.ranking, maps.image, category.labels)
    # A metric that some draw leaves undefined has no interval: dropping the draw would break the pairing.
    whole = [name for name in defined if not any(map(math.isnan, draws[name]))]
    return {
        "metrics": defined,
        "undefined": {name: _reason(category) for name in METRICS if name not in defined},
        "sensitivity": _sensitivity(category, detector, maps),
        "image_scores": _image_scores(category, maps.image),
        "pixel_curves": _rounded(measured.ranking.curves()),
        "bootstrap": _rounded({name: draws[name] for name in whole}),
    }


@dataclass(frozen=True)
class Measured:
    """All metrics of one set of maps, and the ranking they were read from."""

    metrics: dict[Metric, float]
    ranking: PixelRanking


def measure(category: Category, maps: Maps, masks: Tensor | None = None) -> Measured:
    """Exact metrics of `maps` against the category's masks, or against other `masks` (M, S, S) bool."""
    regions = label_regions(category.masks if masks is None else masks)
    ranking = PixelRanking(maps.pixel, regions)
    values = image_metrics(maps.image, category.labels) | pixel_metrics(ranking)
    return Measured({name: values[name] for name in METRICS}, ranking)


def _sensitivity(category: Category, detector: Method, maps: Maps) -> dict[str, dict[Metric, float]]:
    """The trained model measured again with one choice changed at a time."""
    size = category.test.shape[-1]
    summed = fuse(maps.layers, size, rule="sum")
    variants: dict[str, Callable[[], Measured]] = {
        "maps=sum": lambda: measure(category, Maps(maps.layers, summed, max_score(summed))),
        "score=top100": lambda: measure(category, maps._replace(image=top_score(maps.pixel))),
        "masks=any": lambda: measure(category, maps, with_mask_rule(category, "any")),
        "masks=full": lambda: measure(category, maps, with_mask_rule(category, "full")),
    }
    results = {name: variant().metrics for name, variant in variants.items()}
    tested, *others = detector.snapshots
    for other in others:
        detector.use(other)
        results[f"checkpoint={other}"] = measure(category, detector.maps(category.test)).metrics
    detector.use(tested)
    return {
        name: {metric: value for metric, value in values.items() if not math.isnan(value)}
        for name, values in results.items()
    }


def _dataset(category: Category) -> Dataset:
    good = int((~category.labels).sum())
    return Dataset(
        name=category.layout.dataset,
        fingerprint=category.fingerprint,
        train_images=len(category.train),
        test_good=good,
        test_defect=len(category.test) - good,
        image_size=category.test.shape[-1],
        mask_rule="half",
        gaps=category.layout.gaps(),
    )


def _reason(category: Category) -> str:
    """Why a metric of this category has no value."""
    if category.labels.all():
        return "the test set holds no normal image"
    return (
        "the test set holds no defective image"
        if not category.labels.any()
        else "no mask marks a defective pixel"
    )


def _image_scores(category: Category, scores: Tensor) -> list[ImageScore]:
    items = zip(category.layout.test, scores.tolist(), strict=True)
    return [
        ImageScore(image=f"{item.defect}/{item.image.name}", score=_round(score)) for item, score in items
    ]


def _checkpoint(spec: Run, config: str, teacher: TeacherInfo, dataset: Dataset, runs: Path) -> Checkpoint:
    """Where a run continues from. The identity holds all that its numbers depend on."""
    path = runs / record_path(spec.method, spec.category, spec.seed, spec.profile).with_suffix(".ckpt")
    identity = [
        config,
        str(spec.seed),
        spec.precision,
        spec.device,
        teacher.pyramid_sha256,
        dataset.fingerprint,
    ]
    return Checkpoint(path, "|".join(identity))


def _deterministic() -> None:
    """Same config, same device, same numbers: pick reproducible kernels where PyTorch offers a choice."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # fp32 means fp32: cuDNN would round the inputs of convolutions to TF32 by default.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _round(value: float) -> float:
    """Six significant digits: what float32 scores carry, and files that diff well."""
    return float(f"{value:.6g}")


def _rounded(series: Mapping[Name, list[float]]) -> dict[Name, list[float]]:
    return {name: [_round(value) for value in values] for name, values in series.items()}


def _rounded_history(history: History) -> History:
    return history.model_copy(update={"curves": _rounded(history.curves)})
