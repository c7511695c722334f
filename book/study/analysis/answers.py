"""The first page's answers: every headline claim, what was found here, its status."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from stlib.protocol import Metric
from stlib.records.schema import Record
from study.analysis.claims import CLAIMS, PRINTED_CLAIMS, Claim, ClaimResult, printed_wins, with_claim
from study.analysis.comparison import OUTSIDE, RunGroup, comparison
from study.analysis.paired import PairedDifference, adjusted, compare, match_runs, pairs
from study.analysis.reported import reported
from study.analysis.schedules import LONG, TUNED_LONG
from study.analysis.status import Status, of_gain, of_score
from study.analysis.teacher_epochs import epochs_group, one_teacher, tested_epochs, untuned

LEVELS: tuple[tuple[str, Metric], ...] = (
    ("stpm", "image_auroc"),
    ("stpm", "pixel_auroc"),
    ("destseg", "pixel_ap"),
    ("destseg", "iap"),
    ("pfadseg", "pixel_ap"),
    ("pfadseg", "iap"),
)
"""Scores that are answers; what ET-STPM claims is a gain."""
GAINS = CLAIMS[:5]
"""ET-STPM over STPM, and PFADSeg over DeSTSeg but for IAP@90."""
PRINTED_ROWS = tuple(
    claim for claim in PRINTED_CLAIMS if (claim.first, claim.metric) == ("destseg", "pixel_ap")
)
"""PFADSeg's text speaks of improvements across most categories: counted by the rows of the papers' tables."""


@dataclass(frozen=True)
class Answer:
    """A claim; scores and differences are fractions, None where there is nothing to show."""

    kind: Literal["level", "gain", "rows"]
    """A score that is reached, a gain over `rival`, or a gain by the rows of printed tables."""
    method: str
    metric: Metric
    status: Status = ""
    rival: str = ""
    baseline: str = ""
    """The variant of `method` that stands for `rival` in the runs."""
    printed_all: float | None = None
    """Over 15 categories."""
    printed: float | None = None
    """Over the categories that were run."""
    here: float | None = None
    low: float | None = None
    high: float | None = None
    """Of a score, where one more run has to be expected; of a gain, its 95 % interval."""
    difference: float | None = None
    tolerance: float | None = None
    """Of a score: reproduced minus printed, and how much of it counts as agreement."""
    last: float | None = None
    last_extreme: tuple[str, float] = ("", 0.0)
    """ET-STPM's gain at the last epoch, and the category where it is farthest from zero."""
    categories: int = 0
    counts: tuple[int, ...] = ()
    """The number of seeds by category."""
    one_teacher: bool = False
    """All seeds share the fine-tuned teacher of seed 0."""
    labels: tuple[str, ...] = ()
    quoted: str = ""
    """The paper that prints the score or the rival's rows, where that is not the method's own."""
    higher: int = 0
    lower: int = 0
    """In how many categories the printed rows show a gain or a loss."""
    farthest: tuple[str, float] | None = None
    """The category whose score lies farthest outside the tolerance, with its distance to the printed one."""
    longer: float | None = None
    """The difference of STPM after the 200 epochs of its authors' command, on the same categories."""
    longer_seeds: tuple[int, ...] = ()
    """The number of seeds by category behind that difference."""
    long_gain: float | None = None
    long_seeds: tuple[int, ...] = ()
    """ET-STPM's gain where both sides train for 200 epochs, and the number of seeds by category."""

    @property
    def seeds(self) -> int:
        """The fewest of a category: what a status rests on."""
        return min(self.counts, default=0)


def answers(records: Sequence[Record]) -> list[Answer]:
    """Every headline claim, in the order of the papers."""
    gains = [_gain(item, records) for item in gains_found(records) if item.claim in GAINS]
    levels = [_level(records, *one) for one in LEVELS]
    told = printed_wins(PRINTED_ROWS).to_dict("records")
    rows = [_rows(claim, one) for claim, one in zip(PRINTED_ROWS, told, strict=True)]
    return [*levels[:2], *gains, *rows, *levels[2:]]


def of_method(answers: Iterable[Answer], method: str) -> list[Answer]:
    """The scores and gains among the answers that are of a method. Raises ValueError where none ever is."""
    own = [answer for answer in answers if answer.method == method and answer.kind != "rows"]
    if not own:  # with runs or without: an answer that waits for runs would be here
        raise ValueError(f"no score of '{method}' is an answer: add it to LEVELS in {Path(__file__).name}")
    return own


