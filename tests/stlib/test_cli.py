"""The `stlib run` command: what it writes, and how it refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from stlib import paths
from stlib.cli import _told, app
from stlib.decision import threshold_from
from stlib.demo.dataset import MARKER
from stlib.detector import Detector
from stlib.methods import METHODS, MethodEntry, patchcore
from stlib.methods.stpm import STPM, Config, empty_network
from stlib.records import store
from stlib.records.schema import History
from stlib.records.store import read_record

runner = CliRunner()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_category) -> list[str]:
    """A run of one epoch on a tiny dataset; returns the arguments."""
    config = Config(image_size=64, epochs=1, batch_size=4)
    monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    make_category(tmp_path / "demo", train=5, good=2, defects={"turned": 2})
    monkeypatch.setattr(paths, "BUILD", tmp_path)  # where a demo looks for everything by itself
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(store, "BUILD", tmp_path)
    return ["run", "stpm", "plate", "--profile", "demo", "--teacher", "random"]


def record_of(root: Path, seed: int = 0) -> Path:
    """The record of own data in its place, with the data's fingerprint in its name."""
    (path,) = (root / "own" / "records" / "demo" / "stpm").glob(f"plate-????????-s{seed}.json")
    return path


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
    path = record_of(tmp_path, seed=2)
    record = read_record(path)
    assert str(path) in result.stdout
    assert f"pixel_auroc  {record.metrics['pixel_auroc']:.4f}" in result.stdout
    assert not list((tmp_path / "own" / "runs").rglob("*.ckpt"))


@pytest.mark.parametrize(("asked", "threads"), [([], 1), (["--threads", "2"], 2)])
def test_the_demo_runs_on_one_thread_unless_others_are_asked_for(
    tiny: list[str], tmp_path: Path, asked: list[str], threads: int
):
    torch.set_num_threads(3 - threads)
    try:
        runner.invoke(app, [*tiny, *asked])
    finally:
        torch.set_num_threads(1)
    assert read_record(record_of(tmp_path)).runtime.threads == threads


def test_a_detector_of_own_data_is_kept_beside_its_record_and_one_of_the_demo_is_not(
    tiny: list[str], tmp_path: Path
):
    result = runner.invoke(app, tiny)
    kept = record_of(tmp_path).with_suffix(".safetensors")
    assert Detector.load(kept).info.category == "plate"
    assert str(kept) in result.stdout
    elsewhere = tmp_path / "new" / "d.safetensors"
    kept.unlink()
    assert str(elsewhere) in runner.invoke(app, [*tiny, "--save", str(elsewhere)]).stdout
    assert (elsewhere.is_file(), kept.exists()) == (True, False)
    (tmp_path / "demo" / "plate").rename(tmp_path / "demo" / "brick")
    (tmp_path / "demo" / MARKER).touch()
    result = runner.invoke(app, ["brick" if part == "plate" else part for part in tiny])
    assert result.exit_code == 0, result.output
    assert [*tmp_path.rglob("brick-s0.json")]
    assert not [*tmp_path.rglob("brick*.safetensors")]


