"""Synthetic anomalies for DeSTSeg, PFADSeg and AAND: Perlin-shaped patches of a foreign texture, in batches.

Recipe: Zavrtanik et al., DRAEM, ICCV 2021, section 3.1, as DeSTSeg's code (apple/ml-destseg) uses it: every
image is corrupted. Random numbers come from the CPU and are few, so that a seed makes the same anomalies on
any device; all work on pixels happens where the images are. B images of side S.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_OCTAVE = 6
"""Perlin cells per axis are a power of two below 2 ** MAX_OCTAVE."""
THRESHOLD = 0.5
MAX_IMAGE_WEIGHT = 0.8
"""Inside the mask the image keeps a weight in [0, 0.8), the texture gets the rest."""
FILL = 114 / 255
"""Grey that rotation brings in at the corners."""


def send(values: Tensor, device: torch.device) -> Tensor:
    """The CPU tensor `values` on `device`, without waiting for the work that a GPU still has in its queue."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Rotation(NamedTuple):
    """How training images of a category may be rotated."""

    quarter_turns: bool
    degrees: float
    """Uniform in [-degrees, degrees], on top of the quarter turn."""


_ANY_WAY_UP, _UPRIGHT, _FIXED = Rotation(True, 5.0), Rotation(False, 5.0), Rotation(False, 0.0)
CATEGORY_ROTATION: dict[str, Rotation] = {
    **dict.fromkeys(("bottle", "grid", "hazelnut", "leather", "tile", "carpet", "screw"), _ANY_WAY_UP),
    **dict.fromkeys(("wood", "zipper", "cable"), _UPRIGHT),
    **dict.fromkeys(("capsule", "metal_nut", "pill", "toothbrush", "transistor"), _FIXED),
}
"""DeSTSeg's table; categories that are not in it (the demo's) are not rotated."""


class Synthetic(NamedTuple):
    """A training batch."""

    clean: Tensor
    """(B, 3, S, S) float in [0, 1]: the image, rotated."""
    corrupted: Tensor
    """(B, 3, S, S) float in [0, 1]: the same with anomalies. Normalise afterwards, not before."""
    mask: Tensor
    """(B, S, S) bool: where the anomalies are; about one in twenty is empty."""
    texture: Tensor
    """(B, 3, S, S) float in [0, 1]: what they are made of."""


class AnomalySynthesis:
    """Corrupts batches of normal images of one category."""

    def __init__(self, textures: Tensor, category: str) -> None:
        """`textures`: (K, 3, S, S) uint8, on the device of the images to come.

        `category` decides how images are rotated, by DeSTSeg's table: empty for parts that it does not know.
        """
        self.textures, self.category = textures, category
        self.rotation = CATEGORY_ROTATION.get(category, _FIXED)

    @property
    def rotates(self) -> bool:
        """Whether images of the category are rotated; where not, `Synthetic.clean` is the image as it was."""
        return self.rotation.quarter_turns or self.rotation.degrees > 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Synthetic:
        """(B, 3, S, S) uint8 -> a training batch; the CPU `generator` decides everything random."""
        count, size = len(images), images.shape[-1]
        clean = rotate_images(images.float() / 255, self._angles(count, generator))
        mask = perlin_masks(count, size, generator, images.device)
        picks = torch.randint(len(self.textures), (count,), generator=generator)
        texture = self.textures[send(picks, images.device)].float() / 255
        weight = send(MAX_IMAGE_WEIGHT * torch.rand(count, 1, 1, 1, generator=generator), images.device)
        blend = weight * clean + (1 - weight) * texture
        return Synthetic(clean, torch.where(mask[:, None], blend, clean), mask, texture)

    def _angles(self, count: int, generator: torch.Generator) -> Tensor:
        quarter = torch.randint(4, (count,), generator=generator) * 90.0
        small = (2 * torch.rand(count, generator=generator) - 1) * self.rotation.degrees
        return quarter * self.rotation.quarter_turns + small


def perlin_masks(count: int, size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(B, size, size) bool: rotated Perlin noise above the threshold."""
    noise = perlin_noise(count, size, generator, device)
    angles = 180 * torch.rand(count, generator=generator) - 90
    return _rotate(noise[:, None], angles)[:, 0] > THRESHOLD


def perlin_noise(count: int, size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(B, size, size) gradient noise, each with its own cells per axis, times sqrt(2) as in DRAEM's code."""
    most = 2 ** (MAX_OCTAVE - 1)
    cells = 2 ** torch.randint(MAX_OCTAVE, (2, count, 1), generator=generator)
    angles = 2 * math.pi * torch.rand(count, most + 1, most + 1, generator=generator)
    gradients = send(torch.stack([angles.cos(), angles.sin()], dim=-1), device)
    place = send(torch.arange(size) * cells / size, device)  # (2, B, size): each row and column, in cells
    (y, x), (fy, fx) = place.long(), place.frac()
    image = torch.arange(count, device=device)[:, None, None]

    def corner(down: int, right: int) -> Tensor:
        gradient: Tensor = gradients[image, y[:, :, None] + down, x[:, None, :] + right]  # (B, size, size, 2)
        height: Tensor = gradient[..., 0] * (fy[:, :, None] - down) + gradient[..., 1] * (
            fx[:, None, :] - right
        )
        return height

    ty, tx = _fade(fy)[:, :, None], _fade(fx)[:, None, :]
    top = torch.lerp(corner(0, 0), corner(0, 1), tx)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), tx)
    return math.sqrt(2) * torch.lerp(top, bottom, ty)


def _fade(t: Tensor) -> Tensor:
    """Perlin's quintic."""
    return t**3 * (t * (6 * t - 15) + 10)


def rotate_images(images: Tensor, degrees: Tensor) -> Tensor:
    """(B, 3, S, S) float, each rotated by its angle about the centre, bilinear, grey corners."""
    if not degrees.any():
        return images
    return _rotate(images - FILL, degrees) + FILL


def _rotate(maps: Tensor, degrees: Tensor) -> Tensor:
    """(B, C, S, S) rotated by (B,) degrees; zeros come in at the corners."""
    radians = torch.deg2rad(degrees)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    matrices = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(send(matrices, maps.device), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
