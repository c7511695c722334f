"""DeSTSeg: Segmentation Guided Denoising Student-Teacher (Zhang et al., CVPR 2023, arXiv:2211.11317).

Follows the code (apple/ml-destseg) where it and the paper differ. PFADSeg is the same training with other
parts and another schedule: methods/pfadseg.py.
"""

import math
from collections.abc import Iterator
from typing import TypedDict, cast

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from stlib.data.synthesis import AnomalySynthesis, Synthetic
from stlib.methods.execution import Execution
from stlib.methods.recipe import Recipe
from stlib.nn.backbone import ResNet18Pyramid, normalise, prepare
from stlib.nn.blocks import Design, Recalibration
from stlib.nn.denoising import DenoisingStudent, SegmentationNet, similarity_features
from stlib.nn.losses import cosine_distances, denoising_loss, focal_loss, l1_loss
from stlib.nn.maps import Maps, fuse, in_batches, max_score, resize, stack_levels, top_score
from stlib.protocol import History, Profile

LOG_EVERY = 50
"""Most steps per point of the training curves; a short schedule gets about twenty points."""


class Config(Recipe):
    """DeSTSeg's recipe; the defaults are the official code's."""

    batch_size: PositiveInt = 32
    """Images per step; an incomplete batch at the end of a pass is dropped."""
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
    focal_gamma: float = 4.0
    top: PositiveInt = 100
    """The image score is the mean of this many largest pixel scores."""
    zero_init: bool = True
    """Start the last BatchNorm of the encoder's blocks at 0, as timm does."""
    rcm: bool = False
    """RCM in place of ASPP."""
    aff: bool = False
    """AFF in place of the shortcut's addition, in student and segmentation net."""
    pcar: Recalibration = "none"
    """PCAR in place of the blocks' second convolution, in student and segmentation net."""
    dilations: tuple[int, int, int] = (1, 1, 1)
    """Of PCAR's three convolutions."""
    layer_scale: PositiveFloat = 1e-6
    """RCM's initial LayerScale."""
    aff_factor: PositiveFloat = 2.0
    """Of AFF's weighted sum."""
    segmentation_modules: bool = True
    """AFF and PCAR in the segmentation net too, not in the student alone."""

    def design(self) -> Design:
        """The networks' switches."""
        return Design(
            rcm=self.rcm,
            aff=self.aff,
            pcar=self.pcar,
            dilations=self.dilations,
            layer_scale=self.layer_scale,
            aff_factor=self.aff_factor,
            segmentation=self.segmentation_modules,
        )


SHORT = {"batch_size": 8, "student_steps": 200, "segmentation_steps": 100}
"""For a CPU: some 40 minutes on one core, 55 with all modules (results/records/short)."""
DEMO = {"image_size": 64, "batch_size": 8, "student_steps": 60, "segmentation_steps": 20, "top": 10} | {
    "student_rate": 0.1, "residual_rate": 0.03, "head_rate": 0.01
}  # fmt: skip
"""Small images and gentle rates: one to two minutes on a CPU (results/records/demo)."""

PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config().model_copy(update=SHORT),
    "demo": Config().model_copy(update=DEMO),
}


class Network(nn.Module):
    """Teacher, denoising student and segmentation net as they are deployed."""

    def __init__(self, teacher: nn.Module, student: nn.Module, segmentation: nn.Module, top: int) -> None:
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


def empty_network(config: Recipe) -> Network:
    """A network that waits for trained weights."""
    assert isinstance(config, Config)
    design = config.design()
    return Network(ResNet18Pyramid(), DenoisingStudent(design), SegmentationNet(design), config.top)


