"""Downloads against a local server that breaks off, lies and serves broken archives."""

import hashlib
import io
import random
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from stlib.data import download as module
from stlib.data.download import ARCHIVES, ArchiveError, download
from stlib.files import file_lock

FILE = ARCHIVES["mvtec_ad"].file
IMAGE = random.Random(0).randbytes(50_000)


def tarball(*names: str, content: bytes = IMAGE, mode: str = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


GOOD = tarball("bottle/train/good/000.png", "bottle/test/good/000.png")


class Server(ThreadingHTTPServer):
    """Serves `body`; each request uses up one entry of `script` (a status or a kind of misbehaviour)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = GOOD
        self.script: list[str | int] = []
        self.seen: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{FILE}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, body = self.server, self.server.body
        server.seen.append(dict(self.headers))
        behaviour = server.script.pop(0) if server.script else "serve"
        if isinstance(behaviour, int):
            self.send_error(behaviour)
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        ranged = "Range" in self.headers and behaviour != "no range"
        if ranged and start >= len(body):
            self.send_error(416)
            return
        part = body[start:] if ranged else body
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if behaviour != "no length":
            self.send_header("Content-Length", str(len(part)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if behaviour == "break" else part)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server: Server, target: Path, expected: bytes | None = None) -> Path:
    return download("mvtec_ad", target, url=server.url, sha256=digest(expected or server.body))


def tree(folder: Path) -> set[str]:
    """What is there, but for the lock, which stays."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock"}


def test_an_archive_is_verified_unpacked_and_kept_and_is_needed_no_more(server: Server, tmp_path: Path):
    folder = fetch(server, tmp_path / "data")
    assert folder == tmp_path / "data" / "mvtec_ad"
    assert (folder / "bottle/test/good/000.png").read_bytes() == IMAGE
    assert {path.name for path in folder.parent.iterdir()} == {FILE, f"{FILE}.lock", "mvtec_ad"}
    (folder.parent / FILE).unlink()
    assert fetch(server, tmp_path / "data") == folder
    assert len(server.seen) == 1


def test_dtd_loses_the_wrapping_folder_of_its_archive(server: Server, tmp_path: Path):
    server.body = tarball("dtd/images/banded/banded_0002.jpg", mode="w:gz")
    folder = download("dtd", tmp_path, url=server.url, sha256=digest(server.body))
    assert (folder / "images/banded/banded_0002.jpg").read_bytes() == IMAGE


def test_a_broken_transfer_is_continued_by_the_next_attempt(server: Server, tmp_path: Path):
    server.script = ["break"]
    fetch(server, tmp_path)
    assert [request.get("Range") for request in server.seen] == [None, f"bytes={len(GOOD) // 2}-"]
    assert (tmp_path / FILE).read_bytes() == GOOD


def test_what_an_earlier_call_left_is_continued(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.script = ["break"]
    with pytest.raises(ArchiveError, match="cannot download"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{FILE}.part").read_bytes() == GOOD[: len(GOOD) // 2]
    fetch(server, tmp_path)
    assert server.seen[1]["Range"] == f"bytes={len(GOOD) // 2}-"
    assert tree(tmp_path) >= {FILE, "mvtec_ad"}


def test_a_server_that_cannot_continue_is_read_from_the_start(server: Server, tmp_path: Path):
    server.script = ["break", "no range"]
    fetch(server, tmp_path)
    assert "Range" in server.seen[1]
    assert (tmp_path / FILE).read_bytes() == GOOD


def test_a_transfer_that_was_killed_when_it_was_whole_is_not_made_again(server: Server, tmp_path: Path):
    (tmp_path / f"{FILE}.part").write_bytes(GOOD)
    assert fetch(server, tmp_path).is_dir()
    assert len(server.seen) == 1  # answered by 416


def test_a_beginning_of_another_file_is_set_aside_and_the_next_call_starts_afresh(
    server: Server, tmp_path: Path
):
    (tmp_path / f"{FILE}.part").write_bytes(b"anything")
    with pytest.raises(ArchiveError, match="wrong content"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).is_dir()
    assert "Range" not in server.seen[1]


def test_an_archive_of_unknown_length_that_is_labelled_as_encoded_stays_packed(
    server: Server, tmp_path: Path
):
    server.body, server.headers = tarball("bottle/0.png", mode="w:gz"), {"Content-Encoding": "gzip"}
    server.script = ["no length"]
    fetch(server, tmp_path)
    assert (tmp_path / FILE).read_bytes() == server.body


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 3), (429, 3)])
def test_a_failure_names_the_way_by_hand_after_bounded_attempts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, requests: int
):
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    server.script = [status] * 9
    with pytest.raises(ArchiveError) as error:
        fetch(server, tmp_path)
    for hint in (str(status), ARCHIVES["mvtec_ad"].page, str(tmp_path / FILE), digest(GOOD), "url"):
        assert hint in str(error.value)
    assert len(server.seen) == requests
    assert tree(tmp_path) == set()


