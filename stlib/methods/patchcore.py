"""PatchCore: Towards Total Recall in Industrial Anomaly Detection (Roth et al., CVPR 2022, arXiv:2106.08265).

A bank of the patch features of good images, thinned to a coreset; anomalous is what lies far from the bank.
With the ResNet-18 of this study instead of the paper's Wide ResNet-50, on whole images instead of centre
crops. Follows the official code (amazon-science/patchcore-inspection) where it and the paper differ:

1. Features are averaged over 3 x 3 positions and keep their 384 channels; the official code pools 1,536
   channels to 1,024, a step that ResNet-18 does not need.
2. The coreset is chosen on 128 random projections, from the mean distance to ten random patches on.
3. The image score is the distance of the farthest patch, without the weight of the paper's equation 7: the
   official code has none.
4. The map is upsampled bilinearly and smoothed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stlib.methods.training import generator
from stlib.methods.training_free import MemoryNetwork, MemoryRecipe, entry
from stlib.nn.backbone import CHANNELS, prepare
from stlib.nn.maps import Maps, fuse, resize, smooth
from stlib.nn.memory import nearest_distances, squared_distances, vectors
from stlib.protocol import DEMO_IMAGE_SIZE, Profile

STARTS = 10
"""Random patches whose mean distance starts the coreset."""
CANDIDATES = 512
"""Patches among which the coreset's next ones are looked for at once."""


class Config(MemoryRecipe):
    """PatchCore's recipe: 'PatchCore-10 %' of the paper's tables."""

    coreset: float = Field(0.1, gt=0, le=1)
    """Share of the patches that the bank keeps."""
    projection: PositiveInt = 128
    """Dimensions in which the coreset is chosen."""


PROFILES: dict[Profile, Config] = {"paper": Config(), "demo": Config(image_size=DEMO_IMAGE_SIZE)}

VARIANTS: dict[str, dict[str, object]] = {"coreset=1%": {"coreset": 0.01}}
"""The smaller bank of the paper's tables."""


class Network(MemoryNetwork):
    """The teacher and the bank."""

    remembered = ("bank",)
    bank: Tensor
    """(K, 384) patch features."""

    def __init__(self, config: Config, teacher: nn.Module | None = None) -> None:
        super().__init__(teacher)
        self.config = config
        self.register_buffer("bank", torch.zeros(1, sum(CHANNELS[1:])))

    def remember(self, levels: list[Tensor], seed: int) -> None:
        """Keep a coreset of all patches."""
        patches = vectors(_embedding(levels)).flatten(0, 1)
        random = generator(seed, 0)
        shape = (patches.shape[1], self.config.projection)
        projected = patches @ torch.randn(shape, generator=random).to(patches.device)
        count = max(int(len(patches) * self.config.coreset), 1)
        starts = torch.randperm(len(patches), generator=random)[:STARTS].to(patches.device)
        self.bank = patches[coreset(projected, count, starts)]

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, the distance of every patch to its nearest one in the bank."""
        embedding = _embedding(self.teacher(prepare(images)))
        side = embedding.shape[-1]
        distances = nearest_distances(vectors(embedding), self.bank).reshape(-1, side, side)
        layers = distances[:, None]
        return Maps(layers, smooth(fuse(layers, images.shape[-1])), distances.amax(dim=(1, 2)))


def _embedding(levels: Sequence[Tensor]) -> Tensor:
    """Levels 2 and 3 on the grid of level 2: (B, 384, S / 8, S / 8)."""
    second, third = (F.avg_pool2d(level, 3, stride=1, padding=1) for level in levels[1:])
    return torch.cat([second, resize(third, second.shape[-1])], dim=1)


def coreset(points: Tensor, count: int, starts: Tensor) -> Tensor:
    """Indices (count,) of a greedy cover of (N, D) `points`: each next one is the farthest from those before.

    The first distances are the means to the points `starts`. The order is that of the plain algorithm, which
    goes over all points for each that it selects. Distances only shrink: while the best of a few candidates
    lies beyond all others, it is the farthest of all, and those others wait for one matrix product.
    """
    apart = torch.cdist(points, points[starts]).mean(dim=1).square()
    selected: list[Tensor] = []
    while (missing := count - sum(map(len, selected))) > 0:
        distances, candidates = apart.topk(min(CANDIDATES + 1, len(points)))
        beyond = distances[-1].item() if len(points) > CANDIDATES else -1.0
        among = squared_distances(points[candidates], points[candidates]).cpu()
        apart_here = distances.cpu()
        chosen: list[int] = []
        while len(chosen) < missing:
            best = int(apart_here.argmax())
            if chosen and apart_here[best] < beyond:
                break
            chosen.append(best)
            apart_here = torch.minimum(apart_here, among[best])
            apart_here[best] = -torch.inf  # never twice, not even where all points are equal
        added = candidates[chosen]
        selected.append(added)
        apart = torch.minimum(apart, squared_distances(points, points[added]).amin(dim=1))
        apart[added] = -torch.inf
    return torch.cat(selected)


METHOD = entry("PatchCore", PROFILES, Network, VARIANTS)
