"""The whole flow on a tiny dataset with an untrained teacher, and everything that must stop it early."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakSet

import pytest
import torch
from PIL import Image

from stlib import paths
from stlib.data.images import DatasetError
from stlib.data.mvtec import Category, load_category, with_mask_rule
from stlib.data.splits import unseen_indices
from stlib.data.textures import load_textures
from stlib.demo.dataset import MARKER
from stlib.methods import METHODS, MethodEntry, et_stpm
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.stpm import STPM, Config, empty_network
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, image_metrics, label_regions, pixel_metrics
from stlib.nn.maps import Maps
from stlib.protocol import METRICS, Profile
from stlib.records.schema import Record, TextureInfo
from stlib.records.store import read_record, write_record
from stlib.run import experiment, teacher_cache
from stlib.run.evaluation import evaluate, observed
from stlib.run.experiment import RunResult, run, train
from stlib.run.fitted import AlreadyFinished, RunFailed
from stlib.run.provenance import forget_peak, peak_memory
from stlib.run.spec import RunSpec

TINY = Config(image_size=64, epochs=2, batch_size=4)


def profiles(config: Config) -> MethodEntry:
    known: dict[Profile, Config] = {"demo": config, "paper": config}
    return MethodEntry("STPM", known, STPM, empty_network)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Callable[[Config], None]:
    """Two epochs at side 64 instead of STPM's schedules; call it for another recipe."""

    def use(config: Config) -> None:
        monkeypatch.setitem(METHODS, "stpm", profiles(config))

    use(TINY)
    return use


def spec(data: Path, category: str = "plate", **options: object) -> RunSpec:
    return replace(RunSpec("stpm", category, profile="demo", data=data, teacher="random"), **options)


