"""Does one method beat another on the same images and seeds? Paired differences.

An interval is Student's, around the difference that was measured. Its variance has two sources: chance in the
test images, from the paired bootstrap replicates, and chance in the training, from the differences of the
seeds. Their degrees of freedom are joined by Satterthwaite's rule. Replicates give a variance and no
percentile, so the few hundred in a record are enough: what they leave unsure is in the degrees of freedom.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from statistics import fmean, variance
from typing import Any, Literal

import numpy as np
import pandas as pd

from stlib.protocol import CATEGORIES, SEEDS_FOR_A_VERDICT, Metric
from stlib.records.schema import Record
from study.analysis.comparison import RunGroup
from study.analysis.inference import ALPHA, Part, holm, interval, p_value, satterthwaite

Decision = Literal["gain", "loss", "inconclusive", "not as claimed", "too few seeds"]

UNLIKE = (
    "the sides trained in different precisions",
    "the sides had different teachers' files",
    "the sides ran on a CPU and a GPU",
)
"""What `PairedDifference.labels` may say of a pair and not of a run."""
SEGMENTING = {"destseg", "pfadseg"}
"""Methods with a segmentation net. Another precision makes another training of it: bf16 moved PFADSeg's pixel
AP by .09 in a short run, and rounds the softmax and the sums of its blocks on a CPU, not on a GPU
(`protocol.Precision`)."""


Couple = tuple[Record, Record]
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
    """95 % interval of the difference; with one seed it leaves out chance in the training."""
    p_value: float
    """Of no difference; adjusted where `adjusted` was asked for it."""
    labels: tuple[str, ...] = ()
    """Labels of the runs on either side, and conditions in which the sides differ."""
    counts: tuple[int, ...] = ()
    """Of a mean: how many seeds each category has."""
    claim: float | None = None
    """The difference that a paper prints here."""

    @property
    def as_claimed(self) -> bool | None:
        """Whether the interval holds the printed difference; None where none is printed or seeds lack."""
        if self.claim is None or len(self.seeds) < SEEDS_FOR_A_VERDICT:
            return None
        return self.low <= self.claim <= self.high

    @property
    def decision(self) -> Decision:
        """Inconclusive: neither zero nor the claim, if there is one, can be ruled out."""
        if len(self.seeds) < SEEDS_FOR_A_VERDICT:
            return "too few seeds"
        if self.p_value < ALPHA:
            return "gain" if self.difference > 0 else "loss"
        return "not as claimed" if self.as_claimed is False and self.low <= 0 <= self.high else "inconclusive"


def pairs(
    records: Iterable[Record], first: RunGroup, second: RunGroup, metric: Metric
) -> list[PairedDifference]:
    """`compare` for the runs of two groups that `match_runs` brings together."""
    everything = list(records)
    return compare(match_runs(first.of(everything), second.of(everything), metric), metric)


def match_runs(
    first: Iterable[Record],
    second: Iterable[Record],
    metric: Metric | None = None,
    *,
    other_seed: bool = False,
    other_precision: bool = False,
) -> list[Couple]:
    """Every finished run of `first` with that of `second` on the same category and seed, in this order.

    Both saw the same images, and the same textures where both used some. Another precision is told
    (`PairedDifference.labels`), but between methods in `SEGMENTING` refused unless `other_precision`
    asks for it. Labels come along: both sides ran under the same conditions. With `metric`, only runs that
    have replicates of it; with `other_seed`, the seeds need not be equal. Of several runs in one place the
    last counts.
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
    return [(a, b) for a, b in couples if _same_data(a, b) and (other_precision or _rounded_alike(a, b))]


def compare(couples: Iterable[Couple], metric: Metric) -> list[PairedDifference]:
    """Second minus first of runs that belong together, by category, and the mean over the categories last.

    Empty where there is no couple.
    """
    by_category: dict[str, list[Couple]] = {}
    for a, b in couples:
        by_category.setdefault(a.category, []).append((a, b))
    names = [*CATEGORIES, *sorted(by_category.keys() - set(CATEGORIES))]
    groups = [by_category[name] for name in names if name in by_category]
    found = [_pair(group, metric) for group in groups]
    return [*found, _mean(found, groups, metric)] if found else []


def adjusted(found: Sequence[PairedDifference]) -> list[PairedDifference]:
    """One family of claims: the p values of those with enough seeds, adjusted for their number (Holm)."""
    tested = [pair for pair in found if len(pair.seeds) >= SEEDS_FOR_A_VERDICT]
    values = iter(holm([pair.p_value for pair in tested]))
    return [replace(pair, p_value=next(values)) if pair in tested else pair for pair in found]


def frame(found: Mapping[str, Sequence[PairedDifference]]) -> pd.DataFrame:
    """A row per comparison and category, the mean last; comparisons without pairs are left out.

    Columns: `name` and those of `row_of`. `attrs` holds the `labels` of all runs.
    """
    return labelled(
        [
            {"name": name} | row_of(pair)
            for name, group in found.items()
            for pair in (group if len(group) > 2 else group[:1])  # with one category the mean repeats it
        ]
    )


