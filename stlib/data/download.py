"""The official archives of MVTec AD and DTD: download with resume, checksum, safe extraction.

Both take the same path: pooch restarts a broken transfer at byte 0, and torchvision's `DTD` class retries
over plain http and unpacks in place, where a half-unpacked folder passes for a whole one.
"""

import json
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests
import urllib3
from tqdm import tqdm

from stlib import files
from stlib.data.unpack import ArchiveError, is_unpacked, unpack

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

logger = logging.getLogger(__name__)


def download(name: Dataset, target: Path, *, url: str | None = None, sha256: str | None = None) -> Path:
    """Download, verify and unpack a dataset; return its folder `target/name`.

    `url` and `sha256` override the table, for when the archive has moved. The archive stays in `target`; a
    broken transfer leaves `<archive>.part`, which the next call continues. A folder that an earlier call
    unpacked from this very archive is returned at once.

    Raises ValueError (unknown name, malformed `sha256`) before any work, ArchiveError (server, checksum,
    unsafe or unreadable archive, folder of unknown origin), BlockingIOError while another process downloads
    the same, and OSError (no space, read-only folder).
    """
    if name not in ARCHIVES:
        raise ValueError(f"unknown dataset {name!r}: choose one of {', '.join(ARCHIVES)}")
    source = ARCHIVES[name]
    expected = (source.sha256 if sha256 is None else sha256).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    folder, archive = target / name, target / source.file
    if is_unpacked(folder, expected):
        return folder
    target.mkdir(parents=True, exist_ok=True)
    with files.file_lock(archive.with_name(archive.name + ".lock")):  # two would append to one `.part`
        if archive.exists():
            _verify(archive, archive, expected)
        else:
            _fetch(url or source.url, archive, expected, source.page)
        unpack(archive, folder, inner=source.folder, sha256=expected)
    return folder


def _fetch(url: str, archive: Path, expected: str, page: str) -> None:
    """Download to `<archive>.part` in at most ATTEMPTS transfers, verify, rename to `archive`."""
    part, note = (archive.with_name(archive.name + suffix) for suffix in (".part", ".part.json"))
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part, note)
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
    note.unlink(missing_ok=True)


def _transfer(url: str, part: Path, note: Path) -> None:
    """One request that begins or continues `part`; `note` has the size and validator of the whole."""
    known = json.loads(note.read_bytes()) if part.exists() and note.exists() else {}
    start = part.stat().st_size if known else 0
    if start and start == known["size"]:
        return
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known["validator"]:
            headers["If-Range"] = known["validator"]
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, served = response.status_code, response.headers.get("Content-Range", "")
        fits = start and served.startswith(f"bytes {start}-") and served.endswith(f"/{known['size']}")
        if status == 416 or (status == 206 and not fits):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the file on the server has changed; starting from byte 0")
        if status == 429 or status >= 500:
            raise requests.ConnectionError(f"the server answers {status} {response.reason}")
        response.raise_for_status()
        _write(response, part, note, start if status == 206 else 0)


def _write(response: requests.Response, part: Path, note: Path, start: int) -> None:
    """Append the response's body to the first `start` bytes of `part`, with a progress bar on a terminal."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    files.require_space(part.parent, (total or 0) - start, "download")
    with part.open("ab" if start else "wb") as file:
        if not start:  # `part` is empty by now: the new note never describes an older beginning
            etag = response.headers.get("ETag", "W/")  # If-Range takes no weak tags
            validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            files.write_atomic(note, json.dumps({"size": total, "validator": validator}).encode())
        with tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar:
            # Undecoded: a server that labels .tar.gz as gzip-encoded must not have it unpacked in transit.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))


def _verify(path: Path, archive: Path, expected: str) -> None:
    """Compare the SHA-256; a wrong file becomes `<archive>.corrupt`, so that the next call starts afresh."""
    actual = files.sha256(path)
    if actual == expected:
        return
    aside = archive.with_name(archive.name + ".corrupt")
    path.replace(aside)
    raise ArchiveError(
        f"wrong content in {archive.name}: SHA-256 is {actual}, expected {expected}. Moved to {aside}; "
        "run this again for a fresh download, or pass the right sha256 if the official archive has changed."
    )
