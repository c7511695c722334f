"""`stlib data check`: what is wrong with a dataset folder, and what each gap makes impossible."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stlib.data.mvtec import DatasetError, Layout, open_image, read_mask, scan
from stlib.files import sha256
from stlib.protocol import CATEGORIES


@dataclass(frozen=True)
class Finding:
    """One problem; `file` is None where a whole part is concerned."""

    kind: str
    """missing category, count, unreadable, missing mask, mask size, empty mask, stray mask, duplicate."""
    file: Path | None
    text: str


@dataclass(frozen=True)
class CategoryReport:
    """What was found in one category."""

    category: str
    train: int
    good: int
    defect: int
    findings: list[Finding]
    consequences: list[str]
    """What cannot be measured, or is not comparable, because of the findings."""


def check_category(root: Path, category: str) -> CategoryReport:
    """Read every file of `category` and report. Never raises for a fault in the data."""
    try:
        layout = scan(root, category)
    except DatasetError as error:
        missing = Finding("missing category", None, str(error))
        return CategoryReport(category, 0, 0, 0, [missing], ["nothing can be run on it"])
    findings = [Finding("count", None, gap) for gap in layout.missing_images()]
    findings += [*_image_faults(layout), *_mask_faults(layout), *_stray_masks(layout), *_duplicates(layout)]
    good = sum(item.defect == "good" for item in layout.test)
    defect = len(layout.test) - good
    return CategoryReport(
        category, len(layout.train), good, defect, findings, _consequences(findings, good, defect)
    )


def check_dataset(root: Path) -> Iterator[CategoryReport]:
    """Reports for the official categories under `root`, or for every folder where none of them is.

    Raises DatasetError when `root` is no folder.
    """
    if not root.is_dir():
        raise DatasetError(
            f"no folder {root}: `stlib data download` fetches MVTec AD, `stlib data demo` makes the demo"
        )
    present = sorted(path.name for path in root.iterdir() if (path / "train").is_dir())
    names = [name for name in CATEGORIES if name in present] or present
    if not names:
        raise DatasetError(f"{root} holds no folder with train/ in it: name the folder of the categories")
    return (check_category(root, name) for name in names)


def absent(root: Path) -> list[str]:
    """Official categories without a folder under `root`."""
    return [name for name in CATEGORIES if not (root / name).is_dir()]


def _image_faults(layout: Layout) -> Iterator[Finding]:
    for path in [*layout.train, *(item.image for item in layout.test)]:
        try:
            open_image(path)
        except DatasetError as error:
            yield Finding("unreadable", path, str(error))


def _mask_faults(layout: Layout) -> Iterator[Finding]:
    for item in layout.test:
        if item.mask is None:
            continue
        if not item.mask.is_file():
            yield Finding("missing mask", item.image, f"{item.image} has no {item.mask.name}")
            continue
        try:
            size, image_size = open_image(item.mask).size, _size(item.image)
            marked = read_mask(item.mask, size[0], "any").any()
        except DatasetError as error:
            yield Finding("unreadable", item.mask, str(error))
            continue
        if image_size not in (None, size):
            yield Finding("mask size", item.mask, f"{item.mask} is {size}, its image is {image_size}")
        if not marked:
            yield Finding("empty mask", item.mask, f"{item.mask} marks no pixel")


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height, or None for an unreadable image, which is reported elsewhere."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        return None


def _stray_masks(layout: Layout) -> Iterator[Finding]:
    wanted = {item.mask for item in layout.test}
    for path in sorted((layout.folder / "ground_truth").glob("*/*.png")):
        if path not in wanted:
            yield Finding("stray mask", path, f"{path} belongs to no test image")


def _duplicates(layout: Layout) -> Iterator[Finding]:
    """Images with equal content; one that is in train and in test leaks."""
    same: dict[str, list[Path]] = defaultdict(list)
    for path in [*layout.train, *(item.image for item in layout.test)]:
        try:
            same[sha256(path)].append(path)
        except OSError:  # reported as unreadable already
            continue
    for paths in same.values():
        if len(paths) > 1:
            names = ", ".join(str(path.relative_to(layout.folder)) for path in paths)
            yield Finding("duplicate", paths[1], f"{layout.category}: equal files {names}")


def _consequences(findings: list[Finding], good: int, defect: int) -> list[str]:
    kinds = {finding.kind for finding in findings}
    consequences = []
    if not good:
        consequences.append("no image AUROC or AP: test/good is empty; pixel metrics lack the normal images")
    if not defect:
        consequences.append("no metric at all: there is no defective test image")
    if {"unreadable", "missing mask"} & kinds:
        consequences.append("runs stop with an error until the files are there")
    if "count" in kinds:
        consequences.append("results are labelled 'incomplete dataset' and not compared with the papers")
    if "mask size" in kinds:
        consequences.append("pixel metrics may be wrong: masks are resized to the input on their own")
    shared = [f for f in findings if f.kind == "duplicate" and "train" in f.text and "test" in f.text]
    if shared:
        consequences.append("training images are also tested: results are too good")
    return consequences
