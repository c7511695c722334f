"""What follows from the records, claim by claim, in words. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence

from stlib.protocol import CATEGORIES, METRICS, TUNING_EPOCHS, Metric, Profile
from stlib.study.ablation import ROWS, STEPS, steps
from stlib.study.gains import Found, printed_gain, reservations
from stlib.study.html import Text, interval, score, signed
from stlib.study.paired import Pair, pairs
from stlib.study.records import Summary, TeacherRecord
from stlib.study.reported import METHOD_NAMES, reported
from stlib.study.tables import comparison, rows_of, select
from stlib.study.teacher_epochs import key

Differences = tuple[dict[str, list[Pair]], dict[str, float | None]]
"""Measured and printed differences by name, as `curves.forest` draws them."""


def level_text(records: Iterable[Summary], method: str, metric: Metric) -> Text:
    """Does a method reach the scores that its paper prints? One list item."""
    runs = select(records, method)
    *rows, mean = rows_of(comparison(runs, method, metric))
    printed = reported(method, metric)
    name = f"{METHOD_NAMES[method]}, {METRICS[metric]}"
    text = f"- **{name}**: the paper prints {score(printed.number if printed else None)}."
    judged = [row for row in rows if row.difference is not None]
    if mean.reproduced is None or not judged:
        told = f"runs with a label: {len(runs)}" if runs else "not run"
        return Text(f"{text} Nothing that can be judged: {told}.")
    verdicts = [f"{row.category} {row.verdict} ({signed(row.difference)})" for row in judged]
    few = ", provisional" if mean.provisional else ""
    return Text(
        f"{text} On {mean.category.removeprefix('mean of ')} categories it is {score(mean.reproduced)}, 95 % "
        f"interval {score(mean.low)} to {score(mean.high)}, beside {score(mean.reported_number)} printed for "
        f"these: **{mean.verdict}**{few}. {'; '.join(verdicts)}."
    )


def teachers_text(teachers: Iterable[TeacherRecord]) -> Text:
    """When a fine-tuned teacher names the held-out images best, and how far it has moved; an item each."""
    lines = []
    for teacher in teachers:
        accuracy, moved = teacher.curves["accuracy"], teacher.curves["weight_change_layer3"]
        best = accuracy.index(max(accuracy))
        name = f"Data {teacher.tuning.get('data')}, {len(teacher.categories)} classes"
        lines.append(
            f"- {name}: the highest accuracy on held-out images, {accuracy[best]:.3f}, is first reached "
            f"after epoch {best}. Its layer3 has moved by {moved[best]:.4f} by then, and by {moved[-1]:.4f} "
            f"after epoch {len(moved) - 1}."
        )
    return Text("\n".join(lines))


def epochs_text(records: Sequence[Summary], metric: Metric, profile: Profile = "paper") -> Text:
    """Other numbers of epochs against the paper's two, paired by seed and image; an item each."""
    two = key(2, "", profile)
    others = {f"{e} instead of 2": key(e, "", profile) for e in TUNING_EPOCHS if e not in (0, 2)}
    return pairs_text({name: pairs(records, two, other, metric) for name, other in others.items()}, metric)


def pairs_text(found: Mapping[str, Sequence[Pair]], metric: Metric) -> Text:
    """Paired comparisons in words, an item each."""
    return Text("\n".join(f"- {name}, {METRICS[metric]}: {_told(group)}" for name, group in found.items()))


def _told(found: Sequence[Pair]) -> str:
    if not found:
        return "not run."
    mean, names = found[-1], ", ".join(pair.category for pair in found[:-1])
    but = f" ({reservations(mean)})" if reservations(mean) else ""
    return (
        f"{signed(mean.difference)}, 95 % interval {interval(mean.low, mean.high)}, on {names}: "
        f"**{mean.answer}**{but}."
    )


def modules_text(records: Sequence[Summary], metric: Metric) -> Text:
    """What each module of PFADSeg gains at the paper's schedule; an item each."""
    found, printed = module_differences(records, metric)
    lines = []
    for name, group in found.items():
        value = printed[name]
        claim = "" if value is None else f"the paper prints {signed(value)}; "
        lines.append(f"- {name}, {METRICS[metric]}: {claim}{_told(group)}")
    return Text("\n".join(lines))


def module_differences(records: Sequence[Summary], metric: Metric) -> Differences:
    """The steps of the ablation at the paper's schedule, and the differences of the printed rows."""
    found = steps(records, metric, "paper")
    rows = {label: reported("pfadseg", metric, variant=label) for label in ROWS}
    printed: dict[str, float | None] = {}
    for name, (before, after) in zip(found, STEPS, strict=True):
        first, second = rows[before], rows[after]
        printed[name] = second.number - first.number if first and second else None
    return found, printed


def without_largest_text(records: Iterable[Summary], results: Iterable[Found]) -> Text:
    """Does one category carry a claim? The mean without the one that differs most; an item per claim."""
    everything = list(records)
    lines = []
    for item in (item for item in results if len(item.pairs) > 2):
        largest = max(item.pairs[:-1], key=lambda pair: abs(pair.difference)).category
        rest = [r for r in everything if r.category != largest]
        left = pairs(rest, *item.gain.keys("paper"), item.gain.metric)
        lines.append(f"- {item.gain.name}, without {largest}, which moves the mean most: {_told(left)}")
    return Text("\n".join(lines))


def gain_differences(results: Iterable[Found]) -> Differences:
    """A claim's pairs by category and their mean; where none was run the printed gain stands alone."""
    measured: dict[str, list[Pair]] = {}
    printed: dict[str, float | None] = {}
    for item in results:
        if not item.pairs:
            measured[item.gain.name], printed[item.gain.name] = [], item.reported_all
        # with one category the mean repeats it
        for pair in item.pairs if len(item.pairs) > 2 else item.pairs[:1]:
            name = f"{pair.category}, {METRICS[item.gain.metric]}"
            measured[name] = [pair]
            known = pair.category in CATEGORIES
            printed[name] = printed_gain(item.gain, pair.category) if known else item.reported_here
    return measured, printed
