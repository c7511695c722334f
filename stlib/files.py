"""Atomic writes, locks, hashes and free space: a file under its final name is always whole."""

import hashlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

logger = logging.getLogger(__name__)


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Where `path` is a link it stays one, and the file that it names is written.
    Who may read it is left to the umask: it may be of confidential parts. Raises OSError (no space, read-only
    folder), naming file and remedy, with the old file untouched.
    """
    place = _linked(path)
    scratch = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(place)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _linked(path: Path) -> Path:
    """The file that `path` is or links to: a line may know its detector, or a server a report, by a link."""
    return Path(os.path.realpath(path))


def _unwritable(path: Path, error: OSError) -> OSError:
    return OSError(f"cannot write {path} ({error.strerror or error}): make room, or name another place")


@contextmanager
def file_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it however this process ends, SIGKILL included.

    Raises BlockingIOError while another process holds it, unless told to `wait`, which is logged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        told = f"another process is at work here and holds {path}"
        if isinstance(lock, SoftFileLock):  # what FileLock becomes where the system has no locks
            told += "; if there is none, a kill has left this file: delete it"
        if not wait:
            raise BlockingIOError(told) from error
        logger.warning("waiting: %s", told)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def require_writable(path: Path, mark: bytes = b"") -> None:
    """Raise OSError, before the work, unless a file can be written to `path` after it. Makes its folder.

    A file that is there may only be replaced if it is empty or holds `mark`, by which what is written here is
    known: a photograph or another detector may be named by mistake.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    if path.exists() and not (path.is_file() and (not path.stat().st_size or _holds(path, mark))):
        raise FileExistsError(f"{path} is a file of another kind, which would be lost: name another place")
    try:
        folder = _linked(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _holds(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(mark) >= 0  # without reading it whole: it may be larger than memory


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise OSError unless the disk of `folder`, which need not exist yet, has `needed` bytes free."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        sizes = f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        raise OSError(f"not enough space in {folder} to {purpose}: {sizes}. Choose another folder.")


def in_order(paths: Iterable[Path]) -> list[Path]:
    """`paths` as Linux sorts them, part by part and capitals first: on Windows paths alone ignore case."""
    return sorted(paths, key=lambda path: path.parts)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
