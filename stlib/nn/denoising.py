"""DeSTSeg's two trained networks, with PFADSeg's modules as switches, and what is deployed of both.

DeSTSeg: Zhang et al., CVPR 2023, section 3.2-3.3, resolved by its code. PFADSeg: arXiv:2501.12104, section 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import conv3x3

from stlib.nn.backbone import CHANNELS, Pyramid, prepare
from stlib.nn.blocks import ASPP, RCM, Design, ResidualBlock, initialise, stage
from stlib.nn.losses import cosine_distances, l2_normalize
from stlib.nn.maps import Maps, resize, stack_levels, top_score


class DenoisingStudent(nn.Module):
    """Encoder-decoder that sees the corrupted image and reproduces the teacher's features of the clean one.

    Encoder: ResNet-18 with all four stages; only its last output feeds the decoder, nothing skips ahead.
    Decoder: the stages in reverse at stride 1, with bilinear upsampling by 2 in front of all but the first.
    At another width than the papers', 1x1 convolutions lead to the teacher's channels.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        first, second, third, fourth = (round(design.width * channels) for channels in (64, 128, 256, 512))
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.encoder = nn.Sequential(
            stage(first, first, design),
            stage(first, second, design, stride=2),
            stage(second, third, design, stride=2),
            stage(third, fourth, design, stride=2),
        )
        self.decoder = nn.ModuleList(
            stage(inputs, outputs, design)
            for inputs, outputs in ((fourth, fourth), (fourth, third), (third, second), (second, first))
        )
        self.widen = nn.ModuleList(
            nn.Identity() if design.width == 1 else nn.Conv2d(channels, taught, 1)
            for channels, taught in zip((third, second, first), (256, 128, 64), strict=True)
        )
        initialise(self)
        if design.zero_init:
            for block in self.encoder.modules():
                if isinstance(block, ResidualBlock):
                    nn.init.zeros_(block.bn2.weight)

    def forward(self, images: Tensor) -> Pyramid:
        """(B, 3, H, W) -> features shaped like the teacher's: strides 4, 8, 16 with 64, 128, 256 channels."""
        x = self.decoder[0](self.encoder(self.stem(images)))
        features = []
        for level, widen in zip(list(self.decoder)[1:], self.widen, strict=True):
            x = level(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            features.append(widen(x))
        coarse, middle, fine = features
        return fine, middle, coarse


class SegmentationNet(nn.Module):
    """Reads where teacher and student disagree; learns from synthetic masks."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        width = round(design.width * 256)
        blocks = design if design.segmentation_modules else Design()
        self.residual = nn.Sequential(
            ResidualBlock(sum(CHANNELS), width, blocks), ResidualBlock(width, width, blocks)
        )
        initialise(self)
        # The head keeps PyTorch's default initialisation: DeSTSeg's code creates it after its init loop.
        context: nn.Module = RCM(width, layer_scale=design.layer_scale) if design.rcm else ASPP(width)
        self.head = nn.Sequential(
            context,
            conv3x3(width, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, similarity: Tensor) -> Tensor:
        """(B, 448, H/4, W/4) from `similarity_features` -> logits (B, H/4, W/4) of 'anomalous'."""
        logits: Tensor = self.head(self.residual(similarity))
        return logits[:, 0]


def similarity_features(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Elementwise products of the channel-normalised features, joined at stride 4: (B, 448, H/4, W/4).

    PFADSeg, eq. 2, before the sum over channels. DeSTSeg's code feeds the negative product; a sign is free.
    """
    size = teacher[0].shape[-2:]
    products = [l2_normalize(t) * l2_normalize(s) for t, s in zip(teacher, student, strict=True)]
    return torch.cat([F.interpolate(p, size, mode="bilinear", align_corners=False) for p in products], dim=1)


class Network(nn.Module):
    """Teacher, denoising student and segmentation net as they are deployed."""

    def __init__(
        self, teacher: nn.Module, student: DenoisingStudent, segmentation: SegmentationNet, top: int
    ) -> None:
        super().__init__()
        self.teacher, self.student, self.segmentation, self.top = teacher, student, segmentation, top

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, in fp32; the layers are the student's distances."""
        x = prepare(images)
        taught, imitated = self.teacher(x), self.student(x)
        logits = self.segmentation(similarity_features(taught, imitated)).float()
        probability = torch.sigmoid(logits)
        pixel = resize(probability[:, None], images.shape[-1])[:, 0]
        return Maps(stack_levels(cosine_distances(taught, imitated)), pixel, top_score(pixel, self.top))
