"""SPADE: Sub-Image Anomaly Detection with Deep Pyramid Correspondences (Cohen and Hoshen, arXiv:2005.02357).

The most similar good images are looked up first; anomalous is what has no counterpart in any of them. Nothing
is drawn at random. With ResNet-18 instead of the paper's Wide ResNet-50, on whole images instead of centre
crops. There is no official code; where the paper is silent, byungjae89/SPADE-pytorch decides:

1. Images are looked up by the mean of level 3. The paper takes the level after it, which this study's
   teachers lack: the image scores are not those of the paper's method.
2. The distances of a position to its nearest counterpart, a map per level, are upsampled and averaged; the
   paper concatenates the levels.
3. The image score is the mean distance to the images looked up; it does not depend on the map.
"""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from stlib.methods.training_free import MemoryNetwork, MemoryRecipe, entry
from stlib.nn.backbone import CHANNELS, prepare
from stlib.nn.maps import Maps, resize, smooth, stack_levels
from stlib.nn.memory import nearest_distances, vectors
from stlib.protocol import DEMO_IMAGE_SIZE, Profile


class Config(MemoryRecipe):
    """SPADE's recipe."""

    batch_size: PositiveInt = 4
    neighbours: PositiveInt = 50
    """Good images that a test image is compared with; fewer where there are not as many."""


PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "demo": Config(image_size=DEMO_IMAGE_SIZE, neighbours=10),
}

VARIANTS: dict[str, dict[str, object]] = {"neighbours=5": {"neighbours": 5}}
"""What the common re-implementation takes."""


class Network(MemoryNetwork):
    """The teacher and its features of every good image."""

    remembered = ("level1", "level2", "level3")
    level1: Tensor
    level2: Tensor
    level3: Tensor
    """(N, C, h, w) each."""

    def __init__(self, config: Config, teacher: nn.Module | None = None) -> None:
        super().__init__(teacher)
        self.config = config
        for name, channels in zip(self.remembered, CHANNELS, strict=True):
            self.register_buffer(name, torch.zeros(1, channels, 1, 1))

    def remember(self, levels: list[Tensor], seed: int) -> None:  # noqa: ARG002 - nothing is drawn
        """Keep all features."""
        self.level1, self.level2, self.level3 = levels

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, a map of distances per level."""
        levels = self.teacher(prepare(images))
        good = self.level1, self.level2, self.level3
        mine, theirs = (level3.mean(dim=(2, 3)) for level3 in (levels[2], good[2]))
        away = (mine[:, None] - theirs).norm(dim=2)
        score, similar = away.topk(min(self.config.neighbours, len(good[2])), largest=False)
        distances = [_unmatched(*pair, similar) for pair in zip(levels, good, strict=True)]
        side = images.shape[-1]
        pixel = torch.cat([resize(d[:, None], side) for d in distances], dim=1).mean(dim=1)
        return Maps(stack_levels(distances), smooth(pixel), score.mean(dim=1))


def _unmatched(level: Tensor, good: Tensor, similar: Tensor) -> Tensor:
    """Of every position to the nearest one of all (B, K) `similar` images: (B, h, w)."""
    here = vectors(level)
    found = [nearest_distances(here, vectors(good[places])) for places in similar.T]
    return torch.stack(found).amin(dim=0).reshape(-1, *level.shape[-2:])


METHOD = entry("SPADE", PROFILES, Network, VARIANTS, score_apart=True)
