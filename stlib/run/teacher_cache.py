"""Fine-tuned teachers for ET-STPM: made once per recipe, kept by epoch, described by their own record."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save as serialise

from stlib.data.layout import Layout, fingerprint
from stlib.files import file_lock, write_atomic
from stlib.methods import get_method
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.finetuning import FineTuning, Tuning
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid, pyramid_hash
from stlib.nn.classifier import load_classifier
from stlib.records.schema import TeacherInfo, TuningInfo
from stlib.records.teacher import TeacherRecord, read_teacher_record
from stlib.run.provenance import TRAINING_CODE, Clock
from stlib.run.spec import RunSpec
from stlib.run.teacher_data import classifier_data, learning_from, require_classes


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


def prepare_teacher(
    spec: RunSpec,
    teacher: Teacher,
    execution: Execution,
    runs: Path,
    announce: Callable[[TeacherInfo], object] = lambda _: None,
) -> Teacher:
    """What the method of `spec` learns from: `teacher` as it comes, or fine-tuned first (ET-STPM).

    A fine-tuned one is taken from `runs/teachers` or made now. All epochs of one recipe come from one pass:
    more epochs continue where fewer ended. What other code of stlib made lies in another folder and is not
    taken. `execution` gives device, precision and progress; `announce` is called with all that is known of
    the teacher before the work, which is all but its hash. Raises DatasetError or ValueError for bad input,
    and FloatingPointError when the fine-tuning diverges.
    """
    method = get_method(spec.method)
    if method.tuning is None:
        return teacher
    tuning, epochs = method.tuning(method.recipe(spec.profile, spec.variant, spec.seed))
    info = teacher.info
    layouts = require_classes(spec.data)
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
    folder = runs / "teachers" / spec.profile / TRAINING_CODE[:8] / name
    with file_lock(folder / "lock", wait=True):  # many runs share one teacher: the first makes it
        record = read_teacher_record(folder / "record.json")
        if record and record.categories != fingerprints:  # the key does not know their names
            raise ValueError(f"{folder} is of other categories, {', '.join(record.categories)}: delete it")
        if record is None or len(record.pyramids) <= epochs:
            about = {
                "name": name,
                "profile": spec.profile,
                "tuning": tuning.model_dump(),
                "precision": execution.precision,
                "source": info,
                "categories": fingerprints,
            }
            with learning_from(spec.data):
                record = _fine_tuned(
                    folder,
                    about,
                    record,
                    spec.teacher,
                    layouts,
                    tuning=tuning,
                    epochs=epochs,
                    execution=execution,
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
