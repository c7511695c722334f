from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from stlib.data.mvtec import load_category
from stlib.demo import dataset
from stlib.demo.dataset import DEMO_CATEGORIES, DEMO_TEXTURES, DRAWERS, make_demo


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("data") / "demo")


@pytest.fixture
def small(monkeypatch):
    """Few images, for tests that make the set again."""
    monkeypatch.setattr(dataset, "DEMO_CATEGORIES", ("brick", "washer"))
    for count in ("TRAIN_GOOD", "TEST_GOOD", "TEST_PER_DEFECT"):
        monkeypatch.setattr(dataset, count, 1)


def read(file):
    with Image.open(file) as image:
        return np.asarray(image)


@pytest.mark.parametrize("category", DEMO_CATEGORIES)
def test_the_reader_finds_the_official_layout(root, category):
    loaded = load_category(root, category, image_size=64)
    assert len(loaded.train) == dataset.TRAIN_GOOD
    assert len(loaded.test) == dataset.TEST_GOOD + dataset.TEST_PER_DEFECT * len(DRAWERS)
    assert (loaded.masks.flatten(1).any(1) == loaded.labels).all()
    assert {item.defect for item in loaded.layout.test} == {"good", *DRAWERS}


def test_textures_are_grey_and_the_object_is_colour(root):
    modes = {}
    for name in DEMO_CATEGORIES:
        with Image.open(root / name / "train" / "good" / "000.png") as image:
            modes[name] = image.mode
    assert modes == {name: "L" if name in DEMO_TEXTURES else "RGB" for name in DEMO_CATEGORIES}


@pytest.mark.parametrize("defect", DRAWERS)
def test_masks_are_binary_and_leave_most_of_the_image(root, defect):
    for mask in root.glob(f"*/ground_truth/{defect}/*_mask.png"):
        pixels = read(mask)
        assert set(np.unique(pixels)) == {0, 255}
        assert 0 < (pixels > 0).mean() < 0.15


@pytest.mark.parametrize("defect", DRAWERS)
@pytest.mark.parametrize("category", DEMO_CATEGORIES)
def test_a_defect_changes_the_image_where_its_mask_says(category, defect):
    photograph = dataset._photograph(category) if category in DEMO_TEXTURES else None
    rng = np.random.default_rng(5)
    sample = dataset._crop(photograph, dataset.TEST_COLUMNS, rng) if photograph else dataset._washer(rng)
    spoiled, mask = dataset._spoil(sample, DRAWERS[defect], rng)
    change = np.abs(spoiled - sample.image).mean(axis=-1)
    assert change[mask > 0].mean() > 20 * change[mask == 0].mean()
    assert change[mask > 0].mean() > 0.03  # eight of 256 grey levels: people can see it
    assert not change[sample.body == 0].any()


def test_train_and_test_crops_come_from_disjoint_columns():
    left = Image.new("L", (512, 512), 0)
    left.paste(255, (sum(dataset.TRAIN_COLUMNS[1:] + dataset.TEST_COLUMNS[:1]) // 2, 0, 512, 512))
    for draw in range(50):
        rng = np.random.default_rng(draw)
        train = dataset._crop(left, dataset.TRAIN_COLUMNS, rng).image
        test = dataset._crop(left, dataset.TEST_COLUMNS, rng).image
        assert np.ptp(train) == np.ptp(test) == 0  # no pixel of the other half bleeds in
        assert train.max() < test.min()


def test_no_two_images_are_equal(root):
    images = [read(file).tobytes() for file in root.rglob("*/good/*.png")]
    assert len(set(images)) == len(images)


def pixels(root):
    return [(path.relative_to(root), read(path).tobytes()) for path in sorted(root.rglob("*.png"))]


def test_same_seed_same_pixels_other_seed_other_pixels_and_nothing_left_behind(tmp_path, small):
    root = make_demo(tmp_path / "demo", seed=3)
    first = pixels(root)
    assert pixels(make_demo(tmp_path / "again", seed=3)) == first
    assert pixels(make_demo(root, seed=4)) != first
    assert {path.name for path in tmp_path.iterdir()} == {"demo", "again", ".demo.lock", ".again.lock"}


def test_a_current_set_is_not_touched(tmp_path, small):
    root = make_demo(tmp_path / "demo")
    (root / "trace").touch()
    assert make_demo(root) == root
    assert (root / "trace").exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        make_demo(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_checkout_that_is_read_only_is_told_the_variable_that_names_another_place(tmp_path):
    (tmp_path / "build").touch()  # root may write into any folder, but into no file
    with pytest.raises(OSError, match=r"cannot make .*demo .*: name one that you may write to; STLIB_BUILD"):
        make_demo(tmp_path / "build" / "demo")


def test_a_set_that_another_process_finished_first_stays(tmp_path, small, monkeypatch):
    root, lock, inode = tmp_path / "demo", dataset.file_lock, []

    @contextmanager
    def late(*_args, **_options):  # as if it had waited for that process
        monkeypatch.setattr(dataset, "file_lock", lock)
        inode.append(make_demo(root).stat().st_ino)
        yield

    monkeypatch.setattr(dataset, "file_lock", late)
    assert make_demo(root).stat().st_ino == inode[0]


def test_an_interrupted_run_leaves_no_set(tmp_path, small, monkeypatch):
    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "_save", broken)
    with pytest.raises(OSError, match="no space"):
        make_demo(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == [".demo.lock"]
