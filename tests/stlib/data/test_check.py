"""`stlib data check` finds each kind of fault, and says what it makes impossible."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stlib.cli import app
from stlib.cli.status import FINDINGS
from stlib.data.check import CategoryReport, absent, check_category, check_dataset
from stlib.data.images import DatasetError
from stlib.data.mvtec import load_category
from stlib.protocol import CATEGORIES


def save(path: Path, shade: int, *, size: tuple[int, int] = (64, 64), hole: bool = False) -> None:
    """An image of one shade, or with a sixteenth of it in the opposite one."""
    pixels = np.full((size[1], size[0]), shade, dtype=np.uint8)
    if hole:
        pixels[16:32, 16:32] = 255 - shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def kinds(report: CategoryReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def test_a_faultless_category_has_no_findings(root: Path):
    report = check_category(root, "plate")
    assert report.counts == (3, 2, 3)
    assert report.findings == report.notes == report.consequences == []


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


MASK = "ground_truth/turned/000_mask.png"
STOP, LOOK = "runs stop with an error until these files are mended", "right or wrong: look at them first"


@pytest.mark.parametrize(
    ("name", "spoil", "kind", "told", "consequence"),
    [
        ("train/good/001.png", lambda path: path.write_bytes(b"\x89PNG"), "unreadable", "", STOP),
        ("train/good/001.png", dangling, "unreadable", " is a link to nothing", STOP),
        (MASK, lambda path: save(path, 0, size=(64, 32), hole=True), "unusable mask", " has 64 x 32", STOP),
        (MASK, lambda path: save(path, 0), "empty mask", " marks no pixel of 256 x 256", LOOK),
        (
            MASK,
            lambda path: save(path, 255, hole=True),
            "large mask",
            " marks 94% of its picture: inver",
            LOOK,
        ),
        (MASK, lambda path: save(path, 255), "large mask", " marks 100% of its picture: inverted?", LOOK),
        (
            MASK.replace("000", "009"),
            lambda path: save(path, 0, hole=True),
            "stray mask",
            " belongs to no",
            "",
        ),
    ],
)
def test_a_fault_is_a_finding_with_its_consequence_and_no_exception(
    root: Path, name: str, spoil, kind: str, told: str, consequence: str
):
    spoil(root / "plate" / name)
    report = check_category(root, "plate")
    assert kinds(report) == [kind]
    assert f"{name}{told}" in report.findings[0].text
    assert len(report.consequences) == bool(consequence)
    assert all(text.endswith(consequence) for text in report.consequences)


def test_a_missing_mask_of_own_parts_is_a_consequence_and_no_finding(root: Path):
    (root / "plate" / MASK).unlink()
    report = check_category(root, "plate")
    assert report.findings == []
    told = "no pixel metric: 1 of 3 defective images have no mask, such as turned/000.png"
    assert report.consequences == [told]


def test_a_missing_mask_of_mvtec_ad_stops_a_run_and_a_large_one_is_right(root: Path, make_category):
    make_category(root, "toothbrush", train=60, good=1, defects={"defective": 2}, size=16)
    masks = root / "toothbrush/ground_truth/defective"
    (masks / "001_mask.png").unlink()
    save(masks / "000_mask.png", 255, size=(16, 16))
    report = check_category(root, "toothbrush")
    assert kinds(report) == ["count"] * 2 + ["missing mask"]
    assert "001.png has no mask" in report.findings[-1].text
    assert STOP in report.consequences


@pytest.mark.parametrize(
    ("copy", "kind", "consequence"),
    [("test/good/000.png", "leak", "also tested"), ("train/good/latest.png", "duplicate", "")],
)
def test_equal_images_are_a_leak_where_they_are_learnt_and_tested(
    root: Path, copy: str, kind: str, consequence: str
):
    shutil.copy(root / "plate/train/good/000.png", root / "plate" / copy)
    report = check_category(root, "plate")
    assert kinds(report) == [kind]
    assert consequence in "".join(report.consequences)
    assert len(report.consequences) == bool(consequence)


@pytest.mark.parametrize(("place", "kind"), [("train", "leak"), ("test", "duplicate")])
def test_a_picture_that_counts_as_good_and_as_a_defect_is_told_as_such(root: Path, place: str, kind: str):
    shutil.copy(root / "plate/test/turned/000.png", root / "plate" / place / "good" / "latest.png")
    (finding,) = check_category(root, "plate").findings
    assert finding.kind == kind
    assert finding.text.endswith("one picture counts as good and as a defect, keep it in one place")


def test_without_normal_test_images_there_is_no_image_auroc(root: Path):
    (root / "plate/test/good").rename(root / "plate/test/aceptable")
    told, _ = check_category(root, "plate").consequences
    assert "no image AUROC" in told
    assert "no images in 'good', only a_first, aceptable, turned: rename the one of good images" in told
    shutil.rmtree(root / "plate/test")
    told, _ = check_category(root, "plate").consequences
    assert told.endswith("test/ has no images in 'good'")


def test_official_counts_are_compared_by_name(root: Path):
    (root / "plate").rename(root / "bottle")
    report = check_category(root, "bottle")
    assert kinds(report) == ["count"] * 3
    assert f"3 of {CATEGORIES['bottle'].train_good}" in report.findings[0].text


def test_a_missing_category_is_a_finding_and_no_exception(root: Path):
    assert kinds(check_category(root, "zipper")) == ["unusable category"]


def test_the_whole_dataset_and_what_is_absent(root: Path):
    assert [report.category for report in check_dataset(root)] == ["plate"]
    assert absent(root) == []  # own parts: nobody misses the official categories
    (root / "bottle").mkdir()
    assert absent(root) == [name for name in CATEGORIES if name != "bottle"]


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("nowhere", "no folder .*nowhere"),
        ("plate/train", "plate/train holds no folder with train/ in it"),
        ("plate", "plate is itself a category: name its parent, "),
    ],
)
def test_a_folder_without_categories_is_refused(root: Path, folder: str, told: str):
    with pytest.raises(DatasetError, match=told):
        check_dataset(root / folder)


def test_what_is_left_out_by_rule_is_a_note_and_no_finding(root: Path):
    save(root / "plate/train/good/000_label.png", 0)
    save(root / "plate/test/good/000_label.png", 0)
    (root / "plate/train/good/Thumbs.db").touch()
    (root / "plate/raw").mkdir()
    save(root / "plate/validation/good/000.png", 1)
    report = check_category(root, "plate")
    assert report.findings == report.consequences == []
    beside = "left out (beside train, test and ground_truth"
    assert sorted(note.text for note in report.notes) == [
        f"{beside}) 1: plate/raw",
        f"{beside}; its good images are good for `stlib threshold`) 1: plate/validation",
        "left out (hidden, or of the system) 1: good/Thumbs.db",
        "left out (masks beside their images) 2: good/000_label.png, good/000_label.png",
    ]


def test_lines_name_their_category_and_are_not_folded_and_no_name_breaks_them(root: Path):
    shutil.copytree(root / "plate", root / "bolt")
    (root / "bolt" / MASK).unlink()
    save(root / "plate/train/good/000_label.png", 0)
    save(root / "flat/000.png", 1)

    def told() -> tuple[int, str]:
        result = CliRunner().invoke(app, ["data", "check", str(root)], env={"COLUMNS": "40"})
        return result.exit_code, result.stdout

    status, lines = told()
    assert status == 0  # notes are no failure
    assert "\nbolt: -> no pixel metric: 1 of 3" in lines
    assert "\nplate: note: left out (masks beside their images) 1:" in lines
    assert "\nno category, for want of a folder train: flat\n" in lines
    (root / "plate/train/good/001.png").write_bytes(b"")
    (root / os.fsdecode(b"m\xfctter") / "train").mkdir(parents=True)
    status, lines = told()
    assert status == FINDINGS
    assert f"\nplate: {root}/plate/train/good/001.png is not a readable image" in lines
    assert f"the name of {root}/m\\udcfctter is not UTF-8: rename it\n" in lines


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("test", "test_public"),
        ("ground_truth", "masks"),
        ("ground_truth", "Ground_Truth"),
        ("ground_truth", "gt"),
    ],
)
def test_a_folder_of_this_layout_under_another_name_is_a_finding(root: Path, part: str, name: str):
    (root / "plate" / part).rename(root / "plate" / name)
    report = check_category(root, "plate")
    told = f"{root / 'plate'} has no folder {part}, but {name}: rename the right one to {part}"
    assert told in [finding.text for finding in report.findings]
    assert report.notes == []


@pytest.mark.parametrize(
    "place", ["train/good/000_label.png", "test/good/000_label.png", "ground_truth/good/000.png"]
)
def test_a_mask_that_marks_a_defect_of_a_good_image_is_a_finding(root: Path, place: str):
    save(root / "plate" / place, 0)
    assert check_category(root, "plate").findings == []
    save(root / "plate" / place, 0, hole=True)
    (found,) = check_category(root, "plate").findings
    assert f"{place} marks a defect of an image in good" in found.text


@pytest.mark.parametrize("hole", [True, False])
@pytest.mark.parametrize("place", ["train/good/000-m.png", "test/turned/masks/000.png"])
def test_an_image_that_looks_like_a_mask_is_a_finding(root: Path, place: str, hole: bool):
    save(root / "plate" / place, 0, hole=hole)
    (found,) = check_category(root, "plate").findings
    assert f"read as images 1: {'/'.join(place.split('/')[-2:])}" in found.text


def test_photographs_in_black_and_white_only_are_no_masks(root: Path):
    for index, path in enumerate(sorted((root / "plate").glob("t*/*/*.png"))):
        pixels = np.zeros((64, 64), np.uint8)
        pixels[index, :9] = 255
        Image.fromarray(pixels).save(path)
    assert check_category(root, "plate").findings == []


def test_masks_of_photographs_that_the_camera_turned_are_told_here_and_by_a_run(root: Path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (root / "plate/test/turned").glob("*.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    (found,) = check_category(root, "plate").findings
    told = "2 masked photographs are turned by their camera, such as "
    assert found.text.startswith(told)
    assert found.text.endswith("test/turned/000.png: their masks must be made on the turned picture")
    load_category(root, "plate")
    assert told in caplog.text
