"""PFADSeg's ablation beside the paper's Table 4: what each module gains and costs."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from stlib.protocol import ABLATION_ROWS, CATEGORIES, Metric, Profile
from stlib.records.schema import Record
from study.analysis.comparison import RunGroup, comparable
from study.analysis.paired import Couple, PairedDifference, arithmetic, match_runs, pairs
from study.analysis.reported import reported

CHOICES: dict[str, str] = {
    "gamma=1": "RCM's LayerScale starts at 1 instead of 1e-6",
    "dilations=1-2-3": "PCAR's convolutions have dilations 1, 2, 3 instead of 1, 1, 1",
    "softmax=maps": "PCAR's softmax at every position, over the recalibrated maps of the branches",
    "softmax=channels": "the same softmax over all channels of all branches",
    "reduction=mean": "stage 1's loss is averaged over the batch instead of summed",
    "no-factor-2": "AFF's sum as in its paper's formula, without the factor 2 of its code",
    "student-only": "AFF and PCAR in the student, plain blocks in the segmentation net",
    "zero-init": "the last BatchNorm of the encoder's blocks starts at 0, as in DeSTSeg",
    "none+zero-init": "the same for the row without modules, held against that row",
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
    ("PCAR", "RCM+AFF+PCAR"),
    ("none", "RCM+AFF+PCAR"),
)
"""Pairs of rows that differ by a module (the last two by more): what does it gain?"""


ROW_NAMES = {"none": "no modules", "RCM+AFF+PCAR": "all modules"}
"""Of the first and the last row, as readers know them."""

KINDS = {("destseg", ""): "DeSTSeg", ("pfadseg", "none"): "no modules", ("pfadseg", ""): "all modules"}
"""What PFADSeg's chapter follows through the training, by method and variant."""
LATE = 2000
"""Step of the segmentation net's training from which on a score should have come to rest."""


def rows(
    records: Iterable[Record],
    profile: Profile,
    parameters: Mapping[str, int],
    categories: Sequence[str] = tuple(CATEGORIES),
    *,
    labelled: bool = False,
) -> pd.DataFrame:
    """Every row: its means over the categories and seeds that all rows with runs have, and its size.

    `parameters`: trainable parameters by label (`sizes.ablation_parameters`). Columns: `label`, `parameters`,
    a column per metric of `COLUMNS` (None without a run), `runs`. `attrs` holds the `remarks` of the runs,
    the places `left_out`, and the runs `beside` that not all rows have, by row. Under the paper's schedule
    labelled runs enter a mean only if `labelled`, and their labels are remarks; where rows trained in two
    precisions no row has the place: nobody is to compare two precisions by eye.
    """
    full = profile == "paper"
    everything = [r for r in records if r.category in categories and r.status == "finished"]
    made = {}
    trained: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for label, variant in ABLATION_ROWS.items():
        runs = RunGroup("pfadseg", variant, profile).of(everything)
        made[label] = comparable(runs) if full and not labelled else runs
        for r in made[label] if full else ():
            trained.setdefault((r.category, r.seed), set()).add(arithmetic(r))
    left_out = [place for place, kinds in trained.items() if len(kinds) > 1]
    made = {label: [r for r in runs if (r.category, r.seed) not in left_out] for label, runs in made.items()}
    places = [{(r.category, r.seed) for r in runs} for runs in made.values() if runs]
    shared = set.intersection(*places) if places else set()
    lines = []
    beside = {}
    remarks: dict[str, None] = {}
    for label, every in made.items():
        runs = [r for r in every if (r.category, r.seed) in shared or not shared]
        if others := [r for r in every if r not in runs]:
            beside[label] = others
        means = {m: _mean(runs, m) for m in COLUMNS}
        lines.append({"label": label, "parameters": parameters[label]} | means | {"runs": runs})
        for r in runs:
            how_trained = f"trained in {r.precision} on a {r.runtime.processor}"
            remarks |= dict.fromkeys([*(r.labels() if full else ()), *r.remarks(), how_trained])
    frame = pd.DataFrame(lines)
    frame.attrs = {"remarks": list(remarks), "profile": profile, "left_out": left_out, "beside": beside}
    return frame


def _mean(runs: Sequence[Record], metric: Metric) -> float | None:
    """Mean over categories of the means over seeds."""
    scores = pd.DataFrame([(r.category, r.metrics.get(metric)) for r in runs], columns=["category", "score"])
    mean = scores.groupby("category")["score"].mean().mean()
    return None if pd.isna(mean) else float(mean)


def steps(records: Iterable[Record], metric: Metric, profile: Profile) -> dict[str, list[PairedDifference]]:
    """What each module gains over the row without it, on the same categories and seeds."""
    everything = list(records)
    found = {}
    for before, after in STEPS:
        first, second = (RunGroup("pfadseg", ABLATION_ROWS[name], profile) for name in (before, after))
        found[_step(before, after)] = pairs(everything, first, second, metric)
    return found


