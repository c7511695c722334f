import pytest

from stlib.data.mvtec import scan
from stlib.methods import stpm
from stlib.records.store import read_record
from stlib.run.experiment import RunSpec
from stlib.run.fitted import RunFailed
from study import notebook
from study.figures import images
from study.parameters import Plan

DEMO = {"category": "brick", "profile": "demo", "dataset": "demo", "teacher": "demo"}


@pytest.fixture
def plan(tmp_path, make_category, monkeypatch):
    """A run of one epoch on a few small images."""
    monkeypatch.setitem(stpm.PROFILES, "demo", stpm.Config(image_size=64, epochs=1, batch_size=4))
    root = make_category(tmp_path / "data", "plate", defects={"turned": 2, "bent": 1})
    spec = RunSpec("stpm", "plate", data=root, teacher="random")
    return Plan(spec, scan(root, "plate"), tmp_path / "records", tmp_path / "runs")


def test_the_recipe_holds_what_the_numbers_depend_on(plan):
    text = notebook.recipe(plan)
    for row in ("<td>STPM</td>", "<td>plate</td>", "<td>random</td>", "<td>fp32</td>", "<td>0.4</td>"):
        assert row in text


def test_the_recipe_shows_a_weight_file_without_its_folder(plan, tmp_path):
    spec = RunSpec("stpm", "plate", data=plan.spec.data, teacher=str(tmp_path / "resnet18.pth"))
    text = notebook.recipe(Plan(spec, plan.layout, plan.records, plan.runs))
    assert "<td>resnet18.pth</td>" in text
    assert str(tmp_path) not in text


def test_the_dataset_is_counted_by_kind(plan):
    text = notebook.dataset(plan)
    for row in (
        "train/good</th><td>10",
        "test/good</th><td>4",
        "test/turned</th><td>2",
        "test/bent</th><td>1",
    ):
        assert row in text


def test_samples_are_a_normal_image_and_one_of_each_kind(plan):
    figure = notebook.samples(plan, side=32)
    assert [axis.get_title() for axis in figure.axes] == ["train/good", "test/bent", "test/turned"]
    assert [bool(axis.collections) for axis in figure.axes] == [False, True, True]  # outlined defects


def test_a_run_is_shown_and_saved(plan):
    result = notebook.train(plan)
    assert len(notebook.gallery(result).axes) == 3 * 4 + 1
    assert f"{result.record.metrics['aupro']:.3f}" in notebook.metrics(result.record)
    text = notebook.save(plan, result)
    path = plan.records / result.record.path
    assert str(path) in text
    assert read_record(path).same_result(result.record)
    kept = images.read(images.path_of(result.record, plan.runs))
    assert kept.names == ("bent/000.png", "turned/000.png", "good/000.png")
    place = [item.image.name for item in result.category.layout.test if item.defect == "bent"].index(
        "000.png"
    )
    assert (kept.maps[0] == result.maps.pixel[place].numpy()).all()
    assert kept.masks.any((1, 2)).tolist() == [True, True, False]


def test_a_failed_training_leaves_its_record_and_stops(plan, monkeypatch):
    recipe = stpm.Config(image_size=64, epochs=1, batch_size=4, learning_rate=1e30)
    monkeypatch.setitem(stpm.PROFILES, "demo", recipe)
    with pytest.raises(RunFailed):
        notebook.train(plan)
    (path,) = plan.records.rglob("*.json")
    assert read_record(path).status == "failed"


def test_metrics_stand_beside_the_reported_ones(make_record):
    text = notebook.metrics(make_record("carpet", metrics={"pixel_auroc": 0.98}))
    assert '<th scope="row">pixel AUROC</th><td>0.980</td><td>0.988</td><td>-0.008</td>' in text
    assert "full schedule and dataset" in text


def test_the_demo_has_no_reported_numbers(make_record):
    text = notebook.metrics(make_record(**DEMO))
    assert '<th scope="row">pixel AUROC</th><td>0.970</td><td>-</td><td>-</td><td>-</td>' in text
    assert "demo data; demo schedule; demo teacher" in text
