"""Downloads against a local server that breaks off, lies and serves hostile archives."""

import hashlib
import importlib.util
import io
import json
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
        self.headers: dict[str, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{FILE}"

    @property
    def validators(self) -> dict[str, str]:
        return {"ETag": f'"{digest(self.body)[:8]}"'} if self.headers is None else self.headers


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
        same = self.headers.get("If-Range") in (None, *server.validators.values())
        ranged = (
            "Range" in self.headers and behaviour != "no range" and (same or behaviour == "ignore If-Range")
        )
        if ranged and start >= len(body):
            self.send_error(416)
            return
        part = body[start:] if ranged else body
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if behaviour != "no length":
            self.send_header("Content-Length", str(len(part)))
        for name, value in server.validators.items():
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


def test_download_verifies_unpacks_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    folder = fetch(server, tmp_path / "data")

    assert folder == tmp_path / "data" / "mvtec_ad"
    assert (folder / "bottle/test/good/000.png").read_bytes() == IMAGE
    assert {path.name for path in (tmp_path / "data").iterdir()} == {FILE, f"{FILE}.lock", "mvtec_ad"}


def test_dtd_loses_the_wrapping_folder_of_its_archive(server: Server, tmp_path: Path) -> None:
    server.body = tarball("dtd/images/banded/banded_0002.jpg", mode="w:gz")

    folder = download("dtd", tmp_path, url=server.url, sha256=digest(server.body))

    assert (folder / "images/banded/banded_0002.jpg").read_bytes() == IMAGE


def test_second_call_needs_neither_server_nor_archive(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / FILE).unlink()

    fetch(server, tmp_path)

    assert len(server.seen) == 1


class Bar:
    """Stands in for tqdm and remembers the transfers shown."""

    shown: list["Bar"]

    def __init__(self, iterable=None, *, total=None, initial=0, **_):
        self.iterable, self.total, self.initial, self.n = iterable, total, initial, initial
        if iterable is None:
            self.shown.append(self)

    def __iter__(self):
        return iter(self.iterable)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, n):
        self.n += n


def test_broken_transfer_resumes_with_range(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bar, "shown", [], raising=False)
    monkeypatch.setattr(module, "tqdm", Bar)
    server.script = ["break"]

    fetch(server, tmp_path)

    half, size = len(GOOD) // 2, len(GOOD)
    first, second = server.seen
    assert "Range" not in first
    assert second["Range"] == f"bytes={half}-"
    assert second["If-Range"] == server.validators["ETag"]
    assert (tmp_path / FILE).read_bytes() == GOOD
    assert [(bar.initial, bar.n, bar.total) for bar in Bar.shown] == [(0, half, size), (half, size, size)]


@pytest.mark.parametrize(
    ("validators", "sent"),
    [
        ({"ETag": '"one"'}, '"one"'),
        (
            {"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            "Mon, 01 Jan 2024 00:00:00 GMT",
        ),
        ({"ETag": 'W/"one"'}, None),
        ({}, None),
    ],
)
def test_next_call_resumes_what_an_earlier_one_left(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validators: dict[str, str],
    sent: str | None,
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.headers, server.script = validators, ["break"]
    with pytest.raises(ArchiveError, match="cannot download"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{FILE}.part").read_bytes() == GOOD[: len(GOOD) // 2]

    fetch(server, tmp_path)

    assert server.seen[1]["Range"] == f"bytes={len(GOOD) // 2}-"
    assert server.seen[1].get("If-Range") == sent
    assert (tmp_path / FILE).read_bytes() == GOOD


def test_server_without_range_support_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.script = ["break", "no range"]

    fetch(server, tmp_path)

    assert "Range" in server.seen[1]
    assert (tmp_path / FILE).read_bytes() == GOOD


@pytest.mark.parametrize(("behaviour", "requests"), [("serve", 2), ("ignore If-Range", 3)])
def test_changed_file_is_not_glued_to_the_old_beginning(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, requests: int
) -> None:
    server.script = ["break"]
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(ArchiveError):
        fetch(server, tmp_path)
    server.body = tarball("bottle/train/good/001.png", content=IMAGE[::-1] * 2)
    server.script = [behaviour]
    monkeypatch.setattr(module, "ATTEMPTS", 2)

    fetch(server, tmp_path)

    assert (tmp_path / FILE).read_bytes() == server.body
    assert len(server.seen) == requests


@pytest.mark.parametrize(
    ("part", "noted", "requests"),
    [
        (GOOD, True, 0),  # killed between transfer and renaming
        (GOOD + b"more", True, 2),  # 416, then from the start
        (b"anything", False, 1),  # of unknown origin: never continued
    ],
    ids=["whole", "too long", "unknown"],
)
def test_left_over_part(server: Server, tmp_path: Path, part: bytes, noted: bool, requests: int) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(part)
    if noted:
        note = {"size": len(GOOD), "validator": server.validators["ETag"]}
        (tmp_path / f"{FILE}.part.json").write_text(json.dumps(note))

    fetch(server, tmp_path)

    assert (tmp_path / FILE).read_bytes() == GOOD
    assert len(server.seen) == requests
    assert all("Range" not in request for request in server.seen[-1:])


def test_unknown_length_works(server: Server, tmp_path: Path) -> None:
    server.script = ["no length"]

    assert fetch(server, tmp_path).is_dir()


def test_archive_labelled_as_gzip_encoded_stays_packed(server: Server, tmp_path: Path) -> None:
    server.body, server.headers = tarball("bottle/0.png", mode="w:gz"), {"Content-Encoding": "gzip"}

    fetch(server, tmp_path)

    assert (tmp_path / FILE).read_bytes() == server.body


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 3), (429, 3)])
def test_failure_names_the_manual_path_after_bounded_attempts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, requests: int
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    server.script = [status] * 9

    with pytest.raises(ArchiveError) as error:
        fetch(server, tmp_path)

    text = str(error.value)
    for hint in (str(status), ARCHIVES["mvtec_ad"].page, str(tmp_path / FILE), digest(GOOD), "url"):
        assert hint in text
    assert len(server.seen) == requests
    assert tree(tmp_path) == set()


