"""STPM: Student-Teacher Feature Pyramid Matching (Wang, Han, Ding, Huang, BMVC 2021, arXiv:2103.04257).

Chapter: book/stpm.md. Follows the official code (gdwang08/STFPM) where it and the paper differ.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from stlib.data.splits import split_train
from stlib.methods.training import Execution, Recipe, generator
from stlib.nn.backbone import ResNet18Pyramid, prepare
from stlib.nn.losses import feature_distances, feature_pyramid_loss, l2_normalize
from stlib.nn.maps import Maps, fuse, in_batches, max_score, stack_levels, top_score
from stlib.protocol import Profile
from stlib.records.schema import History

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(normalised teacher features, raw student features), one (B, C, H, W) tensor per level -> scalar."""


class Config(Recipe):
    """STPM's recipe; the defaults are the paper's section 4.1 and the official code's."""

    epochs: PositiveInt = 100
    """Passes over the training split. The repository's README later says 200."""
    batch_size: PositiveInt = 32
    """Images per step; the last, smaller batch of an epoch is kept."""
    learning_rate: PositiveFloat = 0.4
    """SGD, constant."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """On all student parameters, BatchNorm included."""
    validation_fraction: float = 0.2
    """Share of train/good held out to choose the epoch."""
    split_seed: int = 0
    """`random_state` of the split: the same images are held out whatever the run's seed."""


PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config(epochs=20),
    # the paper's 0.4 swings too much over so few epochs: another processor would give other numbers
    "demo": Config(image_size=128, epochs=20, batch_size=8, learning_rate=0.2),
}


class Network(nn.Module):
    """Teacher and student as they are deployed."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, in fp32."""
        x = prepare(images)
        distances = feature_distances([l2_normalize(level) for level in self.teacher(x)], self.student(x))
        layers = stack_levels(distances)
        pixel = fuse(layers, images.shape[-1])
        return Maps(layers, pixel, max_score(pixel))


def empty_network(_config: Recipe) -> Network:
    """A network that waits for trained weights."""
    return Network(ResNet18Pyramid(), ResNet18Pyramid())


class STPM:
    """Teacher and student of the same shape; anomalous is where the student fails to imitate the teacher."""

    def __init__(self, config: Config, teacher: nn.Module, execution: Execution) -> None:
        self.config = config
        self.execution = execution
        self.teacher = teacher.to(execution.device).to(memory_format=torch.channels_last)
        self.student = ResNet18Pyramid()
        self.loss: Loss = feature_pyramid_loss
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Student weights by name: 'best' (lowest validation score; the one tested) and 'last'."""

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train the student on (N, 3, S, S) uint8 normal images; afterwards the best snapshot is in use.

        Resumes from the execution's checkpoint. Raises FloatingPointError when the loss stops being finite.
        """
        learn, hold = split_train(
            len(train), fraction=self.config.validation_fraction, seed=self.config.split_seed
        )
        images = train.to(self.execution.device)
        # Nothing is augmented, so the teacher sees every image once, not once per epoch.
        targets = [l2_normalize(level) for level in self._teach(images)]
        training = _Training(self, seed)
        for epoch in range(training.epoch, self.config.epochs):
            order = _shuffled(learn, seed, epoch)
            loss = training.run_epoch(images, targets, order)
            score = self._mean_fused(images, targets, hold)
            training.close_epoch(loss, score)
        self.snapshots = {"best": training.best, "last": copy.deepcopy(self.student.state_dict())}
        self.use("best")
        steps = self.config.epochs * math.ceil(len(learn) / self.config.batch_size)
        return History(
            steps=steps,
            images_seen=self.config.epochs * len(learn),
            curves={"train_loss": training.losses, "val_score": training.scores},
            selected={"epoch": training.best_epoch, "val_score": training.scores[training.best_epoch - 1]},
        )

    def use(self, snapshot: str) -> None:
        """Put the student of `snapshot` ('best' or 'last') to work."""
        self.student.load_state_dict(self.snapshots[snapshot])

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps of (M, 3, S, S) uint8 images, on the CPU; always in fp32, whatever trained."""
        return in_batches(self.network, images, self.config.batch_size, self.execution.device)

    @property
    def network(self) -> Network:
        """What is deployed: the teacher and the student in use."""
        return Network(self.teacher, self.student)

    def alternatives(self, maps: Maps) -> dict[str, Maps]:
        """The same networks read in other ways: the sum of the levels; DeSTSeg's image score."""
        summed = fuse(maps.layers, maps.pixel.shape[-1], rule="sum")
        return {
            "maps=sum": Maps(maps.layers, summed, max_score(summed)),
            "score=top100": maps._replace(image=top_score(maps.pixel)),
        }

    def _teach(self, images: Tensor) -> list[Tensor]:
        """Teacher features of all images, one (N, C, h, w) tensor per level."""
        with torch.no_grad():
            batches = [self.teacher(prepare(part)) for part in torch.split(images, self.config.batch_size)]
        return [torch.cat(level) for level in zip(*batches, strict=True)]

    def _mean_fused(self, images: Tensor, targets: list[Tensor], indices: list[int]) -> float:
        """Mean of the product map over held-out normal images: the official criterion for the epoch."""
        self.student.eval()
        total = 0.0
        with torch.no_grad():
            places = torch.tensor(indices, device=images.device)
            for index in torch.split(places, self.config.batch_size):
                with self.execution.autocast():
                    features = self.student(prepare(images[index]))
                layers = stack_levels(feature_distances([t[index] for t in targets], features))
                total += layers.prod(dim=1).double().mean().item() * len(index)
        return total / len(indices)


