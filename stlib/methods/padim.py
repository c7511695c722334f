"""PaDiM: a Patch Distribution Modeling Framework (Defard et al., ICPR 2020, arXiv:2011.08785).

A Gaussian per position of the image over random channels of the teacher's features; anomalous is what lies
far from its mean in units of its covariance. The paper's 'R18-Rd100': its own backbone is ResNet-18. There is
no official code; where the paper is silent, xiahaifeng1995's decides:

1. Levels 2 and 3 are brought to the grid of level 1 by repeating their values.
2. The covariance divides by N - 1 and has 0.01 added to its diagonal (the paper's epsilon).
3. The image score is the maximum of the smoothed map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from stlib.methods.training import generator
from stlib.methods.training_free import MemoryNetwork, MemoryRecipe, entry
from stlib.nn.backbone import CHANNELS, prepare
from stlib.nn.maps import Maps, fuse, max_score, smooth
from stlib.protocol import DEMO_IMAGE_SIZE, Profile


class Config(MemoryRecipe):
    """PaDiM's recipe, with ResNet-18."""

    channels: PositiveInt = 100
    """Of the 448, drawn at random."""
    epsilon: PositiveFloat = 0.01
    """Added to the diagonal of every covariance."""


PROFILES: dict[Profile, Config] = {"paper": Config(), "demo": Config(image_size=DEMO_IMAGE_SIZE)}


class Network(MemoryNetwork):
    """The teacher and a Gaussian per position."""

    remembered = ("mean", "whitening")
    chosen: Tensor
    """(D,) the channels."""
    mean: Tensor
    """(P, D), P positions of the finest level."""
    whitening: Tensor
    """(P, D, D) inverse Cholesky factors: they turn a difference into one whose length is Mahalanobis'."""

    def __init__(self, config: Config, teacher: nn.Module | None = None) -> None:
        super().__init__(teacher)
        self.config = config
        self.register_buffer("chosen", torch.arange(config.channels))
        self.register_buffer("mean", torch.zeros(1, config.channels))
        self.register_buffer("whitening", torch.eye(config.channels)[None])

    def remember(self, levels: list[Tensor], seed: int) -> None:
        """Draw the channels, and take their mean and covariance at every position."""
        drawn = torch.randperm(sum(CHANNELS), generator=generator(seed, 0))[: self.config.channels]
        self.chosen = drawn.sort().values.to(levels[0].device)
        seen = self._embedding(levels)
        self.mean = seen.mean(dim=1)
        apart = seen - self.mean[:, None]
        covariance = apart.mT @ apart / max(seen.shape[1] - 1, 1)
        unit = torch.eye(self.config.channels, device=seen.device)
        factor = torch.linalg.cholesky(covariance + self.config.epsilon * unit)
        inverse = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        self.whitening = inverse.contiguous()  # as a loaded one is: another layout adds in another order

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, Mahalanobis distances."""
        levels = self.teacher(prepare(images))
        apart = self._embedding(levels) - self.mean[:, None]
        distances = (apart @ self.whitening.mT).norm(dim=2)
        layers = distances.mT.reshape(-1, 1, *levels[0].shape[-2:])
        pixel = smooth(fuse(layers, images.shape[-1]))
        return Maps(layers, pixel, max_score(pixel))

    def _embedding(self, levels: Sequence[Tensor]) -> Tensor:
        """The chosen channels of all levels on the grid of the first: (P, B, D)."""
        side = levels[0].shape[-1]
        everything = torch.cat([F.interpolate(level, size=(side, side)) for level in levels], dim=1)
        return everything[:, self.chosen].flatten(2).permute(2, 0, 1).contiguous()


METHOD = entry("PaDiM", PROFILES, Network, {})
