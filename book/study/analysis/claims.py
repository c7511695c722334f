"""The papers' claims that one method beats another, beside what paired runs show. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from scipy.stats import wilcoxon

from stlib.protocol import CATEGORIES, METRICS, Metric, Profile
from stlib.records.reported import METHOD_NAMES, reported
from stlib.records.schema import Summary
from study.analysis.comparison import METHODS
from study.analysis.paired import PairedDifference, RunGroup, pairs
from study.tables import NOT_RUN, Html, Markup, Text, interval, plain, signed, to_html


@dataclass(frozen=True)
class Claim:
    """One method beats another: `second` scores higher than `first`."""

    paper: str
    """Which paper prints both sides."""
    first: str
    second: str
    metric: Metric
    baseline: str = ""
    """Variant of `second` that stands for `first` in our runs: the baseline as a row of the ablation."""

    @property
    def sides(self) -> str:
        """What is said to beat what."""
        return f"{METHOD_NAMES[self.second]} over {METHOD_NAMES[self.first]}"

    @property
    def name(self) -> str:
        """For a table or an axis."""
        return f"{self.sides}, {METRICS[self.metric]}"

    def groups(self, profile: Profile) -> tuple[RunGroup, RunGroup]:
        """Our runs on either side."""
        first = (
            RunGroup(self.second, self.baseline, profile)
            if self.baseline
            else RunGroup(self.first, "", profile)
        )
        return first, RunGroup(self.second, "", profile)


CLAIMS = (
    Claim("et_stpm", "stpm", "et_stpm", "image_auroc"),
    Claim("et_stpm", "stpm", "et_stpm", "pixel_auroc"),
    Claim("pfadseg", "destseg", "pfadseg", "image_auroc", "none"),
    Claim("pfadseg", "destseg", "pfadseg", "pixel_ap", "none"),
    Claim("pfadseg", "destseg", "pfadseg", "iap", "none"),
    Claim("pfadseg", "destseg", "pfadseg", "iap90", "none"),
    Claim("pfadseg", "stpm", "pfadseg", "pixel_ap"),
    Claim("pfadseg", "stpm", "pfadseg", "iap"),
)
"""PFADSeg's baseline is row 1 of its ablation: DeSTSeg's networks under PFADSeg's schedule."""

CLAIM_ROWS = (*METHODS, *sorted({f"{claim.second}-{claim.baseline}" for claim in CLAIMS if claim.baseline}))
"""Behind claims and methods, for `load_summaries`: every method as published, and the baselines."""


def claimed(metric: Metric) -> dict[str, float]:
    """Every claim about `metric` ('ET-STPM over STPM') with the difference of the printed means."""
    printed = {claim.sides: printed_gain(claim, "mean") for claim in CLAIMS if claim.metric == metric}
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
    """One per category and the mean; empty when no pair was run."""


def claim_results(records: Iterable[Summary], profile: Profile = "paper") -> list[ClaimResult]:
    """Every claim of `CLAIMS` with the runs that bear on it."""
    everything = list(records)
    results = []
    for claim in CLAIMS:
        group = pairs(everything, *claim.groups(profile), claim.metric)
        shown = printed_mean(claim, [pair.category for pair in group[:-1]])
        results.append(ClaimResult(claim, printed_gain(claim, "mean"), shown, group))
    return results


def printed_mean(claim: Claim, categories: Iterable[str]) -> float | None:
    """Mean of the claimed differences over `categories`; None unless all of them are printed."""
    here = [printed_gain(claim, name) for name in categories if name in CATEGORIES]
    known = [value for value in here if value is not None]
    return fmean(known) if known and len(known) == len(here) else None


def printed_gain(claim: Claim, category: str) -> float | None:
    """The claimed difference in one category (or 'mean'), both sides from the claiming paper."""
    paper = claim.paper
    second = reported(claim.second, claim.metric, category, paper=paper)
    first = reported(claim.first, claim.metric, category, paper=paper)
    if first is None and claim.baseline:  # printed as a row of the ablation only
        first = reported(claim.second, claim.metric, category, paper=paper, variant=claim.baseline)
    return second.number - first.number if first and second else None


def printed_wins_html(claims: Iterable[Claim]) -> Markup:
    """In how many categories a paper's own rows show the claimed order; claims without rows are left out."""
    rows: list[dict[str, object]] = []
    for claim in claims:
        found = [printed_gain(claim, category) for category in CATEGORIES]
        differences = [round(value, 6) for value in found if value is not None]  # 0.8 - 0.7 is not 0.1
        if differences:
            rows.append(
                {
                    "Claim": claim.name,
                    "Higher in": sum(d > 0 for d in differences),
                    "Equal in": differences.count(0),
                    "Lower in": sum(d < 0 for d in differences),
                    "Mean": signed(fmean(differences)),
                    "Wilcoxon's p": f"{wilcoxon(differences).pvalue:.2g}",
                }
            )
    caption = (
        "Printed scores of the categories, both sides from the claiming paper. The mean of the rows may "
        "differ by 0.001 from the difference of the printed means"
    )
    return to_html(plain(rows), caption)


def claims_html(results: Sequence[ClaimResult], caption: str) -> Markup:
    """Claim, reported gain, reproduced gain with interval, answer."""
    rows: list[dict[str, object]] = []
    for item in results:
        row: dict[str, object] = {
            "Claim": item.claim.name,
            "Reported, 15 categories": signed(item.reported_all),
            "Reported, these categories": signed(item.reported_here),
        }
        if not item.pairs:
            rows.append(row | {"Reproduced": NOT_RUN})
            continue
        pair = item.pairs[-1]
        rows.append(
            row
            | {
                "Reproduced": Html(
                    f"{signed(pair.difference)}<br><small>{interval(pair.low, pair.high)}</small>"
                ),
                "Categories, seeds": f"{len(item.pairs) - 1}, {pair.told_seeds}",
                "Answer": Html(f"{escape(pair.decision)}<br><small>{reservations(pair)}</small>"),
            }
        )
    return to_html(plain(rows), caption)


def reservations(pair: PairedDifference) -> str:
    """What keeps an answer from being final, in a word each; `sentences` spells the labels out."""
    few = ["provisional"] * pair.provisional
    return "; ".join(few + ["not the paper's setting"] * bool(pair.labels))


def sentences(results: Sequence[ClaimResult]) -> Markup:
    """The same in plain language, one list item per claim; those without a run share one."""
    lines = [f"- {_sentence(item)}" for item in results if item.pairs]
    missing = [f"{f.claim.name} ({signed(f.reported_all)} printed)" for f in results if not f.pairs]
    return Text("\n".join(lines + ([f"- **Not run**: {', '.join(missing)}."] if missing else [])))


def _sentence(item: ClaimResult) -> str:
    told = f"the paper prints {signed(item.reported_all)}"
    pair = item.pairs[-1]
    where = ", ".join(p.category for p in item.pairs[:-1])
    if item.reported_here is not None:
        told += f" ({signed(item.reported_here)} on the categories run here)"
    few = f" Rests on {len(pair.seeds)} seeds." if pair.provisional else ""
    if len(pair.seeds) == 1:
        alone = sum(len(p.seeds) == 1 for p in item.pairs[:-1])
        few = f" {alone} of {len(item.pairs) - 1} categories have one seed, without chance in the training."
    labels = f" Not the paper's setting: {'; '.join(pair.labels)}." if pair.labels else ""
    return (
        f"**{item.claim.name}**: {told}. Measured on {where}: {signed(pair.difference)}, "
        f"95 % interval {interval(pair.low, pair.high)}: **{pair.decision}**.{few}{labels}"
    )
