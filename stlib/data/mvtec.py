"""MVTec AD reader: official layout in, one category's images and masks as tensors out.

Layout (Bergmann et al., CVPR 2019): `<root>/<category>/train/good`, `test/good`, `test/<defect>` and
`ground_truth/<defect>/<stem>_mask.png`. Any dataset laid out this way can be read.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stlib.files import sha256
from stlib.protocol import CATEGORIES, IMAGE_SIZE

MaskRule = Literal["half", "80/255", "any", "full"]
MASK_RULES: dict[MaskRule, str] = {
    "half": "bilinear with antialias, at least 0.5 (DeSTSeg; this study's rule)",
    "80/255": "bilinear with antialias, at least 80 of 255: near the official 'any', on resized files too",
    "any": "bilinear, every non-zero value (official STPM code, full-size files): slightly dilated",
    "full": "bilinear, only 1.0 stays (hcw-00's STPM): slightly eroded",
}


_LOWEST: dict[MaskRule, int] = {"half": 128, "80/255": 80}
"""Grey value, after an antialiased resize, from which a pixel is defective. 'any' is the official code's rule
on the files that its authors had; on masks that were resized before, every softened border pixel counts."""

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
"""Of images that are not MVTec AD's own, which are all .png."""
DEMO_MARKER = "demo.json"
"""File in a dataset's root by which the demo dataset is known."""


MAX_PIXELS = 1 << 26
"""Of one image; MVTec AD has about a million. A file of a few kilobytes may claim to hold billions."""


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message names the file and the remedy."""


@dataclass(frozen=True)
class TestItem:
    """One test image on disk; `mask` is None for good images."""

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

    @property
    def dataset(self) -> Literal["MVTec AD", "demo", "other"]:
        """Which dataset this is: by the category's name, or by the marker that the demo generator leaves."""
        if self.category in CATEGORIES:
            return "MVTec AD"
        return "demo" if (self.folder.parent / DEMO_MARKER).is_file() else "other"

    def files(self) -> list[Path]:
        """Every file that the category's numbers depend on."""
        masks = [item.mask for item in self.test if item.mask is not None]
        return [*self.train, *(item.image for item in self.test), *masks]

    def missing_images(self) -> list[str]:
        """Differences from the official counts, in words; empty for a complete or an unofficial category."""
        if self.category not in CATEGORIES:
            return []
        official = CATEGORIES[self.category]
        good = sum(item.defect == "good" for item in self.test)
        found = {
            "train/good": (len(self.train), official.train_good),
            "test/good": (good, official.test_good),
            "test defects": (len(self.test) - good, official.test_defect),
        }
        return [f"{part}: {have} of {want} images" for part, (have, want) in found.items() if have != want]


@dataclass(frozen=True)
class Category:
    """One category in memory. N training images, M test images, side S."""

    name: str
    train: Tensor
    """(N, 3, S, S) uint8 RGB."""
    test: Tensor
    """(M, 3, S, S) uint8 RGB."""
    masks: Tensor
    """(M, S, S) bool, True on defective pixels."""
    layout: Layout
    fingerprint: str
    """SHA-256 over the names and contents of all files of the category."""

    @property
    def labels(self) -> Tensor:
        """(M,) bool, True for images from a defect folder."""
        return torch.tensor([item.defect != "good" for item in self.layout.test])


def scan(root: Path, category: str) -> Layout:
    """List the files of `category` under `root`.

    Raises DatasetError when the folder, the training images or the test images are absent.
    """
    folder = root / category
    if Path(category).name != category or not folder.is_dir():  # a name, not a path out of the root
        raise DatasetError(
            f"no category '{category}' under {root}: expected {folder}/train/good; "
            "`stlib data download` fetches MVTec AD, `stlib data demo` makes the demo"
        )
    train = sorted((folder / "train" / "good").glob("*.png"))
    if not train:
        raise DatasetError(
            f"{folder / 'train' / 'good'} holds no .png image: is the dataset fully extracted?"
        )
    images = sorted((folder / "test").glob("*/*.png"))
    if not images:
        raise DatasetError(f"{folder / 'test'} holds no .png image: is the dataset fully extracted?")
    return Layout(category, folder, train, [_test_item(folder, image) for image in images])


