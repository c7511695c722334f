"""How a method runs, as opposed to what it computes: device, precision, progress, checkpoint."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from stlib.methods.checkpoint import Checkpoint, State
from stlib.protocol import Precision, require_precision

Progress = Callable[[int, int, str], None]
"""Called with (epochs or steps done, total, one line of state)."""


def quiet(done: int, total: int, state: str) -> None:
    """No progress report."""


def generator(seed: int, place: int) -> torch.Generator:
    """Random numbers of a step, pass or epoch, by its place alone: a resumed run draws the same."""
    return torch.Generator().manual_seed(1_000_003 * seed + place)


@dataclass(frozen=True)
class Execution:
    """Everything about a run that is not the recipe.

    Making one sets PyTorch's switches for the whole process: cuDNN's reproducible kernels, and whether
    float32 is rounded to TF32. Raises ValueError for a precision that the device does not have.
    """

    device: torch.device
    precision: Precision = "fp32"
    progress: Progress = quiet
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        require_precision(self.precision, str(self.device))
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        rounded = self.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = rounded  # cuDNN's default would round the inputs of convolutions
        torch.backends.cuda.matmul.allow_tf32 = rounded

    def resumed(self) -> State | None:
        """What the checkpoint holds of an earlier attempt; None without one."""
        return self.checkpoint.load() if self.checkpoint else None

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for convolutions when `precision` asks for it; losses and maps stay in float32.

        What else is bfloat16 depends on the device: see `protocol.Precision`.
        """
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()
