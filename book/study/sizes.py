"""How large the networks are: trainable parameters, counted on networks without memory."""

from functools import cache

import torch

from stlib.methods import pfadseg
from stlib.methods.destseg import Config
from stlib.nn.denoising import DenoisingStudent, SegmentationNet
from stlib.protocol import ABLATION_ROWS


@cache  # a second or two
def ablation_parameters() -> dict[str, int]:
    """Trainable parameters (student and segmentation net) of every row of the ablation."""
    return {label: _trainable(variant) for label, variant in ABLATION_ROWS.items()}


def _trainable(variant: str) -> int:
    config = pfadseg.METHOD.recipe("paper", variant)
    assert isinstance(config, Config)
    with torch.device("meta"):
        networks = DenoisingStudent(config), SegmentationNet(config)
    return sum(p.numel() for network in networks for p in network.parameters())
