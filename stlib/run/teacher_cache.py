"""Fine-tuned teachers for ET-STPM: made once per recipe, kept by epoch, described by their own record."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save as serialise

from stlib.data.images import read_images
from stlib.data.mvtec import Layout, fingerprint, scan
from stlib.data.splits import seen_anomalies, split_train
from stlib.files import file_lock, write_atomic
from stlib.methods.finetuning import ClassifierData, FineTuning, Tuning
from stlib.methods.training import Checkpoint, Execution
from stlib.nn.backbone import ResNet18Pyramid, pyramid_hash
from stlib.nn.classifier import load_classifier
from stlib.protocol import CATEGORIES, Profile
from stlib.records.schema import TeacherInfo, TuningInfo
from stlib.records.teacher import TeacherRecord
from stlib.run.provenance import Clock


def categories_of(root: Path) -> list[Layout]:
    """Every category under `root`, in the papers' order, or by name in a dataset that is not MVTec AD.

    Raises DatasetError for a folder with `train/good` that cannot be used.
    """
    found = {path.parent.parent.name for path in root.glob("*/train/good")}
    official = [name for name in CATEGORIES if name in found]
    return [scan(root, name) for name in official or sorted(found)]


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher."""

    network: ResNet18Pyramid
    info: TeacherInfo
    """What its weights are."""
    record: TeacherRecord | None = None
    """Of its fine-tuning, where there was one."""


def tuned_teacher(
    source: str,
    info: TeacherInfo,
    tuning: Tuning,
    epochs: int,
    *,
    root: Path,
    profile: Profile,
    execution: Execution,
    runs: Path,
) -> Teacher:
    """The teacher after `epochs` full epochs of fine-tuning, from `runs/teachers` or made now.

    `source` and `info` are those of `load_teacher`. All epochs of one recipe come from one pass: more epochs
    continue where fewer ended. `execution` gives device, precision and progress. Raises DatasetError or
    ValueError for bad input, and FloatingPointError when the fine-tuning diverges.
    """
    layouts = categories_of(root)
    fingerprints = {layout.category: fingerprint(layout) for layout in layouts}
    name = _name(tuning, info, fingerprints, execution)
    folder = runs / "teachers" / profile / name
    with file_lock(folder / "lock", wait=True):  # many runs share one teacher: the first makes it
        record = _read(folder / "record.json")
        if record and record.categories != fingerprints:  # the key does not know their names
            raise ValueError(f"{folder} is of other categories, {', '.join(record.categories)}: delete it")
        if record is None or len(record.pyramids) <= epochs:
            cache = TeacherCache(folder, name, profile, tuning, info, fingerprints, execution)
            record = cache.fill(source, layouts, epochs)
    pyramid = ResNet18Pyramid()
    kept = folder / f"epoch-{epochs}.safetensors"
    try:
        pyramid.load_state_dict(load_file(kept))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{kept} cannot be read ({error}): delete {folder}") from error
    if (found := pyramid_hash(pyramid)) != record.pyramids[epochs]:
        raise ValueError(f"{kept} holds other weights ({found[:12]}) than its record says: delete {folder}")
    tuned = TuningInfo(
        name=name,
        epochs=epochs,
        data=tuning.data,
        categories=list(fingerprints),
        source_sha256=info.pyramid_sha256,
    )
    described = info.model_copy(update={"pyramid_sha256": found, "tuned": tuned})
    return Teacher(pyramid.eval().requires_grad_(False), described, record)


def _name(tuning: Tuning, info: TeacherInfo, fingerprints: dict[str, str], execution: Execution) -> str:
    """Readable, and another one for anything that would give other weights."""
    parts = [tuning.model_dump_json(), info.model_dump_json(), *sorted(fingerprints.values())]
    parts += [execution.precision, execution.device.type]
    key = hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]
    return f"{tuning.data}-rate{tuning.full_rate:g}-s{tuning.seed}-{key}"


def _read(path: Path) -> TeacherRecord | None:
    """The record in `path`; None when there is none or it is damaged: the teacher is then made again."""
    try:
        return TeacherRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@dataclass
class TeacherCache:
    """Where the teachers of one recipe are kept, one file per epoch."""

    folder: Path
    name: str
    profile: Profile
    tuning: Tuning
    source: TeacherInfo
    fingerprints: dict[str, str]
    execution: Execution

    def __post_init__(self) -> None:
        self.checkpoint = Checkpoint(self.folder / "state.ckpt", self.name)
        self.execution = replace(self.execution, checkpoint=self.checkpoint)
        self.clock = Clock(self.execution.device, self.checkpoint)
        self.pyramids: list[str] = []
        self.record: TeacherRecord | None = None

    def fill(self, source: str, layouts: Sequence[Layout], epochs: int) -> TeacherRecord:
        """Fine-tune up to `epochs` full epochs and keep every one; continues what was begun."""
        data = classifier_data(layouts, self.tuning)
        network = load_classifier(source, len(layouts), seed=self.tuning.seed)
        earlier = _read(self.folder / "record.json")
        if earlier is None:  # a checkpoint would go on behind epochs that no record describes any more
            self.checkpoint.remove()
        work = FineTuning(self.tuning, network, data, self.execution)
        self.pyramids = earlier.pyramids if earlier else []

        def keep(epoch: int, teacher: ResNet18Pyramid) -> None:
            content = serialise({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()})
            write_atomic(self.folder / f"epoch-{epoch}.safetensors", content)
            self.pyramids = [*self.pyramids[:epoch], pyramid_hash(teacher)]
            self.record = self._describe(data, work.curves)
            write_atomic(self.folder / "record.json", self.record.model_dump_json(indent=1).encode())

        work.run(epochs, keep)
        if self.record is None:
            raise ValueError(f"{self.folder} holds a checkpoint but no record: delete the folder")
        return self.record

    def _describe(self, data: ClassifierData, curves: dict[str, list[float]]) -> TeacherRecord:
        return TeacherRecord(
            name=self.name,
            profile=self.profile,
            tuning=self.tuning.model_dump(),
            precision=self.execution.precision,
            source=self.source,
            categories=self.fingerprints,
            images=len(data.labels),
            held_out=len(data.held_labels),
            curves={series: list(values) for series, values in curves.items()},
            pyramids=self.pyramids,
            runtime=self.clock.runtime(),
        )


def classifier_data(layouts: Sequence[Layout], tuning: Tuning) -> ClassifierData:
    """Images and category labels to learn from; the held-out ones are normal images of every category."""
    paths: list[list[Path]] = [[], []]
    labels: list[list[int]] = [[], []]
    for label, layout in enumerate(layouts):
        learn, hold = split_train(len(layout.train), fraction=tuning.held_out, seed=tuning.seed)
        extra = [item.image for item in seen_anomalies(layout, tuning.data)]
        parts = ([*(layout.train[i] for i in learn), *extra], [layout.train[i] for i in hold])
        for place, part in enumerate(parts):
            paths[place] += part
            labels[place] += [label] * len(part)
    images = [read_images(part, tuning.image_size) for part in paths]
    return ClassifierData(images[0], torch.tensor(labels[0]), images[1], torch.tensor(labels[1]))
