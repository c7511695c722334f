"""The checkpoint that a killed training goes on from."""

import io
import os
import signal
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import ClassVar

import torch

from stlib.files import write_atomic

State = Mapping[str, object]
"""Tensors and plain Python values only, so that `weights_only=True` can read it."""


@dataclass
class Checkpoint:
    """One file that a run writes as it goes and reads when it starts again."""

    ending: ClassVar[int] = 0
    """The signal that asked this process to end, if one did: the next `offer` or `save` is its last act."""

    path: Path
    identity: str
    """Whatever makes two runs the same run: config, seed, data, teacher, precision, the code that trains."""
    seconds: float = 120.0
    """Least time between two checkpoints, and what a kill may cost; methods offer one after an epoch or when
    they log. 0 saves at every offer."""
    spent_before: float = field(default=0.0, init=False)
    """Seconds of training that a loaded checkpoint stands for."""
    _begun: float = field(default_factory=time.monotonic, init=False, repr=False)
    _saved: float = field(default_factory=time.monotonic, init=False, repr=False)

    def offer(self, state: Callable[[], State]) -> None:
        """Save if the last checkpoint is old enough, or the process is to end. Raises like `save`."""
        if self.ending or time.monotonic() - self._saved >= self.seconds:
            self.save(state())
            self._saved = time.monotonic()

    def save(self, state: State) -> None:
        """Replace the checkpoint. Raises OSError when it cannot be written; the old one then stays.

        Raises SystemExit, with the status of a process that a signal ended, where this one is `ending`.
        """
        buffer = io.BytesIO()
        spent = self.spent_before + time.monotonic() - self._begun
        torch.save({"identity": self.identity, "spent": spent, "state": dict(state)}, buffer)
        write_atomic(self.path, buffer.getbuffer())
        if self.ending:
            sys.stderr.write(f"saved after {spent:.0f} s of training: the same command continues\n")
            raise SystemExit(128 + self.ending)

    def load(self) -> State | None:
        """The saved state, or None without one for this run.

        A damaged file, and one of a run of other data, settings or code, are set aside with a warning: hours
        may be in them. The latter is found again when that run is back.
        """
        state, kept = self._load(), self._aside(self.identity)
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
        if identity != self.identity:
            why = "belongs to a run of other data, settings or code of stlib, which alone continues it"
            self._set_aside(self._aside(identity), why)
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

    A training that is over goes on to its record. The same signal once more does what it did before. After
    the block the process dies of the signal: of one that only exits, a shell would go on with its loop.
    """

    def end(number: int, _: FrameType | None) -> None:
        Checkpoint.ending = number
        signal.signal(number, earlier[number])
        again = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        sys.stderr.write(f"\nends at the next checkpoint, if one comes; {again} once more ends at once\n")

    earlier = {int(number): signal.signal(number, end) for number in signals}
    try:
        yield
    except SystemExit:
        if not Checkpoint.ending:
            raise
    finally:
        ended, Checkpoint.ending = Checkpoint.ending, 0
        for number, handler in earlier.items():
            signal.signal(number, handler)
    if ended:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(ended, signal.SIG_DFL)
        os.kill(os.getpid(), ended)
        raise SystemExit(128 + ended)  # where that has not ended it


def _read(path: Path) -> tuple[str, float, State]:
    # torch.load does not compare the archive's checksums: it would accept a flipped bit in a tensor.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    return saved["identity"], saved["spent"], saved["state"]
