"""Answers to a sceptical reviewer: every number is that of the records."""

import re

import pytest

from stlib.records.schema import ImageScore
from study.analysis import claims
from study.pages import reviewer


def cells(table, row):
    """The cells of one row, tags removed."""
    line = table.split(f'<th scope="row">{row}</th>')[1].split("</tr>")[0]
    return [re.sub("<[^>]+>", "", cell) for cell in line.split("</td>")[:-1]]


def test_coverage_counts_categories_seeds_and_labels(make_record):
    runs = [make_record("bottle", s) for s in range(3)] + [
        make_record("grid"),
        make_record("pill", gaps=["x"]),
    ]
    runs += [make_record(method="pfadseg", profile="short"), make_record("brick", dataset="demo")]
    table = reviewer.coverage_html(runs)
    assert cells(table, "STPM") == ["2 of 15", "grid, bottle, pill", "1", "4", "1", "incomplete dataset: x"]
    assert cells(table, "PFADSeg") == ["0 of 15", "bottle", "0", "0", "1", "short schedule"]
    assert cells(table, "DeSTSeg") == ["0 of 15", "none", "0", "0", "0", "none"]


def test_missing_weights_are_named(make_record):
    whole, partial = make_record("bottle"), make_record("grid")
    teacher = partial.teacher.model_copy(update={"missing": ["layer4.0.conv1.weight", "layer4.1.bn1.bias"]})
    partial = partial.model_copy(update={"teacher": teacher})
    assert "1 of 2 runs had a file that lacks layer4; 0 of them" in reviewer.teachers([whole, partial])


def test_the_spread_needs_two_seeds(make_record):
    runs = [make_record("bottle", 0, 0.90), make_record("bottle", 1, 0.92), make_record("grid")]
    table = reviewer.seed_spread_html(runs, ["iap"])
    assert cells(table, "tolerance") == ["0.050"]
    assert cells(table, "STPM, bottle, 2 seeds") == ["0.014"]  # 0.02 / sqrt(2)
    assert "grid" not in table


def test_precisions_are_counted_and_paired(make_record):
    runs = [make_record(value=0.90, spread=0.0)]
    assert (
        "1 in bf16. Pairs of runs that differ in nothing else, fp32 minus bf16: **not run**"
        in reviewer.precisions(runs)
    )
    runs.append(make_record(value=0.91, spread=0.0, precision="fp32", variant="precision=fp32"))
    text = reviewer.precisions(runs)
    assert "1 in bf16, 1 in fp32" in text
    assert "pixel AUROC: +0.010 (+0.010 to +0.010), mean of 1" in text


def test_other_tolerances_flip_verdicts(make_record):
    # printed for STPM: bottle 0.988, grid 0.990 pixel AUROC; the tolerance is 0.010
    runs = [make_record("bottle", value=0.980), make_record("grid", value=0.975)]
    table = reviewer.tolerances_html(reviewer.judged(runs))
    assert cells(table, "pixel AUROC") == ["0.010", "2", "0", "1", "2", "x 1.50"]


def test_image_auroc_is_counted_without_our_code(make_record):
    # pairs (0.9, 0.4) against (0.5, 0.1): three of four in the right order
    right = make_record(metrics={"image_auroc": 0.75})
    assert "in 1 records: largest difference 0." in reviewer.counted_again([right])
    wrong = make_record(metrics={"image_auroc": 0.80})
    assert reviewer.counted_again([right, wrong]).endswith("in 2 records: largest difference 0.05.")
    tied = [ImageScore(image=f"{kind}/0.png", score=0.5) for kind in ("bent", "good")]
    half = make_record(metrics={"image_auroc": 0.5}, image_scores=tied)
    assert reviewer.counted_again([half]).endswith("largest difference 0.")


def test_rules_and_provenance_count_runs(make_record):
    runs = [make_record("bottle"), make_record("bottle", value=0.98, method="et_stpm")]
    text = reviewer.rules(reviewer.judged(runs), claims.claim_results(runs))
    assert "2 with paired runs; in 2 of these a category has one seed" in text
    assert re.match(r"Verdicts per category and metric: (\d+), \1 of them provisional", text)
    assert "2 runs on MVTec AD, made at 0 commits; in 0 of them" in reviewer.provenance(runs)


@pytest.mark.parametrize("given", [True, False])
def test_every_answer_stands_without_records_too(make_record, given):
    runs = [make_record()] if given else []
    answers = (reviewer.sizes, reviewer.short_runs, reviewer.coverage_html)
    texts = [answer(runs) for answer in answers]
    texts.append(reviewer.tolerances_html(reviewer.judged(runs)))
    assert all(texts)
    assert ("1 at 256 x 256" in texts[0]) == given
    assert ("STPM: 1 at the paper's schedule" in texts[1]) == given
