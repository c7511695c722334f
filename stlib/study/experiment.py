"""One run from images to record: the whole flow."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stlib.data.mvtec import Category, load_category
from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.detector import Card, Detector
from stlib.files import require_space, sole
from stlib.methods import entry, et_stpm
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.execution import Execution, Progress, quiet
from stlib.nn.backbone import ResNet18Pyramid, load_teacher
from stlib.nn.maps import Maps
from stlib.paths import RECORDS, RUNS
from stlib.protocol import (
    CATEGORIES,
    PRECISIONS,
    Precision,
    Profile,
    TeacherInfo,
    TextureInfo,
    require_precision,
)
from stlib.study.evaluation import results, rounded
from stlib.study.provenance import Clock
from stlib.study.records import Dataset, Record, record_path, write_record
from stlib.study.teacher_records import TeacherRecord, write_teacher_record
from stlib.study.teachers import tuned_teacher

SPACE = 1 << 30
"""Bytes that must be free before a run starts: the largest checkpoint and the one that replaces it."""


@dataclass(frozen=True)
class Run:
    """What to run. Everything that a result depends on is here or in the recipe of the profile."""

    method: str
    category: str
    seed: int = 0
    profile: Profile = "demo"
    variant: str = ""
    """A named deviation from the method's recipe; empty for the recipe itself."""
    data: Path = Path("data/mvtec_ad")
    """Root of the dataset in MVTec AD's layout."""
    teacher: str = "demo"
    """'torchvision', 'demo', 'random' or a weight file."""
    textures: str | Path = "demo"
    """'demo' or the folder of DTD; for methods that learn from synthetic anomalies."""
    device: str = "cpu"
    precision: Precision = "fp32"

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError for anything that cannot work, before any work is done."""
        line = entry(self.method)
        line.recipe(self.profile, self.variant)
        if line.corrupts and self.profile != "demo" and self.textures == "demo":
            raise ValueError(
                f"profile '{self.profile}' of {line.title} takes its textures from DTD: name its folder "
                "(`stlib data download dtd` fetches it)"
            )
        if PRECISIONS.get(self.variant, self.precision) != self.precision:
            raise ValueError(f"variant '{self.variant}' does not go with precision {self.precision}")
        if self.profile != "demo" and self.category not in CATEGORIES:
            raise ValueError(
                f"profile '{self.profile}' is for MVTec AD and '{self.category}' is none of its categories: "
                f"choose one of {', '.join(CATEGORIES)}, or profile 'demo'"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed}: choose a whole number from 0 to {2**32 - 1}")
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
        require_precision(self.precision, device.type)
        if self.precision == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
            name = torch.cuda.get_device_name(device)
            raise ValueError(f"precision 'tf32': {name} does not have it, use precision 'fp32'")


@dataclass(frozen=True)
class Outcome:
    """A finished run: its record, and the tensors that pictures are made from."""

    record: Record
    category: Category
    maps: Maps
    checkpoint: Checkpoint
    detector: Detector
    """What was trained, to be saved and used."""
    teacher_record: TeacherRecord | None = None
    """Of the fine-tuning behind the teacher, where there was one."""

    def keep(self, folder: Path = RECORDS) -> Path:
        """Write the record, then forget the checkpoint: a full disk must not cost the training.

        A teacher's record goes to the folder `teachers` beside `folder`.
        """
        path = write_record(self.record, folder)
        if self.teacher_record:
            write_teacher_record(self.teacher_record, folder.parent / "teachers")
        self.checkpoint.remove()
        return path


class RunFailed(RuntimeError):  # noqa: N818 - the run failed, the program did not
    """A run that broke off after it had begun; `record` says so and is worth keeping."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.method} on {record.category}, seed {record.seed}: {record.error}")
        self.record = record


def run(spec: Run, *, progress: Progress = quiet, runs: Path = RUNS) -> Outcome:
    """Train, score and measure. Checkpoints go under `runs`; a killed run continues from there.

    Raises ValueError (DatasetError included) or OSError for bad input and a full disk before training starts,
    BlockingIOError while another process makes the same run, and RunFailed when training diverges.
    """
    spec.check()
    if spec.profile == "demo":
        torch.set_num_threads(1)  # another number of threads adds in another order: tests compare these runs
    require_space(runs, SPACE, "run")
    method = entry(spec.method)
    config = method.recipe(spec.profile, spec.variant)
    device = torch.device(spec.device)
    teacher, info = load_teacher(spec.teacher)
    category = load_category(spec.data, spec.category, image_size=config.image_size)
    parts, textures = _synthesis(spec, config.image_size, device) if method.corrupts else ({}, None)
    base: dict[str, object] = {
        "method": spec.method,
        "variant": spec.variant,
        "category": spec.category,
        "seed": spec.seed,
        "profile": spec.profile,
        "config": config.model_dump(mode="json"),
        "precision": spec.precision,
        "dataset": _dataset(category),
        "teacher": info,
        "textures": textures,
    }
    clock, lesson = Clock(device), None
    try:
        if isinstance(config, et_stpm.Config):
            execution = Execution(device, spec.precision, progress)
            teacher, info, lesson = tune(spec, config, execution, runs)
            base["teacher"] = info
        foreign = textures.fingerprint if textures else ""
        recipe = config.model_dump_json()
        checkpoint = _checkpoint(spec, runs, recipe, info.pyramid_sha256, category.fingerprint, foreign)
        execution = Execution(device, spec.precision, progress, checkpoint)
        detector = method.build(config, teacher, execution, **parts)
        clock = Clock(device, checkpoint)
        # held by the process that trains: a notebook's kernel may outlive whoever started it
        with sole(checkpoint.path.with_suffix(".lock")):
            history = detector.fit(category.train, seed=spec.seed)
            clock.trained()
            maps = detector.maps(category.test)
            measured = results(category, detector, maps, device)
    except FloatingPointError as error:
        failed = _completed(base, status="failed", error=str(error), runtime=clock.runtime())
        raise RunFailed(failed) from error
    history = history.model_copy(update={"curves": rounded(history.curves)})
    record = _completed(base, history=history, **measured, runtime=clock.runtime())
    card = Card.model_validate(record.model_dump(include=set(Card.model_fields)))
    return Outcome(record, category, maps, checkpoint, Detector(card, detector.network), lesson)


def tune(
    spec: Run, config: et_stpm.Config, execution: Execution, runs: Path
) -> tuple[ResNet18Pyramid, TeacherInfo, TeacherRecord]:
    """ET-STPM's first step."""
    return tuned_teacher(
        spec.teacher,
        config.tuning,
        config.teacher_epochs,
        root=spec.data,
        profile=spec.profile,
        execution=execution,
        runs=runs,
    )


def _completed(base: dict[str, object], **fields: object) -> Record:
    """`base` with the remaining fields, validated."""
    return Record.model_validate(base | fields)


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


def _synthesis(spec: Run, size: int, device: torch.device) -> tuple[dict[str, AnomalySynthesis], TextureInfo]:
    """The part that corrupts training images, and the description of its textures."""
    textures, info = load_textures(spec.textures, size)
    return {"synthesis": AnomalySynthesis(textures.to(device), spec.category)}, info


def _checkpoint(spec: Run, runs: Path, *identity: str) -> Checkpoint:
    """Where a run continues from; with `identity` it holds all that the run's numbers depend on."""
    place = record_path(spec.method, spec.category, spec.seed, spec.profile, spec.variant)
    parts = (str(spec.seed), spec.precision, spec.device, *identity)
    return Checkpoint((runs / place).with_suffix(".ckpt"), "|".join(parts))
