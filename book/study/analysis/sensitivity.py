"""What one changed choice does to the scores, beside the gains that the papers claim. Imports no torch.

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

from stlib.protocol import CATEGORIES, METRICS, Metric, Profile
from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Summary
from study.analysis.claims import claimed
from study.analysis.comparison import comparable
from study.analysis.paired import compare
from study.tables import NOT_RUN, Html, Markup, Text, interval, plain, signed, to_html

REEVALUATED = {
    "maps=sum": "sum of the levels",
    "maps=distances": "student's distances alone",
    "score=top100": "score: mean of the 100 largest",
    "score=max": "score: largest pixel",
    "masks=any": "mask: any non-zero",
    "masks=full": "mask: only full",
    "checkpoint=last": "last epoch",
}
"""Keys of `Record.sensitivity`, with the words shown to readers. 'test=' is no choice and not among them."""

RETRAINED = {"precision=": "training in another precision"}
"""Beginnings of the variants that change one choice of the training, with the words for 'not run'."""

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
    paired: bool = False
    """True: `low` and `high` are the 95 % interval of paired runs. False: smallest and largest category."""

    @property
    def spread(self) -> str:
        """`low` and `high` in words."""
        if self.low is None or self.high is None:
            return ""
        return ("95 %: " if self.paired else "range: ") + interval(self.low, self.high)


Effects = dict[str, list[Effect]]
"""By choice: an effect per category and their mean; no effect where the choice was not run."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that may enter one mean: the method as published, and the variants that change one choice."""

    method: str
    runs: Sequence[Summary]
    variants: Sequence[Summary]


def group(
    records: Iterable[Summary], method: str, *, profile: Profile = "paper", labelled: bool = False
) -> Group:
    """The finished runs of a method under one profile, either those without labels or those with."""
    finished = [r for r in records if (r.method, r.profile, r.status) == (method, profile, "finished")]
    kept = [r for r in finished if r.labels()] if labelled else comparable(finished)
    variants = [r for r in kept if r.variant.startswith(tuple(RETRAINED))]
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
    return found | _seeds(chosen.runs, metric) | retrained(chosen, metric)


def _reevaluated(runs: Sequence[Summary], key: str, metric: Metric) -> list[Effect]:
    """Means over seeds by category, and the mean over categories with their range."""
    changes: dict[str, list[float]] = {}
    for run in runs:
        if metric in run.metrics and metric in run.sensitivity.get(key, {}):
            changes.setdefault(run.category, []).append(run.sensitivity[key][metric] - run.metrics[metric])
    found = [Effect(name, fmean(changes[name])) for name in _in_order(changes)]
    if not found:
        return []
    values = [effect.change for effect in found]
    bounds = (min(values), max(values)) if len(values) > 1 else (None, None)
    return [*found, Effect(f"mean of {len(found)}", fmean(values), *bounds)]


def seed_couples(runs: Iterable[Summary], metric: Metric) -> dict[str, list[tuple[Summary, Summary]]]:
    """The first seed's runs, each with that of another seed, by the words for it: what chance alone does."""
    own = {(run.category, run.seed): run for run in runs if run.bootstrap.get(metric)}
    first, *others = sorted({seed for _, seed in own}) or [0]
    places = [name for name, seed in own if seed == first]
    return {
        f"seed {other} instead of {first}": [
            (own[c, first], own[c, other]) for c in places if (c, other) in own
        ]
        for other in others
    }


def _seeds(runs: Sequence[Summary], metric: Metric) -> Effects:
    found = {name: _paired(couples, metric) for name, couples in seed_couples(runs, metric).items()}
    return found or {"another seed": []}


def retrained(chosen: Group, metric: Metric) -> Effects:
    """The study's own runs, each paired with the variant's run of the same category and seed."""
    own = {(run.category, run.seed): run for run in chosen.runs if run.bootstrap.get(metric)}
    found: Effects = {}
    for prefix, words in RETRAINED.items():
        names = sorted({run.variant for run in chosen.variants if run.variant.startswith(prefix)})
        for name in names:
            others = [r for r in chosen.variants if r.variant == name and r.bootstrap.get(metric)]
            couples = [(own[r.category, r.seed], r) for r in others if (r.category, r.seed) in own]
            couples = [(a, b) for a, b in couples if prefix != "precision=" or a.precision != b.precision]
            found[f"trained with {name}"] = _paired(couples, metric)
        if not names:
            found[words] = []
    return found


def _paired(couples: Iterable[tuple[Summary, Summary]], metric: Metric) -> list[Effect]:
    found = compare(couples, metric)
    return [Effect(p.category, p.difference, p.low, p.high, paired=True) for p in found]


def _in_order(names: Mapping[str, object]) -> list[str]:
    return [*(name for name in CATEGORIES if name in names), *sorted(set(names) - set(CATEGORIES))]


