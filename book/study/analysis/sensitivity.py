"""What one changed choice does to the scores, beside the gains that the papers claim.

The papers leave choices open. Some are read from the trained model again (another mask rule, the last
epoch): a record holds those scores, but no bootstrap replicates of them, so their spread is the range over
categories. Others need another training (a seed, a precision): their runs are paired with the study's own, as
in `study.analysis.paired`, and have an interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import pandas as pd

from stlib.protocol import CATEGORIES, METRICS, Metric
from stlib.records.schema import Record
from study.analysis.claims import claimed
from study.analysis.comparison import comparable
from study.analysis.paired import PairedDifference, compare, match_runs

REEVALUATED = {
    "maps=sum": "sum of the levels",
    "maps=distances": "student's distances alone",
    "score=top100": "score: mean of the 100 largest",
    "score=max": "score: largest pixel",
    "masks=80/255": "mask: at least 80 of 255",
    "checkpoint=last": "last epoch",
    "statistics=anew": "BatchNorm's statistics anew",
    "statistics=anew,checkpoint=last": "last epoch, statistics anew",
    "gamma=0": "RCM taken out",
}
"""Keys of `Record.sensitivity`, with the words shown to readers. 'test=' is no choice and not among them.
'masks=any' and 'masks=full' were, until 2026-11-26: on masks that were resized before they are not the rules
that they stand for."""

RETRAINED = ("precision=", "epochs=")
"""How the names of variants begin that change one choice of the training."""

GAINED: tuple[Metric, ...] = ("image_auroc", "pixel_auroc", "pixel_ap", "iap", "iap90")
"""The metrics in which a paper claims a gain."""


@dataclass(frozen=True)
class Effect:
    """The change of one metric when one choice is changed: changed minus as tested."""

    category: str
    """Or 'mean of K'."""
    change: float
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    """Of paired runs, whose 95 % interval `low` and `high` are; 0: smallest and largest category."""
    counts: tuple[int, ...] = ()
    """Of a mean, the seeds by category."""


Effects = dict[str, list[Effect]]
"""By choice: an effect per category and their mean; no effect where the choice was not run."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that may enter one mean: the method as published, and the variants that change one choice."""

    method: str
    runs: Sequence[Record]
    variants: Sequence[Record]

    @property
    def categories(self) -> list[str]:
        """Of the runs, in the papers' order."""
        return _in_order(dict.fromkeys(run.category for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return sorted({run.seed for run in self.runs})

    @property
    def labels(self) -> list[str]:
        """Of the runs, each once."""
        return list(dict.fromkeys(label for run in self.runs for label in run.labels()))


def group(records: Iterable[Record], method: str, *, labelled: bool = False) -> Group:
    """The finished runs of a method at the paper's schedule, either those without labels or those with."""
    finished = [r for r in records if (r.method, r.profile, r.status) == (method, "paper", "finished")]
    kept = [r for r in finished if r.labels()] if labelled else comparable(finished)
    variants = [r for r in kept if r.variant.startswith(RETRAINED)]
    return Group(method, [r for r in kept if not r.variant], variants)


@cache  # three parts of the chapter look at the same ones
def effects(chosen: Group, metric: Metric) -> Effects:
    """Every choice with its effects on `metric`: those read again, then seeds, then other trainings.

    Choices that cannot move the metric are left out; empty where no run has the metric.
    """
    if not any(metric in run.metrics for run in chosen.runs):
        return {}
    blind = "masks=" if metric.startswith("image") else "score="
    known = {key for run in chosen.runs for key in run.sensitivity}
    found = {
        words: _reevaluated(chosen.runs, key, metric)
        for key, words in REEVALUATED.items()
        if key in known and not key.startswith(blind)
    }
    again = other_seeds(chosen.runs, metric) | _retrained(chosen, metric)
    return found | {
        name: [Effect(p.category, p.difference, p.low, p.high, len(p.seeds), p.counts) for p in pairs]
        for name, pairs in again.items()
    }


def _reevaluated(runs: Sequence[Record], key: str, metric: Metric) -> list[Effect]:
    """Means over seeds by category, and the mean over categories with their range."""
    changes: dict[str, list[float]] = {}
    for run in runs:
        if metric in run.metrics and metric in run.sensitivity.get(key, {}):
            changes.setdefault(run.category, []).append(run.sensitivity[key][metric] - run.metrics[metric])
    found = [Effect(name, fmean(changes[name])) for name in _in_order(changes)]
    if not found:
        return []
    values = [effect.change for effect in found]
    low, high = (min(values), max(values)) if len(values) > 1 else (None, None)
    counts = tuple(map(len, changes.values()))
    return [*found, Effect(f"mean of {len(found)}", fmean(values), low, high, counts=counts)]


def other_seeds(runs: Sequence[Record], metric: Metric) -> dict[str, list[PairedDifference]]:
    """Every other seed minus the first, by the words for it: what chance in the training does alone."""
    seeds = sorted({run.seed for run in runs if run.bootstrap.get(metric)}) or [0]
    groups = {seed: [run for run in runs if run.seed == seed] for seed in seeds}
    first, *others = seeds
    return {
        f"seed {seed} instead of {first}": compare(
            match_runs(groups[first], groups[seed], metric, other_seed=True), metric
        )
        for seed in others
    }


def _retrained(chosen: Group, metric: Metric) -> dict[str, list[PairedDifference]]:
    """The runs with one choice changed minus the study's own of the same category and seed."""
    found = {}
    for name in sorted({run.variant for run in chosen.variants}):
        others = [run for run in chosen.variants if run.variant == name]
        couples = match_runs(chosen.runs, others, metric, other_precision=True)
        couples = [(a, b) for a, b in couples if (a.precision, a.config) != (b.precision, b.config)]
        found[f"trained with {name}"] = compare(couples, metric)
    return found


def _in_order(names: Mapping[str, object]) -> list[str]:
    return [*(name for name in CATEGORIES if name in names), *sorted(set(names) - set(CATEGORIES))]


def overview(chosen: Group) -> pd.DataFrame:
    """A row per gain claimed of the method, and below them one per choice; a column per metric: an `Effect`.

    Of a choice it is the mean effect, () where it was not run, None where it cannot move the metric. Runs
    with a label are compared with nothing, so no claim stands above theirs.
    """
    if not chosen.runs:
        return pd.DataFrame()
    claims = {metric: {} if chosen.labels else claimed(metric, chosen.method) for metric in GAINED}
    found = {metric: effects(chosen, metric) for metric in GAINED}
    rows = {
        f"claimed: {sides}": [Effect("", c[sides]) if sides in c else None for c in claims.values()]
        for sides in dict.fromkeys(name for some in claims.values() for name in some)
    } | {
        name: [(some[name][-1] if some[name] else ()) if name in some else None for some in found.values()]
        for name in choices(found.values())
    }
    columns = [METRICS[metric] for metric in GAINED]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    return frame.rename_axis("Choice").reset_index()


def by_category(chosen: Group, metric: Metric) -> pd.DataFrame:
    """The `Effect` in every category, a row per choice that was run; None: not there."""
    found = {name: group for name, group in effects(chosen, metric).items() if group}
    names = _in_order(dict.fromkeys(effect.category for group in found.values() for effect in group[:-1]))
    rows = []
    for choice, group in found.items():
        cells = {effect.category: effect for effect in group}
        rows.append({"Choice": choice} | {name: cells.get(name) for name in names})
    return pd.DataFrame(rows, dtype=object)


def choices(columns: Iterable[Effects]) -> list[str]:
    """All choices in the order of `effects`; a metric leaves out what cannot move it."""
    known = dict.fromkeys(name for found in columns for name in found)
    words = list(REEVALUATED.values())
    return sorted(known, key=lambda name: words.index(name) if name in words else len(words))


@dataclass(frozen=True)
class AgainstClaim:
    """How far every choice moves the score in which a gain is claimed."""

    sides: str
    metric: Metric
    gain: float
    sizes: Mapping[str, float]
    """By choice: the mean over categories of the change without its sign; what helps one may harm another."""

    @property
    def large(self) -> list[str]:
        """The choices that alone move the score as far."""
        return [name for name, size in self.sizes.items() if size >= abs(self.gain)]


def against_claims(chosen: Group) -> list[AgainstClaim]:
    """Every gain claimed of the method, or over it, beside the choices that were run."""
    found = []
    for metric in GAINED:
        known = {name: group[:-1] for name, group in effects(chosen, metric).items() if group}
        sizes = {name: fmean(abs(effect.change) for effect in group) for name, group in known.items()}
        gains = claimed(metric, chosen.method)
        found += [AgainstClaim(sides, metric, gain, sizes) for sides, gain in gains.items()]
    return found


def readings(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """Every finished run on a line of its own: as tested, and the same networks' maps read in other ways.

    Columns: `run`, the record; `as tested`, and one per other map.
    """
    rows = [
        {"run": r, "as tested": r.metrics[metric]}
        | {REEVALUATED.get(k, k): v[metric] for k, v in r.sensitivity.items() if k.startswith("maps=")}
        for r in records
        if metric in r.metrics
    ]
    return pd.DataFrame(rows)
