"""The building blocks of DeSTSeg and PFADSeg under their papers' names.

PFADSeg (arXiv:2501.12104) builds on DeSTSeg (Zhang et al., CVPR 2023) and swaps three parts: RCM for ASPP,
AFF for the shortcut's addition, PCAR for the second convolution of a residual block. No code is published;
where the text is silent, the docstring names the choice made here. B images, C channels, H x W positions.
"""

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, PositiveFloat
from torch import Tensor, nn
from torchvision.models.resnet import conv3x3
from torchvision.ops import Conv2dNormActivation

Recalibration = Literal["none", "pcar", "maps", "channels", "control"]
"""Second convolution of a block: one 3x3; PCAR, its softmax over the branches' attention; two other readings
of its equations 6 to 8, a softmax over the branches' maps or over all their channels; or the plain sum."""


class Design(BaseModel, frozen=True, extra="forbid"):
    """Which of PFADSeg's modules are in the networks; the defaults are DeSTSeg. Recipes extend it."""

    zero_init: bool = True
    """Start the last BatchNorm of the student's encoder blocks at 0, as timm does for DeSTSeg."""
    rcm: bool = False
    """RCM in place of ASPP."""
    aff: bool = False
    """AFF in place of the shortcut's addition, in student and segmentation net."""
    pcar: Recalibration = "none"
    """PCAR in place of the blocks' second convolution, in student and segmentation net."""
    dilations: tuple[int, int, int] = (1, 1, 1)
    """Of PCAR's branches: the text says 'multi-scale' and gives no kernel sizes."""
    layer_scale: PositiveFloat = 1e-6
    """Initial LayerScale of RCM, as released with CGRSeg; under SGD it keeps RCM near the identity."""
    aff_factor: PositiveFloat = 2.0
    """Of AFF's weighted sum: 2 in the released code, 1 in the paper's formula."""
    segmentation_modules: bool = True
    """AFF and PCAR in the segmentation net's residual blocks too, not in the student's alone."""
    width: float = Field(1.0, ge=0.25, exclude_if=lambda value: value == 1)
    """Channels of student and segmentation net as a share of the papers'; the demo takes fewer. Left out
    where it is 1, as in earlier records."""


def average(features: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, H, W) -> (B, C, rows, columns): adaptive average pooling, as a product with a constant matrix.

    The gradient of PyTorch's own pooling to one cell is not channels-last: every sum of gradients after it
    would mix two layouts, which costs more than the convolutions.
    """
    height, width = features.shape[2:]
    weights: Tensor = _weights((height, width), (rows, columns), features.device, features.dtype)
    positions = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C), a view where channels are last
    averages: Tensor = weights @ positions
    return averages.transpose(1, 2).reshape(-1, features.shape[1], rows, columns)


Sides = tuple[int, int]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _weights(sides: Sides, cells: Sides, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What `_made` makes, a constant for compilers; in an export tensors are stand-ins, and none is kept."""
    make = _made.__wrapped__ if torch.compiler.is_exporting() else _made
    return make(sides, cells, device, dtype)


