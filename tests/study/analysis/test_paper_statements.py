"""What the papers state in words, against the numbers that they print."""

import pandas as pd
import pytest

from stlib.protocol import CATEGORIES, TEXTURES
from study.analysis import audit, paper_statements
from study.analysis.paper_statements import Statement, load_statements
from study.analysis.reported import load_reported

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


@pytest.fixture
def means(printed):
    return [
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
def test_a_gain_is_compared_with_every_work_that_prints_the_baseline(means, stated, verdicts):
    for baseline in ("draem", "best"):
        found = paper_statements.gains(means, [Statement(**GAIN | {"stated": stated, "baseline": baseline})])
        assert list(found["verdict"]) == verdicts
        assert list(found["baseline"]) == ["draem"] * 2
        assert list(found["gain"]) == pytest.approx([0.041, 0.023])
        assert found["gain_of_rows"].isna().all()


def test_a_gain_of_rows_does_not_trust_the_printed_means(printed):
    own = printed({}, "80.0", method="pfadseg")
    base = printed(dict.fromkeys(TEXTURES, "79.0"), "75.9", method="draem")  # the rows give 79.67
    (found,) = paper_statements.gains(own + base, [Statement(**GAIN)]).to_dict("records")
    assert found["verdict"] == "supported"
    assert found["gain_of_rows"] == pytest.approx(0.005 / 1.5)
    assert found["of_rows"] == "differs by +0.0377"


def test_a_gain_without_a_printed_mean_is_refused(means):
    with pytest.raises(ValueError, match="no mean is printed for the statement 'better by'"):
        paper_statements.gains(means, [Statement(**GAIN | {"baseline": "dsr"})])


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
def test_a_place_is_looked_up_in_the_papers_own_table(means, changed, found, verdict):
    ranking = paper_statements.rankings(means, [Statement(**RANK | changed)]).iloc[0]
    assert (ranking["found"], ranking["verdict"]) == (found, verdict)


def test_equal_means_share_a_place_and_other_works_are_named(printed):
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
def test_most_categories_are_more_than_half(printed, wins, verdict):
    first = dict.fromkeys(list(CATEGORIES)[:wins], "90.0")
    rows = printed(first, "85.0", method="pfadseg") + printed(dict.fromkeys(CATEGORIES, "85.0"), "85.0")
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


def test_gains_that_depend_on_the_work_are_told_apart(means):
    (moved,) = paper_statements.moved_gains(paper_statements.gains(means, [Statement(**GAIN)]))
    assert len({row["printed_in"] for row in moved}) == len(moved) > 1
    assert paper_statements.moved_gains(paper_statements.gains(means[:3], [Statement(**GAIN)])) == []
