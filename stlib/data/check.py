"""`stlib data check`: all that is wrong with a dataset folder, and what each gap makes impossible.

It reads by the rules of `load_category`, which stops at the first of the faults that a run cannot live with.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stlib.data.images import MASKS, DatasetError, images_below, named, open_image
from stlib.data.layout import Finding, Layout, categories_in, require_root, scan
from stlib.data.masks import read_mask
from stlib.data.mvtec import duplicates, odd_mask, turned_masks
from stlib.files import sha256
from stlib.protocol import CATEGORIES, IMAGE_SIZE, Counts

_OF_MASKS = {(0, 0, 0), (255, 255, 255)}


@dataclass(frozen=True)
class CategoryReport:
    """What was found in one category: how many images to learn from and to test, and what is wrong."""

    category: str
    counts: Counts
    findings: list[Finding]
    """What is wrong, or may be."""
    notes: list[Finding]
    """What was left out by rule, and may well be right."""
    consequences: list[str]
    """What cannot be measured, or is not comparable, because of the findings."""


def check_category(root: Path, category: str) -> CategoryReport:
    """Read every file of `category` and report. Never raises for a fault in the data."""
    try:
        layout = scan(root, category)
    except DatasetError as error:
        fault = Finding("unusable category", str(error))
        return CategoryReport(category, Counts(0, 0, 0), [fault], [], ["nothing can be run on it"])
    notes = [finding for finding in layout.findings if finding.kind == "note"]
    broken, flat = _looked_at(layout)
    findings = [
        *(Finding("count", gap) for gap in layout.unofficial_counts()),
        *(finding for finding in layout.findings if finding not in notes),
        *(Finding("unreadable", told) for told in broken.values()),
        *flat,
        *_faults_of_masks(layout, broken),
        *_masks_of_good(layout),
    ]
    if layout.dataset == "MVTec AD":  # of own parts a person may have masked some defects only
        findings += [Finding("missing mask", f"{item.image} has no mask") for item in layout.missing_masks()]
    findings += duplicates(layout, {path: sha256(path) for path in layout.images if path not in broken})
    return CategoryReport(category, layout.counts, findings, notes, _consequences(layout, findings))


def check_dataset(root: Path) -> list[CategoryReport]:
    """Reports for every category under `root`, the official ones first.

    Raises DatasetError when `root` is no folder, holds no category, or is one itself.
    """
    if not root.is_dir():
        raise DatasetError(
            f"no folder {root}: `stlib data download` fetches MVTec AD, `stlib data demo` makes the demo"
        )
    require_root(root)
    present = categories_in(root)
    if not present:
        raise DatasetError(f"{root} holds no folder with train/ in it: name the folder of the categories")
    return [check_category(root, name) for name in present]


def absent(root: Path) -> list[str]:
    """Official categories without a folder under `root`; none where it holds only own parts."""
    missing = [name for name in CATEGORIES if not (root / name).is_dir()]
    return missing if len(missing) < len(CATEGORIES) else []


def no_category(root: Path) -> list[str]:
    """Folders under `root` that nothing reads, because they hold no folder `train`."""
    folders = {path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."}
    return sorted(folders - set(categories_in(root)))


def _looked_at(layout: Layout) -> tuple[dict[Path, str], list[Finding]]:
    """The images that a run would refuse, with the reason, and the finding of those that look like masks."""
    broken, flat = {}, []
    for path in layout.images:
        try:
            if {colour for _, colour in open_image(path).getcolors(2) or [(0, "many")]} <= _OF_MASKS:
                flat.append(path)
        except DatasetError as error:
            broken[path] = str(error)
    if not 0 < len(flat) < len(layout.images):  # where all are black and white, such are the photographs
        return broken, []
    told = f"black and white only, as masks are, and read as images {named(flat)}"
    return broken, [Finding("stray mask", told)]


def _faults_of_masks(layout: Layout, broken: Collection[Path]) -> Iterator[Finding]:
    """Every mask that a run would refuse, but for those of `broken` images, or would warn of."""
    counted = not layout.missing_masks()
    for item in layout.test:
        if item.mask is None or item.image in broken:
            continue
        try:
            mask = read_mask(item.mask, IMAGE_SIZE, of=item.image)
            if counted and (odd := odd_mask(layout, item.mask, mask)):
                yield odd
        except DatasetError as error:
            yield Finding("unusable mask", str(error))
    with suppress(DatasetError):  # told above
        if turned := turned_masks(layout):
            yield turned


def _masks_of_good(layout: Layout) -> Iterator[Finding]:
    """Masks that no run reads, for their images lie in good, and that mark a defect all the same."""
    for part in ("train/good", "test/good", "ground_truth/good"):
        images, left_out = images_below(layout.folder / part)
        for path in left_out.get(MASKS, []) + (images if part == "ground_truth/good" else []):
            with suppress(DatasetError):
                if read_mask(path, IMAGE_SIZE).any():
                    yield Finding(
                        "stray mask", f"{path} marks a defect of an image in good: move one of them"
                    )


def _consequences(layout: Layout, findings: list[Finding]) -> list[str]:
    kinds = {finding.kind for finding in findings}
    consequences = []
    defective = layout.defective
    if len(defective) == len(layout.test):
        kinds_here = ", ".join(sorted({item.defect for item in defective}))
        remedy = f", only {kinds_here}: rename the one of good images, if there is one, to 'good'"
        told = f"test/ has no images in 'good'{remedy if defective else ''}"
        consequences.append(f"no image AUROC or AP, pixel metrics without the normal images: {told}")
    if not defective:
        consequences.append("no metric at all: there is no defective test image")
    elif all(item.mask is None for item in defective):
        consequences.append("no pixel metric: the defective images have no masks")
    elif gap := layout.mask_gap():
        consequences.append(f"no pixel metric: {gap}")
    if {"unreadable", "unusable mask", "missing mask"} & kinds:
        consequences.append("runs stop with an error until these files are mended")
    if {"empty mask", "large mask", "turned mask"} & kinds:
        consequences.append("pixel metrics count what these masks mark, right or wrong: look at them first")
    if "count" in kinds:
        known = layout.dataset == "MVTec AD"
        consequences.append(
            "results are labelled 'incomplete dataset' and not compared with the papers"
            if known
            else "it has a name of MVTec AD's and is not MVTec AD: it counts as another dataset"
        )
    if "leak" in kinds:
        consequences.append("training images are also tested: scores of them say nothing")
    return consequences
