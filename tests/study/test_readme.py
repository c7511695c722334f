"""The README's results are those of the records."""

from collections.abc import Callable

import pytest

from stlib.paths import RECORDS, ROOT
from stlib.protocol import Metric
from stlib.records.schema import Record
from stlib.records.store import load_records
from study.analysis.answers import Answer, answers
from study.analysis.status import Status
from study.columns import ANSWERS, SUMMARY
from study.readme import BEGIN, END, with_results
from study.tables import say


def test_the_readme_is_in_step_with_the_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_results(text, load_records(RECORDS)) == text, "run `study readme`"


def test_a_changed_record_changes_the_table(make_record: Callable[..., Record]):
    text = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    one = with_results(text, [make_record("bottle", 0)])
    assert one.startswith("before")
    assert one.endswith("after\n")
    assert "old" not in one
    assert "| bottle |" in one
    assert "Its image AUROC and pixel AUROC are open: " in one
    assert "14 of 15 categories: not run" in one
    assert with_results(one, [make_record("bottle", 0)]) == one
    assert with_results(one, []) != one


def test_a_score_that_no_paper_prints_has_no_status_even_in_a_run_with_a_label(
    make_record: Callable[..., Record],
):
    text = with_results(f"{BEGIN}\n{END}\n", [make_record("bottle", 0, method="et_stpm", gaps=("a gap",))])
    assert "| bottle |  | 0.970 |  | 0.981 | 0.970 | open |" in text


def test_whoever_sends_a_record_writes_no_markup(make_record: Callable[..., Record]):
    foreign = make_record("bottle", 0, gaps=("<script>",), teacher="<script>")
    text = with_results(f"{BEGIN}\n{END}\n", [foreign])
    assert "incomplete dataset: &lt;script&gt;" in text
    assert "<script>" not in text


def test_answers_with_one_status_share_a_sentence_and_its_sides_are_told_in_short():
    def gain(metric: Metric, status: Status, *, printed: float | None, **told: object) -> Answer:
        return Answer(
            "gain", "pfadseg", metric, status, rival="destseg", baseline="none", printed=printed,
            printed_all=0.005, here=-0.071, categories=1, counts=(1,), **told,
        )  # fmt: skip

    def level(metric: Metric, categories: int, *labels: str) -> Answer:
        return Answer(
            "level", "pfadseg", metric, "open", difference=-0.01, tolerance=0.05, categories=categories,
            counts=(3, 4), labels=labels, farthest=("pill", -0.3), longer=0.02, longer_seeds=(1, 3),
        )  # fmt: skip

    found = [
        gain("image_auroc", "open", printed=None, last=0.01, last_extreme=("pill", 0.2)),
        gain("iap", "contradicted", printed=0.1, last=-0.01),
        gain("pixel_ap", "open", printed=-0.033, long_gain=0.1, long_seeds=(1, 2)),
        Answer("rows", "pfadseg", "iap", rival="destseg", higher=7, lower=8),
        level("pixel_ap", 5),
        level("iap", 1, "partial teacher"),
        Answer("level", "stpm", "iap", "supported", difference=0.01, categories=5, counts=(3,) * 5),
        Answer("level", "destseg", "iap"),
    ]
    lines = str(say(ANSWERS, answers=found, methods=["pfadseg", "stpm", "destseg"])).replace("\u2212", "-")
    assert lines.splitlines() == [
        "- **PFADSeg** (1 or 5 of 15 categories, 1 to 4 seeds, in part not the paper's setting). "
        "Its gain over DeSTSeg (here PFADSeg with no modules) is contradicted: IAP -0.071 "
        "(printed +0.005 over 15 categories, +0.100 on these). "
        "Its gain over DeSTSeg (here PFADSeg with no modules) is open: image AUROC -0.071 "
        "(printed +0.005 over 15 categories), pixel AP -0.071 (printed +0.005 over 15 categories, "
        "-0.033 on these). Tested at the last epoch, the gain in image AUROC is +0.010, on pill +0.200. "
        "If both train for 200 epochs (2 categories, 1 to 2 seeds): pixel AP +0.100. "
        "Its pixel AP and IAP are open: -0.010 and -0.010 from the printed ones "
        "(pixel AP on pill -0.300). After 200 epochs instead of the paper's 100, "
        "as its authors' command says (1 to 3 seeds): +0.020, +0.020.",
        "- **STPM** (5 of 15 categories, 3 seeds). Its IAP is supported.",
        "- **DeSTSeg** has not run at its paper's schedule.",
    ]


def test_the_summary_counts_every_status_and_says_why_a_claim_is_open():
    def level(status: Status, seeds: int, here: float | None = 0.9, *labels: str) -> Answer:
        return Answer(
            "level", "stpm", "iap", status, here=here, counts=(seeds, 9)[: bool(seeds) * 2], labels=labels
        )

    found = [
        level("supported", 3),
        level("open", 1),
        level("open", 3),
        level("open", 2, 0.9, "partial teacher"),
        level("open", 0, None),
        level("", 0),
        Answer("rows", "pfadseg", "iap", rival="destseg", higher=7, lower=8),
    ]
    assert " ".join(say(SUMMARY, answers=found).split()) == (
        "**Of 5 headline claims 1 is supported, 0 are contradicted, 4 are open**: "
        "1 with fewer than three seeds, 2 not in the paper's setting, 1 not proven either way."
    )
    assert say(SUMMARY, answers=found[-2:]) == ""


def test_a_method_without_a_score_among_the_answers_is_not_called_not_run():
    with pytest.raises(
        ValueError, match=r"no score of 'draem' is an answer: add it to LEVELS in answers\.py"
    ):
        say(ANSWERS, answers=answers([]), methods=["draem"])


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_a_lost_marker_is_an_error(marker: str):
    with pytest.raises(ValueError, match="lost a marker"):
        with_results(f"{BEGIN}\n{END}\n".replace(marker, ""), [])
