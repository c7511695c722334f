import re
from pathlib import Path

import pytest
import torch

from stlib import paths
from stlib.data.layout import Layout, fingerprint
from stlib.nn.backbone import load_teacher
from stlib.records.store import RecordError, write_record
from study import parameters
from study.notebook import methods, run_each
from study.parameters import ParameterError, check, check_ablation, check_compare, check_epochs


@pytest.fixture
def given(tmp_path, make_category):
    """Parameters that can start a demo run; nothing is written outside `tmp_path`."""
    data = make_category(tmp_path / "data", "plate")
    return {
        "method": "stpm",
        "variant": "",
        "textures": "",
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
    assert (plan.spec.method, plan.spec.category, plan.spec.seed) == ("stpm", "plate", 0)
    assert plan.spec.data == tmp_path / "data"
    assert plan.records == tmp_path / "records"
    assert list(plan.records.iterdir()) == []  # the trial file is gone


def test_a_kernel_that_runs_the_demo_computes_with_one_thread(given):
    torch.set_num_threads(2)
    try:
        check(given)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("profile", "teacher"), [("demo", "demo"), ("paper", "torchvision")])
def test_a_teacher_that_is_not_named_is_the_profiles_own(given, make_category, profile: str, teacher: str):
    make_category(Path(given["data"]), "bottle")
    plan = check(given | {"teacher": "", "profile": profile, "category": "bottle"})
    assert plan.spec.teacher == teacher


def test_what_a_kernel_adds_is_no_parameter(given):
    kernel = {"In": [""], "Out": {}, "_": "", "_i1": "x", "exit": check, "parameters": parameters}
    assert check(given | kernel) == check(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"catgeory": "grass"}, "catgeory = 'grass': no such parameter, did you mean category?"),
        ({"epochs": 3}, "epochs = 3: no such parameter, there are category, seed"),
        ({"seed": True}, "seed = True: input should be a valid integer"),
        ({"seed": -1}, "seed -1: choose a whole number from 0"),
        ({"data": 2024}, "data = 2024: .* with -r data"),
        ({"method": "pfadseg", "variant": "RMC"}, "no variant 'RMC': there are none, RCM"),
        ({"method": "stmp"}, "unknown method 'stmp': choose one of"),
        ({"profile": "papers"}, "profile = 'papers': input should be 'paper', 'short' or 'demo'"),
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
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(parameters, "make_demo", lambda _: tmp_path / "data")
    monkeypatch.setattr(parameters, "DEMO_CATEGORIES", ("plate",))
    monkeypatch.setattr(Layout, "dataset", "demo")
    plan = check(given | {"data": "", "records": "", "runs": ""})
    assert (plan.records, plan.runs) == (tmp_path / "build" / "records", tmp_path / "build" / "runs")
    assert plan.spec.data == tmp_path / "build" / "demo"


def test_mvtec_runs_go_to_the_committed_results(given, tmp_path, monkeypatch, make_category):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    make_category(tmp_path / "mvtec_ad", "tile", train=230, defects={"crack": 1}, size=16)
    plan = check(given | {"category": "tile", "profile": "paper", "data": "", "records": ""})
    assert plan.records == tmp_path / "results"
    assert plan.spec.data == tmp_path / "mvtec_ad"
    assert not (tmp_path / "build").exists()


@pytest.fixture
def row(given):
    """Parameters of the ablation notebook."""
    return {k: v for k, v in given.items() if k not in ("method", "variant")} | {"row": "none"}


def test_a_row_of_the_ablation_is_a_variant_and_all_are_nine_runs(row):
    assert [(p.spec.method, p.spec.variant) for p in check_ablation(row)] == [("pfadseg", "none")]
    every = [p.spec.variant for p in check_ablation(row | {"row": "all"})]
    assert len(set(every)) == 9
    assert check_ablation(row | {"row": "RCM+AFF+PCAR"})[0].spec.variant == ""  # the method itself


def test_an_unknown_row_is_refused_with_the_known_ones(row):
    with pytest.raises(ParameterError, match=r"row = 'RMC': choose one of none, RCM, .*, control, or all"):
        check_ablation(row | {"row": "RMC"})


@pytest.fixture
def epochs(given, make_category):
    """Parameters of the notebook of the teacher's epochs, which tells two categories apart."""
    make_category(Path(given["data"]), "bolt")
    return {k: v for k, v in given.items() if k not in ("method", "textures")} | {"epochs": [5, 0, 2, 5]}


def test_epochs_are_a_number_or_a_list_fewest_first_and_once(epochs):
    assert [p.spec.variant for p in check_epochs(epochs)] == ["e=0", "", "e=5"]
    assert [p.spec.variant for p in check_epochs(epochs | {"epochs": 1})] == ["e=1"]
    both = check_epochs(epochs | {"epochs": [2, 3], "variant": "data=B"})
    assert [p.spec.variant for p in both] == ["data=B", "e=3,data=B"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "epochs = 4: choose among 0, 1, 2, 3, 5, 10"),
        ({"epochs": [2, -1]}, "epochs = -1: choose among 0, 1"),
        ({"epochs": 2, "variant": "e=0"}, "variant = 'e=0': say it by epochs"),
        ({"epochs": "2,5"}, "epochs = '2,5': input should be a valid list .* -y 'epochs: "),
        ({"epochs": []}, r"epochs = \[\]: choose among 0, 1, 2"),
    ],
)
def test_epochs_that_are_not_in_the_study_are_refused(epochs, change, message):
    with pytest.raises(ValueError, match=message):
        check_epochs(epochs | change)


