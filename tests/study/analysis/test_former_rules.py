"""The former rule for scores stands beside today's as it was."""

import pytest

from study.analysis import former_rules


def test_a_scores_former_interval_is_that_of_the_test_images(make_record):
    runs = [make_record(seed=seed, value=0.98 + 0.002 * seed, spread=0.004) for seed in range(3)]
    found = former_rules.scores(runs).set_index("metric").loc["pixel_auroc"]
    assert found[["old_low", "old_high"]].tolist() == pytest.approx([0.978, 0.986], abs=5e-4)
    assert (found["old_inside"], found["now_inside"]) == (False, True)  # 0.988 is printed
    assert former_rules.scores([]).empty
