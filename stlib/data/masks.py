"""Reading masks: two values say which pixels are defective, and a rule what that means after a resize."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stlib.data.images import ACROSS, DatasetError, decoded, header, pixel_size

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

_WHITE, _NOISE = 224, 32
"""Values of a mask from the first on are white; below the second black, where a format loses a little."""
_LOSSY = ("JPEG", "MPO", "WEBP")


def require_rule(rule: str) -> None:
    """Raise ValueError for a name that is not among MASK_RULES."""
    if rule not in MASK_RULES:
        raise ValueError(f"unknown mask rule '{rule}': choose one of {', '.join(MASK_RULES)}")


def read_mask(
    path: Path | str, size: int, rule: MaskRule = "half", *, of: Path | str | None = None
) -> np.ndarray:
    """(size, size) bool under `rule` (see MASK_RULES); `of` is the image that the mask belongs to.

    Raises DatasetError for a mask that is unreadable, has another size than its image, or does not say
    which pixels are defective, and ValueError for another rule.
    """
    require_rule(rule)
    mask = _open_mask(Path(path))
    if of is not None and mask.size != (wanted := pixel_size(of)):
        raise DatasetError(
            f"{path} has {mask.size[0]} x {mask.size[1]} pixels and its image {wanted[0]} x {wanted[1]}: "
            "make the mask on the image as it is shown, at its full size"
        )
    if lowest := _LOWEST.get(rule):
        # PIL's bilinear filter widens with the reduction, which is what 'antialias' means.
        return np.asarray(mask.resize((size, size), Image.Resampling.BILINEAR)) >= lowest
    pixels = torch.from_numpy(np.array(mask, dtype=np.float32))[None, None] / 255
    resized = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    return np.asarray((resized > 0 if rule == "any" else resized >= 1)[0, 0])


def fits_unturned(image: Path, mask: Path) -> bool:
    """Whether a mask of `image` as it is stored has the size of a mask of it as it is shown.

    Then nothing but a look at both tells where the defect is. A mask that is turned like its image is right.
    Raises what `open_image` does.
    """
    (width, height), turn = header(image)
    same_size = turn not in ACROSS or width == height
    return turn != 1 and same_size and header(mask)[1] == 1


def _open_mask(path: Path) -> Image.Image:
    """The mask in grey, 255 where defective. Raises DatasetError when its values do not say where that is.

    They do where there are black and one other value, grey or in colour, or black and white with a border
    smoothed between them, as resizing leaves it.
    """
    image = decoded(path)
    pixels: NDArray[np.uint8] = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    if pixels.ndim == 3:
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]
        else:
            marked = pixels[pixels.any(2)]
            if (marked != marked[:1]).any():
                raise _unclear(path, "several colours")
            pixels = np.where(pixels.any(2), np.uint8(255), np.uint8(0))
    values = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
    if len(values) == 2 and not values[0]:
        return Image.fromarray((pixels > 0).astype(np.uint8) * np.uint8(255))
    listed = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    if 0 < values[-1] < 128 or (len(values) == 1 and values[0] not in (0, 255)):
        raise _unclear(path, f"the values {listed}")
    if area := _grey_area(pixels, _NOISE if image.format in _LOSSY else 1):
        raise _unclear(path, f"an area of the value {area} among the values {listed}")
    return Image.fromarray(pixels)


def _grey_area(pixels: np.ndarray, lowest: int) -> int:
    """The value of a flat 3 x 3 area, from `lowest` on and not white; 0 when there is none."""
    flat = ndimage.maximum_filter(pixels, 3) == ndimage.minimum_filter(pixels, 3)
    inner = np.s_[1:-1, 1:-1]
    found = pixels[inner][(flat & (pixels >= lowest) & (pixels < _WHITE))[inner]]
    return int(found[0]) if len(found) else 0


def _unclear(path: Path, values: str) -> DatasetError:
    return DatasetError(
        f"{path} has {values}: a mask says what is defective by two values, 0 for good and 255 for defective"
    )
