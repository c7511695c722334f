"""One category in MVTec AD's layout in memory: its images and masks as tensors."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stlib.data.images import DatasetError, read_images
from stlib.data.layout import Finding, Layout, content, fingerprint, scan
from stlib.data.masks import MaskRule, fits_unturned, read_mask, require_rule
from stlib.protocol import IMAGE_SIZE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Category:
    """One category in memory. N training images, M test images, side S."""

    name: str
    train: Tensor
    """(N, 3, S, S) uint8 RGB."""
    test: Tensor
    """(M, 3, S, S) uint8 RGB."""
    masks: Tensor
    """(M, S, S) bool, True on defective pixels; nowhere if the mask of some defective image is missing."""
    layout: Layout
    fingerprint: str
    """SHA-256 over the names and contents of all files of the category."""

    @property
    def labels(self) -> Tensor:
        """(M,) bool, True for images from a defect folder."""
        return torch.tensor([item.defect != "good" for item in self.layout.test], dtype=torch.bool)


def load_category(root: Path | str, category: str, *, image_size: int = IMAGE_SIZE) -> Category:
    """Read one category under `root` and resize every whole image to `image_size` pixels.

    The resizing is PIL's bilinear one, as in the official STPM and DeSTSeg code; pixels of a resized mask
    count as defective by the rule 'half' (MASK_RULES). What was left out, images that are there twice,
    masks that are missing beside others, and odd ones, are logged as warnings. Raises DatasetError naming
    the first image or mask that cannot be used, a mask that MVTec AD has and this copy has not, or a category
    that is not there: what `stlib data check` finds, all at once.

    >>> import stlib
    >>> brick = stlib.load_category(stlib.make_demo(), "brick", image_size=64)
    >>> brick.train.shape, int(brick.labels.sum())
    (torch.Size([48, 3, 64, 64]), 20)
    """
    layout = scan(Path(root), category)
    if gap := layout.mask_gap():
        if layout.dataset == "MVTec AD":
            remedy = "add it as ground_truth/<defect>/<name>_mask.png, or take all masks away"
            raise DatasetError(f"{layout.folder}: {gap}: {remedy}")
        logger.warning("%s: %s: no metric of pixels is measured", category, gap)
    train = read_images(layout.train, image_size)
    test = read_images([item.image for item in layout.test], image_size)
    masks = _masks(layout, image_size, "half")
    hashes = content(layout)
    pairs = [] if layout.missing_masks() else zip(layout.test, masks, strict=True)  # then no mask counts
    odd = [odd_mask(layout, item.mask, mask.numpy()) for item, mask in pairs if item.mask]
    odd.append(turned_masks(layout))
    for finding in [*layout.findings, *duplicates(layout, hashes), *filter(None, odd)]:
        logger.warning("%s: %s", category, finding.text)
    return Category(category, train, test, masks, layout, fingerprint(layout, hashes))


def with_mask_rule(category: Category, rule: MaskRule) -> Tensor:
    """(M, S, S) bool masks of `category` under another rule. Raises ValueError for an unknown one."""
    require_rule(rule)
    return _masks(category.layout, category.masks.shape[-1], rule)


def _masks(layout: Layout, size: int, rule: MaskRule) -> Tensor:
    masks = np.zeros((len(layout.test), size, size), dtype=bool)
    if layout.missing_masks():  # the others would call the defects without a mask good, pixel by pixel
        return torch.from_numpy(masks)
    for place, item in zip(masks, layout.test, strict=True):
        if item.mask is not None:
            place[:] = read_mask(item.mask, size, rule, of=item.image)
    return torch.from_numpy(masks)


def odd_mask(layout: Layout, path: Path, mask: NDArray[np.bool_]) -> Finding | None:
    """What is strange about the (S, S) bool `mask` in `path`: it marks nothing, or most of its picture."""
    share = mask.mean()
    if not share:
        told = f"{path} marks no pixel of {mask.shape[0]} x {mask.shape[1]}"
        remedy = "mark the defect, or move its image to test/good"
        return Finding("empty mask", f"{told}: {remedy}")
    if share > 0.5 and layout.dataset != "MVTec AD":  # whose masks are right, however large
        return Finding("large mask", f"{path} marks {share:.0%} of its picture: inverted?")
    return None


def turned_masks(layout: Layout) -> Finding | None:
    """Masked photographs that the camera turned, where a mask of the unturned one has the right size, too."""
    pairs = [(item.image, item.mask) for item in layout.test if item.mask]
    if not (turned := [image for image, mask in pairs if fits_unturned(image, mask)]):
        return None
    told = f"{len(turned)} masked photographs are turned by their camera, such as {turned[0]}"
    return Finding("turned mask", f"{told}: their masks must be made on the turned picture")


def duplicates(layout: Layout, hashes: Mapping[Path, str]) -> list[Finding]:
    """Images with equal content: a leak where one is in train and one in test."""
    same: dict[str, list[Path]] = defaultdict(list)
    for path in layout.images:
        if path in hashes:
            same[hashes[path]].append(path.relative_to(layout.folder))
    found = []
    for names in same.values():
        if len(names) > 1:
            told = f"equal files {', '.join(name.as_posix() for name in names)}"
            if len({name.parts[1] == "good" for name in names}) > 1:
                told += ": one picture counts as good and as a defect, keep it in one place"
            found.append(Finding("leak" if len({name.parts[0] for name in names}) > 1 else "duplicate", told))
    return found
