"""The MVTec AD reader on hand-made folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stlib.data.images import DatasetError
from stlib.data.mvtec import load_category, with_mask_rule


def test_a_category_comes_back_in_file_order_with_shapes_and_types(root: Path):
    category = load_category(root, "plate", image_size=32)
    assert (category.train.shape, category.train.dtype) == ((3, 3, 32, 32), torch.uint8)
    assert (category.test.shape, category.test.dtype) == ((5, 3, 32, 32), torch.uint8)
    assert (category.masks.shape, category.masks.dtype) == ((5, 32, 32), torch.bool)
    assert [item.defect for item in category.layout.test] == ["a_first", "good", "good", "turned", "turned"]
    assert category.labels.tolist() == [True, False, False, True, True]
    assert category.masks.flatten(1).any(1).tolist() == category.labels.tolist()


def test_images_without_resizing_are_the_pixels_of_the_files(root: Path):
    category = load_category(root, "plate", image_size=64)
    for tensor, path in zip(category.train, category.layout.train, strict=True):
        grey = np.asarray(Image.open(path))
        assert grey.ndim == 2  # stored grey, as grid, screw and zipper are
        assert all(np.array_equal(channel, grey) for channel in tensor.numpy())
    for mask, item in zip(category.masks, category.layout.test, strict=True):
        expected = np.zeros((64, 64), bool) if item.mask is None else np.asarray(Image.open(item.mask)) > 0
        assert np.array_equal(mask.numpy(), expected)


def test_another_rule_applies_to_the_same_files(tmp_path: Path, make_category):
    root = make_category(tmp_path, train=1, good=1, defects={"turned": 3}, size=90)
    category = load_category(root, "plate", image_size=64)
    wide, narrow = with_mask_rule(category, "any"), with_mask_rule(category, "full")
    assert torch.equal(with_mask_rule(category, "half"), category.masks)
    assert narrow.sum() < category.masks.sum() < wide.sum()
    assert not (narrow & ~wide).any()


def test_a_misspelt_mask_rule_is_refused_and_takes_no_other(root: Path):
    category = load_category(root, "plate", image_size=32)
    shutil.rmtree(root / "plate/ground_truth")
    with pytest.raises(ValueError, match="unknown mask rule 'hlaf': choose one of half, 80/255, any, full"):
        with_mask_rule(category, "hlaf")


def test_without_training_images_the_error_names_folder_and_remedy(root: Path):
    (root / "plate/train/good").rename(root / "plate/train/ok")
    with pytest.raises(DatasetError, match=r"plate/train/good holds no image .* train/ holds ok: rename"):
        load_category(root, "plate")


@pytest.mark.parametrize("name", ["ok", "Good", "normal", "Gut", "i.O.", "bon", "defect_free"])
def test_good_test_images_under_another_name_are_no_defects(root: Path, name: str):
    (root / "plate/test/good").rename(root / "plate/test" / name)
    with pytest.raises(DatasetError, match=rf"test/{name} would count as a kind of defect: rename it"):
        load_category(root, "plate")


def test_own_parts_may_lie_as_cameras_and_labelling_tools_leave_them(root: Path, caplog):
    folder = root / "plate"
    for image in sorted((folder / "test/turned").glob("*.png")):  # a folder per part, the mask beside it
        place = folder / "test/turned" / f"part{image.stem}"
        place.mkdir()
        Image.fromarray(np.asarray(Image.open(image))).save(place / "shot.JPG")
        (folder / "ground_truth/turned" / f"{image.stem}_mask.png").rename(place / "shot_label.png")
        image.unlink()
    (folder / "ground_truth/a_first/000_mask.png").rename(folder / "ground_truth/a_first/000.png")
    shutil.copy(folder / "train/good/000.png", folder / "train/good/000_mask.png")
    (folder / "train/good/notes.txt").write_text("two shifts")
    for place in ("test", "train", "."):
        shutil.copy(folder / "train/good/000.png", folder / place / "loose.png")
    (folder / "train/._loose.png").touch()
    category = load_category(root, "plate", image_size=32)
    assert len(category.train) == 3
    assert [category.layout.name_of(item) for item in category.layout.test] == [
        "a_first/000.png", "good/000.png", "good/001.png",
        "turned/part000/shot.JPG", "turned/part001/shot.JPG",
    ]  # fmt: skip
    assert category.masks.flatten(1).any(1).tolist() == category.labels.tolist()
    for told in (
        "by its ending) 1: good/notes.txt",
        "beside their images) 1: good/000_mask",
        "in no folder of test/) 1: test/loose",
        "in no folder of train/) 1: train/loose",
        "beside train/, not in it) 1: plate/loose",
    ):
        assert told in caplog.text


def test_two_masks_of_one_image_are_refused(root: Path):
    shutil.copy(root / "plate/ground_truth/turned/000_mask.png", root / "plate/test/turned/000_label.png")
    with pytest.raises(DatasetError, match=r"turned/000\.png has 2 masks, .*: keep one"):
        load_category(root, "plate")


@pytest.mark.parametrize("part", ["train/good", "test/turned"])
def test_a_mask_that_has_the_name_of_its_image_is_no_photograph(root: Path, part: str):
    folder = root / "plate" / part
    shutil.copy(folder / "000.png", folder / "000.jpg")
    with pytest.raises(DatasetError, match=r"000\.jpg and .*000\.png are two .* name it 000_mask\.png, else"):
        load_category(root, "plate")


@pytest.mark.parametrize("part", ["test", "ground_truth"])
def test_test_images_and_masks_may_be_missing_altogether(root: Path, part: str):
    shutil.rmtree(root / "plate" / part)
    category = load_category(root, "plate", image_size=32)
    assert len(category.test) == len(category.masks) == len(category.labels) == (0 if part == "test" else 5)
    assert not category.masks.any()


def test_a_missing_mask_of_mvtec_ad_names_the_image_and_the_mask(root: Path, make_category):
    make_category(root, "toothbrush", train=60, good=1, defects={"defective": 2}, size=16)
    (root / "toothbrush/ground_truth/defective/001_mask.png").unlink()
    told = r"toothbrush: 1 of 2 defective images have no mask, such as defective/001\.png: add it as"
    with pytest.raises(DatasetError, match=told):
        load_category(root, "toothbrush")


def test_a_run_begins_with_a_warning_of_what_is_odd(root: Path, caplog):
    for name, value in (("000", 0), ("001", 255)):
        Image.new("L", (64, 64), value).save(root / f"plate/ground_truth/turned/{name}_mask.png")
    shutil.copy(root / "plate/train/good/000.png", root / "plate/test/good/000.png")
    load_category(root, "plate", image_size=32)
    assert "plate: equal files train/good/000.png, test/good/000.png" in caplog.text
    assert "turned/000_mask.png marks no pixel of 32 x 32: mark the defect, or" in caplog.text
    assert "turned/001_mask.png marks 100% of its picture: inverted?" in caplog.text
    assert len(caplog.records) == 3


def test_of_own_parts_with_some_masks_missing_none_counts_and_a_warning_says_so(root: Path, caplog):
    (root / "plate/ground_truth/turned/001_mask.png").unlink()
    category = load_category(root, "plate", image_size=32)
    assert category.labels.sum() == 3
    assert not category.masks.any()
    assert not with_mask_rule(category, "any").any()
    assert "plate: 1 of 3 defective images have no mask, such as turned/001.png: no metric of" in caplog.text


@pytest.mark.parametrize(
    "name", ["train/good/001.png", "test/turned/000.png", "ground_truth/turned/000_mask.png"]
)
@pytest.mark.parametrize("content", [b"", b"no image", -40, 18])
def test_an_unreadable_file_is_named(root: Path, name: str, content: bytes | int):
    """`content`, or the file up to that byte."""
    path = root / "plate" / name
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    with pytest.raises(DatasetError, match=rf"{name} is not a readable image .*again"):
        load_category(root, "plate")
