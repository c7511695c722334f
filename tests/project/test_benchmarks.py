"""What the scripts in `benchmarks/` offer, keep and leave."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import side_by_side

from stlib.paths import ROOT
from study.analysis.benchmarks import read_benchmark

SCRIPTS = [
    path
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
]
CLEAN, CHANGED, UNKNOWN = ("c" * 40, False), ("c" * 40, True), (None, None)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_uses_every_option_that_it_offers(script: Path):
    source = script.read_text(encoding="utf-8")
    timed = ["turns", "device"] if "timed_options(" in source else []
    offered = re.findall(r'add_argument\("(?:--)?(\w+)"', source) + timed
    assert [name for name in offered if f"arguments.{name}" not in source] == []


def test_a_script_that_times_nothing_says_that_it_ran_once_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(side_by_side, "BENCHMARKS", tmp_path)
    parser = side_by_side.options("")
    with pytest.raises(SystemExit):
        parser.parse_args(["--device", "cuda"])
    side_by_side.report("masks", parser.parse_args(["--save"]), {})
    found = read_benchmark("masks", folder=tmp_path)
    assert found.turns == 1
    assert str(found.machine["processor"]).startswith("CPU, ")


def test_a_machine_is_told_where_the_system_knows_neither_its_load_nor_which_cores_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(side_by_side, "BENCHMARKS", tmp_path)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # macOS lacks one, Windows both
    monkeypatch.delattr("os.getloadavg", raising=False)
    side_by_side.report("masks", side_by_side.options("").parse_args(["--save"]), {})
    machine = read_benchmark("masks", folder=tmp_path).machine
    assert machine["cores"] == os.cpu_count()
    assert "load" not in machine


def made(states: list[tuple[str | None, bool | None]], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """How many runs a script makes when it is called in such a checkout, call after call."""
    for state in states:
        keys: list[int] = []

        def make(seed: int, keys: list[int] = keys) -> dict[str, float]:
            keys.append(seed)
            return {"loss": 0.5}

        monkeypatch.setattr(side_by_side, "checkout", lambda state=state: state)
        *_, runs = side_by_side.each_run("short", {"side": 64}, [{"seed": 0}, {"seed": 1}], make)
        assert [run["seed"] for run in runs] == [0, 1]
        yield len(keys)


@pytest.mark.parametrize(
    ("states", "counts"),
    [
        ([CLEAN, CLEAN], [2, 0]),
        ([CLEAN, CHANGED, CHANGED], [2, 2, 2]),
        ([CHANGED, CLEAN], [2, 2]),
        ([UNKNOWN, UNKNOWN], [2, 2]),
    ],
)
def test_a_kept_run_stands_only_for_the_code_of_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: list[tuple], counts: list[int]
):
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    assert list(made(states, monkeypatch)) == counts


def test_a_kept_run_is_made_again_when_the_script_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    assert list(made([CLEAN], monkeypatch)) == [2]
    monkeypatch.setattr(side_by_side, "sha256", lambda _: "another text")
    assert list(made([CLEAN], monkeypatch)) == [2]
