"""DeSTSeg's training: the denoising student first, then the segmentation net on the frozen student.

Zhang et al. (CVPR 2023, section 3) as in the official code; PFADSeg trains in the same way.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from torch import Tensor, nn

from stlib.data.synthesis import Synthetic
from stlib.methods.execution import generator
from stlib.nn.backbone import normalise
from stlib.nn.denoising import DenoisingStudent, SegmentationNet, similarity_features
from stlib.nn.losses import denoising_loss, focal_loss, l1_loss
from stlib.nn.maps import resize

if TYPE_CHECKING:
    from stlib.methods.destseg import DeSTSeg

LOG_EVERY = 50
"""Most steps per point of the training curves; a short schedule gets about twenty points."""


class _State(TypedDict):
    """What a checkpoint holds."""

    step: int
    student: dict[str, Tensor]
    segmentation: dict[str, Tensor]
    momentum: dict[str, Tensor]
    curves: dict[str, list[float]]


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
        order = torch.randperm(len(self.images), generator=generator(self.seed, 2 * turn))
        picks = order[place * self.config.batch_size :][: self.config.batch_size]
        return self.method.synthesis(self.images[picks], generator(self.seed, 2 * self.step + 1))

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
