"""RD4AD: Anomaly Detection via Reverse Distillation from One-Class Embedding (Deng and Li, CVPR 2022).

arXiv:2201.10703. The student never sees the image: it rebuilds the teacher's features, coarse to fine, from a
narrow code of them. With the ResNet-18 of this study instead of the paper's Wide ResNet-50. What the paper
and the official code (hq-deng/RD4AD) say, and which of them decides:

1. The loss compares the features of a level as one long vector. Source: code; the paper's equation 2 does so
   per position.
2. The levels' maps are summed and smoothed; the image score is the maximum. Source: both.
3. The code tests, prints and saves every tenth epoch, each over the one before; the last is tested here.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

from stlib.methods.entry import Method, MethodEntry
from stlib.methods.training import Execution, Recipe, Resumable, descend, generator, seeded
from stlib.nn.backbone import CHANNELS, ResNet18Pyramid, features, prepare
from stlib.nn.blocks import initialise
from stlib.nn.losses import Loss, flat_cosine_loss
from stlib.nn.maps import Maps, max_score, smooth, stack_levels
from stlib.protocol import DEMO_IMAGE_SIZE, Profile
from stlib.records.schema import History


class Config(Recipe):
    """RD4AD's recipe; the defaults are the paper's section 4.1 and the official code's."""

    epochs: PositiveInt = 200
    batch_size: PositiveInt = 16
    """Images per step; the last, smaller batch of an epoch is kept."""
    learning_rate: PositiveFloat = 0.005
    """Adam's."""
    betas: tuple[float, float] = (0.5, 0.999)


PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config(epochs=20),
    "demo": Config(image_size=DEMO_IMAGE_SIZE, epochs=20, batch_size=8),
}


class Student(nn.Module):
    """The bottleneck, which fuses and narrows the teacher's levels, and a ResNet-18 upside down."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = CHANNELS
        code = 2 * coarse
        self.down1 = nn.Sequential(
            Conv2dNormActivation(fine, middle, 3, 2), Conv2dNormActivation(middle, coarse, 3, 2)
        )
        self.down2 = Conv2dNormActivation(middle, coarse, 3, 2)
        shortcut = nn.Sequential(nn.Conv2d(3 * coarse, code, 1, 2, bias=False), nn.BatchNorm2d(code))
        self.embedding = nn.Sequential(BasicBlock(3 * coarse, code, 2, shortcut), BasicBlock(code, code))
        sizes = (code, coarse, middle, fine)
        self.decoder = nn.ModuleList(
            nn.Sequential(_doubled(*pair), BasicBlock(pair[1], pair[1])) for pair in pairwise(sizes)
        )
        initialise(self)  # transposed convolutions stay as PyTorch starts them: as in the code

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's three levels -> the student's, of the same shapes."""
        first, second, third = levels
        x = self.embedding(torch.cat([self.down1(first), self.down2(second), third], dim=1))
        rebuilt = [x := stage(x) for stage in self.decoder]
        return rebuilt[::-1]


def _doubled(before: int, after: int) -> BasicBlock:
    """A residual block that doubles the side: its strided convolutions are transposed ones."""

    def up() -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(before, after, 2, 2, bias=False)

    block = BasicBlock(after, after, downsample=nn.Sequential(up(), nn.BatchNorm2d(after)))
    block.conv1 = up()
    return block


class Network(nn.Module):
    """Teacher and student as they are deployed."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, in fp32."""
        levels = self.teacher(prepare(images))
        pairs = zip(levels, self.student(levels), strict=True)
        distances = [1 - F.cosine_similarity(taught, rebuilt) for taught, rebuilt in pairs]
        side = images.shape[-1]
        shown = [F.interpolate(d[:, None], side, mode="bilinear", align_corners=True) for d in distances]
        pixel = smooth(torch.cat(shown, dim=1).sum(dim=1))
        return Maps(stack_levels(distances), pixel, max_score(pixel))


def empty_network(_config: Recipe) -> Network:
    """A network that waits for trained weights."""
    return Network(ResNet18Pyramid(), Student())


class RD4AD(Method):
    """A teacher and a student that runs from its coarse features to its fine ones."""

    def __init__(self, config: Config, teacher: nn.Module, execution: Execution) -> None:
        super().__init__(execution, config.batch_size)
        self.config = config
        self.teacher = execution.place(teacher)
        self.student = Student()

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train the student on (N, 3, S, S) uint8 normal images; the last epoch's weights are in use."""
        # nothing is augmented, so the teacher sees every image once, not once per epoch
        taught = features(self.teacher, train.to(self.execution.device), self.config.batch_size)
        with seeded(seed):
            student = Student()  # on the CPU, so that every device starts from the same weights
        self.student = self.execution.place(student)
        training = Training(self.student, self.config, self.execution)
        for epoch in range(len(training.losses), self.config.epochs):
            training.run_epoch(taught, torch.randperm(len(train), generator=generator(seed, epoch)))
        self.snapshots = {"last": self.student.state_dict()}
        steps = self.config.epochs * math.ceil(len(train) / self.config.batch_size)
        return History(
            steps=steps,
            images_seen=self.config.epochs * len(train),
            curves={"train_loss": training.losses},
            selected={"epoch": self.config.epochs},
        )

    @property
    def network(self) -> Network:
        """What is deployed."""
        return Network(self.teacher, self.student)


class Training(Resumable):
    """The student's training, epoch by epoch."""

    kept: ClassVar[tuple[str, ...]] = ("student", "optimiser", "losses")

    def __init__(
        self, student: Student, config: Config, execution: Execution, loss: Loss = flat_cosine_loss
    ) -> None:
        self.student, self.config, self.execution, self.loss = student, config, execution, loss
        self.optimiser = torch.optim.Adam(student.parameters(), lr=config.learning_rate, betas=config.betas)
        self.losses: list[float] = []
        self.resume()

    def run_epoch(self, taught: list[Tensor], order: Tensor) -> None:
        """One pass over the images of `order`; offers a checkpoint and reports progress."""
        self.student.train()
        total = torch.zeros((), device=taught[0].device)
        for index in torch.split(order.to(taught[0].device), self.config.batch_size):
            levels = [level[index] for level in taught]
            with self.execution.autocast():
                rebuilt = self.student(levels)
            loss = self.loss(levels, rebuilt)
            descend(self.optimiser, loss)
            total += loss.detach() * len(index)
        mean = total.item() / len(order)
        if not math.isfinite(mean):
            raise FloatingPointError(f"epoch {len(self.losses) + 1}: training loss {mean}")
        self.losses.append(mean)
        self.offer()
        self._report(f"loss {mean:.4f}")

    def _report(self, state: str) -> None:
        self.execution.progress(len(self.losses), self.config.epochs, state)


METHOD = MethodEntry("RD4AD", PROFILES, RD4AD, empty_network)
