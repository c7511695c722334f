"""Which method ranks where in the papers' tables, and which ranks can be told from chance.

Demsar (Journal of Machine Learning Research 7, 2006): methods are ranked on every category (1 is best, ties
share the mean rank); two methods differ when their average ranks lie at least Nemenyi's critical difference
apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt

import pandas as pd
from scipy.stats import friedmanchisquare, studentized_range

from stlib.protocol import CATEGORIES, METRICS, Metric
from study.analysis.inference import ALPHA
from study.analysis.reported import METHOD_NAMES, PAPERS, load_reported


@dataclass(frozen=True)
class Ranking:
    """Average ranks of k methods over n categories."""

    title: str
    ranks: Mapping[str, float]
    """By the name shown to readers, best first."""
    categories: int
    p_value: float
    """Of Friedman's test of equal ranks."""

    @property
    def critical_difference(self) -> float:
        """Nemenyi's, at ALPHA."""
        return critical_difference(len(self.ranks), self.categories)

    def bars(self) -> list[list[str]]:
        """Every largest group of methods that cannot be told apart, best first."""
        names = list(self.ranks)
        found: list[tuple[int, int]] = []
        for i, name in enumerate(names):
            reach = [j for j in range(i, len(names)) if self._close(name, names[j])][-1]
            if reach > i and (not found or reach > found[-1][1]):
                found.append((i, reach))
        return [names[i : j + 1] for i, j in found]

    def _close(self, first: str, second: str) -> bool:
        return self.ranks[second] - self.ranks[first] < self.critical_difference


@cache  # the quantile takes milliseconds, and every pair of methods asks for it
def critical_difference(methods: int, categories: int) -> float:
    """Nemenyi's critical difference of average ranks at ALPHA.

    >>> round(critical_difference(4, 14), 2)  # Demsar 2006, section 3.2.2: q = 2.569
    1.25
    """
    quantile = float(studentized_range.ppf(1 - ALPHA, methods, float("inf"))) / sqrt(2)
    return quantile * sqrt(methods * (methods + 1) / (6 * categories))


def ranking(title: str, scores: pd.DataFrame) -> Ranking:
    """From (categories, three or more methods) scores, larger is better; none may be missing."""
    average = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    ranks = {str(name): float(rank) for name, rank in average.items()}
    test = friedmanchisquare(*(scores[name] for name in scores))
    return Ranking(title, ranks, len(scores), float(test.pvalue))


def printed(paper: str, metric: Metric) -> pd.DataFrame:
    """Scores of every method that a paper's table gives for all categories; rows of ablations left out."""
    scores: dict[str, dict[str, float]] = {}
    for row in load_reported():
        if (row.paper, row.metric, row.variant) == (paper, metric, "") and row.category in CATEGORIES:
            scores.setdefault(METHOD_NAMES[row.method], {})[row.category] = row.number
    return pd.DataFrame(scores).dropna(axis=1)


def of_papers() -> list[Ranking]:
    """Of every printed table with three or more methods on all categories."""
    tables = {
        f"{METHOD_NAMES[paper]}'s table, {words}": printed(paper, metric)
        for paper in PAPERS
        for metric, words in METRICS.items()
    }
    return [ranking(title, table) for title, table in tables.items() if table.shape[1] > 2]
