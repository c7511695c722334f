"""Where, when and with what a run was made: the runtime block of its record, and the code that trains."""

import hashlib
import os
import platform
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from stlib.files import sha256
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.training import release_memory
from stlib.paths import PACKAGE
from stlib.records.schema import Runtime


def source_hash(package: Path) -> str:
    """SHA-256 over (path, content) of every source file of what trains: methods, networks and data."""
    digest = hashlib.sha256()
    for part in ("data", "methods", "nn"):
        for path in sorted((package / part).rglob("*.py")):
            digest.update(f"{path.relative_to(package).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


TRAINING_CODE = source_hash(PACKAGE)
"""Of the code that this process runs: read once, as files may change while a notebook goes on."""


class Clock:
    """Times a run and describes where it ran."""

    def __init__(
        self, device: torch.device, checkpoint: Checkpoint | None = None, *, compiled: bool = False
    ) -> None:
        """`checkpoint` knows how long earlier attempts at this run trained."""
        self.device, self.checkpoint, self.compiled = device, checkpoint, compiled
        self.started = datetime.now(UTC)
        self.begin = time.perf_counter()
        self.train_seconds = 0.0
        self.commit, self.dirty = checkout()  # now: it may have moved on when a long run ends
        forget_peak(device)

    def trained(self) -> None:
        """Training is over, evaluation begins."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the queue may still be full
        self.train_seconds = time.perf_counter() - self.begin

    def runtime(self) -> Runtime:
        """The record's runtime block, as of now."""
        total = time.perf_counter() - self.begin
        train = self.train_seconds or total
        earlier = self.checkpoint.spent_before if self.checkpoint else 0.0
        names = ("torchvision", "numpy", "scipy", "pillow")
        return Runtime(
            started=self.started,
            device=processor(self.device),
            threads=torch.get_num_threads(),
            train_seconds=round(train + earlier, 2),
            evaluate_seconds=round(total - train, 2),
            peak_memory_mb=round(peak_memory(self.device) / 2**20, 1),
            versions={"python": platform.python_version(), "torch": torch.__version__}
            | {name: version(name) for name in names},
            compiled=self.compiled,
            commit=self.commit,
            dirty=self.dirty,
        )


def processor(device: torch.device) -> str:
    """The name of what computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {_cpu_model()}"


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` start anew, where the system can: a process may make several runs."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # a device with an index does not start CUDA by itself
        torch.cuda.reset_peak_memory_stats(device)
    else:
        release_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Peak of this process in bytes: allocated on a GPU, or resident; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # ru_maxrss would start at what the parent held when it forked
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        try:
            import resource  # here, since Windows has none
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def checkout() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether `stlib` differs from it; (None, None) outside git.

    A copy without `.git` names its commit in the variable `STLIB_COMMIT`, and with 0 or 1 in `STLIB_DIRTY`
    whether it was changed. They come before git, which may find a repository that only surrounds the copy.
    """
    if commit := os.environ.get("STLIB_COMMIT"):
        return commit, {"0": False, "1": True}.get(os.environ.get("STLIB_DIRTY", ""))

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--", ".").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None
