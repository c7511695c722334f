"""Intervals and tests: equal to SciPy's where it has them, and right as often as they say."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from study.analysis.inference import apart, equivalent, holm, interval, p_value, prediction, satterthwaite
from study.analysis.paired import compare

VALUES = [0.974, 0.975, 0.979]


def test_one_source_of_chance_is_students_t():
    value, freedom = np.var(VALUES, ddof=1) / 3, 2
    told = stats.ttest_1samp(VALUES, 0.97)
    shift = np.mean(VALUES) - 0.97
    low, high = told.confidence_interval()
    assert interval(np.mean(VALUES), satterthwaite([(value, freedom)])) == pytest.approx((low, high))
    assert p_value(shift, (value, freedom)) == pytest.approx(told.pvalue)
    assert (p_value(0.1, (0.0, 2)), p_value(0.0, (0.0, 2))) == (0, 1)


def test_two_sources_have_welchs_degrees_of_freedom():
    other = [0.92, 0.99, 0.95, 0.96]
    parts = [(np.var(group, ddof=1) / len(group), len(group) - 1) for group in (VALUES, other)]
    told = stats.ttest_ind(VALUES, other, equal_var=False)
    assert satterthwaite(parts)[1] == pytest.approx(told.df)
    assert p_value(np.mean(VALUES) - np.mean(other), satterthwaite(parts)) == pytest.approx(told.pvalue)


@pytest.mark.parametrize("reported", [0.950, 0.966, 0.972, 0.980, 0.990])
@pytest.mark.parametrize("tolerance", [0.002, 0.01, 0.02])
def test_equivalence_is_two_one_sided_tests(reported, tolerance):
    above = stats.ttest_1samp(VALUES, reported - tolerance, alternative="greater").pvalue
    below = stats.ttest_1samp(VALUES, reported + tolerance, alternative="less").pvalue
    assert equivalent(VALUES, reported, tolerance) == (max(above, below) < 0.05)


@pytest.mark.parametrize("reported", [0.950, 0.966, 0.972, 0.985, 0.990])
@pytest.mark.parametrize("tolerance", [0.002, 0.01])
def test_apart_is_a_one_sided_test_and_a_printed_run_that_is_no_run_of_ours(reported, tolerance):
    beyond = stats.ttest_1samp(VALUES, reported + tolerance, alternative="greater").pvalue
    short = stats.ttest_1samp(VALUES, reported - tolerance, alternative="less").pvalue
    low, high = prediction(VALUES)
    expected = min(beyond, short) < 0.05 and not low <= reported <= high
    assert apart(VALUES, reported, tolerance) == expected


def test_a_tight_mean_is_not_apart_from_a_run_that_may_be_one_of_them():
    values = [0.960, 0.9605, 0.961]  # one more run lies within 0.0025 of their mean
    assert not apart(values, 0.9626, 0.0005)
    assert apart(values, 0.9640, 0.0005)


def test_seeds_that_agree_to_the_last_digit_are_equivalent_up_to_the_tolerance_itself():
    assert equivalent([0.98, 0.98], 0.97, 0.01)  # in binary the difference is a little more
    assert not equivalent([0.98, 0.98], 0.97, 0.00999)


def test_one_more_run_lies_in_its_interval_nineteen_times_of_twenty():
    runs = np.random.default_rng(0).normal(0.9, 0.01, (2000, 4))
    inside = [low <= one <= high for *seeds, one in runs.tolist() for low, high in [prediction(seeds)]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_holm_is_rarely_wrong_about_any_of_six_claims():
    draws = np.random.default_rng(0).uniform(size=(2000, 6))
    wrong = [min(holm(family)) < 0.05 for family in draws.tolist()]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.015)
    assert np.mean(draws.min(axis=1) < 0.05) > 0.2  # without it


def run(category, seed, gain, draws, teacher):
    """What `compare` reads of a record."""
    return SimpleNamespace(
        category=str(category),
        seed=seed,
        metrics={"iap": gain},
        bootstrap={"iap": draws},
        labels=list,
        precision="bf16",
        teacher=SimpleNamespace(source="", pyramid_sha256=teacher),
        runtime=SimpleNamespace(processor="CPU"),
    )


def false_alarms(images, student, teacher=0.0, categories=1, seeds=3, studies=600, more=0):
    """Share of studies without a true difference whose mean is called a gain or a loss.

    `images`, `student` and `teacher`: standard deviations of a seed's difference; a teacher is shared by all
    categories of a seed. The first category has so many `more` seeds.
    """
    random = np.random.default_rng(7)
    called = 0
    for _ in range(studies):
        couples = []
        tuned = random.normal(0, teacher, seeds + more)
        for category in range(categories):
            noise = random.normal(0, images, 200)  # as the replicates tell it
            test_set = random.normal(0, images)
            for seed in range(seeds if category else seeds + more):
                gain = test_set + tuned[seed] + random.normal(0, student)
                weights = str(seed) if teacher else ""
                first = run(category, seed, 0.0, np.zeros(200), "")
                couples.append((first, run(category, seed, gain, gain + noise, weights)))
        called += compare(couples, "iap")[-1].decision in ("gain", "loss")
    return called / studies


@pytest.mark.parametrize(
    ("images", "student", "most"),
    [
        (1.0, 0.0, 0.07),
        (0.0, 1.0, 0.07),
        (1.0, 1.0, 0.07),
        (0.25, 1.0, 0.10),
    ],  # the last is the worst there is
)
def test_chance_is_called_a_difference_about_once_in_twenty_times(images, student, most):
    assert 0.02 <= false_alarms(images, student) <= most


def test_of_a_mean_over_categories_as_rarely():
    assert 0.02 <= false_alarms(1.0, 1.0, categories=5, studies=300) <= 0.08


@pytest.mark.parametrize("more", [0, 1])
def test_a_teacher_that_all_categories_share_is_one_draw_and_not_five(more):
    # taken for five, three studies in ten call it a difference
    assert false_alarms(0.2, 0.5, teacher=1.0, categories=5, studies=300, more=more) <= 0.1
