"""The papers' own arithmetic: averages, ranks, and one score in several works."""

import pytest

from stlib.protocol import CATEGORIES
from study import figures
from study.analysis import audit
from study.analysis.reported import load_reported

# Printed averages that are not the mean of the printed rows, rounded to the printed decimals.
UNROUNDED = {
    ("ET-STPM, Table III", "anogan", "pixel_auroc", "mean"),
    ("ET-STPM, Table III", "cnn_dict", "pixel_auroc", "mean"),
    ("ET-STPM, Table III", "spade", "pixel_auroc", "mean"),
    ("ET-STPM, Table III", "stpm", "pixel_auroc", "mean"),
    ("DeSTSeg, Table 2", "draem", "pixel_ap", "mean"),
    ("DeSTSeg, Table 3", "stpm", "iap90", "mean"),
    ("PFADSeg, Table 2", "cutpaste", "pixel_auroc", "mean_object"),
    ("PFADSeg, Table 2", "draem", "pixel_auroc", "mean_object"),
    ("PFADSeg, Table 2", "draem", "pixel_ap", "mean"),
    ("PFADSeg, Table 2", "draem", "pixel_ap", "mean_object"),
    ("PFADSeg, Table 2", "patchcore", "pixel_ap", "mean_object"),
    ("PFADSeg, Table 3", "stpm", "iap", "mean_object"),
    ("PFADSeg, Table 3", "stpm", "iap90", "mean"),
    ("PFADSeg, Table 3", "draem", "iap90", "mean_object"),
}


# Exact mean: 80 + 1.0 * k / 15 percent, for k rows of 81.0.
@pytest.mark.parametrize(
    ("k", "mean", "verdict"),
    [
        (1, "80.1", "rounds to it"),  # 80.0667
        (1, "80.0", "truncates to it"),
        (2, "80.1", "rounds to it"),  # 80.1333: both fit
        (2, "80.2", "within the rounding of the rows"),
        (0, "80.1", "within the rounding of the rows"),  # just one unit: half by the rows, half by the mean
        (0, "79.9", "within the rounding of the rows"),  # cutting 80.0 off does not give 79.9
        (2, "80.3", "differs by +0.0017"),
        (1, "79.9", "differs by -0.0017"),
        (3, "80", "rounds to it"),  # a mean with fewer decimals than its rows
        (12, "80", "truncates to it"),
    ],
)
def test_rounding_truncation_and_errors_are_told_apart(printed, k, mean, verdict):
    found = audit.means(printed(dict.fromkeys(list(CATEGORIES)[:k], "81.0"), mean)).iloc[0]
    assert found["verdict"] == verdict
    assert found["recomputed"] == pytest.approx(0.80 + 0.01 * k / 15)
    assert found["error"] == pytest.approx(float(mean) / 100 - found["recomputed"])


def test_incomplete_rows_are_not_averaged(printed):
    values = dict.fromkeys(list(CATEGORIES)[:-1], "80.0") | {"mean": "70.0"}
    assert audit.means(printed(values)).empty
    assert audit.recomputed(audit.columns(printed(values))["pfadseg", "draem", "iap"]) is None
    assert list(audit.means(printed(values | {"mean_texture": "80.0"}))["average"]) == ["mean_texture"]


def test_what_the_papers_average_is_as_published():
    averages = audit.means(load_reported())
    assert len(averages) == 3 + 5 + 3 * (7 * 2 - 2) + 3 * 5 * 2 + (7 * 2 - 2) + 4 * 2
    places = averages.loc[~averages["rounds"], ["place", "method", "metric", "average"]]
    assert set(places.itertuples(index=False, name=None)) == UNROUNDED
    wrong = averages[averages["verdict"].str.startswith("differs")]
    assert list(wrong[["method", "place"]].itertuples(index=False, name=None)) == [
        ("spade", "ET-STPM, Table III")
    ]
    counts = audit.conventions(averages).set_index("place")
    assert counts.loc["ET-STPM, Table III"].to_dict() == {
        "averages": 5, "rounds": 1, "truncates": 4, "rows": 0, "differs": 1
    }  # fmt: skip
    assert (counts["averages"] >= counts["rounds"] + counts["rows"] + counts["differs"]).all()


def test_prose_does_not_replace_a_table(printed):
    rows = [*printed({"mean": "70.0"}, table="abstract"), *printed({"mean": "80.0"})]
    assert audit.columns(rows)["pfadseg", "draem", "iap"]["mean"].value == "80.0"


