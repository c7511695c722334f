"""What the papers state in words, checked against the numbers they print.

The statements are inputs: results/claims.csv, one per row, with a verbatim quote. Imports no torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import pandas as pd
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator

from stlib.paths import REPORTED
from stlib.protocol import CATEGORIES
from stlib.records.reported import METHOD_NAMES, PAPERS, REPORTED_METRICS, load_reported, read_rows
from study.analysis.paper_tables import (
    PROSE,
    Column,
    Columns,
    average_verdict,
    columns,
    place,
    rank,
    recomputed,
    row_slack,
)

CLAIMS = REPORTED.parent / "claims.csv"
"""What the papers state in words, one statement per row; the columns are the fields of `Claim`."""

ANY_OTHER = "best"
"""As a claim's baseline: the best other method of the paper's tables."""

UNSEEN: Final = "cannot be checked"
"""The verdict where the table behind a claim is not among the numbers of this study."""

Verdict = Literal[
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


def _known(name: str, info: ValidationInfo) -> str:
    known = {"paper": PAPERS, "metric": REPORTED_METRICS}[str(info.field_name)]
    if name not in known:
        raise ValueError(f"unknown {info.field_name} {name!r}; known: {', '.join(known)}")
    return name


class Claim(BaseModel, frozen=True, extra="forbid"):
    """One statement of a paper about its own numbers; the fields are the columns of results/claims.csv."""

    paper: Annotated[str, AfterValidator(_known)]
    source: str = Field(min_length=1)
    quote: str = Field(min_length=1)
    """Verbatim."""
    kind: Literal["gain", "level", "ranking"]
    metric: Annotated[str, AfterValidator(_known)]
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


def load_claims(path: Path = CLAIMS) -> list[Claim]:
    """All statements. Raises ValueError, naming file and line, for a row that breaks a rule of `Claim`."""
    claims = []
    names = {*METHOD_NAMES, *load_reported()["variant"], ANY_OTHER}
    for where, claim in read_rows(path, Claim):
        if unknown := {claim.method, claim.baseline} - names:
            raise ValueError(f"{where}: neither a method nor a row of an ablation: {', '.join(unknown)}")
        claims.append(claim)
    return claims


def levels(frame: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """Scores that a paper states, beside the mean in its table."""
    table = columns(frame)
    rows = []
    for claim in (c for c in claims if c.kind == "level"):
        printed = table.get((claim.paper, claim.method, claim.metric), {}).get("mean")
        found, verdict = "no table seen", UNSEEN
        if printed and printed.table not in PROSE:
            found = f"{printed.exact:f} in {printed.table}"
            verdict = "supported" if Fraction(printed.exact) == claim.number else "not supported"
        rows.append(claim.model_dump() | {"found": found, "verdict": verdict})
    return pd.DataFrame(rows)


def gains(frame: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """Stated gains, once per work that prints the baseline.

    `gain` is the difference of the printed means; `gain_of_rows` that of the recomputed ones, with `of_rows`
    as its verdict. Raises ValueError for a claim about a mean that is not printed.
    """
    table = columns(frame)
    rows = []
    for claim in (c for c in claims if c.kind == "gain"):
        own = table.get((claim.paper, claim.method, claim.metric), {})
        others = {n: mean for n, mean in means_of(table, claim).items() if n != claim.method}
        best = max(others, key=others.__getitem__, default="")
        baseline = best if claim.baseline == ANY_OTHER else claim.baseline
        works = (claim.paper, *(paper for paper in PAPERS if paper != claim.paper))
        bases = [table.get((work, baseline, claim.metric), {}) for work in works]
        bases = [base for base in bases if "mean" in base]
        if "mean" not in own or not bases:
            raise ValueError(f"no mean is printed for the claim {claim.quote!r} ({claim.metric})")
        rows += [claim.model_dump() | {"baseline": baseline} | _gain(claim, own, base) for base in bases]
    return pd.DataFrame(rows)


def _gain(claim: Claim, own: Column, base: Column) -> dict[str, object]:
    printed, against = own["mean"], base["mean"]
    gain = Fraction(printed.exact) - Fraction(against.exact)
    exact, exact_base = recomputed(own), recomputed(base)
    of_rows = None if exact is None or exact_base is None else exact - exact_base
    told = ""
    if of_rows is not None and claim.number is not None:
        told = average_verdict(claim.number - of_rows, claim.step, row_slack(own) + row_slack(base))
    return {
        "printed_in": place(against),
        "gain": float(gain),
        "verdict": _gain_verdict(gain, claim, here=against.paper == claim.paper),
        "gain_of_rows": None if of_rows is None else float(of_rows),
        "of_rows": told,
        "found": f"{float(gain):+.3f}: {printed.exact:f} against {against.exact:f} in {place(against)}",
    }


def _gain_verdict(gain: Fraction, claim: Claim, *, here: bool) -> Verdict:
    """`here`: the baseline's mean is the one that the claim's own paper prints."""
    if claim.number is None:
        return "higher" if gain > 0 else "lower" if gain < 0 else "equal"
    if abs(gain - claim.number) <= claim.step / 2:
        return "supported"
    return "not supported" if here else "larger" if gain > claim.number else "smaller"


def means_of(table: Columns, claim: Claim, category: str = "mean") -> dict[str, Fraction]:
    """The scores a claim's method competes with: of methods, or of the other rows of an ablation."""
    methods = claim.method in METHOD_NAMES
    return {
        name: Fraction(column[category].exact)
        for (paper, name, metric), column in table.items()
        if (paper, metric) == (claim.paper, claim.metric)
        and category in column
        and methods == (not column[category].variant)
        and methods == (name in METHOD_NAMES)
    }


