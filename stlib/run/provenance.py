"""Where, when and with what a run was made: the runtime block of its record, and the code that trains."""

import hashlib
import logging
import os
import platform
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from stlib.files import in_order, sha256
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.training import release_memory
from stlib.paths import PACKAGE
from stlib.records.schema import Runtime

logger = logging.getLogger(__name__)


def source_hash(package: Path) -> str:
    """SHA-256 over (path, content) of every source file of what trains: methods, networks and data.

    Without those that only fetch or check data: a changed message there sets no checkpoint aside.
    """
    digest = hashlib.sha256()
    files = (path for part in ("data", "methods", "nn") for path in in_order((package / part).rglob("*.py")))
    for path in files:
        if path.relative_to(package).as_posix() not in ("data/check.py", "data/download.py"):
            digest.update(f"{path.relative_to(package).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


TRAINING_CODE = source_hash(PACKAGE)
"""Of the code that this process runs: read once, as files may change while a notebook goes on."""


class Clock:
    """Times a run and describes where it ran."""

    def __init__(self, device: torch.device, checkpoint: Checkpoint | None = None) -> None:
        """`checkpoint` knows how long earlier attempts at this run trained."""
        self.device, self.checkpoint = device, checkpoint
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
            Path("/proc/self/clear_refs").write_bytes(b"5")


def peak_memory(device: torch.device) -> int:
    """Peak of this process in bytes: allocated on a GPU, or resident; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # ru_maxrss would start at what the parent held when it forked
        status = Path("/proc/self/status").read_bytes()
        return int(status.split(b"VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        try:
            import resource  # here, since Windows has none
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def checkout() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether `stlib` differs from it; (None, None) outside git.

    A copy without `.git` names its commit in the variable `STLIB_COMMIT`, and with 0 or 1 in `STLIB_DIRTY`
    whether it was changed. A repository that only surrounds a copy does not track its files and names none.

    Raises ValueError for another value of `STLIB_DIRTY`.
    """
    if commit := os.environ.get("STLIB_COMMIT"):
        told = os.environ.get("STLIB_DIRTY", "")
        if told not in ("", "0", "1"):
            raise ValueError(f"STLIB_DIRTY={told}: give 0 (the commit's code) or 1 (code changed since)")
        return commit, bool(int(told)) if told else None
    try:
        _git("ls-files", "--error-unmatch", "--", "__init__.py")
        changed = _git("status", "--porcelain", "--untracked-files=all", "--", ".")
        return _git("rev-parse", "HEAD"), bool(changed)
    except (OSError, subprocess.CalledProcessError) as error:
        if (PACKAGE.parent / ".git").exists():
            words = getattr(error, "stderr", b"").decode(errors="replace").strip() or error
            told = "no commit is recorded (%s): name it in STLIB_COMMIT, or let git read (safe.directory)"
            logger.warning(told, words)
        return None, None


def _git(*arguments: str) -> str:
    """What git prints about the repository around the package, though a hook's variables name another."""
    hooks = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
    here = {name: value for name, value in os.environ.items() if name not in hooks}
    command = ["git", "-C", str(PACKAGE), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, env=here)  # noqa: S603
    return done.stdout.decode(errors="replace").strip()
