"""Atomic writes, locks and hashes: a file under its final name is always whole."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Raises OSError (no space, read-only folder) with the old file untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes private files; records are for everyone
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def sole(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it however this process ends, SIGKILL included.

    Raises BlockingIOError while another process holds it, unless told to `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # left in place: removing it would let a third process lock another file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BlockingIOError(f"another process is at work here and holds {path}") from error
        yield


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
