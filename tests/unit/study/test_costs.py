"""Costs are read from records and benchmark files as they are, and are missing where nothing was measured."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from stlib.study import costs
from stlib.study.grid import Cell
from stlib.study.pages import NOT_RUN


def timing(seconds: float, ratio: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "lowest": seconds / 2,
        "highest": seconds * 2,
        "cpu_seconds": seconds,
        "items_per_second": 8 / seconds,
        "ratio": ratio,
        "ratio_lowest": ratio - 0.5,
        "ratio_highest": ratio + 0.5,
    }


def written(folder: Path, name: str, results: dict[str, object]) -> costs.Benchmark:
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
    found = costs.read_benchmark(name, folder=folder)
    assert found is not None
    return found


def test_a_comparison_shows_every_candidate_and_the_machine(tmp_path: Path):
    found = written(tmp_path, "stpm", {"training": {"ours": timing(2, 1), "peer": timing(7, 3.5)}})
    table = costs.timings_html(found, "training", caption="A step.", each="images")
    assert "3.50 (3.00 to 4.00)" in table
    assert "<td>4</td>" in table  # 8 images in 2 seconds
    assert "A step. CPU, X, 1 of 2 cores, 3 turns; torch 2.15.0." in table
    assert "images per second" not in costs.timings_html(found, "training", caption="A step.")


def test_what_was_not_measured_is_not_run(tmp_path: Path):
    assert costs.read_benchmark("stpm", folder=tmp_path) is None
    assert costs.timings_html(None, "training", caption="") == NOT_RUN
    assert costs.modules_html(None) == costs.growth_html(None) == costs.limit_sentence(None) == NOT_RUN
    assert list(costs.deployed_html(None)) == [NOT_RUN]


def test_a_damaged_file_is_named(tmp_path: Path):
    for text in ("{", "{}"):
        (tmp_path / "stpm-cpu.json").write_text(text)
        with pytest.raises(ValueError, match=r"stpm-cpu\.json is damaged"):
            costs.read_benchmark("stpm", folder=tmp_path)


def test_growth_is_told_by_cpu_seconds(tmp_path: Path):
    one = {"8 images": timing(2, 1), "16 images": timing(5, 2.5)}
    found = written(tmp_path, "cost", {"growth": {"batch": one, "side": one, "maps": one}})
    assert costs.growth_html(found).count("<td>2.5</td>") == 3


def test_what_was_spent_counts_cores_and_leaves_the_demo_out(make_record):
    # the factory's run: see conftest; two of them on MVTec AD, one of the demo
    runs = [make_record("bottle", 0), make_record("grid", 0)]
    demo = make_record("bottle", 1).model_copy(update={"profile": "demo"})
    hours = sum(map(costs.core_minutes, runs)) / 60
    assert f"The 2 recorded runs on MVTec AD took {hours:.1f} hours of one CPU core" in costs.spent(
        [*runs, demo]
    )
    runtime = runs[0].runtime
    expected = (runtime.train_seconds + runtime.evaluate_seconds) * runtime.threads / 60
    assert costs.core_minutes(runs[0]) == pytest.approx(expected)
    assert costs.spent([])


def test_a_method_without_a_record_has_no_cost(make_record):
    cells = [Cell(m, "grid", 0) for m in ("stpm", "pfadseg")]
    table = costs.study_html(cells, [make_record("bottle", 0)])
    assert table.count("unknown") == 3  # STPM on GPUs, PFADSeg on both
    sentence = costs.study_sentence(cells, [make_record("bottle", 0)])
    assert "On CPUs, 1 of 2 runs would take" in sentence
    assert "On GPUs nothing has been measured" in sentence


def test_the_picture_tells_full_from_short_runs(make_record):
    full = make_record("bottle", 0)
    short = make_record("grid", 0).model_copy(update={"profile": "short"})
    figure = costs.accuracy_against_cost([full, short], ("pixel_auroc",))
    filled, hollow = figure.axes[0].lines
    assert filled.get_xdata() == pytest.approx([costs.core_minutes(full)])
    assert hollow.get_markerfacecolor() == "white"
    assert filled.get_markerfacecolor() != "white"
    plt.close(figure)
