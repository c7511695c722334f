"""PFADSeg's ablation beside the paper's Table 4: what each module gains and costs. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from stlib.protocol import ABLATION_ROWS, CATEGORIES, METRICS, Metric, Profile
from stlib.records.reported import reported
from stlib.records.schema import Summary
from study.analysis.comparison import comparable, select
from study.analysis.paired import PairedDifference, RunGroup, pairs, pairs_html
from study.tables import Html, Markup, plain, score, to_html

CHOICES: dict[str, str] = {
    "gamma=1": "RCM's LayerScale starts at 1 instead of 1e-6",
    "dilations=1-2-3": "PCAR's convolutions have dilations 1, 2, 3 instead of 1, 1, 1",
    "no-factor-2": "AFF's sum as in its paper's formula, without the factor 2 of its code",
    "student-only": "AFF and PCAR in the student, plain blocks in the segmentation net",
    "zero-init": "the last BatchNorm of the encoder's blocks starts at 0, as in DeSTSeg",
}
"""Variants that change one choice which the paper leaves open, in words."""

COLUMNS: tuple[Metric, ...] = ("image_auroc", "pixel_ap", "iap")
"""The columns of Table 4."""

STEPS = (
    ("none", "RCM"),
    ("none", "AFF"),
    ("none", "PCAR"),
    ("none", "control"),
    ("control", "PCAR"),
    ("RCM", "RCM+PCAR"),
    ("AFF", "AFF+PCAR"),
    ("none", "RCM+AFF+PCAR"),
)
"""Pairs of rows that differ by a module (or by all three): what does it gain?"""


def rows_html(
    records: Iterable[Summary],
    profile: Profile,
    parameters: Mapping[str, int],
    categories: Sequence[str] = tuple(CATEGORIES),
) -> Markup:
    """Every row: reported means over 15 categories, reproduced means over the measured ones, size and speed.

    `parameters`: trainable parameters by label (`sizes.ablation_parameters`). Under another schedule
    than the paper's nothing reported is shown; under the paper's, labelled runs enter no mean.
    """
    full = profile == "paper"
    everything = [r for r in records if r.category in categories and r.status == "finished"]
    lines: list[dict[str, object]] = []
    remarks: dict[str, None] = {}
    for label, variant in ABLATION_ROWS.items():
        runs = select(everything, "pfadseg", profile=profile, variant=variant)
        runs = comparable(runs) if full else runs
        line: dict[str, object] = {"Row": label, "Parameters, M": f"{parameters[label] / 1e6:.1f}"}
        for metric in COLUMNS:
            told = reported("pfadseg", metric, variant=label)
            beside = f"<small>reported {told.exact if told else '-'}</small><br>" if full else ""
            line[METRICS[metric]] = Html(beside + _mean(runs, metric))
        line["Runs"] = ", ".join(f"{r.category} s{r.seed}" for r in runs) or "not run"
        line["Step, s"] = _step(runs)
        lines.append(line)
        remarks |= dict.fromkeys(
            remark
            for r in runs
            for remark in [*r.remarks(), f"trained in {r.precision} on a {r.runtime.processor}"]
        )
    names = f"Ablation of PFADSeg, {profile} schedule"
    names += "; reported: means over 15 categories" if full else "; compared with no paper"
    names += f"; {', '.join(remarks)}" if remarks else ""
    return to_html(plain(lines), names)


def _mean(runs: Sequence[Summary], metric: Metric) -> str:
    """Mean over categories of the means over seeds."""
    groups = [
        [r.metrics[metric] for r in runs if r.category == c and metric in r.metrics] for c in CATEGORIES
    ]
    groups += [[r.metrics[metric] for r in runs if r.category not in CATEGORIES and metric in r.metrics]]
    return score(fmean(fmean(group) for group in groups if group)) if any(groups) else "not run"


def _step(runs: Sequence[Summary]) -> str:
    """Median seconds per training step, both stages together."""
    times = [r.runtime.train_seconds / r.history.steps for r in runs if r.history]
    return f"{median(times):.2f}" if times else "-"


def steps(records: Iterable[Summary], metric: Metric, profile: Profile) -> dict[str, list[PairedDifference]]:
    """What each module gains over the row without it, on the same categories and seeds."""
    everything = list(records)
    found = {}
    for before, after in STEPS:
        first, second = (RunGroup("pfadseg", ABLATION_ROWS[name], profile) for name in (before, after))
        found[f"{before} → {after}"] = pairs(everything, first, second, metric)
    return found


def steps_html(records: Iterable[Summary], metric: Metric, profile: Profile) -> Markup:
    """`steps` as a table: one line per category and mean."""
    return pairs_html(
        steps(records, metric, profile), f"{METRICS[metric]}, {profile} schedule: gain by module"
    )


def choices_html(records: Iterable[Summary], metric: Metric, profile: Profile) -> Markup:
    """PFADSeg with one open choice changed, against PFADSeg as this study builds it."""
    everything = list(records)
    found = {
        f"{name}: {words}": pairs(
            everything, RunGroup("pfadseg", "", profile), RunGroup("pfadseg", name, profile), metric
        )
        for name, words in CHOICES.items()
    }
    return pairs_html(found, f"{METRICS[metric]}, {profile} schedule: what an open choice changes")
