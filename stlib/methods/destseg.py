"""DeSTSeg: Segmentation Guided Denoising Student-Teacher (Zhang et al., CVPR 2023, arXiv:2211.11317).

The denoising student learns first, then the segmentation net on the frozen student (section 3). Follows the
code (apple/ml-destseg) where it and the paper differ. PFADSeg is the same training with other parts and
another schedule: methods/pfadseg.py.
"""

import copy
import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from stlib.data.synthesis import AnomalySynthesis, Synthetic, send
from stlib.methods.entry import Method, MethodEntry
from stlib.methods.replay import Replayed
from stlib.methods.training import Execution, Recipe, Resumable, generator, seeded
from stlib.nn.backbone import ResNet18Pyramid, features, normalise
from stlib.nn.blocks import Design
from stlib.nn.denoising import DenoisingStudent, Network, SegmentationNet, similarity_features
from stlib.nn.losses import denoising_loss, focal_loss, l1_loss
from stlib.nn.maps import Maps, fuse, max_score, resize, top_score
from stlib.protocol import DEMO_IMAGE_SIZE, Metric, Profile
from stlib.records.schema import History

LOG_EVERY = 50
"""Most steps per point of the training curves; a short schedule gets about twenty points."""
OBSERVED = (0, 250, 500, 1000, 2000, 3000, 4000)
"""Steps of either stage after which a learning curve looks at the test set."""


class Config(Design, Recipe):
    """DeSTSeg's recipe; the defaults are the official code's."""

    batch_size: PositiveInt = 32
    """Images per step; an incomplete batch at the end of an epoch is dropped."""
    student_steps: PositiveInt = 1000
    """Stage 1: only the denoising student learns."""
    segmentation_steps: PositiveInt = 4000
    """Stage 2: only the segmentation net learns; the student is frozen, BatchNorm statistics included."""
    student_rate: PositiveFloat = 0.4
    residual_rate: PositiveFloat = 0.1
    """Learning rate of the segmentation net's residual blocks."""
    head_rate: PositiveFloat = 0.01
    """Learning rate of its head: ASPP or RCM, and the predictor. All rates are constant, SGD."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    reduction: Literal["sum", "mean"] = Field("sum", exclude_if=lambda value: value == "sum")
    """Of stage 1's loss over the batch; the code sums. Left out where it is 'sum', as in earlier records."""
    focal_gamma: float = 4.0
    top: PositiveInt = 100
    """The image score is the mean of this many largest pixel scores."""


SHORT = {"batch_size": 8, "student_steps": 200, "segmentation_steps": 100}
"""For a CPU: some 40 minutes on one core, 55 with all modules (results/records/short)."""
DEMO = {
    "image_size": DEMO_IMAGE_SIZE, "batch_size": 8, "student_steps": 200, "segmentation_steps": 250,
    "width": 0.25, "student_rate": 0.3, "residual_rate": 0.1, "head_rate": 0.05, "top": 10,
}  # fmt: skip
"""Small images, batches and networks, and gentle rates: a minute or two on a CPU (results/records/demo)."""

PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config().model_copy(update=SHORT),
    "demo": Config().model_copy(update=DEMO),
}


def empty_network(config: Recipe) -> Network:
    """A network that waits for trained weights."""
    assert isinstance(config, Config)
    return Network(ResNet18Pyramid(), DenoisingStudent(config), SegmentationNet(config), config.top)