def labelled(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of rows that each hold `row_of` a pair; `attrs` has the `labels` of them all."""
    table = pd.DataFrame(rows, dtype=object)
    table.attrs = {"labels": list(dict.fromkeys(label for row in rows for label in row["labels"]))}
    return table


def row_of(pair: PairedDifference) -> dict[str, object]:
    """The fields of a pair with what follows from them."""
    return vars(pair) | {"decision": pair.decision, "as_claimed": pair.as_claimed}


def _same_data(a: Record, b: Record) -> bool:
    textures = {run.textures.fingerprint for run in (a, b) if run.textures}
    return a.dataset.fingerprint == b.dataset.fingerprint and len(textures) < 2


def arithmetic(run: Record) -> tuple[str, str]:
    """Its precision, and for bf16 the kind of processor, as a CPU's is not a GPU's."""
    return run.precision, run.runtime.processor if run.precision == "bf16" else ""


def _rounded_alike(a: Record, b: Record) -> bool:
    """False for two precisions on two sides in `SEGMENTING`; for bf16 of a CPU and a GPU on one."""
    moved = {a.method, b.method} & SEGMENTING
    if a.precision != b.precision:
        return moved != {a.method, b.method}
    return not (moved and arithmetic(a) != arithmetic(b))


def _by_seed(group: Sequence[Couple], metric: Metric) -> dict[int, float]:
    return {a.seed: b.metrics[metric] - a.metrics[metric] for a, b in group}


def _of_images(group: Sequence[Couple], metric: Metric) -> Part:
    """Chance in the test images, which all seeds share."""
    draws = np.array([np.subtract(b.bootstrap[metric], a.bootstrap[metric]) for a, b in group]).mean(axis=0)
    return float(draws.var(ddof=1)), len(draws) - 1


def _of_seeds(differences: Iterable[float]) -> list[Part]:
    """Chance in the training; nothing can be said about it with one seed."""
    values = list(differences)
    return [(variance(values) / len(values), len(values) - 1)] if len(values) > 1 else []


def _pair(group: Sequence[Couple], metric: Metric) -> PairedDifference:
    first, second = (fmean(pair[side].metrics[metric] for pair in group) for side in (0, 1))
    differences = _by_seed(group, metric)
    chance = satterthwaite([_of_images(group, metric), *_of_seeds(differences.values())])
    labels = dict.fromkeys(label for pair in group for run in pair for label in run.labels())
    labels |= dict.fromkeys(told for a, b in group for told in _unlike(a, b))
    gain = second - first
    return PairedDifference(
        group[0][0].category,
        tuple(differences),
        first,
        second,
        gain,
        *interval(gain, chance),
        p_value=p_value(gain, chance),
        labels=tuple(labels),
    )


def _unlike(a: Record, b: Record) -> Iterator[str]:
    """Conditions that two runs do not share, beside their methods: some of UNLIKE."""
    differ = (
        a.precision != b.precision,
        a.teacher.source != b.teacher.source,
        a.runtime.processor != b.runtime.processor,
    )
    return compress(UNLIKE, differ)


def _mean(
    found: Sequence[PairedDifference], groups: Sequence[Sequence[Couple]], metric: Metric
) -> PairedDifference:
    first, second = (fmean(getattr(pair, side) for pair in found) for side in ("first", "second"))
    chance = satterthwaite(_chance_of_mean(groups, metric))
    gain = second - first
    return PairedDifference(
        f"mean of {len(found)}",
        min((pair.seeds for pair in found), key=len),
        first,
        second,
        gain,
        *interval(gain, chance),
        p_value=p_value(gain, chance),
        labels=tuple(dict.fromkeys(label for pair in found for label in pair.labels)),
        counts=tuple(len(pair.seeds) for pair in found),
    )


def _chance_of_mean(groups: Sequence[Sequence[Couple]], metric: Metric) -> list[Part]:
    """Of the mean over categories, whose images and trainings are independent.

    Not so where a seed has a teacher of its own: all categories share it, so their differences move together,
    and the means over the categories, of the seeds that all have, are what varies from seed to seed.
    """
    share = 1 / len(groups) ** 2
    images = [_of_images(group, metric) for group in groups]
    differences = [_by_seed(group, metric) for group in groups]
    common = [seed for seed in differences[0] if all(seed in one for one in differences)]
    teachers = [{c[side].teacher.pyramid_sha256 for g in groups for c in g} for side in (0, 1)]
    if len(common) > 1 and any(len(hashes) > 1 for hashes in teachers):
        seeds = _of_seeds(fmean(one[seed] for one in differences) for seed in common)
    else:
        seeds = [(value * share, free) for one in differences for value, free in _of_seeds(one.values())]
    return [*((value * share, freedom) for value, freedom in images), *seeds]