def test_the_ends_of_the_ablation_stand_for_their_methods():
    table = audit.columns(load_reported())
    assert table["pfadseg", "destseg", "image_auroc"]["mean"].variant == "none"
    assert table["pfadseg", "destseg", "iap"]["mean"].variant == ""
    for (paper, row), method in audit.ABLATIONS.items():
        for metric in ("pixel_ap", "iap"):
            assert table[paper, row, metric]["mean"].exact == table[paper, method, metric]["mean"].exact


def test_first_places_are_shared_and_count_every_category(printed):
    rows = [
        *printed(dict.fromkeys(CATEGORIES, "80.0"), method="draem"),
        *printed(dict.fromkeys(CATEGORIES, "80.0") | {"pill": "70.0"}, method="stpm"),
        *printed(dict.fromkeys(CATEGORIES, "10.0") | {"pill": "75.0"}, method="destseg"),
        *printed({"pill": "99.0"}, method="patchcore"),  # incomplete: left out
    ]
    found = audit.leaders(rows).set_index("method")[["first", "second"]]
    assert found.T.to_dict("list") == {"draem": [15, 0], "stpm": [14, 0], "destseg": [0, 1]}


def test_effects_are_the_pairs_that_differ_by_one_module():
    effects = audit.module_effects(load_reported())
    assert len(effects) == 9 * 3  # every module can be added in three places; RCM+AFF is not printed
    change = effects.set_index(["module", "added_to", "metric"])["change"]
    assert change["PCAR", "RCM", "image_auroc"] == pytest.approx(0.981 - 0.988)
    assert change["AFF", "none", "pixel_ap"] == pytest.approx(0.742 - 0.759)


def test_disagreements_are_sorted_and_know_rounding(printed):
    one = printed({"carpet": "80.0", "grid": "80.0", "tile": "80.0", "mean": "80.0"}, method="stpm")
    values = {"carpet": "0.8004", "grid": "0.8006", "tile": "0.7000", "wood": "0.9000"}
    other = printed(values, paper="et_stpm", method="stpm", table="Table III", unit="fraction")
    pairs = audit.disagreements(one + other)
    assert list(pairs["category"]) == ["tile", "grid", "carpet"]
    assert list(pairs["same"]) == [False, False, True]
    assert pairs["difference"][0] == pytest.approx(0.1)
    assert (pairs["first"][0], pairs["second"][0]) == ("ET-STPM, Table III", "PFADSeg, Table 3")
    (summary,) = audit.disagreement_summary(pairs).to_dict("records")
    assert (summary["compared"], summary["differing"], summary["where"]) == (3, 2, "tile")
    assert summary["mean_absolute"] == pytest.approx((0.1 + 0.0006 + 0.0004) / 3)


@pytest.mark.parametrize(
    ("metric", "means"),
    [("pixel_auroc", [969, 963, 967, 960, 951]), ("image_auroc", [954, 947, 937, 948, 893])],
)
def test_what_others_printed_of_stpm_has_the_means_that_they_print(metric, means):
    works = audit.stpm_by_work(metric)
    assert list(works.index) == list(CATEGORIES)
    assert works.notna().all().all()
    assert works.iloc[:, 1:].mean().tolist() == pytest.approx([mean / 1000 for mean in means], abs=6e-4)
    own = {"pixel_auroc": 0.985730, "image_auroc": 0.893498}
    assert works.loc["capsule", "authors' README"] == own[metric]


def test_stpm_can_be_drawn_from_three_works():
    across = audit.across_works(load_reported(), "stpm", "pixel_auroc")
    assert across.shape == (16, 3)
    assert not across.isna().any().any()
    axis = figures.across_works(across, "pixel AUROC").axes[0]
    assert [len(line.get_xdata()) for line in axis.lines] == [16] * 3
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(across)
    assert list(across)[-1] == "DeSTSeg, Table 2"  # PFADSeg's repeats it and is drawn once


def test_another_works_number_stands_beside_what_one_more_run_would_give():
    found = audit.quoted_spread("pfadseg", "destseg", "pixel_ap", seeds=5).set_index("category")
    assert len(found) == 15
    # t of 4 degrees at 97.5 % is 2.776; times the root of 1 + 1/5
    assert found.loc["transistor"].to_dict() == pytest.approx(
        {"own": 0.648, "sd": 0.040, "quoted": 0.791, "half": 2.776 * 0.040 * 1.2**0.5}, abs=1e-4
    )
    assert audit.quoted_spread("pfadseg", "stpm", "pixel_ap", seeds=5).empty
