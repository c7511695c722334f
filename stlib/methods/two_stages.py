"""DeSTSeg's training: the denoising student first, then the segmentation net on the frozen student.

Zhang et al. (CVPR 2023, section 3) as in the official code; PFADSeg trains in the same way.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn

from stlib.data.synthesis import Synthetic
from stlib.methods.execution import generator
from stlib.nn.backbone import normalise, prepare
from stlib.nn.denoising import DenoisingStudent, SegmentationNet, similarity_features
from stlib.nn.losses import denoising_loss, focal_loss, l1_loss
from stlib.nn.maps import resize
from stlib.protocol import Metric

if TYPE_CHECKING:
    from stlib.methods.destseg import DeSTSeg

LOG_EVERY = 50
"""Most steps per point of the training curves; a short schedule gets about twenty points."""
OBSERVED = (0, 250, 500, 1000, 2000, 3000, 4000)
"""Steps of stage 2 at which a learning curve looks at the test set; at 0 the net has learnt nothing yet."""


class _State(TypedDict):
    """What a checkpoint holds."""

    step: int
    student: dict[str, Tensor]
    segmentation: dict[str, Tensor]
    momentum: dict[str, Tensor]
    curves: dict[str, list[float]]
    running: dict[str, list[Tensor]]
    learning_curve: dict[int, dict[Metric, float]]


class Training:
    """Both stages as one sequence of steps; step `i` is a function of the state and of (seed, i) alone."""

    def __init__(self, method: "DeSTSeg", images: Tensor, seed: int) -> None:
        self.method, self.config, self.execution = method, method.config, method.execution
        self.images, self.seed = images, seed
        self.total = self.config.student_steps + self.config.segmentation_steps
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student = DenoisingStudent(self.config.design(), zero_init=self.config.zero_init)
            segmentation = SegmentationNet(self.config.design())
        method.student, method.segmentation = method.place(student), method.place(segmentation)
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
        self.learning_curve: dict[int, dict[Metric, float]] = {}
        self.running: dict[str, list[Tensor]] = {}
        self._resume()
        self.imitate = self.execution.trainable(method.student)
        self.locate = self.execution.trainable(method.segmentation)
        self.taught: tuple[Tensor, ...] | None = None
        if self.step < self.config.student_steps and not method.synthesis.turns:
            self.taught = self._teach()

    def _sgd(self, groups: list[dict[str, object]]) -> torch.optim.SGD:
        momentum, weight_decay = self.config.momentum, self.config.weight_decay
        return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay, fused=True)

    def _teach(self) -> tuple[Tensor, ...]:
        """The teacher's features of all images: they never change where no image is turned."""
        with torch.no_grad():
            parts = [
                self.method.teacher(prepare(images))
                for images in torch.split(self.images, self.config.batch_size)
            ]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def run(self) -> None:
        """All remaining steps."""
        while self.step < self.total:
            learn = self._denoise if self.step < self.config.student_steps else self._segment
            self._log(learn(self._picks()))
            self._close_step()

    def _picks(self) -> Tensor:
        """Which images the step sees, from a generator seeded by (seed, pass)."""
        per_pass = len(self.images) // self.config.batch_size
        turn, place = divmod(self.step, per_pass)
        order = torch.randperm(len(self.images), generator=generator(self.seed, 2 * turn))
        return order[place * self.config.batch_size :][: self.config.batch_size]

    def _corrupt(self, picks: Tensor) -> Synthetic:
        """Those images with anomalies, from a generator seeded by (seed, step)."""
        return self.method.synthesis(self.images[picks], generator(self.seed, 2 * self.step + 1))

    def _target(self, clean: Tensor, picks: Tensor) -> Sequence[Tensor]:
        """The teacher's features of the step's clean images."""
        if self.taught:
            return [level[picks] for level in self.taught]
        with torch.no_grad():
            target: Sequence[Tensor] = self.method.teacher(normalise(clean))
        return target

    def _denoise(self, picks: Tensor) -> dict[str, Tensor]:
        """Stage 1: the student sees the corrupted image, the teacher the clean one."""
        batch = self._corrupt(picks)
        target = self._target(batch.clean, picks)
        self.method.student.train()
        with self.execution.autocast():
            features = self.imitate(normalise(batch.corrupted))
        loss = denoising_loss(target, features)
        self._descend(self.optimisers[0], loss)
        return {"distillation_loss": loss.detach() / len(batch.mask)}

    def _segment(self, picks: Tensor) -> dict[str, Tensor]:
        """Stage 2: teacher and frozen student see the corrupted image; the mask at stride 4 is the target."""
        self.taught = None  # stage 1 is over; they take up to half a gigabyte
        batch = self._corrupt(picks)
        self.method.student.eval()
        self.method.segmentation.train()
        corrupted = normalise(batch.corrupted)
        with torch.no_grad(), self.execution.autocast():
            features = self.imitate(corrupted)
        with torch.no_grad():
            similarity = similarity_features(self.method.teacher(corrupted), features)
        with self.execution.autocast():
            logits = self.locate(similarity)
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
        checkpoint = self.execution.checkpoint
        if self.step % self.log_every and self.step not in (self.config.student_steps, self.total):
            if checkpoint and checkpoint.ending:  # the next point may be minutes away
                checkpoint.offer(self._state)
            return
        means = {name: torch.stack(values).mean().item() for name, values in self.running.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"step {self.step}: {name} is {value}")
            self.curves.setdefault(name, []).append(value)
        state = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.running = {}
        self._observe(self.step - self.config.student_steps)
        self.execution.progress(self.step, self.total, state)
        if checkpoint:
            checkpoint.offer(self._state)

    def _observe(self, trained: int) -> None:
        """A point of the learning curve, where one is wanted after `trained` steps of stage 2."""
        if self.execution.observe and trained in OBSERVED:
            self.learning_curve[trained] = dict(self.execution.observe(trained))

    def _state(self) -> _State:
        momentum = {name: self._buffer(parameter) for name, parameter in self._parameters()}
        return {
            "step": self.step,
            "student": dict(self.method.student.state_dict()),
            "segmentation": dict(self.method.segmentation.state_dict()),
            "momentum": {name: buffer for name, buffer in momentum.items() if buffer is not None},
            "curves": self.curves,
            "running": self.running,
            "learning_curve": self.learning_curve,
        }

    def _resume(self) -> None:
        saved = self.execution.resumed()
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
        device = self.execution.device
        self.running = {name: [x.to(device) for x in values] for name, values in state["running"].items()}
        self.learning_curve = state["learning_curve"]

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
