"""Checkpoints of a training in progress: whole or absent, tied to their run, never pickled code."""

import io
import signal
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import ClassVar

import torch

from stlib.files import write_atomic

State = Mapping[str, object]
"""Tensors and plain Python values only, so that `weights_only=True` can read it."""

SHARE = 0.02
"""Of the time, what saving may take."""
LONGEST = 600.0
"""Seconds between two checkpoints that SHARE may ask for: one slow save must not put hours at risk."""


@dataclass
class Checkpoint:
    """One file that a run writes as it goes and reads when it starts again."""

    ending: ClassVar[bool] = False
    """Whether this process was asked to end: the next `offer` or `save` is the last thing that it does."""

    path: Path
    identity: str
    """Whatever makes two runs the same run (config, seed, data, teacher, precision); others are ignored."""
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

    def _interval(self) -> float:
        """Seconds between two checkpoints, by what the last one cost."""
        return max(self.seconds, min(self._cost / SHARE, LONGEST)) if self.seconds else 0.0

    def save(self, state: State) -> None:
        """Replace the checkpoint. Raises OSError when it cannot be written; the old one then stays.

        Raises SystemExit, with the status of a process that SIGTERM ended, where this one is `ending`.
        """
        buffer = io.BytesIO()
        spent = self.spent_before + time.monotonic() - self._begun
        torch.save({"identity": self.identity, "spent": spent, "state": dict(state)}, buffer)
        write_atomic(self.path, buffer.getbuffer())
        if self.ending:
            raise SystemExit(128 + signal.SIGTERM)

    def load(self) -> State | None:
        """The saved state, or None without one for this run; a damaged file is set aside, with a warning."""
        if not self.path.is_file():
            return None
        try:
            identity, spent, state = _read(self.path)
        except Exception as error:  # damage shows in any way, from EOFError to UnicodeDecodeError
            aside = self.path.with_suffix(".corrupt")
            self.path.replace(aside)
            warnings.warn(
                f"{self.path} is damaged ({error}); moved to {aside}, training starts over", stacklevel=2
            )
            return None
        if identity != self.identity:
            return None
        self.spent_before = spent
        return state

    def remove(self) -> None:
        """Forget the checkpoint; called once the record is written."""
        self.path.unlink(missing_ok=True)


def save_on_sigterm() -> None:
    """Let SIGTERM end this process with a checkpoint, taken between two steps as every other one.

    A training that is over goes on to its record. A second SIGTERM ends the process at once.
    """

    def end(number: int, _: FrameType | None) -> None:
        Checkpoint.ending = True
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, end)


def _read(path: Path) -> tuple[str, float, State]:
    # torch.load does not compare the archive's checksums: it would accept a flipped bit in a tensor.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    return saved["identity"], saved["spent"], saved["state"]
