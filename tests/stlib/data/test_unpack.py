"""Hostile, broken and interrupted archives."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from stlib.data import unpack as module
from stlib.data.unpack import MARKER, ArchiveError, is_unpacked, unpack

SHA256 = "0" * 64
IMAGE = bytes(range(256)) * 40


def regular(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(IMAGE)
    return info


def special(name: str, kind: bytes, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def negative(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = -1024
    return info


def make(path: Path, *members: tarfile.TarInfo, mode: str = "w:xz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for info in members:
            if info.size < 0:  # tarfile reads such a header, but since Python 3.13 it refuses to write one
                tar.fileobj.write(info.tobuf())
            else:
                tar.addfile(info, io.BytesIO(IMAGE) if info.size else None)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make(tmp_path / "a.tar.xz", regular("bottle/train/0.png"), regular("bottle/test/0.png"))


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_unpacked_folder_is_whole_and_says_where_it_came_from(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mvtec_ad"

    unpack(archive, folder, inner=".", sha256=SHA256)

    assert tree(tmp_path) == {archive.name, "mvtec_ad"} | {f"mvtec_ad/{name}" for name in tree(folder)}
    assert tree(folder) >= {"bottle/train/0.png", "bottle/test/0.png", MARKER}
    assert (folder / "bottle/train/0.png").read_bytes() == IMAGE
    assert is_unpacked(folder, SHA256)


def test_inner_folder_becomes_the_dataset(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.tar.gz", regular("dtd/images/0.jpg"), mode="w:gz")

    unpack(archive, tmp_path / "dtd", inner="dtd", sha256=SHA256)

    assert tree(tmp_path / "dtd") == {"images", "images/0.jpg", MARKER}
    assert tree(tmp_path) >= {"a.tar.gz", "dtd"}
    assert not any(name.startswith(".") for name in tree(tmp_path))


def test_folder_is_unpacked_only_if_the_hash_agrees(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mvtec_ad"
    assert not is_unpacked(folder, SHA256)
    unpack(archive, folder, inner=".", sha256=SHA256)

    with pytest.raises(ArchiveError, match="Move it away"):
        is_unpacked(folder, "1" * 64)
    (folder / MARKER).unlink()
    with pytest.raises(ArchiveError, match="Move it away"):
        is_unpacked(folder, SHA256)


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (regular("../evil"), "leaves the target"),
        (regular("bottle/../../evil"), "leaves the target"),
        (regular("..\\evil"), "leaves the target"),
        (regular("/evil"), "leaves the target"),
        (regular("C:/evil"), "leaves the target"),
        (special("bottle/absolute_link", tarfile.SYMTYPE, "/etc/passwd"), "plain file"),
        (special("bottle/inner_link", tarfile.SYMTYPE, "train"), "plain file"),
        (special("bottle/hard_link", tarfile.LNKTYPE, "bottle/train/0.png"), "plain file"),
        (special("bottle/fifo", tarfile.FIFOTYPE), "plain file"),
        (special("bottle/device", tarfile.CHRTYPE), "plain file"),
        (negative("bottle/negative_size"), "plain file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_unsafe_member_stops_everything_before_the_first_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: tarfile.TarInfo, reason: str
) -> None:
    archive = make(tmp_path / "data" / "a.tar.xz", regular("bottle/train/0.png"), member)
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda *_, **__: pytest.fail("something was written"))

    with pytest.raises(ArchiveError, match=rf"unsafe .*a\.tar\.xz: .*{reason}"):
        unpack(archive, tmp_path / "data" / "mvtec_ad", inner=".", sha256=SHA256)

    assert tree(tmp_path) == {"data", "data/a.tar.xz"}


@pytest.mark.parametrize(("limit", "value"), [("MAX_BYTES", 2 * len(IMAGE)), ("MAX_MEMBERS", 2)])
def test_decompression_bomb_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value - 1)
    with pytest.raises(ArchiveError, match=r"unsafe .*: over \d+ members or \d+ bytes"):
        unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)
    assert tree(tmp_path) == {archive.name}

    monkeypatch.setattr(module, limit, value)
    unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)


@pytest.mark.parametrize("kind", ["page", "cut"])
def test_unreadable_archive_is_named(archive: Path, tmp_path: Path, kind: str) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2] if kind == "cut" else b"<html>please log in</html>")

    with pytest.raises(ArchiveError, match=r"a\.tar\.xz is not a readable tar archive"):
        unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)

    assert tree(tmp_path) == {archive.name}


def test_archive_of_something_else_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="not the archive of dtd"):
        unpack(archive, tmp_path / "dtd", inner="dtd", sha256=SHA256)

    assert tree(tmp_path) == {archive.name}


def test_restrictive_modes_in_the_archive_do_not_lock_the_user_out(tmp_path: Path) -> None:
    locked = special("bottle", tarfile.DIRTYPE, mode=0o000)
    archive = make(tmp_path / "a.tar.xz", locked, regular("bottle/0.png"))

    unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)

    assert (tmp_path / "mvtec_ad/bottle").stat().st_mode & 0o700 == 0o700


def test_missing_space_is_reported_before_writing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * len(IMAGE) - 1))

    with pytest.raises(OSError, match=r"not enough space in .* to unpack"):
        unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)

    assert tree(tmp_path) == {archive.name}


KILLED = """
import os, sys, tarfile
from pathlib import Path
from stlib.data.unpack import unpack

write = tarfile.TarFile.makefile

def die_at_the_second(tar, member, path):
    if "test" in member.name:
        os._exit(9)
    write(tar, member, path)

tarfile.TarFile.makefile = die_at_the_second
unpack(Path(sys.argv[1]), Path(sys.argv[2]), inner=".", sha256="")
"""


def test_killed_unpacking_leaves_nothing_that_looks_whole(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mvtec_ad"
    command = [sys.executable, "-c", KILLED, str(archive), str(folder)]
    killed = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert killed.returncode == 9
    assert any(name.endswith("train/0.png") for name in tree(tmp_path)), "it died before the first file"
    assert not is_unpacked(folder, SHA256)

    unpack(archive, folder, inner=".", sha256=SHA256)

    assert tree(folder) >= {"bottle/train/0.png", "bottle/test/0.png"}
    assert {path.name for path in tmp_path.iterdir()} == {archive.name, "mvtec_ad"}


def test_failed_unpacking_cleans_up(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)

    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "mvtec_ad", inner=".", sha256=SHA256)

    assert tree(tmp_path) == {archive.name}
