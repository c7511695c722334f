"""One run from images to record: the whole flow."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stlib.data.mvtec import Category, load_category
from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.decision import threshold_from
from stlib.detector import DetectorInfo, digests
from stlib.files import file_lock, require_space
from stlib.methods import Method, get_method
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.training import Execution, Progress, Recipe, no_progress, reuse_memory, seeded
from stlib.nn.backbone import load_teacher
from stlib.nn.maps import Maps
from stlib.paths import RUNS
from stlib.protocol import Metric
from stlib.records.schema import Dataset, Record, TeacherInfo, TextureInfo
from stlib.records.store import is_recorded, require_free
from stlib.run.evaluation import observed, rounded
from stlib.run.fitted import AlreadyFinished, FittedDetector, RunFailed, unfinished
from stlib.run.provenance import TRAINING_CODE, Clock
from stlib.run.spec import RunSpec
from stlib.run.teacher_cache import Teacher, prepare_teacher

SPACE = 1 << 30
"""Bytes that must be free before a run starts: the largest checkpoint and the one that replaces it."""
RECORD_SPACE = 1 << 24
"""The same where the record will go."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its record, and the maps and the detector that it describes."""

    record: Record
    maps: Maps
    """Of the category's test images."""
    detector: FittedDetector

    @classmethod
    def of(cls, detector: FittedDetector) -> "RunResult":
        """Score and measure the test images of the category of its training. Raises as `record` does."""
        maps = detector.maps(detector.category.test)
        return cls(detector.record(maps), maps, detector)

    def save(self, folder: Path | str | None = None, detector: Path | str | None = None) -> Path:
        """Write the record under `folder`; see `FittedDetector.save_record`."""
        return self.detector.save_record(self.record, folder, detector)


def run(
    spec: RunSpec,
    *,
    progress: Progress = no_progress,
    runs: Path = RUNS,
    records: Path | None = None,
    skip_finished: bool = False,
) -> RunResult:
    """Train, score and measure. Checkpoints go under `runs`; a killed run continues from there.

    `records` is where the record will go. Raises what `train` and `RunResult.of` do.
    """
    return RunResult.of(
        train(spec, progress=progress, runs=runs, records=records, skip_finished=skip_finished)
    )


def train(
    spec: RunSpec,
    category: Category | None = None,
    *,
    progress: Progress = no_progress,
    runs: Path = RUNS,
    records: Path | None = None,
    skip_finished: bool = False,
) -> FittedDetector:
    """Train on the spec's category, loaded here or given as `category` at the recipe's size.

    Checkpoints go under `runs`; a killed training continues from there. Raises ValueError or OSError before
    training starts for bad input, a full disk and a place in `records` that is taken, DatasetError for a
    category that cannot be read, BlockingIOError while another process makes the same run, and RunFailed
    when training diverges. Raises RuntimeError for a method that has changed its teacher, and, told to
    `skip_finished`, AlreadyFinished where `records` hold this run.
    """
    spec.check()
    require_space(runs, SPACE, "run")
    if records:
        require_space(records, RECORD_SPACE, "keep the record")
    if spec.device == "cpu":
        reuse_memory()
    entry = get_method(spec.method)
    config = entry.recipe(spec.profile, spec.variant, spec.seed)
    teacher = Teacher(*load_teacher(spec.teacher))
    category = _category(spec, config.image_size, category)
    device = torch.device(spec.device)
    execution = Execution(device, spec.precision, progress)
    parts, textures = _synthesis(spec, category, device) if entry.needs_textures else ({}, None)
    about: dict[str, object] = {
        "method": spec.method,
        "variant": spec.variant,
        "category": spec.category,
        "seed": spec.seed,
        "profile": spec.profile,
        "config": config.model_dump(mode="json"),
        "precision": spec.precision,
        "dataset": _dataset(category),
        "teacher": teacher.info,
        "textures": textures,
    }
    clock = Clock(device)

    def begin(info: TeacherInfo) -> Record:
        return _begun({**about, "teacher": info}, clock, records, skip=skip_finished)

    def observe(steps: int) -> dict[Metric, float]:
        return observed(category, method, steps)

    try:
        teacher = prepare_teacher(spec, teacher, execution, runs, begin)  # it may take hours
        begun = begin(teacher.info)
        about["teacher"] = teacher.info
        path = (runs / begun.path).with_suffix(".ckpt")
        checkpoint = Checkpoint(path, _identity(spec, config, begun))
        watched = observe if spec.profile == "paper" and len(category.test) else None
        execution = replace(execution, checkpoint=checkpoint, observe=watched)
        # the lock is held by the process that trains: a notebook's kernel may outlive whoever started it
        with file_lock(path.with_suffix(".lock")):
            with seeded(spec.seed):  # for what a method draws beside its own generators
                method: Method = entry.build(config, teacher.network, execution, **parts)
                clock = Clock(device, checkpoint)
                history = method.fit(category.train, seed=spec.seed)
            clock.trained()
            teacher.require_untouched(entry.title)
            # copies: one that the network in use shares would change when another is put to use
            method.snapshots = copy.deepcopy(method.snapshots)
            if held_out := entry.held_out(config, len(category.train)):
                scores = method.maps(category.train[held_out]).image
                about["threshold"] = threshold_from(scores.tolist())
    except FloatingPointError as error:
        raise RunFailed(unfinished(about, str(error), clock)) from error
    return FittedDetector(
        DetectorInfo.model_validate({**about, "training_images": digests(category.train)}),
        method.network,
        history=history.model_copy(update={"curves": rounded(history.curves)}),
        category=category,
        checkpoint=checkpoint,
        teacher_record=teacher.record,
        method=method,
        clock=clock,
        base=about,
    )


