"""Fine-tuned teachers: one pass for all epochs, kept with a record, and never trusted blindly."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stlib.data.images import DatasetError, read_images
from stlib.methods import finetuning
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution, Progress, no_progress
from stlib.nn.backbone import ResNet18Pyramid, load_teacher, pyramid_hash
from stlib.records.schema import TeacherInfo
from stlib.records.teacher import TeacherRecord
from stlib.run import teacher_cache
from stlib.run.teacher_cache import categories_of, classifier_data, tuned_teacher

BEFORE = load_teacher("random")[1]
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
    """`make(runs, epochs, progress, tuning)` on the two categories, from untrained weights."""

    def tune(runs: Path, epochs: int, progress: Progress = no_progress, tuning: Tuning = TUNING) -> Tuned:
        execution = Execution(torch.device("cpu"), progress=progress)
        tuned = tuned_teacher(
            "random", BEFORE, tuning, epochs, root=data, profile="demo", execution=execution, runs=runs
        )
        assert tuned.record
        return tuned.network, tuned.info, tuned.record

    return tune


@pytest.fixture(scope="module")
def cached(make: Callable[..., Tuned], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference: three epochs asked for at once, in an empty folder."""
    runs = tmp_path_factory.mktemp("runs")
    make(runs, 3)
    return runs


@pytest.fixture(scope="module")
def three(cached: Path, make: Callable[..., Tuned]) -> Tuned:
    return make(cached, 3, progress=no_training)


def no_training(*_: object) -> None:
    pytest.fail("something was trained")


def folder(runs: Path) -> Path:
    (found,) = (runs / "teachers" / "demo").glob("*/*")
    return found


def copied(cached: Path, runs: Path) -> Path:
    """The reference's folder under another `runs`."""
    shutil.copytree(cached, runs, dirs_exist_ok=True)
    return folder(runs)


def test_the_record_says_what_happened(three: Tuned, cached: Path, data: Path):
    pyramid, info, record = three
    before = load_teacher("random")[1]
    assert (record.source, record.profile, record.precision) == (before, "demo", "fp32")
    assert record.tuning == TUNING.model_dump()
    assert list(record.categories) == ["across", "along"]
    assert (record.images, record.held_out) == (18, 2)  # a tenth of train/good is held out
    assert {len(values) for values in record.curves.values()} == {4}
    assert set(record.curves) >= {"train_loss", "accuracy", "weight_change_layer1", "feature_cosine_layer3"}
    assert len(set(record.pyramids)) == 4
    assert record.pyramids[0] == before.pyramid_sha256
    assert record.runtime.train_seconds > 0
    assert record.name == folder(cached).name
    assert record.name.startswith("A-rate0.0001-s0-")
    assert info.pyramid_sha256 == pyramid_hash(pyramid) == record.pyramids[3]
    assert info.tuned is not None
    assert info.tuned.model_dump() == {
        "name": record.name,
        "epochs": 3,
        "data": "A",
        "categories": ["across", "along"],
        "source_sha256": before.pyramid_sha256,
    }
    assert info.model_copy(update={"pyramid_sha256": before.pyramid_sha256, "tuned": None}) == before
    assert not pyramid.training
    assert not any(p.requires_grad for p in pyramid.parameters())


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_fewer_epochs_are_served_from_the_same_pass(
    cached: Path, three: Tuned, make: Callable[..., Tuned], epochs: int
):
    pyramid, info, record = make(cached, epochs, progress=no_training)
    assert record == three[2]
    assert info.pyramid_sha256 == pyramid_hash(pyramid) == record.pyramids[epochs]
    assert info.tuned is not None
    assert info.tuned.epochs == epochs


def test_one_epoch_asked_for_alone_then_more_and_killed_in_between_give_the_same_teachers(
    three: Tuned, make: Callable[..., Tuned], tmp_path: Path
):
    expected = three[2]
    alone = make(tmp_path, 1)[2]
    assert alone.pyramids == expected.pyramids[:2]
    assert alone.curves == {name: values[:2] for name, values in expected.curves.items()}

    def kill(done: int, *_: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 3, progress=kill)
    seen: list[tuple[int, int]] = []
    pyramid, _, record = make(tmp_path, 3, progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(4, 4)]
    assert (record.pyramids, record.curves) == (expected.pyramids, expected.curves)
    assert pyramid_hash(pyramid) == expected.pyramids[3]
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
    file.unlink()
    with pytest.raises(ValueError, match=r"epoch-2\.safetensors cannot be read .*: delete "):
        make(tmp_path, 2)


@pytest.mark.parametrize("damage", ["{", None])
def test_a_damaged_or_lost_record_leads_to_a_new_training(
    cached: Path, three: Tuned, make: Callable[..., Tuned], tmp_path: Path, damage: str | None
):
    record = copied(cached, tmp_path) / "record.json"
    record.unlink() if damage is None else record.write_text(damage)
    seen: list[int] = []
    again = make(tmp_path, 0, progress=lambda done, *_: seen.append(done))[2]
    assert seen == [1]
    assert again.pyramids == three[2].pyramids[:1]
    assert TeacherRecord.model_validate_json(record.read_bytes()) == again


