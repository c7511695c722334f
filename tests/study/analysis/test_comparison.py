from statistics import fmean, stdev

import pytest

from stlib.protocol import CATEGORIES, METRICS, TOLERANCES
from study.analysis.comparison import COMPARATORS, comparison, verdict
from study.analysis.reported import METHOD_NAMES, reported

NO_GOOD = {
    "image_auroc": "the test set holds no normal image",
    "image_ap": "the test set holds no normal image",
}
GAP = "test/good: 0 of 12 images"


def row(rows, category):
    return next(r for r in rows if r.category == category)


@pytest.mark.parametrize("metric", METRICS)
def test_the_tolerance_itself_still_agrees(metric):
    # in binary, 0.5 + 0.01 - 0.5 is not 0.01
    limit = TOLERANCES[metric]
    for mean in (0.5 + limit, 0.5 - limit):
        assert verdict([mean] * 2, 0.5, metric) == "inside, not proven"
        assert verdict([mean] * 3, 0.5, metric) == "inside, proven"
    for beyond, proven in ((limit + 1e-6, "higher"), (-limit - 1e-6, "lower")):
        assert verdict([0.5 + beyond] * 2, 0.5, metric) == "outside, not proven"
        assert verdict([0.5 + beyond] * 3, 0.5, metric) == proven


def test_seeds_that_differ_too_much_prove_neither_side():
    # means 0.97 and 0.95; the 90 % interval of a mean is +-0.0017 and +-0.017
    assert verdict([0.969, 0.970, 0.971], 0.972, "pixel_auroc") == "inside, proven"
    assert verdict([0.960, 0.970, 0.980], 0.972, "pixel_auroc") == "inside, not proven"
    assert verdict([0.949, 0.950, 0.951], 0.972, "pixel_auroc") == "lower"
    assert verdict([0.940, 0.950, 0.960], 0.972, "pixel_auroc") == "outside, not proven"


def test_without_records_every_category_is_not_run():
    rows = comparison([], "stpm", "image_auroc")
    assert [r.category for r in rows] == [*CATEGORIES, "mean of 0 of 15"]
    assert {r.verdict for r in rows} == {"not run"}
    assert all(r.reproduced is None and r.difference is None for r in rows)
    assert rows[0].reported == "0.964286"


def test_a_category_is_the_mean_over_its_seeds(make_record):
    values = (0.95, 0.97, 0.99)  # printed in the authors' README: 0.987894
    runs = [make_record("bottle", seed, value) for seed, value in enumerate(values)]
    found = row(comparison(runs, "stpm", "pixel_auroc"), "bottle")
    assert found.reported == "0.987894"
    assert found.reproduced == pytest.approx(0.97)
    assert found.sd == pytest.approx(stdev(values))
    assert found.difference == pytest.approx(0.97 - 0.987894)
    assert (found.verdict, found.seeds) == ("outside, not proven", 3)
    # one more run: t = 4.303 with two degrees of freedom, s = 0.02
    assert (found.low, found.high) == (pytest.approx(0.97 - 4.303 * 0.02 * (4 / 3) ** 0.5, abs=1e-4), 1.0)
    assert found.inside
    assert found.records[1] == "paper/stpm/bottle-s1.json"


def test_one_seed_proves_nothing_and_has_no_spread(make_record):
    found = row(comparison([make_record(value=0.985)], "stpm", "pixel_auroc"), "bottle")
    assert (found.verdict, found.seeds) == ("inside, not proven", 1)
    assert found.sd is found.low is None


def test_a_tolerance_is_held_against_the_distance_to_the_rival(make_record):
    # pixel AUROC in ET-STPM's table, STPM and itself: bottle 0.988 and 0.981, transistor 0.825 and 0.869
    rows = comparison([make_record("bottle"), make_record("transistor")], "stpm", "pixel_auroc")
    assert row(rows, "bottle").gap == pytest.approx(-0.007)
    assert row(rows, "transistor").gap == pytest.approx(0.044)
    assert rows[-1].gap == pytest.approx((0.044 - 0.007) / 2)
    assert sum(abs(r.gap) <= r.tolerance for r in rows[:-1]) == 12
    # of image AUROC its table has means only: 0.971 and 0.955
    image = comparison([make_record("bottle")], "stpm", "image_auroc")[-1]
    assert image.gap == pytest.approx(0.971 - 0.955)


