import pandas as pd
import pytest

from stlib.protocol import CATEGORIES, TEXTURES
from study import figures
from study.analysis import audit, paper_statements
from study.analysis.paper_statements import Statement, load_statements
from study.analysis.reported import Reported, load_reported


def printed(
    values, *, paper="pfadseg", method="draem", metric="iap", variant="", table="Table 3", unit="percent"
):
    """Rows as `load_reported` gives them; `values`: category or average -> characters as printed."""
    fixed = {"paper": paper, "source": f"{paper} {table}", "table": table, "method": method}
    fixed |= {"variant": variant, "metric": metric, "sd": "", "unit": unit, "note": ""}
    return [Reported(**fixed, category=c, value=v) for c, v in values.items()]


def row_of(values, mean):
    """15 equal rows but for the given ones, and a printed mean."""
    return dict.fromkeys(CATEGORIES, "80.0") | values | {"mean": mean}


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

GAIN = {
    "paper": "pfadseg",
    "source": "Section 5",
    "quote": "better by",
    "kind": "gain",
    "metric": "iap",
    "method": "pfadseg",
    "baseline": "draem",
    "stated": "4.1",
    "unit": "percent",
    "note": "",
}
RANK = GAIN | {"kind": "ranking", "baseline": "", "stated": "1", "unit": "rank"}
LEVEL = GAIN | {"kind": "level", "baseline": "", "stated": "78.7"}


@pytest.fixture(scope="module")
def stated():
    return load_statements()


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
def test_rounding_truncation_and_errors_are_told_apart(k, mean, verdict):
    found = audit.means(printed(row_of(dict.fromkeys(list(CATEGORIES)[:k], "81.0"), mean))).iloc[0]
    assert found["verdict"] == verdict
    assert found["recomputed"] == pytest.approx(0.80 + 0.01 * k / 15)
    assert found["error"] == pytest.approx(float(mean) / 100 - found["recomputed"])


def test_incomplete_rows_are_not_averaged():
    values = row_of({}, "70.0")
    del values["zipper"]
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


def test_prose_does_not_replace_a_table():
    rows = [*printed({"mean": "70.0"}, table="abstract"), *printed({"mean": "80.0"})]
    assert audit.columns(rows)["pfadseg", "draem", "iap"]["mean"].value == "80.0"


def test_the_ends_of_the_ablation_stand_for_their_methods():
    table = audit.columns(load_reported())
    assert table["pfadseg", "destseg", "image_auroc"]["mean"].variant == "none"
    assert table["pfadseg", "destseg", "iap"]["mean"].variant == ""
    for (paper, row), method in audit.ABLATIONS.items():
        for metric in ("pixel_ap", "iap"):
            assert table[paper, row, metric]["mean"].exact == table[paper, method, metric]["mean"].exact


def test_first_places_are_shared_and_count_every_category():
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


def test_disagreements_are_sorted_and_know_rounding():
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


MEANS = [
    *printed({"mean": "78.7"}, method="pfadseg"),
    *printed({"mean": "74.6"}, method="draem"),
    *printed({"mean": "71.0"}, method="stpm"),
    *printed({"mean": "0.764"}, paper="destseg", method="draem", table="Table 9", unit="fraction"),
]


@pytest.mark.parametrize(
    ("stated", "verdicts"),
    [
        ("4.1", ["supported", "smaller"]),
        ("4", ["supported", "smaller"]),
        ("4.2", ["not supported", "smaller"]),
        ("2.0", ["not supported", "larger"]),
        ("", ["higher", "higher"]),
    ],
)
def test_a_gain_is_compared_with_every_work_that_prints_the_baseline(stated, verdicts):
    for baseline in ("draem", "best"):
        found = paper_statements.gains(MEANS, [Statement(**GAIN | {"stated": stated, "baseline": baseline})])
        assert list(found["verdict"]) == verdicts
        assert list(found["baseline"]) == ["draem"] * 2
        assert list(found["gain"]) == pytest.approx([0.041, 0.023])
        assert found["gain_of_rows"].isna().all()


def test_a_gain_of_rows_does_not_trust_the_printed_means():
    own = printed(row_of({}, "80.0"), method="pfadseg")
    base = printed(row_of(dict.fromkeys(TEXTURES, "79.0"), "75.9"), method="draem")  # the rows give 79.67
    (found,) = paper_statements.gains(own + base, [Statement(**GAIN)]).to_dict("records")
    assert found["verdict"] == "supported"
    assert found["gain_of_rows"] == pytest.approx(0.005 / 1.5)
    assert found["of_rows"] == "differs by +0.0377"


def test_a_gain_without_a_printed_mean_is_refused():
    with pytest.raises(ValueError, match="no mean is printed for the statement 'better by'"):
        paper_statements.gains(MEANS, [Statement(**GAIN | {"baseline": "dsr"})])