def test_an_archive_put_there_by_hand_is_used(server: Server, tmp_path: Path):
    (tmp_path / FILE).write_bytes(GOOD)
    assert fetch(server, tmp_path).is_dir()
    assert server.seen == []


@pytest.mark.parametrize("by_hand", [True, False])
def test_another_content_is_set_aside_and_never_unpacked(server: Server, tmp_path: Path, by_hand: bool):
    server.body = tarball("bottle/other.png")
    if by_hand:
        (tmp_path / FILE).write_bytes(server.body)
    with pytest.raises(ArchiveError, match="wrong content") as error:
        fetch(server, tmp_path, expected=GOOD)
    assert digest(GOOD) in str(error.value)
    assert digest(server.body) in str(error.value)
    assert tree(tmp_path) == {f"{FILE}.corrupt"}


def test_a_folder_of_another_origin_is_neither_returned_nor_touched(server: Server, tmp_path: Path):
    folder = fetch(server, tmp_path)
    (folder / "bottle/own.png").touch()
    server.body = tarball("bottle/newer.png")
    for _ in range(2):
        with pytest.raises(ArchiveError, match="Move it away"):
            fetch(server, tmp_path)
        (folder / module.MARKER).unlink(missing_ok=True)
    assert (folder / "bottle/own.png").exists()
    assert len(server.seen) == 1


def test_an_archive_with_a_path_that_leaves_the_target_is_not_unpacked(server: Server, tmp_path: Path):
    server.body = tarball("bottle/train/good/000.png", "../evil.png")
    with pytest.raises(ArchiveError, match=r"not a readable tar archive: '\.\./evil\.png'"):
        fetch(server, tmp_path / "data")
    assert tree(tmp_path) == {"data", f"data/{FILE}"}


@pytest.mark.parametrize("content", [b"<html>please log in</html>", GOOD[: len(GOOD) // 2]])
def test_an_unreadable_archive_is_named(server: Server, tmp_path: Path, content: bytes):
    server.body = content
    with pytest.raises(ArchiveError, match=r"tar\.xz is not a readable tar archive:"):
        fetch(server, tmp_path)
    assert tree(tmp_path) == {FILE}


@pytest.mark.parametrize("by_hand", [True, False])
def test_missing_space_is_told_before_the_work(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(GOOD) - 1))
    if by_hand:
        (tmp_path / FILE).write_bytes(GOOD)
    with pytest.raises(OSError, match=r"not enough space in .*unpack"):
        fetch(server, tmp_path)
    assert tree(tmp_path) == ({FILE} if by_hand else set())


def test_an_unpacking_that_was_killed_or_failed_leaves_nothing_that_looks_whole(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = tarfile.TarFile.makefile

    def full(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        if "test" in member.name:
            raise OSError(28, "No space left on device")
        write(tar, member, path)

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path)
    monkeypatch.setattr(tarfile.TarFile, "makefile", write)
    assert tree(tmp_path) == {FILE}
    killed = tmp_path / ".mvtec_ad.unpacking/bottle"  # what a kill leaves
    killed.mkdir(parents=True)
    (killed / "half.png").touch()
    folder = fetch(server, tmp_path)
    assert {path.name for path in folder.rglob("*.*")} == {"000.png", module.MARKER}
    assert not killed.exists()


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64])
def test_a_malformed_hash_is_refused_before_any_work(tmp_path: Path, sha256: str):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        download("mvtec_ad", tmp_path / "new", sha256=sha256)
    assert not (tmp_path / "new").exists()


def test_a_second_download_at_the_same_time_is_refused(server: Server, tmp_path: Path):
    with file_lock(tmp_path / f"{FILE}.lock"), pytest.raises(BlockingIOError, match="another process is at"):
        fetch(server, tmp_path)
    assert not server.seen
