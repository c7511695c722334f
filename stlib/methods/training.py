"""What all trainings share: recipe, device, precision, random numbers, and how one is resumed."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from stlib.methods.checkpoint import Checkpoint, State
from stlib.protocol import IMAGE_SIZE, Metric, Precision, require_precision

Progress = Callable[[int, int, str], None]
"""Called with (epochs or steps done, total, one line of state)."""

Observe = Callable[[int], Mapping[Metric, float]]
"""Called with the steps done of the last stage, below 0 before it; returns the metrics on the test set."""

Network = TypeVar("Network", bound=nn.Module)

_STATEFUL = (nn.Module, torch.optim.Optimizer)


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """A frozen recipe: a misspelt field is an error, not a default."""

    image_size: PositiveInt = IMAGE_SIZE
    """Side of the network input in pixels."""


def no_progress(done: int, total: int, state: str) -> None:
    """No progress report."""


def generator(seed: int, place: int) -> torch.Generator:
    """Random numbers of a step, pass or epoch, by its place alone: a resumed run draws the same."""
    return torch.Generator().manual_seed(1_000_003 * seed + place)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` within the block, on the CPU; PyTorch's own random numbers go on afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step against the gradient of `loss`."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()


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
    observe: Observe | None = None
    """What a training calls at the steps of its learning curve; nothing is ever selected by it."""

    def __post_init__(self) -> None:
        require_precision(self.precision, str(self.device))
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        rounded = self.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = rounded  # cuDNN's default would round the inputs of convolutions
        torch.backends.cuda.matmul.allow_tf32 = rounded

    def place(self, network: Network) -> Network:
        """`network` on the device, its memory channels last."""
        return network.to(self.device).to(memory_format=torch.channels_last)

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for convolutions when `precision` asks for it; losses and maps stay in float32.

        What else is bfloat16 depends on the device: see `protocol.Precision`.
        """
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


class Resumable:
    """A training that a checkpoint continues as if it had never stopped.

    `kept` names the attributes that it needs again. Of networks and optimisers the state is kept, each tensor
    in its memory layout: in another one, sums are taken in another order. Everything else is kept as it is.
    """

    kept: ClassVar[tuple[str, ...]]
    execution: Execution

    def state(self) -> State:
        """What a checkpoint holds."""
        parts = {name: getattr(self, name) for name in self.kept}
        return {name: dict(p.state_dict()) if isinstance(p, _STATEFUL) else p for name, p in parts.items()}

    def resume(self) -> None:
        """Take up the state in the execution's checkpoint, where there is one."""
        saved = self.execution.checkpoint.load() if self.execution.checkpoint else None
        for name, value in (saved or {}).items():
            part = getattr(self, name)
            if isinstance(part, _STATEFUL):
                part.load_state_dict(cast(dict[str, Any], value))
            else:
                setattr(self, name, value)

    def offer(self) -> None:
        """Offer the state to the execution's checkpoint, where there is one. Raises like `save`."""
        if self.execution.checkpoint:
            self.execution.checkpoint.offer(self.state)


def require_device(name: str, precision: Precision) -> None:
    """Raise ValueError for a device that PyTorch does not know or see, or that lacks the precision."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device '{name}': choose cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device '{name}' asked for, but PyTorch sees {count or 'no'} GPU: use device 'cpu'")
    require_precision(precision, device.type)
    if precision == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        gpu = torch.cuda.get_device_name(device)
        raise ValueError(f"precision 'tf32': {gpu} does not have it, use precision 'fp32'")


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
