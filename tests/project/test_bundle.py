"""Bundles for a machine without a network: what fits into them, what starts there, what is left behind."""

import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

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
    bundle: ModuleType, drain: ModuleType, images: Path, tmp_path: Path, limit: int
):
    bundles = packed(bundle, images, tmp_path / "out", limit)
    assert (len(bundles) > 1) == (limit < 61440)
    assert all(path.stat().st_size <= limit for path in bundles)
    drain.gather(tmp_path / "out", tmp_path / "work")
    there = {path.name: path.read_bytes() for path in (tmp_path / "work/data/pill").iterdir()}
    assert there == {path.name: path.read_bytes() for path in images.iterdir()}


def test_a_file_that_fits_nowhere_is_refused_by_name(bundle: ModuleType, images: Path):
    with pytest.raises(ValueError, match=r"data/pill/10240\.png takes .* larger --size"):
        bundle.split(bundle.folder("data/pill", images), 12288)


def test_a_category_appears_when_its_last_file_has_come(
    bundle: ModuleType, drain: ModuleType, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, *_, last = packed(bundle, images, tmp_path / "out", 20480)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + b"x")  # damaged on the way
    drain.gather(tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "work/data/pill").exists()
    said = capsys.readouterr().out
    assert f"{last.name} is left out: damaged" in said
    assert "of 10 files" in said
    last.write_bytes(whole)
    first.unlink()  # unpacked before
    drain.gather(tmp_path / "out", tmp_path / "work")
    assert len(list((tmp_path / "work/data/pill").iterdir())) == 10


def test_links_are_refused(bundle: ModuleType, drain: ModuleType, images: Path, tmp_path: Path):
    class Link(bundle.Item):
        def header(self) -> tarfile.TarInfo:
            info = tarfile.TarInfo(self.name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            return info

    path = bundle.write([Link("data", "data/pill", b"")], tmp_path, "1")
    with pytest.raises(ValueError, match="data/pill is no plain file"):
        drain.unpack(path, tmp_path / "work")
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