@pytest.fixture
def several(given):
    """Parameters of the notebook that compares methods."""
    compared = {"methods": ["stpm", "destseg", "stpm"], "metric": "iap", "run_missing": False}
    return {k: v for k, v in given.items() if k not in ("method", "variant")} | compared


def test_every_method_is_compared_once_and_recorded_only_by_a_finished_run(several, make_record, monkeypatch):
    monkeypatch.setattr(Layout, "dataset", "demo")
    plans = check_compare(several)
    assert [plan.spec.method for plan in plans] == ["stpm", "destseg"]
    stpm, destseg = (make_alike(make_record, plan) for plan in plans)
    write_record(stpm, plans[0].records)
    failed = {"status": "failed", "error": "nan", "metrics": {}}
    write_record(destseg.model_copy(update=failed), plans[0].records)
    assert [plan.recorded for plan in plans] == [True, False]


def make_alike(make_record, plan, *, teacher="random", **changes):
    """A record of what `plan` would run, but for the `changes`."""
    spec, settings = plan.spec, plan.asked(plan.spec.seed)["settings"]
    names = ("method", "category", "seed", "profile", "precision")
    about = {name: getattr(spec, name) for name in names} | {"config": settings} | changes
    run = make_record(**about, dataset=plan.layout.dataset)
    data = run.dataset.model_copy(update={"fingerprint": fingerprint(plan.layout)})
    return run.model_copy(update={"dataset": data, "teacher": load_teacher(teacher)[1]})


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"teacher": "demo"}, r"teacher \(demo\)"),
        ({"precision": "bf16"}, r"precision \(bf16\)"),
        ({"config": {"epochs": 5}}, "settings"),
    ],
)
def test_a_run_made_otherwise_is_never_taken_for_the_one_asked_for(several, make_record, change, other):
    """It is shown, since a table may hold runs in several precisions, and the first cell says so."""
    plan = check_compare(several)[0]
    write_record(make_alike(make_record, plan, **change), plan.records)
    assert not plan.recorded
    assert re.search(f"runs of other {other} are shown, too", methods([plan], run_missing=False))
    asked = several | {"run_missing": True}
    with pytest.raises(RecordError, match=rf"finished record of other {next(iter(other.split()))}: name"):
        check_compare(asked)
    assert check_compare(asked | {"seed": 1})  # its place is free


def test_a_run_made_alike_is_recorded(several, make_record):
    plan = check_compare(several)[0]
    write_record(make_alike(make_record, plan), plan.records)
    assert plan.recorded
    assert not plan.others
    assert check_compare(several | {"run_missing": True})


def test_the_first_cell_tells_that_the_records_place_is_taken(given, make_record):
    plan = check(given)
    write_record(make_alike(make_record, plan, precision="bf16"), plan.records)
    with pytest.raises(RecordError, match="a finished record of other precision: name another folder"):
        check(given)


def test_records_of_other_photographs_are_no_other_seeds_of_a_run(several, make_record):
    """Own parts are photographed again and again under one name; a mean over both says nothing."""
    plan = check_compare(several)[0]
    new = make_alike(make_record, plan)
    old = new.model_copy(update={"dataset": new.dataset.model_copy(update={"fingerprint": "0" * 64})})
    write_record(old, plan.records)
    assert not plan.recorded
    write_record(new, plan.records)
    write_record(make_record("bottle"), plan.records)
    assert plan.recorded
    for found in (plan.runs_recorded(), plan.records_beside()):
        assert [run.path for run in found] == [new.path]


def test_run_all_comes_a_second_time(row, epochs, several):
    """What the cells of the first time left in the kernel is taken for no parameter."""
    for given, checked in ((row, check_ablation), (epochs, check_epochs), (several, check_compare)):
        names = dict(given)
        names["plans"] = checked(names)
        names["results"] = run_each([])
        names["recorded"] = names["plans"][0].records_beside()
        assert checked(names) == names["plans"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, r"methods = \[\]: choose among"),
        ({"methods": "stpm"}, r"papermill passes a list with -y 'methods: \[stpm, \.\.\.\]'"),
        ({"metric": "auc"}, "metric = 'auc': input should be 'image_auroc'"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(several, change, message):
    with pytest.raises(ValueError, match=message):
        check_compare(several | change)


def test_own_data_are_compared_among_own_records(several):
    with pytest.raises(ParameterError, match="name the folder of own runs, results/own/records"):
        check_compare(several | {"records": "results/records"})


def test_the_demo_never_writes_over_the_runs_that_tests_compare_with(several):
    with pytest.raises(ParameterError, match="another folder, such as 'build/records'"):
        check_compare(several | {"records": "results/records", "run_missing": True})
