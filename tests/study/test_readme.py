"""The README's results are those of the records."""

from collections.abc import Callable

import pytest

from stlib.paths import RECORDS, ROOT
from stlib.protocol import Metric
from stlib.records.schema import Record
from stlib.records.store import load_records
from study.analysis.answers import Answer
from study.analysis.status import Status
from study.columns import ANSWERS
from study.readme import BEGIN, END, with_results
from study.tables import say


def test_the_readme_is_in_step_with_the_records():
    text = (ROOT / "README.md").read_text()
    assert with_results(text, load_records(RECORDS)) == text, "run `study readme`"


def test_a_changed_record_changes_the_table(make_record: Callable[..., Record]):
    text = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    one = with_results(text, [make_record("bottle", 0)])
    assert one.startswith("before")
    assert one.endswith("after\n")
    assert "old" not in one
    assert "| bottle |" in one
    assert "**STPM**: its scores are open: image AUROC " in one
    assert "14 of 15 categories: not run" in one
    assert with_results(one, [make_record("bottle", 0)]) == one
    assert with_results(one, []) != one


def test_whoever_sends_a_record_writes_no_markup(make_record: Callable[..., Record]):
    foreign = make_record("bottle", 0, gaps=("<script>",), teacher="<script>")
    text = with_results(f"{BEGIN}\n{END}\n", [foreign])
    assert "incomplete dataset: &lt;script&gt;" in text
    assert "<script>" not in text


def test_gains_over_one_rival_with_one_status_share_a_sentence():
    def gain(metric: Metric, status: Status, *, printed: float | None, rival: str = "destseg") -> Answer:
        return Answer(
            "gain", "pfadseg", metric, status, rival=rival, baseline="none" if rival == "destseg" else "",
            printed=printed, printed_all=0.005, here=-0.071, categories=1, seeds=1,
        )  # fmt: skip

    found = [
        gain("image_auroc", "open", printed=None),
        gain("pixel_ap", "open", printed=-0.033),
        gain("iap", "contradicted", printed=0.1),
        gain("iap", "open", printed=0.1, rival="stpm"),
    ]
    minus = "\u2212"
    assert str(say(ANSWERS, answers=found, methods=["pfadseg"])).replace(minus, "-") == (
        "- **PFADSeg**: its gain over DeSTSeg (here PFADSeg with no modules) is open: image AUROC -0.071, "
        "printed +0.005 over 15 categories; pixel AP -0.071, printed +0.005 over 15 categories, -0.033 on "
        "these. Its gain over DeSTSeg (here PFADSeg with no modules) does not hold: IAP -0.071, printed "
        "+0.005 over 15 categories, +0.100 on these. Its gain over STPM is open: IAP -0.071, printed +0.005 "
        "over 15 categories, +0.100 on these. 1 of 15 categories, 1 seed."
    )


def test_every_count_of_rows_is_told_and_what_differs_between_answers_too():
    def rows(metric: Metric, higher: int, quoted: str = "") -> Answer:
        return Answer("rows", "pfadseg", metric, rival="destseg", higher=higher, lower=1, quoted=quoted)

    def level(metric: Metric, categories: int, *labels: str) -> Answer:
        return Answer(
            "level", "pfadseg", metric, "open", quoted="destseg", here=0.5, difference=0.01, tolerance=0.05,
            categories=categories, seeds=3, labels=labels,
        )  # fmt: skip

    found = [
        rows("pixel_ap", 7),
        rows("iap", 9, "destseg"),
        level("pixel_ap", 5),
        level("iap", 4, "partial teacher"),
    ]
    text = str(say(ANSWERS, answers=found, methods=["pfadseg"]))
    assert "in its own table in 7 categories" in text
    assert "in DeSTSeg's paper in 9 categories" in text
    assert "printed by DeSTSeg" in text
    assert "4 or 5 of 15 categories, 3 seeds, in part not the paper's setting." in text


def test_the_seeds_of_the_last_epoch_are_told_where_they_disagree():
    def told(*seeds: float) -> str:
        gain = Answer(
            "gain", "et_stpm", "iap", "open", here=0.01, rival="stpm", printed=0.02, last=0.0,
            last_by_seed=seeds, categories=2, seeds=3,
        )  # fmt: skip
        return str(say(ANSWERS, answers=[gain], methods=["et_stpm"]))

    assert "0.000 if tested at the last epoch (by seed +0.010, \u22120.020)" in told(0.01, -0.02)
    assert "by seed" not in told(0.01, 0.02) + told(-0.01, -0.02)


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_a_lost_marker_is_an_error(marker: str):
    with pytest.raises(ValueError, match="lost a marker"):
        with_results(f"{BEGIN}\n{END}\n".replace(marker, ""), [])
