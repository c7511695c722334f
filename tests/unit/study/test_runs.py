import re

import pytest
from typer.testing import CliRunner

from stlib.cli import app
from stlib.study.runs import caption, rerun_command, runtimes, sensitivity


def test_the_command_of_a_record(make_record):
    assert rerun_command(make_record("bottle", 2)) == (
        "stlib run stpm bottle --seed 2 --profile paper "
        "--data data/mvtec_ad --teacher torchvision --precision bf16"
    )
    assert "--teacher path/to/weights.pth" in rerun_command(make_record(teacher="weights.pth"))
    demo = rerun_command(make_record("brick", dataset="demo", teacher="demo", profile="demo"))
    assert "--profile demo --data build/demo --teacher demo" in demo


def test_the_command_uses_options_that_exist(make_record):
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert set(re.findall(r"--\w+", rerun_command(make_record()))) <= set(re.findall(r"--\w+", text))


def test_the_caption_tells_how_the_runs_were_made(make_record):
    runs = [make_record(seed=0), make_record(seed=1, precision="fp32"), make_record(seed=2, status="failed")]
    assert caption(runs) == (
        "2 runs; seeds 0, 1; training in bf16, fp32; teacher torchvision IMAGENET1K_V1; on CPU, test."
    )
    assert caption([]) == "No run has finished yet."


def test_sensitivity_is_the_mean_over_seeds_of_comparable_runs(make_record):
    runs = [make_record("bottle", 0, 0.9), make_record("bottle", 1, 0.8), make_record("grid", 0, 0.7)]
    frame = sensitivity([*runs, make_record("pill", gaps=["x"])], "stpm", "pixel_auroc")
    assert list(frame.index) == ["grid", "bottle", "mean of 2 of 15"]
    assert frame.loc["bottle", "as tested"] == pytest.approx(0.85)
    assert frame.loc["bottle", "last epoch"] == pytest.approx(0.80)
    assert frame.loc["mean of 2 of 15", "sum of the levels"] == pytest.approx((0.80 + 0.65) / 2)


def test_sensitivity_leaves_out_what_cannot_change(make_record):
    image = sensitivity([make_record()], "stpm", "image_auroc").columns
    pixel = sensitivity([make_record()], "stpm", "pixel_auroc").columns
    assert not any(name.startswith("mask") for name in image)
    assert "mean of the 100 largest" in image
    assert "mean of the 100 largest" not in pixel
    assert sensitivity([], "stpm", "pixel_auroc").empty


def test_runtimes_are_medians_of_minutes(make_record):
    frame = runtimes([make_record(), make_record("grid"), make_record("pill", status="failed")])
    assert frame[["Runs", "Training, min", "Evaluation, min", "Memory, GiB"]].to_numpy().tolist() == [
        [2, "10.0", "0.5", "2.0"]
    ]
