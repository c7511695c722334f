"""bfloat16 against float32, on made records."""

import pytest

from study.analysis import precisions


def made(make_record, changes):
    """A bf16 run per seed, and beside it the variant in fp32 that differs by `changes`."""
    runs = []
    for seed, change in enumerate(changes):
        own = 0.90 + 0.01 * seed
        runs.append(make_record(seed=seed, value=own, spread=0.0))
        runs.append(
            make_record(seed=seed, value=own + change, spread=0.0, precision="fp32", variant="precision=fp32")
        )
    return runs


def test_a_difference_is_held_against_the_smaller_spread(make_record):
    # over seeds bf16 spreads by 0.010, fp32 (0.905, 0.905, 0.925) by 0.0115
    couples = precisions.couples(made(make_record, (0.005, -0.005, 0.005)), "stpm", "paper")
    found = precisions.rounding(couples, "iap")
    assert found["spread"] == pytest.approx(0.010)
    assert found["difference"] == pytest.approx(0.005 / 3)
    assert found["inside"] == "inconclusive"  # its interval is +-0.014


@pytest.mark.parametrize(("change", "inside"), [(0.001, "yes"), (0.02, "no")])
def test_yes_and_no_need_the_whole_interval(make_record, change, inside):
    couples = precisions.couples(made(make_record, (change, change, change)), "stpm", "paper")
    assert precisions.rounding(couples, "iap")["inside"] == inside


def test_one_pair_says_nothing_about_the_spread(make_record):
    runs = made(make_record, (0.001,))
    found = precisions.rounding(precisions.couples(runs, "stpm", "paper"), "iap")
    assert (found["spread"], found["inside"]) == (None, "too few seeds")


def test_the_order_of_a_pair_follows_its_precision(make_record):
    runs = [
        make_record(value=0.92, precision="fp32", spread=0.0),
        make_record(value=0.90, precision="bf16", variant="precision=bf16", spread=0.0),
    ]
    found = precisions.rounding(precisions.couples(runs, "stpm", "paper"), "iap")
    assert found["difference"] == pytest.approx(0.02)


def test_the_table_of_bf16_holds_no_other_precision(make_record):
    runs = [
        make_record(precision="bf16"),
        make_record(precision="tf32", variant="precision=tf32"),
        make_record(seed=1, precision="fp32"),
        make_record(seed=1, precision="tf32", variant="precision=tf32"),
    ]
    assert precisions.couples(runs, "stpm", "paper") == []


def test_without_a_pair_it_is_not_run(make_record):
    same = [make_record(), make_record(variant="precision=bf16")]  # nothing differs
    assert precisions.frame(precisions.couples(same, "stpm", "paper")).empty
    assert precisions.rounding([], "iap") is None
