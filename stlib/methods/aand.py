"""AAND: Advancing Pre-trained Teacher (Tang, Zhou, Li, Dong, Wang, arXiv:2405.02068, 2024).

RD4AD (methods/rd4ad.py) whose teacher learns first to exaggerate what is anomalous: a residual per level,
gated by how much a position resembles learnt keys of anomalies, trained on synthetic ones; its student's loss
counts the hardest positions twice. With the ResNet-18 of this study instead of the paper's Wide ResNet-50.
Written from the paper and from what the published code (Hui-design/AAND, without a licence) does; where they
differ, the code decides:

1. The trunk stays as it is, and a level's residual is not fed to the next one.
2. In stage 1 the mask of the synthetic anomaly stands in for the gate; the gate learns by a focal loss.
3. Both rates fall to a fifth after 80 and after 90 % of the epochs.
4. The code tests every fifth epoch, keeps the teacher whose gates are most precise on the test masks and the
   student with the best sum of both AUROCs, and ends a stage at an image AUROC of 1.000. Here both stages run
   to their last epoch: nothing is selected on test images.
5. Foregrounds: the code's thresholds per category, on the resized image, blurred like pictures of 1,024
   pixels; textures, transistor and own parts are foreground throughout.
6. A shape that misses the foreground is drawn again, up to ten times; then one image in five stays clean.
   Shapes and textures are those of `stlib.data.synthesis`. The code draws a shape again with the same
   cells, changes each texture by three of ten augmentations, and reads it with red and blue swapped.
7. Images are resized bilinearly, as everywhere in this study; the code's filter is bicubic.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur, rgb_to_grayscale

from stlib.data.synthesis import AnomalySynthesis, Synthetic
from stlib.methods import rd4ad
from stlib.methods.entry import MethodEntry
from stlib.methods.rd4ad import RD4AD, Network, Student
from stlib.methods.training import Execution, Recipe, descend, generator, seeded
from stlib.nn.amplification import Residual
from stlib.nn.backbone import CHANNELS, Pyramid, ResNet18Pyramid, features, normalise
from stlib.nn.losses import flat_cosine_loss, gate_loss
from stlib.protocol import DEMO_IMAGE_SIZE, Profile
from stlib.records.schema import History

CLEAN = 0.2
"""Share of the images of stage 1 that get no anomaly."""
REDRAWS, MISSED = 10, 4
"""How often a shape is drawn again of which at most so many pixels lie in the foreground."""
ABOVE, BELOW = 50, 150
"""Grey levels of the code's foregrounds."""
SAMPLED = (5000, 1000)
"""Most normal and most anomalous positions of a batch and level that the amplification compares."""


class Config(rd4ad.Config):
    """AAND's recipe; the defaults are the published code's."""

    epochs: PositiveInt = 120
    """Of stage 2, in which the student learns."""
    teacher_epochs: PositiveInt = 100
    """Of stage 1, in which the residuals learn."""
    keys: PositiveInt = 50
    """Learnt directions of normal positions per level, and as many of anomalous ones."""
    temperature: PositiveFloat = 0.2
    margin: PositiveFloat = 0.3
    """By which an anomaly's cosine to normal positions has to fall."""
    amplify: PositiveFloat = 0.1
    """Weight of the amplification beside the focal loss."""
    hardest: PositiveInt = 10
    """Positions per image and level whose distance the student's loss adds."""


PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config(epochs=12, teacher_epochs=10),
    "demo": Config(image_size=DEMO_IMAGE_SIZE, epochs=12, teacher_epochs=10, batch_size=8),
}


