import weakref
from dataclasses import replace

import numpy as np
import pytest

from stlib.data.layout import Layout
from stlib.data.mvtec import load_category
from stlib.methods import METHODS, stpm
from stlib.nn.backbone import load_teacher
from stlib.records.store import read_record, write_record
from stlib.run.fitted import RunFailed
from stlib.run.spec import RunSpec
from study import notebook
from study.analysis.runs import runtimes
from study.maps import path_of_maps, read_maps
from study.planned import Plan

DEMO = {"category": "brick", "profile": "demo", "dataset": "demo", "teacher": "demo"}


@pytest.fixture
def plan(tmp_path, make_category, monkeypatch):
    """A run of one epoch on a few small images."""
    monkeypatch.setitem(stpm.PROFILES, "demo", stpm.Config(image_size=64, epochs=1, batch_size=4))
    root = make_category(tmp_path / "data", "plate", defects={"turned": 2, "bent": 1})
    spec = RunSpec("stpm", "plate", profile="demo", data=root, teacher="random")
    return Plan(spec, tmp_path / "records", tmp_path / "runs")


@pytest.fixture
def category(plan):
    return load_category(plan.spec.data, "plate", image_size=64)


def test_the_recipe_holds_what_the_numbers_depend_on(plan):
    text = notebook.recipe(plan)
    for row in ("<td>STPM</td>", "<td>plate</td>", "<td>random</td>", "<td>fp32</td>", "<td>0.4</td>"):
        assert row in text


def test_the_recipe_shows_a_weight_file_without_its_folder(plan, tmp_path):
    spec = RunSpec(
        "stpm", "plate", profile="demo", data=plan.spec.data, teacher=str(tmp_path / "resnet18.pth")
    )
    text = notebook.recipe(Plan(spec, plan.records, plan.runs))
    assert "<td>resnet18.pth</td>" in text
    assert str(tmp_path) not in text


def test_the_dataset_is_counted_by_kind(category):
    text = notebook.dataset(category)
    for kind, count in (("train/good", 10), ("test/good", 4), ("test/turned", 2), ("test/bent", 1)):
        assert f"{kind}</th><td>{count}" in text


def test_samples_are_a_normal_image_and_one_of_each_kind(category):
    figure = notebook.samples(category)
    assert [axis.get_title() for axis in figure.axes] == ["train/good", "test/bent", "test/turned"]
    assert [bool(axis.collections) for axis in figure.axes] == [False, True, True]  # outlined defects


def test_a_run_is_recorded_before_it_is_shown(plan, same_result):
    (result,) = notebook.run_each([plan])
    assert plan.recorded
    path = plan.records / result.record.path
    assert same_result(read_record(path), result.record)
    assert str(path) in notebook.origin(result.record, path)
    assert f"{result.record.metrics['aupro']:.3f}" in notebook.metrics(result.record)
    assert len(notebook.gallery(result.detector.category, result.maps).axes) == 3 * 4 + 1


def test_the_maps_of_a_run_are_kept_as_false_positive_rates_under_the_records_names(plan):
    for kind in ("test", "ground_truth"):
        bent = plan.spec.data / "plate" / kind / "bent"
        bent.rename(bent.with_name("left"))
        bent.mkdir()
        bent.with_name("left").rename(bent / "left")  # own parts may lie one folder deeper
    (result,) = notebook.run_each([plan])
    category, scores = result.detector.category, result.maps.pixel.numpy()
    kept = read_maps(path_of_maps(result.record.path, plan.runs))
    assert kept.names == ("bent/left/000.png", "turned/000.png", "good/000.png")
    assert set(kept.names) <= {score.image for score in result.record.image_scores}
    assert kept.masks.any((1, 2)).tolist() == [True, True, False]
    bent = [(item.defect, item.image.name) for item in category.layout.test].index(("bent", "000.png"))
    normal = scores[~category.masks.numpy()]
    assert kept.rates[0, 5, 9] == pytest.approx(np.mean(normal >= scores[bent, 5, 9]), abs=1e-6)
    assert notebook.side_by_side([plan]).axes


def test_what_is_recorded_is_not_run_again_but_for_the_last(plan, monkeypatch, capsys):
    """Killed in row 8, a notebook goes on there; and of all rows one detector is in memory at a time."""
    monkeypatch.setitem(stpm.PROFILES, "paper", stpm.PROFILES["demo"])  # whose trainings are watched
    plans = [replace(plan, spec=replace(plan.spec, profile="paper", seed=seed)) for seed in range(2)]
    fitted, alive = [], []

    def fit(*args, **options):
        assert not [method for method in alive if method()]
        detector = experiment_fit(*args, **options)
        fitted.append(options["seed"])
        alive.append(weakref.ref(detector.method))
        return detector

    experiment_fit = notebook.fit
    monkeypatch.setattr(notebook, "fit", fit)
    (result,) = notebook.run_each(plans)
    assert (fitted, result.record.seed) == ([0, 1], 1)
    alive.clear()
    notebook.run_each(plans)
    assert fitted == [0, 1, 1]
    assert capsys.readouterr().out.count("recorded, not run again") == 1


