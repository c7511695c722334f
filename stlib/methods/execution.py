"""How a method runs, as opposed to what it computes: device, precision, progress, checkpoint."""

import ctypes
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import nn

from stlib.methods.checkpoint import Checkpoint, State
from stlib.protocol import Metric, Precision, require_precision

Progress = Callable[[int, int, str], None]
"""Called with (epochs or steps done, total, one line of state)."""


Observe = Callable[[int], Mapping[Metric, float]]
"""Called with the steps of the last stage that are done; returns the metrics on the test set."""

Network = TypeVar("Network", bound=nn.Module)


def no_progress(done: int, total: int, state: str) -> None:
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
    progress: Progress = no_progress
    checkpoint: Checkpoint | None = None
    compiled: bool = False
    """DeSTSeg's and PFADSeg's networks train through `torch.compile`: minutes once, then faster steps."""
    observe: Observe | None = None
    """What a training calls at the steps of its learning curve; nothing is ever selected by it."""

    def __post_init__(self) -> None:
        require_precision(self.precision, str(self.device))
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        rounded = self.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = rounded  # cuDNN's default would round the inputs of convolutions
        torch.backends.cuda.matmul.allow_tf32 = rounded

    def trainable(self, network: Network) -> Network:
        """What a training step calls for `network`: itself, or a compiled form that shares its weights."""
        return cast(Network, torch.compile(network, dynamic=False)) if self.compiled else network

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


def require_compiler() -> None:
    """Raise ValueError where `torch.compile` would find no C++ compiler, which it needs on CPUs and GPUs."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else ["g++", "clang++"])):
        raise ValueError(
            f"torch.compile needs a C++ compiler and finds no {wanted or 'g++ or clang++'}: install one "
            "(apt-get install g++) or run without --compile"
        )


def reuse_memory() -> None:
    """Let this process keep freed memory instead of handing it back to Linux after every operator.

    glibc maps large blocks anew each time, and the page faults can cost more than a step's arithmetic.
    Results stay the same; on other systems nothing happens.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    with suppress(OSError, AttributeError, TypeError):  # another system, another C library
        set_option = ctypes.CDLL(None).mallopt
        set_option(mmap_threshold, 1 << 30)
        set_option(trim_threshold, -1)


def release_memory() -> None:
    """Hand back the freed memory that `reuse_memory` has kept: a peak measured from here on starts low."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
