"""Ranks, critical differences, and when there is too little to rank."""

from math import sqrt

import pandas as pd
import pytest

from stlib.protocol import CATEGORIES
from study import figures
from study.analysis import ranks
from study.analysis.ranks import Ranking, critical_difference, ranking


def test_ranks_are_averaged_and_ties_share():
    scores = pd.DataFrame({"A": [0.9, 0.9, 0.7], "B": [0.8, 0.9, 0.8], "C": [0.1, 0.2, 0.3]})
    found = ranking("", scores)
    assert found.ranks == {"A": pytest.approx(1.5), "B": pytest.approx(1.5), "C": 3.0}
    assert list(ranking("", scores[["C", "A", "B"]]).ranks)[-1] == "C"  # best first


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_follows_the_printed_table(methods, q):
    # Demsar 2006, table 5(a)
    expected = q * sqrt(methods * (methods + 1) / (6 * 15))
    assert critical_difference(methods, 15) == pytest.approx(expected, abs=1e-3)


def test_bars_are_the_largest_groups_that_cannot_be_told_apart():
    width = critical_difference(5, 15)  # 1.57
    ranks_of_five = {"A": 1.0, "B": 1.0 + 0.9 * width, "C": 1.0 + 1.1 * width, "D": 4.9, "E": 5.0}
    assert Ranking("", ranks_of_five, 15, 1.0).bars() == [["A", "B"], ["B", "C"], ["D", "E"]]
    assert Ranking("", {"A": 1.0, "B": 2.0}, 15, 1.0).bars() == []  # width 0.51
    assert Ranking("", {"A": 1.3, "B": 1.7}, 15, 1.0).bars() == [["A", "B"]]


def test_printed_tables_hold_every_category_and_no_ablation():
    table = ranks.printed("et_stpm", "pixel_auroc")
    assert list(table.index) == list(CATEGORIES)
    assert set(table.columns) == {"AnoGAN", "CNN-Dict", "SPADE", "STPM", "ET-STPM"}
    assert table.loc["transistor", "STPM"] == 0.825
    assert ranking("", table).p_value < 1e-6


def test_every_drawn_ranking_has_its_methods_and_its_width():
    papers = ranks.of_papers()
    assert len(papers) > 3
    figure = figures.critical_difference(papers)
    for axis, found in zip(figure.axes, papers, strict=True):
        texts = [text.get_text() for text in axis.texts]
        assert axis.get_title(loc="left") == found.title
        assert all(any(text.startswith(f"{name} ") for text in texts) for name in found.ranks)
        assert f"critical difference {found.critical_difference:.2f}" in texts[0]