def test_a_teacher_of_other_code_is_not_taken_and_found_again_when_that_code_is_back(
    cached: Path, three: Tuned, make: Callable[..., Tuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copied(cached, tmp_path)
    seen: list[int] = []
    with monkeypatch.context() as changed:
        changed.setattr(teacher_cache, "TRAINING_CODE", "new code")
        make(tmp_path, 0, progress=lambda done, *_: seen.append(done))
    assert seen == [1]
    assert make(tmp_path, 3, progress=no_training)[2] == three[2]


def test_another_recipe_is_kept_elsewhere(cached: Path, make: Callable[..., Tuned], tmp_path: Path):
    names = {folder(cached).name}
    for number, change in enumerate(({"full_rate": 1e-5}, {"data": "B"})):
        runs = tmp_path / str(number)
        tuning = TUNING.model_copy(update=change)
        with pytest.raises(KeyboardInterrupt):
            make(runs, 0, progress=interrupt, tuning=tuning)
        names.add(folder(runs).name)
    assert len(names) == 3


def test_a_teacher_of_renamed_categories_is_refused(cached: Path, data: Path, tmp_path: Path):
    copied(cached, tmp_path / "runs")
    for old, new in (("across", "b"), ("along", "a")):  # the labels change places
        shutil.copytree(data / old, tmp_path / "data" / new)
    execution = Execution(torch.device("cpu"), progress=no_training)
    options = {
        "root": tmp_path / "data",
        "profile": "demo",
        "execution": execution,
        "runs": tmp_path / "runs",
    }
    with pytest.raises(ValueError, match="is of other categories, across, along: delete it"):
        tuned_teacher("random", BEFORE, TUNING, 1, **options)


@pytest.mark.parametrize(("names", "found"), [((), "none"), (("flange",), "only flange")])
def test_a_teacher_is_not_tuned_on_fewer_than_two_categories(
    make_category, tmp_path: Path, names: tuple[str, ...], found: str
):
    for name in names:
        make_category(tmp_path, name, train=10, size=32)
    execution = Execution(torch.device("cpu"), progress=no_training)
    options = {"root": tmp_path, "profile": "demo", "execution": execution, "runs": tmp_path / "runs"}
    with pytest.raises(DatasetError, match=f"needs at least two under .*, which holds {found}: use STPM"):
        tuned_teacher("random", BEFORE, TUNING, 1, **options)
    assert not (tmp_path / "runs").exists()


def test_an_image_of_another_category_that_stops_a_run_says_why_it_is_read(make_category, tmp_path: Path):
    for name in ("flange", "plate"):
        make_category(tmp_path, name, train=10, size=32)
    broken = tmp_path / "plate/train/good/003.png"
    broken.write_bytes(b"")
    execution = Execution(torch.device("cpu"), progress=no_training)
    options = {"root": tmp_path, "profile": "demo", "execution": execution, "runs": tmp_path / "runs"}
    with pytest.raises(
        DatasetError, match=f"^the teacher learns from all .* under {tmp_path}: {broken} is not"
    ):
        tuned_teacher("random", BEFORE, TUNING, 1, **options)


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
        (teacher_cache, "split_train"),
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
    seen, held = pixels(given.images), pixels(given.held_images)
    assert not seen & held
    for layout in layouts:
        normal = pixels(read_images(layout.train, 32))
        good = pixels(read_images([i.image for i in layout.test if i.defect == "good"], 32))
        turned = pixels(read_images([i.image for i in layout.test if i.defect != "good"], 32))
        assert (len(normal & seen), len(normal & held)) == (9, 1)
        assert not good & (seen | held)
        assert not turned & held
        assert len(turned & seen) == extra


def test_labels_are_the_category_not_the_defect(data: Path):
    layouts = categories_of(data)
    given = classifier_data(layouts, TUNING.model_copy(update={"data": "C"}))
    for label, layout in enumerate(layouts):
        own = pixels(read_images(layout.train + [item.image for item in layout.test], 32))
        assert pixels(given.images[given.labels == label]) <= own


def test_categories_come_in_the_papers_order_and_others_by_name(make_category, tmp_path: Path):
    official, own = tmp_path / "official", tmp_path / "own"
    for name in ("zipper", "carpet", "spoon"):
        make_category(official, name, train=1, good=1, defects={}, size=8)
    make_category(official, "toothbrush", train=60, good=1, defects={}, size=8)
    (official / "notes").mkdir()
    for name in ("washer", "brick"):
        make_category(own, name, train=1, good=1, defects={}, size=8)
    assert [layout.category for layout in categories_of(official)] == ["carpet", "toothbrush", "zipper"]
    assert [layout.category for layout in categories_of(own)] == ["brick", "washer"]


def test_of_own_parts_none_is_left_out_because_another_has_a_name_of_mvtec_ads(make_category, tmp_path: Path):
    for name in ("Schraube", "screw"):
        make_category(tmp_path, name, train=1, good=1, defects={}, size=8)
    assert [layout.category for layout in categories_of(tmp_path)] == ["screw", "Schraube"]
