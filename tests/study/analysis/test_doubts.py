"""What a sceptical reviewer counts: every number is that of the records."""

import numpy as np
import pytest

from stlib.records.schema import ImageScore
from study.analysis import doubts


def test_coverage_counts_categories_seeds_and_labels(make_record):
    runs = [make_record("bottle", s) for s in range(3)] + [
        make_record("grid"),
        make_record("pill", gaps=["x"]),
    ]
    runs += [make_record(method="pfadseg", profile="short"), make_record("brick", dataset="demo")]
    runs += [make_record("pill", variant="epochs=200", gaps=["x"])]
    found = doubts.coverage(runs).set_index("method")
    assert found.loc["stpm"].tolist() == [
        2,
        ["grid", "bottle", "pill"],
        1,
        4,
        1,
        1,
        ["incomplete dataset: x"],
    ]
    assert found.loc["pfadseg"].tolist() == [0, ["bottle"], 0, 0, 1, 0, ["short schedule"]]
    assert found.loc["destseg"].tolist() == [0, [], 0, 0, 0, 0, []]


def test_missing_weights_are_named(make_record):
    whole, partial = make_record("bottle"), make_record("grid")
    teacher = partial.teacher.model_copy(update={"missing": ["layer4.0.conv1.weight", "layer4.1.bn1.bias"]})
    found = doubts.teachers([whole, partial.model_copy(update={"teacher": teacher})])
    assert (found["partial"], found["layers"], found["tuned"], found["hashes"]) == (1, ["layer4"], 0, 1)


def test_the_spread_needs_two_seeds(make_record):
    runs = [make_record("bottle", 0, 0.90), make_record("bottle", 1, 0.92), make_record("grid")]
    none = [make_record("bottle", s, method="pfadseg", variant="none") for s in (0, 1)]
    row, last = doubts.seed_spread([*none, *runs], ["iap"]).to_dict("records")
    assert (last["method"], last["variant"]) == ("pfadseg", "none")
    assert (row["category"], row["seeds"], row["iap"]) == ("bottle", 2, pytest.approx(0.01414, abs=1e-5))


def test_a_verdict_says_how_much_of_its_tolerance_it_takes(make_record):
    # printed for STPM: bottle 0.987894, grid 0.989622 pixel AUROC; the tolerance is 0.010
    runs = [make_record("bottle", value=0.972894), make_record("grid", value=0.981622)]
    found = doubts.verdicts(runs)
    found = found[found["metric"] == "pixel_auroc"]
    assert found["share"].tolist() == pytest.approx([0.8, 1.5])
    assert found["verdict"].tolist() == ["inside, not proven", "outside, not proven"]
    assert set(found["seeds"]) == {1}


def test_basic_intervals_differ_where_replicates_lean_to_one_side(make_record):
    first = make_record(spread=0.0)
    even = np.linspace(-0.02, 0.02, 200)
    second = make_record(method="et_stpm", value=0.98)

    def found(draws):
        leaning = second.model_copy(update={"bootstrap": {"iap": list(0.98 + draws)}})
        (row,) = doubts.basic_intervals([first, leaning], ["iap"]).to_dict("records")
        return row

    assert (found(even)["pairs"], found(even)["turned"]) == (1, 0)
    assert found(even)["moved"] < 0.1
    lopsided = found(np.where(even < 0.016, 0.0, -0.06))  # Student: 0.010 +- 0.035; basic: 0.01 to 0.07
    assert lopsided["moved"] > 0.3
    assert lopsided["turned"] == 1
    assert doubts.basic_intervals([first], ["iap"]).empty


def test_image_auroc_is_counted_without_our_code(make_record):
    # pairs (0.9, 0.4) against (0.5, 0.1): three of four in the right order
    right, wrong = (make_record(metrics={"image_auroc": value}) for value in (0.75, 0.80))
    tied = [ImageScore(image=f"{kind}/0.png", score=0.5) for kind in ("bent", "good")]
    half = make_record(metrics={"image_auroc": 0.5}, image_scores=tied)
    assert doubts.counted_again([right, wrong, half]) == pytest.approx([0, 0.05, 0])
