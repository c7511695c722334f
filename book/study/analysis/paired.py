"""Does one method beat another on the same images and seeds? Paired differences. Imports no torch.

The rule was fixed before the first pair of runs was finished: a gain counts when its interval lies above
zero, a loss when it lies below, and otherwise nothing can be told apart. The interval covers chance in the
test images (paired bootstrap replicates) and, from two seeds on, in the training (seeds are drawn again in
every replicate). Made stricter since, twice: one seed is no gain and no loss, because it leaves out chance in
the training (`sensitivity.seed_couples` shows it), and the part of few seeds is widened (`_replicates`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student_t

from stlib.protocol import CATEGORIES, SEEDS_FOR_A_VERDICT, Metric, Profile
from stlib.records.schema import Summary
from study.analysis.comparison import INTERVAL, select

Decision = Literal["gain", "loss", "higher on one seed", "lower on one seed", "no difference to be seen"]

ROUNDED_BY_DEVICE = {"destseg", "pfadseg"}
"""Methods with blocks whose softmax and sums bf16 rounds on a CPU and not on a GPU (`protocol.Precision`)."""


@dataclass(frozen=True)
class RunGroup:
    """Which runs: a method, one of its variants, and a profile."""

    method: str
    variant: str = ""
    profile: Profile = "paper"

    def of(self, records: Iterable[Summary]) -> list[Summary]:
        """Its runs, failed ones included."""
        return select(records, self.method, profile=self.profile, variant=self.variant)


Couple = tuple[Summary, Summary]
"""Two runs that differ in one thing."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two methods in one metric: second minus first."""

    category: str
    """Or 'mean of K'."""
    seeds: tuple[int, ...]
    """Seeds that both have; of a mean those of the category with the fewest."""
    first: float
    second: float
    difference: float
    low: float
    high: float
    """95 % interval of the difference."""
    labels: tuple[str, ...] = ()
    """Labels of the runs on either side, and conditions in which the sides differ."""
    counts: tuple[int, ...] = ()
    """Of a mean: how many seeds each category has."""

    @property
    def decision(self) -> Decision:
        """The rule above, applied to the interval."""
        if self.low <= 0 <= self.high:
            return "no difference to be seen"
        if len(self.seeds) == 1:
            return "higher on one seed" if self.low > 0 else "lower on one seed"
        return "gain" if self.low > 0 else "loss"

    @property
    def provisional(self) -> bool:
        """True when fewer seeds stand behind it than a verdict needs."""
        return len(self.seeds) < SEEDS_FOR_A_VERDICT


def pairs(
    records: Iterable[Summary], first: RunGroup, second: RunGroup, metric: Metric
) -> list[PairedDifference]:
    """`compare` for the runs of two groups that `match_runs` brings together."""
    everything = list(records)
    return compare(match_runs(first.of(everything), second.of(everything), metric), metric)


def match_runs(
    first: Iterable[Summary],
    second: Iterable[Summary],
    metric: Metric | None = None,
    *,
    other_seed: bool = False,
) -> list[Couple]:
    """Every finished run of `first` with that of `second` on the same category and seed, in this order.

    Both saw the same images, the same textures where both used some, in one arithmetic; another precision is
    told (`PairedDifference.labels`), one that means two things is refused. Labels come along: both sides ran
    under the same conditions. With `metric`, only runs that have replicates of it; with `other_seed`, the
    seeds need not be equal. Of several runs in one place the last counts.
    """
    sides = [
        {
            (r.category, 0 if other_seed else r.seed): r
            for r in runs
            if r.status == "finished" and (metric is None or r.bootstrap.get(metric))
        }
        for runs in (first, second)
    ]
    couples = [(sides[0][place], sides[1][place]) for place in sorted(sides[0].keys() & sides[1].keys())]
    return [couple for couple in couples if _alike(*couple)]


def compare(couples: Iterable[Couple], metric: Metric) -> list[PairedDifference]:
    """Second minus first of runs that belong together, by category, and the mean over the categories last.

    Empty where there is no couple.
    """
    by_category: dict[str, list[Couple]] = {}
    for a, b in couples:
        by_category.setdefault(a.category, []).append((a, b))
    if not by_category:
        return []
    names = [*CATEGORIES, *sorted(by_category.keys() - set(CATEGORIES))]
    groups = [by_category[name] for name in names if name in by_category]
    draws = np.array([_replicates(group, metric) for group in groups])
    bounds = np.percentile(draws, INTERVAL, axis=1).T.tolist()
    found = [_pair(group, metric, low, high) for group, (low, high) in zip(groups, bounds, strict=True)]
    return [*found, _mean(found, draws.mean(axis=0))]


