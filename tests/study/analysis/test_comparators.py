"""Comparators stand beside other numbers without a verdict."""

import pandas as pd
import pytest

from stlib.protocol import CATEGORIES
from stlib.records.store import load_records
from study.analysis import comparators
from study.analysis.audit import REIMPLEMENTATIONS
from study.analysis.comparators import COMPARATORS, CONDITIONS, ROWS
from study.analysis.comparison import METHODS, comparison


@pytest.fixture
def runs(make_record):
    """STPM and PatchCore with two seeds on three categories, one of them incomplete; SPADE with one."""
    made = []
    for category, gaps in (("bottle", ()), ("pill", ()), ("toothbrush", ("test/good: 0 of 12 images",))):
        for seed in (0, 1):
            made.append(make_record(category, seed, 0.95 + seed / 100, gaps=gaps))
            made.append(make_record(category, seed, 0.97, method="patchcore", gaps=gaps))
            made.append(
                make_record(category, seed, 0.90, method="patchcore", variant="coreset=1%", gaps=gaps)
            )
        made.append(make_record(category, 0, 0.91, method="spade", gaps=gaps))
    return made


def test_a_printed_number_of_another_backbone_gets_no_verdict(runs):
    rows = {row.category: row for row in comparison(runs, "patchcore", "pixel_auroc")}
    assert rows["bottle"].reported_number == pytest.approx(0.989)
    assert (rows["bottle"].reproduced, rows["bottle"].verdict) == (0.97, "different backbone")
    assert rows["bottle"].distance == pytest.approx(0.97 - 0.989)
    assert rows["mean of 2 of 15"].verdict == "different backbone"
    assert {row.difference for row in rows.values()} == {None}
    assert rows["toothbrush"].verdict == "not comparable"


def test_the_table_of_systems_has_every_run_and_no_empty_row_or_column(runs):
    table = comparators.systems(runs, "pixel_auroc")
    assert list(table.columns) == ["STPM", "PatchCore", "PatchCore (1 % coreset)", "SPADE"]
    assert list(table.index) == ["bottle", "pill", "toothbrush"]
    assert table.loc["bottle", "STPM"].reproduced == pytest.approx(0.955)
    assert table.loc["bottle", "STPM"].sd == pytest.approx(0.00707, abs=1e-5)
    assert (table.loc["pill", "SPADE"].seeds, table.loc["pill", "SPADE"].sd) == (1, None)
    assert table.loc["toothbrush", "PatchCore"].verdict == "not comparable"


def test_differences_to_stpm_are_paired_by_seed(runs):
    found = comparators.against_stpm(runs, "pixel_auroc")
    assert list(found) == ["PatchCore", "PatchCore (1 % coreset)", "SPADE"]
    assert [pair.category for pair in found["PatchCore"]] == ["bottle", "pill", "mean of 2"]  # whole ones
    assert found["PatchCore"][0].seeds == (0, 1)
    assert found["PatchCore"][0].difference == pytest.approx(0.015)
    assert found["SPADE"][0].seeds == (0, 1)  # its one run draws nothing: it stands against every seed


def test_three_numbers_stand_side_by_side(runs):
    row = comparators.three_ways(runs, "patchcore", "pixel_auroc").set_index("category").loc["bottle"]
    assert (row["printed"].paper, row["printed"].number) == ("destseg", pytest.approx(0.989))
    assert row["anomalib, ResNet-18"] == 0.981
    assert (row["here"].reproduced, row["here"].seeds) == (0.97, 2)


@pytest.mark.parametrize(
    ("method", "metric", "work", "mean"),
    [
        ("patchcore", "image_auroc", "anomalib, ResNet-18", 0.973),
        ("patchcore", "pixel_auroc", "anomalib, ResNet-18", 0.976),
        ("padim", "image_auroc", "anomalib, ResNet-18", 0.891),
        ("padim", "pixel_auroc", "anomalib, ResNet-18", 0.968),
        ("padim", "image_auroc", "xiahaifeng1995, ResNet-18", 0.905),
        ("padim", "pixel_auroc", "xiahaifeng1995, ResNet-18", 0.965),
        ("spade", "image_auroc", "byungjae89, Wide ResNet-50, K = 5", 0.854),
        ("spade", "pixel_auroc", "byungjae89, Wide ResNet-50, K = 5", 0.964),
        ("spade", "pixel_auroc", "SPADE's paper, as byungjae89 quotes it", 0.960),
    ],
)
def test_what_others_printed_has_the_means_that_they_print(method, metric, work, mean):
    rows = pd.read_csv(REIMPLEMENTATIONS)
    own = rows[(rows["method"] == method) & (rows["metric"] == metric) & (rows["work"] == work)]
    assert sorted(own["category"]) == sorted(CATEGORIES)
    assert own["value"].mean() == pytest.approx(mean, abs=6e-4)


def test_every_system_has_its_conditions_with_a_source():
    frame = comparators.conditions()
    assert set(frame["method"]) == {*METHODS, *COMPARATORS}
    assert frame.notna().all().all()
    assert (frame["source"] != "").all()
    assert CONDITIONS.read_text().count("\n") == len(frame) + 1


def test_the_committed_runs_of_a_comparator_are_in_the_table():
    records = load_records(rows=ROWS)
    table = comparators.systems(records, "pixel_auroc")
    assert {"STPM", "PatchCore", "PaDiM", "SPADE"} <= set(table.columns)