class AdvancedTeacher(nn.Module):
    """The frozen teacher and its residuals."""

    def __init__(self, teacher: nn.Module, config: Config) -> None:
        super().__init__()
        self.teacher = teacher
        sides = (config.image_size // shrink for shrink in (4, 8, 16))
        pairs = zip(CHANNELS, sides, strict=True)
        self.residuals = nn.ModuleList(
            Residual(channels, side, config.keys, config.temperature) for channels, side in pairs
        )

    def forward(self, images: Tensor) -> Pyramid:
        """As `ResNet18Pyramid`, amplified."""
        first, second, third = self.amplified(self.teacher(images))[0]
        return first, second, third

    def amplified(
        self, levels: Sequence[Tensor], masks: Sequence[Tensor | None] = (None, None, None)
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The levels with their residuals, and the gates; `masks` stand in for the gates."""
        found = [part(level, mask) for part, level, mask in zip(self.residuals, levels, masks, strict=True)]
        return [level + added for level, (added, _) in zip(levels, found, strict=True)], [g for _, g in found]


def empty_network(config: Recipe) -> Network:
    """A network that waits for trained weights."""
    assert isinstance(config, Config)
    return Network(AdvancedTeacher(ResNet18Pyramid(), config), Student())


class AAND(RD4AD):
    """RD4AD on a teacher that was trained first."""

    config: Config

    def __init__(
        self, config: Config, teacher: nn.Module, execution: Execution, synthesis: AnomalySynthesis
    ) -> None:
        super().__init__(config, teacher, execution)
        self.textures, self.category = synthesis.textures, synthesis.category

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Both stages on (N, 3, S, S) uint8 normal images; the last epoch's weights are in use."""
        images = train.to(self.execution.device)
        with seeded(seed):
            advanced, student = AdvancedTeacher(self.teacher, self.config), Student()
        advanced, self.student = self.execution.place(advanced), self.execution.place(student)
        training = Training(advanced, self.student, self.config, self.execution)
        synthesis = AnomalySynthesis(self.textures, "")  # no category: nothing is rotated
        front = foreground(images, self.category)
        for epoch in range(len(training.curves["focal_loss"]), self.config.teacher_epochs):
            training.run_teacher_epoch(images, front, synthesis, seed, epoch)
        self.teacher = advanced.eval().requires_grad_(False)
        taught = features(self.teacher, images, self.config.batch_size)
        for epoch in range(len(training.losses), self.config.epochs):
            training.run_epoch(
                taught,
                torch.randperm(len(train), generator=generator(seed, self.config.teacher_epochs + epoch)),
            )
        self.snapshots = {"last": self.student.state_dict()}
        epochs = self.config.teacher_epochs + self.config.epochs
        return History(
            steps=epochs * math.ceil(len(train) / self.config.batch_size),
            images_seen=epochs * len(train),
            curves=training.curves | {"train_loss": training.losses},
            selected={"epoch": self.config.epochs},
        )


class Training(rd4ad.Training):
    """The residuals' training, then the student's, epoch by epoch."""

    kept: ClassVar[tuple[str, ...]] = (*rd4ad.Training.kept, "residuals", "first_optimiser", "curves")
    config: Config

    def __init__(
        self, advanced: AdvancedTeacher, student: Student, config: Config, execution: Execution
    ) -> None:
        self.advanced, self.residuals = advanced, advanced.residuals
        self.first_optimiser = torch.optim.Adam(
            self.residuals.parameters(), lr=config.learning_rate, betas=config.betas
        )
        self.curves: dict[str, list[float]] = {"focal_loss": [], "amplification_loss": []}
        super().__init__(student, config, execution, self._hard_loss)

    def run_teacher_epoch(
        self, images: Tensor, front: Tensor, synthesis: AnomalySynthesis, seed: int, epoch: int
    ) -> None:
        """One pass of stage 1 over (N, 3, S, S) uint8 images with (N, S, S) bool foregrounds."""
        self._set_rate(self.first_optimiser, epoch, self.config.teacher_epochs)
        random = generator(seed, epoch)
        order = torch.randperm(len(images), generator=random).to(images.device)
        sums = torch.zeros(2, device=images.device)
        for index in torch.split(order, self.config.batch_size):
            batch = _corrupted(images[index], front[index], synthesis, random)
            focal, amplification = self._teacher_losses(batch, front[index], random)
            descend(self.first_optimiser, focal + self.config.amplify * amplification)
            sums += torch.stack([focal.detach(), amplification.detach()]) * len(index)
        means = (sums / len(images)).tolist()
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(f"epoch {epoch + 1} of the teacher: losses {means}")
        for curve, mean in zip(self.curves.values(), means, strict=True):
            curve.append(mean)
        self.offer()
        self._report(f"gate {means[0]:.4f}, amplification {means[1]:.4f}")

    def run_epoch(self, taught: list[Tensor], order: Tensor) -> None:
        """One pass of stage 2, at its rate."""
        self._set_rate(self.optimiser, len(self.losses), self.config.epochs)
        super().run_epoch(taught, order)

    def _report(self, state: str) -> None:
        done = len(self.curves["focal_loss"]) + len(self.losses)
        self.execution.progress(done, self.config.teacher_epochs + self.config.epochs, state)

    def _set_rate(self, optimiser: torch.optim.Optimizer, epoch: int, epochs: int) -> None:
        fallen = (epoch >= 0.8 * epochs) + (epoch >= 0.9 * epochs)
        for group in optimiser.param_groups:
            group["lr"] = self.config.learning_rate * 0.2**fallen

    def _teacher_losses(
        self, batch: Synthetic, front: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The gates' focal loss and the amplification's, each summed over the levels."""
        with torch.no_grad():
            levels = self.advanced.teacher(normalise(batch.corrupted))
        masks = [_shrunk(batch.mask, level) for level in levels]
        with self.execution.autocast():
            amplified, gates = self.advanced.amplified(levels, masks)
        focal = torch.stack([gate_loss(*pair) for pair in zip(gates, masks, strict=True)]).sum()
        normal = [~mask & _shrunk(front, mask) for mask in masks]
        parts = zip(levels, amplified, masks, normal, strict=True)
        return focal, torch.stack([self._amplification(*part, random) for part in parts]).sum()

    def _amplification(
        self, level: Tensor, amplified: Tensor, mask: Tensor, normal: Tensor, random: torch.Generator
    ) -> Tensor:
        """How far anomalies still are from being less alike to normal positions by the margin."""
        usual, odd = (_drawn(*pair, random) for pair in zip((normal, mask), SAMPLED, strict=True))
        if not len(usual) or not len(odd):
            return amplified.sum() * 0
        before, after = (
            F.normalize(x.float().permute(0, 2, 3, 1).flatten(0, 2), dim=1) for x in (level, amplified)
        )
        good = before[usual]
        return (good @ after[odd].T - good @ before[odd].T + self.config.margin).relu().mean()

    def _hard_loss(self, taught: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> Tensor:
        """RD4AD's loss and, per level, the mean distance of each image's hardest positions."""
        pairs = zip(taught, rebuilt, strict=True)
        apart = [(1 - F.cosine_similarity(t, r.float())).flatten(1) for t, r in pairs]
        hard = [distances.topk(self.config.hardest, dim=1).values.mean() for distances in apart]
        return flat_cosine_loss(taught, rebuilt) + torch.stack(hard).sum()


def foreground(images: Tensor, category: str) -> Tensor:
    """Of (N, 3, S, S) uint8 images: (N, S, S) bool, where anomalies may lie."""
    count, side = len(images), images.shape[-1]
    if category in ("bottle", "cable"):  # the code's list says 'cabel': cable gets the circle all the same
        axis = torch.arange(side, device=images.device) - side // 2
        circle = axis.square()[:, None] + axis.square() <= int(0.45 * side) ** 2
        return circle.expand(count, side, side)
    grey: Tensor = gaussian_blur(rgb_to_grayscale(images).float(), 17, 2.0)[:, 0]  # sigma 8 on 1,024 pixels
    if category in ("capsule", "screw", "zipper"):
        return grey.le(BELOW)
    if category in ("hazelnut", "metal_nut", "pill", "toothbrush"):
        return grey.gt(ABOVE)
    return torch.ones_like(grey, dtype=torch.bool)


def _corrupted(
    images: Tensor, front: Tensor, synthesis: AnomalySynthesis, random: torch.Generator
) -> Synthetic:
    """(B, 3, S, S) uint8 images with anomalies in the (B, S, S) bool foreground only, and some clean."""
    batch = synthesis(images, random)
    for _ in range(REDRAWS):
        missed = (batch.mask & front).sum(dim=(1, 2)) <= MISSED
        if not missed.any():
            break
        for part, drawn in zip(batch, synthesis(images[missed], random), strict=True):
            part[missed] = drawn
    kept = (torch.rand(len(front), generator=random) >= CLEAN).to(front.device)
    mask = batch.mask & front & kept[:, None, None]
    return batch._replace(corrupted=torch.where(mask[:, None], batch.corrupted, batch.clean), mask=mask)


def _shrunk(mask: Tensor, like: Tensor) -> Tensor:
    """(B, S, S) bool at the size of `like`: true where more than three tenths are."""
    return F.adaptive_avg_pool2d(mask[:, None].float(), like.shape[-1])[:, 0] > 0.3


def _drawn(chosen: Tensor, most: int, random: torch.Generator) -> Tensor:
    """At most so many of the places where (B, h, w) is true, counted through all of them."""
    found = chosen.flatten().nonzero()[:, 0]
    return found[torch.randperm(len(found), generator=random)[:most].to(found.device)]


METHOD = MethodEntry("AAND", PROFILES, AAND, empty_network, needs_textures=True)
