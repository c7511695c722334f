"""One word for every outcome: supported, contradicted or open; none where nothing was run.

The rules that lead to an outcome stand in `comparison`, `paired` and `paper_statements`; here they only get
a name.
"""

from typing import Literal

from study.analysis.comparison import Verdict
from study.analysis.paired import Decision
from study.analysis.paper_statements import StatementVerdict

Status = Literal["supported", "contradicted", "open", ""]

_OF: dict[str, Status] = {
    # a reproduced score beside a printed one
    "inside, proven": "supported",
    "inside, not proven": "open",
    "outside, not proven": "open",
    "lower": "contradicted",
    "higher": "contradicted",
    "not comparable": "open",
    "not run": "",
    "not reported": "",
    "different backbone": "",
    # a measured difference beside a claimed gain
    "gain": "supported",
    "loss": "contradicted",
    "not as claimed": "contradicted",
    "inconclusive": "open",
    "too few seeds": "open",
    # a sentence of a paper beside its own tables
    "supported": "supported",
    "not supported": "contradicted",
    "shared": "open",
    "larger": "open",
    "smaller": "open",
    "equal": "contradicted",
    "cannot be checked": "open",
}


def of_score(verdict: Verdict) -> Status:
    """Of a score.

    >>> of_score("lower"), of_score("outside, not proven"), of_score("not run")
    ('contradicted', 'open', '')
    """
    return _OF[verdict]


def of_gain(decision: Decision, *, labelled: bool = False) -> Status:
    """Of a claimed gain; runs with a label, not in the paper's setting, settle nothing.

    >>> of_gain("gain"), of_gain("gain", labelled=True), of_gain("not as claimed")
    ('supported', 'open', 'contradicted')
    """
    return "open" if labelled else _OF[decision]


def of_statement(verdict: StatementVerdict) -> Status:
    """Of a sentence; 'higher' and 'lower' say which way a gain without a number went.

    >>> of_statement("higher"), of_statement("lower"), of_statement("cannot be checked")
    ('supported', 'contradicted', 'open')
    """
    return "supported" if verdict == "higher" else _OF[verdict]
