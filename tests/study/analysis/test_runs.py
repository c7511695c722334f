import re

import pytest
from typer.testing import CliRunner

from stlib.cli import app
from stlib.protocol import CATEGORIES
from stlib.records.schema import TextureInfo
from study.analysis.runs import families, last_epochs, made, rerun_command, runtimes, spent, state_of_study
from study.columns import MADE
from study.tables import say

GAP = "test/good: 0 of 12 images"


def test_the_command_of_a_record(make_record):
    assert rerun_command(make_record("bottle", 2)) == (
        "stlib run stpm bottle --seed 2 --profile paper "
        "--precision bf16 --data data/mvtec_ad --teacher torchvision"
    )
    assert "--teacher path/to/weights.pth" in rerun_command(make_record(teacher="weights.pth"))
    demo = rerun_command(make_record("brick", dataset="demo", teacher="demo", profile="demo"))
    assert "--profile demo --precision bf16 --data build/demo --teacher demo" in demo
    on_gpu = make_record(
        precision="tf32", runtime=make_record().runtime.model_copy(update={"device": "NVIDIA H200"})
    )
    assert rerun_command(on_gpu).endswith("--teacher torchvision --device cuda")  # tf32 is refused elsewhere
    textures = TextureInfo(source="DTD", fingerprint="3" * 64, images=5640)
    varied = rerun_command(make_record(variant="epochs=200", textures=textures))
    assert (
        "--variant epochs=200 --precision bf16 --data data/mvtec_ad --textures data/dtd --teacher" in varied
    )


def test_the_command_uses_options_that_exist(make_record):
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert set(re.findall(r"--\w+", rerun_command(make_record()))) <= set(re.findall(r"--\w+", text))


def test_the_caption_tells_how_the_runs_were_made(make_record):
    runs = [make_record(seed=0), make_record(seed=1, precision="fp32"), make_record(seed=2, status="failed")]
    assert say(MADE, made=made(runs)) == (
        "2 runs; seeds 0, 1; training in bf16, fp32; teacher torchvision IMAGENET1K_V1; on CPU, test."
    )
    assert say(MADE, made=made([])) == "No run has finished yet."


def test_runs_that_differ_by_their_seed_are_a_family(make_record):
    records = [make_record(), make_record("grid"), make_record(seed=1), make_record(variant="epochs=200")]
    found = [(row["category"], row["variant"], [r.seed for r in row["records"]]) for row in families(records)]
    assert found == [("bottle", "", [0, 1]), ("grid", "", [0]), ("bottle", "epochs=200", [0])]


def test_runtimes_are_medians(make_record):
    frame = runtimes([make_record(), make_record("grid"), make_record("pill", status="failed")])
    assert frame[["runs", "training", "evaluation", "memory"]].to_numpy().tolist() == [[2, 600, 30, 2048]]


def test_what_was_spent_counts_cores_and_leaves_the_demo_out(make_record):
    runs = [make_record("bottle", 0), make_record("grid", 0)]  # 600 s of training, 30 s of evaluation
    found = spent([*runs, make_record("bottle", 1, profile="demo")])
    assert (found["runs"], found["cpu_hours"], found["gpu_hours"]) == (2, pytest.approx(2 * 630 / 3600), 0)
    assert found["evaluation"] == pytest.approx(30 / 630)
    runtime = runs[0].runtime.model_copy(update={"device": "NVIDIA H100", "threads": 16})
    gpu = spent([runs[0].model_copy(update={"runtime": runtime})])
    assert (gpu["cpu_hours"], gpu["gpu_hours"]) == (
        0,
        pytest.approx(630 / 3600),
    )  # one GPU, 16 threads


def test_state_counts_comparable_seeds_only(make_record):
    runs = [
        *(make_record("bottle", seed) for seed in (0, 1)),
        make_record("toothbrush", gaps=[GAP]),
        make_record("grid", status="failed"),
        make_record("pill", profile="short"),
    ]
    (row,) = state_of_study(runs, ["stpm"])
    assert row.pop("Method") == "STPM"
    counts = {category: tuple(cell.values()) for category, cell in row.items()}
    known = {"bottle": (2, 0, 0), "toothbrush": (0, 1, 0), "grid": (0, 0, 1)}
    assert counts == dict.fromkeys(CATEGORIES, (0, 0, 0)) | known


def test_the_last_epoch_is_held_against_the_best_by_its_error_and_its_score(make_record):
    run = make_record("pill", 1)
    scores = run.sensitivity | {"checkpoint=last": {"pixel_auroc": run.metrics["pixel_auroc"] - 0.25}}
    kept = run.model_copy(update={"sensitivity": scores})
    blind = run.model_copy(update={"history": None})  # nothing was chosen: there is no other epoch
    anew = scores | {"statistics=anew,checkpoint=last": {"pixel_auroc": 0.9}}
    found = last_epochs([kept, blind, run.model_copy(update={"sensitivity": anew})])
    (*place, ratio, last, fall, _), (*_, last_anew) = found.itertuples(index=False)
    assert place == ["stpm", "", "pill", 1]
    assert (round(ratio, 6), round(fall, 6)) == (1.5, 0.25)  # errors 0.1, 0.02, 0.03
    assert last == run.metrics["pixel_auroc"] - 0.25
    assert (last_anew, list(found["last_anew"].isna())) == (0.9, [True, False])