def gains_found(records: Sequence[Record]) -> list[ClaimResult]:
    """Every claim with the runs that bear on it; those of one paper are a family (`paired.adjusted`)."""
    results = [with_claim(claim, _pairs_of(claim, records)) for claim in CLAIMS]
    for paper in dict.fromkeys(item.claim.second for item in results):
        family = [item for item in results if item.pairs and item.claim.second == paper]
        for item, mean in zip(family, adjusted([item.pairs[-1] for item in family]), strict=True):
            item.pairs[-1] = mean
    return results


def _pairs_of(claim: Claim, records: Sequence[Record]) -> list[PairedDifference]:
    """Of ET-STPM those with the teachers that give more."""
    if claim.second != "et_stpm":
        return pairs(records, *claim.groups, claim.metric)
    tuned = more_seeds(records, claim.metric)
    return compare(match_runs(untuned(records, "paper"), tuned, claim.metric), claim.metric)


def more_seeds(records: Sequence[Record], metric: Metric) -> list[Record]:
    """ET-STPM's runs with a teacher for every seed, or with one for all, whichever gives more pairs."""
    own, shared = epochs_group(2).of(records), one_teacher(records)
    first_side = untuned(records, "paper")
    return max(own, shared, key=lambda runs: len(match_runs(first_side, runs, metric)))


def _level(records: Sequence[Record], method: str, metric: Metric) -> Answer:
    runs = [r for r in RunGroup(method).of(records) if r.status == "finished"]
    *rows, mean = comparison(runs, method, metric)
    printed = reported(method, metric)
    compared = [row for row in rows if row.difference is not None]
    held = [row.category for row in compared]
    works = [found.paper for found in (reported(method, metric, name) for name in held) if found]
    twice = RunGroup(method, "epochs=200").of(records)
    long = comparison(twice, method, metric, variant="epochs=200")
    alike = [row.category for row in long[:-1] if row.difference is not None] == held != []
    outside = [(row.category, row.difference) for row in rows if row.difference and row.verdict in OUTSIDE]
    status = of_score(mean.verdict)
    return Answer(
        "level",
        method,
        metric,
        status or ("open" if runs else ""),
        printed_all=printed.number if printed else None,
        printed=mean.reported_number,
        quoted=next((paper for paper in works if paper != method), ""),
        here=mean.reproduced,
        low=mean.low,
        high=mean.high,
        difference=mean.difference,
        tolerance=mean.tolerance,
        categories=len(held),
        counts=tuple(row.seeds for row in compared),
        labels=() if compared else tuple(dict.fromkeys(label for run in runs for label in run.labels())),
        farthest=max(outside, key=lambda place: abs(place[1]), default=None),
        longer=long[-1].difference if alike else None,
        longer_seeds=tuple(row.seeds for row in long[:-1] if row.difference is not None) if alike else (),
    )


def _gain(item: ClaimResult, records: Sequence[Record]) -> Answer:
    claim = item.claim
    if not item.pairs:
        return Answer(
            "gain", claim.second, claim.metric, rival=claim.first, baseline=claim.baseline,
            printed_all=item.reported_all,
        )  # fmt: skip
    *each, mean = item.pairs
    of_teacher = claim.second == "et_stpm"
    runs = more_seeds(records, claim.metric) if of_teacher else []
    tested = tested_epochs(records, runs, claim.metric) if of_teacher else None
    last: Mapping[Hashable, Any] = {} if tested is None else tested.iloc[-1].to_dict()
    long = pairs(records, LONG, TUNED_LONG, claim.metric) if of_teacher else []
    return Answer(
        "gain",
        claim.second,
        claim.metric,
        of_gain(mean.decision, labelled=bool(mean.labels)),
        claim.first,
        claim.baseline,
        item.reported_all,
        item.reported_here,
        mean.difference,
        mean.low,
        mean.high,
        last=last.get("last"),
        last_extreme=_extreme(tested),
        categories=len(each),
        counts=mean.counts,
        one_teacher=any("teacher=0" in r.variant for r in runs),
        labels=mean.labels,
        long_gain=long[-1].difference if long else None,
        long_seeds=tuple(len(pair.seeds) for pair in long[:-1]),
    )


def _extreme(tested: pd.DataFrame | None) -> tuple[str, float]:
    """The category whose gain at the last epoch is farthest from zero."""
    if tested is None or not len(tested):
        return "", 0.0
    *each, _ = zip(tested["category"], tested["last"].astype(float), strict=True)
    return max(each, key=lambda place: abs(place[1]))


def _rows(claim: Claim, told: Mapping[Hashable, Any]) -> Answer:
    """Counts without a status: no rule says how many of the categories prove what."""
    return Answer(
        "rows",
        claim.second,
        claim.metric,
        rival=claim.first,
        quoted=claim.printed_by,
        higher=int(told["higher"]),
        lower=int(told["lower"]),
    )
