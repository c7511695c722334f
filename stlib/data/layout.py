"""The files of one category in MVTec AD's layout: which there are, and what is left out.

Layout (Bergmann et al., CVPR 2019): `<root>/<category>/train/good`, `test/good`, `test/<defect>` and
`ground_truth/<defect>/<stem>_mask.png`. Own parts may be laid out more freely: any format of
`stlib.data.images`, masks also beside their images, defects without masks, no test images at all.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stlib.data.images import (
    HIDDEN,
    MASKS,
    SUFFIXES,
    DatasetError,
    images_below,
    is_utf8,
    mask_owner,
    named,
    sounds_good,
)
from stlib.demo.dataset import DEMO_CATEGORIES, MARKER
from stlib.files import in_order, sha256
from stlib.protocol import CATEGORIES, DEFECTS, NAME, Counts

_BESIDE = "beside train, test and ground_truth"
_THRESHOLD = f"{_BESIDE}; its good images are good for `stlib threshold`"
_BY_RULE = (MASKS, HIDDEN, _BESIDE, _THRESHOLD)
"""Reasons to leave out what lies in folders of good data, too."""

_NEAR = {"test": r"test.+", "ground_truth": r"ground.?truths?|gt|(defect.?)?masks?|labels?"}
"""How other layouts call the folders of this one."""

Kind = Literal[
    "note", "left out", "stray mask", "duplicate", "leak", "count", "unusable category", "unreadable",
    "unusable mask", "missing mask", "empty mask", "large mask", "turned mask",
]  # fmt: skip
"""Of a finding; a leak is a training image that is also tested."""


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class TestItem:
    """One test image on disk; `mask` is None for good images, and for defects without masks."""

    image: Path
    defect: str
    mask: Path | None


@dataclass(frozen=True)
class Layout:
    """The files of one category, in sorted order."""

    category: str
    folder: Path
    train: list[Path]
    test: list[TestItem]
    findings: list[Finding] = field(default_factory=list)
    """What was left out."""

    @property
    def images(self) -> list[Path]:
        """Every image, those to learn from first."""
        return [*self.train, *(item.image for item in self.test)]

    @property
    def defective(self) -> list[TestItem]:
        """The test images that are not good."""
        return [item for item in self.test if item.defect != "good"]

    @property
    def counts(self) -> Counts:
        """How many images there are to learn from and to test."""
        defective = len(self.defective)
        return Counts(len(self.train), len(self.test) - defective, defective)

    @property
    def dataset(self) -> Literal["MVTec AD", "demo", "other"]:
        """Which dataset this is, by content.

        MVTec AD's categories are known by the official number of training images, the official names of
        files and the kinds of defect; the demo's by the marker that its generator leaves.
        """
        if self.category in CATEGORIES and self._looks_official():
            return "MVTec AD"
        marked = (self.folder.parent / MARKER).is_file()
        return "demo" if marked and self.category in DEMO_CATEGORIES else "other"

    def _looks_official(self) -> bool:
        return (
            len(self.train) == CATEGORIES[self.category].train_good
            and {item.defect for item in self.test} <= {"good", *DEFECTS[self.category]}
            and all(re.fullmatch(r"\d{3}\.png", image.name) for image in self.images)
        )

    def name_of(self, item: TestItem) -> str:
        """The path of a test image inside the category's `test` folder."""
        return item.image.relative_to(self.folder / "test").as_posix()

    def files(self) -> list[Path]:
        """Every file that the category's numbers depend on."""
        return [*self.images, *(item.mask for item in self.test if item.mask is not None)]

    def missing_images(self) -> list[str]:
        """Differences from the official counts, in words; empty for a complete or an unofficial category."""
        return self.unofficial_counts() if self.dataset == "MVTec AD" else []

    def unofficial_counts(self) -> list[str]:
        """The same by name alone, for own parts that have a name of MVTec AD's; empty for any other name."""
        if self.category not in CATEGORIES:
            return []
        parts = zip(("train/good", "test/good", "test defects"), self.counts, CATEGORIES[self.category])
        return [f"{part}: {have} of {want} images" for part, have, want in parts if have != want]

    def missing_masks(self) -> list[TestItem]:
        """Defective images without a mask where others have one. Where none has one, none is missing."""
        without = [item for item in self.defective if item.mask is None]
        return without if len(without) < len(self.defective) else []

    def mask_gap(self) -> str:
        """How many masks are missing where others are there, in words; empty where none is missing."""
        if not (without := self.missing_masks()):
            return ""
        such = self.name_of(without[0])
        return f"{len(without)} of {len(self.defective)} defective images have no mask, such as {such}"


def categories_in(root: Path) -> list[str]:
    """The names of all folders under `root` that hold a folder `train`, the official ones first, in order.

    A folder that this user may not read, such as a disk's lost+found, is none.
    """
    found = sorted(path.name for path in _entries(root) if any(p.is_dir() for p in path.glob("train")))
    return [*(name for name in CATEGORIES if name in found), *(n for n in found if n not in CATEGORIES)]


def require_root(root: Path) -> None:
    """Raise DatasetError for the folder of a category where that of all categories is expected."""
    if (root / "train" / "good").is_dir():
        raise DatasetError(f"{root} is itself a category: name its parent, {root.resolve().parent}")


