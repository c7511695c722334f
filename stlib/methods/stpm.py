"""STPM: Student-Teacher Feature Pyramid Matching (Wang, Han, Ding, Huang, BMVC 2021, arXiv:2103.04257).

Chapter: book/stpm.md. Follows the official code (gdwang08/STFPM) where it and the paper differ.
"""

import copy
import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from stlib.data.splits import split_train
from stlib.methods.entry import Method, MethodEntry
from stlib.methods.training import Execution, Recipe, Resumable, descend, generator, seeded
from stlib.nn.backbone import ResNet18Pyramid, features, prepare
from stlib.nn.losses import Loss, feature_distances, feature_pyramid_loss, l2_normalize
from stlib.nn.maps import Maps, fuse, max_score, stack_levels, top_score
from stlib.protocol import DEMO_IMAGE_SIZE, Profile
from stlib.records.schema import History


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
    "demo": Config(image_size=DEMO_IMAGE_SIZE, epochs=20, batch_size=4, learning_rate=0.2),
}

VARIANTS: dict[str, dict[str, object]] = {"epochs=200": {"epochs": 200}}
"""The authors' command: their README trains twice as long as the paper says."""


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


def held_out(config: Recipe, count: int) -> list[int]:
    """Of `count` training images, those that choose the epoch and teach nothing."""
    assert isinstance(config, Config)
    return _split(config, count)[1]


def _split(config: Config, count: int) -> tuple[list[int], list[int]]:
    return split_train(count, fraction=config.validation_fraction, seed=config.split_seed)


class STPM(Method):
    """Teacher and student of the same shape; anomalous is where the student fails to imitate the teacher."""

    def __init__(self, config: Config, teacher: nn.Module, execution: Execution) -> None:
        super().__init__(execution, config.batch_size)
        self.config = config
        self.teacher = execution.place(teacher)
        self.student = ResNet18Pyramid()
        self.loss: Loss = feature_pyramid_loss  # of normalised teacher and raw student features

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train the student on (N, 3, S, S) uint8 normal images; afterwards the best snapshot is in use."""
        learn, hold = _split(self.config, len(train))
        images = train.to(self.execution.device)
        # Nothing is augmented, so the teacher sees every image once, not once per epoch.
        targets = [l2_normalize(level) for level in features(self.teacher, images, self.config.batch_size)]
        training = self.begin(seed)
        for epoch in range(len(training.losses), self.config.epochs):
            loss = training.run_epoch(images, targets, _shuffled(learn, seed, epoch))
            score = self._mean_fused(images, targets, hold)
            training.close_epoch(loss, score)
        self.snapshots = {"best": training.best, "last": copy.deepcopy(self.student.state_dict())}
        for name, anew in (("best", "statistics=anew"), ("last", "statistics=anew,checkpoint=last")):
            self.use(name)
            self.renew_statistics(images[learn])
            self.snapshots[anew] = copy.deepcopy(self.student.state_dict())
        self.use("best")
        lowest = min(training.scores)
        return History(
            steps=self.config.epochs * math.ceil(len(learn) / self.config.batch_size),
            images_seen=self.config.epochs * len(learn),
            curves={"train_loss": training.losses, "val_score": training.scores},
            selected={"epoch": training.scores.index(lowest) + 1, "val_score": lowest},
        )

    def begin(self, seed: int) -> "Training":
        """The training of a fresh student, where the execution's checkpoint ends or before the first step."""
        with seeded(seed):
            student = ResNet18Pyramid()  # on the CPU, so that every device starts from the same weights
        self.student = self.execution.place(student)
        return Training(self.student, self.loss, self.config, self.execution)

    def use(self, snapshot: str) -> None:
        """Put the student of 'best' (lowest validation score; the one tested) or another one to work."""
        self.student.load_state_dict(self.snapshots[snapshot])

    def renew_statistics(self, images: Tensor) -> None:
        """Take the means and variances of the student's BatchNorm anew, in one pass over (N, 3, S, S) uint8
        images (Precise BN: Wu and Johnson, arXiv:2105.07576); its weights stay as they are.

        The running ones of a training are a mean over its last ten batches or so, of changing weights.
        """
        with self.execution.autocast():
            update_bn(map(prepare, torch.split(images, self.config.batch_size)), self.student)

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

    def _mean_fused(self, images: Tensor, targets: list[Tensor], indices: list[int]) -> float:
        """Mean of the product map over held-out normal images: the official criterion for the epoch."""
        self.student.eval()
        total = 0.0
        with torch.no_grad():
            places = torch.tensor(indices, device=images.device)
            for index in torch.split(places, self.config.batch_size):
                with self.execution.autocast():
                    imitated = self.student(prepare(images[index]))
                layers = stack_levels(feature_distances([t[index] for t in targets], imitated))
                total += layers.prod(dim=1).double().mean().item() * len(index)
        return total / len(indices)


class Training(Resumable):
    """The student's training, epoch by epoch."""

    kept = ("student", "optimiser", "best", "losses", "scores")

    def __init__(self, student: nn.Module, loss: Loss, config: Config, execution: Execution) -> None:
        self.student, self.loss, self.config, self.execution = student, loss, config, execution
        self.optimiser = torch.optim.SGD(
            student.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best: dict[str, Tensor] = {}
        """The weights of the epoch with the lowest score."""
        self.resume()

    def run_epoch(self, images: Tensor, targets: list[Tensor], order: Tensor) -> float:
        """One pass over the images of `order`; returns the mean loss per image."""
        self.student.train()  # every epoch: validation has switched BatchNorm to its stored statistics
        total = torch.zeros((), device=images.device)
        # once per epoch: an index on the CPU would be copied to a GPU four times in every step
        for index in torch.split(order.to(images.device), self.config.batch_size):
            with self.execution.autocast():
                imitated = self.student(prepare(images[index]))
            loss = self.loss([t[index] for t in targets], imitated)
            descend(self.optimiser, loss)
            total += loss.detach() * len(index)
        return total.item() / len(order)

    def close_epoch(self, loss: float, score: float) -> None:
        """Log the epoch, keep the student if it is the best so far, offer a checkpoint, report progress."""
        epoch = len(self.losses) + 1
        if not (math.isfinite(loss) and math.isfinite(score)):
            raise FloatingPointError(f"epoch {epoch}: training loss {loss}, validation score {score}")
        if score < min(self.scores, default=math.inf):
            self.best = copy.deepcopy(dict(self.student.state_dict()))
        self.losses.append(loss)
        self.scores.append(score)
        self.offer()
        self.execution.progress(epoch, self.config.epochs, f"loss {loss:.3f}, validation {score:.2e}")


def _shuffled(indices: list[int], seed: int, epoch: int) -> Tensor:
    """The epoch's order: a function of seed and epoch alone, so that a resumed run sees the same batches."""
    return torch.tensor(indices)[torch.randperm(len(indices), generator=generator(seed, epoch))]


METHOD = MethodEntry("STPM", PROFILES, STPM, empty_network, VARIANTS, held_out=held_out)
