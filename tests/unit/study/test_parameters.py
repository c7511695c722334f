import pytest

from stlib.study import parameters
from stlib.study.parameters import ParameterError, check


@pytest.fixture
def given(tmp_path, make_category):
    """Parameters that can start a demo run; nothing is written outside `tmp_path`."""
    data = make_category(tmp_path / "data", "plate")
    return {
        "method": "stpm",
        "category": "plate",
        "seed": 0,
        "profile": "demo",
        "data": str(data),
        "teacher": "random",
        "device": "cpu",
        "precision": "fp32",
        "records": str(tmp_path / "records"),
        "runs": str(tmp_path / "runs"),
    }


def test_good_parameters_become_a_plan(given, tmp_path):
    plan = check(given)
    assert (plan.run.method, plan.run.category, plan.run.seed) == ("stpm", "plate", 0)
    assert plan.layout.folder == tmp_path / "data" / "plate"
    assert plan.records == tmp_path / "records"
    assert list(plan.records.iterdir()) == []  # the trial file is gone


def test_what_a_kernel_adds_is_no_parameter(given):
    kernel = {"In": [""], "Out": {}, "_": "", "_i1": "x", "exit": check, "parameters": parameters}
    assert check(given | kernel) == check(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"catgeory": "grass"}, "catgeory = 'grass': no such parameter, did you mean category?"),
        ({"epochs": 3}, "epochs = 3: no such parameter, there are method, category"),
        ({"seed": "0"}, "seed = '0': input should be a valid integer"),
        ({"seed": True}, "seed = True: input should be a valid integer"),
        ({"seed": 0.5}, "seed = 0.5: input should be a valid integer"),
        ({"seed": -1}, "seed -1: choose 0 or a positive"),
        ({"data": 2024}, "data = 2024: .* with -r data"),
        ({"category": None}, "category = None: input should be a valid string"),
        ({"method": "stmp"}, "unknown method 'stmp': choose one of stpm"),
        ({"profile": "papers"}, "profile = 'papers': input should be 'paper', 'short' or 'demo'"),
        ({"profile": "paper"}, "'plate' is none of its categories: choose one of carpet"),
        ({"precision": "fp16"}, "precision = 'fp16': input should be 'fp32' or 'bf16'"),
        ({"device": "gpu"}, "unknown device 'gpu': choose cpu"),
        ({"category": "plat"}, "no category 'plat' under"),
        ({"data": "", "category": "brik"}, "category = 'brik': the demo dataset has brick, grass"),
        ({"teacher": "tourchvision"}, "teacher = 'tourchvision': choose torchvision, demo, random or"),
    ],
)
def test_a_bad_parameter_is_named_with_its_remedy(given, change, message, monkeypatch):
    monkeypatch.setattr(parameters, "make_demo", lambda _: pytest.fail("work began"))
    with pytest.raises(ValueError, match=message):
        check(given | change)


def test_every_problem_is_told_at_once(given):
    with pytest.raises(ParameterError, match=r"(?s)seed = 'x'.*sede = 1: .* did you mean seed\?"):
        check(given | {"seed": "x", "sede": 1})


def test_a_missing_parameter_is_named(given):
    del given["device"]
    with pytest.raises(ParameterError, match="device is not set: restore the cell tagged 'parameters'"):
        check(given)


@pytest.mark.parametrize("name", ["records", "runs"])
def test_a_folder_that_cannot_be_written_is_refused(given, name, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParameterError, match=f"{name} = .*/file/{name}'.*Not a directory.*another folder"):
        check(given | {name: str(tmp_path / "file" / name)})


def test_relative_paths_start_at_the_repository_root(given, tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "ROOT", tmp_path)
    assert check(given | {"data": "data", "records": "here"}).records == tmp_path / "here"


def test_empty_paths_mean_the_projects_folders(given, tmp_path, monkeypatch):
    monkeypatch.setattr(parameters, "BUILD", tmp_path / "build")
    monkeypatch.setattr(parameters, "make_demo", lambda _: tmp_path / "data")
    monkeypatch.setattr(parameters, "DEMO_CATEGORIES", ("plate",))
    plan = check(given | {"data": "", "records": "", "runs": ""})
    assert (plan.records, plan.runs) == (tmp_path / "build" / "records", tmp_path / "build" / "runs")
    assert plan.run.data == tmp_path / "build" / "demo"


def test_mvtec_runs_go_to_the_committed_results(given, tmp_path, monkeypatch, make_category):
    monkeypatch.setattr(parameters, "DATA", tmp_path)
    monkeypatch.setattr(parameters, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(parameters, "BUILD", tmp_path / "build")
    make_category(tmp_path / "mvtec_ad", "tile")
    plan = check(given | {"category": "tile", "profile": "paper", "data": "", "records": ""})
    assert plan.records == tmp_path / "results"
    assert plan.layout.folder == tmp_path / "mvtec_ad" / "tile"
    assert not (tmp_path / "build").exists()