def overview_html(chosen: Group, metrics: Sequence[Metric] = GAINED) -> Markup:
    """The claimed gains, and below them the mean effect of every choice, a column per metric.

    Runs with a label are compared with nothing, so no claim stands above theirs.
    """
    if not chosen.runs:
        return Text(f"{METHOD_NAMES[chosen.method]}: {NOT_RUN}")
    columns = {metric: effects(chosen, metric) for metric in metrics}
    labelled = any(run.labels() for run in chosen.runs)
    claims = {metric: {} if labelled else claimed(metric) for metric in metrics}
    rows = [
        {"Choice": f"claimed: {sides}"} | {METRICS[m]: signed(claims[m].get(sides)) for m in metrics}
        for sides in dict.fromkeys(name for found in claims.values() for name in found)
    ]
    rows += [
        {"Choice": name} | {METRICS[m]: _mean_cell(columns[m], name) for m in metrics}
        for name in choices(columns.values())
    ]
    return to_html(
        plain([dict[str, object](row) for row in rows]),
        f"{'Mean' if labelled else 'Claimed gains and mean'} effects. {_made(chosen)}",
    )


def choices(columns: Iterable[Effects]) -> list[str]:
    """All choices in the order of `effects`; a metric leaves out what cannot move it."""
    known = dict.fromkeys(name for found in columns for name in found)
    words = list(REEVALUATED.values())
    return sorted(known, key=lambda name: words.index(name) if name in words else len(words))


def _mean_cell(found: Effects, name: str) -> Markup | str:
    if name not in found:
        return "-"
    if not found[name]:
        return NOT_RUN
    mean = found[name][-1]
    words = (mean.category, mean.spread)
    return Html(f"{signed(mean.change)}<br><small>{'; '.join(filter(None, words))}</small>")


def _made(chosen: Group) -> str:
    """What stands behind a table: method, categories, seeds and labels."""
    names = _in_order(dict.fromkeys(run.category for run in chosen.runs))
    seeds = ", ".join(map(str, sorted({run.seed for run in chosen.runs})))
    labels = dict.fromkeys(label for run in chosen.runs for label in run.labels())
    text = f"{METHOD_NAMES[chosen.method]} on {', '.join(names)}; seeds {seeds}"
    return text + (f"; not comparable: {'; '.join(labels)}" if labels else "")


def by_category_html(chosen: Group, metric: Metric) -> Markup:
    """The effect of every choice that was run, a row per category and one for the mean."""
    found = {name: group for name, group in effects(chosen, metric).items() if group}
    caption = f"{METRICS[metric]}, change per category. {_made(chosen)}"
    rows = dict.fromkeys(effect.category for group in found.values() for effect in group[:-1])
    if not rows:
        return Text(f"{METHOD_NAMES[chosen.method]}, {METRICS[metric]}: {NOT_RUN}")
    cells = {
        name: {effect.category: signed(effect.change) for effect in group} for name, group in found.items()
    }
    columns: dict[str, object] = {"Category": [*_in_order(rows), "mean"]}
    for name in found:
        columns[name] = [cells[name].get(row, "-") for row in _in_order(rows)] + [_mean_cell(found, name)]
    return to_html(plain(columns), caption)


def against_claims(chosen: Group, metrics: Sequence[Metric] = GAINED) -> Text:
    """Per claimed gain the choices that alone move the score as far; one list item each.

    How far is the mean over categories of the change without its sign: what helps one may harm another.
    """
    lines = []
    for metric in metrics:
        known = {name: found[:-1] for name, found in effects(chosen, metric).items() if found}
        sizes = {name: fmean(abs(effect.change) for effect in found) for name, found in known.items()}
        most = {name: max(found, key=lambda effect: abs(effect.change)) for name, found in known.items()}
        for sides, gain in claimed(metric).items():
            large = [
                f"{name} ({size:.3f}; {most[name].category} {signed(most[name].change)})"
                for name, size in sizes.items()
                if size >= abs(gain)
            ]
            told = f"{', '.join(large)}: {len(large)} of {len(sizes)}" if large else f"none of {len(sizes)}"
            lines.append(
                f"- **{sides}, {METRICS[metric]}, {signed(gain)} claimed.** As large or larger: {told}."
            )
    return Text("\n".join(lines))


def readings(records: Iterable[Summary], metric: Metric) -> pd.DataFrame:
    """Every finished run on a line of its own: as tested, and the same networks' maps read in other ways."""
    rows = {
        f"{r.variant or 'as published'}, {r.category}, seed {r.seed}": {
            "as tested": r.metrics[metric],
            **{REEVALUATED.get(k, k): v[metric] for k, v in r.sensitivity.items() if k.startswith("maps=")},
        }
        for r in records
        if metric in r.metrics
    }
    return pd.DataFrame.from_dict(rows, orient="index")
