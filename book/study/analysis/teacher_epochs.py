"""ET-STPM against the number of fine-tuning epochs, and the leakage question. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from stlib.protocol import TUNING_EPOCHS, Metric, Profile
from stlib.records.schema import Summary
from stlib.records.teacher import TeacherRecord
from study.analysis.comparison import select
from study.analysis.paired import PairedDifference, RunGroup, compare, match_runs, pairs
from study.plan.grid import tuned_variant


def epochs_group(epochs: int, rest: str = "", profile: Profile = "paper") -> RunGroup:
    """The runs with `epochs` full epochs and another deviation, such as 'data=B'."""
    return RunGroup("et_stpm", tuned_variant(epochs, rest), profile)


def untuned(records: Sequence[Summary], profile: Profile) -> list[Summary]:
    """The runs without fine-tuning: ET-STPM's with 0 epochs, and their equals, STPM's, which count before."""
    return [*epochs_group(0, "", profile).of(records), *RunGroup("stpm", "", profile).of(records)]


def against_untuned(records: Sequence[Summary], other: RunGroup, metric: Metric) -> list[PairedDifference]:
    """The runs of `other` against those without fine-tuning, as `paired.pairs`."""
    return compare(match_runs(untuned(records, other.profile), other.of(records), metric), metric)


def against_epochs(
    records: Iterable[Summary], metric: Metric, *, rest: str = "", profile: Profile = "paper"
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
    records: Iterable[Summary], metric: Metric, profile: Profile = "paper"
) -> dict[str, list[PairedDifference]]:
    """Every number of epochs, leaking data, learning rate and loss against STPM, on the same seeds."""
    everything = list(records)
    wanted = {f"{e} epoch{'s' * (e != 1)}": epochs_group(e, "", profile) for e in TUNING_EPOCHS[1:]}
    wanted |= {
        "2 epochs, half of the anomalous test images seen (B)": epochs_group(2, "data=B", profile),
        "2 epochs, all anomalous test images seen (C)": epochs_group(2, "data=C", profile),
        "2 epochs, rate a tenth": epochs_group(2, "rate=1e-5", profile),
        "2 epochs, rate ten times": epochs_group(2, "rate=1e-3", profile),
        "2 epochs, L1 + cosine loss": epochs_group(2, "loss=l1+cosine", profile),
    }
    return {name: against_untuned(everything, other, metric) for name, other in wanted.items()}


def against_two(
    records: Sequence[Summary], metric: Metric, profile: Profile = "paper"
) -> dict[str, list[PairedDifference]]:
    """Every other number of full epochs minus the paper's two."""
    two = epochs_group(2, "", profile)
    others = {f"{e} instead of 2": epochs_group(e, "", profile) for e in TUNING_EPOCHS if e not in (0, 2)}
    return {name: pairs(records, two, other, metric) for name, other in others.items()}


def leakage(records: Iterable[Summary], metric: Metric, profile: Profile = "paper") -> pd.DataFrame:
    """Variant A, B and C at two epochs on all test images and on those that B never saw.

    Columns: category, seed, variant, all, untouched. A gain of B over A that is larger on all test images
    than on the untouched ones points to leakage.
    """
    rows = []
    for name, rest in (("A", ""), ("B", "data=B"), ("C", "data=C")):
        for r in select(records, "et_stpm", profile=profile, variant=rest):
            half = r.sensitivity.get("test=untouched", {})
            if metric in r.metrics and metric in half:
                rows.append((r.category, r.seed, name, r.metrics[metric], half[metric]))
    return pd.DataFrame(rows, columns=["category", "seed", "variant", "all", "untouched"])


def leaks(
    records: Sequence[Summary], metric: Metric, profile: Profile = "paper"
) -> dict[str, list[PairedDifference]]:
    """B and C against A, paired, on all test images: what a teacher gains that has seen some of them."""
    clean = epochs_group(2, "", profile)
    return {
        f"{letter} minus A": pairs(records, clean, epochs_group(2, f"data={letter}", profile), metric)
        for letter in "BC"
    }


@dataclass(frozen=True)
class LeakGain:
    """B's mean gain over A, and beside it what chance alone does."""

    seen: float
    """On all test images."""
    unseen: float
    """On the images that B left untouched."""
    pairs: int
    chance: float | None
    """Largest range over A's seeds of its score on all images minus that on the untouched ones."""
    category: str | None
    """Where that is."""


def leak_gain(frame: pd.DataFrame) -> LeakGain | None:
    """From `leakage`; None without a pair."""
    clean = frame[frame["variant"] == "A"]
    both = frame[frame["variant"] == "B"].merge(clean, on=["category", "seed"], suffixes=("_b", "_a"))
    if both.empty:
        return None
    seen, unseen = ((both[f"{part}_b"] - both[f"{part}_a"]).mean() for part in ("all", "untouched"))
    gaps = (clean["all"] - clean["untouched"]).groupby(clean["category"])
    spread = (gaps.max() - gaps.min())[gaps.size() > 1]
    largest = (float(spread.max()), str(spread.idxmax())) if len(spread) else (None, None)
    return LeakGain(float(seen), float(unseen), len(both), *largest)


def courses(teachers: Sequence[TeacherRecord]) -> pd.DataFrame:
    """The fine-tunings: `data`, `classes`, `images`, and the curves of the record, a row per full epoch."""
    parts = [
        pd.DataFrame(t.curves)
        .rename_axis("epoch")
        .reset_index()
        .assign(data=str(t.tuning.get("data")), classes=len(t.categories), images=t.images)
        for t in teachers
    ]
    return pd.concat(parts) if parts else pd.DataFrame()