@pytest.mark.parametrize(
    ("changed", "found", "verdict"),
    [
        ({}, "1 of 3", "supported"),
        ({"method": "draem"}, "2 of 3", "not supported"),
        ({"method": "draem", "stated": "2"}, "2 of 3", "supported"),
        ({"metric": "iap90"}, "no comparison seen", "cannot be checked"),
        ({"paper": "destseg", "method": "draem"}, "no comparison seen", "cannot be checked"),
    ],
)
def test_a_place_is_looked_up_in_the_papers_own_table(changed, found, verdict):
    ranking = paper_statements.rankings(MEANS, [Statement(**RANK | changed)]).iloc[0]
    assert (ranking["found"], ranking["verdict"]) == (found, verdict)


def test_equal_means_share_a_place_and_other_works_are_named():
    rows = [
        *printed({"mean": "78.7"}, method="pfadseg"),
        *printed({"mean": "78.7"}, method="draem"),
        *printed({"mean": "0.9"}, paper="destseg", method="destseg", table="abstract", unit="fraction"),
    ]
    (found,) = paper_statements.rankings(rows, [Statement(**RANK)]).to_dict("records")
    assert (found["found"], found["verdict"]) == ("1 of 2, level with draem", "shared")
    assert found["elsewhere"] == "DeSTSeg 0.9 (DeSTSeg, abstract)"
    assert paper_statements.rankings(rows[:2], [Statement(**RANK)])["elsewhere"].item() == ""


@pytest.mark.parametrize(("wins", "verdict"), [(8, "supported"), (7, "not supported")])
def test_most_categories_are_more_than_half(wins, verdict):
    first = dict.fromkeys(list(CATEGORIES)[:wins], "90.0")
    rows = printed(row_of(first, "85.0"), method="pfadseg") + printed(dict.fromkeys(row_of({}, ""), "85.0"))
    statement = Statement(**RANK | {"unit": "rank in most categories"})
    found = paper_statements.rankings(rows, [statement]).iloc[0]
    assert (found["found"], found["verdict"]) == (f"{wins} of 15 categories, first in {wins}", verdict)


def test_the_claims_agree_with_the_reported_numbers(stated):
    """What is typed in both files must be the same; and nothing in claims.csv is about an unprinted mean."""
    prose = {
        (row.paper, row.source, row.method, row.metric, row.variant): row.value
        for row in load_reported()
        if row.table in audit.PROSE
    }
    for statement in stated:
        variant = "gain over STPM" if statement.kind == "gain" and statement.stated else ""
        key = (statement.paper, statement.source, statement.method, statement.metric, variant)
        if statement.kind != "ranking" and statement.stated:
            assert statement.stated == prose[key], statement
    assert len(paper_statements.gains(load_reported(), stated)) > sum(
        statement.kind == "gain" for statement in stated
    )


def test_verdicts_on_the_abstracts(stated):
    found = paper_statements.of_abstracts(load_reported(), stated)
    assert set(found["kind"]) == {"ranking"}  # no level: the audit lists none
    assert found.groupby("paper", sort=False)["verdict"].agg(list).to_dict() == {  # one of each phrase
        "stpm": ["cannot be checked"],
        "et_stpm": ["supported"],
        "destseg": ["supported"],
        "pfadseg": ["cannot be checked"],
    }


def test_another_works_number_stands_beside_what_one_more_run_would_give():
    found = audit.quoted_spread("pfadseg", "destseg", "pixel_ap", seeds=5).set_index("category")
    assert len(found) == 15
    # t of 4 degrees at 97.5 % is 2.776; times the root of 1 + 1/5
    assert found.loc["transistor"].to_dict() == pytest.approx(
        {"own": 0.648, "sd": 0.040, "quoted": 0.791, "half": 2.776 * 0.040 * 1.2**0.5}, abs=1e-4
    )
    assert audit.quoted_spread("pfadseg", "stpm", "pixel_ap", seeds=5).empty


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"metric": "auc"}, "unknown metric 'auc'"),
        ({"method": "PFADSeg"}, "neither a method nor a row of an ablation: PFADSeg"),
        ({"baseline": "RCM+AFF"}, r"neither a method nor a row of an ablation: RCM\+AFF"),
        ({"baseline": ""}, "a gain needs a baseline"),
        ({"unit": "rank"}, "a gain cannot have the unit 'rank'"),
        ({"stated": "-1"}, "stated: "),
        (LEVEL | {"stated": ""}, "a level must state a number"),
        (RANK | {"stated": "1.5"}, "a ranking states a place"),
        (RANK | {"baseline": "draem"}, "nothing else has one"),
    ],
)
def test_a_broken_claim_names_file_and_line(tmp_path, broken, problem):
    path = tmp_path / "claims.csv"
    pd.DataFrame([GAIN, GAIN | broken]).to_csv(path, index=False)
    with pytest.raises(ValueError, match=problem) as error:
        load_statements(path)
    assert str(error.value).startswith(f"{path}, line 3: ")


def test_gains_that_depend_on_the_work_are_told_apart():
    (moved,) = paper_statements.moved_gains(paper_statements.gains(MEANS, [Statement(**GAIN)]))
    assert len({row["printed_in"] for row in moved}) == len(moved) > 1
    assert paper_statements.moved_gains(paper_statements.gains(MEANS[:3], [Statement(**GAIN)])) == []
