"""From a score to a decision: a threshold read from good images that the training did not learn from.

The threshold is an order statistic of their scores, as in split conformal prediction (Vovk et al., 2005; Lei
et al., JASA 2018). How often another good image scores above it then follows from ranks alone: whatever the
scores are, its rate has a Beta distribution (Wilks, 1941). It says nothing about how many defects are found.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel
from scipy import stats

QUANTILE = 0.95
"""Share of good images that should pass."""


class Threshold(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """An image is anomalous when its score is above `value`."""

    value: float
    quantile: float
    """Share of good images that was to pass."""
    images: int
    """Held-out good images whose scores it was read from."""
    rank: int
    """Of the threshold among their scores, 1 for the lowest."""

    @property
    def false_alarms(self) -> float:
        """The share of good images to be expected above the threshold."""
        return (self.images + 1 - self.rank) / (self.images + 1)

    def interval(self) -> tuple[float, float]:
        """Where that share lies for this very threshold, with a probability of 95%."""
        share = stats.beta(self.images + 1 - self.rank, self.rank)
        return float(share.ppf(0.025)), float(share.ppf(0.975))

    def __str__(self) -> str:
        """The threshold, what it was read from, and the false alarms to expect."""
        low, high = self.interval()
        return (
            f"threshold {self.value:.6g} from {self.images} held-out good images; false alarms to expect: "
            f"{self.false_alarms:.1%} of good images (95% interval {low:.1%} to {high:.1%})"
        )


def require_quantile(quantile: float) -> None:
    """Raise ValueError unless it is a share that can be asked for."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile {quantile}: choose one between 0 and 1, such as {QUANTILE}")


def threshold_from(scores: Sequence[float], quantile: float = QUANTILE) -> Threshold:
    """The lowest score above which no more than 1 - `quantile` of good images are to be expected.

    Few images cannot promise that: the threshold is then their highest score, and `false_alarms` says what
    it stands for. Raises ValueError without scores, for ones that are not finite, and for another quantile.

    >>> print(threshold_from([0.1, 0.4, 0.2, 0.3], quantile=0.6))
    threshold 0.3 from 4 held-out good images; false alarms to expect: 40.0% of good images (95% interval ...)
    """
    require_quantile(quantile)
    if not scores or not all(map(math.isfinite, scores)):
        raise ValueError("a threshold needs the finite scores of some good images")
    rank = min(math.ceil(quantile * (len(scores) + 1)), len(scores))
    return Threshold(value=sorted(scores)[rank - 1], quantile=quantile, images=len(scores), rank=rank)
