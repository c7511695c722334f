"""Runs on a machine without a network: which start there, at once and in time, and what is left behind."""

import argparse
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import bundle
import drain
import pydantic
import pytest
from scheduler import Scheduler

from stlib.paths import ROOT
from stlib.records import store
from study.plan.grid import Cell

STPM, TUNED = Cell("stpm", "pill", 0), Cell("et_stpm", "pill", 0)
SEGMENTING = [Cell("pfadseg", category, 0) for category in ("pill", "bottle", "grid", "wood")]


def test_what_a_cell_waits_for():
    both = ["teacher", "textures"]
    assert drain.lacks(STPM, ["pill"], ["pill", "wood"], ["teacher"]) == ""
    assert drain.lacks(STPM, ["wood"], [], both) == "images of pill"
    assert drain.lacks(STPM, ["pill"], [], ["textures"]) == "teacher"
    assert drain.lacks(SEGMENTING[0], ["pill"], [], ["teacher"]) == "textures"
    assert drain.lacks(TUNED, ["pill"], ["pill", "wood"], both).endswith("must see: wood")
    assert drain.lacks(TUNED, ["pill", "wood"], ["pill", "wood"], both) == ""


def scheduler(work: Path, script: Callable[[Cell], str] = lambda _: "", seconds: float = 60, **limits: float):
    """One whose runs are one-line Python scripts."""
    (work / "logs").mkdir(parents=True, exist_ok=True)
    return Scheduler(
        lambda cell: [sys.executable, "-c", script(cell)], work, time.monotonic() + seconds, **limits
    )


def test_named_runs_come_in_the_order_of_their_names():
    """Rented minutes go to the runs that were asked for, first things first."""
    row = Cell("pfadseg", "pill", 0, "none")
    cells = [*SEGMENTING, row, STPM]
    assert drain.named(cells, ["stpm/*", "pfadseg*/pill-s0"]) == [STPM, SEGMENTING[0], row]
    with pytest.raises(ValueError, match="--only pfadseg/pil-s0 names no run of the grid"):
        drain.named(cells, ["stpm/*", "pfadseg/pil-s0"])


def test_nothing_starts_that_is_known_not_to_end_in_time(tmp_path: Path):
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


@pytest.mark.parametrize(("memory", "both"), [(160, [2, 12]), (80, [1, 8]), (10, [1, 1])])
def test_as_many_at_once_as_memory_allows(tmp_path: Path, memory: int, both: list[int]):
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_at_the_deadline_runs_are_asked_to_end_and_then_made_to(tmp_path: Path):
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
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
    return argparse.Namespace(**given, precision="fp32", threads=1, memory=80, expect=0, grace=0)


def test_a_device_that_is_not_there_is_told_once_and_before_the_runs(
    options: argparse.Namespace, tmp_path: Path
):
    options.device = "gpu"
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        drain.drain(options, tmp_path, time.monotonic() + 1, 0)


def test_a_pydantic_that_cannot_read_the_settings_is_told_by_its_version(
    options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pydantic, "VERSION", "2.11.9")
    with pytest.raises(ValueError, match=r"pydantic 2\.11\.9 is too old: install 2\.12 or newer"):
        drain.drain(options, tmp_path, time.monotonic() + 1, 0)


def test_the_teacher_is_that_of_the_set_packed_last(
    options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Unpacked files all have the same date."""
    listed = watched(monkeypatch)
    drain.drain(options, tmp_path, time.monotonic() + 1, 0)
    assert listed.spec(STPM)["teacher"] == str(tmp_path / "teacher/a_new.pth")


def watched(monkeypatch: pytest.MonkeyPatch) -> "type[Listed]":
    """A stand-in for the scheduler that keeps what it is given."""
    monkeypatch.setattr(drain, "Scheduler", Listed)
    monkeypatch.setattr(drain.signal, "signal", lambda *_: None)
    return Listed


class Listed:
    """Runs nothing."""

    failed = 0
    command: Callable[[Cell], list[str]]
    cells: ClassVar[list[Cell]] = []

    def __init__(self, command: Callable[[Cell], list[str]], *_args: object, **_limits: object) -> None:
        Listed.command = staticmethod(command)

    def run(self, cells: list[Cell]) -> None:
        Listed.cells = list(cells)

    @classmethod
    def spec(cls, cell: Cell) -> dict[str, str]:
        """What a run of the cell would be made with."""
        return json.loads(cls.command(cell)[-1])["spec"]


def test_runs_are_made_once_in_their_own_precision_and_know_their_commit(
    options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record
):
    """Rented time goes to what is missing; what trains nothing runs in fp32 alone."""
    listed = watched(monkeypatch)
    (tmp_path / "data" / "pill").mkdir(parents=True)
    monkeypatch.setattr(store, "load_records", lambda _folder: [])  # in the tree; these are made here
    store.write_record(make_record("pill", method="patchcore"), tmp_path / "records")
    options.only, options.precision = ["patchcore/pill-s[01]", "stpm/pill-s0"], "bf16"
    drain.drain(options, tmp_path, time.monotonic() + 1, 0)
    assert [(cell.method, cell.seed) for cell in listed.cells] == [("patchcore", 1), ("stpm", 0)]
    assert [listed.spec(cell)["precision"] for cell in listed.cells] == ["fp32", "bf16"]
    assert (os.environ["STLIB_COMMIT"], os.environ["STLIB_DIRTY"]) == ("c" * 40, "0")


def test_the_archive_is_left_when_the_command_itself_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "work/records").mkdir(parents=True)
    (tmp_path / "work/records/a.json").write_text("{}")
    arguments = ["drain.py", "--deadline", "5", "--bundles", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        drain.main()
    assert end.value.code == 2
    with tarfile.open(tmp_path / "work/results.tar.gz") as archive:
        assert {"records/a.json", "logs/drain.log"} <= set(archive.getnames())
