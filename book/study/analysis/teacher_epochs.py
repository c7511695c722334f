"""ET-STPM against the number of fine-tuning epochs, and the leakage question."""

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd

from stlib.protocol import TUNING_EPOCHS, Metric, Profile
from stlib.records.schema import Record
from study.analysis.claims import CLAIMS, with_claim
from study.analysis.comparison import RunGroup
from study.analysis.paired import Couple, PairedDifference, adjusted, compare, match_runs, row_of
from study.analysis.runs import JUMP, last_epochs
from study.plan.grid import tuned_variant

READINGS = {
    "checkpoint=last": "last",
    "statistics=anew": "chosen_anew",
    "statistics=anew,checkpoint=last": "last_anew",
}
"""Keys of `Record.sensitivity`, with the names of columns in `with_statistics_anew`."""


def epochs_group(epochs: int, rest: str = "", profile: Profile = "paper") -> RunGroup:
    """The runs with `epochs` full epochs and another deviation, such as 'data=B'."""
    return RunGroup("et_stpm", tuned_variant(epochs, rest), profile)


def untuned(records: Sequence[Record], profile: Profile) -> list[Record]:
    """The runs without fine-tuning: ET-STPM's with 0 epochs, and their equals, STPM's, which count before."""
    return [*epochs_group(0, "", profile).of(records), *RunGroup("stpm", "", profile).of(records)]


def one_teacher(records: Iterable[Record], rest: str = "") -> list[Record]:
    """The runs whose teacher is that of seed 0, whatever their own seed: chance in the student alone.

    `rest` is another deviation, such as 'data=B'.
    """
    everything = list(records)
    first = [r for r in epochs_group(2, rest).of(everything) if r.seed == 0]
    shared = ",".join(filter(None, (rest, "teacher=0")))
    return [*first, *epochs_group(2, shared).of(everything)]


def tested_epochs(records: Sequence[Record], tuned: Sequence[Record], metric: Metric) -> pd.DataFrame:
    """ET-STPM minus STPM at the chosen epoch and at the last: a row per category, the mean last.

    Columns: those of `paired.row_of`, with the printed difference as `claim`; `last`, the mean difference at
    the last epoch, and `last_by_seed`; the mean's are of the categories' means, and of the seeds that all of
    them have. The mean is tested together with the paper's other claims (`adjusted`). Records hold no
    replicates of the last epoch, so it has no interval.
    """
    first = untuned(records, "paper")
    pairs = {
        claim.metric: with_claim(claim, compare(match_runs(first, tuned, claim.metric), claim.metric)).pairs
        for claim in CLAIMS
        if claim.second == "et_stpm"
    }
    measured = [name for name, group in pairs.items() if group]
    means = dict(zip(measured, adjusted([pairs[name][-1] for name in measured]), strict=True))
    couples = match_runs(first, tuned, metric)
    last: dict[str, dict[int, float]] = {}
    for a, b in couples:
        ends = [run.sensitivity["checkpoint=last"][metric] for run in (a, b)]
        last.setdefault(a.category, {})[a.seed] = ends[1] - ends[0]
    rows = []
    for pair in [*pairs[metric][:-1], means[metric]] if metric in means else []:
        parts = [last[pair.category]] if pair.category in last else list(last.values())
        common = [seed for seed in parts[0] if all(seed in one for one in parts)]
        ends_of = {
            "last": fmean(fmean(one.values()) for one in parts),
            "last_by_seed": [fmean(one[seed] for one in parts) for seed in common],
        }
        rows.append(row_of(pair) | ends_of)
    return pd.DataFrame(rows, dtype=object)


def with_statistics_anew(records: Sequence[Record], tuned: Sequence[Record], metric: Metric) -> pd.DataFrame:
    """ET-STPM minus STPM with BatchNorm's running statistics and with those taken anew, of the same weights.

    A row per pair of runs that measured both, by `category` and `seed`: the difference at the `chosen` epoch
    and at the `last`, `chosen_anew` and `last_anew`; and `jumped`, the methods whose last epoch is a jump of
    the validation error.
    """
    rows = []
    for a, b in match_runs(untuned(records, "paper"), tuned, metric):
        if all(key in run.sensitivity for run in (a, b) for key in READINGS):
            ends = last_epochs((a, b))
            jumped = list(ends[ends["ratio"] > JUMP]["method"])
            row = {"category": a.category, "seed": a.seed, "jumped": jumped}
            row["chosen"] = b.metrics[metric] - a.metrics[metric]
            for key, name in READINGS.items():
                row[name] = b.sensitivity[key][metric] - a.sensitivity[key][metric]
            rows.append(row)
    columns = ["category", "seed", "jumped", "chosen", *READINGS.values()]
    return pd.DataFrame(rows, columns=columns).sort_values(["category", "seed"], ignore_index=True)


def turned_by_statistics(pairs: pd.DataFrame) -> dict[str, Any]:
    """Whether BatchNorm's running statistics turn the gain of the last epoch; `with_statistics_anew`'s pairs.

    `closer`: with fresh statistics every seed with a jump has its last epoch's gain closer to that of the
    chosen epoch. `together`: the seeds' gains are at most twice as far `apart`, where they are farthest, as
    at the chosen epoch. The answer is yes if both hold: a rule that was set on 2026-11-27, before the runs
    that it judges. Empty where no run ends on a jump, or no category has two seeds: there is nothing to turn.
    """
    jumped = pairs[pairs["jumped"].astype(bool)]
    seeds = pairs.groupby("category")
    if not len(jumped) or seeds.size().max() < 2:
        return {}
    away = [(jumped[name] - jumped["chosen"]).abs() for name in ("last", "last_anew")]
    apart = {name: float(seeds[name].agg(np.ptp).max()) for name in ("chosen", "last", "last_anew")}
    return {
        "closer": bool((away[1] < away[0]).all()),
        "together": apart["last_anew"] <= 2 * apart["chosen"],
        "apart": apart,
    }