@pytest.fixture(scope="module")
def result(make_category, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """One finished run on 8 + (3 good, 4 turned) images."""
    data, runs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    make_category(data, train=8, good=3, defects={"turned": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "stpm", profiles(TINY))
        finished = run(spec(data, seed=3), runs=runs)
    assert not list(runs.rglob("*.ckpt"))
    return finished


def measured_on(category: Category, result: RunResult) -> tuple[Record, Maps]:
    """The record of the run if its category had been this one, and the maps; nothing is trained."""
    base = {**result.detector.base, "dataset": experiment._dataset(category)}
    detector = replace(result.detector, category=category, base=base)
    maps = detector.maps(category.test)
    return detector.record(maps), maps


def test_the_record_is_complete(result: RunResult):
    record = result.record
    assert (record.method, record.category, record.seed, record.profile) == ("stpm", "plate", 3, "demo")
    assert (record.status, record.error, record.precision) == ("finished", None, "fp32")
    assert record.config == TINY.model_dump()
    assert list(record.metrics) == list(METRICS)
    assert record.undefined == {}
    assert (record.dataset.name, record.dataset.gaps) == ("other", [])
    assert (record.dataset.train_images, record.dataset.test_good, record.dataset.test_defect) == (8, 3, 4)
    assert (record.dataset.image_size, record.dataset.mask_rule) == (64, "half")
    assert record.dataset.fingerprint == result.detector.category.fingerprint
    assert result.detector.info.seed == record.seed
    assert record.teacher.source == "random"
    assert record.history is not None
    assert record.history.steps == 2 * 2
    assert len(record.history.curves["train_loss"]) == 2
    assert record.labels() == ["other data", "demo schedule", "random teacher"]
    assert {len(record.bootstrap[name]) for name in METRICS} == {200}
    assert set(record.pixel_curves) == {"fpr", "recall", "precision"}
    runtime = record.runtime
    assert runtime.device.startswith("CPU, ")
    assert runtime.threads == 1
    assert runtime.train_seconds > 0
    assert runtime.peak_memory_mb > 50
    assert torch.__version__.startswith(runtime.versions["torch"])


def test_metrics_are_those_of_the_maps(result: RunResult):
    category, maps = result.detector.category, result.maps
    expected = image_metrics(maps.image, category.labels) | pixel_metrics(
        PixelRanking(maps.pixel, label_regions(category.masks))
    )
    assert result.record.metrics == pytest.approx(expected)


def test_image_scores_name_their_files_and_reproduce_the_image_metrics(result: RunResult):
    scores = result.record.image_scores
    assert [score.image for score in scores][:4] == [
        "good/000.png",
        "good/001.png",
        "good/002.png",
        "turned/000.png",
    ]
    labels = torch.tensor([not score.image.startswith("good/") for score in scores])
    values = image_metrics(torch.tensor([score.score for score in scores]), labels)
    assert values["image_auroc"] == pytest.approx(result.record.metrics["image_auroc"])


def test_sensitivity_changes_one_thing_at_a_time(result: RunResult):
    record, sensitivity = result.record, result.record.sensitivity
    assert list(sensitivity) == [
        "maps=sum",
        "score=top100",
        "masks=80/255",
        "test=untouched",
        "checkpoint=last",
        "statistics=anew",
        "statistics=anew,checkpoint=last",
    ]
    pixel = [name for name in METRICS if not name.startswith("image")]
    assert all(sensitivity["score=top100"][name] == record.metrics[name] for name in pixel)
    assert sensitivity["maps=sum"]["pixel_auroc"] != record.metrics["pixel_auroc"]


@pytest.mark.usefixtures("tiny")
def test_the_detector_of_a_run_is_that_of_the_tested_epoch_and_the_last_is_measured_beside_it(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = iter((0.1, 0.2))  # the first epoch is tested
    monkeypatch.setattr(STPM, "_mean_fused", lambda *_: next(scores))
    category = result.detector.category
    done = run(spec(category.layout.folder.parent), runs=tmp_path)
    assert torch.equal(done.detector.maps(category.test).pixel, done.maps.pixel)
    done.detector.method.use("last")
    last = evaluate(done.detector.method.maps(category.test), category).metrics
    assert done.record.sensitivity["checkpoint=last"] == last != done.record.metrics


def test_another_mask_rule_is_measured_beside_the_studys(result: RunResult, make_category, tmp_path: Path):
    # the masks of these files, larger than the input, differ between the rules
    make_category(tmp_path, train=6, good=2, defects={"turned": 2}, size=90)
    category = load_category(tmp_path, "plate", image_size=64)
    record, maps = measured_on(category, result)
    expected = evaluate(maps, category, with_mask_rule(category, "80/255")).metrics
    assert record.sensitivity["masks=80/255"] == expected != record.metrics


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak")
def test_memory_of_earlier_work_is_not_a_runs():
    device = torch.device("cpu")
    large = torch.ones(400, 2**20, dtype=torch.uint8)
    with_it = peak_memory(device)
    del large
    forget_peak(device)
    assert peak_memory(device) < with_it - 300 * 2**20


def test_test_images_that_a_leaking_teacher_may_see_are_left_out_of_untouched(result: RunResult):
    left = unseen_indices(result.detector.category.layout)
    assert len(left) == 3 + 2
    scores, labels = result.maps.image[left], result.detector.category.labels[left]
    found = result.record.sensitivity["test=untouched"]
    assert {name: found[name] for name in ("image_auroc", "image_ap")} == image_metrics(scores, labels)
    masks = label_regions(result.detector.category.masks[left])
    assert found["pixel_ap"] == pixel_metrics(PixelRanking(result.maps.pixel[left], masks))["pixel_ap"]


def test_a_segmenting_method_leaves_a_record_with_its_textures_and_variant(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    method, variant = "pfadseg", "RCM"
    few = {"image_size": 32, "batch_size": 4, "student_steps": 2, "segmentation_steps": 2, "top": 10}
    few |= {"width": 0.25}
    line = METHODS[method]
    tiny = line.profiles["demo"].model_copy(update=few)
    monkeypatch.setitem(METHODS, method, replace(line, profiles={"demo": tiny}))
    wanted = spec(result.detector.category.layout.folder.parent, method=method, variant=variant)
    drawn = load_textures("demo", 32)
    monkeypatch.setattr(experiment, "load_textures", lambda *_: drawn)
    finished = run(wanted, runs=tmp_path / "runs")
    record = finished.record
    assert (record.method, record.variant, record.config["rcm"]) == (method, variant, True)
    assert record.textures == drawn[1]
    assert list(record.sensitivity) == [
        "maps=distances",
        "score=max",
        "masks=80/255",
        "test=untouched",
        "gamma=0",
    ]
    assert list(record.metrics) == list(METRICS)
    assert record.history is not None
    assert (record.history.steps, record.history.images_seen) == (4, 16)
    assert set(record.history.curves) >= {"distillation_loss", "focal_loss", "l1_loss"}
    assert record.history.selected == {"step": 4}
    path = finished.save(tmp_path / "records")
    own = record.dataset.fingerprint[:8]
    assert path == tmp_path / f"records/demo/pfadseg-RCM/plate-{own}-s0.json"
    assert read_record(path) == record
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "teachers").exists()


@pytest.mark.parametrize(
    ("name", "train", "known"), [("screw", 8, ""), ("Schraube", 8, ""), ("toothbrush", 60, "toothbrush")]
)
def test_the_name_of_a_folder_changes_nothing_for_own_parts_and_tells_mvtec_ads_apart(
    make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, train: int, known: str
):
    monkeypatch.setattr(experiment, "load_textures", lambda *_: (torch.zeros(1, 3, 64, 64), None))
    make_category(tmp_path, name, train=train, defects={"defective": 1})
    category = load_category(tmp_path, name, image_size=64)
    parts, _ = experiment._synthesis(spec(tmp_path, name), category, torch.device("cpu"))
    assert parts["synthesis"].category == known


def test_a_killed_run_continues_and_ends_alike(
    result: RunResult, tiny, tmp_path: Path, same_result, monkeypatch: pytest.MonkeyPatch
):
    def begun_long_ago(path: Path, identity: str) -> Checkpoint:
        checkpoint = Checkpoint(path, identity, seconds=0)
        checkpoint._begun -= 1000
        return checkpoint

    here = spec(result.detector.category.layout.folder.parent, seed=3)

    def kill(done: int, *_: object) -> None:
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "Checkpoint", begun_long_ago)
    with pytest.raises(KeyboardInterrupt):
        run(here, progress=kill, runs=tmp_path)
    monkeypatch.undo()
    tiny(TINY)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == [
        f"plate-{result.detector.category.fingerprint[:8]}-s3.ckpt"
    ]
    epochs: list[int] = []
    resumed = run(here, progress=lambda done, *_: epochs.append(done), runs=tmp_path).record
    assert epochs == [2]
    assert same_result(resumed, result.record)
    assert resumed.runtime.train_seconds > 1000
    assert resumed.runtime.evaluate_seconds < 1000


def test_a_run_goes_on_only_with_the_same_settings_teacher_data_precision_and_code(
    make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def begin(config: Config = TINY, **options: object) -> Checkpoint:
        def build(_config: Config, _teacher: torch.nn.Module, execution: Execution) -> STPM:
            begun.append(execution.checkpoint)
            raise KeyboardInterrupt

        monkeypatch.setitem(METHODS, "stpm", replace(profiles(config), build=build))
        with pytest.raises(KeyboardInterrupt):
            run(spec(tmp_path, "brick", **options), runs=tmp_path / "runs")
        return begun.pop()

    begun: list[Checkpoint] = []
    # of the demo, as the checkpoints of own data are told apart by their names
    make_category(tmp_path, "brick", train=8, good=1, defects={"turned": 1})
    (tmp_path / MARKER).touch()
    first, again = begin(), begin()
    others = [begin(TINY.model_copy(update={"learning_rate": 0.3})), begin(teacher="demo")]
    others.append(begin(precision="bf16"))
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "TRAINING_CODE", "other")
        others.append(begin())
    make_category(tmp_path, "brick", train=8, good=1, defects={"turned": 1}, seed=1)
    others.append(begin())
    assert {place.path for place in others} == {first.path}
    assert again.identity == first.identity
    assert len({place.identity for place in (first, *others)}) == 6


def test_a_run_continues_on_another_gpu_of_its_machine_but_not_with_other_textures(result: RunResult):
    devices = ("cuda", "cuda:0", "cuda:1", "cpu")
    same = [experiment._identity(spec(Path(), device=name), TINY, result.record) for name in devices]
    assert same[0] == same[1] == same[2] != same[3]
    textures = TextureInfo(source="demo", fingerprint="1" * 64, images=1)
    other = result.record.model_copy(update={"textures": textures})
    assert experiment._identity(spec(Path()), TINY, other) != same[3]


NO_NORMAL = dict.fromkeys(["image_auroc", "image_ap"], "the test set holds no normal image")
NO_MASKS = dict.fromkeys(list(METRICS)[2:], "the defective images have no masks")
SOME_MASKS = dict.fromkeys(NO_MASKS, "1 of 3 defective images have no mask, such as turned/001.png")


@pytest.mark.parametrize(
    ("good", "defects", "removed", "undefined"),
    [
        (0, 3, None, NO_NORMAL),
        (3, 3, "ground_truth", NO_MASKS),
        (3, 3, "ground_truth/turned/001_mask.png", SOME_MASKS),
        (0, 1, "ground_truth", NO_NORMAL | NO_MASKS),
        (3, 0, None, dict.fromkeys(METRICS, "the test set holds no defective image")),
    ],
)
def test_what_cannot_be_measured_is_said_and_the_rest_is_done(
    result: RunResult,
    make_category,
    tmp_path: Path,
    good: int,
    defects: int,
    removed: str | None,
    undefined: dict[str, str],
):
    make_category(tmp_path, train=6, good=good, defects={"turned": defects} if defects else {})
    if removed:
        place = tmp_path / "plate" / removed
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    record, _ = measured_on(load_category(tmp_path, "plate", image_size=64), result)
    assert record.undefined == undefined
    assert set(record.metrics) | set(undefined) == set(METRICS)
    assert set(record.bootstrap) <= set(record.metrics)


@pytest.mark.usefixtures("tiny")
def test_without_test_images_there_is_a_record_and_a_detector(make_category, tmp_path: Path):
    make_category(tmp_path, train=6)
    shutil.rmtree(tmp_path / "plate" / "test")
    result = run(spec(tmp_path), runs=tmp_path / "runs")
    path = result.save(tmp_path / "records", tmp_path / "d.safetensors")
    assert read_record(path).undefined == dict.fromkeys(METRICS, "there are no test images")
    assert (tmp_path / "d.safetensors").is_file()


def test_draws_that_hold_no_defective_pixel_leave_no_interval_rather_than_a_broken_file(
    result: RunResult, make_category, tmp_path: Path
):
    make_category(tmp_path, train=6, good=2, defects={"turned": 2})
    Image.new("L", (64, 64)).save(tmp_path / "plate/ground_truth/turned/001_mask.png")
    record, _ = measured_on(load_category(tmp_path, "plate", image_size=64), result)
    assert set(record.metrics) == set(METRICS)
    assert set(record.bootstrap) == {"image_auroc", "image_ap"}
    assert read_record(write_record(record, tmp_path / "records")) == record


def test_a_run_that_diverges_leaves_a_valid_failed_record(result: RunResult, tiny, tmp_path: Path):
    tiny(TINY.model_copy(update={"learning_rate": 1e30, "epochs": 5}))
    with pytest.raises(RunFailed, match=r"stpm on plate, seed 0: epoch \d: training loss") as caught:
        run(spec(result.detector.category.layout.folder.parent), runs=tmp_path)
    record = caught.value.record
    assert (record.status, record.metrics, record.history) == ("failed", {}, None)
    assert read_record(write_record(record, tmp_path)) == record


def test_measuring_again_keeps_no_ranking_of_all_pixels(result: RunResult, monkeypatch: pytest.MonkeyPatch):
    # each holds the whole test set several times over, on the GPU: the tested and the one at work, no more
    alive: WeakSet[PixelRanking] = WeakSet()
    most = []
    make = PixelRanking.__init__

    def counted(self: PixelRanking, scores: torch.Tensor, regions: torch.Tensor) -> None:
        make(self, scores, regions)
        if scores.dim() == 3:
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(PixelRanking, "__init__", counted)
    result.detector.record(result.maps)
    assert len(most) == 8
    assert max(most) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "spam"}, "unknown method 'spam': choose one of"),
        ({"profile": "long"}, "STPM has no profile 'long': choose one of demo, paper"),
        ({"variant": "e=1"}, "STPM has no variant 'e=1': there are precision=fp32, precision=tf32"),
        ({"variant": "precision=bf16"}, "variant 'precision=bf16' does not go with precision fp32"),
        ({"precision": "fp16"}, "unknown precision 'fp16': choose fp32, tf32, bf16"),
        ({"precision": "tf32"}, "precision 'tf32' is for a GPU, and the device is 'cpu': choose device cuda"),
        ({"seed": -1}, "seed -1: choose a whole number from 0 to 4294967295"),
        ({"device": "gpu"}, "unknown device 'gpu': choose cpu, cuda or cuda:N"),
        ({"device": ""}, "unknown device ''"),
        ({"device": "cuda:99"}, "device 'cuda:99' asked for, but PyTorch sees .*: use device 'cpu'"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
):
    monkeypatch.setattr(experiment, "load_teacher", lambda _: pytest.fail("work has begun"))
    with pytest.raises(ValueError, match=message):
        run(spec(tmp_path, **options), runs=tmp_path)


