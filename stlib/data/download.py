"""The official archives of MVTec AD and DTD: download with resume, checksum, unpacking.

Both take the same path: pooch restarts a broken transfer at byte 0, and torchvision's `DTD` class retries
over plain http and unpacks in place, where a half-unpacked folder passes for a whole one.
"""

import logging
import re
import shutil
import tarfile
import time
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import Literal
from zlib import error as ZlibError

import requests
import urllib3
from tqdm import tqdm

from stlib.files import file_lock, require_space, sha256 as sha256_of

Dataset = Literal["mvtec_ad", "dtd"]


@dataclass(frozen=True)
class Archive:
    """Where an official archive is and how to recognise it."""

    file: str  # name under which it is kept
    url: str
    sha256: str
    page: str  # for people: the page that leads to the archive
    folder: str  # the folder inside the archive that becomes the dataset


ARCHIVES: dict[Dataset, Archive] = {
    # URL and SHA-256 as in anomalib's MVTecAD data module since its pull request 3673 (2026-07). MVTec moves
    # the file now and then (anomalib issues 250, 3121, 3608); its content has kept this hash throughout.
    "mvtec_ad": Archive(
        file="mvtec_anomaly_detection.tar.xz",
        url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
        "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad/downloads",
        folder=".",
    ),
    # URL as in torchvision.datasets.DTD, which has an MD5 only; the SHA-256 for the same URL is that of
    # torchvision's prototype datasets (prototype/datasets/_builtin/dtd.py) and of anomalib's Draem.
    "dtd": Archive(
        file="dtd-r1.0.1.tar.gz",
        url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        folder="dtd",
    ),
}

ATTEMPTS = 6
PAUSE = 1.0  # seconds before the second attempt; doubles each time
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds without a byte
CHUNK = 1 << 20
TRANSIENT = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)
MARKER = ".archive.sha256"  # inside the dataset: the hash of the archive it was unpacked from

logger = logging.getLogger(__name__)


class ArchiveError(RuntimeError):
    """An archive could not be downloaded or unpacked; the message says what to do."""


def download(name: Dataset, target: Path, *, url: str | None = None, sha256: str | None = None) -> Path:
    """Download, verify and unpack a dataset; return its folder `target/name`.

    `url` and `sha256` override the table, for when the archive has moved. The archive stays in `target`; a
    broken transfer leaves `<archive>.part`, which the next call continues. A folder that an earlier call
    unpacked from this very archive is returned at once.

    Raises ValueError (malformed `sha256`) before any work, ArchiveError (server, checksum, unreadable
    archive, folder of unknown origin), BlockingIOError while another process downloads the same, and OSError
    (no space, read-only folder).
    """
    source = ARCHIVES[name]
    expected = (source.sha256 if sha256 is None else sha256).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    folder, archive = target / name, target / source.file
    if _is_unpacked(folder, expected):
        return folder
    with file_lock(archive.with_name(archive.name + ".lock")):  # two would append to one `.part`
        if archive.exists():
            _verify(archive, archive, expected)
        else:
            _fetch(url or source.url, archive, expected, source.page)
        _unpack(archive, folder, source.folder, expected)
    return folder


def _is_unpacked(folder: Path, sha256: str) -> bool:
    """Whether `folder` is the content of the archive with this hash. Raises ArchiveError for another."""
    if not folder.exists():
        return False
    marker = folder / MARKER
    if marker.is_file() and marker.read_bytes().strip() == sha256.encode():
        return True
    raise ArchiveError(
        f"{folder} exists but does not state that it was unpacked from the archive with SHA-256 {sha256}. "
        "Move it away and run this again, or use it as your own copy without this command."
    )


def _fetch(url: str, archive: Path, expected: str, page: str) -> None:
    """Download to `<archive>.part` in at most ATTEMPTS transfers, verify, rename to `archive`."""
    part = archive.with_name(archive.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part)
            break
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if not isinstance(error, TRANSIENT) or attempt + 1 == ATTEMPTS:
                raise ArchiveError(
                    f"cannot download {archive.name}: {error}\n"
                    f"By hand: get the archive from {page}, save it as {archive} "
                    f"(expected SHA-256 {expected}) and run this again. If it has moved, pass the new url."
                ) from error
            logger.warning("%s: %s; attempt %d of %d follows", archive.name, error, attempt + 2, ATTEMPTS)
            time.sleep(PAUSE * 2**attempt)
    _verify(part, archive, expected)
    part.replace(archive)


def _transfer(url: str, part: Path) -> None:
    """One request that begins or continues `part`. Whether it is the right file, its checksum tells."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status = response.status_code
        if status == 416:  # nothing is left to send
            return
        if status == 429 or status >= 500:
            raise requests.ConnectionError(f"the server answers {status} {response.reason}")
        response.raise_for_status()
        if status != 206:  # a server that cannot continue begins again
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total:  # images are small already: unpacked they take as much again
            require_space(part.parent, 2 * total - start, "download and unpack")
        bar = tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if start else "wb") as file, bar:
            # Undecoded: a server that labels .tar.gz as gzip-encoded must not have it unpacked in transit.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))


def _verify(path: Path, archive: Path, expected: str) -> None:
    """Compare the SHA-256; a wrong file becomes `<archive>.corrupt`, so that the next call starts afresh."""
    actual = sha256_of(path)
    if actual == expected:
        return
    aside = archive.with_name(archive.name + ".corrupt")
    path.replace(aside)
    raise ArchiveError(
        f"wrong content in {archive.name}: SHA-256 is {actual}, expected {expected}. Moved to {aside}; "
        "run this again for a fresh download, or pass the right sha256 if the official archive has changed."
    )


def _unpack(archive: Path, folder: Path, inner: str, sha256: str) -> None:
    """Unpack a verified archive; its folder `inner` ("." for all of it) becomes `folder`.

    It is unpacked into a sibling that is then renamed: `folder` is whole or absent.
    """
    staging = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed call
    require_space(folder.parent, archive.stat().st_size, "unpack")
    try:
        with tarfile.open(archive) as tar:
            members = tqdm(tar, desc=f"unpack {archive.name}", unit=" files", disable=None)
            tar.extractall(staging, members, filter="data")
        if not (staging / inner).is_dir():
            raise ArchiveError(f"{archive} has no folder {inner!r}: it is not the archive of {folder.name}")
        (staging / inner / MARKER).write_bytes(sha256.encode())
        (staging / inner).rename(folder)
    except (tarfile.TarError, EOFError, LZMAError, ZlibError) as error:
        raise ArchiveError(f"{archive} is not a readable tar archive: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
