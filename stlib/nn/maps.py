"""From distances per level to an anomaly map and an image score."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

SIGMA = 4.0
"""Of the Gaussian that smooths the maps of PatchCore, PaDiM, SPADE, RD4AD and AAND, in pixels."""


class Maps(NamedTuple):
    """What a detector says about B images of side S."""

    layers: Tensor
    """(B, L, h, w) float32 maps of every level, resized to the finest one."""
    pixel: Tensor
    """(B, S, S) float32 anomaly map; larger is more anomalous."""
    image: Tensor
    """(B,) float32 image score."""

    def to(self, device: torch.device | None) -> "Maps":
        """The same maps on another device; None leaves them where they are."""
        return Maps(*(part.to(device) for part in self))


def in_batches(
    network: nn.Module, images: Tensor, size: int, device: torch.device, *, tf32: bool = False
) -> Maps:
    """`network` (uint8 images -> `Maps`) in eval mode over (M, 3, S, S) uint8 images; the maps on the CPU.

    Convolutions and matrix products round to TF32 only where `tf32` says so, whatever the training left
    switched on; afterwards PyTorch's switches are as they were. Raises ValueError for a network whose maps
    are not what `Maps` says.
    """
    network.eval()
    cpu = torch.device("cpu")
    with torch.no_grad(), _rounding(tf32):
        batches = (batch.to(device) for batch in torch.split(images, size))
        parts = [_checked(network(batch), batch).to(cpu) for batch in batches]
    return Maps(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _checked(maps: Maps, images: Tensor) -> Maps:
    """The maps of a batch. Raises ValueError for a part that is not what `Maps` says, by its name."""
    if torch.is_autocast_enabled(images.device.type):  # then a network may return what it has rounded
        maps = Maps(*(part.float() for part in maps))
    count, side = len(images), images.shape[-1]
    shapes = {
        "(B, L, h, w)": (count, *maps.layers.shape[-3:]),
        "(B, S, S)": (count, side, side),
        "(B,)": (count,),
    }
    for name, part, (words, shape) in zip(Maps._fields, maps, shapes.items(), strict=True):
        if part.shape != shape or part.dtype != torch.float32:
            found = f"{tuple(part.shape)} {part.dtype}"
            raise ValueError(
                f"the network's Maps.{name} is {found}: return {words} torch.float32, "
                f"here with B = {count} and S = {side}"
            )
    return maps


@contextmanager
def _rounding(tf32: bool) -> Iterator[None]:
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, tf32
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32):
            yield
    finally:
        products.allow_tf32 = before


def resize(maps: Tensor, side: int) -> Tensor:
    """(B, L, h, w) -> (B, L, side, side), bilinear without aligned corners."""
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def stack_levels(distances: Sequence[Tensor]) -> Tensor:
    """Per-level (B, h, w) maps -> (B, L, h, w) at the size of the first (finest) level."""
    side = distances[0].shape[-1]
    return torch.cat([resize(d[:, None], side) for d in distances], dim=1)


def fuse(layers: Tensor, image_size: int, *, rule: Literal["product", "sum"] = "product") -> Tensor:
    """(B, L, h, w) -> (B, S, S): product (STPM) or sum of the levels, then bilinear to the image size.

    The official code multiplies at the finest level and resizes the product; the paper resizes first.
    """
    fused = layers.prod(dim=1, keepdim=True) if rule == "product" else layers.sum(dim=1, keepdim=True)
    return resize(fused, image_size)[:, 0]


def smooth(pixel: Tensor) -> Tensor:
    """(B, S, S) anomaly maps -> the same, smoothed by a Gaussian that ends at four standard deviations.

    The official codes call SciPy's, which repeats the border pixel when it reflects; this one does not, so
    that maps differ a little near the border.
    """
    reach = min(int(4 * SIGMA + 0.5), pixel.shape[-1] - 1)
    smoothed: Tensor = gaussian_blur(pixel[:, None], 2 * reach + 1, SIGMA)
    return smoothed[:, 0]


def max_score(pixel: Tensor) -> Tensor:
    """(B, S, S) -> (B,): the largest pixel score (STPM)."""
    return pixel.amax(dim=(1, 2))


def top_score(pixel: Tensor, top: int = 100) -> Tensor:
    """(B, S, S) -> (B,): mean of the `top` largest pixel scores (DeSTSeg, T = 100)."""
    return pixel.flatten(1).topk(top, dim=1).values.mean(dim=1)