class DeSTSeg:
    """A student learns to undo synthetic anomalies in feature space; a net learns where it had to."""

    def __init__(
        self, config: Config, teacher: nn.Module, execution: Execution, synthesis: AnomalySynthesis
    ) -> None:
        self.config, self.execution, self.synthesis = config, execution, synthesis
        self.teacher = self._place(teacher)
        self.student: nn.Module = nn.Identity()
        self.segmentation: nn.Module = nn.Identity()
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Only 'last': the recipe tests the last step."""

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Both stages on (N, 3, S, S) uint8 normal images. Resumes from the execution's checkpoint.

        Raises ValueError for fewer images than one batch, FloatingPointError when a loss stops being finite.
        """
        if len(train) < self.config.batch_size:
            raise ValueError(
                f"{len(train)} training images do not fill one batch of {self.config.batch_size}: "
                "batches are dropped when incomplete, so nothing would be trained"
            )
        training = _Training(self, train.to(self.execution.device), seed)
        training.run()
        self.snapshots = {"last": dict(self.student.state_dict()) | dict(self.segmentation.state_dict())}
        return History(
            steps=training.total,
            images_seen=training.total * self.config.batch_size,
            curves=training.curves,
            selected={"step": training.total},
        )

    def use(self, snapshot: str) -> None:
        """There is one snapshot, and it is in use."""
        if snapshot not in self.snapshots:
            raise KeyError(snapshot)

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps of (M, 3, S, S) uint8 images, on the CPU; always in fp32, whatever trained."""
        return in_batches(self.network, images, self.config.batch_size, self.execution.device)

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

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self.execution.device).to(memory_format=torch.channels_last)


class _State(TypedDict):
    """What a checkpoint holds."""

    step: int
    student: dict[str, Tensor]
    segmentation: dict[str, Tensor]
    momentum: dict[str, Tensor]
    curves: dict[str, list[float]]


class _Training:
    """Both stages as one sequence of steps; step `i` is a function of the state and of (seed, i) alone."""

    def __init__(self, method: DeSTSeg, images: Tensor, seed: int) -> None:
        self.method, self.config, self.execution = method, method.config, method.execution
        self.images, self.seed = images, seed
        self.total = self.config.student_steps + self.config.segmentation_steps
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = DenoisingStudent(self.config.design(), zero_init=self.config.zero_init)
            segmentation = SegmentationNet(self.config.design())
        method.student, method.segmentation = method._place(student), method._place(segmentation)
        self.optimisers = [
            self._sgd([{"params": list(student.parameters()), "lr": self.config.student_rate}]),
            self._sgd(
                [
                    {"params": list(segmentation.residual.parameters()), "lr": self.config.residual_rate},
                    {"params": list(segmentation.head.parameters()), "lr": self.config.head_rate},
                ]
            ),
        ]
        self.step = 0
        self.log_every = min(LOG_EVERY, max(1, self.total // 20))
        self.curves: dict[str, list[float]] = {}
        self.running: dict[str, list[Tensor]] = {}
        self._resume()

    def _sgd(self, groups: list[dict[str, object]]) -> torch.optim.SGD:
        return torch.optim.SGD(groups, momentum=self.config.momentum, weight_decay=self.config.weight_decay)

    def run(self) -> None:
        """All remaining steps."""
        while self.step < self.total:
            batch = self._batch()
            if self.step < self.config.student_steps:
                self._log(self._denoise(batch))
            else:
                self._log(self._segment(batch))
            self._close_step()

    def _batch(self) -> Synthetic:
        """The step's images and anomalies, from generators seeded by (seed, pass) and (seed, step)."""
        per_pass = len(self.images) // self.config.batch_size
        turn, place = divmod(self.step, per_pass)
        order = torch.randperm(len(self.images), generator=_generator(self.seed, 2 * turn))
        picks = order[place * self.config.batch_size :][: self.config.batch_size]
        return self.method.synthesis(self.images[picks], _generator(self.seed, 2 * self.step + 1))

    def _denoise(self, batch: Synthetic) -> dict[str, Tensor]:
        """Stage 1: the student sees the corrupted image, the teacher the clean one."""
        self.method.student.train()
        with torch.no_grad():
            target = self.method.teacher(normalise(batch.clean))
        with self.execution.autocast():
            features = self.method.student(normalise(batch.corrupted))
        loss = denoising_loss(target, features)
        self._descend(self.optimisers[0], loss)
        return {"distillation_loss": loss.detach() / len(batch.mask)}

    def _segment(self, batch: Synthetic) -> dict[str, Tensor]:
        """Stage 2: teacher and frozen student see the corrupted image; the mask at stride 4 is the target."""
        self.method.student.eval()
        self.method.segmentation.train()
        corrupted = normalise(batch.corrupted)
        with torch.no_grad(), self.execution.autocast():
            features = self.method.student(corrupted)
        with torch.no_grad():
            similarity = similarity_features(self.method.teacher(corrupted), features)
        with self.execution.autocast():
            logits = self.method.segmentation(similarity)
        target = (resize(batch.mask[:, None].float(), logits.shape[-1])[:, 0] >= 0.5).float()
        focal, l1 = (
            focal_loss(logits.float(), target, self.config.focal_gamma),
            l1_loss(logits.float(), target),
        )
        self._descend(self.optimisers[1], focal + l1)
        predicted = (torch.sigmoid(logits.float()) >= 0.5).float().mean()
        logged = {
            "focal_loss": focal,
            "l1_loss": l1,
            "predicted_area": predicted,
            "target_area": target.mean(),
        }
        for name, parameter in self.method.segmentation.named_parameters():
            if name.endswith(".gamma"):  # does RCM leave the identity?
                logged["rcm_layer_scale"] = parameter.abs().mean()
        return {name: value.detach() for name, value in logged.items()}

    def _descend(self, optimiser: torch.optim.SGD, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()

    def _log(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.running.setdefault(name, []).append(value)

    def _close_step(self) -> None:
        self.step += 1
        if self.step % self.log_every and self.step not in (self.config.student_steps, self.total):
            return
        means = {name: torch.stack(values).mean().item() for name, values in self.running.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"step {self.step}: {name} is {value}")
            self.curves.setdefault(name, []).append(value)
        state = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.running = {}
        self.execution.progress(self.step, self.total, state)
        if self.execution.checkpoint:
            self.execution.checkpoint.offer(self._state)

    def _state(self) -> _State:
        momentum = {name: self._buffer(parameter) for name, parameter in self._parameters()}
        return {
            "step": self.step,
            "student": dict(self.method.student.state_dict()),
            "segmentation": dict(self.method.segmentation.state_dict()),
            "momentum": {name: buffer for name, buffer in momentum.items() if buffer is not None},
            "curves": self.curves,
        }

    def _resume(self) -> None:
        saved = self.execution.checkpoint.load() if self.execution.checkpoint else None
        if saved is None:
            return
        state = cast(_State, saved)
        self.method.student.load_state_dict(state["student"])
        self.method.segmentation.load_state_dict(state["segmentation"])
        for name, parameter in self._parameters():
            if name in state["momentum"]:
                buffer = torch.empty_like(parameter).copy_(state["momentum"][name])
                self.optimisers[name.startswith("segmentation")].state[parameter]["momentum_buffer"] = buffer
        self.step, self.curves = state["step"], state["curves"]

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for prefix, network in (("student", self.method.student), ("segmentation", self.method.segmentation)):
            yield from network.named_parameters(prefix)

    def _buffer(self, parameter: nn.Parameter) -> Tensor | None:
        """The parameter's momentum; None before its stage has begun."""
        for optimiser in self.optimisers:
            if parameter in optimiser.state:
                buffer: Tensor | None = optimiser.state[parameter].get("momentum_buffer")
                return buffer
        return None


def _generator(seed: int, stream: int) -> torch.Generator:
    """Random numbers of a step or pass, by its place alone: a resumed run draws the same."""
    return torch.Generator().manual_seed(1_000_003 * seed + stream)