def sources_of_chance(records: Sequence[Record], metric: Metric) -> pd.DataFrame:
    """Standard deviation over seeds of ET-STPM minus STPM, by `category`.

    `one`: all seeds share the teacher of seed 0, so it is chance in the students; `own`: each has a teacher
    of its own, so chance in the fine-tuning comes on top. None with fewer than two seeds.
    """
    first = untuned(records, "paper")
    spreads: dict[str, dict[str, object]] = {}
    for name, tuned in (("one", one_teacher(records)), ("own", epochs_group(2).of(records))):
        by_category: dict[str, list[float]] = {}
        for a, b in match_runs(first, tuned, metric):
            by_category.setdefault(a.category, []).append(b.metrics[metric] - a.metrics[metric])
        for category, values in by_category.items():
            found = {name: stdev(values) if len(values) > 1 else None, f"{name}_seeds": len(values)}
            spreads.setdefault(category, {"category": category}).update(found)
    columns = ["category", "one", "one_seeds", "own", "own_seeds"]
    return pd.DataFrame(list(spreads.values()), columns=columns, dtype=object)


def against_epochs(
    records: Iterable[Record], metric: Metric, *, rest: str = "", profile: Profile = "paper"
) -> pd.DataFrame:
    """The change against STPM by category, seed and epochs: a row each.

    Columns: category, seed, epochs, difference (0 for 0 epochs), and low and high, its 95 % interval from the
    paired bootstrap.
    """
    everything = list(records)
    first = untuned(everything, profile)
    rows: list[tuple[object, ...]] = [
        (run.category, run.seed, 0, 0.0, 0.0, 0.0) for run, _ in match_runs(first, first, metric)
    ]
    for epochs in TUNING_EPOCHS[1:]:
        tuned = epochs_group(epochs, rest, profile).of(everything)
        for a, b in match_runs(first, tuned, metric):
            pair = compare([(a, b)], metric)[0]
            rows.append((a.category, a.seed, epochs, pair.difference, pair.low, pair.high))
    table = pd.DataFrame(rows, columns=["category", "seed", "epochs", "difference", "low", "high"])
    tuned_categories = table.loc[table["epochs"] > 0, "category"]
    return table[table["category"].isin(tuned_categories)]  # STPM alone is no curve


def changes(
    records: Iterable[Record], metric: Metric, profile: Profile = "paper", *, rest: str = ""
) -> dict[str, list[PairedDifference]]:
    """Every number of epochs against STPM, on the same seeds; and leaking data, learning rate and loss.

    With another deviation (`rest`, such as 'optimiser=sgd') the epochs alone.
    """
    everything = list(records)
    more = f", {rest}" if rest else ""
    wanted = {f"{e} epoch{'s' * (e != 1)}{more}": epochs_group(e, rest, profile) for e in TUNING_EPOCHS[1:]}
    if not rest:
        wanted |= {
            "2 epochs, half of the anomalous test images seen (B)": epochs_group(2, "data=B", profile),
            "2 epochs, all anomalous test images seen (C)": epochs_group(2, "data=C", profile),
            "2 epochs, rate a tenth": epochs_group(2, "rate=1e-5", profile),
            "2 epochs, rate ten times": epochs_group(2, "rate=1e-3", profile),
            "2 epochs, L1 + cosine loss": epochs_group(2, "loss=l1+cosine", profile),
        }
    first = untuned(everything, profile)
    return {
        name: compare(match_runs(first, other.of(everything), metric), metric)
        for name, other in wanted.items()
    }


def _with_data(records: Iterable[Record], letter: str, metric: Metric) -> list[Couple]:
    """Runs with teachers of variant A and of another, both of the run's own seed or both of seed 0.

    Where a seed has both, that with teachers of its own counts.
    """
    everything = list(records)
    found: dict[tuple[str, int], Couple] = {}
    sides = "", f"data={letter}"
    for clean, other in (
        [one_teacher(everything, rest) for rest in sides],
        [epochs_group(2, rest).of(everything) for rest in sides],
    ):
        found |= {(a.category, a.seed): (a, b) for a, b in match_runs(clean, other, metric)}
    return [found[place] for place in sorted(found)]


def leakage(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """Variant B and C minus A, same seed, on all test images and on those that B never saw.

    Columns: category, seed, variant, all, untouched. A gain that is larger on all test images than on the
    untouched ones points to leakage.
    """
    rows = []
    everything = list(records)
    for name in "BC":
        for a, b in _with_data(everything, name, metric):
            halves = [run.sensitivity.get("test=untouched", {}) for run in (a, b)]
            if all(metric in half for half in halves):
                change = b.metrics[metric] - a.metrics[metric], halves[1][metric] - halves[0][metric]
                rows.append((a.category, a.seed, name, *change))
    return pd.DataFrame(rows, columns=["category", "seed", "variant", "all", "untouched"])


def leaks(records: Sequence[Record], metric: Metric) -> dict[str, list[PairedDifference]]:
    """B and C against A, paired, on all test images: what a teacher gains that has seen some of them."""
    return {f"{letter} minus A": compare(_with_data(records, letter, metric), metric) for letter in "BC"}
