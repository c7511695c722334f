"""Fine-tuned teachers for ET-STPM: made once per recipe, kept by epoch, described by their own record."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save as serialise

from stlib.data.images import DatasetError, read_images
from stlib.data.layout import Layout, fingerprint, scan
from stlib.data.splits import seen_anomalies, split_train
from stlib.files import file_lock, write_atomic
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.finetuning import ClassifierData, FineTuning, Tuning
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid, pyramid_hash
from stlib.nn.classifier import load_classifier
from stlib.protocol import CATEGORIES, Profile
from stlib.records.schema import TeacherInfo, TuningInfo
from stlib.records.teacher import TeacherRecord
from stlib.run.provenance import TRAINING_CODE, Clock


def categories_of(root: Path) -> list[Layout]:
    """Every category under `root`, MVTec AD's names first in the papers' order.

    Beside images of MVTec AD no other names are taken: what else lies there belongs to no paper's teacher.
    Raises DatasetError for a folder with `train/good` that cannot be used.
    """
    found = {path.parent.parent.name for path in root.glob("*/train/good")}
    named = [scan(root, name) for name in CATEGORIES if name in found]
    if any(layout.dataset == "MVTec AD" for layout in named):  # own parts, too, may be called 'screw'
        return named
    return [*named, *(scan(root, name) for name in sorted(found - CATEGORIES.keys()))]


def require_classes(root: Path) -> list[Layout]:
    """What `categories_of` finds, where there are categories to tell apart.

    Of a single one every answer is right: the loss is 0, and nothing is learnt but BatchNorm's statistics.
    Raises DatasetError for fewer than two.
    """
    with _learning_from(root):
        layouts = categories_of(root)
    if len(layouts) < 2:
        found = f"only {layouts[0].category}" if layouts else "none"
        raise DatasetError(
            f"ET-STPM fine-tunes its teacher to tell categories apart and needs at least two under {root}, "
            f"which holds {found}: use STPM, or add categories"
        )
    return layouts


@contextmanager
def _learning_from(root: Path) -> Iterator[None]:
    """Say of an image that cannot be used why it was read: it may be of another category than the run's."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"the teacher learns from all categories under {root}: {error}") from error


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher."""

    network: ResNet18Pyramid
    info: TeacherInfo
    """What its weights are."""
    record: TeacherRecord | None = None
    """Of its fine-tuning, where there was one."""

    def require_untouched(self, title: str) -> None:
        """Raise RuntimeError where the fit of the method called `title` has changed the weights."""
        if pyramid_hash(self.network) != self.info.pyramid_sha256:
            raise RuntimeError(
                f"{title}'s fit changed the teacher, and the record would name another: only the student may "
                "be in train mode, and only its weights in the optimiser"
            )


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
    announce: Callable[[TeacherInfo], object] = lambda _: None,
) -> Teacher:
    """The teacher after `epochs` full epochs of fine-tuning, from `runs/teachers` or made now.

    `source` and `info` are those of `load_teacher`. All epochs of one recipe come from one pass: more epochs
    continue where fewer ended. What other code of stlib made lies in another folder and is not taken.
    `execution` gives device, precision and progress; `announce` is called with all that is known of the
    teacher before the work, which is all but its hash. Raises DatasetError or ValueError for bad input, and
    FloatingPointError when the fine-tuning diverges.
    """
    layouts = require_classes(root)
    fingerprints = {layout.category: fingerprint(layout) for layout in layouts}
    name = _name(tuning, info, fingerprints, execution)
    tuned = TuningInfo(
        name=name,
        epochs=epochs,
        data=tuning.data,
        categories=list(fingerprints),
        source_sha256=info.pyramid_sha256,
    )
    announce(info.model_copy(update={"pyramid_sha256": "", "tuned": tuned}))
    folder = runs / "teachers" / profile / TRAINING_CODE[:8] / name
    with file_lock(folder / "lock", wait=True):  # many runs share one teacher: the first makes it
        record = _read(folder / "record.json")
        if record and record.categories != fingerprints:  # the key does not know their names
            raise ValueError(f"{folder} is of other categories, {', '.join(record.categories)}: delete it")
        if record is None or len(record.pyramids) <= epochs:
            about = {
                "name": name,
                "profile": profile,
                "tuning": tuning.model_dump(),
                "precision": execution.precision,
                "source": info,
                "categories": fingerprints,
            }
            with _learning_from(root):
                record = _fine_tuned(
                    folder, about, record, source, layouts, tuning=tuning, epochs=epochs, execution=execution
                )
    pyramid = ResNet18Pyramid()
    kept = folder / f"epoch-{epochs}.safetensors"
    try:
        pyramid.load_state_dict(load_file(kept))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{kept} cannot be read ({error}): delete {folder}") from error
    if (found := pyramid_hash(pyramid)) != record.pyramids[epochs]:
        raise ValueError(f"{kept} holds other weights ({found[:12]}) than its record says: delete {folder}")
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


def _fine_tuned(
    folder: Path,
    about: Mapping[str, object],
    record: TeacherRecord | None,
    source: str,
    layouts: Sequence[Layout],
    *,
    tuning: Tuning,
    epochs: int,
    execution: Execution,
) -> TeacherRecord:
    """Fine-tune up to `epochs` full epochs and keep every one in `folder`; continues what `record` describes.

    `about` are the fields of a record that are known before.
    """
    checkpoint = Checkpoint(folder / "state.ckpt", str(about["name"]))
    clock = Clock(execution.device, checkpoint)
    data = classifier_data(layouts, tuning)
    network = load_classifier(source, len(layouts), seed=tuning.seed)
    if record is None:  # a checkpoint would go on behind epochs that no record describes any more
        checkpoint.remove()
    work = FineTuning(tuning, network, data, replace(execution, checkpoint=checkpoint))

    def keep(epoch: int, teacher: ResNet18Pyramid) -> None:
        nonlocal record
        content = serialise({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()})
        write_atomic(folder / f"epoch-{epoch}.safetensors", content)
        found = {
            "images": len(data.labels),
            "held_out": len(data.held_labels),
            "curves": {series: list(values) for series, values in work.curves.items()},
            "pyramids": [*(record.pyramids[:epoch] if record else []), pyramid_hash(teacher)],
            "runtime": clock.runtime(),
        }
        record = TeacherRecord.model_validate({**about, **found})
        write_atomic(folder / "record.json", record.model_dump_json(indent=1).encode())

    work.run(epochs, keep)
    assert record  # a checkpoint is written after the record of its epoch
    return record


def classifier_data(layouts: Sequence[Layout], tuning: Tuning) -> ClassifierData:
    """Images and category labels to learn from; the held-out ones are normal images of every category."""
    paths: list[list[Path]] = [[], []]
    labels: list[list[int]] = [[], []]
    for label, layout in enumerate(layouts):
        good = layout.folder / "train" / "good"
        learn, hold = split_train(len(layout.train), fraction=tuning.held_out, seed=tuning.seed, folder=good)
        extra = [item.image for item in seen_anomalies(layout, tuning.data)]
        parts = ([*(layout.train[i] for i in learn), *extra], [layout.train[i] for i in hold])
        for place, part in enumerate(parts):
            paths[place] += part
            labels[place] += [label] * len(part)
    images = [read_images(part, tuning.image_size) for part in paths]
    return ClassifierData(images[0], torch.tensor(labels[0]), images[1], torch.tensor(labels[1]))
