"""Fine-tuned teachers: one pass for all epochs, kept with a record, and never trusted blindly."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stlib.data.images import DatasetError, read_images
from stlib.methods import METHODS, et_stpm, finetuning
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution, Progress, no_progress
from stlib.nn.backbone import ResNet18Pyramid, load_teacher, pyramid_hash
from stlib.records.schema import TeacherInfo
from stlib.records.teacher import TeacherRecord
from stlib.run import teacher_cache, teacher_data
from stlib.run.spec import RunSpec
from stlib.run.teacher_cache import Teacher, prepare_teacher
from stlib.run.teacher_data import categories_of, classifier_data

SOURCE = Teacher(*load_teacher("random"))
BEFORE = SOURCE.info
TUNING = Tuning(image_size=32, batch_size=8)
Tuned = tuple[ResNet18Pyramid, TeacherInfo, TeacherRecord]


@pytest.fixture(scope="module")
def data(make_category, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories: stripes across and stripes along, 10 + (2 good, 5 turned) images each."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("across", "along")):
        make_category(root, name, train=10, good=2, defects={"turned": 5}, seed=seed, size=32)
    for path in root.glob("along/**/*.png"):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.TRANSPOSE).save(path)
    return root


@pytest.fixture(scope="module")
def make(data: Path) -> Callable[..., Tuned]:
    """`make(runs, epochs, progress, tuning, root)` on the two categories, from untrained weights."""

    def tune(
        runs: Path, epochs: int, progress: Progress = no_progress, tuning: Tuning = TUNING, root: Path = data
    ) -> Tuned:
        config = et_stpm.Config(teacher_epochs=epochs, tuning=tuning)
        entry = replace(et_stpm.METHOD, profiles={"demo": config}, variants={})
        spec = RunSpec("et_stpm", "", tuning.seed, profile="demo", data=root, teacher="random")
        execution = Execution(torch.device("cpu"), progress=progress)
        with patch.dict(METHODS, et_stpm=entry):
            tuned = prepare_teacher(spec, SOURCE, execution, runs)
        assert tuned.record
        return tuned.network, tuned.info, tuned.record

    return tune


@pytest.fixture(scope="module")
def cached(make: Callable[..., Tuned], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference: two epochs asked for at once, in an empty folder."""
    runs = tmp_path_factory.mktemp("runs")
    make(runs, 2)
    return runs


@pytest.fixture(scope="module")
def two(cached: Path, make: Callable[..., Tuned]) -> Tuned:
    return make(cached, 2, progress=no_training)


def no_training(*_: object) -> None:
    pytest.fail("something was trained")


def folder(runs: Path) -> Path:
    (found,) = (runs / "teachers" / "demo").glob("*/*")
    return found


def copied(cached: Path, runs: Path) -> Path:
    """The reference's folder under another `runs`."""
    shutil.copytree(cached, runs, dirs_exist_ok=True)
    return folder(runs)


def test_the_record_says_what_happened(two: Tuned, cached: Path):
    pyramid, info, record = two
    assert (record.source, record.profile, record.precision) == (BEFORE, "demo", "fp32")
    assert record.tuning == TUNING.model_dump()
    assert list(record.categories) == ["across", "along"]
    assert (record.images, record.held_out) == (18, 2)  # a tenth of train/good is held out
    assert {len(values) for values in record.curves.values()} == {3}
    assert set(record.curves) >= {"train_loss", "accuracy", "weight_change_layer1", "feature_cosine_layer3"}
    assert len(set(record.pyramids)) == 3
    assert record.pyramids[0] == BEFORE.pyramid_sha256
    assert record.runtime.train_seconds > 0
    assert record.name == folder(cached).name
    assert record.name.startswith("A-rate0.0001-s0-")
    assert info.pyramid_sha256 == pyramid_hash(pyramid) == record.pyramids[2]
    assert info.tuned is not None
    assert info.tuned.model_dump() == {
        "name": record.name,
        "epochs": 2,
        "data": "A",
        "categories": ["across", "along"],
        "source_sha256": BEFORE.pyramid_sha256,
    }
    assert info.model_copy(update={"pyramid_sha256": BEFORE.pyramid_sha256, "tuned": None}) == BEFORE
    assert not pyramid.training
    assert not any(p.requires_grad for p in pyramid.parameters())


