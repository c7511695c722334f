"""What follows from the records, claim by claim, in words. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from stlib.protocol import ABLATION_ROWS, CATEGORIES, METRICS, TUNING_EPOCHS, Metric, Profile
from stlib.records.reported import METHOD_NAMES, reported
from stlib.records.schema import Summary
from stlib.records.teacher import TeacherRecord
from study.analysis.ablation import STEPS, steps
from study.analysis.claims import ClaimResult, printed_gain, printed_mean, reservations
from study.analysis.comparison import METHODS, ComparisonRow, comparison, rows_of, select
from study.analysis.paired import PairedDifference, compare, pairs
from study.analysis.sensitivity import seed_couples
from study.analysis.teacher_epochs import epochs_group, leaks
from study.tables import NOT_RUN, Html, Markup, Text, interval, plain, score, signed, to_html

SCORES_COMPARED: tuple[Metric, ...] = ("image_auroc", "pixel_auroc", "pixel_ap", "iap")
"""In which a method's scores are held against printed ones."""

Differences = tuple[dict[str, list[PairedDifference]], dict[str, float | None]]
"""Measured and printed differences by name, as `figures.forest` draws them."""


def overview_html(records: Sequence[Summary], results: Sequence[ClaimResult]) -> Markup:
    """Every question of the chapter with its answer and what that rests on."""
    metrics: tuple[Metric, ...] = ("image_auroc", "pixel_auroc")
    epochs = {f"{name}, {METRICS[m]}": g for m in metrics for name, g in epoch_pairs(records, m).items()}
    leaking = {f"{name}, {METRICS[m]}": g for m in metrics for name, g in leaks(records, m).items()}
    claims = {
        method: {f.claim.name: f.pairs for f in results if f.claim.second == method} for method in METHODS
    }
    levels = {METRICS[m]: rows_of(comparison(records, "stpm", m))[-1] for m in SCORES_COMPARED}
    behind = {row.category.removeprefix("mean of ") for row in levels.values() if row.reproduced is not None}
    rows: list[dict[str, object]] = [
        {
            "Question": "Does STPM reach its scores?",
            "Answer": _lines([f"{name}: {_level_words(row)}" for name, row in levels.items()]),
            "Rests on": f"categories: {', '.join(sorted(behind))}" if behind else "-",
        }
    ]
    for question, found in (
        ("Does a teacher fine-tuned on the task help?", claims["et_stpm"]),
        ("Are two epochs of fine-tuning right?", epochs),
        ("Does the gain come from test images?", leaking),
        ("Does PFADSeg beat DeSTSeg and STPM?", claims["pfadseg"]),
        ("Does each module of PFADSeg help?", module_differences(records, "pixel_ap")[0]),
    ):
        rows.append({"Question": question, "Answer": _answers(found), "Rests on": _behind(found)})
    return to_html(plain(rows), "The questions of this chapter")


def _level_words(row: ComparisonRow) -> str:
    return row.verdict + (" (provisional)" if row.provisional else "")


def _lines(texts: Sequence[str]) -> Markup:
    return Html("<br>".join(map(escape, texts)))


def _answers(found: Mapping[str, Sequence[PairedDifference]]) -> Markup:
    """One line per answer; what was not run is counted."""
    told = [f"{name}: {group[-1].decision}" for name, group in found.items() if group]
    missing = sum(not group for group in found.values())
    if not told:
        return Html(NOT_RUN)
    return _lines(told + ([f"not run: {missing} comparisons"] if missing else []))