def rankings(frame: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """Statements such as 'best', with the rank found in the paper's own table.

    `elsewhere`: higher means of methods that this paper does not list, printed in the other works.
    """
    table = columns(frame)
    rows = []
    for claim in (c for c in claims if c.kind == "ranking"):
        scores = means_of(table, claim)
        found, verdict = _found_rank(table, claim, scores)
        elsewhere = "; ".join(_higher_elsewhere(table, claim, scores)) if verdict != UNSEEN else ""
        rows.append(claim.model_dump() | {"found": found, "verdict": verdict, "elsewhere": elsewhere})
    return pd.DataFrame(rows)


def _found_rank(table: Columns, claim: Claim, scores: Mapping[str, Fraction]) -> tuple[str, Verdict]:
    if claim.method not in scores or len(scores) < 2:
        return "no comparison seen", UNSEEN
    limit = int(claim.stated)
    if claim.unit == "rank in most categories":
        ranks = [rank(means_of(table, claim, c), claim.method) for c in CATEGORIES]
        among = sum(place <= limit for place in ranks)
        found = f"{among} of {len(ranks)} categories, first in {ranks.count(1)}"
        return found, "supported" if 2 * among > len(ranks) else "not supported"
    found_rank = rank(scores, claim.method)
    level = [n for n, value in scores.items() if value == scores[claim.method] and n != claim.method]
    found = f"{found_rank} of {len(scores)}" + (f", level with {', '.join(level)}" if level else "")
    return found, "not supported" if found_rank > limit else "shared" if level else "supported"


def _higher_elsewhere(table: Columns, claim: Claim, listed: Mapping[str, Fraction]) -> Iterator[str]:
    for (paper, name, metric), column in table.items():
        if (
            metric != claim.metric
            or paper == claim.paper
            or name in listed
            or claim.method not in METHOD_NAMES
        ):
            continue
        mean = column.get("mean")
        if mean and name in METHOD_NAMES and Fraction(mean.exact) > listed[claim.method]:
            yield f"{METHOD_NAMES[name]} {mean.exact:f} ({place(mean)})"


def of_abstracts(frame: pd.DataFrame, claims: Iterable[Claim]) -> pd.DataFrame:
    """What each abstract claims, and whether the tables support it: levels, gains and rankings together."""
    abstracts = [claim for claim in claims if claim.source.endswith("abstract")]
    parts = [check(frame, abstracts) for check in (levels, gains, rankings)]
    names = ["paper", "source", "quote", "kind", "metric", "method", "found", "verdict", "note"]
    return pd.concat([part[names] for part in parts if len(part)]).sort_values(
        "paper", key=lambda papers: papers.map(PAPERS.index), kind="stable", ignore_index=True
    )
