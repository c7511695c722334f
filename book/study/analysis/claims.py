"""The papers' claims that one method beats another, beside what paired runs show."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from statistics import fmean

import pandas as pd
from scipy.stats import wilcoxon

from stlib.protocol import CATEGORIES, METRICS, TEXTURES, Metric
from study.analysis.comparison import RunGroup
from study.analysis.inference import holm
from study.analysis.paired import PairedDifference, row_of
from study.analysis.reported import METHOD_NAMES, reported


@dataclass(frozen=True)
class Claim:
    """One method beats another: `second`, whose paper prints both sides, scores higher than `first`."""

    first: str
    second: str
    metric: Metric
    baseline: str = ""
    """Variant of `second` that stands for `first` in our runs: the baseline as a row of the ablation."""
    printed_by: str = ""
    """Who prints `first`, where that is not the paper of `second`."""

    @property
    def sides(self) -> str:
        """What is said to beat what."""
        return f"{METHOD_NAMES[self.second]} over {METHOD_NAMES[self.first]}"

    @property
    def name(self) -> str:
        """For a table or an axis."""
        whose = " (of its paper)" if self.printed_by else ""
        return f"{self.sides}{whose}, {METRICS[self.metric]}"

    @property
    def groups(self) -> tuple[RunGroup, RunGroup]:
        """Our runs on either side."""
        first = RunGroup(self.second, self.baseline) if self.baseline else RunGroup(self.first)
        return first, RunGroup(self.second)


CLAIMS = (
    Claim("stpm", "et_stpm", "image_auroc"),
    Claim("stpm", "et_stpm", "pixel_auroc"),
    Claim("destseg", "pfadseg", "image_auroc", "none"),
    Claim("destseg", "pfadseg", "pixel_ap", "none"),
    Claim("destseg", "pfadseg", "iap", "none"),
    Claim("destseg", "pfadseg", "iap90", "none"),
    Claim("stpm", "pfadseg", "pixel_ap"),
    Claim("stpm", "pfadseg", "iap"),
)
"""PFADSeg's baseline is row 1 of its ablation: DeSTSeg's networks under PFADSeg's schedule."""

_AGAINST_DESTSEG: tuple[Metric, ...] = ("pixel_auroc", "pixel_ap", "iap", "iap90")
PRINTED_CLAIMS = (
    *(Claim("destseg", "pfadseg", metric) for metric in _AGAINST_DESTSEG),
    *(Claim("destseg", "pfadseg", metric, printed_by="destseg") for metric in _AGAINST_DESTSEG),
    *CLAIMS[-2:],
)
"""What PFADSeg's tables can be asked by their rows: against the DeSTSeg that they print, against that of its
own paper, and against STPM."""


def claimed(metric: Metric, method: str) -> dict[str, float]:
    """By claim about `metric` with `method` on a side ('ET-STPM over STPM'): the printed mean gain."""
    own = [claim for claim in CLAIMS if claim.metric == metric and method in (claim.first, claim.second)]
    printed = {claim.sides: printed_gain(claim, "mean") for claim in own}
    return {sides: value for sides, value in printed.items() if value is not None}


@dataclass(frozen=True)
class ClaimResult:
    """A claim with both sides of it."""

    claim: Claim
    reported_all: float | None
    """Difference of the printed means over 15 categories."""
    reported_here: float | None
    """Mean of the printed differences over the categories that were run; None where none are printed."""
    pairs: list[PairedDifference]
    """One per category and the mean, each with what the paper prints; empty when no pair was run."""


def with_claim(claim: Claim, found: list[PairedDifference]) -> ClaimResult:
    """What a paper prints beside what was measured.

    The claim about a mean is the printed mean of its categories, or of all where those are not printed.
    """
    everywhere = printed_gain(claim, "mean")
    here = printed_mean(claim, [pair.category for pair in found[:-1]])
    of = {pair.category: printed_gain(claim, pair.category) for pair in found if pair.category in CATEGORIES}
    mean = everywhere if here is None else here
    return ClaimResult(
        claim, everywhere, here, [replace(pair, claim=of.get(pair.category, mean)) for pair in found]
    )


def printed_mean(claim: Claim, categories: Iterable[str]) -> float | None:
    """Mean of the claimed differences over `categories`; None unless all of them are printed."""
    here = [printed_gain(claim, name) for name in categories if name in CATEGORIES]
    known = [value for value in here if value is not None]
    return fmean(known) if known and len(known) == len(here) else None


def printed_gain(claim: Claim, category: str) -> float | None:
    """The claimed difference in one category (or 'mean'), both sides from the claiming paper.

    But for `claim.printed_by`, where it names another work.
    """
    paper = claim.second
    second = reported(claim.second, claim.metric, category, paper=paper)
    first = reported(claim.first, claim.metric, category, paper=claim.printed_by or paper)
    if first is None and claim.baseline:  # printed as a row of the ablation only
        first = reported(claim.second, claim.metric, category, paper=paper, variant=claim.baseline)
    return second.number - first.number if first and second else None


def printed_wins(claims: Iterable[Claim]) -> pd.DataFrame:
    """In how many categories a paper's own rows show the claimed order; claims without rows are left out.

    Columns: `name`, `higher`, `equal`, `lower` (counts), `mean`; `textures` and `objects`, the means of these
    categories; `best` and `worst`, the categories with the largest and the smallest difference, `best_gain`
    and `worst_gain`; `without_best`, the mean of the others; `p_value` of Wilcoxon's signed rank test,
    adjusted for the number of claims (Holm).
    """
    found = []
    for claim in claims:
        values = {name: printed_gain(claim, name) for name in CATEGORIES}
        # 0.8 - 0.7 is not 0.1 in binary
        gains = pd.Series({name: round(v, 6) for name, v in values.items() if v is not None}, dtype=float)
        if gains.empty:
            continue
        texture = gains.index.isin(TEXTURES)
        best, worst = str(gains.idxmax()), str(gains.idxmin())
        found.append(
            {
                "name": claim.name,
                "higher": int((gains > 0).sum()),
                "equal": int((gains == 0).sum()),
                "lower": int((gains < 0).sum()),
                "mean": gains.mean(),
                "textures": gains[texture].mean(),
                "objects": gains[~texture].mean(),
                "best": best,
                "best_gain": gains[best],
                "without_best": gains.drop(best).mean(),
                "worst": worst,
                "worst_gain": gains[worst],
                "p_value": float(wilcoxon(gains).pvalue),
            }
        )
    frame = pd.DataFrame(found)
    return frame.assign(p_value=holm(list(frame["p_value"]))) if len(frame) else frame


def frame(results: Iterable[ClaimResult]) -> pd.DataFrame:
    """A row per claim: `name`, `reported_all`, `reported_here`; and where it was run the mean of its pairs.

    Of that: what `paired.row_of` holds, and the number of `categories` and of `pairs` of runs behind it.
    """
    rows = []
    for item in results:
        row: dict[str, object] = {"name": item.claim.name, "reported_all": item.reported_all}
        row |= {"reported_here": item.reported_here}
        if item.pairs:
            *each, mean = item.pairs
            row |= row_of(mean) | {"categories": len(each), "pairs": sum(len(pair.seeds) for pair in each)}
        rows.append(row)
    of_pair = [field.name for field in fields(PairedDifference)] + ["decision", "as_claimed"]
    columns = ["name", "reported_all", "reported_here", *of_pair, "categories", "pairs"]
    return pd.DataFrame(rows, columns=columns, dtype=object)
