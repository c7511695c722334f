"""Costs are read from records and benchmark files as they are, and are missing where nothing was measured."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from study import figures
from study.analysis import benchmarks, costs
from study.plan.estimate import held_seconds
from study.plan.grid import Cell
from study.tables import NOT_RUN


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


def test_a_comparison_shows_every_candidate_and_the_machine(tmp_path: Path):
    found = written(tmp_path, "stpm", {"training": {"ours": timing(2, 1), "peer": timing(7, 3.5)}})
    table = benchmarks.timings_html(found, "training", caption="A step.", each="images")
    assert "3.50 (3.00 to 4.00)" in table
    assert "<td>4</td>" in table  # 8 images in 2 seconds
    assert "A step. CPU, X, 1 of 2 cores, load 0.1, 3 turns; torch 2.15.0." in table
    assert "images per second" not in benchmarks.timings_html(found, "training", caption="A step.")


def test_what_was_not_measured_is_not_run(tmp_path: Path):
    assert benchmarks.read_benchmark("stpm", folder=tmp_path) is None
    assert benchmarks.timings_html(None, "training", caption="") == NOT_RUN
    assert (
        benchmarks.modules_html(None)
        == benchmarks.growth_html(None)
        == benchmarks.limit_sentence(None)
        == NOT_RUN
    )
    assert list(benchmarks.deployed_html(None)) == [NOT_RUN]
    assert benchmarks.rounding_html(None) == NOT_RUN


def test_rounding_has_a_line_per_detector(tmp_path: Path):
    change = {"pixel_auroc": {"exact": 0.9, "change": -0.00012}}
    table = benchmarks.rounding_html(written(tmp_path, "rounding", {"STPM, pill": change}))
    assert "-0.00012" in table
    assert table.count("<td>-</td>") == 7  # the other metrics


def test_a_damaged_file_is_named(tmp_path: Path):
    for text in ("{", "{}"):
        (tmp_path / "stpm-cpu.json").write_text(text)
        with pytest.raises(ValueError, match=r"stpm-cpu\.json is damaged"):
            benchmarks.read_benchmark("stpm", folder=tmp_path)


def test_growth_is_told_by_cpu_seconds(tmp_path: Path):
    one = {"8 images": timing(2, 1), "16 images": timing(5, 2.5)}
    found = written(tmp_path, "cost", {"growth": {"batch": one, "side": one, "maps": one}})
    assert benchmarks.growth_html(found).count("<td>2.5</td>") == 3


def test_what_was_spent_counts_cores_and_leaves_the_demo_out(make_record):
    # the factory's run: see conftest; two of them on MVTec AD, one of the demo
    runs = [make_record("bottle", 0), make_record("grid", 0)]
    demo = make_record("bottle", 1).model_copy(update={"profile": "demo"})
    hours = sum(map(held_seconds, runs)) / 3600
    assert f"The 2 recorded runs on MVTec AD took {hours:.1f} hours of one CPU core" in costs.spent(
        [*runs, demo]
    )
    runtime = runs[0].runtime
    expected = (runtime.train_seconds + runtime.evaluate_seconds) * runtime.threads
    assert held_seconds(runs[0]) == pytest.approx(expected)
    assert costs.spent([]).startswith("The 0 recorded runs")


def test_a_method_without_a_record_has_no_cost(make_record):
    cells = [Cell(m, "grid", 0) for m in ("stpm", "pfadseg")]
    table = costs.study_html(cells, [make_record("bottle", 0)])
    assert table.count("unknown") == 3  # STPM on GPUs, PFADSeg on both


def test_the_picture_tells_full_from_short_runs(make_record):
    full = make_record("bottle", 0)
    short = make_record("grid", 0).model_copy(update={"profile": "short"})
    leaking = make_record("grid", 1).model_copy(update={"variant": "data=B"})
    figure = figures.accuracy_against_cost([full, short, leaking], ("pixel_auroc",))
    filled, hollow = figure.axes[0].lines
    assert filled.get_xdata() == pytest.approx([held_seconds(full) / 60])
    assert hollow.get_markerfacecolor() == "white"
    assert filled.get_markerfacecolor() != "white"
    plt.close(figure)


def test_networks_and_deployed_detectors_are_told_as_they_were_measured(tmp_path: Path):
    about = {
        "parameters": 5.6e6,
        "image_flops": 7.3e9,
        "step_flops": {"student": 1e10, "segmentation": 2e10},
        "seconds": {"student": 0.25, "segmentation": 1.5},
    }
    table = benchmarks.modules_html(written(tmp_path, "cost", {"methods": {"X": about}, "precision": "bf16"}))
    for cell in ("5.6", "7", "10 + 20", "0.25 + 1.50"):
        assert f"<td>{cell}</td>" in table
    one = {"Detector": timing(1, 1), "ONNX Runtime": timing(0.5, 0.5)}
    method = {"largest_difference": 2e-6, "largest_pixel": 2.0, "one": one, "batch": one}
    found = written(tmp_path, "inference", {"batch": 8, "methods": {"stpm": method}})
    single, batch = benchmarks.deployed_html(found)
    assert "STPM on one image; largest difference of a pixel 2e-06, largest pixel 2." in single
    assert "STPM on 8 images." in batch


def test_what_a_step_waits_for_is_told_in_shares(tmp_path: Path):
    assert benchmarks.waiting_html(None) == NOT_RUN
    results = {"batch": 8, "precision": "bf16", "steps": {"STPM": {"working": 0.98, "data": 0.015}}}
    table = benchmarks.waiting_html(written(tmp_path, "waiting", results))
    assert "<td>98.0%</td><td>2.0%</td><td>1.5%</td>" in table
    assert "on 8 images, bf16. CPU, X" in table


def test_limits_and_invariance_are_computed(tmp_path: Path):
    results: dict[str, object] = {
        "limit_flops": {"bf16": 2e11},
        "share_of_limit": {"bf16": 0.5},
        "operations": {"forward": 1e11},  # of each of the two networks: 1 s at the limit
        "inference": {"ours, bf16": timing(1.25, 1)},
    }
    sentence = benchmarks.limit_sentence(written(tmp_path, "stpm", results))
    told = "on a core, 200 GFLOP/s in bf16, of which a training step reaches 50% and inference 80%."
    assert sentence.endswith(told)
    results["inference"] = {"ours, bf16": timing(1.25, 1), "anomalib Stfpm, fp32": timing(3, 2.4)}
    sentence = benchmarks.limit_sentence(written(tmp_path, "stpm", results))
    assert sentence.endswith("than anomalib's in fp32 3.0 times in bf16.")
    values = {"s": {"pixel_auroc": 0.75}, "s^6": {"pixel_auroc": 0.5}}
    table = benchmarks.invariance_html(written(tmp_path, "metrics", {"invariance": {"bins": values}}))
    assert "<td>-0.25000</td>" in table
