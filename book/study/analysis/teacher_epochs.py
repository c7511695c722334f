"""ET-STPM against the number of fine-tuning epochs, and the leakage question. Imports no torch."""

from collections.abc import Iterable, Sequence

import pandas as pd

from stlib.protocol import LAYERS, METRICS, TUNING_EPOCHS, Metric, Profile
from stlib.records.schema import Summary
from stlib.records.teacher import TeacherRecord
from study.analysis.comparison import select
from study.analysis.paired import PairedDifference, RunGroup, by_category_and_seed, compare, pairs, pairs_html
from study.plan.grid import tuned_variant
from study.tables import Markup, Text, plain, signed, to_html


def epochs_group(epochs: int, rest: str = "", profile: Profile = "paper") -> RunGroup:
    """The runs with `epochs` full epochs and another deviation, such as 'data=B'."""
    return RunGroup("et_stpm", tuned_variant(epochs, rest), profile)


def untuned(records: Sequence[Summary], metric: Metric, profile: Profile) -> dict[tuple[str, int], Summary]:
    """By place the run without fine-tuning: STPM's, or its equal, ET-STPM's with 0 epochs."""
    zero = by_category_and_seed(records, epochs_group(0, "", profile), metric)
    return zero | by_category_and_seed(records, RunGroup("stpm", "", profile), metric)


def against_untuned(records: Sequence[Summary], other: RunGroup, metric: Metric) -> list[PairedDifference]:
    """The runs of `other` against those without fine-tuning, as `paired.pairs`."""
    first, second = untuned(records, metric, other.profile), by_category_and_seed(records, other, metric)
    return compare([(first[place], second[place]) for place in sorted(second) if place in first], metric)


def against_epochs(
    records: Iterable[Summary], metric: Metric, *, rest: str = "", profile: Profile = "paper"
) -> pd.DataFrame:
    """The change against STPM by category, seed and epochs: a row each.

    Columns: category, seed, epochs, difference (0 for 0 epochs), and low and high, its 95 % interval from the
    paired bootstrap.
    """
    everything = list(records)
    first = untuned(everything, metric, profile)
    rows: list[tuple[object, ...]] = [(*place, 0, 0.0, 0.0, 0.0) for place in first]
    for epochs in TUNING_EPOCHS[1:]:
        second = by_category_and_seed(everything, epochs_group(epochs, rest, profile), metric)
        rows += [
            (*place, epochs, pair.difference, pair.low, pair.high)
            for place in second
            if place in first
            for pair in compare([(first[place], second[place])], metric)[:1]
        ]
    frame = pd.DataFrame(rows, columns=["category", "seed", "epochs", "difference", "low", "high"])
    tuned = frame.loc[frame["epochs"] > 0, "category"]
    return frame[frame["category"].isin(tuned)]  # STPM alone is no curve


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


def changes_html(records: Iterable[Summary], metric: Metric, profile: Profile = "paper") -> Markup:
    """`changes` as a table."""
    return pairs_html(changes(records, metric, profile), _caption(metric, profile))


def main_gain_html(records: Sequence[Summary], metric: Metric, profile: Profile = "paper") -> Markup:
    """The paper's two epochs against STPM, as a table."""
    found = against_untuned(records, epochs_group(2, "", profile), metric)
    return pairs_html({"2 epochs": found}, _caption(metric, profile))


def _caption(metric: Metric, profile: Profile) -> str:
    return f"{METRICS[metric]}: ET-STPM minus STPM, same seeds, {profile} schedule"


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


def leaks_html(records: Sequence[Summary], metric: Metric, profile: Profile = "paper") -> Markup:
    """`leaks` as a table."""
    caption = f"{METRICS[metric]} on all test images, same seeds, {profile} schedule"
    return pairs_html(leaks(records, metric, profile), caption)


def leak_sentence(frame: pd.DataFrame, metric: Metric) -> Text:
    """From `leakage`: B's mean gain over A on all test images and on the untouched ones, beside chance."""
    clean = frame[frame["variant"] == "A"]
    both = frame[frame["variant"] == "B"].merge(clean, on=["category", "seed"], suffixes=("_b", "_a"))
    if both.empty:
        return Text("")
    seen, unseen = ((both[f"{part}_b"] - both[f"{part}_a"]).mean() for part in ("all", "untouched"))
    gaps = (clean["all"] - clean["untouched"]).groupby(clean["category"])
    spread = (gaps.max() - gaps.min())[gaps.size() > 1]
    chance = " Between two seeds of A, where nothing can leak, it is up to "
    chance = f"{chance}{spread.max():.4f} ({spread.idxmax()})." if len(spread) else ""
    return Text(
        f"{METRICS[metric]}, B minus A: {signed(seen, 4)} on all test images, {signed(unseen, 4)} on the "
        f"untouched ones. The difference, {signed(seen - unseen, 4)}, is what would point to leakage. "
        f"Pairs: {len(both)}.{chance}"
    )


def teachers_html(teachers: Sequence[TeacherRecord]) -> Markup:
    """The fine-tunings: classes, images, held-out accuracy after every epoch, how far they moved."""
    rows: list[dict[str, object]] = [
        {
            "Teacher, epoch": f"{t.tuning.get('data')}, {'head' if epoch == 0 else epoch}",
            "Classes, images": f"{len(t.categories)}, {t.images}",
            "Loss": t.curves["train_loss"][epoch],
            "Accuracy": t.curves["accuracy"][epoch],
            **{
                f"{level}": f"{t.curves[f'weight_change_{level}'][epoch]:.3f}, "
                f"{t.curves[f'feature_cosine_{level}'][epoch]:.3f}"
                for level in LAYERS
            },
        }
        for t in teachers
        for epoch in range(len(t.curves["accuracy"]))
    ]
    caption = (
        "Fine-tuned teachers (variant of the data, full epochs): accuracy on held-out images; per level the "
        "relative weight change and the feature cosine to the original"
    )
    return to_html(plain(rows), caption)
