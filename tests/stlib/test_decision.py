"""A threshold keeps its promise: as many false alarms as it says, whatever the scores are."""

import numpy as np
import pytest
from scipy import stats

from stlib.decision import threshold_from


@pytest.mark.parametrize(
    ("count", "rank"), [(1, 1), (18, 18), (19, 19), (20, 20), (39, 38), (99, 95), (100, 96)]
)
def test_the_rank_is_that_of_split_conformal_prediction(count: int, rank: int):
    found = threshold_from(list(range(1, count + 1)), 0.95)
    assert (found.rank, found.value) == (rank, rank)
    assert found.false_alarms <= 0.05 + 1e-9 or rank == count  # few images cannot promise more
    assert found.false_alarms == pytest.approx((count + 1 - rank) / (count + 1))


def test_the_promised_rate_and_interval_are_met_by_new_good_images():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        found = threshold_from(rng.exponential(size=40).tolist(), 0.9)
        rates.append(stats.expon.sf(found.value))  # the share of all good images above it
    assert np.mean(rates) == pytest.approx(found.false_alarms, abs=0.005)
    low, high = found.interval()
    assert np.mean([low <= rate <= high for rate in rates]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("scores", "quantile"), [([], 0.9), ([1.0, float("nan")], 0.9), ([1.0], 0), ([1.0], 95)]
)
def test_what_gives_no_threshold_is_refused(scores: list[float], quantile: float):
    with pytest.raises(ValueError, match=r"threshold needs|choose one between 0 and 1"):
        threshold_from(scores, quantile)
