"""Bundles for a machine without a network: what fits into them, what starts there, what is left behind."""

import argparse
import json
import shutil
import signal
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pydantic
import pytest

from stlib.methods import METHODS
from stlib.paths import ROOT
from study.plan.grid import Cell, read_grid

STPM, TUNED = Cell("stpm", "pill", 0), Cell("et_stpm", "pill", 0)
SEGMENTING = [Cell("pfadseg", category, 0) for category in ("pill", "bottle", "grid", "wood")]


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    """The scripts import each other by name, as they do beside the bundles."""
    sys.path.insert(0, str(ROOT / "workflow"))
    yield
    sys.path.remove(str(ROOT / "workflow"))


@pytest.fixture(scope="module")
def bundle(scripts: None) -> ModuleType:
    return __import__("bundle")


@pytest.fixture(scope="module")
def drain(scripts: None) -> ModuleType:
    return __import__("drain")


@pytest.fixture(scope="module")
def unpacking(scripts: None) -> ModuleType:
    return __import__("unpacking")


def packed(bundle: ModuleType, folder: Path, out: Path, limit: int) -> list[Path]:
    """The category in `folder`, in bundles of at most `limit` bytes."""
    items = bundle.folder("data/pill", folder)
    listed = bundle.Item("sets", "sets/1.json", b'{"commit": "c", "parts": {"data/pill": %d}}' % len(items))
    out.mkdir()
    parts = bundle.split(items, limit, listed.packed())
    return [bundle.write([listed, *part], out, str(n)) for n, part in enumerate(parts)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Files around the sizes at which an archive takes another block, one with a long name."""
    folder = tmp_path / "pill"
    folder.mkdir()
    for size in (0, 1, 511, 512, 513, 9000, 10240, 12000, 3000):
        (folder / f"{size}.png").write_bytes(bytes(size))
    (folder / ("n" * 150 + ".png")).write_bytes(b"long name")
    return folder


@pytest.mark.parametrize("limit", [20480, 30000, 30720, 61440])
def test_no_bundle_is_larger_than_asked_for_and_together_they_hold_all(
    bundle: ModuleType, unpacking: ModuleType, images: Path, tmp_path: Path, limit: int
):
    bundles = packed(bundle, images, tmp_path / "out", limit)
    assert (len(bundles) > 1) == (limit < 61440)
    assert all(path.stat().st_size <= limit for path in bundles)
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    there = {path.name: path.read_bytes() for path in (tmp_path / "work/data/pill").iterdir()}
    assert there == {path.name: path.read_bytes() for path in images.iterdir()}


def test_a_file_that_fits_nowhere_is_refused_by_name(bundle: ModuleType, images: Path):
    with pytest.raises(ValueError, match=r"data/pill/10240\.png takes .* larger --size"):
        bundle.split(bundle.folder("data/pill", images), 12288)


def test_a_category_appears_when_its_last_file_has_come(
    bundle: ModuleType,
    unpacking: ModuleType,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    first, *_, last = packed(bundle, images, tmp_path / "out", 20480)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + b"x")  # damaged on the way
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "work/data/pill").exists()
    said = capsys.readouterr().out
    assert f"{last.name} is left out: damaged" in said
    assert "of 10 files" in said
    last.write_bytes(whole)
    first.unlink()  # unpacked before
    unpacking.gather(tmp_path / "out", tmp_path / "work")
    assert len(list((tmp_path / "work/data/pill").iterdir())) == 10


def test_a_part_that_comes_again_with_other_content_stops_with_the_remedy(
    bundle: ModuleType, unpacking: ModuleType, images: Path, tmp_path: Path
):
    out, work = tmp_path / "out", tmp_path / "work"
    packed(bundle, images, out, 61440)
    unpacking.gather(out, work)
    kept = unpacking.files(work / "data/pill")
    for path in out.iterdir():
        path.rename(out / f"again-{path.name}")  # another bundle, the same content
    unpacking.gather(out, work)
    assert not (work / "incoming/data/pill").exists()
    (images / "511.png").write_bytes(b"mended")
    packed(bundle, images, tmp_path / "mended", 61440)
    with pytest.raises(
        ValueError, match=f"data/pill has come again .* delete {work}/data/pill and the records"
    ):
        unpacking.gather(tmp_path / "mended", work)
    assert unpacking.files(work / "data/pill") == kept
    shutil.rmtree(work / "data/pill")
    unpacking.gather(tmp_path / "mended", work)
    assert (work / "data/pill/511.png").read_bytes() == b"mended"


def test_wheels_of_another_python_are_refused(unpacking: ModuleType, tmp_path: Path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for name in (f"a-1-{here}-{here}-any", "b-1-py3-none-any", "c-1-cp39-abi3-any"):
        with zipfile.ZipFile(wheels / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name}.py", "")
    unpacking.install(tmp_path)
    assert len(list((tmp_path / "site").glob("*.py"))) == 3
    (wheels / "d-1-cp27-cp27-any.whl").touch()
    with pytest.raises(ValueError, match=r"d-1-cp27.* is of another Python: .* --python 3\.\d+"):
        unpacking.install(tmp_path)


def test_links_are_refused(bundle: ModuleType, unpacking: ModuleType, images: Path, tmp_path: Path):
    class Link(bundle.Item):
        def header(self) -> tarfile.TarInfo:
            info = tarfile.TarInfo(self.name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            return info

    path = bundle.write([Link("data", "data/pill", b"")], tmp_path, "1")
    with pytest.raises(ValueError, match="data/pill is no plain file"):
        unpacking.unpack(path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_what_a_cell_waits_for(drain: ModuleType):
    both = ["teacher", "textures"]
    assert drain.lacks(STPM, ["pill"], ["pill", "wood"], ["teacher"]) == ""
    assert drain.lacks(STPM, ["wood"], [], both) == "images of pill"
    assert drain.lacks(STPM, ["pill"], [], ["textures"]) == "teacher"
    assert drain.lacks(SEGMENTING[0], ["pill"], [], ["teacher"]) == "textures"
    assert drain.lacks(TUNED, ["pill"], ["pill", "wood"], both).endswith("must see: wood")
    assert drain.lacks(TUNED, ["pill", "wood"], ["pill", "wood"], both) == ""


def scheduler(work: Path, script: Callable[[Cell], str] = lambda _: "", seconds: float = 60, **limits: float):
    """One whose runs are one-line Python scripts."""
    from scheduler import Scheduler

    (work / "logs").mkdir(parents=True, exist_ok=True)
    return Scheduler(
        lambda cell: [sys.executable, "-c", script(cell)], work, time.monotonic() + seconds, **limits
    )


def test_named_runs_come_in_the_order_of_their_names(drain: ModuleType):
    """Rented minutes go to the runs that were asked for, first things first."""
    row = Cell("pfadseg", "pill", 0, "none")
    cells = [*SEGMENTING, row, STPM]
    assert drain.named(cells, ["stpm/*", "pfadseg*/pill-s0"]) == [STPM, SEGMENTING[0], row]
    with pytest.raises(ValueError, match="--only pfadseg/pil-s0 names no run of the grid"):
        drain.named(cells, ["stpm/*", "pfadseg/pil-s0"])


def test_every_cell_of_the_grid_can_be_chosen(drain: ModuleType, tmp_path: Path):
    """Methods that came later broke the choice: one had no memory, one was started without its textures."""
    assert set(drain.TEXTURED) == {name for name, method in METHODS.items() if method.needs_textures}
    call = scheduler(tmp_path)
    for cell in read_grid().cells():
        call.running[cell] = None
        call.fits(cell)


def test_nothing_starts_that_is_known_not_to_end_in_time(scripts: None, tmp_path: Path):
    call = scheduler(tmp_path, expect=100)
    now, call.deadline = 1000.0, 1150.0
    assert call.ends_in_time(STPM, now)
    assert not call.ends_in_time(STPM, now + 50)
    call.typical["stpm"] = 40.0  # measured in this call
    assert call.ends_in_time(STPM, now + 100)
    assert not call.ends_in_time(STPM, now + 110)
    assert not call.ends_in_time(TUNED, now + 100)  # of another method nothing is known yet
    call.seconds[str(STPM.path)] = 35.0  # had before it was stopped
    assert call.ends_in_time(STPM, now + 140)
    assert not call.ends_in_time(STPM, now + 150)


@pytest.mark.parametrize(("memory", "both"), [(80, [2, 8]), (10, [1, 1])])
def test_as_many_at_once_as_memory_allows(scripts: None, tmp_path: Path, memory: int, both: list[int]):
    found = []
    for cells in (SEGMENTING * 3, [Cell("stpm", "pill", seed) for seed in range(12)]):
        call = scheduler(tmp_path, memory=memory)
        for number, cell in enumerate(cells):
            if not call.fits(cell):
                break
            call.running[Cell(cell.method, cell.category, number)] = None
        found.append(len(call.running))
    assert found == both


def test_a_failed_run_stops_no_other_and_is_not_tried_for_ever(
    scripts: None, drain: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def script(cell: Cell) -> str:
        record = tmp_path / "records" / cell.path
        return (
            "raise SystemExit('no luck')"
            if cell.category == "pill"
            else f"from pathlib import Path; p = Path({str(record)!r}); "
            "p.parent.mkdir(parents=True, exist_ok=True); p.write_text('{}')"
        )

    for call_number in (1, 2, 3):
        call = scheduler(tmp_path, script, memory=30, ended=lambda: drain.leave_archive(tmp_path))
        call.run(SEGMENTING[:2])
        assert call.failed == (call_number < 3)
    assert "has failed 2 times" in capsys.readouterr().out
    log = (tmp_path / "logs" / SEGMENTING[0].path).with_suffix(".log")
    assert log.read_text() == "no luck\n" * 2
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        names = archive.getnames()
    assert f"records/{SEGMENTING[1].path}" in names
    assert str(log.relative_to(tmp_path)) in names


def test_at_the_deadline_runs_are_asked_to_end_and_then_made_to(scripts: None, tmp_path: Path):
    polite = (
        f"import signal, sys, time; signal.signal({signal.SIGTERM}, lambda *_: sys.exit(143)); time.sleep(60)"
    )
    deaf = f"import signal, time; signal.signal({signal.SIGTERM}, signal.SIG_IGN); time.sleep(60)"
    call = scheduler(tmp_path, lambda cell: polite if cell == STPM else deaf, seconds=1.5, grace=0.5)
    begin = time.monotonic()
    call.run([STPM, TUNED])
    assert time.monotonic() - begin < 30
    assert not call.running
    assert (call.failed, call.failures) == (0, {})
    assert set(call.seconds) == {str(STPM.path), str(TUNED.path)}


def test_a_folder_in_use_is_told_as_an_error_and_left_alone(
    drain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(sys, "argv", ["drain.py", "--deadline", "0", "--work", str(work)])
    with drain.alone(work, 0), pytest.raises(SystemExit) as end:
        drain.main()
    assert end.value.code == 2  # 1 is for runs that failed
    assert f"error: another call is at work in {work}" in capsys.readouterr().out
    assert not (work / "results.tar.gz").exists()  # it is the other's


@pytest.fixture
def options(bundle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Of a call in which this checkout is the tree, with two weight files, the newer set's named first."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / ("c" * 12)).symlink_to(ROOT)
    for packed, name in (("1", "b_old.pth"), ("2", "a_new.pth")):
        content = {"commit": "c" * 40, "parts": {f"teacher/{name}": 1}}
        listed = bundle.Item("sets", f"sets/{packed}.json", json.dumps(content).encode())
        bundle.write([listed, bundle.Item(f"teacher/{name}", f"teacher/{name}", name.encode())], out, packed)
    for name in ("STLIB_COMMIT", "STLIB_DIRTY"):
        monkeypatch.setenv(name, "")
    given = {"bundles": out, "grid": "paper", "only": [], "tuned_on": [], "device": "cpu"}
    return argparse.Namespace(
        **given, precision="fp32", threads=1, compile=False, memory=80, expect=0, grace=0
    )


def test_a_device_that_is_not_there_is_told_once_and_before_the_runs(
    drain: ModuleType, options: argparse.Namespace, tmp_path: Path
):
    options.device = "gpu"
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        drain.drain(options, tmp_path, time.monotonic() + 1, 0)


def test_a_pydantic_that_cannot_read_the_settings_is_told_by_its_version(
    drain: ModuleType, options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pydantic, "VERSION", "2.11.9")
    with pytest.raises(ValueError, match=r"pydantic 2\.11\.9 is too old: install 2\.12 or newer"):
        drain.drain(options, tmp_path, time.monotonic() + 1, 0)


def test_the_teacher_is_that_of_the_set_packed_last(
    drain: ModuleType, options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Unpacked files all have the same date."""
    asked = []

    class Listed:
        failed = 0

        def __init__(self, command: Callable[[Cell], list[str]], *_args: object, **_limits: object) -> None:
            asked.append(json.loads(command(STPM)[-1])["spec"]["teacher"])

        def run(self, _: object) -> None:
            pass

    monkeypatch.setattr(drain, "Scheduler", Listed)
    monkeypatch.setattr(drain.signal, "signal", lambda *_: None)
    drain.drain(options, tmp_path, time.monotonic() + 1, 0)
    assert asked == [str(tmp_path / "teacher/a_new.pth")]


def test_the_archive_is_left_when_the_command_itself_fails(
    drain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "work/records").mkdir(parents=True)
    (tmp_path / "work/records/a.json").write_text("{}")
    arguments = ["drain.py", "--deadline", "5", "--bundles", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        drain.main()
    assert end.value.code == 2
    with tarfile.open(tmp_path / "work/results.tar.gz") as archive:
        assert {"records/a.json", "logs/drain.log"} <= set(archive.getnames())
