"""What README and the book call is exported, and a fit is one path with `experiment.run`."""

import ast
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stlib
from stlib.data.mvtec import Category
from stlib.decision import threshold_from
from stlib.detector import digests
from stlib.methods import et_stpm, stpm
from stlib.metrics import PixelRanking
from stlib.paths import ROOT
from stlib.records.store import read_record
from stlib.run.experiment import run
from stlib.run.spec import RunSpec

TINY = {"image_size": 64, "epochs": 2, "batch_size": 4}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(stpm.PROFILES, "demo", stpm.Config(**TINY))


def fit(category: Category | Path | str, **options) -> stlib.FittedDetector:
    return stlib.fit("stpm", category, profile="demo", teacher="random", progress=False, **options)


def test_importing_the_package_or_the_records_loads_no_torch():
    code = "import sys, stlib, stlib.records.store; dir(stlib); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_exported_name_is_there_and_no_other():
    assert set(stlib.__all__) <= set(dir(stlib))
    for name in stlib.__all__:
        assert getattr(stlib, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'train': it exports"):
        _ = stlib.train


def test_type_checkers_are_shown_every_exported_name_from_where_it_is_defined():
    code = ast.parse(Path(stlib.__file__).read_bytes())
    imports = [node for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname: node.module for node in imports for alias in node.names if alias.asname}
    assert shown == stlib._HOMES


def test_the_code_of_readme_and_book_names_what_is_exported():
    pages = [ROOT / "README.md", *(ROOT / "book").glob("*.md")]
    code = [
        cell
        for page in pages
        for cell in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    named = set(re.findall(r"(?<!from )\bstlib\.(\w+)", "".join(code)))
    assert {"fit", "inspect"} <= named <= set(stlib.__all__)


def test_a_saved_detector_scores_photographs_as_the_training_saw_them(plate: Category, tmp_path):
    fitted = fit(plate)
    fitted.save(f"{tmp_path}/plate.safetensors")
    detector = stlib.Detector.load(f"{tmp_path}/plate.safetensors")
    held = fitted.maps(plate.train[stpm.held_out(stpm.Config(), len(plate.train))]).image
    assert detector.info.threshold == threshold_from(held.tolist())
    assert detector.info.training_images == digests(plate.train)
    assert len(repr(fitted)) < 1500  # no pixels, no weights, no names of images
    maps = detector.maps(plate.test)
    assert torch.equal(maps.pixel, fitted.maps(plate.test).pixel)
    found = list(stlib.inspect(detector, str(plate.layout.folder / "test")))
    assert [one.path for one in found] == [item.image for item in plate.layout.test]
    assert [one.score for one in found] == pytest.approx(maps.image.tolist())
    limit = detector.info.threshold.value
    assert [one.anomalous for one in found] == [score > limit for score in maps.image.tolist()]
    (single,) = stlib.inspect(detector, [found[0].path])
    assert single.score == pytest.approx(found[0].score)


def test_the_front_door_and_a_run_give_the_same_record(plate: Category, tmp_path, same_result):
    detector = fit(plate)
    maps = detector.maps(plate.test)
    spec = RunSpec("stpm", "plate", profile="demo", data=plate.layout.folder.parent, teacher="random")
    result = run(spec, runs=tmp_path)
    assert torch.equal(maps.pixel, result.maps.pixel)
    assert same_result(detector.record(maps), result.record)
    metrics = stlib.evaluate(maps, plate).metrics
    assert {name: metrics[name] for name in result.record.metrics} == result.record.metrics


def test_every_argument_of_a_fit_reaches_its_run(plate: Category, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("stlib.run.fit.train", lambda spec, *_, **__: asked.append(spec))
    wanted = {
        "profile": "short", "variant": "RCM", "seed": 7, "teacher": "random", "textures": tmp_path,
        "device": "cuda:1", "precision": "bf16",
    }  # fmt: skip
    stlib.fit("pfadseg", plate, **wanted, progress=False)
    assert asked == [RunSpec("pfadseg", "plate", data=plate.layout.folder.parent, **wanted)]


def test_a_folder_is_fitted_as_the_category_that_was_read_from_it(plate: Category):
    here, there = fit(plate), fit(str(plate.layout.folder))
    assert there.category.fingerprint == plate.fingerprint
    assert torch.equal(here.maps(plate.test).pixel, there.maps(plate.test).pixel)


def test_a_folder_that_is_not_there_is_refused_with_the_names_there_are(plate: Category):
    with pytest.raises(ValueError, match=r"no category 'plates' under .*: there are .*plate"):
        fit(f"{plate.layout.folder.parent}/plates")


def test_a_fit_leaves_nothing_behind_unless_it_is_told_where(plate: Category, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("stlib.run.fit.train", lambda *_, runs, **__: asked.append((runs, runs.is_dir())))
    fit(plate)
    fit(plate, runs="kept")
    (scratch, there), kept = asked
    assert there
    assert not scratch.exists()
    assert kept == (Path("kept"), False)
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_are_refused_with_the_remedy(plate: Category, monkeypatch):
    monkeypatch.setitem(stpm.PROFILES, "demo", stpm.Config(**TINY | {"image_size": 96}))
    with pytest.raises(ValueError, match=r"plate was loaded at 64 pixels.*image_size=96"):
        fit(plate)


def test_et_stpm_says_that_its_teacher_needs_categories_and_a_folder(
    plate: Category, tmp_path, make_category, monkeypatch
):
    monkeypatch.setitem(et_stpm.PROFILES, "demo", et_stpm.Config(**TINY))
    with pytest.raises(ValueError, match=r"ET-STPM .* needs at least two .* holds only plate: use STPM"):
        stlib.fit("et_stpm", plate, profile="demo", teacher="random", runs=tmp_path)
    for name in ("bolt", "nut"):
        make_category(tmp_path, name, train=3)
    bolt = stlib.load_category(tmp_path, "bolt", image_size=64)
    with pytest.raises(ValueError, match=r"ET-STPM fine-tunes its teacher first, on all categories.*runs="):
        stlib.fit("et_stpm", bolt, profile="demo", teacher="random")


def test_a_fit_that_diverges_leaves_its_record_where_it_is_told(plate: Category, tmp_path, monkeypatch):
    monkeypatch.setitem(stpm.PROFILES, "demo", stpm.Config(**TINY, learning_rate=1e30))
    with pytest.raises(stlib.RunFailed, match="stpm on plate, seed 0"):
        fit(plate, records=tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert read_record(path).status == "failed"


def test_an_evaluation_prints_a_dash_for_an_undefined_metric():
    regions = torch.zeros(1, 2, 2, dtype=torch.int32)
    found = stlib.Evaluation(
        {"image_auroc": math.nan, "iap": 0.5}, PixelRanking(torch.rand(1, 2, 2), regions)
    )
    assert str(found).splitlines() == ["image AUROC    -", "IAP            0.500"]
