"""Checkpoints of a training in progress: whole or absent, tied to their run, never pickled code."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from stlib.files import write_atomic

State = Mapping[str, object]
"""Tensors and plain Python values only, so that `weights_only=True` can read it."""


@dataclass(frozen=True)
class Checkpoint:
    """One file that a run writes as it goes and reads when it starts again."""

    path: Path
    identity: str
    """Whatever makes two runs the same run (config, seed, data, teacher, precision); others are ignored."""

    def save(self, state: State) -> None:
        """Replace the checkpoint. Raises OSError when it cannot be written; the old one then stays."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "state": dict(state)}, buffer)
        write_atomic(self.path, buffer.getvalue())

    def load(self) -> State | None:
        """The saved state, or None without one for this run; a damaged file is set aside, with a warning."""
        if not self.path.is_file():
            return None
        try:
            identity, state = _read(self.path)
        except Exception as error:  # damage shows in any way, from EOFError to UnicodeDecodeError
            aside = self.path.with_suffix(".corrupt")
            self.path.replace(aside)
            warnings.warn(
                f"{self.path} is damaged ({error}); moved to {aside}, training starts over", stacklevel=2
            )
            return None
        return state if identity == self.identity else None

    def remove(self) -> None:
        """Forget the checkpoint; called once the record is written."""
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, State]:
    # torch.load does not compare the archive's checksums: it would accept a flipped bit in a tensor.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"checksum of {damaged}")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    return saved["identity"], saved["state"]
