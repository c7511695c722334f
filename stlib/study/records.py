"""A record: everything needed to trust one run, as one validated JSON file. Imports no torch."""

import gc
import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    JsonValue,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from stlib.files import write_atomic
from stlib.paths import RECORDS
from stlib.protocol import (
    CATEGORIES,
    DTD_IMAGES,
    METRICS,
    PRECISIONS,
    History,
    Metric,
    Precision,
    Profile,
    TeacherInfo,
    TextureInfo,
    Training,
)

SCHEMA_VERSION: Final = 1
"""Raised whenever a field changes its meaning; older files are then refused, not guessed at."""


Run = TypeVar("Run", bound="Summary")
"""A record or its summary, whichever was passed in."""

Floats = Annotated[Sequence[float], AfterValidator(lambda values: array("d", values)), PlainSerializer(list)]
"""Numbers side by side in memory: a quarter of a list's size, and NumPy reads them without a copy."""


class RecordError(ValueError):
    """A record file that cannot be used; the message names the file and what is wrong with it."""


# JSON has no NaN: it would be written as null, and the file could not be read again.
_RULES = ConfigDict(extra="forbid", allow_inf_nan=False)


class Block(BaseModel):
    """What records are made of: immutable, nothing unknown in it, no NaN."""

    model_config = ConfigDict(**_RULES, frozen=True)


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


@dataclass(config=_RULES, frozen=True, slots=True)  # a model would take ten times the memory
class ImageScore:
    """The score of one test image."""

    image: str
    """Path inside the category's `test` folder."""
    score: float


Processor = Literal["CPU", "GPU"]


class Runtime(Block):
    """Where and how fast; never compared, never shown as a result."""

    started: datetime
    device: str
    threads: int
    train_seconds: float
    evaluate_seconds: float
    peak_memory_mb: float
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None
    """True when the package's files differed from the commit."""

    @property
    def processor(self) -> Processor:
        """The kind of `device`."""
        return "CPU" if self.device.startswith("CPU") else "GPU"


class Summary(Block):
    """One run of one method on one category, without its series: all that the tables need.

    Faster to read than the whole, which is mostly series. What is not named here is ignored, and refused by
    `Record`.
    """

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal[1] = SCHEMA_VERSION
    method: str
    variant: str = ""
    """Empty for the method as published; otherwise a short name of what differs."""
    category: str
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
    history: Training | None = None
    metrics: dict[Metric, float] = {}
    """Fractions in [0, 1]. A metric that is not here is in `undefined`."""
    undefined: dict[Metric, str] = {}
    """Why a metric has no value."""
    sensitivity: dict[str, dict[Metric, float]] = {}
    """The same trained model measured with one thing changed, e.g. 'maps=sum'. Never selected from."""
    bootstrap: dict[Metric, Floats] = {}
    """Replicates over resampled test images, paired between methods on one test set."""
    runtime: Runtime

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
        return self

    @property
    def path(self) -> Path:
        """Where the record belongs, relative to the folder of records."""
        return record_path(self.method, self.category, self.seed, self.profile, self.variant)

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
        if tuned and tuned.epochs and tuned.data == "A" and self.dataset.name == "MVTec AD":
            told.append("teacher fine-tuned without abnormal images, the paper's with some")
        return told


class Record(Summary):
    """A run as it is committed: the summary and its series."""

    model_config = ConfigDict(extra="forbid")

    history: History | None = None
    image_scores: list[ImageScore] = []
    pixel_curves: dict[str, list[float]] = {}
    """'fpr', 'recall' and 'precision' of the pixel ROC and PR curves, thinned."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status == "finished" and not self.image_scores:
            raise ValueError("a finished run has image scores")
        return self

    def same_result(self, other: "Record") -> bool:
        """Equality of everything but the runtime block."""
        return self.model_dump(exclude={"runtime"}) == other.model_dump(exclude={"runtime"})


def record_path(method: str, category: str, seed: int, profile: Profile, variant: str = "") -> Path:
    """`<profile>/<method>[-<variant>]/<category>-s<seed>.json`: profiles never share a folder."""
    folder = f"{method}-{variant}" if variant else method
    return Path(f"{profile}/{folder}/{category}-s{seed}.json")


def write_record(record: Record, folder: Path = RECORDS) -> Path:
    """Write `record` to its place under `folder`, whole or not at all. Raises OSError.

    A failed run never takes the place of a finished one: the earlier record then stays.
    """
    path = folder / record.path
    if record.status == "finished" or not _is_finished(path):
        write_atomic(path, as_json(record))
    return path


def _is_finished(path: Path) -> bool:
    """Whether a finished record is there; a damaged one is none."""
    try:
        return read_record(path).status == "finished"
    except (FileNotFoundError, RecordError):
        return False


def as_json(record: BaseModel) -> bytes:
    """JSON with a list of numbers on one line: readable files, and diffs of one line per series."""
    text = record.model_dump_json(indent=1)
    text = re.sub(r'\[[^][{}"]+\]', lambda found: " ".join(found[0].split()), text)
    return (text + "\n").encode()


def read_record(path: Path) -> Record:
    """The validated record in `path`. Raises RecordError for anything else, naming file and fields."""
    return _read(path, Record)


def read_summary(path: Path) -> Summary:
    """The validated summary of the record in `path`; raises what `read_record` does."""
    return _read(path, Summary)


def _read(path: Path, kind: type[Run]) -> Run:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg']}"
            for item in error.errors()[:5]
        )
        raise RecordError(f"{path} is not a valid record (schema {SCHEMA_VERSION}): {problems}") from error


def record_files(folder: Path, rows: Collection[str] = ("*",)) -> list[Path]:
    """The files under `folder` in path order; `rows` are patterns of `<method>[-<variant>]`."""
    return [path for path in sorted(folder.rglob("*.json")) if of_rows(path, rows)]


def of_rows(path: Path, rows: Collection[str]) -> bool:
    """Whether the record in `path` is of one of the rows."""
    return any(fnmatchcase(path.parent.name, row) for row in rows)


def require_place(run: Summary, path: Path, folder: Path) -> None:
    """Raise RecordError unless `path`, where `run` was found, is where it belongs under `folder`."""
    if path.relative_to(folder) != run.path:
        raise RecordError(f"{path} describes {run.path}: a record's place follows from its content")


def iter_records(folder: Path = RECORDS, rows: Collection[str] = ("*",)) -> Iterator[Record]:
    """`load_records`, one by one."""
    for path in record_files(folder, rows):
        record = read_record(path)
        require_place(record, path, folder)
        yield record


def load_records(folder: Path = RECORDS, rows: Collection[str] = ("*",)) -> list[Record]:
    """The records under `folder` in path order; `rows` are patterns of `<method>[-<variant>]`.

    Rows that are not asked for are not read. Raises RecordError at the first invalid or misplaced record.
    """
    with uncollected():
        return list(iter_records(folder, rows))


@contextmanager
def uncollected() -> Iterator[None]:
    """The garbage collector waits: of many records it would go through all earlier ones again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