def _behind(found: Mapping[str, Sequence[PairedDifference]]) -> str:
    groups = [group[:-1] for group in found.values() if group]
    if not groups:
        return "-"
    categories = sorted({len(group) for group in groups})
    seeds = sorted({len(pair.seeds) for group in groups for pair in group})
    labels = "; not the paper's setting" if any(pair.labels for group in groups for pair in group) else ""
    return f"categories: {_range(categories)}; seeds: {_range(seeds)}{labels}"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def levels_text(records: Iterable[Summary], method: str) -> Text:
    """Does a method reach its printed scores? A list item per metric with runs, one for all others."""
    runs = [r for r in select(records, method) if r.status == "finished"]
    if runs:
        return Text("\n".join(_level(runs, method, metric) for metric in SCORES_COMPARED))
    cells = [(metric, reported(method, metric)) for metric in SCORES_COMPARED]
    printed = [f"{METRICS[m]} ({score(cell.number)} in {cell.source})" for m, cell in cells if cell]
    return Text(f"- **{METHOD_NAMES[method]}, not run**: {', '.join(printed)}.")


def _level(runs: Sequence[Summary], method: str, metric: Metric) -> str:
    *rows, mean = rows_of(comparison(runs, method, metric))
    printed = reported(method, metric)
    name = f"{METHOD_NAMES[method]}, {METRICS[metric]}"
    text = f"- **{name}**: {score(printed.number)} in {printed.source}." if printed else f"- **{name}**:"
    judged = [row for row in rows if row.difference is not None]
    if mean.reproduced is None or not judged:
        return f"{text} Nothing that can be judged; runs with a label: {len(runs)}."
    verdicts = [f"{row.category} {row.verdict} ({signed(row.difference)}{_but(row)})" for row in judged]
    few = ", provisional" if mean.provisional else ""
    return (
        f"{text} On {mean.category.removeprefix('mean of ')} categories it is {score(mean.reproduced)}, 95 % "
        f"interval {score(mean.low)} to {score(mean.high)}, beside {score(mean.reported_number)} printed for "
        f"these: **{mean.verdict}**{few}. {'; '.join(verdicts)}."
    )


def _but(row: ComparisonRow) -> str:
    """A difference by the tolerance that the test images alone could explain."""
    if row.verdict == "agrees" or row.reported_number is None or row.low is None or row.high is None:
        return ""
    return ", inside the interval" if row.low <= row.reported_number <= row.high else ""


def teachers_text(teachers: Iterable[TeacherRecord]) -> Text:
    """When a fine-tuned teacher names the held-out images best, and how far it has moved; an item each."""
    lines = []
    for teacher in teachers:
        accuracy, moved = teacher.curves["accuracy"], teacher.curves["weight_change_layer3"]
        best = accuracy.index(max(accuracy))
        name = f"Data {teacher.tuning.get('data')}, {len(teacher.categories)} classes"
        later = f", after epoch {len(moved) - 1} by {moved[-1]:.1%}" if best < len(moved) - 1 else ""
        lines.append(
            f"- {name}: the highest accuracy on held-out images, {accuracy[best]:.3f}, is first reached "
            f"after epoch {best}. By then its layer3 has changed by {moved[best]:.1%} of the weights' "
            f"norm{later}."
        )
    return Text("\n".join(lines))


def epochs_text(records: Sequence[Summary], metric: Metric, profile: Profile = "paper") -> Text:
    """Other numbers of epochs against the paper's two, paired by seed and image; an item each."""
    return pairs_text(epoch_pairs(records, metric, profile), metric)


def epoch_pairs(
    records: Sequence[Summary], metric: Metric, profile: Profile = "paper"
) -> dict[str, list[PairedDifference]]:
    """Every other number of full epochs minus two."""
    two = epochs_group(2, "", profile)
    others = {f"{e} instead of 2": epochs_group(e, "", profile) for e in TUNING_EPOCHS if e not in (0, 2)}
    return {name: pairs(records, two, other, metric) for name, other in others.items()}


def chance_pairs(
    records: Sequence[Summary], method: str, metric: Metric
) -> dict[str, list[PairedDifference]]:
    """Another seed minus the first, of one method: what the rule for gains says where there is none."""
    runs = [r for r in select(records, method) if r.status == "finished"]
    return {
        f"{METHOD_NAMES[method]}, {name}": compare(couples, metric)
        for name, couples in seed_couples(runs, metric).items()
    }


