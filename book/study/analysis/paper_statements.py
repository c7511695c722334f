"""What the papers state in words, checked against the numbers they print.

The statements are inputs: results/claims.csv, one per row, with a verbatim quote.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, Self

import pandas as pd
from pydantic import BaseModel, Field, model_validator

from stlib.paths import REPORTED
from stlib.protocol import CATEGORIES
from study.analysis.audit import (
    Column,
    Columns,
    average_verdict,
    columns,
    place,
    rank,
    recomputed,
    row_slack,
)
from study.analysis.reported import METHOD_NAMES, PAPERS, Known, Reported, load_reported, read_rows

STATEMENTS = REPORTED.parent / "claims.csv"
"""What the papers state in words, one statement per row; the columns are the fields of `Statement`."""

ANY_OTHER = "best"
"""As a statement's baseline: the best other method of the paper's tables."""

UNSEEN: Final = "cannot be checked"
"""The verdict where the table behind a statement is not among the numbers of this study."""

StatementVerdict = Literal[
    "supported",
    "not supported",
    "shared",
    "larger",
    "smaller",
    "higher",
    "lower",
    "equal",
    "cannot be checked",
]
"""Of a statement. Shared: first, but not alone. Larger, smaller: than the stated gain, against another work's
number of the baseline. Higher, lower, equal: a gain stated without a number."""

LEAST_FIRST: tuple[StatementVerdict, ...] = (
    "not supported", "lower", "equal", UNSEEN, "shared", "larger", "smaller", "higher", "supported",
)  # fmt: skip
"""From what contradicts a statement to what supports it."""


class Statement(BaseModel, frozen=True, extra="forbid"):
    """One statement of a paper about its own numbers; the fields are the columns of results/claims.csv."""

    paper: Known
    source: str = Field(min_length=1)
    quote: str = Field(min_length=1)
    """Verbatim."""
    kind: Literal["gain", "level", "ranking"]
    metric: Known
    method: str = Field(min_length=1)
    """As in `METHOD_NAMES`, or the row of an ablation table."""
    baseline: str
    """Of a gain: like `method`, or ANY_OTHER."""
    stated: str = Field(pattern=r"^(\d*\.?\d+)?$")
    """As printed, or the lowest place that a ranking allows; empty for a gain stated without a number."""
    unit: Literal["fraction", "percent", "rank", "rank in most categories"]
    note: str

    @property
    def number(self) -> Fraction | None:
        """`stated` as a fraction of 1, or as a rank."""
        value = Fraction(self.stated) if self.stated else None
        return value / 100 if value is not None and self.unit == "percent" else value

    @property
    def step(self) -> Fraction:
        """Unit of the last place of `stated`, as a fraction of 1."""
        places = len(self.stated.partition(".")[2]) + 2 * (self.unit == "percent")
        return Fraction(1, 10**places)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "gain") != bool(self.baseline):
            raise ValueError("a gain needs a baseline, and nothing else has one")
        if (self.kind == "ranking") != self.unit.startswith("rank"):
            raise ValueError(f"a {self.kind} cannot have the unit {self.unit!r}")
        if self.kind == "ranking" and not self.stated.isdecimal():
            raise ValueError("a ranking states a place: 1, 2, ...")
        if not self.stated and self.kind != "gain":
            raise ValueError(f"a {self.kind} must state a number")
        return self


def load_statements(path: Path = STATEMENTS) -> list[Statement]:
    """All statements. Raises ValueError, naming file and line, for a row that breaks a rule."""
    statements = []
    names = {*METHOD_NAMES, *(row.variant for row in load_reported()), ANY_OTHER}
    for where, statement in read_rows(path, Statement):
        if unknown := {statement.method, statement.baseline} - names:
            raise ValueError(f"{where}: neither a method nor a row of an ablation: {', '.join(unknown)}")
        statements.append(statement)
    return statements


def gains(printed: Iterable[Reported], statements: Iterable[Statement]) -> pd.DataFrame:
    """Stated gains, once per work that prints the baseline.

    `gain` is the difference of the printed means; `gain_of_rows` that of the recomputed ones, with `of_rows`
    as its verdict. Raises ValueError for a statement about a mean that is not printed.
    """
    table = columns(printed)
    rows = []
    for statement in (c for c in statements if c.kind == "gain"):
        own = table.get((statement.paper, statement.method, statement.metric), {})
        others = {n: mean for n, mean in means_of(table, statement).items() if n != statement.method}
        best = max(others, key=others.__getitem__, default="")
        baseline = best if statement.baseline == ANY_OTHER else statement.baseline
        works = (statement.paper, *(paper for paper in PAPERS if paper != statement.paper))
        bases = [table.get((work, baseline, statement.metric), {}) for work in works]
        bases = [base for base in bases if "mean" in base]
        if "mean" not in own or not bases:
            raise ValueError(f"no mean is printed for the statement {statement.quote!r} ({statement.metric})")
        rows += [
            statement.model_dump() | {"baseline": baseline} | _gain(statement, own, base) for base in bases
        ]
    return pd.DataFrame(rows)


def moved_gains(gains: pd.DataFrame) -> list[list[dict[Hashable, Any]]]:
    """Of `gains`, those that depend on whose number of the baseline is taken: of each a row per work."""
    groups = gains.groupby(["paper", "method", "baseline", "metric"], sort=False)
    works = [group.drop_duplicates("printed_in") for _, group in groups]
    return [rows.to_dict("records") for rows in works if rows["gain"].round(3).nunique() > 1]


def _gain(statement: Statement, own: Column, base: Column) -> dict[str, object]:
    printed, against = own["mean"], base["mean"]
    gain = Fraction(printed.exact) - Fraction(against.exact)
    exact, exact_base = recomputed(own), recomputed(base)
    of_rows = None if exact is None or exact_base is None else exact - exact_base
    told = ""
    if of_rows is not None and statement.number is not None:
        told = average_verdict(statement.number - of_rows, statement.step, row_slack(own) + row_slack(base))
    return {
        "printed_in": place(against),
        "gain": float(gain),
        "verdict": _gain_verdict(gain, statement, here=against.paper == statement.paper),
        "gain_of_rows": None if of_rows is None else float(of_rows),
        "of_rows": told,
        "found": f"{float(gain):+.3f}: {printed.shown} against {against.shown} in {place(against)}",
    }


def _gain_verdict(gain: Fraction, statement: Statement, *, here: bool) -> StatementVerdict:
    """`here`: the baseline's mean is the one that the statement's own paper prints."""
    if statement.number is None:
        return "higher" if gain > 0 else "lower" if gain < 0 else "equal"
    if abs(gain - statement.number) <= statement.step / 2:
        return "supported"
    return "not supported" if here else "larger" if gain > statement.number else "smaller"


def means_of(table: Columns, statement: Statement, category: str = "mean") -> dict[str, Fraction]:
    """The scores a statement's method competes with: of methods, or of the other rows of an ablation."""
    methods = statement.method in METHOD_NAMES
    return {
        name: Fraction(column[category].exact)
        for (paper, name, metric), column in table.items()
        if (paper, metric) == (statement.paper, statement.metric)
        and category in column
        and methods == (not column[category].variant)
        and methods == (name in METHOD_NAMES)
    }