def test_own_parts_under_a_name_of_mvtec_ad_are_told_before_the_training(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def begun(*_arguments: object, **_options: object) -> None:
        raise ValueError("training has begun")

    (tmp_path / "demo" / "plate").rename(tmp_path / "demo" / "screw")
    arguments = ["screw" if part == "plate" else part for part in tiny]
    result = runner.invoke(app, arguments)
    told = f"it counts as own parts, its record goes to {tmp_path / 'own' / 'records'}\n"
    assert "screw is not MVTec AD's (train/good: 5 of 320 images; " in result.stderr
    assert told in result.stderr
    (path,) = (tmp_path / "own" / "records").rglob("screw*.json")
    assert read_record(path).dataset.gaps == []
    monkeypatch.setattr(STPM, "fit", begun)
    told, _, rest = runner.invoke(app, arguments).stderr.partition(told)
    assert "screw is not MVTec AD's" in told
    assert "error: training has begun" in rest


def test_a_run_that_replaces_a_detector_with_a_threshold_says_so(tiny: list[str], tmp_path: Path):
    assert "is replaced" not in runner.invoke(app, tiny).stderr
    kept = record_of(tmp_path).with_suffix(".safetensors")
    trained = Detector.load(kept)
    with torch.no_grad():
        next(iter(trained.network.state_dict().values())).view(-1)[0] += 1
    trained.with_threshold(threshold_from([7.0] * 30)).save(kept)
    told = runner.invoke(app, tiny).stderr
    assert f"{kept} was there before: it is replaced, and with it its threshold 7 from 30 held-out" in told


def test_a_run_that_makes_the_same_detector_again_keeps_its_threshold(tiny: list[str], tmp_path: Path):
    assert runner.invoke(app, tiny).exit_code == 0
    kept = record_of(tmp_path).with_suffix(".safetensors")
    Detector.load(kept).with_threshold(threshold_from([7.0] * 30)).save(kept)
    before = kept.read_bytes()
    result = runner.invoke(app, tiny)
    assert kept.read_bytes() == before
    assert "threshold 7 from 30 held-out good images" in result.stdout
    assert "no threshold" not in result.stdout
    assert "is replaced" not in result.stderr


def test_a_run_without_a_threshold_says_how_to_get_one(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(patchcore.PROFILES, "demo", patchcore.Config(image_size=64))
    result = runner.invoke(app, ["run", "patchcore", *tiny[2:]])
    assert result.exit_code == 0, result.output
    (kept,) = tmp_path.rglob("*.safetensors")
    assert f"no threshold: `stlib threshold {kept} folder/of/good`" in result.stdout
    assert "`--variant held-out=20%`" in result.stdout
    result = runner.invoke(app, ["run", "patchcore", *tiny[2:], "--variant", "held-out=20%"])
    assert "no threshold" not in result.stdout
    assert "held-out good images" in result.stdout


@pytest.mark.parametrize("best", [1, 2])
def test_a_run_whose_last_epoch_was_the_best_says_that_longer_may_be_better(
    tiny: list[str], make_record, best: int
):
    history = History(steps=2, images_seen=8, curves={}, selected={"epoch": best, "val_score": 0.1})
    told = "\n".join(_told(make_record(history=history, config={"epochs": 2}), None))
    assert ("the last epoch, 2, was the best" in told) == (best == 2)
    assert "no threshold" not in told  # of a detector that was not kept


@pytest.mark.parametrize(
    ("selected", "config"), [({"val_score": 0.1}, {}), ({"epoch": 2, "val_score": 0.1}, {"steps": 9})]
)
def test_a_method_that_counts_no_epochs_is_told_without_them(make_record, selected, config):
    history = History(steps=2, images_seen=8, curves={}, selected=selected)
    assert not any("epoch" in line for line in _told(make_record(history=history, config=config), None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "spam", "bottle"], "error: unknown method 'spam'"),
        (["run", "stpm", "bottle", "--seed", "-1"], "error: seed -1"),
        (["run", "pfadseg", "bottle", "--variant", "ASPP"], "error: PFADSeg has no variant 'ASPP'"),
        (
            ["run", "destseg", "bottle", "--textures", "demo"],
            "error: profile 'paper' of DeSTSeg takes its textures from DTD",
        ),
        (["run", "stpm", "bottle", "--device", "gpu"], "error: unknown device 'gpu'"),
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


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "stpm", "a", "--profile", "long"], ["run", "stpm", "a", "--threads", "-1"], ["fly"]],
)
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
    assert read_record(record_of(tmp_path)).status == "failed"


