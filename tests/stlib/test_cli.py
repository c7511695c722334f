"""The `stlib run` command: what it writes, and how it refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from stlib import paths
from stlib.cli import app
from stlib.cli.training import _told
from stlib.decision import threshold_from
from stlib.demo.dataset import MARKER
from stlib.detector import Detector
from stlib.methods import METHODS, MethodEntry, patchcore
from stlib.methods.stpm import STPM, Config, empty_network
from stlib.records import store
from stlib.records.schema import History
from stlib.records.store import read_record

DEMO = ("--profile", "demo", "--teacher", "random")


def stlib(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_category) -> Path:
    """Where a run of one epoch on a tiny dataset of own parts, 'plate', finds and leaves everything."""
    config = Config(image_size=64, epochs=1, batch_size=4)
    monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    make_category(tmp_path / "demo", train=5, good=2, defects={"turned": 2})
    monkeypatch.setattr(paths, "BUILD", tmp_path)  # where a demo looks for everything by itself
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(store, "BUILD", tmp_path)
    return tmp_path


def run(*options: object, category: str = "plate") -> Result:
    return stlib("run", "stpm", category, *DEMO, *options)


def break_training(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fit(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(STPM, "fit", fit)


@pytest.fixture
def refuse_training(monkeypatch: pytest.MonkeyPatch) -> None:
    break_training(monkeypatch, AssertionError("training has begun"))


def record_of(root: Path, seed: int = 0) -> Path:
    """The record of own data in its place, with the data's fingerprint in its name."""
    (path,) = (root / "own" / "records" / "demo" / "stpm").glob(f"plate-????????-s{seed}.json")
    return path


def test_a_run_says_what_it_reads_and_found_and_keeps_the_detector_of_own_data(root: Path):
    result = run("--seed", 2)
    assert result.exit_code == 0, result.output
    assert "plate: 5 images to learn from; test: 2 good, 2 turned\n" in result.stderr
    path = record_of(root, seed=2)
    kept = path.with_suffix(".safetensors")
    assert Detector.load(kept).info.category == "plate"
    assert str(path) in result.stdout
    assert str(kept) in result.stdout
    assert f"pixel_auroc  {read_record(path).metrics['pixel_auroc']:.4f}" in result.stdout
    assert not list((root / "own" / "runs").rglob("*.ckpt"))


def test_another_place_for_the_detector_takes_that_of_the_record(root: Path):
    elsewhere = root / "new" / "d.safetensors"
    assert str(elsewhere) in run("--save", elsewhere).stdout
    assert [*root.rglob("*.safetensors")] == [elsewhere]


def test_a_detector_of_own_data_can_be_done_without_and_one_of_the_demo_is_not_kept(root: Path):
    assert run("--no-save").exit_code == 0
    assert record_of(root).is_file()
    (root / "demo" / "plate").rename(root / "demo" / "brick")
    (root / "demo" / MARKER).touch()
    assert run(category="brick").exit_code == 0
    assert [*root.rglob("brick-s0.json")]
    assert not [*root.rglob("*.safetensors")]


@pytest.mark.parametrize(("asked", "threads"), [([], 1), (["--threads", "2"], 2)])
def test_the_demo_runs_on_one_thread_unless_others_are_asked_for(
    root: Path, refuse_training, asked: list[str], threads: int
):
    torch.set_num_threads(3 - threads)
    try:
        run(*asked)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


