import subprocess
import sys
from statistics import fmean, stdev

import numpy as np
import pytest

from stlib.protocol import CATEGORIES, METRICS, TOLERANCES
from stlib.records.reported import reported
from study.analysis.comparison import (
    comparison,
    differing,
    level,
    means,
    progress,
    rows_of,
    state_of_study,
    verdict,
)

NO_GOOD = {
    "image_auroc": "the test set holds no normal image",
    "image_ap": "the test set holds no normal image",
}
GAP = "test/good: 0 of 12 images"


def row(frame, category):
    return next(r for r in rows_of(frame) if r.category == category)


@pytest.mark.parametrize("metric", METRICS)
def test_the_tolerance_itself_still_agrees(metric):
    # in binary, 0.5 + 0.01 - 0.5 is not 0.01
    limit = TOLERANCES[metric]
    assert verdict(0.5 + limit, 0.5, metric) == verdict(0.5 - limit, 0.5, metric) == "agrees"
    assert verdict(0.5 + limit + 1e-6, 0.5, metric) == "higher"
    assert verdict(0.5 - limit - 1e-6, 0.5, metric) == "lower"


def test_a_verdict_needs_both_sides():
    assert verdict(None, 0.9, "iap") == "not run"
    assert verdict(0.9, None, "iap") == "not reported"
    assert verdict(None, None, "iap") == "not run"


def test_without_records_every_category_is_not_run():
    rows = rows_of(comparison([], "stpm", "image_auroc"))
    assert [r.category for r in rows] == [*CATEGORIES, "mean of 0 of 15"]
    assert {r.verdict for r in rows} == {"not run"}
    assert all(r.reproduced is None and r.difference is None for r in rows)
    assert rows[0].reported == "0.964286"


def test_a_category_is_the_mean_over_its_seeds(make_record):
    values = (0.95, 0.97, 0.99)
    runs = [make_record("bottle", seed, value) for seed, value in enumerate(values)]
    found = row(comparison(runs, "stpm", "pixel_auroc"), "bottle")
    assert found.reported == "0.988"
    assert found.reproduced == pytest.approx(0.97)
    assert found.sd == pytest.approx(stdev(values))
    assert found.difference == pytest.approx(0.97 - 0.988)
    assert (found.verdict, found.provisional, found.seeds) == ("lower", False, 3)
    assert found.records[1] == "paper/stpm/bottle-s1.json"


def test_few_seeds_are_provisional_and_one_has_no_spread(make_record):
    found = row(comparison([make_record(value=0.985)], "stpm", "pixel_auroc"), "bottle")
    assert (found.verdict, found.provisional, found.sd) == ("agrees", True, None)


def test_replicates_are_averaged_over_seeds_before_the_percentiles(make_record):
    rising, falling = list(np.linspace(0, 1, 101)), list(np.linspace(1, 0, 101))
    runs = [make_record(seed=s, bootstrap={"iap": draws}) for s, draws in enumerate((rising, falling))]
    found = row(comparison(runs, "stpm", "iap"), "bottle")
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))  # paired: the two seeds cancel
    alone = row(comparison(runs[:1], "stpm", "iap"), "bottle")
    assert (alone.low, alone.high) == pytest.approx((0.025, 0.975))


def test_the_mean_compares_the_same_categories(make_record):
    runs = [make_record("bottle", value=0.98), make_record("transistor", value=0.80)]
    found = rows_of(comparison(runs, "stpm", "pixel_auroc"))[-1]
    told = fmean(reported("stpm", "pixel_auroc", c).number for c in ("bottle", "transistor"))
    assert found.category == "mean of 2 of 15"
    assert found.reported_number == pytest.approx(told)
    assert found.reported_number != pytest.approx(reported("stpm", "pixel_auroc").number, abs=0.01)
    assert found.reproduced == pytest.approx(0.89)
    assert found.verdict == verdict(0.89, told, "pixel_auroc")


def test_the_mean_has_a_spread_only_over_common_seeds(make_record):
    runs = [make_record(c, s, 0.9 + s / 100) for c in ("bottle", "grid") for s in (0, 1)]
    assert rows_of(comparison(runs, "stpm", "iap"))[-1].sd == pytest.approx(stdev((0.90, 0.91)))
    uneven = rows_of(comparison(runs[:-1], "stpm", "iap"))[-1]
    assert (uneven.sd, uneven.seeds) == (None, 1)
    assert uneven.reproduced == pytest.approx((0.905 + 0.90) / 2)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"gaps": [GAP]}, "incomplete dataset"),
        ({"teacher": "demo"}, "demo teacher"),
        ({"dataset": "other"}, "other data"),
    ],
)
def test_labelled_runs_are_shown_but_never_judged(make_record, odd, words):
    frame = comparison([make_record("toothbrush", **odd)], "stpm", "pixel_auroc")
    found = row(frame, "toothbrush")
    assert (found.verdict, found.reproduced, found.difference) == ("not comparable", 0.97, None)
    assert words in found.note
    assert rows_of(frame)[-1].category == "mean of 0 of 15"


