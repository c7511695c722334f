"""Atomic writes, locks, hashes and the order of paths."""

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from threading import Timer

import pytest
from filelock import SoftFileLock

from stlib import files
from stlib.files import file_lock, in_order, require_space, require_writable, write_atomic
from stlib.paths import PACKAGE


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_a_file(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "map.tiff", b"of a confidential part")
    finally:
        os.umask(before)
    assert (tmp_path / "map.tiff").stat().st_mode & 0o777 == mode


def test_folders_are_made_and_an_old_file_is_replaced_and_nothing_else_stays(tmp_path: Path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"\x00new\n")
    assert path.read_bytes() == b"\x00new\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_one_and_its_file_is_written_or_told_before_the_work(tmp_path: Path):
    target, link = tmp_path / "far" / "file.bin", tmp_path / "near" / "current.bin"
    write_atomic(target, b"old")
    link.parent.mkdir()
    link.symlink_to(target)
    require_writable(link, b"old")
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert {*tmp_path.rglob("*.*")} == {target, link}
    target.unlink()
    (tmp_path / "far").rmdir()
    (tmp_path / "far").touch()  # no folder can be made there
    with pytest.raises(OSError, match=f"cannot write {link}"):
        require_writable(link)


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file.txt"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=rf"^cannot write {path} \(No space left on device\): make room, or name"
    ):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_was_written_here_or_is_empty_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    for replaceable in (b"by mark, known", b""):
        path.write_bytes(replaceable)
        require_writable(path, b"mark")
    path.write_bytes(b"..." * 9999 + b"mark")
    monkeypatch.setattr(Path, "read_bytes", None)  # it may be larger than memory
    require_writable(path, b"mark")
    path.write_bytes(b"a photograph")
    with pytest.raises(FileExistsError, match="file is a file of another kind, which would be lost: name"):
        require_writable(path, b"mark")


def test_what_is_no_place_for_a_file_is_refused_before_the_work_and_at_its_end(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "below", Path("/dev/null")):
        with pytest.raises(OSError, match=rf"{path} (is a|\()"):
            require_writable(path)
    for path in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=rf"^cannot write {path} \("):
            write_atomic(path, b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}


def test_a_lock_is_one_process_s_until_it_ends_even_by_sigkill(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "runs" / "lock"
    code = (
        f"from stlib.files import file_lock\nfrom pathlib import Path\nwith file_lock(Path({str(path)!r})):\n"
    )
    code += "    print('held', flush=True)\n    input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match=f"another process is at work here and holds {path}$"):
            file_lock(path).__enter__()
        Timer(0.3, other.kill).start()
        with file_lock(path, wait=True):
            assert f"waiting: another process is at work here and holds {path}" in caplog.text
        caplog.clear()
    with file_lock(path, wait=True):
        assert not caplog.text


def test_a_lock_that_a_kill_has_left_on_a_disk_without_locks_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "FileLock", SoftFileLock)  # what filelock takes there
    with (
        SoftFileLock(tmp_path / "lock"),
        pytest.raises(BlockingIOError, match="if there is none, a kill has left this file: delete it"),
    ):
        file_lock(tmp_path / "lock").__enter__()


def test_the_package_imports_nothing_that_windows_has_not():
    for path in PACKAGE.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"(?m)^(import|from) (fcntl|resource)\b", code), path


def test_missing_space_is_told_for_a_folder_that_is_not_there_yet(tmp_path: Path):
    require_space(tmp_path / "a" / "b", 1, "run")
    with pytest.raises(OSError, match=r"not enough space in .*a/b to run: 1000000000000\.00 GB needed, "):
        require_space(tmp_path / "a" / "b", 10**21, "run")
    assert list(tmp_path.iterdir()) == []


def test_windows_sorts_paths_as_linux_does():
    """The order decides which images are held out and what fingerprint they have."""
    names = ["a-b/x", "a/x", "a b/x", "a/X", "a/b/c", "a", "B/x", "A/x", "_/x", "a.b", "\u00e9/x", "\u00c9/x"]
    expected = [path.as_posix() for path in sorted(map(PurePosixPath, names))]
    assert [path.as_posix() for path in in_order(map(PureWindowsPath, names))] == expected
    assert [path.as_posix() for path in in_order(PurePosixPath("/", name) for name in names)] == [
        f"/{name}" for name in expected
    ]
