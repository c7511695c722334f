"""Bundles into the parts that `workflow/bundle.py` made them of. `workflow/drain.py` calls it.

The standard library only: it lies beside the bundles, where there is no other code yet.
"""

import hashlib
import json
import shutil
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path


def say(work: Path, text: str) -> None:
    """To the terminal and to the log."""
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    (work / "logs").mkdir(parents=True, exist_ok=True)
    with (work / "logs" / "drain.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def unpack(bundle: Path, target: Path) -> None:
    """Unpack one bundle, or nothing of it. Raises ValueError for a damaged or unsafe one, and OSError."""
    with bundle.open("rb") as content:
        if not bundle.stem.endswith(hashlib.file_digest(content, "sha256").hexdigest()[:16]):
            raise ValueError("damaged, copy it again")
    with tarfile.open(bundle, "r:") as archive:
        members = archive.getmembers()
        if odd := [member.name for member in members if not member.isfile()]:
            raise ValueError(f"unsafe, {odd[0]} is no plain file")
        try:
            archive.extractall(target, members, filter="data")
        except OSError:
            for member in members:  # a file that broke off would count as a whole one
                (target / member.name).unlink(missing_ok=True)
            raise


def gather(bundles: Path, work: Path) -> None:
    """Unpack what is new. A part goes to its place once all its files are there: no place is half full.

    Raises ValueError for a part that comes again with other content, and for wheels of another Python.
    """
    incoming, unpacked = work / "incoming", work / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    for bundle in sorted(bundles.glob("*.tar")):
        if not (unpacked / bundle.name).exists():
            try:
                unpack(bundle, incoming)
                (unpacked / bundle.name).touch()
            except (ValueError, OSError, tarfile.TarError) as error:
                say(work, f"{bundle.name} is left out: {error}")
    newest: dict[str, int] = {}
    for _, parts in sets(work):
        newest = parts | newest
    for part, wanted in newest.items():
        source, place = incoming / part, work / part
        if (found := len(files(source))) != wanted:
            if found or not place.exists():
                say(work, f"{part}: {found} of {wanted} files; other bundles of its set are not here")
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            source.rename(place)
        elif files(source) != files(place):
            raise ValueError(
                f"{part} has come again with other content: delete {place} and the records made from it, or "
                f"delete {source} to keep the old one"
            )
        else:
            shutil.rmtree(source) if source.is_dir() else source.unlink()
    install(work)


def files(place: Path) -> dict[str, str]:
    """The SHA-256 of every file below `place`, which may be one itself, by its name there."""
    found = {}
    for path in [place, *place.rglob("*")]:
        if path.is_file():
            with path.open("rb") as content:
                found[path.relative_to(place).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def install(work: Path) -> None:
    """Unpack the wheels into `work/site`. Raises ValueError for one of another Python."""
    site, here = work / "site", f"{sys.version_info.major}.{sys.version_info.minor}"
    for wheel in (work / "wheels").glob("*.whl"):
        tag, binary = wheel.stem.split("-")[-3:-1]
        if tag.startswith("cp") and binary != "abi3" and tag != f"cp{here.replace('.', '')}":
            raise ValueError(f"{wheel} is of another Python: delete it and pack with --python {here}")
        if not (site / wheel.name).exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)  # noqa: S202 - zipfile keeps members inside
            (site / wheel.name).touch()


def sets(work: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Commit, and number of files of each part, of every set of bundles; the one packed last comes first."""
    for listed in sorted((work / "incoming" / "sets").glob("*.json"), reverse=True):
        content = json.loads(listed.read_bytes())
        yield content["commit"], content["parts"]
