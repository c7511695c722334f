"""Fine-tuning the teacher to tell the categories apart (ET-STPM, arXiv:2512.18219, section III).

One epoch that trains only a new head, then epochs that train everything; the teacher is kept after each.
Optimiser, rates and batch are not in the paper: book/teacher.md names the choices.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchvision.models import ResNet

from stlib.methods.training import Execution, Resumable, descend, generator
from stlib.nn.backbone import ResNet18Pyramid, prepare
from stlib.nn.classifier import feature_cosine, pyramid_of, weight_change
from stlib.protocol import IMAGE_SIZE, LAYERS


class Tuning(BaseModel, frozen=True, extra="forbid"):
    """The recipe of the fine-tuning; everything that the tuned weights depend on besides the images."""

    data: Literal["A", "B", "C"] = "A"
    """A: train/good, no leakage. B: and half of the anomalous test images. C: and all of them."""
    image_size: PositiveInt = IMAGE_SIZE
    batch_size: PositiveInt = 32
    head_epochs: PositiveInt = 1
    head_rate: PositiveFloat = 1e-3
    """Constant, while only the head learns."""
    full_rate: PositiveFloat = 1e-4
    """Constant, when everything learns."""
    optimiser: Literal["adam", "sgd"] = Field("adam", exclude_if=lambda value: value == "adam")
    """sgd: momentum 0.9, weight decay 1e-4. Left out where it is Adam, as in earlier teachers' records."""
    held_out: PositiveFloat = 0.1
    """Share of train/good kept for the classifier's accuracy."""
    seed: NonNegativeInt = 0
    """Of the new head, of tensors that the source lacks, of the split, of the batch order: the run's own."""


@dataclass(frozen=True)
class ClassifierData:
    """What the classifier learns from and is tested on."""

    images: Tensor
    """(N, 3, S, S) uint8."""
    labels: Tensor
    """(N,) int64: the category."""
    held_images: Tensor
    held_labels: Tensor


Keep = Callable[[int, ResNet18Pyramid], None]
"""Called after every epoch with (full epochs done, the teacher as it is then); 0 is after the head."""


@dataclass
class FineTuning(Resumable):
    """A fine-tuning in progress; continues from the execution's checkpoint."""

    kept = ("network", "head_optimiser", "full_optimiser", "epoch", "curves")

    tuning: Tuning
    network: ResNet
    data: ClassifierData
    execution: Execution
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Per epoch, the head's first: train_loss, accuracy on held-out normal images, and for every level the
    relative weight change and the feature cosine to the original teacher."""
    epoch: int = 0
    """Epochs done, those of the head included."""

    def __post_init__(self) -> None:
        self.execution.place(self.network)
        self.original = pyramid_of(self.network)
        self.head_optimiser = self._optimiser(self.network.fc.parameters(), self.tuning.head_rate)
        self.full_optimiser = self._optimiser(self.network.parameters(), self.tuning.full_rate)
        self.resume()

    def run(self, full_epochs: int, keep: Keep) -> None:
        """Train until `full_epochs` epochs of the whole network are done. Raises FloatingPointError."""
        total = self.tuning.head_epochs + full_epochs
        while self.epoch < total:
            self._log("train_loss", self._run_epoch())
            self.epoch += 1
            self._examine()
            done = self.epoch - self.tuning.head_epochs
            if done >= 0:
                keep(done, pyramid_of(self.network))
            if self.execution.checkpoint:  # after every epoch, as it goes with the teacher that is kept
                self.execution.checkpoint.save(self.state())
            accuracy = self.curves["accuracy"][-1]
            self.execution.progress(self.epoch, total, f"teacher: held-out accuracy {accuracy:.3f}")

    def _optimiser(self, parameters: Iterator[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        if self.tuning.optimiser == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=1e-4)
        return torch.optim.Adam(parameters, lr=rate)

    def _run_epoch(self) -> float:
        """One pass over the images; the mean cross-entropy per image."""
        if self.epoch < self.tuning.head_epochs:
            optimiser = self.head_optimiser
            # eval: frozen parameters do not stop BatchNorm's statistics
            self.network.eval().requires_grad_(False)
            self.network.fc.requires_grad_(True)
        else:
            optimiser = self.full_optimiser
            # every epoch: the examination has switched BatchNorm to stored statistics
            self.network.train().requires_grad_(True)
        order = torch.randperm(len(self.data.images), generator=generator(self.tuning.seed, self.epoch))
        total = 0.0
        for index in torch.split(order, self.tuning.batch_size):
            labels = self.data.labels[index].to(self.execution.device)
            with self.execution.autocast():
                logits = self.network(self._input(self.data.images[index]))
            loss = F.cross_entropy(logits.float(), labels)
            descend(optimiser, loss)
            total += loss.item() * len(index)
        if not total < float("inf"):
            raise FloatingPointError(f"fine-tuning, epoch {self.epoch + 1}: loss {total}")
        return total / len(order)

    def _examine(self) -> None:
        """Accuracy on held-out images, and how far the teacher has moved. Raises FloatingPointError."""
        teacher = pyramid_of(self.network).to(self.execution.device)
        original = self.original.to(self.execution.device)
        self.network.eval()
        right, cosine, batches = 0, dict.fromkeys(LAYERS, 0.0), 0
        held = zip(
            torch.split(self.data.held_images, self.tuning.batch_size),
            torch.split(self.data.held_labels, self.tuning.batch_size),
            strict=True,
        )
        for images, labels in held:
            x = self._input(images)
            with torch.no_grad():
                right += int((self.network(x).argmax(1).cpu() == labels).sum())
            for level, value in feature_cosine(original, teacher, x).items():
                cosine[level] += value
            batches += 1
        self._log("accuracy", right / len(self.data.held_labels))
        for level, value in weight_change(self.original, teacher).items():
            self._log(f"weight_change_{level}", value)
            self._log(f"feature_cosine_{level}", cosine[level] / batches)
        if not all(math.isfinite(values[-1]) for values in self.curves.values()):
            raise FloatingPointError(f"fine-tuning, epoch {self.epoch}: weights or features are not finite")

    def _input(self, images: Tensor) -> Tensor:
        return prepare(images.to(self.execution.device))

    def _log(self, name: str, value: float) -> None:
        self.curves.setdefault(name, []).append(float(f"{value:.6g}"))