def test_a_labelled_run_does_not_touch_the_mean_of_clean_ones(make_record):
    runs = [make_record("bottle", 0, 0.98), make_record("bottle", 1, 0.10, gaps=[GAP])]
    found = row(comparison(runs, "stpm", "pixel_auroc"), "bottle")
    assert (found.reproduced, found.seeds) == (0.98, 1)
    assert found.note == "1 not comparable and left out"


def test_an_undefined_metric_says_why(make_record):
    run = make_record("toothbrush", gaps=[GAP], undefined=NO_GOOD)
    found = row(comparison([run], "stpm", "image_auroc"), "toothbrush")
    assert (found.verdict, found.reproduced) == ("not comparable", None)
    assert NO_GOOD["image_auroc"] in found.note


def test_profiles_variants_and_methods_stay_apart(make_record):
    runs = [
        make_record("bottle", value=0.98),
        make_record("grid", profile="short"),
        make_record("pill", variant="sum"),
        make_record("wood", method="et_stpm"),
    ]
    measured = [r.category for r in rows_of(comparison(runs, "stpm", "pixel_auroc"))[:-1] if r.seeds]
    assert measured == ["bottle"]
    short = rows_of(comparison(runs, "stpm", "pixel_auroc", profile="short"))
    assert [(r.category, r.verdict) for r in short if r.seeds] == [("grid", "not comparable")]


def test_a_failed_run_is_named(make_record):
    found = row(comparison([make_record(status="failed")], "stpm", "iap"), "bottle")
    assert (found.verdict, found.note) == ("not run", "1 failed")


def test_a_metric_that_no_paper_prints_has_a_mean_but_no_verdict(make_record):
    last = rows_of(comparison([make_record(value=0.6)], "stpm", "aupro"))[-1]
    assert (last.category, last.verdict, last.reported) == ("mean of 1 of 15", "not reported", None)
    assert last.reproduced == pytest.approx(0.6)


def test_means_are_the_last_rows_and_nothing_where_no_run_is_judged(make_record):
    frame = means([make_record()], "stpm", ("image_auroc", "iap"))
    assert frame[["metric", "category"]].to_numpy().tolist() == [
        ["image_auroc", "mean of 1 of 15"],
        ["iap", "mean of 1 of 15"],
    ]
    assert means([make_record(gaps=[GAP])], "stpm", ("iap",)).empty


def test_only_categories_that_differ_are_listed(make_record):
    runs = [make_record("bottle", value=0.988), make_record("pill", value=0.80)]
    frames = [comparison(runs, "stpm", metric) for metric in ("image_auroc", "pixel_auroc")]
    found = differing(frames)[["category", "metric"]].to_numpy().tolist()
    assert found == [["pill", "image_auroc"], ["pill", "pixel_auroc"]]
    assert differing([comparison([], "stpm", "iap")]).empty


def test_a_level_holds_mean_and_judged_categories(make_record):
    # printed for STPM: bottle 0.988, grid 0.990 pixel AUROC; the tolerance is 0.010
    found = level(
        [make_record("bottle", value=0.988), make_record("grid", value=0.970)], "stpm", "pixel_auroc"
    )
    assert (found.printed.number, found.finished, found.compared) == (0.970, 2, 2)
    assert (found.mean.reproduced, found.mean.reported_number) == pytest.approx((0.979, 0.989))
    assert (found.mean.verdict, found.mean.provisional) == ("agrees", True)
    assert [(row.category, row.verdict, row.inside) for row in found.judged] == [
        ("grid", "lower", False),
        ("bottle", "agrees", True),
    ]
    (wide,) = level([make_record("grid", value=0.970, spread=0.05)], "stpm", "pixel_auroc").judged
    assert (wide.verdict, wide.inside) == ("lower", True)
    labelled = level([make_record(gaps=[GAP])], "stpm", "pixel_auroc")
    assert (labelled.finished, labelled.compared, labelled.judged) == (1, 0, [])


def test_progress_counts_categories_and_the_span_of_seeds(make_record):
    runs = [make_record("bottle"), make_record("bottle", 1), make_record("grid")]
    runs.append(make_record("pill", method="et_stpm", gaps=[GAP]))
    found = progress(state_of_study(runs)).set_index("method")
    assert found.loc["STPM"].tolist() == [2, 1, 2, 0]
    assert found.loc["ET-STPM", ["categories", "labelled"]].tolist() == [0, 1]
    assert found.loc["PFADSeg", ["categories", "labelled"]].tolist() == [0, 0]


def test_state_counts_comparable_seeds_only(make_record):
    runs = [
        *(make_record("bottle", seed) for seed in (0, 1)),
        make_record("toothbrush", gaps=[GAP]),
        make_record("grid", status="failed"),
        make_record("pill", profile="short"),
    ]
    state = state_of_study(runs, ["stpm"]).set_index("category")["text"]
    assert state["bottle"] == "2 seeds"
    assert state["toothbrush"] == "not comparable"
    assert state["grid"] == "failed"
    assert state["pill"] == state["wood"] == "not run"


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="unknown method 'simplenet'"):
        comparison([], "simplenet", "iap")


def test_tables_pages_and_figures_import_no_torch():
    code = "import sys, study.columns, study.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
