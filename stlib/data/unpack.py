"""Safe extraction of a dataset's archive: no path leaves the target, no half-unpacked folder looks whole."""

import shutil
import tarfile
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from zlib import error as ZlibError

from tqdm import tqdm

from stlib import files

MAX_MEMBERS = 100_000  # MVTec AD has about 7,000
MAX_BYTES = 16 << 30  # MVTec AD unpacks to about 5 GB
MARKER = ".archive.sha256"  # inside the dataset: the hash of the archive it was unpacked from


class ArchiveError(RuntimeError):
    """An archive could not be downloaded or unpacked; the message says what to do."""


def is_unpacked(folder: Path, sha256: str) -> bool:
    """Whether `folder` is the whole content of the archive with this hash.

    Raises ArchiveError if the folder is there but came from elsewhere.
    """
    if not folder.exists():
        return False
    marker = folder / MARKER
    if marker.is_file() and marker.read_bytes().strip() == sha256.encode():
        return True
    raise ArchiveError(
        f"{folder} exists but does not state that it was unpacked from the archive with SHA-256 {sha256}. "
        "Move it away and run this again, or use it as your own copy without this command."
    )


def unpack(archive: Path, folder: Path, *, inner: str, sha256: str) -> None:
    """Unpack a verified archive; its folder `inner` ("." for all of it) becomes `folder`.

    Unpacks into a sibling and renames, so that `folder` is whole or absent; `sha256`, the archive's hash, is
    written to MARKER. Raises ArchiveError (unsafe, unreadable or wrong archive) and OSError (no space).
    """
    staging = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed call
    try:
        with tarfile.open(archive) as tar:
            members = _checked_members(tar, archive)
            files.require_space(folder.parent, sum(member.size + 4096 for member in members), "unpack")
            staging.mkdir()
            progress = tqdm(members, desc=f"unpack {archive.name}", unit=" files", disable=None)
            tar.extractall(staging, progress, filter="data")
        if not (staging / inner).is_dir():
            raise ArchiveError(f"{archive} has no folder {inner!r}: it is not the archive of {folder.name}")
        files.write_atomic(staging / inner / MARKER, f"{sha256}\n".encode())
        (staging / inner).rename(folder)
    except (tarfile.TarError, EOFError, LZMAError, ZlibError) as error:
        raise ArchiveError(f"{archive} is not a readable tar archive: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _checked_members(tar: tarfile.TarFile, archive: Path) -> list[tarfile.TarInfo]:
    """All members, each checked before anything is written: files and folders inside the target, not too big.

    Links are refused outright: in some Python versions they lead filter="data" astray (CVE-2025-4517).
    Reads the whole archive once.
    """
    members: list[tarfile.TarInfo] = []
    total = 0
    for member in tqdm(tar, desc=f"check {archive.name}", unit=" files", disable=None):
        path = PureWindowsPath(member.name)  # knows drives and both separators
        if path.anchor or ".." in path.parts:
            raise ArchiveError(f"unsafe {archive}: member {member.name!r} leaves the target folder")
        if not (member.isfile() or member.isdir()) or member.size < 0:
            raise ArchiveError(f"unsafe {archive}: member {member.name!r} is not a plain file or folder")
        total += member.size
        if len(members) == MAX_MEMBERS or total > MAX_BYTES:
            raise ArchiveError(f"unsafe {archive}: over {MAX_MEMBERS} members or {MAX_BYTES} bytes unpacked")
        members.append(member)
    return members
