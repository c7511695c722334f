"""Which files a category has, on hand-made folders."""

import os
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from stlib.data.images import DatasetError
from stlib.data.layout import categories_in, fingerprint, scan
from stlib.demo.dataset import MARKER
from stlib.protocol import CATEGORIES, DEFECTS
from stlib.records.schema import Name
from stlib.records.store import load_records


def test_an_absent_category_names_the_folder_and_the_remedy(tmp_path: Path):
    with pytest.raises(
        DatasetError, match=r"no category 'plate' under .*plate/train/good.*stlib data download"
    ):
        scan(tmp_path, "plate")


def test_a_misspelt_category_is_answered_with_the_names_there_are(root: Path, make_category):
    make_category(root, "Flansch Links", train=1)
    with pytest.raises(DatasetError, match=r"no category 'PLATE' under .*: there are Flansch Links, plate$"):
        scan(root, "PLATE")


def test_a_folder_beside_the_categories_that_nobody_may_look_into_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk's lost+found: `is_dir` below it raises."""
    (root / "lost+found").mkdir()
    is_dir = Path.is_dir

    def closed(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", closed)
    assert categories_in(root) == ["plate"]


def test_the_path_of_a_category_is_answered_with_its_name_and_the_data_it_lies_in(
    tmp_path: Path, make_category, monkeypatch: pytest.MonkeyPatch
):
    make_category(tmp_path / "parts", "plate")
    monkeypatch.chdir(tmp_path)
    for path in ("parts/plate", "parts/plate/"):
        with pytest.raises(DatasetError, match=f"name the category plate and the data {tmp_path / 'parts'}"):
            scan(tmp_path / "elsewhere", path)


@pytest.mark.parametrize(
    "name", ["R&D", "O'Ring", "Größe <10", ".hid", 'a"b', "a\\b", "a.b", "ä ö ü", "commut,ator"]
)
def test_a_name_that_no_record_can_hold_is_refused_by_the_reader_and_no_other(
    tmp_path: Path, make_category, name
):
    make_category(tmp_path, name, train=1)
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        with pytest.raises(DatasetError, match=r"no record can hold the name of .*: rename it, without"):
            scan(tmp_path, name)
    else:
        assert scan(tmp_path, name).category == name


@pytest.mark.parametrize(
    "mask", ["ground_truth/turned/front_label.png", "ground_truth/turned/front_label_mask.png",
             "test/turned/front_label_mask.png"],
)  # fmt: skip
def test_an_image_whose_own_name_ends_like_a_masks_has_its_mask(root: Path, mask: str):
    (root / "plate/test/turned/000.png").rename(root / "plate/test/turned/front_label.png")
    (root / "plate/ground_truth/turned/000_mask.png").rename(root / "plate" / mask)
    layout = scan(root, "plate")
    assert layout.findings == []
    assert {item.image.name: item.mask for item in layout.test}["front_label.png"] == root / "plate" / mask


def test_gaps_are_differences_from_the_official_counts(tmp_path: Path, make_category):
    make_category(tmp_path, "toothbrush", train=60, good=12, defects={"defective": 2}, size=16)
    assert scan(tmp_path, "toothbrush").missing_images() == ["test defects: 2 of 30 images"]


def test_own_parts_have_no_gaps_even_under_a_name_of_mvtec_ad(root: Path, make_category):
    make_category(root, "bottle", train=3, good=20, defects={"broken": 2}, size=16)
    assert scan(root, "bottle").missing_images() == scan(root, "plate").missing_images() == []
    told = ["train/good: 3 of 209 images", "test defects: 2 of 63 images"]
    assert scan(root, "bottle").unofficial_counts() == told


def test_the_official_counts_add_up():
    counts = CATEGORIES.values()
    assert sum(c.train_good for c in counts) == 3629
    assert sum(c.test_good for c in counts) == 467
    assert sum(c.test_defect for c in counts) == 1258


def test_the_dataset_is_known_by_content_and_not_by_a_name(root: Path, make_category):
    make_category(root, "brick", train=1, good=1, size=16)
    assert scan(root, "brick").dataset == "other"
    (root / MARKER).write_text("{}")
    assert (scan(root, "brick").dataset, scan(root, "plate").dataset) == ("demo", "other")
    for train, kind, known in [
        (60, "defective", "MVTec AD"),
        (59, "defective", "other"),
        (60, "worn", "other"),
    ]:
        place = root / kind / str(train)
        make_category(place, "toothbrush", train=train, defects={kind: 1}, size=16)
        assert scan(place, "toothbrush").dataset == known
    official = root / "defective/60"
    (official / "toothbrush/test/good/000.png").rename(official / "toothbrush/test/good/a.png")
    assert scan(official, "toothbrush").dataset == "other"


def test_the_fingerprint_follows_content_and_names_only(root: Path, tmp_path_factory: pytest.TempPathFactory):
    original = fingerprint(scan(root, "plate"))
    copy = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(root / "plate", copy / "plate")
    assert fingerprint(scan(copy, "plate")) == original
    for path in (copy / "plate").rglob("*.png"):
        os.utime(path, (1, 1))
    assert fingerprint(scan(copy, "plate")) == original

    seen = {original}
    mask = copy / "plate/ground_truth/turned/000_mask.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    seen.add(fingerprint(scan(copy, "plate")))
    (copy / "plate/train/good/002.png").rename(copy / "plate/train/good/003.png")
    seen.add(fingerprint(scan(copy, "plate")))
    (copy / "plate/train/good/003.png").unlink()
    seen.add(fingerprint(scan(copy, "plate")))
    assert len(seen) == 4


def test_the_official_kinds_of_defect_are_those_of_the_committed_runs():
    found: dict[str, set[str]] = {}
    for record in load_records():
        if record.dataset.name == "MVTec AD" and not record.dataset.gaps:
            kinds = found.setdefault(record.category, set())
            kinds |= {score.image.partition("/")[0] for score in record.image_scores}
    assert found
    assert found == {category: {"good", *DEFECTS[category]} for category in found}