@pytest.mark.parametrize(
    ("place", "told"), [("runs", "to run: 1.07 GB needed, 0.00 GB free"), ("records", "to keep the record")]
)
@pytest.mark.usefixtures("tiny")
def test_a_full_disk_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
):
    for name in ("runs", "records"):
        (tmp_path / name).mkdir()
    free = {str(tmp_path / place): SimpleNamespace(free=100)}
    monkeypatch.setattr("shutil.disk_usage", lambda at: free.get(str(at), SimpleNamespace(free=1 << 40)))
    monkeypatch.setattr(experiment, "load_teacher", lambda _: pytest.fail("work has begun"))
    with pytest.raises(OSError, match=f"not enough space in .*{place} {told}"):
        run(spec(tmp_path), runs=tmp_path / "runs", records=tmp_path / "records")


def test_scores_that_are_not_finite_fail_the_run_and_leave_a_record(result: RunResult):
    broken = result.maps._replace(pixel=torch.full_like(result.maps.pixel, math.nan))
    with pytest.raises(RunFailed, match="scores are NaN or infinite") as caught:
        result.detector.record(broken)
    assert (caught.value.record.status, caught.value.record.metrics) == ("failed", {})


@pytest.mark.parametrize("method", ["destseg", "pfadseg", "aand"])
def test_textures_are_asked_for_before_an_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    for step in ("load_teacher", "load_category"):
        monkeypatch.setattr(experiment, step, lambda *_, **__: pytest.fail("work has begun"))
    wanted = spec(tmp_path, "bottle", method=method, profile="short")
    with pytest.raises(ValueError, match=r"profile 'short' of .* takes its textures from DTD"):
        run(wanted, runs=tmp_path)
    with pytest.raises(DatasetError, match="none/images holds no image: name DTD's folder by --textures"):
        run(replace(wanted, textures=tmp_path / "none"), runs=tmp_path)