def rankings(printed: Iterable[Reported], statements: Iterable[Statement]) -> pd.DataFrame:
    """Statements such as 'best', with the rank found in the paper's own table.

    `elsewhere`: higher means of methods that this paper does not list, printed in the other works.
    """
    table = columns(printed)
    rows = []
    for statement in (c for c in statements if c.kind == "ranking"):
        scores = means_of(table, statement)
        found, verdict = _found_rank(table, statement, scores)
        elsewhere = "; ".join(_higher_elsewhere(table, statement, scores)) if verdict != UNSEEN else ""
        rows.append(statement.model_dump() | {"found": found, "verdict": verdict, "elsewhere": elsewhere})
    return pd.DataFrame(rows)


def _found_rank(
    table: Columns, statement: Statement, scores: Mapping[str, Fraction]
) -> tuple[str, StatementVerdict]:
    if statement.method not in scores or len(scores) < 2:
        return "no comparison seen", UNSEEN
    limit = int(statement.stated)
    if statement.unit == "rank in most categories":
        ranks = [rank(means_of(table, statement, c), statement.method) for c in CATEGORIES]
        among = sum(place <= limit for place in ranks)
        found = f"{among} of {len(ranks)} categories, first in {ranks.count(1)}"
        return found, "supported" if 2 * among > len(ranks) else "not supported"
    found_rank = rank(scores, statement.method)
    level = [n for n, value in scores.items() if value == scores[statement.method] and n != statement.method]
    found = f"{found_rank} of {len(scores)}" + (f", level with {', '.join(level)}" if level else "")
    return found, "not supported" if found_rank > limit else "shared" if level else "supported"


def _higher_elsewhere(table: Columns, statement: Statement, listed: Mapping[str, Fraction]) -> Iterator[str]:
    for (paper, name, metric), column in table.items():
        if (
            metric != statement.metric
            or paper == statement.paper
            or name in listed
            or statement.method not in METHOD_NAMES
        ):
            continue
        mean = column.get("mean")
        if mean and name in METHOD_NAMES and Fraction(mean.exact) > listed[statement.method]:
            yield f"{METHOD_NAMES[name]} {mean.shown} ({place(mean)})"


def of_abstracts(printed: Sequence[Reported], statements: Iterable[Statement]) -> pd.DataFrame:
    """What each abstract says of gains and places, and whether the tables support it; a row per phrase.

    Of a phrase about several metrics, the one that supports it least (`LEAST_FIRST`).
    """
    abstracts = [statement for statement in statements if statement.source.endswith("abstract")]
    parts = [check(printed, abstracts) for check in (gains, rankings)]
    names = ["paper", "source", "quote", "kind", "metric", "method", "found", "verdict", "note"]
    rows = pd.concat([part[names] for part in parts if len(part)])
    least = rows.sort_values("verdict", key=lambda verdicts: verdicts.map(LEAST_FIRST.index), kind="stable")
    return least.drop_duplicates(["paper", "quote"]).sort_values(
        "paper", key=lambda papers: papers.map(PAPERS.index), kind="stable", ignore_index=True
    )
