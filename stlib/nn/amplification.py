"""AAND's residual, which makes anomalies stand out (arXiv:2405.02068)."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """What is added to one level: gate * tanh(values) * features."""

    position: Tensor

    def __init__(self, channels: int, side: int, keys: int, temperature: float) -> None:
        super().__init__()
        self.keys_of_each, self.temperature = keys, temperature
        hidden = min(2 * channels, 1024)
        self.query, self.values = (_perceptron(channels, hidden) for _ in range(2))
        self.keys = nn.Parameter(torch.randn(2 * keys, channels))
        self.register_buffer("position", _position(channels, side), persistent=False)

    def forward(self, level: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> the residual, and the gate (B, h, w) in [0, 1], which a `mask` may replace."""
        query = self.query(level + self.position).float()
        with torch.autocast(level.device.type, enabled=False):  # a bfloat16 gate reaches 1, its loss infinity
            alike = torch.einsum("bchw,kc->bkhw", F.normalize(query, dim=1), F.normalize(self.keys, dim=1))
            gate = (alike / self.temperature).softmax(dim=1)[:, self.keys_of_each :].sum(dim=1)
        used = gate if mask is None else mask.float()
        return used[:, None] * self.values(level).float().tanh() * level, gate


def _perceptron(channels: int, hidden: int) -> nn.Sequential:
    sizes = (channels, hidden, hidden, channels)
    layers = [nn.Conv2d(before, after, 1) for before, after in pairwise(sizes)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _position(channels: int, side: int) -> Tensor:
    """(C, side, side): sines and cosines of the column in the first half of the channels, then of the row."""
    half = channels // 2
    rates = torch.exp(torch.arange(0.0, half, 2) * -(math.log(1e4) / half))
    waves = torch.arange(float(side)) * rates[:, None]
    line = torch.stack([waves.sin(), waves.cos()], dim=1).flatten(0, 1)  # (C / 2, side), in turn
    columns, rows = line[:, None, :], line[:, :, None]
    return torch.cat([part.expand(half, side, side) for part in (columns, rows)])
