"""Pack what runs need on a machine without a network; `workflow/drain.py` makes them there.

    python workflow/bundle.py out --categories pill bottle --teacher resnet18.pth --textures data/dtd

`out` then holds bundles of at most `--size` MiB, and `drain.py`, which unpacks them in any number and order.
The tree is the commit HEAD: what is not committed stays here. Needs git; pip and a network for wheels.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
PLATFORMS = "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"
"""Of the wheels: Linux on x86-64, as on nearly every GPU machine; pip takes only the tags that are named."""


@dataclass(frozen=True)
class Item:
    """One file of a bundle."""

    part: str
    """What is of use only as a whole: `tree/<commit>`, `data/<category>`, `textures/<folder>`, one file."""
    name: str
    """Path in the bundle: the part, or below it."""
    content: Path | bytes

    def header(self) -> tarfile.TarInfo:
        """Its header in the archive: name and size, nothing of this machine."""
        info = tarfile.TarInfo(self.name)
        info.size = len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size
        return info

    def packed(self) -> int:
        """Bytes that it takes in the archive."""
        info = self.header()
        return len(info.tobuf(tarfile.PAX_FORMAT)) + -(-info.size // 512) * 512


def split(items: Iterable[Item], limit: int, taken: int = 0) -> list[list[Item]]:
    """The items in their order, in as many bundles as it takes; none exceeds `limit` bytes as an archive.

    `taken`: bytes of each that hold something else. Raises ValueError for a file that no bundle can hold.
    """
    # an archive ends with two blocks of zeros and is a multiple of its record size
    room = limit // tarfile.RECORDSIZE * tarfile.RECORDSIZE - 2 * tarfile.BLOCKSIZE - taken
    bundles: list[list[Item]] = [[]]
    left = room
    for item in items:
        size = item.packed()
        if size > room:
            raise ValueError(f"{item.name} takes {size / MIB:.1f} MiB: choose a larger --size")
        if size > left:
            bundles.append([])
            left = room
        bundles[-1].append(item)
        left -= size
    return bundles


def git(*arguments: str) -> bytes:
    """What git prints about this checkout."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


def tree(commit: str) -> Iterator[Item]:
    """The committed files."""
    part = f"tree/{commit[:12]}"
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                yield Item(part, f"{part}/{member.name}", file.read())


def folder(part: str, source: Path) -> list[Item]:
    """All files below `source`. Raises ValueError when there are none."""
    items = [
        Item(part, f"{part}/{path.relative_to(source).as_posix()}", path)
        for path in sorted(source.rglob("*"))
        if path.is_file()
    ]
    if not items:
        raise ValueError(f"{source} holds no files: name another folder")
    return items


def file(place: str, source: Path) -> Item:
    """A part of one file."""
    if not source.is_file():
        raise ValueError(f"{source} is no file: name another one")
    return Item(f"{place}/{source.name}", f"{place}/{source.name}", source)


def write(items: list[Item], out: Path, start: str) -> Path:
    """The archive, its name ending with its own hash, so that a damaged copy is noticed."""
    unnamed = out / ".bundle.tar"
    with tarfile.open(unnamed, "w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            content = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
            archive.addfile(item.header(), io.BytesIO(content))
    with unnamed.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return unnamed.rename(out / f"{start}-{digest[:16]}.tar")


def pack(options: argparse.Namespace, wheels: Path) -> None:
    """Everything asked for, into `options.out`."""
    commit = git("rev-parse", "HEAD").decode().strip()
    if changed := git("status", "--porcelain").decode().strip():
        print(f"dirty: {len(changed.splitlines())} changed files stay here")
    items = list(tree(commit))
    items += [file("teacher", options.teacher)] if options.teacher else []
    if options.wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", options.python, "--dest", str(wheels)]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, *options.wheels], check=True)
        items += [file("wheels", wheel) for wheel in sorted(wheels.glob("*.whl"))]
    if options.textures:
        items += folder("textures/dtd/images", options.textures / "images")
    for category in options.categories:
        items += folder(f"data/{category}", options.data / category)
    parts = Counter(item.part for item in items)
    packed = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    manifest = {"commit": commit, "packed": packed, "parts": parts}
    listed = Item("sets", f"sets/{packed}-{commit[:12]}.json", json.dumps(manifest, indent=1).encode())
    bundles = split(items, int(options.size * MIB), listed.packed())
    options.out.mkdir(parents=True, exist_ok=True)
    for number, bundle in enumerate(bundles, 1):
        path = write([listed, *bundle], options.out, f"{packed}-{number:03}of{len(bundles):03}")
        print(f"{path.name}  {path.stat().st_size / MIB:.1f} MiB")
        for part, count in Counter(item.part for item in bundle).items():
            print(f"    {part}: {count} of {parts[part]} files")
    for script in ("drain.py", "scheduler.py", "unpacking.py"):
        (options.out / script).write_bytes(git("show", f"HEAD:workflow/{script}"))


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the bundles")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "mvtec_ad", help="root of the dataset")
    parser.add_argument("--categories", nargs="*", default=[], help="which of it")
    parser.add_argument("--teacher", type=Path, help="weight file")
    parser.add_argument("--textures", type=Path, help="folder of DTD")
    parser.add_argument("--wheels", nargs="*", default=[], help="missing there, such as torchvision==0.26.0")
    parser.add_argument("--python", default="3.12", help="for which the wheels are")
    parser.add_argument("--size", type=float, default=60, help="most MiB of a bundle")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as wheels:
            pack(options, Path(wheels))
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
