"""Foreign textures for synthetic anomalies: a DTD folder, or drawn ones for the demo."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stlib.data.images import DatasetError, images_below, read_images
from stlib.demo.textures import kinds, texture
from stlib.records.schema import TextureInfo

DRAWN = 138
"""Number of drawn textures: two of every kind."""


def texture_files(folder: str | Path) -> list[Path]:
    """The textures in the folder of DTD, in order. Raises DatasetError when there is none."""
    paths, _ = images_below(Path(folder) / "images")
    if not paths:
        raise DatasetError(
            f"{Path(folder) / 'images'} holds no image: name DTD's folder by --textures; "
            "`stlib data download dtd` fetches it"
        )
    return paths


def load_textures(source: str | Path, size: int) -> tuple[Tensor, TextureInfo]:
    """(K, 3, size, size) uint8 textures, and where they come from.

    `source`: 'demo' draws them; otherwise the folder of DTD, or one with `images/<class>/*.jpg` in it, too.
    Raises DatasetError when there is none.
    """
    if source == "demo":
        return _drawn(size)
    paths = texture_files(source)
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name}".encode() + path.read_bytes())
    info = TextureInfo(source="DTD", fingerprint=digest.hexdigest(), images=len(paths))
    return read_images(paths, size), info


@cache  # two seconds each time, and every run of the demo in a notebook or test asks
def _drawn(size: int) -> tuple[Tensor, TextureInfo]:
    rng = np.random.default_rng(0)
    every = kinds()
    pictures = np.stack([texture(*every[i % len(every)], rng) for i in range(DRAWN)])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    if size != pixels.shape[-1]:
        resized = F.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    fingerprint = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    return pixels.contiguous(), TextureInfo(source="demo", fingerprint=fingerprint, images=DRAWN)