def test_archive_put_there_by_hand_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(GOOD)

    assert fetch(server, tmp_path).is_dir()
    assert server.seen == []


def test_wrong_byte_is_set_aside_and_the_next_call_downloads_again(server: Server, tmp_path: Path) -> None:
    wrong = bytearray(GOOD)
    wrong[len(wrong) // 2] ^= 1
    server.body = bytes(wrong)

    with pytest.raises(ArchiveError, match="wrong content") as error:
        fetch(server, tmp_path, expected=GOOD)

    assert digest(GOOD) in str(error.value)
    assert digest(server.body) in str(error.value)
    assert (tmp_path / f"{FILE}.corrupt").read_bytes() == server.body
    assert not (tmp_path / FILE).exists()
    assert not (tmp_path / "mvtec_ad").exists()
    server.body = GOOD
    assert fetch(server, tmp_path).is_dir()
    assert "Range" not in server.seen[1]


def test_existing_archive_with_wrong_hash_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    other = tarball("bottle/other.png")
    (tmp_path / FILE).write_bytes(other)

    with pytest.raises(ArchiveError, match="wrong content"):
        fetch(server, tmp_path)

    assert tree(tmp_path) == {f"{FILE}.corrupt"}
    assert server.seen == []


def test_folder_of_another_origin_is_neither_returned_nor_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mvtec_ad" / "bottle").mkdir(parents=True)

    with pytest.raises(ArchiveError, match="Move it away"):
        fetch(server, tmp_path)

    assert tree(tmp_path) == {"mvtec_ad", "mvtec_ad/bottle"}
    assert server.seen == []


def test_archive_with_a_path_that_leaves_the_target_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    server.body = tarball("bottle/train/good/000.png", "../evil.png")

    with pytest.raises(ArchiveError, match=r"member '\.\./evil\.png' leaves the target"):
        fetch(server, tmp_path / "data")

    assert tree(tmp_path) == {"data", f"data/{FILE}"}


def test_missing_space_is_reported_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(GOOD) - 1))

    with pytest.raises(OSError, match=r"not enough space in .* to download"):
        fetch(server, tmp_path)

    assert tree(tmp_path) == set()


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 63])
def test_malformed_hash_is_refused_before_any_work(server: Server, tmp_path: Path, sha256: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        download("mvtec_ad", tmp_path / "new", url=server.url, sha256=sha256)

    assert server.seen == []
    assert not (tmp_path / "new").exists()


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mvtec_ad, dtd"):
        download("imagenet", tmp_path)


def test_dtd_address_is_the_one_torchvision_publishes() -> None:
    spec = importlib.util.find_spec("torchvision")  # read, not imported: importing takes seconds
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0], "datasets", "dtd.py").read_text(encoding="utf-8")

    assert f'"{ARCHIVES["dtd"].url}"' in source


def test_a_second_download_at_the_same_time_is_refused(server: Server, tmp_path: Path) -> None:
    with (
        file_lock(tmp_path / f"{FILE}.lock"),
        pytest.raises(BlockingIOError, match="another process is at work"),
    ):
        download("mvtec_ad", tmp_path, url=server.url, sha256=digest(GOOD))
    assert not server.seen