@pytest.mark.parametrize("epochs", [0, 1])
def test_fewer_epochs_are_served_from_the_same_pass(
    cached: Path, two: Tuned, make: Callable[..., Tuned], epochs: int
):
    pyramid, info, record = make(cached, epochs, progress=no_training)
    assert record == two[2]
    assert info.pyramid_sha256 == pyramid_hash(pyramid) == record.pyramids[epochs]
    assert info.tuned is not None
    assert info.tuned.epochs == epochs


def test_no_epoch_asked_for_alone_then_more_and_killed_in_between_give_the_same_teachers(
    two: Tuned, make: Callable[..., Tuned], tmp_path: Path
):
    expected = two[2]
    alone = make(tmp_path, 0)[2]
    assert alone.pyramids == expected.pyramids[:1]
    assert alone.curves == {name: values[:1] for name, values in expected.curves.items()}

    def kill(done: int, *_: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 2, progress=kill)
    seen: list[tuple[int, int]] = []
    pyramid, _, record = make(tmp_path, 2, progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(3, 3)]
    assert (record.pyramids, record.curves) == (expected.pyramids, expected.curves)
    assert pyramid_hash(pyramid) == expected.pyramids[2]
    assert record.runtime.train_seconds >= alone.runtime.train_seconds  # earlier attempts are counted


def test_a_tampered_teacher_is_refused(cached: Path, make: Callable[..., Tuned], tmp_path: Path):
    file = copied(cached, tmp_path) / "epoch-2.safetensors"
    state = load_file(file)
    state["layer3.1.conv2.weight"].view(-1)[7] += 1e-3
    save_file(state, file)
    with pytest.raises(ValueError, match=r"epoch-2\.safetensors holds other weights .* than its record says"):
        make(tmp_path, 2)
    make(tmp_path, 1, progress=no_training)  # the other epochs are as they were
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"epoch-2\.safetensors cannot be read .*: delete "):
        make(tmp_path, 2)


@pytest.mark.parametrize("damage", ["{", None])
def test_a_damaged_or_lost_record_leads_to_a_new_training(
    cached: Path, two: Tuned, make: Callable[..., Tuned], tmp_path: Path, damage: str | None
):
    record = copied(cached, tmp_path) / "record.json"
    record.unlink() if damage is None else record.write_text(damage)
    seen: list[int] = []
    again = make(tmp_path, 0, progress=lambda done, *_: seen.append(done))[2]
    assert seen == [1]
    assert again.pyramids == two[2].pyramids[:1]
    assert TeacherRecord.model_validate_json(record.read_bytes()) == again