class DeSTSeg(Method):
    """A student learns to undo synthetic anomalies in feature space; a net learns where it had to.

    Its snapshots: 'last', which the recipe tests; with RCM 'gamma=0' too, the same networks without it.
    """

    student: DenoisingStudent
    segmentation: SegmentationNet
    """Both from `begin` on."""

    def __init__(
        self, config: Config, teacher: nn.Module, execution: Execution, synthesis: AnomalySynthesis
    ) -> None:
        super().__init__(execution, config.batch_size)
        self.config, self.synthesis = config, synthesis
        self.teacher = execution.place(teacher)

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Both stages on (N, 3, S, S) uint8 normal images. Raises ValueError for fewer than one batch."""
        if len(train) < self.config.batch_size:
            raise ValueError(
                f"{len(train)} training images do not fill one batch of {self.config.batch_size}: "
                "nothing would be trained. Use more images, the profile short with batches of 8, or PatchCore"
            )
        history = self.begin(train, seed).run()
        located = copy.deepcopy(dict(self.segmentation.state_dict()))
        self.snapshots = {"last": dict(self.student.state_dict()) | located}
        if gammas := [name for name in located if name.endswith(".gamma")]:
            self.snapshots["gamma=0"] = {name: torch.zeros_like(located[name]) for name in gammas}
        return history

    def begin(self, train: Tensor, seed: int) -> "Training":
        """The training of fresh networks, where the execution's checkpoint ends or before the first step."""
        with seeded(seed):
            student, segmentation = DenoisingStudent(self.config), SegmentationNet(self.config)
        self.student, self.segmentation = self.execution.place(student), self.execution.place(segmentation)
        images = train.to(self.execution.device)
        return Training(self, images, seed)

    def use(self, snapshot: str) -> None:
        """Put those weights of the segmentation net to work; the student has one set. Raises KeyError."""
        self.segmentation.load_state_dict(self.snapshots[snapshot], strict=False)

    @property
    def network(self) -> Network:
        """What is deployed."""
        return Network(self.teacher, self.student, self.segmentation, self.config.top)

    def alternatives(self, maps: Maps) -> dict[str, Maps]:
        """The same networks read in other ways: the student's distances alone; the largest pixel as score."""
        distances = fuse(maps.layers, maps.pixel.shape[-1])
        return {
            "maps=distances": Maps(maps.layers, distances, top_score(distances, self.config.top)),
            "score=max": maps._replace(image=max_score(maps.pixel)),
        }


