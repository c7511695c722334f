"""Pictures for the demo teacher's training: drawn textures in many families, crops of shipped photographs."""

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from stlib.demo.textures import SIDE, Picture, Rng, kinds, texture

PHOTOGRAPHS = (
    "astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "immunohistochemistry",
    "retina", "rocket",
)  # fmt: skip
"""Public-domain or CC0 images inside scikit-image, none of them the demo's; each quarter is one class."""


def make_pool(per_class: int, seed: int) -> Tensor:
    """(classes, per_class, 3, SIDE, SIDE) uint8 pictures: textures first, then photographs."""
    rng = np.random.default_rng(seed)
    classes = [[texture(*kind, rng) for _ in range(per_class)] for kind in kinds()]
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(getattr(data, name)()).convert("RGB")
        classes += [[quarter_crop(photograph, q, rng) for _ in range(per_class)] for q in range(4)]
    return torch.from_numpy(np.array(classes)).permute(0, 1, 4, 2, 3)


def quarter_crop(photograph: Image.Image, quarter: int, rng: Rng) -> Picture:
    """(SIDE, SIDE, 3): a random crop of one quarter of a photograph."""
    width, height = photograph.width / 2, photograph.height / 2
    side = min(rng.uniform(80, 220), width, height)
    left = quarter % 2 * width + rng.uniform(0, width - side)
    top = quarter // 2 * height + rng.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))
