"""What detectors without training are made of: distances to remembered features.

Not `torch.cdist`: a network with it cannot be exported to ONNX for any number of images.
"""

import torch
from torch import Tensor

CHUNK = 512
"""Remembered vectors per matrix product: enough to be fast, and no table of all distances in memory."""


def nearest_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """Euclidean distances of (..., M, D) vectors to the nearest of (..., N, D): (..., M)."""
    # one more dimension, so that the product itself is |b|^2 - 2 ab: tables of distances are slow to go over
    longer = torch.cat([-2 * queries, torch.ones_like(queries[..., :1])], dim=-1)
    squares = bank.square().sum(-1, keepdim=True)
    parts = torch.cat([bank, squares], dim=-1).split(CHUNK, dim=-2)  # type: ignore[no-untyped-call]
    found = torch.stack([(longer @ part.mT).amin(-1) for part in parts]).amin(0)
    return (found + queries.square().sum(-1)).clamp(min=0).sqrt()


def squared_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """Of all pairs of (..., M, D) and (..., N, D) vectors: (..., M, N); rounding may take one below zero."""
    squares = [some.square().sum(-1) for some in (queries, bank)]
    return squares[0][..., None] + squares[1][..., None, :] - 2 * (queries @ bank.mT)


def vectors(level: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C): one vector per position."""
    return level.flatten(2).mT