def test_a_teacher_of_other_code_is_not_taken_and_stays(
    cached: Path, two: Tuned, make: Callable[..., Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copied(cached, tmp_path)
    monkeypatch.setattr(teacher_cache, "TRAINING_CODE", "new code")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 0, progress=interrupt)
    monkeypatch.undo()
    assert make(tmp_path, 2, progress=no_training)[2] == two[2]


def test_what_gives_other_weights_has_another_name():
    plain, rounded = Execution(torch.device("cpu")), Execution(torch.device("cpu"), "bf16")
    asked = [
        (TUNING, BEFORE, {"across": "1"}, plain),
        (TUNING.model_copy(update={"full_rate": 1e-5}), BEFORE, {"across": "1"}, plain),
        (TUNING.model_copy(update={"data": "B"}), BEFORE, {"across": "1"}, plain),
        (TUNING, BEFORE.model_copy(update={"pyramid_sha256": "2"}), {"across": "1"}, plain),
        (TUNING, BEFORE, {"across": "3"}, plain),
        (TUNING, BEFORE, {"across": "1"}, rounded),
    ]
    assert len({teacher_cache._name(*parts) for parts in asked}) == len(asked)


def test_a_teacher_of_renamed_categories_is_refused(
    cached: Path, make: Callable[..., Tuned], data: Path, tmp_path: Path
):
    copied(cached, tmp_path / "runs")
    for old, new in (("across", "b"), ("along", "a")):  # the labels change places
        shutil.copytree(data / old, tmp_path / "data" / new)
    with pytest.raises(ValueError, match="is of other categories, across, along: delete it"):
        make(tmp_path / "runs", 1, progress=no_training, root=tmp_path / "data")


@pytest.mark.parametrize(("names", "found"), [((), "none"), (("flange",), "only flange")])
def test_a_teacher_is_not_tuned_on_fewer_than_two_categories(
    make: Callable[..., Tuned], make_category, tmp_path: Path, names: tuple[str, ...], found: str
):
    for name in names:
        make_category(tmp_path, name, train=10, size=32)
    with pytest.raises(DatasetError, match=f"needs at least two under .*, which holds {found}: use STPM"):
        make(tmp_path / "runs", 1, progress=no_training, root=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_an_image_of_another_category_that_stops_a_run_says_why_it_is_read(
    make: Callable[..., Tuned], make_category, tmp_path: Path
):
    for name in ("flange", "plate"):
        make_category(tmp_path, name, train=10, size=32)
    broken = tmp_path / "plate/train/good/003.png"
    broken.write_bytes(b"")
    told = f"^the teacher learns from all .* under {tmp_path}: {broken} is not"
    with pytest.raises(DatasetError, match=told):
        make(tmp_path / "runs", 1, progress=no_training, root=tmp_path)


def test_a_category_of_one_image_is_named(make_category, tmp_path: Path):
    for name, train in (("flange", 1), ("plate", 10)):
        make_category(tmp_path, name, train=train, size=32)
    with pytest.raises(ValueError, match=f"^{tmp_path}/flange/train/good holds 1 image: one to learn from"):
        classifier_data(categories_of(tmp_path), TUNING)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def pixels(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_head_the_split_and_the_order_come_from_the_tunings_seed(
    make: Callable[..., Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = {}

    def noted(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def spy(*arguments: object, **options: object) -> object:
            asked.setdefault(name, set()).add(options["seed"] if options else arguments[0])
            return original(*arguments, **options)

        return spy

    for module, name in (
        (teacher_cache, "load_classifier"),
        (teacher_data, "split_train"),
        (finetuning, "generator"),
    ):
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    make(tmp_path, 0, tuning=TUNING.model_copy(update={"seed": 7}))
    assert asked == {"load_classifier": {7}, "split_train": {7}, "generator": {7}}


@pytest.mark.parametrize(("variant", "extra"), [("A", 0), ("B", 3), ("C", 5)])
def test_lessons_hold_the_anomalous_test_images_of_the_variant_and_never_a_good_one(
    data: Path, variant: str, extra: int
):
    layouts = categories_of(data)
    given = classifier_data(layouts, TUNING.model_copy(update={"data": variant}))
    assert given.labels.tolist() == [0] * (9 + extra) + [1] * (9 + extra)
    assert given.held_labels.tolist() == [0, 1]
    for label, layout in enumerate(layouts):  # the label is the category, not the defect
        seen = pixels(given.images[given.labels == label])
        held = pixels(given.held_images[given.held_labels == label])
        turned = pixels(read_images([item.image for item in layout.test if item.mask], 32))
        assert seen | held <= pixels(read_images(layout.train, 32)) | turned
        assert (len(seen - turned), len(seen & turned), len(held - turned - seen)) == (9, extra, 1)


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"zipper": 1, "carpet": 1, "spoon": 1, "toothbrush": 60}, ["carpet", "toothbrush", "zipper"]),
        ({"washer": 1, "brick": 1}, ["brick", "washer"]),
        ({"Schraube": 1, "screw": 1}, ["screw", "Schraube"]),  # own parts under a name of MVTec AD's
    ],
)
def test_categories_come_in_the_papers_order_and_others_by_name(
    make_category, tmp_path: Path, counts: dict[str, int], found: list[str]
):
    for name, train in counts.items():
        make_category(tmp_path, name, train=train, good=1, defects={}, size=8)
    (tmp_path / "notes").mkdir()
    assert [layout.category for layout in categories_of(tmp_path)] == found
