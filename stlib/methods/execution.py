"""How a method runs, as opposed to what it computes: device, precision, progress, checkpoint."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from stlib.methods.checkpoint import Checkpoint, State
from stlib.protocol import Precision

Progress = Callable[[int, int, str], None]
"""Called with (epochs or steps done, total, one line of state)."""


def no_progress(done: int, total: int, state: str) -> None:
    """No progress report."""


def generator(seed: int, place: int) -> torch.Generator:
    """Random numbers of a step, pass or epoch, by its place alone: a resumed run draws the same."""
    return torch.Generator().manual_seed(1_000_003 * seed + place)


@dataclass(frozen=True)
class Execution:
    """Everything about a run that is not the recipe.

    Making one sets PyTorch's switches for the whole process: cuDNN's reproducible kernels
    and float32 that is not rounded to TF32.
    """

    device: torch.device
    precision: Precision = "fp32"
    progress: Progress = no_progress
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # cuDNN's default would round the inputs of convolutions
        torch.backends.cuda.matmul.allow_tf32 = False

    def resumed(self) -> State | None:
        """What the checkpoint holds of an earlier attempt; None without one."""
        return self.checkpoint.load() if self.checkpoint else None

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for convolutions when `precision` asks for it; losses and maps stay in float32."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()