def scan(root: Path, category: str) -> Layout:
    """List the files of `category` under `root`.

    Raises DatasetError when the folder or the training images are absent, when a folder of good images has
    another name than 'good', when two images have one name or an image two masks, or when the category's name
    is none for a record.
    """
    folder = root / category
    if Path(category).name != category or not folder.is_dir():  # a name, not a path out of the root
        require_root(root)
        raise DatasetError(f"no category '{category}' under {root}: {_instead(root, category)}")
    if not is_utf8(category):  # no record could name it
        raise DatasetError(f"the name of {folder} is not UTF-8: rename it")
    if not re.fullmatch(NAME, category):
        raise DatasetError(
            f"no record can hold the name of {folder}: rename it, without < > & \\, quotes and a leading dot"
        )
    good = folder / "train" / "good"
    train, beside = images_below(good)
    left_out = defaultdict(list, beside)
    _require_one_each(train)
    others = sorted(path.name for path in _entries(folder / "train") if path.is_dir() and path != good)
    left_out["in no folder of train/"] = _loose(folder / "train")
    left_out["beside train/, not in it"] = _loose(folder)
    if not train:
        told = f" But train/ holds {', '.join(others)}: rename the one with good images." if others else ""
        unused = "".join(
            f" Left out ({reason}) {named(paths)}." for reason, paths in left_out.items() if paths
        )
        raise DatasetError(f"{good} holds no image ({', '.join(sorted(SUFFIXES))}).{told}{unused}")
    left_out["beside train/good"] = [folder / "train" / name for name in others if name[0] != "."]
    misnamed = _beside(folder, left_out)
    test, stray = _test_items(folder, left_out)
    findings = [
        Finding("note" if reason in _BY_RULE else "left out", f"left out ({reason}) {named(paths)}")
        for reason, paths in left_out.items()
        if paths
    ]
    findings += [Finding("stray mask", f"{path} belongs to no test image") for path in stray]
    return Layout(category, folder, train, test, findings + misnamed)


def _beside(folder: Path, left_out: defaultdict[str, list[Path]]) -> list[Finding]:
    """What to rename of the folders beside train, test and ground_truth; adds the others to `left_out`."""
    names = sorted(path.name for path in _entries(folder) if path.is_dir() and path.name[0] != ".")
    found = []
    for part in sorted(_NEAR.keys() - set(names)):
        if near := [name for name in names if re.fullmatch(_NEAR[part], name, re.IGNORECASE)]:
            told = f"{folder} has no folder {part}, but {', '.join(near)}: rename the right one to {part}"
            found.append(Finding("left out", told))
            names = [name for name in names if name not in near]
    for name in names:
        if name not in ("train", *_NEAR):
            reason = _THRESHOLD if (folder / name / "good").is_dir() else _BESIDE
            left_out[reason].append(folder / name)
    return found


def _test_items(folder: Path, left_out: defaultdict[str, list[Path]]) -> tuple[list[TestItem], list[Path]]:
    """The test images with their masks, and the masks that belong to none; adds to `left_out`."""
    images, others = images_below(folder / "test")
    _require_one_each(images)
    truth, further = images_below(folder / "ground_truth")
    stems = {image.with_suffix("") for image in images}
    masks = defaultdict(list)
    for path in others.pop(MASKS, []):
        masks[mask_owner(path)].append(path)
    for path in [*truth, *further.pop(MASKS, [])]:
        same, owner = (
            folder / "test" / stem.relative_to(folder / "ground_truth")
            for stem in (path.with_suffix(""), mask_owner(path))
        )
        masks[same if same in stems else owner].append(path)  # an image's own name may end in '_label'
    for reason, paths in [*others.items(), *further.items()]:
        left_out[reason] += paths
    items = []
    for image in images:
        parts = image.relative_to(folder / "test").parts
        if len(parts) == 1:
            left_out["in no folder of test/"].append(image)
            continue
        if (defect := parts[0]) != "good" and sounds_good(defect):
            raise DatasetError(
                f"{folder / 'test' / defect} would count as a kind of defect: rename it to 'good' if its "
                "images are good, or give the defect another name"
            )
        own = masks.pop(image.with_suffix(""), [])
        if len(own) > 1:
            raise DatasetError(f"{image} has {len(own)} masks, {own[0]} and {own[1]}: keep one")
        if defect == "good":
            left_out[MASKS] += own
            own = []
        items.append(TestItem(image, defect, own[0] if own else None))
    return items, in_order(path for paths in masks.values() for path in paths)


def _require_one_each(images: list[Path]) -> None:
    """Raise DatasetError for two images of one name: a photograph and its mask would both be photographs."""
    known: dict[Path, Path] = {}
    for image in images:
        if (other := known.setdefault(image.with_suffix(""), image)) is not image:
            raise DatasetError(
                f"{other} and {image} are two images of one name: if one is the mask of the other, move it "
                f"to ground_truth or name it {image.stem}_mask{image.suffix}, else keep one"
            )


def _instead(root: Path, category: str) -> str:
    """What to name or to make where `category` is not under `root`."""
    if (Path(category) / "train").is_dir():
        folder = Path(category).resolve()
        return f"for the folder {category} name the category {folder.name} and the data {folder.parent}"
    if there := categories_in(root):
        return f"there are {', '.join(there)}"
    return (
        f"expected {root / category}/train/good; "
        "`stlib data download` fetches MVTec AD, `stlib data demo` makes the demo"
    )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []  # glob would pass over a folder it may not read


def _loose(folder: Path) -> list[Path]:
    """Images in `folder` itself: a person may have forgotten to move them."""
    return in_order(
        path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.name[0] != "."
    )


def content(layout: Layout) -> dict[Path, str]:
    """The SHA-256 of every file, in path order."""
    return {path: sha256(path) for path in in_order(layout.files())}


def fingerprint(layout: Layout, hashes: Mapping[Path, str] | None = None) -> str:
    """SHA-256 over (path within the category, SHA-256 of the file) of every file, in path order."""
    digest = hashlib.sha256()
    for path, hashed in (hashes or content(layout)).items():
        digest.update(f"{path.relative_to(layout.folder).as_posix()} {hashed}\n".encode())
    return digest.hexdigest()