def test_the_reported_side_can_be_another_work(make_record):
    found = row(comparison([make_record("pill")], "stpm", "pixel_auroc", paper="et_stpm"), "pill")
    assert found.reported == "0.978"


def test_a_deviation_is_held_against_the_methods_own_numbers(make_record):
    runs = [
        make_record(value=0.98, variant="epochs=200"),
        make_record(value=0.5, variant="none", method="pfadseg"),
    ]
    assert row(comparison(runs, "stpm", "pixel_auroc", variant="epochs=200"), "bottle").reported == "0.987894"
    ablated = comparison(runs, "pfadseg", "pixel_ap", variant="none")
    assert {r.reported for r in ablated} == {None}  # a row of the ablation prints means only


def test_the_mean_compares_the_same_categories(make_record):
    runs = [make_record("bottle", value=0.98), make_record("transistor", value=0.80)]
    found = comparison(runs, "stpm", "pixel_auroc")[-1]
    told = fmean(reported("stpm", "pixel_auroc", c).number for c in ("bottle", "transistor"))
    assert found.category == "mean of 2 of 15"
    assert found.reported_number == pytest.approx(told)
    assert found.reported_number != pytest.approx(reported("stpm", "pixel_auroc").number, abs=0.01)
    assert found.reproduced == pytest.approx(0.89)
    assert found.verdict == verdict([0.89], told, "pixel_auroc")


def test_the_mean_has_a_spread_only_over_common_seeds(make_record):
    runs = [make_record(c, s, 0.9 + s / 100) for c in ("bottle", "grid") for s in (0, 1)]
    even = comparison(runs, "stpm", "iap")[-1]
    assert even.sd == pytest.approx(stdev((0.90, 0.91)))
    assert even.low == pytest.approx(0.905 - 12.706 * even.sd * 1.5**0.5, abs=1e-4)  # over the seeds' means
    uneven = comparison(runs[:-1], "stpm", "iap")[-1]
    assert (uneven.sd, uneven.low, uneven.seeds) == (None, None, 1)
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
    rows = comparison([make_record("toothbrush", **odd)], "stpm", "pixel_auroc")
    found = row(rows, "toothbrush")
    assert (found.verdict, found.reproduced, found.difference) == ("not comparable", 0.97, None)
    assert words in found.note
    assert rows[-1].category == "mean of 0 of 15"


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
    measured = [r.category for r in comparison(runs, "stpm", "pixel_auroc")[:-1] if r.seeds]
    assert measured == ["bottle"]


def test_a_failed_run_is_named(make_record):
    found = row(comparison([make_record(status="failed")], "stpm", "iap"), "bottle")
    assert (found.verdict, found.note) == ("not run", "1 failed")


def test_a_metric_that_no_paper_prints_has_a_mean_but_no_verdict(make_record):
    last = comparison([make_record(value=0.6)], "stpm", "aupro")[-1]
    assert (last.category, last.verdict, last.reported) == ("mean of 1 of 15", "not reported", None)
    assert last.reproduced == pytest.approx(0.6)


def test_a_row_says_whether_the_printed_number_lies_where_one_more_run_is_expected(make_record):
    # printed for STPM: bottle 0.987894, grid 0.989622 pixel AUROC; the tolerance is 0.010
    pair = [make_record("bottle", value=0.988), make_record("grid", value=0.970)]
    *rows, mean = comparison(pair, "stpm", "pixel_auroc")
    assert (mean.reproduced, mean.reported_number) == pytest.approx((0.979, 0.988758))
    assert mean.verdict == "inside, not proven"
    assert [(r.category, r.verdict, r.inside) for r in rows if r.difference is not None] == [
        ("grid", "outside, not proven", False),  # one run cannot say where another lies
        ("bottle", "inside, not proven", False),
    ]
    seeds = [make_record("grid", seed, value) for seed, value in enumerate((0.96, 0.97, 0.98))]
    wide = row(comparison(seeds, "stpm", "pixel_auroc"), "grid")
    assert (wide.verdict, wide.inside) == ("outside, not proven", True)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"unknown method 'made_up_here'; .* added to METHOD_NAMES"):
        comparison([], "made_up_here", "iap")


def test_a_new_method_with_its_papers_backbone_gets_a_verdict_and_a_comparator_none(make_record):
    for method in METHOD_NAMES:
        *_, mean = comparison([make_record(method=method)], method, "pixel_auroc")
        assert (mean.verdict == "different backbone") == (method in COMPARATORS)
