"""Which method ranks where, and which differences of ranks can be told from chance. Imports no torch.

Demsar (Journal of Machine Learning Research 7, 2006): methods are ranked on every category (1 is best, ties
share the mean rank); two methods differ when their average ranks lie at least Nemenyi's critical difference
apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import sqrt

import pandas as pd
from scipy.stats import friedmanchisquare, studentized_range

from stlib.protocol import CATEGORIES, METRICS, Metric
from stlib.records.reported import METHOD_NAMES, PAPERS, load_reported
from stlib.records.schema import Summary
from study.analysis.comparison import METHODS, comparable, select

LEVEL = 0.05
"""Of the tests."""


@dataclass(frozen=True)
class Ranking:
    """Average ranks of k methods over n categories."""

    ranks: Mapping[str, float]
    """By the name shown to readers, best first."""
    categories: tuple[str, ...]

    @property
    def critical_difference(self) -> float:
        """Nemenyi's, at LEVEL."""
        return critical_difference(len(self.ranks), len(self.categories))

    @property
    def can_tell(self) -> bool:
        """False when even the best possible and the worst possible ranks lie too close together."""
        return len(self.ranks) > 1 and self.critical_difference <= len(self.ranks) - 1

    def cliques(self) -> list[tuple[str, str]]:
        """Best and worst of every largest group of methods that cannot be told apart."""
        names = list(self.ranks)
        found: list[tuple[int, int]] = []
        for i, name in enumerate(names):
            reach = [j for j in range(i, len(names)) if self._close(name, names[j])][-1]
            if reach > i and (not found or reach > found[-1][1]):
                found.append((i, reach))
        return [(names[i], names[j]) for i, j in found]

    def bars(self) -> list[list[str]]:
        """Every largest group of methods that cannot be told apart, best first."""
        names = list(self.ranks)
        return [names[names.index(best) : names.index(worst) + 1] for best, worst in self.cliques()]

    def _close(self, first: str, second: str) -> bool:
        return self.ranks[second] - self.ranks[first] < self.critical_difference


@cache  # the quantile takes milliseconds, and every pair of methods asks for it
def critical_difference(methods: int, categories: int) -> float:
    """Nemenyi's critical difference of average ranks at LEVEL.

    >>> round(critical_difference(4, 14), 2)  # Demsar 2006, section 3.2.2: q = 2.569
    1.25
    """
    quantile = float(studentized_range.ppf(1 - LEVEL, methods, float("inf"))) / sqrt(2)
    return quantile * sqrt(methods * (methods + 1) / (6 * categories))


def ranking(scores: pd.DataFrame) -> Ranking:
    """From (categories, methods) scores, larger is better; none may be missing."""
    average = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    ranks = {str(name): float(rank) for name, rank in average.items()}
    return Ranking(ranks, tuple(map(str, scores.index)))


def friedman(scores: pd.DataFrame) -> float | None:
    """Probability of ranks this unlike if all methods were alike; None for fewer than three methods."""
    if scores.shape[1] < 3:
        return None
    return float(friedmanchisquare(*(scores[name] for name in scores)).pvalue)


def measured(records: Iterable[Summary], metric: Metric, methods: Iterable[str] = METHODS) -> pd.DataFrame:
    """Means over seeds of the comparable runs: a row per category that every method with a run has.

    Methods without a comparable run are left out.
    """
    everything = list(records)
    columns: dict[str, pd.Series[float]] = {}
    for method in methods:
        runs = [r for r in comparable(select(everything, method)) if metric in r.metrics]
        if runs:
            scores = pd.Series([r.metrics[metric] for r in runs], index=[r.category for r in runs])
            columns[METHOD_NAMES[method]] = scores.groupby(level=0).mean()
    return _complete(pd.DataFrame(columns))


def printed(paper: str, metric: Metric) -> pd.DataFrame:
    """Scores of every method that a paper's table gives for all categories; rows of ablations left out."""
    frame = load_reported()
    frame = frame[(frame["paper"] == paper) & (frame["metric"] == metric) & (frame["variant"] == "")]
    frame = frame[frame["category"].isin(list(CATEGORIES))]
    table = frame.pivot_table(index="category", columns="method", values="number", sort=False)
    return _complete(table.dropna(axis=1).rename(columns=METHOD_NAMES))


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without a gap, in the papers' order."""
    whole = table.dropna()
    return whole.loc[[name for name in CATEGORIES if name in whole.index]]


def of_papers() -> dict[str, pd.DataFrame]:
    """Every printed table with three or more methods on all categories, by paper and metric."""
    tables = {
        f"{METHOD_NAMES[paper]}'s table, {words}": printed(paper, metric)
        for paper in PAPERS
        for metric, words in METRICS.items()
    }
    return {title: table for title, table in tables.items() if table.shape[1] > 2}


def drawable(tables: Mapping[str, pd.DataFrame]) -> dict[str, Ranking]:
    """The rankings of those tables that can tell methods apart at all."""
    found = {title: ranking(table) for title, table in tables.items() if table.shape[1] > 1 and len(table)}
    return {title: one for title, one in found.items() if one.can_tell}


@dataclass(frozen=True)
class RankTest:
    """What the ranks of one table show."""

    title: str
    methods: list[str]
    ranking: Ranking | None
    """None for fewer than two methods, or none of the categories in common."""
    p_value: float | None
    """Of Friedman's test of equal ranks."""


def tests(tables: Mapping[str, pd.DataFrame]) -> list[RankTest]:
    """One for every table of scores, by its title."""
    found = []
    for title, scores in tables.items():
        methods = [str(name) for name in scores]
        enough = len(methods) > 1 and len(scores)
        results = (ranking(scores), friedman(scores)) if enough else (None, None)
        found.append(RankTest(title, methods, *results))
    return found