def pairs_text(found: Mapping[str, Sequence[PairedDifference]], metric: Metric) -> Text:
    """Paired comparisons in words, an item each; those not run in one."""
    lines = [f"- {name}, {METRICS[metric]}: {_told(group)}" for name, group in found.items() if group]
    return Text("\n".join([*lines, *_missing(found, METRICS[metric])]))


def _missing(found: Mapping[str, Sequence[PairedDifference]], label: str) -> list[str]:
    names = [name for name, group in found.items() if not group]
    return [f"- {label}, **not run**: {', '.join(names)}."] if names else []


def _told(found: Sequence[PairedDifference]) -> str:
    mean, names = found[-1], ", ".join(pair.category for pair in found[:-1])
    but = f" ({reservations(mean)})" if reservations(mean) else ""
    return (
        f"{signed(mean.difference)}, 95 % interval {interval(mean.low, mean.high)}, on {names}: "
        f"**{mean.decision}**{but}."
    )


def modules_text(records: Sequence[Summary], metric: Metric) -> Text:
    """What each module of PFADSeg gains at the paper's schedule; an item each."""
    found, printed = module_differences(records, metric)
    lines = []
    for name, group in found.items():
        value = printed[name]
        claim = "" if value is None else f"the paper prints {signed(value)}; "
        if group:
            lines.append(f"- {name}, {METRICS[metric]}: {claim}{_told(group)}")
    told = {name: f" ({signed(value)} printed)" for name, value in printed.items() if value is not None}
    missing = {f"{name}{told.get(name, '')}": group for name, group in found.items()}
    return Text("\n".join([*lines, *_missing(missing, METRICS[metric])]))


def module_differences(records: Sequence[Summary], metric: Metric) -> Differences:
    """The steps of the ablation at the paper's schedule, and the differences of the printed rows."""
    found = steps(records, metric, "paper")
    rows = {label: reported("pfadseg", metric, variant=label) for label in ABLATION_ROWS}
    printed: dict[str, float | None] = {}
    for name, (before, after) in zip(found, STEPS, strict=True):
        first, second = rows[before], rows[after]
        printed[name] = second.number - first.number if first and second else None
    return found, printed


def without_largest_text(records: Iterable[Summary], results: Iterable[ClaimResult]) -> Text:
    """Does one category carry a claim? The mean without the one that differs most; an item per claim."""
    everything = list(records)
    lines = []
    for item in (item for item in results if len(item.pairs) > 2):
        largest = max(item.pairs[:-1], key=lambda pair: abs(pair.difference)).category
        rest = [r for r in everything if r.category != largest]
        left = pairs(rest, *item.claim.groups("paper"), item.claim.metric)
        printed = printed_mean(item.claim, [pair.category for pair in left[:-1]])
        told = "" if printed is None else f"the paper prints {signed(printed)} for the others; "
        lines.append(
            f"- {item.claim.name}, without {largest}, which moves the mean most: {told}{_told(left)}"
        )
    return Text("\n".join(lines))


def gain_differences(results: Iterable[ClaimResult]) -> Differences:
    """A claim's pairs by category and their mean; where none was run the printed gain stands alone."""
    measured: dict[str, list[PairedDifference]] = {}
    printed: dict[str, float | None] = {}
    for item in results:
        if not item.pairs:
            measured[item.claim.name], printed[item.claim.name] = [], item.reported_all
        # with one category the mean repeats it
        for pair in item.pairs if len(item.pairs) > 2 else item.pairs[:1]:
            name = f"{pair.category}, {METRICS[item.claim.metric]}"
            measured[name] = [pair]
            known = pair.category in CATEGORIES
            printed[name] = printed_gain(item.claim, pair.category) if known else item.reported_here
    return measured, printed