def test_a_run_that_diverges_leaves_an_earlier_finished_record_alone(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def diverge(*_arguments: object, **_options: object) -> None:
        raise FloatingPointError("epoch 1: training loss nan")

    assert runner.invoke(app, tiny).exit_code == 0
    path = record_of(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(STPM, "fit", diverge)
    result = runner.invoke(app, tiny)
    assert result.exit_code == 1
    assert "the finished record of an earlier run stays: " in result.stderr
    assert "recorded in" not in result.stderr
    assert path.read_bytes() == before


def test_a_failed_run_whose_record_cannot_be_written_is_two_lines_and_no_crash(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
):
    def diverge(*_arguments: object, **_options: object) -> None:
        raise FloatingPointError("epoch 1: training loss nan")

    def full(*_arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(STPM, "fit", diverge)
    monkeypatch.setattr(store, "write_record", full)
    result = runner.invoke(app, tiny)
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)
    assert "stpm on plate, seed 0: epoch 1: training loss nan\nerror: no space left\n" in result.stderr


@pytest.mark.parametrize("what", ["settings", "teacher", "precision"])
def test_a_finished_record_of_something_else_is_not_replaced(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    assert runner.invoke(app, tiny).exit_code == 0
    before = record_of(tmp_path).read_bytes()
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    other = {"teacher": ["--teacher", "demo"], "precision": ["--precision", "bf16"]}.get(what, [])
    if what == "settings":
        config = Config(image_size=64, epochs=2, batch_size=4)
        monkeypatch.setitem(METHODS, "stpm", MethodEntry("STPM", {"demo": config}, STPM, empty_network))
    result = runner.invoke(app, [*tiny, *other])
    assert result.exit_code == 2
    assert f"is a finished record of other {what}: name another folder by --records" in result.stderr
    assert record_of(tmp_path).read_bytes() == before


def test_records_go_to_no_folder_of_other_things(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").touch()
    result = runner.invoke(app, [*tiny, "--records", str(tmp_path / "etc")])
    assert result.exit_code == 2
    assert "holds passwd, which no run left: name another folder, or keep passwd beside it" in result.stderr


@pytest.mark.parametrize("folder", ["records", "decisions"])
def test_own_records_stay_out_of_the_studys_folders(
    folder: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store, "DECISIONS", tmp_path / "decisions")
    result = runner.invoke(app, [*tiny, "--records", str(tmp_path / folder)])
    assert result.exit_code == 2
    assert "holds the records of this study or of the demo, and plate is of neither" in result.stderr


def test_a_teacher_is_refused_what_its_runs_are_refused(tmp_path: Path):
    asked = ["teacher", "precision=bf16", "--teacher", "random", "--runs", str(tmp_path)]
    result = runner.invoke(app, asked)
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "variant 'precision=bf16' does not go with precision fp32" in result.stderr


@pytest.mark.parametrize("option", ["--save", "--records", "--runs"])
def test_a_target_that_cannot_be_written_is_refused_before_training(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
):
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    target = tmp_path / "target"
    target.mkdir() if option == "--save" else target.write_text("no folder")
    result = runner.invoke(app, [*tiny, option, str(target)])
    assert result.exit_code == 2, result.output
    assert str(target) in result.stderr
    assert "name a" in result.stderr
    assert not (tmp_path / "own" / "records" / "demo").exists()


def test_a_teacher_that_cannot_be_written_is_told_before_the_fine_tuning(tmp_path: Path):
    (tmp_path / "file").touch()
    result = runner.invoke(app, ["teacher", "--profile", "demo", "--runs", str(tmp_path / "file" / "runs")])
    assert result.exit_code == 2
    assert f"error: cannot write {tmp_path / 'file' / 'runs'}" in result.stderr


def test_a_teachers_device_that_is_not_there_is_told_with_the_remedy(tmp_path: Path):
    result = runner.invoke(app, ["teacher", "--profile", "demo", "--runs", str(tmp_path), "--device", "gpu"])
    assert result.exit_code == 2
    assert "error: unknown device 'gpu': choose cpu, cuda or cuda:N" in result.stderr


def test_a_photograph_is_not_replaced_by_the_detector_that_learns_from_it(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    photo = tmp_path / "demo" / "plate" / "train" / "good" / "000.png"
    before = photo.read_bytes()
    result = runner.invoke(app, [*tiny, "--save", str(photo)])
    assert result.exit_code == 2
    assert f"error: {photo} is a file of another kind" in result.stderr
    assert photo.read_bytes() == before


def test_no_finished_record_is_left_without_its_detector(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Detector, "save", full)
    result = runner.invoke(app, [*tiny, "--save", str(tmp_path / "d.safetensors")])
    assert (result.exit_code, "error: no space left" in result.stderr) == (2, True)
    assert not [*tmp_path.rglob("plate-*.json")]


def test_no_room_for_a_detector_is_told_before_the_training(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    (tmp_path / "full").mkdir()
    full = {str(tmp_path / "full"): SimpleNamespace(free=1 << 25)}
    monkeypatch.setattr(
        "shutil.disk_usage", lambda place: full.get(str(place), SimpleNamespace(free=1 << 40))
    )
    for option in (
        ["--save", str(tmp_path / "full" / "d.safetensors")],
        ["--records", str(tmp_path / "full")],
    ):
        result = runner.invoke(app, [*tiny, *option])
        assert result.exit_code == 2
        assert f"not enough space in {tmp_path / 'full'} to keep the detector" in result.stderr


def test_a_detector_of_own_data_can_be_done_without(tiny: list[str], tmp_path: Path):
    assert runner.invoke(app, [*tiny, "--no-save"]).exit_code == 0
    assert record_of(tmp_path).is_file()
    assert not [*tmp_path.rglob("*.safetensors")]


def test_a_finished_run_is_not_made_again_where_that_is_asked_for(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = [*tiny, "--skip-finished"]
    assert runner.invoke(app, asked).exit_code == 0
    monkeypatch.setattr(STPM, "fit", lambda *_arguments, **_options: pytest.fail("training has begun"))
    result = runner.invoke(app, asked)
    assert (result.exit_code, str(record_of(tmp_path)) in result.stdout) == (0, True)
    assert "finished before: nothing is trained" in result.stdout
    assert "no detector" not in result.stderr
    record_of(tmp_path).with_suffix(".safetensors").unlink()
    told = "the run without --skip-finished makes it"
    assert told in runner.invoke(app, asked).stderr
    assert told not in runner.invoke(app, [*asked, "--no-save"]).stderr
    result = runner.invoke(app, [*asked, "--teacher", "demo"])
    assert (result.exit_code, "finished record of other teacher" in result.stderr) == (2, True)


def test_a_run_says_what_it_learns_from_and_what_it_tests(tiny: list[str]):
    assert "plate: 5 images to learn from; test: 2 good, 2 turned\n" in runner.invoke(app, tiny).stderr


def test_after_a_mended_photograph_the_old_record_is_told(tiny: list[str], tmp_path: Path):
    told = "records of other photographs or masks of plate are there, too, 1: stpm/"
    assert told not in runner.invoke(app, tiny).stderr
    old = record_of(tmp_path)
    photo = tmp_path / "demo" / "plate" / "test" / "good" / "000.png"
    (photo.parent / "001.png").replace(photo)
    assert f"{told}{old.name}: a table must not mix" in runner.invoke(app, tiny).stderr