def test_a_category_without_test_images_has_sentences_for_pictures(plan, make_category):
    data = make_category(plan.spec.data.parent / "good_only", "plate", good=0, defects={})
    (result,) = notebook.run_each([replace(plan, spec=replace(plan.spec, data=data))])
    assert notebook.gallery(result.detector.category, result.maps) == "plate has no test images to show."
    assert "No run" in notebook.side_by_side([replace(plan, spec=replace(plan.spec, data=data))])


def test_methods_are_compared_by_what_is_recorded(plan, make_record, monkeypatch):
    monkeypatch.setattr(Layout, "dataset", "demo")
    other = Plan(RunSpec("et_stpm", "plate", profile="demo", data=plan.spec.data), plan.records, plan.runs)
    here = DEMO | {"category": "plate", "precision": "fp32", "config": plan.asked(0)["settings"]}
    source = load_teacher("random")[1]
    for seed, value in ((0, 0.5), (1, 0.6)):
        run = make_record(**here, seed=seed, value=value)
        write_record(run.model_copy(update={"teacher": source}), plan.records)
    text = notebook.methods([plan, other], run_missing=False)
    assert text.count("is there") == 1
    assert text.count("is missing") == 1
    text = notebook.scores([plan, other])
    assert '<th scope="row">STPM</th><td>0.550</td>' in text  # the mean of two seeds
    assert '<th scope="row">ET-STPM</th><td></td>' in text
    assert "No run" in notebook.side_by_side([plan, other])  # records hold no maps
    empty = notebook.differences([plan, other], "pixel_auroc")
    assert empty == "No two methods have pixel AUROC on equal images and seeds."
    write_record(make_record(**here, method="et_stpm", seed=0, value=0.8), plan.records)
    assert "+0.300" in notebook.differences([plan, other], "pixel_auroc")  # seed 0 alone is in both


def test_a_metric_that_was_not_measured_is_no_empty_cell_but_a_sentence_with_the_reason(
    plan, make_record, monkeypatch
):
    monkeypatch.setattr(Plan, "runs_recorded", lambda _: [make_record(undefined={"pixel_ap": "no masks"})])
    told = notebook.differences([plan], "pixel_ap")
    assert told == "No two methods have pixel AP on equal images and seeds; no masks."


def test_printed_numbers_stand_below_the_means(plan, make_record, make_category, monkeypatch):
    data = make_category(plan.spec.data, "carpet")
    carpet = Plan(RunSpec("stpm", "carpet", profile="paper", data=data), plan.records, plan.runs)
    write_record(make_record("carpet", metrics={"pixel_auroc": 0.98}), plan.records)
    assert "printed" not in notebook.scores([carpet])  # own parts of that name
    monkeypatch.setattr(Layout, "dataset", "MVTec AD")
    official = Plan(carpet.spec, plan.records, plan.runs)
    assert "<td>0.980<br><small>printed 0.990292</small></td>" in notebook.scores([official])


def test_a_failed_training_leaves_its_record_and_stops(plan, monkeypatch):
    recipe = stpm.Config(image_size=64, epochs=1, batch_size=4, learning_rate=1e30)
    monkeypatch.setitem(stpm.PROFILES, "demo", recipe)
    with pytest.raises(RunFailed):
        notebook.run_each([plan])
    (path,) = plan.records.rglob("*.json")
    assert read_record(path).status == "failed"


def test_metrics_stand_beside_the_reported_ones(make_record):
    text = notebook.metrics(make_record("carpet", metrics={"pixel_auroc": 0.98}))
    assert '<th scope="row">pixel AUROC</th><td>0.980</td><td>0.990292</td><td>\u22120.010</td>' in text
    assert "full schedule and dataset" in text


def test_the_demo_and_own_parts_have_no_reported_numbers(make_record):
    text = notebook.metrics(make_record(**DEMO))
    blank = '<th scope="row">pixel AUROC</th><td>0.970</td><td></td><td></td><td></td>'
    assert blank in text
    assert "demo data; demo schedule; demo teacher" in text
    assert blank in notebook.metrics(make_record("screw", dataset="other"))


def test_a_method_that_no_paper_here_names_is_run_recorded_and_shown(plan, make_category, monkeypatch):
    monkeypatch.setitem(METHODS, "made_up_here", METHODS["stpm"])  # what a new file of stlib/methods adds
    monkeypatch.setattr(Layout, "dataset", "MVTec AD")  # other data stand beside no printed number
    data = make_category(plan.spec.data, "screw")
    own = Plan(
        replace(plan.spec, method="made_up_here", category="screw", data=data), plan.records, plan.runs
    )
    (result,) = notebook.run_each([own])
    assert f"{result.record.metrics['aupro']:.3f}" in notebook.metrics(result.record)
    assert '<th scope="row">made_up_here</th>' in notebook.scores([own])
    assert notebook.side_by_side([own]).axes[2].get_title() == "made_up_here"
    assert list(runtimes(own.runs_recorded())["method"]) == ["made_up_here"]