def _test_item(folder: Path, image: Path) -> TestItem:
    defect = image.parent.name
    if defect == "good":
        return TestItem(image, defect, None)
    return TestItem(image, defect, folder / "ground_truth" / defect / f"{image.stem}_mask.png")


def load_category(
    root: Path | str, category: str, *, image_size: int = IMAGE_SIZE, mask_rule: MaskRule = "half"
) -> Category:
    """Read one category under `root` and resize every whole image to `image_size` pixels.

    The resizing is PIL's bilinear one, as in the official STPM and DeSTSeg code; `mask_rule` says which
    pixels of a resized mask count as defective (MASK_RULES). Raises DatasetError naming the first unreadable
    image or missing mask, or a category that is not there.

    >>> import stlib
    >>> brick = stlib.load_category(stlib.make_demo(), "brick", image_size=64)
    >>> brick.train.shape, int(brick.labels.sum())
    (torch.Size([36, 3, 64, 64]), 20)
    """
    layout = scan(Path(root), category)
    for item in layout.test:
        if item.mask is not None and not item.mask.is_file():
            raise DatasetError(f"{item.image} has no mask {item.mask}: run `stlib data check {root}`")
    return Category(
        name=category,
        train=read_images(layout.train, image_size),
        test=read_images([item.image for item in layout.test], image_size),
        masks=_masks(layout, image_size, mask_rule),
        layout=layout,
        fingerprint=fingerprint(layout),
    )


def with_mask_rule(category: Category, rule: MaskRule) -> Tensor:
    """(M, S, S) bool masks of `category` under another rule."""
    return _masks(category.layout, category.masks.shape[-1], rule)


def _masks(layout: Layout, size: int, rule: MaskRule) -> Tensor:
    empty = np.zeros((size, size), dtype=bool)
    masks = [empty if item.mask is None else read_mask(item.mask, size, rule) for item in layout.test]
    return torch.from_numpy(np.stack(masks))


def images_in(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted. Raises DatasetError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}): name another folder")
    return found


def read_images(paths: list[Path], size: int) -> Tensor:
    """(N, 3, size, size) uint8 RGB in the order of `paths`. Raises DatasetError for an unreadable one."""
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    for index, path in enumerate(paths):
        images[index] = torch.from_numpy(read_image(path, size).copy()).permute(2, 0, 1)
    return images


def read_image(path: Path, size: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB; grey images get three equal channels. Raises DatasetError if unreadable."""
    return np.asarray(open_image(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def read_mask(path: Path, size: int, rule: MaskRule = "half") -> np.ndarray:
    """(size, size) bool under `rule` (see MASK_RULES). Raises DatasetError if unreadable."""
    mask = open_image(path).convert("L")
    if lowest := _LOWEST.get(rule):
        # PIL's bilinear filter widens with the reduction, which is what 'antialias' means.
        return np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR)) >= lowest
    pixels = torch.from_numpy(np.array(mask, dtype=np.float32))[None, None] / 255
    resized = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)[
        0, 0
    ]
    return np.asarray(resized > 0 if rule == "any" else resized >= 1)


def open_image(path: Path) -> Image.Image:
    """The decoded image. Raises DatasetError, naming the file, for a broken, too big or too deep one."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
            if image.mode.startswith(("I", "F")):  # PIL would clip them to white
                raise ValueError(f"mode {image.mode}, convert it to 8 bits per channel")
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} is not a readable image ({error}): fetch or extract it again") from error
    return image


def fingerprint(layout: Layout) -> str:
    """SHA-256 over (path within the category, SHA-256 of the file) of every file, in path order."""
    digest = hashlib.sha256()
    for path in sorted(layout.files()):
        digest.update(f"{path.relative_to(layout.folder).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()