class _State(TypedDict):
    """What a checkpoint holds."""

    student: dict[str, Tensor]
    momentum: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    losses: list[float]
    scores: list[float]


class _Training:
    """The student's optimiser and everything a resumed run needs."""

    def __init__(self, method: STPM, seed: int) -> None:
        self.method, self.execution, self.config = method, method.execution, method.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = ResNet18Pyramid()  # on the CPU, so that every device starts from the same weights
        method.student = student.to(self.execution.device).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(
            method.student.parameters(),
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
        )
        self.epoch = 0
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self._resume()

    def run_epoch(self, images: Tensor, targets: list[Tensor], order: Tensor) -> float:
        """One pass over the images of `order`; returns the mean loss per image."""
        self.method.student.train()  # every epoch: validation has switched BatchNorm to its stored statistics
        total = torch.zeros((), device=images.device)
        # once per epoch: an index on the CPU would be copied to a GPU four times in every step
        for index in torch.split(order.to(images.device), self.config.batch_size):
            with self.execution.autocast():
                features = self.method.student(prepare(images[index]))
            loss = self.method.loss([t[index] for t in targets], features)
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimiser.step()
            total += loss.detach() * len(index)
        return total.item() / len(order)

    def close_epoch(self, loss: float, score: float) -> None:
        """Log the epoch, keep the student if it is the best so far, save the checkpoint, report progress."""
        if not (math.isfinite(loss) and math.isfinite(score)):
            raise FloatingPointError(
                f"epoch {self.epoch + 1}: training loss {loss}, validation score {score}"
            )
        self.epoch += 1
        self.losses.append(loss)
        self.scores.append(score)
        if score < min(self.scores[:-1], default=math.inf):
            self.best, self.best_epoch = copy.deepcopy(self.method.student.state_dict()), self.epoch
        if self.execution.checkpoint:
            self.execution.checkpoint.offer(self._state)
        self.execution.progress(self.epoch, self.config.epochs, f"loss {loss:.3f}, validation {score:.2e}")

    def _state(self) -> _State:
        momentum = {
            str(i): self.optimiser.state[p]["momentum_buffer"] for i, p in enumerate(self._parameters())
        }
        return {
            "student": dict(self.method.student.state_dict()),
            "momentum": momentum,
            "best": dict(self.best),
            "best_epoch": self.best_epoch,
            "losses": self.losses,
            "scores": self.scores,
        }

    def _resume(self) -> None:
        saved = self.execution.resumed()
        if saved is None:
            return
        state = cast(_State, saved)
        self.method.student.load_state_dict(state["student"])
        for i, parameter in enumerate(self._parameters()):
            buffer = state["momentum"][str(i)].to(parameter.device)
            # same memory layout as in the unbroken run, or sums are taken in another order
            self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
        self.best = {name: tensor.to(self.execution.device) for name, tensor in state["best"].items()}
        self.best_epoch = state["best_epoch"]
        self.losses, self.scores = state["losses"], state["scores"]
        self.epoch = len(self.losses)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return self.method.student.parameters()


def _shuffled(indices: list[int], seed: int, epoch: int) -> Tensor:
    """The epoch's order: a function of seed and epoch alone, so that a resumed run sees the same batches."""
    return torch.tensor(indices)[torch.randperm(len(indices), generator=generator(seed, epoch))]