def _category(spec: RunSpec, size: int, given: Category | None) -> Category:
    """The spec's category, loaded now unless it is `given`. Raises ValueError for one of another size."""
    category = given or load_category(spec.data, spec.category, image_size=size)
    if (side := category.test.shape[-1]) != size:
        recipe = f"profile '{spec.profile}' of {spec.method} {spec.variant}".rstrip()
        raise ValueError(
            f"{category.name} was loaded at {side} pixels, and {recipe} takes {size}: "
            f"load_category(..., image_size={size})"
        )
    return category


def _begun(base: Mapping[str, object], clock: Clock, records: Path | None, *, skip: bool) -> Record:
    """The record of a run that begins. Raises ValueError for a run that no record can describe.

    Raises ValueError, too, where its place in `records` is taken, and AlreadyFinished where this very run is
    there, if told to `skip` such.
    """
    begun = unfinished(base, "not finished", clock)
    if records:
        require_free(begun, records)
        if skip and is_recorded(begun, records):
            raise AlreadyFinished(records / begun.path)
    return begun


def _dataset(category: Category) -> Dataset:
    counts = category.layout.counts
    return Dataset(
        name=category.layout.dataset,
        fingerprint=category.fingerprint,
        train_images=counts.train_good,
        test_good=counts.test_good,
        test_defect=counts.test_defect,
        image_size=category.test.shape[-1],
        mask_rule="half",
        gaps=category.layout.missing_images(),
    )


def _synthesis(
    spec: RunSpec, category: Category, device: torch.device
) -> tuple[dict[str, AnomalySynthesis], TextureInfo]:
    """The part that corrupts training images, and the description of its textures.

    What recipes say of a category by its name, how to rotate it and where its foreground is, holds for MVTec
    AD's images: own parts, whose folder may bear any name, are not rotated and are foreground throughout.
    """
    textures, info = load_textures(spec.textures, category.train.shape[-1])
    known = "" if category.layout.dataset == "other" else category.name
    return {"synthesis": AnomalySynthesis(textures.to(device), known)}, info


def _identity(spec: RunSpec, config: Recipe, run: Record) -> str:
    """All that the numbers of a `run` depend on: what continues it is equal in it."""
    how = [spec.precision, torch.device(spec.device).type]
    foreign = run.textures.fingerprint if run.textures else ""
    made_of = [config.model_dump_json(), run.teacher.pyramid_sha256, run.dataset.fingerprint, foreign]
    return "|".join([str(spec.seed), *how, *made_of, TRAINING_CODE])