@cache  # made anew, it would stop a GPU for a copy at every call
def _made(sides: Sides, cells: Sides, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(cells, positions): how much each position of a map of `sides` counts in the average of each cell."""
    with torch.inference_mode(False):  # made in inference mode, a training could not use it
        rows, columns = map(_cells, sides, cells)
        return torch.kron(rows, columns).to(device, dtype)


def _cells(length: int, count: int) -> Tensor:
    """(count, length): how much each position counts in the average of each cell."""
    return F.adaptive_avg_pool1d(torch.eye(length), count).T.contiguous()


class AFF(nn.Module):
    """Attentional feature fusion with MS-CAM weights (Dai et al., WACV 2021, eqs. 1-4)."""

    def __init__(self, channels: int, *, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor
        self.local_context = self._attention(channels)
        self.global_context = self._attention(channels)

    @staticmethod
    def _attention(channels: int) -> nn.Sequential:
        hidden = channels // 4  # r, as released
        return nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """Two (B, C, H, W) -> their weighted sum. Needs B > 1 in training: BatchNorm sees 1x1 maps.

        Factor 2, in the released code and not in the paper, makes weight 0.5 equal to a plain addition.
        """
        total = residual + shortcut
        context = self.local_context(total) + self.global_context(average(total, 1, 1))
        weight, dtype = torch.sigmoid(context), total.dtype  # on a GPU autocast leaves two dtypes
        fused: Tensor = self.factor * torch.lerp(shortcut.to(dtype), residual.to(dtype), weight.to(dtype))
        return fused


class SPR(nn.Module):
    """Spatial pyramid recalibration: attention from 1x1 and 2x2 averages (MSPANet, Yu et al., 2024)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16  # as in MSPANet's code
        self.squeeze = nn.Conv2d(5 * channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> attention in (0, 1), (B, C, 1, 1)."""
        pooled = torch.cat([average(features, side, side).flatten(1) for side in (1, 2)], dim=1)
        hidden = F.relu(self.squeeze(pooled[..., None, None]))  # (B, 5C, 1, 1) -> (B, C/16, 1, 1)
        return torch.sigmoid(self.excite(hidden))


class PCAR(nn.Module):
    """Parallel convolutional attention recalibration (PFADSeg, section 3.2, eqs. 5-9).

    Three 3x3 convolutions, each with BatchNorm as in MSPANet; one SPR for all branches. `form` 'pcar' is
    MSPANet's: a softmax over the branches for every channel weighs them. 'maps' and 'channels' take the text
    at its word: SPR scales the branches, and a softmax over the scaled maps, at every position, weighs these:
    over the three branches of a channel, or over all 3C channels. 'control' sums the branches.
    """

    def __init__(
        self, channels: int, *, form: Recalibration = "pcar", dilations: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.form = form
        self.branches = nn.ModuleList(
            nn.Sequential(conv3x3(channels, channels, dilation=d), nn.BatchNorm2d(channels))
            for d in dilations
        )
        self.spr = None if form == "control" else SPR(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # never stacked: a stack of (B, C, H, W) maps is not channels-last, and neither is its gradient
        maps = [branch(features) for branch in self.branches]
        if self.spr is None:
            total: Tensor = maps[0] + maps[1] + maps[2]
            return total
        attention = [self.spr(branch) for branch in maps]  # (B, C, 1, 1) each
        if self.form != "pcar":
            attention = maps = [branch * scale for branch, scale in zip(maps, attention, strict=True)]
        if self.form == "channels":
            first, second, third = torch.cat(attention, dim=1).softmax(dim=1).chunk(3, dim=1)
        else:
            first, second, third = torch.stack(attention, dim=1).softmax(dim=1).unbind(1)
        return torch.addcmul(torch.addcmul(maps[0] * first, maps[1], second), maps[2], third)


class ResidualBlock(nn.Module):
    """ResNet's basic block; with PCAR and AFF it is PFADSeg's PA block (Fig. 3)."""

    def __init__(self, inputs: int, outputs: int, design: Design, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2: nn.Module = conv3x3(outputs, outputs)
        if design.pcar != "none":
            self.conv2 = PCAR(outputs, form=design.pcar, dilations=design.dilations)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.fusion = AFF(outputs, factor=design.aff_factor) if design.aff else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        shortcut = self.shortcut(features)
        return F.relu(self.fusion(residual, shortcut) if self.fusion else residual + shortcut)


def stage(inputs: int, outputs: int, design: Design, *, stride: int = 1) -> nn.Sequential:
    """Two residual blocks; the first one changes channels and resolution."""
    return nn.Sequential(
        ResidualBlock(inputs, outputs, design, stride=stride), ResidualBlock(outputs, outputs, design)
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling as DeSTSeg uses it: image average and 3x3 at dilations 6, 12, 18."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pooled = Conv2dNormActivation(channels, channels, 1)
        self.atrous = nn.ModuleList(
            Conv2dNormActivation(channels, channels, 3, dilation=d) for d in (6, 12, 18)
        )
        self.project = Conv2dNormActivation(4 * channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled = self.pooled(average(features, 1, 1)).expand_as(features)
        joined: Tensor = self.project(
            torch.cat([pooled, *(branch(features) for branch in self.atrous)], dim=1)
        )
        return joined


class RCM(nn.Module):
    """Rectangular self-calibration module (Ni et al., CGRSeg, 2024): x + gamma * MLP(BN(RCA(x)))."""

    def __init__(self, channels: int, *, layer_scale: float = 1e-6) -> None:
        super().__init__()
        strip, hidden = 11, 2 * channels  # as in CGRSeg's code

        def depthwise(kernel: tuple[int, int]) -> nn.Conv2d:
            padding = (kernel[0] // 2, kernel[1] // 2)
            return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)

        self.local = depthwise((3, 3))
        self.rectangle = nn.Sequential(
            depthwise((1, strip)), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), depthwise((strip, 1))
        )
        self.norm = nn.BatchNorm2d(channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), layer_scale))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        rows = average(features, features.shape[2], 1)
        columns = average(features, 1, features.shape[3])
        attention = torch.sigmoid(self.rectangle(rows + columns))  # the sum spans H x W
        calibrated = attention * self.local(features)
        update: Tensor = self.mlp(self.norm(calibrated))
        return features + self.gamma * update


def initialise(network: nn.Module) -> None:
    """Kaiming-normal (fan out, ReLU) for convolutions, 1 and 0 for BatchNorm, 0 for biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