def test_own_parts_under_a_name_of_mvtec_ad_are_told_before_the_training(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    (root / "demo" / "plate").rename(root / "demo" / "screw")
    break_training(monkeypatch, ValueError("training has begun"))
    told, _, rest = run(category="screw").stderr.partition(
        f"it counts as own parts, its record goes to {root / 'own' / 'records'}\n"
    )
    assert "screw is not MVTec AD's (train/good: 5 of 320 images; " in told
    assert "error: training has begun" in rest


def test_the_same_detector_again_keeps_its_threshold_and_another_is_kept_beside_with_its_own(root: Path):
    assert run().exit_code == 0
    kept = record_of(root).with_suffix(".safetensors")
    trained = Detector.load(kept).with_threshold(threshold_from([7.0] * 30))
    trained.save(kept)
    before = kept.read_bytes()
    again = run()
    assert kept.read_bytes() == before
    assert "threshold 7 from 30 held-out good images" in again.stdout
    assert "no threshold" not in again.stdout
    assert [*root.rglob("*.safetensors")] == [kept]
    with torch.no_grad():
        next(iter(trained.network.state_dict().values())).view(-1)[0] += 1
    trained.save(kept)
    other = kept.read_bytes()
    told = run().stderr
    (aside,) = set(kept.parent.glob("*.safetensors")) - {kept}
    assert f"the earlier {kept} (threshold 7 from 30 held-out good images; " in told
    assert f") is kept as {aside}\n" in told
    assert aside.read_bytes() == other
    assert Detector.load(kept).info.threshold is None


def test_a_run_without_a_threshold_says_how_to_get_one(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(patchcore.PROFILES, "demo", patchcore.Config(image_size=64))
    result = stlib("run", "patchcore", "plate", *DEMO)
    assert result.exit_code == 0, result.output
    (kept,) = root.rglob("*.safetensors")
    assert f"no threshold: `stlib threshold {kept} folder/of/good`" in result.stdout
    assert "`--variant held-out=20%`" in result.stdout
    result = stlib("run", "patchcore", "plate", *DEMO, "--variant", "held-out=20%")
    assert "no threshold" not in result.stdout
    assert "held-out good images" in result.stdout


def test_a_run_on_larger_images_leaves_a_detector_of_that_size_and_says_where_it_enlarges(root: Path):
    assert "enlarged" not in run().stderr
    result = run("--variant", "image_size=96")
    assert "000.png has 64 x 64 pixels: enlarged to 96 it shows no more\n" in result.stderr
    (kept,) = (root / "own" / "records" / "demo" / "stpm-image_size=96").glob("*.safetensors")
    assert Detector.load(kept).image_size == 96
    assert record_of(root).is_file()  # of the other run


def test_a_tuned_teacher_has_a_place_for_its_record_before_the_fine_tuning(root: Path, make_category):
    make_category(root / "demo", "disc", train=5, good=2, defects={"turned": 2})
    (root / "mine").mkdir()
    (root / "mine" / "teachers").touch()
    result = stlib("run", "et_stpm", "plate", *DEMO, "--records", str(root / "mine" / "records"))
    assert result.exit_code == 2
    assert f"cannot write {root}/mine/teachers/record.json" in result.stderr


@pytest.mark.parametrize("variant", ["image_size=512", "coreset=1%,image_size=512"])
def test_the_hint_at_a_threshold_keeps_the_size_of_the_images(make_record, variant: str):
    *_, hint = _told(make_record(method="patchcore", variant=variant), Path("part.safetensors"))
    assert "`--variant held-out=20%,image_size=512` holds some out for one" in hint


@pytest.mark.parametrize(
    ("selected", "config", "told"),
    [
        ({"epoch": 2, "val_score": 0.1}, {"epochs": 2}, True),
        ({"epoch": 1, "val_score": 0.1}, {"epochs": 2}, False),
        ({"epoch": 2, "val_score": 0.1}, {"steps": 9}, False),
        ({"val_score": 0.1}, {}, False),
    ],
)
def test_a_run_whose_last_epoch_was_the_best_says_that_longer_may_be_better(
    make_record, selected: dict[str, float], config: dict[str, int], told: bool
):
    history = History(steps=2, images_seen=8, curves={}, selected=selected)
    lines = "\n".join(_told(make_record(history=history, config=config), None))
    assert ("the last epoch, 2, was the best" in lines) == ("epoch" in lines) == told
    assert "no threshold" not in lines  # of a detector that was not kept


def test_metrics_that_one_reason_keeps_from_being_measured_stand_on_one_line(make_record):
    lines = list(_told(make_record(undefined={"pixel_ap": "no masks", "aupro": "no masks"}), None))
    assert "not measured: pixel_ap, aupro: no masks" in lines
    assert str(lines).count("no masks") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spam", "bottle"], "error: unknown method 'spam'"),
        (["destseg", "bottle", "--textures", "demo"], "error: profile 'paper' of DeSTSeg takes its textures"),
        (["stpm", "bottle", "--teacher", "random"], "error: no category 'bottle' under"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_status_2(
    arguments: list[str], message: str, tmp_path: Path
):
    result = stlib("run", *arguments, "--data", tmp_path, "--records", tmp_path / "records")
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert message in result.stderr
    assert not (tmp_path / "records").exists()


def test_a_full_gpu_is_an_error_and_no_crash(root: Path, monkeypatch: pytest.MonkeyPatch):
    break_training(monkeypatch, torch.cuda.OutOfMemoryError("CUDA out of memory"))
    result = run()
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert "error: CUDA out of memory" in result.stderr


def test_a_run_that_diverges_is_recorded_and_leaves_an_earlier_finished_record_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        break_training(patch, FloatingPointError("epoch 1: training loss nan"))
        result = run()
    path = record_of(root)
    assert result.exit_code == 1
    assert f"stpm on plate, seed 0: epoch 1: training loss nan\nrecorded in {path}\n" in result.stderr
    assert read_record(path).status == "failed"
    assert run().exit_code == 0
    before = path.read_bytes()
    break_training(monkeypatch, FloatingPointError("epoch 1: training loss nan"))
    result = run()
    assert result.exit_code == 1
    assert f"the finished record of an earlier run stays: {path}\n" in result.stderr
    assert path.read_bytes() == before


def test_a_failed_run_whose_record_cannot_be_written_is_two_lines_and_no_crash(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_arguments: object) -> None:
        raise OSError("no space left")

    break_training(monkeypatch, FloatingPointError("epoch 1: training loss nan"))
    monkeypatch.setattr(store, "write_record", full)
    result = run()
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert "stpm on plate, seed 0: epoch 1: training loss nan\nerror: no space left\n" in result.stderr


def test_no_finished_record_is_left_without_its_detector(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Detector, "save", full)
    result = run()
    assert (result.exit_code, "error: no space left" in result.stderr) == (2, True)
    assert not [*root.rglob("plate-*.json")]


@pytest.mark.parametrize("folder", ["records", "decisions"])
def test_own_records_stay_out_of_the_studys_folders(
    folder: str, root: Path, refuse_training, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "DECISIONS", root / "decisions")
    result = run("--records", root / folder)
    assert result.exit_code == 2
    assert "holds the records of this study or of the demo, and plate is of neither" in result.stderr


@pytest.mark.parametrize(
    ("option", "target"),
    [
        ("--save", "demo"),
        ("--save", "demo/plate/train/good/000.png"),
        ("--records", "demo/plate/train/good/000.png"),
        ("--runs", "demo/plate/train/good/000.png"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_training(
    root: Path, refuse_training, option: str, target: str
):
    photo = (root / "demo/plate/train/good/000.png").read_bytes()
    result = run(option, root / target)
    assert result.exit_code == 2, result.output
    assert str(root / target) in result.stderr
    assert "name a" in result.stderr
    assert (root / "demo/plate/train/good/000.png").read_bytes() == photo
    assert not (root / "own" / "records" / "demo").exists()


def test_no_room_for_a_detector_is_told_before_the_training(
    root: Path, refuse_training, monkeypatch: pytest.MonkeyPatch
):
    (root / "full").mkdir()
    full = {str(root / "full"): SimpleNamespace(free=1 << 25)}
    monkeypatch.setattr(
        "shutil.disk_usage", lambda place: full.get(str(place), SimpleNamespace(free=1 << 40))
    )
    for options in (["--save", root / "full" / "d.safetensors"], ["--records", root / "full"]):
        result = run(*options)
        assert result.exit_code == 2
        assert f"not enough space in {root / 'full'} to keep the detector" in result.stderr


def test_a_finished_run_is_not_made_again_where_that_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run("--skip-finished").exit_code == 0
    break_training(monkeypatch, AssertionError("training has begun"))
    result = run("--skip-finished")
    assert (result.exit_code, str(record_of(root)) in result.stdout) == (0, True)
    kept = record_of(root).with_suffix(".safetensors")
    assert f"finished before: nothing is trained, {kept} stays as it is" in result.stdout
    assert "no detector" not in result.stderr
    kept.unlink()
    told = "the run without --skip-finished makes it"
    assert told in run("--skip-finished").stderr
    assert told not in run("--skip-finished", "--no-save").stderr
    before = record_of(root).read_bytes()
    for options in (["--skip-finished"], []):
        result = run(*options, "--teacher", "demo")
        assert result.exit_code == 2
        assert "is a finished record of other teacher: name another folder by --records" in result.stderr
    assert record_of(root).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["precision=bf16", "--teacher", "random"], "'precision=bf16' does not go with precision fp32"),
        (["--device", "gpu"], "error: unknown device 'gpu': choose cpu, cuda or cuda:N"),
        (["--runs", "file/runs"], "error: cannot write file/runs"),
    ],
)
def test_a_teacher_is_refused_before_its_fine_tuning_what_its_runs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = stlib("teacher", "--profile", "demo", "--runs", "runs", *options)
    assert (result.exit_code, told in result.stderr) == (2, True)
    assert not [*tmp_path.rglob("*.safetensors")]
