"""What chance may explain: intervals, equivalence and several claims at once."""

from collections.abc import Iterable, Sequence
from math import inf, sqrt
from statistics import fmean, variance

import numpy as np
from scipy.stats import t as student_t

ALPHA = 0.05
"""Of every test; an interval holds 1 - ALPHA."""

Part = tuple[float, float]
"""A source of chance: the variance that it gives a mean, and the degrees of freedom of that estimate."""


def satterthwaite(parts: Iterable[Part]) -> Part:
    """Independent sources of chance together.

    Satterthwaite, Biometrics Bulletin 2 (1946): the degrees of freedom with which the sum of the variances is
    spread like a chi-squared variable.
    """
    known = list(parts)
    total = sum(value for value, _ in known)
    unsure = sum(value**2 / freedom for value, freedom in known)
    return total, total**2 / unsure if unsure else inf


def interval(mean: float, chance: Part, level: float = 1 - ALPHA) -> tuple[float, float]:
    """Both ends of Student's interval of `mean`."""
    value, freedom = chance
    half = float(student_t.ppf((1 + level) / 2, freedom)) * sqrt(value)
    return mean - half, mean + half


def p_value(mean: float, chance: Part) -> float:
    """Two-sided, of the hypothesis that the true mean is zero."""
    value, freedom = chance
    if not value:
        return float(mean == 0)
    return 2 * float(student_t.sf(abs(mean) / sqrt(value), freedom))


def prediction(values: Sequence[float]) -> tuple[float, float]:
    """Where one more run, such as the published one, has to be expected: the interval around `values`' mean.

    Two or more values of independent runs.
    """
    count = len(values)
    return interval(fmean(values), (variance(values) * (1 + 1 / count), count - 1))


def equivalent(values: Sequence[float], reported: float, tolerance: float) -> bool:
    """Whether `values`, two or more, show a mean within `tolerance` of `reported`, its ends included.

    Two one-sided t tests (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987), as the interval of
    1 - 2 ALPHA that they amount to.
    """
    return max(map(abs, _distance(values, reported))) <= tolerance


def apart(values: Sequence[float], reported: float, tolerance: float) -> bool:
    """Whether `values`, two or more, show a mean farther than `tolerance` from `reported`, itself one run.

    The interval of `equivalent` lies outside the tolerance, on one side; and `prediction` leaves out
    `reported`.
    """
    low, high = _distance(values, reported)
    first, last = prediction(values)
    return (low > tolerance or high < -tolerance) and not first <= reported <= last


def _distance(values: Sequence[float], reported: float) -> tuple[float, float]:
    """Both ends of the interval of 1 - 2 ALPHA of the mean minus `reported`."""
    count = len(values)
    low, high = interval(fmean(values) - reported, (variance(values) / count, count - 1), 1 - 2 * ALPHA)
    return round(low, 9), round(high, 9)  # 0.98 - 0.97 is a little more than 0.01 in binary


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for their number, so that one false alarm among all of them is as rare as ALPHA.

    Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> [round(p, 3) for p in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return list(map(float, adjusted))
