"""Every outcome of the study's rules has a status."""

from typing import get_args

from study.analysis.comparison import Verdict
from study.analysis.paired import Decision
from study.analysis.paper_statements import StatementVerdict
from study.analysis.status import Status, of_gain, of_score, of_statement


def test_every_outcome_has_a_status():
    found = {of_score(word) for word in get_args(Verdict)}
    found |= {of_gain(word) for word in get_args(Decision)}
    found |= {of_statement(word) for word in get_args(StatementVerdict)}
    assert found == set(get_args(Status))


def test_nothing_is_settled_by_few_seeds_or_by_labelled_runs():
    assert {of_score(word) for word in get_args(Verdict) if "not proven" in word} == {"open"}
    assert {of_gain(word, labelled=True) for word in get_args(Decision)} == {"open"}
