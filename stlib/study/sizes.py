"""How large the networks are: trainable parameters, counted on networks without memory."""

import torch
from torch import nn

from stlib.methods import entry
from stlib.methods.destseg import Config
from stlib.nn.backbone import ResNet18Pyramid
from stlib.nn.denoising import DenoisingStudent, SegmentationNet
from stlib.study.ablation import ROWS


def trainable(*networks: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for network in networks for p in network.parameters() if p.requires_grad)


def ablation_parameters() -> dict[str, int]:
    """Trainable parameters (student and segmentation net) of every row of the ablation."""
    return {label: _of("pfadseg", variant) for label, variant in ROWS.items()}


def parameters(method: str) -> int:
    """Trainable parameters of a method as published."""
    if method in ("stpm", "et_stpm"):
        with torch.device("meta"):
            return trainable(ResNet18Pyramid())
    return _of(method, "")


def _of(method: str, variant: str) -> int:
    config = entry(method).recipe("paper", variant)
    if not isinstance(config, Config):
        raise TypeError(f"{method} has no segmentation net")
    with torch.device("meta"):
        return trainable(DenoisingStudent(config.design()), SegmentationNet(config.design()))