@pytest.mark.usefixtures("tiny")
def test_tf32_is_refused_on_a_gpu_that_would_compute_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    wanted = spec(tmp_path, device="cuda", precision="tf32")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    wanted.check()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ValueError, match="precision 'tf32': Tesla T4 does not have it, use precision 'fp32'"):
        wanted.check()


@pytest.mark.usefixtures("tiny")
def test_an_absent_dataset_or_teacher_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="no category 'plate'"):
        run(spec(tmp_path), runs=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no teacher weights at .*w\.pth"):
        run(spec(tmp_path, teacher=str(tmp_path / "w.pth")), runs=tmp_path)


def test_a_learning_curve_begins_with_the_students_distances_and_goes_on_with_the_nets_map(result: RunResult):
    category = result.detector.category
    distances = result.maps._replace(pixel=result.maps.pixel.flip(1), image=result.maps.image.flip(0))
    detector = SimpleNamespace(
        maps=lambda _: result.maps,
        alternatives=lambda _: {"maps=distances": distances},
        execution=result.detector.method.execution,
    )
    for steps, maps in ((-500, distances), (0, distances), (250, result.maps)):
        expected = pytest.approx(evaluate(maps, category).metrics, rel=1e-5)
        assert observed(category, detector, steps) == expected
    assert observed(category, detector, 0) != observed(category, detector, 250)


@pytest.mark.parametrize(("profile", "looks"), [("paper", True), ("demo", False)])
def test_a_learning_curve_is_for_the_papers_schedule(
    make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: Profile, looks: bool
):
    def build(config: Config, teacher: torch.nn.Module, execution: Execution) -> STPM:
        assert (execution.observe is not None) == looks
        raise KeyboardInterrupt

    make_category(tmp_path, "bottle", train=2, good=1, defects={})
    monkeypatch.setitem(METHODS, "stpm", replace(profiles(TINY), build=build))
    with pytest.raises(KeyboardInterrupt):
        run(spec(tmp_path, "bottle", profile=profile), runs=tmp_path / "runs")


def test_a_demos_record_goes_among_the_committed_ones_only_where_they_are_named(
    result: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "RECORDS", tmp_path / "results" / "records")
    data = result.record.dataset.model_copy(update={"name": "demo"})
    demo = result.record.model_copy(update={"dataset": data})
    assert replace(result, record=demo).save().is_relative_to(tmp_path / "build" / "records")
    assert result.save().is_relative_to(tmp_path / "results" / "own" / "records")


@pytest.fixture
def two(make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """ET-STPM in seconds, on two small categories."""
    tuning = {"image_size": 32, "batch_size": 8}
    config = et_stpm.Config.model_validate({"image_size": 64, "epochs": 1, "batch_size": 4, "tuning": tuning})
    entry = replace(et_stpm.METHOD, profiles={"demo": config})
    monkeypatch.setitem(METHODS, "et_stpm", entry)
    for seed, name in enumerate(("plate", "bolt")):
        make_category(tmp_path / "data", name, train=10, good=2, defects={"turned": 2}, seed=seed)
    return spec(tmp_path / "data", method="et_stpm")


def test_a_place_that_is_taken_is_told_before_a_teacher_is_fine_tuned(
    two: RunSpec, make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    records = tmp_path / "records"
    run(two, runs=tmp_path / "runs", records=records).save(records)
    monkeypatch.setattr(teacher_cache, "_fine_tuned", lambda *_, **__: pytest.fail("fine-tuning has begun"))
    train(two, runs=tmp_path / "runs", records=records)  # the same teacher: no refusal
    elsewhere = {"runs": tmp_path / "elsewhere", "records": records}
    with pytest.raises(AlreadyFinished, match="nothing is trained"):
        train(two, **elsewhere, skip_finished=True)
    with pytest.raises(ValueError, match="finished record of other teacher and precision and fine-tuning"):
        train(replace(two, teacher="demo", precision="bf16"), **elsewhere)
    make_category(tmp_path / "data", "screw", train=10, good=2, defects={"turned": 2}, seed=2)
    with pytest.raises(ValueError, match="is a finished record of other fine-tuning: name another folder"):
        train(two, **elsewhere)
