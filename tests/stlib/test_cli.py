"""The `stlib run` command: what it writes, and how it refuses."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stlib import paths
from stlib.cli import app
from stlib.detector import Detector
from stlib.methods import METHODS, MethodEntry
from stlib.methods.stpm import STPM, Config, empty_network
from stlib.records.store import read_record

runner = CliRunner()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_category) -> list[str]:
    """A run of one epoch on a tiny dataset; returns the arguments."""
    config = Config(image_size=64, epochs=1, batch_size=4)
    monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    make_category(tmp_path / "demo", train=5, good=2, defects={"turned": 2})
    monkeypatch.setattr(paths, "BUILD", tmp_path)  # where a demo looks for everything by itself
    return ["run", "stpm", "plate", "--profile", "demo", "--teacher", "random"]


def test_help_names_the_verbs_and_their_options():
    assert "run" in runner.invoke(app, ["--help"]).stdout
    text = runner.invoke(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    assert all(
        option in text for option in ("--seed", "--profile", "--data", "--teacher", "--device", "--records")
    )


def test_a_full_gpu_is_an_error_and_no_crash(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object, **_options: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(STPM, "fit", full)
    result = runner.invoke(app, tiny)
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert "error: CUDA out of memory" in result.output


def test_a_run_writes_its_record_and_prints_the_metrics(tiny: list[str], tmp_path: Path):
    result = runner.invoke(app, [*tiny, "--seed", "2", "--save", str(tmp_path / "plate.safetensors")])
    assert result.exit_code == 0, result.output
    assert Detector.load(tmp_path / "plate.safetensors").info.category == "plate"
    path = tmp_path / "records" / "demo" / "stpm" / "plate-s2.json"
    record = read_record(path)
    assert str(path) in result.stdout
    assert f"pixel_auroc  {record.metrics['pixel_auroc']:.4f}" in result.stdout
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "spam", "bottle"], "error: unknown method 'spam'"),
        (
            ["run", "stpm", "spoon"],
            "error: profile 'paper' is for MVTec AD and 'spoon' is none of its categories",
        ),
        (["run", "stpm", "bottle", "--seed", "-1"], "error: seed -1"),
        (["run", "pfadseg", "bottle", "--variant", "ASPP"], "error: PFADSeg has no variant 'ASPP'"),
        (
            ["run", "destseg", "bottle", "--textures", "demo"],
            "error: profile 'paper' of DeSTSeg takes its textures from DTD",
        ),
        (["run", "stpm", "bottle", "--device", "gpu"], "error: unknown device 'gpu'"),
        (["run", "stpm", "bottle", "--teacher", "none.pth"], "error: no teacher weights at none.pth"),
        (["run", "stpm", "bottle", "--teacher", "random"], "error: no category 'bottle' under"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_status_2(
    arguments: list[str], message: str, tmp_path: Path
):
    result = runner.invoke(app, [*arguments, "--data", str(tmp_path), "--records", str(tmp_path / "records")])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("arguments", [["run"], ["run", "stpm", "bottle", "--profile", "long"], ["fly"]])
def test_a_misspelt_command_is_a_usage_error(arguments: list[str]):
    assert runner.invoke(app, arguments).exit_code == 2


def test_a_run_that_diverges_is_recorded_and_exits_with_1(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = Config(image_size=64, epochs=4, batch_size=4, learning_rate=1e30)
    monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    result = runner.invoke(app, tiny)
    assert result.exit_code == 1
    assert "stpm on plate, seed 0: epoch" in result.stderr
    assert "recorded in" in result.stderr
    assert read_record(tmp_path / "records" / "demo" / "stpm" / "plate-s0.json").status == "failed"


def test_a_run_that_diverges_leaves_an_earlier_finished_record_alone(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert runner.invoke(app, tiny).exit_code == 0
    path = tmp_path / "records" / "demo" / "stpm" / "plate-s0.json"
    before = path.read_bytes()
    config = Config(image_size=64, epochs=4, batch_size=4, learning_rate=1e30)
    monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    result = runner.invoke(app, tiny)
    assert result.exit_code == 1
    assert "the finished record of an earlier run stays: " in result.stderr
    assert "recorded in" not in result.stderr
    assert path.read_bytes() == before


def test_a_folder_for_the_detector_must_exist_before_training_starts(tiny: list[str], tmp_path: Path):
    result = runner.invoke(app, [*tiny, "--save", str(tmp_path / "absent" / "d.safetensors")])
    assert result.exit_code == 2
    assert "make the folder" in result.output
    assert not (tmp_path / "records").exists()
