"""ET-STPM is STPM on a fine-tuned teacher, and STPM itself where no full epoch has changed the teacher."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stlib.data.mvtec import Category
from stlib.methods import METHODS, stpm
from stlib.methods.et_stpm import ETSTPM, Config
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid
from stlib.nn.losses import feature_pyramid_loss, l1_cosine_loss
from stlib.records.teacher import load_teacher_records
from stlib.run.experiment import RunResult, run
from stlib.run.fitted import RunFailed
from stlib.run.spec import RunSpec

SMALL = {"image_size": 32, "epochs": 2, "batch_size": 4}
TINY = Config(**SMALL, tuning=Tuning(image_size=32, batch_size=8))
RESULTS = ("metrics", "undefined", "sensitivity", "image_scores", "pixel_curves", "bootstrap", "history")


@pytest.fixture(scope="module")
def finish(make_category, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunResult]:
    """`finish(method, variant)`: a finished run on one of two categories with MVTec AD's names."""
    data, runs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    for seed, category in enumerate(("tile", "bottle")):
        make_category(data, category, train=10, good=3, defects={"turned": 4}, seed=seed)
    entries = {
        "stpm": replace(METHODS["stpm"], profiles={"demo": stpm.Config(**SMALL)}),
        "et_stpm": replace(METHODS["et_stpm"], profiles={"demo": TINY}),
    }

    def made(method: str, variant: str = "") -> RunResult:
        wanted = RunSpec(method, "bottle", 7, profile="demo", variant=variant, data=data, teacher="random")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(METHODS, method, entries[method])
            return run(wanted, runs=runs)

    return made


@pytest.fixture(scope="module")
def plain(finish: Callable[..., RunResult]) -> RunResult:
    return finish("stpm")


@pytest.fixture(scope="module")
def tuned(finish: Callable[..., RunResult]) -> RunResult:
    return finish("et_stpm", "e=1")


def test_without_a_full_epoch_it_is_stpm_bit_for_bit(finish: Callable[..., RunResult], plain: RunResult):
    untuned = finish("et_stpm", "e=0")
    assert untuned.record.teacher.pyramid_sha256 == plain.record.teacher.pyramid_sha256
    for part in RESULTS:
        assert getattr(untuned.record, part) == getattr(plain.record, part), part
    for one, other in zip(untuned.maps, plain.maps, strict=True):
        assert torch.equal(one, other)
    assert untuned.record.labels() == plain.record.labels()  # nothing fell short of a paper's fine-tuning


def test_one_full_epoch_gives_another_teacher_and_another_result(tuned: RunResult, plain: RunResult):
    assert tuned.record.teacher.pyramid_sha256 != plain.record.teacher.pyramid_sha256
    assert not torch.equal(tuned.maps.pixel, plain.maps.pixel)
    assert tuned.record.history != plain.record.history


def test_the_record_says_how_its_teacher_was_made(tuned: RunResult, plain: RunResult):
    record, lesson = tuned.record, tuned.detector.teacher_record
    assert (record.method, record.variant) == ("et_stpm", "e=1")
    assert record.config["teacher_epochs"] == 1
    assert record.config["tuning"]["seed"] == lesson.tuning["seed"] == 7  # the run's
    assert record.teacher.source == "random"
    told = record.teacher.tuned
    assert told is not None
    assert (told.epochs, told.data, told.categories) == (1, "A", ["tile", "bottle"])
    assert told.source_sha256 == plain.record.teacher.pyramid_sha256
    assert lesson is not None
    assert lesson.name == told.name
    assert lesson.pyramids[1] == record.teacher.pyramid_sha256
    official = record.model_copy(update={"dataset": record.dataset.model_copy(update={"name": "MVTec AD"})})
    assert "teacher fine-tuned on 2 of 15 categories" in official.labels()
    assert plain.record.teacher.tuned is None
    assert plain.detector.teacher_record is None


def test_keeping_a_run_keeps_its_teachers_record_beside_the_records(tuned: RunResult, tmp_path: Path):
    path = tuned.save(tmp_path / "records")
    assert path.parent == tmp_path / "records/demo/et_stpm-e=1"
    assert load_teacher_records(tmp_path / "teachers") == [tuned.detector.teacher_record]


def test_the_loss_is_stpms_unless_the_papers_sentence_is_asked_for(
    plate: Category, random_teacher: ResNet18Pyramid
):
    config = Config(image_size=64, epochs=1, batch_size=4)
    cpu = Execution(torch.device("cpu"))
    assert ETSTPM(config, random_teacher, cpu).loss is feature_pyramid_loss
    worded = ETSTPM(config.model_copy(update={"loss": "l1+cosine"}), random_teacher, cpu)
    assert worded.loss is l1_cosine_loss
    few = plate.train[:10]
    losses = [
        method.fit(few, seed=0).curves["train_loss"][0]
        for method in (worded, ETSTPM(config, random_teacher, cpu))
    ]
    assert 0 < losses[0] != losses[1]


def test_a_fine_tuning_that_diverges_leaves_a_failed_record(
    make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_category(tmp_path, "bottle", train=10)
    make_category(tmp_path, "tile", train=10)
    wild = TINY.model_copy(update={"tuning": TINY.tuning.model_copy(update={"full_rate": 1e30})})
    monkeypatch.setitem(METHODS, "et_stpm", replace(METHODS["et_stpm"], profiles={"demo": wild}))
    with pytest.raises(RunFailed, match="fine-tuning, epoch 2: loss nan") as failure:
        run(
            RunSpec("et_stpm", "bottle", profile="demo", data=tmp_path, teacher="random"),
            runs=tmp_path / "runs",
        )
    record = failure.value.record
    assert (record.status, record.method, record.metrics) == ("failed", "et_stpm", {})
