"""A record: everything needed to trust one run, as one validated JSON file. Imports no torch."""

from array import array
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from stlib.decision import Threshold
from stlib.protocol import CATEGORIES, DTD_IMAGES, METRICS, NAME, PRECISIONS, Metric, Precision, Profile

SCHEMA_VERSION: Final = 1
"""Raised whenever a field changes its meaning; older files are then refused, not guessed at."""

BINNING: Final = 0.01
"""More than the replicates of a metric, which are read at bins, can miss it by."""

Floats = Annotated[Sequence[float], AfterValidator(lambda values: array("d", values)), PlainSerializer(list)]
"""Numbers side by side in memory: a quarter of a list's size, and NumPy reads them without a copy."""

Name = Annotated[str, Field(pattern=f"^{NAME}$")]
"""Part of a path, and of a page: no separator, no markup."""


# JSON has no NaN: it would be written as null, and the file could not be read again.
class Block(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What records are made of: immutable, nothing unknown in it, no NaN."""


class TuningInfo(Block):
    """How a fine-tuned teacher (ET-STPM) was made."""

    name: str
    """Of its record, `results/teachers/<profile>/<name>.json`."""
    epochs: int
    """Full epochs, after the one that trained only the head."""
    data: Literal["A", "B", "C"]
    """A: train/good. B: and half of the anomalous test images. C: and all of them."""
    categories: list[str]
    """The classes."""
    source_sha256: str
    """Hash of the pyramid before fine-tuning."""


class TeacherInfo(Block):
    """What the teacher's weights are; goes into every record."""

    source: str
    """'torchvision IMAGENET1K_V1', 'demo', 'random' or the file's name."""
    file_sha256: str | None
    """Hash of the weight file, where there is one."""
    pyramid_sha256: str
    """Hash of the tensors actually used (conv1 to layer3); equal weights from different files agree."""
    missing: list[str]
    """Tensors of the full ResNet-18 that the source lacks: irrelevant unless layer4 is trained."""
    tuned: TuningInfo | None = None
    """None for a teacher that is used as it comes."""


class TextureInfo(Block):
    """Where the foreign textures of synthetic anomalies come from; goes into the records that used them."""

    source: Literal["DTD", "demo"]
    fingerprint: str
    """SHA-256 over names and contents of the files, or over the drawn pixels."""
    images: int


class History(Block):
    """What was trained and tested, and what it left to look at; goes into every record."""

    steps: int
    """Optimiser steps taken."""
    images_seen: int
    """Training images shown, repeats counted."""
    selected: dict[str, float]
    """Which checkpoint is tested and why, e.g. {'epoch': 87, 'val_score': 0.0012}. These two names have a
    meaning: of the recipe's `epochs` the one that is tested, and by which score it was chosen."""
    learning_curve: dict[int, dict[Metric, float]] = {}
    """Metrics on the test set after so many steps of the last stage (DeSTSeg, PFADSeg), only to be looked at:
    nothing is selected by them. Up to 0 the map is the student's distances alone; below 0 the student still
    learns."""
    curves: dict[str, list[float]]
    """Named series, one value per epoch or per logging interval."""


class Dataset(Block):
    """The images a run saw."""

    name: Literal["MVTec AD", "demo", "other"]
    fingerprint: str
    """SHA-256 over names and contents of all files of the category."""
    train_images: int
    test_good: int
    test_defect: int
    image_size: int
    mask_rule: str
    gaps: list[str]
    """Differences from the official dataset, in words."""


# A model would take ten times the memory.
@dataclass(config=ConfigDict(extra="forbid", allow_inf_nan=False), frozen=True, slots=True)
class ImageScore:
    """The score of one test image."""

    image: str
    """Path inside the category's `test` folder."""
    score: float


Processor = Literal["CPU", "GPU"]


class Runtime(Block):
    """Where and how fast; never compared, never shown as a result."""

    started: datetime
    """UTC."""
    device: str
    """The name of the GPU, or 'CPU, ' and the name of the processor."""
    threads: int
    """PyTorch's threads on the CPU."""
    train_seconds: float
    """Seconds of training, those of earlier attempts that it continued included."""
    evaluate_seconds: float
    """Seconds of scoring the test images and measuring."""
    peak_memory_mb: float
    """MiB, of 2**20 bytes: the most that PyTorch allocated on the GPU, or that the process held in memory."""
    versions: dict[str, str]
    """Of Python and of packages, by name."""
    compiled: bool = False
    """Whether the networks trained through `torch.compile`, as those of one early run did."""
    commit: str | None
    """Of the checkout; None outside git."""
    dirty: bool | None
    """True when the package's files differed from the commit."""

    @property
    def processor(self) -> Processor:
        """The kind of `device`."""
        return "CPU" if self.device.startswith("CPU") else "GPU"


class Record(Block):
    """One run of one method on one category, as it is committed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    method: Name
    variant: Name | Literal[""] = ""
    """Empty for the method as published; otherwise a short name of what differs."""
    category: Name
    seed: int
    profile: Profile
    status: Literal["finished", "failed"] = "finished"
    error: str | None = None
    """What went wrong, for a failed run."""
    config: dict[str, JsonValue]
    precision: Precision
    dataset: Dataset
    teacher: TeacherInfo
    textures: TextureInfo | None = None
    """Of synthetic anomalies, for the methods that learn from them."""
    history: History | None = None
    metrics: dict[Metric, float] = {}
    """Fractions in [0, 1]. A metric that is not here is in `undefined`."""
    undefined: dict[Metric, str] = {}
    """Why a metric has no value."""
    sensitivity: dict[str, dict[Metric, float]] = {}
    """The same trained model measured with one thing changed, e.g. 'maps=sum'. Never selected from."""
    bootstrap: dict[Metric, Floats] = {}
    """Replicates over resampled test images, paired between methods on one test set."""
    runtime: Runtime
    image_scores: list[ImageScore] = []
    pixel_curves: dict[str, list[float]] = {}
    """'fpr', 'recall' and 'precision' of the pixel ROC and PR curves, thinned."""
    threshold: Threshold | None = None
    """From good images that the training held out; no metric depends on it."""

    @field_validator("metrics")
    @classmethod
    def _in_range(cls, metrics: dict[Metric, float]) -> dict[Metric, float]:
        for name, value in metrics.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} is outside [0, 1]")
        return metrics

    @model_validator(mode="after")
    def _accounted(self) -> Self:
        if PRECISIONS.get(self.variant, self.precision) != self.precision:
            raise ValueError(f"variant '{self.variant}' of a run in {self.precision}")
        if self.status == "failed":
            if not self.error or self.metrics:
                raise ValueError("a failed run has an error and no metrics")
            return self
        if self.history is None:
            raise ValueError("a finished run has a history")
        unaccounted = [name for name in METRICS if (name in self.metrics) == (name in self.undefined)]
        if unaccounted:
            raise ValueError(f"each metric needs a value or a reason: {', '.join(unaccounted)}")
        if bool(self.dataset.test_good + self.dataset.test_defect) != bool(self.image_scores):
            raise ValueError("a finished run has image scores if it has test images")
        for name, draws in self.bootstrap.items():
            value, least, most = self.metrics.get(name), min(draws, default=0), max(draws, default=1)
            if value is not None and not least - BINNING <= value <= most + BINNING:
                raise ValueError(
                    f"{name} = {value} is outside its replicates, {least} to {most}: it was edited by hand"
                )
        return self

    @property
    def path(self) -> Path:
        """Where the record belongs, relative to the folder of records."""
        own = self.dataset.fingerprint if self.dataset.name == "other" else ""
        return record_path(self.method, self.category, self.seed, self.profile, self.variant, own=own)

    def labels(self) -> list[str]:
        """What a reader must know before comparing this run with a paper; empty for a full run."""
        labels = []
        if self.dataset.name != "MVTec AD":
            labels.append(f"{self.dataset.name} data")
        if self.profile != "paper":
            labels.append(f"{self.profile} schedule")
        if self.dataset.gaps:
            labels.append("incomplete dataset: " + "; ".join(self.dataset.gaps))
        if self.teacher.source in ("demo", "random"):
            labels.append(f"{self.teacher.source} teacher")
        return labels + self._tuning_labels()

    def _tuning_labels(self) -> list[str]:
        """How the fine-tuning fell short of the paper's: fewer classes, a source without layer4."""
        tuned = self.teacher.tuned
        if tuned is None or tuned.epochs == 0 or self.dataset.name != "MVTec AD":
            return []
        labels = []
        if len(tuned.categories) < len(CATEGORIES):
            labels.append(f"teacher fine-tuned on {len(tuned.categories)} of {len(CATEGORIES)} categories")
        if any(name.startswith("layer4") for name in self.teacher.missing):
            labels.append("its layer4 started from random weights")
        return labels

    def remarks(self) -> list[str]:
        """What a reader should know, but what does not keep the run from being compared."""
        told = []
        if self.textures and self.textures.source == "DTD" and self.textures.images < DTD_IMAGES:
            told.append(f"{self.textures.images} of DTD's {DTD_IMAGES} textures")
        tuned = self.teacher.tuned
        if tuned and tuned.epochs and self.dataset.name == "other":
            told.append(f"teacher fine-tuned on {len(tuned.categories)} categories")
        if tuned and tuned.epochs and tuned.data == "A" and self.dataset.name == "MVTec AD":
            told.append("teacher fine-tuned without abnormal images, the paper's with some")
        return told


def record_path(
    method: str, category: str, seed: int, profile: Profile, variant: str = "", *, own: str = ""
) -> Path:
    """`<profile>/<method>[-<variant>]/<category>-s<seed>.json`: profiles never share a folder.

    `own`, the fingerprint of other data than MVTec AD and the demo, tells two datasets of one name apart.
    """
    folder = f"{method}-{variant}" if variant else method
    data = f"{category}-{own[:8]}" if own else category
    return Path(f"{profile}/{folder}/{data}-s{seed}.json")
