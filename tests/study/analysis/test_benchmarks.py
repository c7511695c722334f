"""Outcomes of benchmarks are read as they are, and are missing where nothing was measured."""

import json
from pathlib import Path

import pytest

from study.analysis import benchmarks


def written(folder: Path, name: str, results: dict[str, object]) -> benchmarks.Benchmark:
    made = {
        "benchmark": name,
        "made": "2026-11-22T12:00:00+00:00",
        "commit": "abc",
        "dirty": False,
        "machine": {"processor": "CPU, X", "cores": 2, "threads": 1, "load": 0.1, "torch": "2.15.0"},
        "turns": 3,
        "results": results,
    }
    (folder / f"{name}-cpu.json").write_text(json.dumps(made))
    found = benchmarks.read_benchmark(name, folder=folder)
    assert found is not None
    return found


def test_a_damaged_file_is_named(tmp_path: Path):
    for text in ("{", "{}"):
        (tmp_path / "stpm-cpu.json").write_text(text)
        with pytest.raises(ValueError, match=r"stpm-cpu\.json is damaged"):
            benchmarks.read_benchmark("stpm", folder=tmp_path)


def test_what_was_not_measured_has_no_rows(tmp_path: Path):
    assert benchmarks.read_benchmark("stpm", folder=tmp_path) is None
    assert benchmarks.rows(None) == benchmarks.invariance(None) == []


def test_readings_are_held_against_the_first_on_the_same_category_and_seed(tmp_path: Path):
    def run(reading: str, seed: int, loss: float) -> dict[str, object]:
        place = {"reading": reading, "category": "pill", "seed": seed}
        return place | {"loss": loss, "pixel_ap": 1 - loss, "cpu_seconds": 1}

    runs = [run("own", 0, 0.2), run("other", 0, 0.3), run("own", 1, 0.6), run("other", 1, 0.5)]
    runs.append(run("own", 2, 0.1))  # the other one has not been made yet
    found = benchmarks.readings(written(tmp_path, "readings", {"runs": runs})).set_index("reading")
    assert list(found.index) == ["own", "other"]
    other = found.loc["other"]
    assert (other["runs"], other["loss"], other["pixel_ap"]) == pytest.approx((2, 0.4, 0.6))
    assert [other[f"d_loss{end}"] for end in ("", "_low", "_high")] == pytest.approx([0, -0.1, 0.1])
    assert found.loc["own", "d_loss_high"] == 0
    assert benchmarks.readings(None).empty


def test_runs_that_differ_in_one_thing_move_together_or_not(tmp_path: Path):
    def run(row: str, category: str, seed: int, *seen: float) -> dict[str, object]:
        return {"row": row, "category": category, "seed": seed, "pixel_ap": seen, "cpu_seconds": 1}

    runs = [
        run("none", "pill", 0, 0.5, 0.6, 0.4),
        run("", "pill", 0, 0.3, 0.4, 0.2),  # as the first, on a lower level
        run("none", "grid", 0, 0.5, 0.4, 0.6),  # the other way about
        run("", "grid", 1, 0.1, 0.1, 0.2),
    ]
    found = written(tmp_path, "last_steps", {"runs": runs})
    together = benchmarks.moved_together(found).set_index("differs")
    one_thing = together.loc[["category", "row"]]
    assert one_thing["correlation"].to_dict() == pytest.approx({"category": -1, "row": 1})
    mixed = {"row and category", "row and category and seed", "category and seed", "row and seed"}
    assert together["pairs"].to_dict() == dict.fromkeys({"row", "category"} | mixed, 1)
    first = benchmarks.last_steps(found).iloc[0]
    assert first[["low", "high", "last", "change"]].tolist() == pytest.approx([0.4, 0.6, 0.4, 0.15])
    assert benchmarks.last_steps(None).empty
    assert benchmarks.moved_together(None).empty


def test_a_jump_is_gone_where_fresh_statistics_bring_the_error_back_under_its_limit(tmp_path: Path):
    names = [name + when for name in ("image_auroc", "pixel_auroc", "pixel_ap") for when in ("", "_anew")]
    scores = dict.fromkeys(names, 0.5) | {"pixel_auroc_anew": 0.9}

    def looked(validation: float, anew: float) -> dict[str, float]:
        return scores | {"loss": 1, "validation": validation, "validation_anew": anew}

    quiet = [{"loss": 1, "validation": one} for one in (8.0, 1.0)]
    runs = [
        {
            "category": "grid",
            "seed": 0,
            "epochs": [*quiet, looked(3.1, 2.9), looked(3.1, 3.1), looked(2.9, 9)],
        },
        {"category": "pill", "seed": 0, "epochs": quiet},  # its limit is its own
    ]
    found = benchmarks.jumps(written(tmp_path, "jumps", {"times": 3, "runs": runs}))
    assert found["epoch"].tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert found["jump"].tolist() == [False, False, True, True, False, False, False]
    assert found["gone"].tolist() == [False, False, True, False, False, False, False]
    anew = benchmarks.statistics_anew(found).set_index("where")
    assert anew.loc["jumps", ["category", "epochs", "gone", "pixel_auroc", "pixel_auroc_anew"]].tolist() == [
        "grid",
        2,
        1,
        0.5,
        0.9,
    ]
    assert anew.loc[["others", "last"], "epochs"].tolist() == [1, 1]  # the last one is no jump
    assert benchmarks.jumps(None).empty


def test_candidates_keep_their_order_and_the_machine_its_packages(tmp_path: Path):
    found = written(tmp_path, "stpm", {"training": {"ours": {"ratio": 1}, "peer": {"ratio": 3.5}}})
    ours, peer = benchmarks.rows(found, "training")
    assert (ours, peer) == ({"name": "ours", "ratio": 1}, {"name": "peer", "ratio": 3.5})
    assert found.packages == {"torch": "2.15.0"}


def test_invariance_is_computed(tmp_path: Path):
    values = {"s": {"pixel_auroc": 0.75}, "s^6": {"pixel_auroc": 0.5}}
    found = written(tmp_path, "metrics", {"invariance": {"bins": values}})
    assert benchmarks.invariance(found) == [{"name": "bins", "pixel_auroc": -0.25}]
