"""What the scripts in `benchmarks/` keep and leave."""

import argparse
from pathlib import Path

import pytest
import side_by_side

from study.analysis.benchmarks import read_benchmark

CLEAN, CHANGED, UNKNOWN = ("c" * 40, False), ("c" * 40, True), (None, None)


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


def test_the_settings_of_a_run_name_its_data(tmp_path: Path, make_category):
    """Otherwise a kept run of other images would stand for these."""
    root = make_category(tmp_path, "plate", train=2, good=1, defects={}, size=32)
    asked = argparse.Namespace(data=root, teacher="random", threads=1)
    about, *_ = side_by_side.given(asked, 32, ["plate"], steps=2)
    (root / "plate" / "train" / "good" / "000.png").unlink()
    other, *_ = side_by_side.given(asked, 32, ["plate"], steps=2)
    assert about["data"] != other["data"]
    assert about | {"data": None} == other | {"data": None}


def test_a_kept_run_stands_only_for_the_code_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []

    def make(seed: int) -> dict[str, float]:
        made.append(seed)
        return {"loss": 0.5}

    def count(state: tuple[str | None, bool | None]) -> int:
        """How many runs a script makes when it is called in such a checkout."""
        made.clear()
        monkeypatch.setattr(side_by_side, "checkout", lambda: state)
        *_, runs = side_by_side.each_run("short", {"side": 64}, [{"seed": 0}, {"seed": 1}], make)
        assert [run["seed"] for run in runs] == [0, 1]
        return len(made)

    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    calls = [CHANGED, CLEAN, CLEAN, CHANGED, UNKNOWN, UNKNOWN]
    assert [count(state) for state in calls] == [2, 2, 0, 2, 2, 2]
    script = tmp_path / "changed.py"
    script.touch()
    monkeypatch.setattr(side_by_side, "getfile", lambda _: script)
    assert count(CLEAN) == 2
