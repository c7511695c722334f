"""The workflow plans the cells that lack a finished record, all of them and no others.

Planning is a dry run of Snakemake, which takes seconds: as few calls as can be. Most tests read the plan of a
folder with one finished, one failed and one truncated record. A cell's record decides; markers that an
earlier workflow left do not.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stlib.methods import METHODS
from stlib.paths import RECORDS, ROOT
from stlib.records.schema import Record
from stlib.records.store import read_record, write_record
from study.plan.grid import Cell, read_grid

pytest.importorskip("snakemake", reason="the extra 'workflow' is not installed")

BRICK, GRASS, GRAVEL, WASHER = (cell for cell in read_grid("demo").cells() if cell.method == "stpm")


def snakemake(folder: Path, *settings: str, target: str = "runs", status: int = 0, plan: bool = True) -> str:
    """What Snakemake prints when it plans, or makes, the demo grid in `folder`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    command += ["--workflow-profile", str(ROOT / "workflow/profiles/local"), "-p"]
    command += [*(["--dry-run"] if plan else []), "--config", "grid=demo"]
    command += [f"records={folder}/records", f"runs={folder}/runs", *settings, "--", target]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def marker(folder: Path, cell: Cell) -> Path:
    return folder / "runs" / ".done" / "demo" / "runs" / cell.path.relative_to("demo").with_suffix("")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflow")
    records = folder / "records"
    finished = read_record(RECORDS / BRICK.path)
    write_record(finished, records)
    failed = finished.model_dump() | {"category": "grass", "status": "failed", "error": "diverged"}
    write_record(Record.model_validate(failed | {"metrics": {}, "undefined": {}}), records)
    (records / GRAVEL.path).write_bytes((RECORDS / BRICK.path).read_bytes()[:1000])
    shutil.copytree(records, folder / "before")
    for cell in (GRASS, WASHER):
        marker(folder, cell).parent.mkdir(parents=True, exist_ok=True)
        marker(folder, cell).touch()
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> str:
    return snakemake(folder, "methods=", "teacher=", "textures=", target="site")  # as if they were not given


def test_exactly_the_cells_without_a_finished_record_are_planned(plan: str):
    planned = re.findall(r"wildcards: row=(\S+), image=(\S+)", plan)
    wanted = {(cell.path.parent.name, cell.path.stem) for cell in read_grid("demo").cells()}
    assert len(planned) == len(set(planned))
    assert set(planned) == wanted - {("stpm", "brick-s0")}
    assert "7 runs, 1 finished, 1 failed, 1 damaged, 4 missing; 6 to run" in plan


def test_a_marker_without_its_record_is_removed(plan: str, folder: Path):
    assert plan
    assert not marker(folder, GRASS).exists()
    assert not marker(folder, WASHER).exists()


def test_planning_leaves_the_records_alone(plan: str, folder: Path):
    assert plan
    before, after = (
        {path.relative_to(folder / name): path.read_bytes() for path in (folder / name).rglob("*.*")}
        for name in ("before", "records")
    )
    assert len(before) == 3
    assert after == before


def test_one_fine_tuned_teacher_comes_before_the_runs_that_need_it(plan: str):
    assert re.findall(r"wildcards: name=(\S+)", plan) == ["s0"]
    (needed,) = re.findall(r"input: (.*)\n\s+output: .*/runs/et_stpm/washer-s0", plan)
    assert "/tuning/s0" in needed


def test_an_empty_setting_leaves_the_default_in_force(plan: str):
    assert "teacher=demo textures= " in plan


def test_the_demo_renews_no_table_of_the_study(plan: str):
    assert "rule site:" in plan
    assert "study.cli readme" not in plan
    assert "VENV=/" not in plan  # a folder above the checkout may have a space in its name


def test_the_study_renews_its_tables_and_tells_which_runs_lack_images_or_textures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STLIB_RESULTS", str(tmp_path))
    monkeypatch.setenv("STLIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mvtec_ad" / "pill" / "train").mkdir(parents=True)
    asked = ["grid=paper", "methods=stpm,destseg", "categories=pill,wood", "seeds=0"]
    planned = snakemake(tmp_path, *asked, target="tables")
    assert f"study.cli readme --records {tmp_path}/records" in planned
    assert f"runs are left out: no images in {tmp_path}/data/mvtec_ad" in planned
    assert f"1 runs are left out: no textures in {tmp_path}/data/dtd" in planned


def test_a_misspelt_setting_is_refused_before_any_job(folder: Path):
    told = snakemake(folder, "category=washer", status=1)
    assert "no setting is called 'category': there are grid, grids, methods, categories" in told


def test_own_parts_are_refused_before_any_job(tmp_path: Path, make_category):
    data = make_category(tmp_path / "data", "screw", train=2, good=1, defects={}, size=16)
    told = f"{data}/screw holds no images of MVTec AD's screw: of own data make runs by a loop of `stlib run`"
    assert told in snakemake(tmp_path, "grid=paper", f"data={data}", "methods=stpm", "seeds=0", status=1)


def test_categories_that_come_later_are_checked_too(tmp_path: Path, make_category):
    data = make_category(tmp_path / "data", "plate", train=2, good=1, defects={}, size=16)
    settings = ["grid=paper", f"data={data}", "accept_gaps=yes"]
    check = f"{tmp_path}/runs/.done/paper/data"
    snakemake(tmp_path, *settings, target=check, plan=False)
    make_category(data, "washer", train=2, good=1, defects={}, size=16)
    assert "rule data:" in snakemake(tmp_path, *settings, target=check)


def test_every_method_says_what_a_run_may_take():
    needs = yaml.safe_load((ROOT / "workflow" / "config.yaml").read_bytes())["needs"]
    methods = {cell.method for name in ("paper", "demo") for cell in read_grid(name).cells()}
    assert methods <= METHODS.keys()
    assert needs.keys() - METHODS.keys() == {"run", "tuning"}  # of other methods, and of a teacher
    for need in needs.values():
        assert set(need) == {"threads", "mem_mb", "runtime", "gpu_share"}
        assert 0 < need["gpu_share"] <= 100
