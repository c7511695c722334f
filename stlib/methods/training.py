"""What all trainings share: recipe, device, precision, and the checkpoint that a killed one goes on from."""

import ctypes
import io
import os
import shutil
import signal
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar, cast

import torch
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn

from stlib.files import write_atomic
from stlib.methods.replay import Replayed
from stlib.protocol import IMAGE_SIZE, Metric, Precision, require_precision

Progress = Callable[[int, int, str], None]
"""Called with (epochs or steps done, total, one line of state)."""

Observe = Callable[[int], Mapping[Metric, float]]
"""Called with the steps of the last stage that are done; returns the metrics on the test set."""

Network = TypeVar("Network", bound=nn.Module)

State = Mapping[str, object]
"""Tensors and plain Python values only, so that `weights_only=True` can read it."""

_STATEFUL = (nn.Module, torch.optim.Optimizer)

LAYOUT = 2
"""Raised when a training keeps other things: checkpoints of earlier code are then set aside, not misread."""
SHARE = 0.02
"""Of the time, what saving may take."""
LONGEST = 600.0
"""Seconds between two checkpoints that SHARE may ask for: one slow save must not put hours at risk."""


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


@dataclass
class Checkpoint:
    """One file that a run writes as it goes and reads when it starts again."""

    ending: ClassVar[int] = 0
    """The signal that asked this process to end, if one did: the next `offer` or `save` is its last act."""

    path: Path
    identity: str
    """Whatever makes two runs the same run (config, seed, data, teacher, precision)."""
    seconds: float = 60.0
    """Least time between two checkpoints; methods offer one after an epoch or when they log. It grows, up to
    LONGEST, until saving takes no more than SHARE of it; 0 saves at every offer."""
    spent_before: float = field(default=0.0, init=False)
    """Seconds of training that a loaded checkpoint stands for."""
    _begun: float = field(default_factory=time.monotonic, init=False, repr=False)
    _saved: float = field(default_factory=time.monotonic, init=False, repr=False)
    _cost: float = field(default=0.0, init=False, repr=False)

    def offer(self, state: Callable[[], State]) -> None:
        """Save if the last checkpoint is old enough, or the process is to end. Raises like `save`."""
        begin = time.monotonic()
        if self.ending or begin - self._saved >= self._interval():
            self.save(state())
            self._saved = time.monotonic()
            self._cost = self._saved - begin

    @property
    def _identity(self) -> str:
        return f"layout {LAYOUT}|{self.identity}"

    def _interval(self) -> float:
        """Seconds between two checkpoints, by what the last one cost."""
        return max(self.seconds, min(self._cost / SHARE, LONGEST)) if self.seconds else 0.0

    def save(self, state: State) -> None:
        """Replace the checkpoint. Raises OSError when it cannot be written; the old one then stays.

        Raises SystemExit, with the status of a process that a signal ended, where this one is `ending`.
        """
        buffer = io.BytesIO()
        spent = self.spent_before + time.monotonic() - self._begun
        torch.save({"identity": self._identity, "spent": spent, "state": dict(state)}, buffer)
        write_atomic(self.path, buffer.getbuffer())
        if self.ending:
            sys.stderr.write(f"saved after {spent:.0f} s of training: the same command continues\n")
            raise SystemExit(128 + self.ending)

    def load(self) -> State | None:
        """The saved state, or None without one for this run.

        A damaged file, and one of a run of other data, settings or code, are set aside with a warning: hours
        may be in them. The latter is found again when that run is back.
        """
        state, kept = self._load(), self._aside(self._identity)
        if state is None and kept.is_file():
            kept.replace(self.path)
            state = self._load()
        return state

    def _load(self) -> State | None:
        if not self.path.is_file():
            return None
        try:
            identity, spent, state = _read(self.path)
        except Exception as error:  # damage shows in any way, from EOFError to UnicodeDecodeError
            self._set_aside(self.path.with_suffix(".corrupt"), f"is damaged ({error})")
            return None
        if identity != self._identity:
            self._set_aside(self._aside(identity), "belongs to a run of other data, settings or code")
            return None
        self.spent_before = spent
        return state

    def _aside(self, identity: str) -> Path:
        return self.path.with_suffix(f".{sha256(identity.encode()).hexdigest()[:8]}.other")

    def _set_aside(self, aside: Path, why: str) -> None:
        self.path.replace(aside)
        warnings.warn(f"{self.path} {why}; moved to {aside}", stacklevel=4)

    def remove(self) -> None:
        """Forget the checkpoint; called once the record is written."""
        self.path.unlink(missing_ok=True)


@contextmanager
def end_with_checkpoint(*signals: signal.Signals) -> Iterator[None]:
    """Let `signals` end a training within the block with a checkpoint, taken between two steps as always.

    A training that is over goes on to its record. The same signal once more does what it did before.
    """

    def end(number: int, _: FrameType | None) -> None:
        Checkpoint.ending = number
        signal.signal(number, earlier[number])
        if number == signal.SIGINT:
            sys.stderr.write("\nends at the next checkpoint, if one comes; Ctrl-C once more ends at once\n")

    earlier = {int(number): signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        Checkpoint.ending = 0
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _read(path: Path) -> tuple[str, float, State]:
    # torch.load does not compare the archive's checksums: it would accept a flipped bit in a tensor.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    return saved["identity"], saved["spent"], saved["state"]


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

    def replayed(self) -> Replayed:
        """What a training step computes its gradients through; compiled networks are left to the compiler."""
        return Replayed(self.device if self.device.type == "cuda" and not self.compiled else None)

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