def frame(found: Mapping[str, Sequence[PairedDifference]]) -> pd.DataFrame:
    """A row per comparison and category, the mean last; one without values for a comparison without pairs.

    Columns: `name` and the fields of `PairedDifference` with its `decision` and `provisional`. `attrs` holds
    the `labels` of all runs. Empty where nothing was run.
    """
    rows: list[dict[str, object]] = []
    labels: dict[str, None] = {}
    for name, group in found.items() if any(found.values()) else ():
        # with one category the mean repeats it
        for pair in group if len(group) > 2 else group[:1]:
            labels |= dict.fromkeys(pair.labels)
            rows.append({"name": name} | row_of(pair))
        if not group:
            rows.append({"name": name})
    table = pd.DataFrame(rows, dtype=object)
    table.attrs = {"labels": list(labels)}
    return table


def behind(found: Mapping[str, Sequence[PairedDifference]]) -> tuple[set[int], set[int], bool]:
    """How many categories and how many seeds stand behind comparisons, and whether a run has a label."""
    each = [group[:-1] for group in found.values() if group]
    pairs_of_all = [pair for group in each for pair in group]
    seeds = {len(pair.seeds) for pair in pairs_of_all}
    return {len(group) for group in each}, seeds, any(pair.labels for pair in pairs_of_all)


def row_of(pair: PairedDifference) -> dict[str, object]:
    """The fields of a pair with what follows from them."""
    return vars(pair) | {"decision": pair.decision, "provisional": pair.provisional}


def _alike(a: Summary, b: Summary) -> bool:
    textures = {run.textures.fingerprint for run in (a, b) if run.textures}
    return a.dataset.fingerprint == b.dataset.fingerprint and len(textures) < 2 and _rounded_alike(a, b)


def _rounded_alike(a: Summary, b: Summary) -> bool:
    """False for bf16 on a CPU and on a GPU, in the methods where that is other arithmetic."""
    two_meanings = a.precision == b.precision == "bf16" and a.runtime.processor != b.runtime.processor
    return not (two_meanings and {a.method, b.method} & ROUNDED_BY_DEVICE)


def _replicates(matched: Sequence[Couple], metric: Metric) -> NDArray[np.float64]:
    """(R,) differences of the mean over seeds, for test images and seeds drawn with replacement.

    The seeds' part is widened to what their number can tell.
    """
    differences = np.array([np.subtract(b.bootstrap[metric], a.bootstrap[metric]) for a, b in matched])
    seeds, count = differences.shape
    mean = np.asarray(differences.mean(axis=0))
    if seeds == 1:
        return mean
    drawn = np.random.default_rng(0).integers(seeds, size=(seeds, count))
    resampled = np.take_along_axis(differences, drawn, axis=0).mean(axis=0)
    # Two or three seeds drawn again spread too little: Bessel's correction, and Student's t for the normal.
    wider = np.sqrt(seeds / (seeds - 1)) * student_t.ppf(0.975, seeds - 1) / norm.ppf(0.975)
    return np.asarray(mean + wider * (resampled - mean))


def _pair(matched: Sequence[Couple], metric: Metric, low: float, high: float) -> PairedDifference:
    first = fmean(a.metrics[metric] for a, _ in matched)
    second = fmean(b.metrics[metric] for _, b in matched)
    labels = dict.fromkeys(label for pair in matched for run in pair for label in run.labels())
    labels |= dict.fromkeys(told for a, b in matched for told in _unlike(a, b))
    seeds = tuple(a.seed for a, _ in matched)
    return PairedDifference(
        matched[0][0].category, seeds, first, second, second - first, low, high, tuple(labels)
    )


def _unlike(a: Summary, b: Summary) -> Iterator[str]:
    """Conditions that two runs do not share, beside their methods."""
    if a.precision != b.precision:
        yield "the sides trained in different precisions"
    if a.teacher.source != b.teacher.source:
        yield "the sides had different teachers' files"
    if a.runtime.processor != b.runtime.processor:
        yield "the sides ran on a CPU and a GPU"


def _mean(found: Sequence[PairedDifference], replicates: NDArray[np.float64]) -> PairedDifference:
    first, second = (float(np.mean([getattr(p, side) for p in found])) for side in ("first", "second"))
    low, high = np.percentile(replicates, INTERVAL)
    fewest = min((p.seeds for p in found), key=len)
    labels = tuple(dict.fromkeys(label for p in found for label in p.labels))
    name = f"mean of {len(found)}"
    counts = tuple(len(p.seeds) for p in found)
    return PairedDifference(
        name, fewest, first, second, second - first, float(low), float(high), labels, counts
    )
