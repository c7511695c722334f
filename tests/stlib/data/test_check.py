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


def save(path: Path, *, shade: int, size: tuple[int, int] = (8, 8), hole: bool = False) -> None:
    pixels = np.full((size[1], size[0]), shade, dtype=np.uint8)
    if hole:
        pixels[2:4, 2:4] = 255 - shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A faultless small dataset with one unofficial category."""
    folder = tmp_path / "nut"
    for index in range(3):
        save(folder / "train/good" / f"{index:03}.png", shade=10 + index)
        save(folder / "test/good" / f"{index:03}.png", shade=20 + index)
        save(folder / "test/scratch" / f"{index:03}.png", shade=30 + index)
        save(folder / "ground_truth/scratch" / f"{index:03}_mask.png", shade=0, hole=True)
    return tmp_path


def kinds(report: CategoryReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def test_a_faultless_category_has_no_findings(root: Path) -> None:
    report = check_category(root, "nut")
    assert (report.train, report.good, report.defect) == (3, 3, 3)
    assert report.findings == []
    assert report.consequences == []


def test_an_unreadable_image_is_named(root: Path) -> None:
    broken = root / "nut/train/good/001.png"
    broken.write_bytes(broken.read_bytes()[:40])
    report = check_category(root, "nut")
    assert kinds(report) == ["unreadable"]
    assert str(broken) in report.findings[0].text
    assert any("stop" in text for text in report.consequences)


def test_a_dangling_link_is_a_finding_not_an_exception(root: Path) -> None:
    image = root / "nut/train/good/001.png"
    image.unlink()
    image.symlink_to(root / "nowhere.png")
    assert kinds(check_category(root, "nut")) == ["unreadable"]


def test_a_bomb_among_the_defects_is_a_finding_not_an_exception(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root / "nut/test/scratch/001.png", shade=31, size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # twice as many are an error
    report = check_category(root, "nut")
    assert kinds(report) == ["unreadable"]
    assert "decompression bomb" in report.findings[0].text


def test_a_missing_mask_of_own_parts_is_a_consequence_and_no_finding(root: Path) -> None:
    (root / "nut/ground_truth/scratch/002_mask.png").unlink()
    report = check_category(root, "nut")
    assert report.findings == []
    told = "no pixel metric: 1 of 3 defective images have no mask, such as scratch/002.png"
    assert report.consequences == [told]


def test_a_missing_mask_of_mvtec_ad_is_named_and_stops_a_run(root: Path, make_category) -> None:
    make_category(root, "toothbrush", train=60, good=1, defects={"defective": 2}, size=16)
    (root / "toothbrush/ground_truth/defective/001_mask.png").unlink()
    report = check_category(root, "toothbrush")
    (missing,) = [finding for finding in report.findings if finding.kind == "missing mask"]
    assert "001.png has no mask" in missing.text
    assert "runs stop with an error until these files are mended" in report.consequences


def test_a_mask_of_another_size_than_its_image(root: Path) -> None:
    save(root / "nut/ground_truth/scratch/000_mask.png", shade=0, size=(16, 8), hole=True)
    assert kinds(check_category(root, "nut")) == ["unusable mask"]


def test_a_mask_that_marks_nothing(root: Path) -> None:
    save(root / "nut/ground_truth/scratch/000_mask.png", shade=0)
    assert kinds(check_category(root, "nut")) == ["empty mask"]


@pytest.mark.parametrize(("hole", "share"), [(True, "94%"), (False, "100%")])
def test_a_mask_that_marks_most_of_its_picture(root: Path, hole: bool, share: str) -> None:
    save(root / "nut/ground_truth/scratch/000_mask.png", shade=255, hole=hole)
    report = check_category(root, "nut")
    assert kinds(report) == ["large mask"]
    assert f"scratch/000_mask.png marks {share} of its picture: inverted?" in report.findings[0].text
    assert any("right or wrong: look at them first" in text for text in report.consequences)


def test_a_large_mask_of_mvtec_ad_is_right(root: Path, make_category) -> None:
    make_category(root, "toothbrush", train=60, good=1, defects={"defective": 1}, size=16)
    save(root / "toothbrush/ground_truth/defective/000_mask.png", shade=255, size=(16, 16))
    assert "large mask" not in kinds(check_category(root, "toothbrush"))


def test_a_mask_without_image(root: Path) -> None:
    save(root / "nut/ground_truth/scratch/009_mask.png", shade=0, hole=True)
    assert kinds(check_category(root, "nut")) == ["stray mask"]


def test_a_training_image_that_is_also_tested(root: Path) -> None:
    shutil.copy(root / "nut/train/good/000.png", root / "nut/test/good/000.png")
    report = check_category(root, "nut")
    assert kinds(report) == ["leak"]
    assert any("also tested" in text for text in report.consequences)


def test_equal_training_images_are_no_leak_whatever_their_names(root: Path) -> None:
    shutil.copy(root / "nut/train/good/000.png", root / "nut/train/good/latest.png")
    report = check_category(root, "nut")
    assert kinds(report) == ["duplicate"]
    assert report.consequences == []


def test_without_normal_test_images_there_is_no_image_auroc(root: Path) -> None:
    (root / "nut/test/good").rename(root / "nut/test/aceptable")
    told, _ = check_category(root, "nut").consequences
    assert "no image AUROC" in told
    assert "no images in 'good', only aceptable, scratch: rename the one of good images" in told
    shutil.rmtree(root / "nut/test")
    told, _ = check_category(root, "nut").consequences
    assert told.endswith("test/ has no images in 'good'")


def test_official_counts_are_compared_by_name(root: Path) -> None:
    (root / "nut").rename(root / "bottle")
    report = check_category(root, "bottle")
    assert kinds(report) == ["count"] * 3
    official = CATEGORIES["bottle"]
    assert f"3 of {official.train_good}" in report.findings[0].text


def test_a_missing_category_is_a_finding_not_an_exception(root: Path) -> None:
    assert kinds(check_category(root, "zipper")) == ["unusable category"]


def test_the_whole_dataset_and_what_is_absent(root: Path) -> None:
    assert [report.category for report in check_dataset(root)] == ["nut"]
    assert absent(root) == []  # own parts: nobody misses the official categories
    (root / "bottle").mkdir()
    assert absent(root) == [name for name in CATEGORIES if name != "bottle"]


def test_a_category_itself_is_answered_with_its_parent(root: Path) -> None:
    with pytest.raises(DatasetError, match=rf"nut is itself a category: name its parent, {root}$"):
        check_dataset(root / "nut")


def test_masks_beside_their_images_and_files_of_the_system_are_notes_and_no_findings(root: Path) -> None:
    for index in range(3):
        save(root / f"nut/train/good/{index:03}_label.png", shade=0)
        save(root / f"nut/test/good/{index:03}_label.png", shade=0)
    (root / "nut/train/good/Thumbs.db").write_bytes(b"")
    report = check_category(root, "nut")
    assert report.findings == report.consequences == []
    assert sorted(note.text.partition(")")[0] for note in report.notes) == [
        "left out (hidden, or of the system",
        "left out (masks beside their images",
    ]


def test_lines_are_not_folded_in_a_pipe_and_no_name_breaks_them(root: Path) -> None:
    (root / "nut/train/good/001.png").write_bytes(b"")
    (root / os.fsdecode(b"m\xfctter") / "train").mkdir(parents=True)
    result = CliRunner().invoke(app, ["data", "check", str(root)], env={"COLUMNS": "40"})
    assert result.exit_code == FINDINGS, result.output
    assert f"nut: {root}/nut/train/good/001.png is not a readable image" in result.stdout
    assert f"the name of {root}/m\\udcfctter is not UTF-8: rename it\n" in result.stdout


def test_every_line_of_the_command_names_its_category_and_notes_are_no_failure(root: Path) -> None:
    shutil.copytree(root / "nut", root / "bolt")
    (root / "bolt/ground_truth/scratch/002_mask.png").unlink()
    save(root / "nut/train/good/000_label.png", shade=0)
    result = CliRunner().invoke(app, ["data", "check", str(root)], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    told = result.stdout.splitlines()[-2:]
    assert told[0].startswith("bolt: -> no pixel metric: 1 of 3")
    assert told[1].startswith("nut: note: left out (masks beside their images) 1:")
    (root / "nut/train/good/001.png").write_bytes(b"")
    assert CliRunner().invoke(app, ["data", "check", str(root)]).exit_code == FINDINGS


@pytest.mark.parametrize("folder", ["nowhere", "nut/train"])
def test_a_folder_without_categories_is_refused(root: Path, folder: str) -> None:
    with pytest.raises(DatasetError, match=folder):
        check_dataset(root / folder)


def test_further_folders_are_noted_and_no_finding(root: Path) -> None:
    (root / "nut/raw").mkdir()
    save(root / "nut/validation/good/000.png", shade=1)
    report = check_category(root, "nut")
    assert report.findings == []
    beside = "left out (beside train, test and ground_truth"
    assert [note.text for note in report.notes] == [
        f"{beside}) 1: nut/raw",
        f"{beside}; its good images are good for `stlib threshold`) 1: nut/validation",
    ]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("test", "test_public"),
        ("ground_truth", "masks"),
        ("ground_truth", "Ground_Truth"),
        ("ground_truth", "gt"),
    ],
)
def test_a_folder_of_this_layout_under_another_name_is_a_finding(root: Path, part: str, name: str) -> None:
    (root / "nut" / part).rename(root / "nut" / name)
    report = check_category(root, "nut")
    told = f"{root / 'nut'} has no folder {part}, but {name}: rename the right one to {part}"
    assert told in [finding.text for finding in report.findings]
    assert report.notes == []


def test_a_folder_without_train_is_named(root: Path) -> None:
    save(root / "flat/000.png", shade=1)
    save(root / "only/test/good/000.png", shade=1)
    result = CliRunner().invoke(app, ["data", "check", str(root)])
    assert result.exit_code == 0
    assert "no category, for want of a folder train: flat, only\n" in result.stdout


@pytest.mark.parametrize(
    "place", ["train/good/000_label.png", "test/good/000_label.png", "ground_truth/good/000.png"]
)
def test_a_mask_that_marks_a_defect_of_a_good_image_is_a_finding(root: Path, place: str) -> None:
    save(root / "nut" / place, shade=0)
    assert check_category(root, "nut").findings == []
    save(root / "nut" / place, shade=0, hole=True)
    (found,) = check_category(root, "nut").findings
    assert f"{place} marks a defect of an image in good" in found.text


@pytest.mark.parametrize("hole", [True, False])
@pytest.mark.parametrize("place", ["train/good/000-m.png", "test/scratch/masks/000.png"])
def test_an_image_that_looks_like_a_mask_is_a_finding(root: Path, place: str, hole: bool) -> None:
    save(root / "nut" / place, shade=0, hole=hole)
    (found,) = check_category(root, "nut").findings
    assert f"read as images 1: {'/'.join(place.split('/')[-2:])}" in found.text


def test_masks_of_photographs_that_the_camera_turned_are_told_here_and_by_a_run(root: Path, caplog) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("000", "001"):
        with Image.open(root / f"nut/test/scratch/{name}.png") as image:
            image.save(root / f"nut/test/scratch/{name}.png", exif=exif)
    (found,) = check_category(root, "nut").findings
    told = "2 masked photographs are turned by their camera, such as "
    assert found.text.startswith(told)
    assert found.text.endswith("test/scratch/000.png: their masks must be made on the turned picture")
    load_category(root, "nut")
    assert told in caplog.text


def test_photographs_in_black_and_white_only_are_no_masks(root: Path) -> None:
    for index, path in enumerate(sorted((root / "nut").glob("t*/*/*.png"))):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[index % 8, : 1 + index // 8] = 255
        Image.fromarray(pixels).save(path)
    assert check_category(root, "nut").findings == []