def _step(before: str, after: str) -> str:
    """For readers."""
    return f"{ROW_NAMES.get(before, before)} → {ROW_NAMES.get(after, after)}"


def along_training(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """All modules (`whole`) against none (`none`) while the networks learn, on equal seeds.

    A row per category, seed and step that both were watched at; `difference` is whole minus none. Steps are
    counted from the start of the segmentation net, the student's before it are negative; the last is the
    tested one, and nothing is chosen.
    """
    lines = []
    for couple in match_runs(*_ends(records), metric):
        none, whole = (run.history.learning_curve if run.history else {} for run in couple)
        for step in sorted(none.keys() & whole.keys()):
            if metric not in none[step].keys() & whole[step].keys():
                continue
            scores = {"none": none[step][metric], "whole": whole[step][metric]}
            place = {"category": couple[0].category, "seed": couple[0].seed, "step": step}
            lines.append(place | scores | {"difference": scores["whole"] - scores["none"]})
    return pd.DataFrame(lines, columns=["category", "seed", "step", "none", "whole", "difference"])


def unpaired(records: Iterable[Record]) -> list[Couple]:
    """Runs of no module and of all that do not count as pairs, because they trained in two precisions."""
    none_at_all, all_modules = _ends(records)
    counted = match_runs(none_at_all, all_modules)
    return [
        pair for pair in match_runs(none_at_all, all_modules, other_precision=True) if pair not in counted
    ]


def _ends(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """The comparable runs of no module, and of all."""
    everything = comparable(records)
    return RunGroup("pfadseg", "none").of(everything), RunGroup("pfadseg").of(everything)


def sides(along: pd.DataFrame) -> dict[str, list[str]]:
    """Where `along_training` says that the modules help: 'above', 'below' or 'above and below' -> places.

    Over the evaluations after step 0: before, the segmentation net has learnt nothing.
    """
    found: dict[str, list[str]] = {}
    for (category, seed), own in along[along["step"] > 0].groupby(["category", "seed"]):
        low, high = own["difference"].min(), own["difference"].max()
        side = "above" if low > 0 else "below" if high < 0 else "above and below"
        found.setdefault(side, []).append(f"{category}, seed {seed}")
    return found


def late_changes(records: Iterable[Record], metric: Metric) -> pd.DataFrame:
    """How far the score on the test set still moved near the end of a training, a row per watched run.

    Of `KINDS` alone: what changes a choice in them is not counted beside them.
    Columns: `category`, `method`, `variant`, `seed`; `before` and `last`, the scores of the last evaluation
    but one and of the tested step, `apart` steps later; their `change`; `spread`, largest minus smallest from
    step `LATE` on.
    """
    lines = []
    for run in comparable(records):
        if (run.method, run.variant) not in KINDS:
            continue
        curve = run.history.learning_curve if run.history else {}
        scores = {step: curve[step][metric] for step in sorted(curve) if metric in curve[step]}
        late = [step for step in scores if step >= LATE]
        if len(late) > 1:
            before, last = late[-2:]
            place = {name: getattr(run, name) for name in ("category", "method", "variant", "seed")}
            seen = [scores[step] for step in late]
            lines.append(
                place
                | {"before": seen[-2], "last": seen[-1], "change": seen[-1] - seen[-2]}
                | {"apart": last - before, "spread": max(seen) - min(seen)}
            )
    names = ["category", "method", "variant", "seed", "before", "last", "change", "apart", "spread"]
    return pd.DataFrame(lines, columns=names)


def moved_together(along: pd.DataFrame) -> pd.DataFrame:
    """The last changes of both sides of `along_training`, by `category` and `seed`: `none` and `whole`."""
    late = along[along["step"] >= LATE]
    places = late.groupby(["category", "seed"])
    changes = late[["category", "seed"]].join(places[["none", "whole"]].diff())
    return changes.loc[places.tail(1).index].dropna()


def printed_steps(metric: Metric) -> dict[str, float | None]:
    """The differences of the rows that the paper prints, by the names of `steps`; None for our own row."""
    rows = {label: reported("pfadseg", metric, variant=label) for label in ABLATION_ROWS}
    found = {_step(before, after): (rows[before], rows[after]) for before, after in STEPS}
    return {name: b.number - a.number if a and b else None for name, (a, b) in found.items()}


def choices(records: Iterable[Record], metric: Metric) -> dict[str, list[PairedDifference]]:
    """A row with one open choice changed, minus that row as this study builds it: all modules, or `none`."""
    everything = list(records)
    none_at_all, all_modules = RunGroup("pfadseg", "none"), RunGroup("pfadseg")
    found = {}
    for name, words in CHOICES.items():
        row = none_at_all if name.startswith("none+") else all_modules
        found[f"{name}: {words}"] = pairs(everything, row, RunGroup("pfadseg", name), metric)
    return found