class Training(Resumable):
    """Both stages as one sequence of steps on the method's networks, in place.

    Step `i` is a function of the state and of (seed, i) alone.
    """

    kept = (
        "student", "segmentation", "student_optimiser", "segmentation_optimiser",
        "step", "curves", "running", "learning_curve",
    )  # fmt: skip

    def __init__(self, method: DeSTSeg, images: Tensor, seed: int) -> None:
        self.teacher, self.student, self.segmentation = method.teacher, method.student, method.segmentation
        config, execution = method.config, method.execution
        self.config, self.execution, self.synthesis = config, execution, method.synthesis
        self.images, self.seed = images, seed
        self.total = config.student_steps + config.segmentation_steps
        self.student_optimiser = self._sgd((self.student, config.student_rate))
        self.segmentation_optimiser = self._sgd(
            (self.segmentation.residual, config.residual_rate), (self.segmentation.head, config.head_rate)
        )
        self.step = 0
        self.log_every = min(LOG_EVERY, max(1, self.total // 20))
        self.curves: dict[str, list[float]] = {}
        self.learning_curve: dict[int, dict[Metric, float]] = {}
        self.running: dict[str, list[Tensor]] = {}
        self.resume()
        for values in self.running.values():
            values[:] = [value.to(execution.device) for value in values]
        self.denoising, self.segmenting = Replayed(execution.device), Replayed(execution.device)
        self.taught: list[Tensor] | None = None
        if self.step < config.student_steps and not self.synthesis.rotates:  # then they never change
            self.taught = features(self.teacher, images, config.batch_size)

    def _sgd(self, *groups: tuple[nn.Module, float]) -> torch.optim.SGD:
        """The optimiser of networks, each with its rate."""
        return torch.optim.SGD(
            [{"params": list(network.parameters()), "lr": rate} for network, rate in groups],
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def run(self) -> History:
        """All remaining steps."""
        while self.step < self.total:
            learn = self._denoise if self.step < self.config.student_steps else self._segment
            for name, value in learn(self._picks()).items():
                self.running.setdefault(name, []).append(value)
            self._close_step()
        self._end_stage(self.segmenting, self.segmentation_optimiser)
        return History(
            steps=self.total,
            images_seen=self.total * self.config.batch_size,
            curves=self.curves,
            selected={"step": self.total},
            learning_curve=self.learning_curve,
        )

    def _picks(self) -> Tensor:
        """Which images the step sees, from a generator seeded by (seed, epoch)."""
        epoch, place = divmod(self.step, len(self.images) // self.config.batch_size)
        order = torch.randperm(len(self.images), generator=generator(self.seed, 2 * epoch))
        return send(order[place * self.config.batch_size :][: self.config.batch_size], self.images.device)

    def _corrupt(self, picks: Tensor) -> Synthetic:
        """Those images with anomalies, from a generator seeded by (seed, step)."""
        return self.synthesis(self.images[picks], generator(self.seed, 2 * self.step + 1))

    def _target(self, clean: Tensor, picks: Tensor) -> Sequence[Tensor]:
        """The teacher's features of the step's clean images."""
        if self.taught:
            return [level[picks] for level in self.taught]
        with torch.no_grad():
            target: Sequence[Tensor] = self.teacher(normalise(clean))
        return target

    def _denoise(self, picks: Tensor) -> dict[str, Tensor]:
        """Stage 1: the student sees the corrupted image, the teacher the clean one."""
        batch = self._corrupt(picks)
        target = self._target(batch.clean, picks)
        values = self.denoising(self._denoising, normalise(batch.corrupted), *target)
        self.student_optimiser.step()
        return values

    def _denoising(self, corrupted: Tensor, *target: Tensor) -> dict[str, Tensor]:
        """Gradients of the student."""
        self.student_optimiser.zero_grad(set_to_none=True)
        self.student.train()
        with self.execution.autocast():
            imitated = self.student(corrupted)
        loss = denoising_loss(target, imitated)
        mean = loss / len(corrupted)
        torch.autograd.backward(loss if self.config.reduction == "sum" else mean)
        return {"distillation_loss": mean.detach()}

    def _segment(self, picks: Tensor) -> dict[str, Tensor]:
        """Stage 2: teacher and frozen student see the corrupted image; the mask at stride 4 is the target."""
        batch = self._corrupt(picks)
        values = self.segmenting(self._segmenting, normalise(batch.corrupted), batch.mask)
        self.segmentation_optimiser.step()
        for name, parameter in self.segmentation.named_parameters():
            if name.endswith(".gamma"):  # does RCM leave the identity?
                values["rcm_layer_scale"] = parameter.detach().abs().mean()
        return values

    def _segmenting(self, corrupted: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Gradients of the segmentation net."""
        self.segmentation_optimiser.zero_grad(set_to_none=True)
        self.student.eval()
        self.segmentation.train()
        with torch.no_grad(), self.execution.autocast():
            imitated = self.student(corrupted)
        with torch.no_grad():
            similarity = similarity_features(self.teacher(corrupted), imitated)
        with self.execution.autocast():
            logits = self.segmentation(similarity)
        target = (resize(mask[:, None].float(), logits.shape[-1])[:, 0] >= 0.5).float()
        focal = focal_loss(logits.float(), target, self.config.focal_gamma)
        l1 = l1_loss(logits.float(), target)
        torch.autograd.backward(focal + l1)
        predicted = (torch.sigmoid(logits.detach().float()) >= 0.5).float().mean()
        areas = {"predicted_area": predicted, "target_area": target.mean()}
        return {"focal_loss": focal.detach(), "l1_loss": l1.detach()} | areas

    @staticmethod
    def _end_stage(gradients: Replayed, optimiser: torch.optim.Optimizer) -> None:
        """Free what only this stage needs; on a GPU it is gigabytes."""
        optimiser.zero_grad(set_to_none=True)
        gradients.start_over()

    def _close_step(self) -> None:
        self.step += 1
        if self.step == self.config.student_steps:
            self.taught = None
            self._end_stage(self.denoising, self.student_optimiser)
        if self.step % self.log_every == 0 or self.step in (self.config.student_steps, self.total):
            self._close_point()
        self.offer()

    def _close_point(self) -> None:
        """Log the means since the last point of the curves, look at the test set, report progress."""
        means = {name: torch.stack(values).mean().item() for name, values in self.running.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"step {self.step}: {name} is {value}")
            self.curves.setdefault(name, []).append(value)
        self.running = {}
        trained = self.step - self.config.student_steps
        if self.execution.observe and (self.step if trained < 0 else trained) in OBSERVED:
            self.learning_curve[trained] = dict(self.execution.observe(trained))
        state = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.execution.progress(self.step, self.total, state)


METHOD = MethodEntry("DeSTSeg", PROFILES, DeSTSeg, empty_network, needs_textures=True)
