"""What a sceptical reviewer asks first, answered from the records. Imports no torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import stdev

import numpy as np
from scipy.stats import rankdata

from stlib.protocol import CATEGORIES, METRICS, PROFILES, SEEDS_FOR_A_VERDICT, TOLERANCES, Metric
from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Record, Run, Summary
from study.analysis.claims import ClaimResult
from study.analysis.comparison import METHODS, ComparisonRow, comparable, comparison, rows_of, select
from study.analysis.paired import PairedDifference
from study.analysis.precisions import couples, rounding
from study.analysis.runs import good_and_defective
from study.tables import Markup, Text, interval, plain, signed, to_html

FACTORS = (0.5, 1.0, 2.0)
"""Of the tolerances: as fixed, half and double."""


def _finished(records: Iterable[Run]) -> list[Run]:
    """On MVTec AD, whatever their labels."""
    return [r for r in records if r.status == "finished" and r.dataset.name == "MVTec AD"]


def coverage_html(records: Sequence[Summary]) -> Markup:
    """Per method how many categories and seeds stand behind it, and what cannot be judged."""
    rows: list[dict[str, object]] = []
    for method in METHODS:
        runs = [r for r in _finished(records) if r.method == method]
        clean = [r for r in comparable(runs) if not r.variant]
        seeds = Counter(r.category for r in clean)
        enough = sum(count >= SEEDS_FOR_A_VERDICT for count in seeds.values())
        rows.append(
            {
                "Method": METHOD_NAMES[method],
                "Categories that can be judged": f"{len(seeds)} of {len(CATEGORIES)}",
                "Run on": ", ".join(name for name in CATEGORIES if any(r.category == name for r in runs))
                or "none",
                f"With {SEEDS_FOR_A_VERDICT} seeds": enough,
                "Runs": len(clean),
                "Runs with a label": len(runs) - len(comparable(runs)),
                "Labels": "; ".join(dict.fromkeys(label for r in runs for label in r.labels())) or "none",
            }
        )
    return to_html(plain(rows), "What stands behind the verdicts")


def teachers(records: Sequence[Summary]) -> Text:
    """Where the weights came from, what they lack, and which runs that touches."""
    runs = _finished(records)
    sources = Counter(r.teacher.source for r in runs)
    partial = [r for r in runs if r.teacher.missing]
    layers = sorted({name.partition(".")[0] for r in partial for name in r.teacher.missing})
    tuned = [r for r in partial if r.teacher.tuned and r.teacher.tuned.epochs]
    hashes = {r.teacher.pyramid_sha256 for r in runs if not r.teacher.tuned}
    told = ", ".join(f"{source} ({count} runs)" for source, count in sources.items()) or "none"
    return Text(
        f"Weights: {told}. {len(partial)} of {len(runs)} runs had a file that lacks "
        f"{', '.join(layers) or 'something'}; "
        f"{len(tuned)} of them fine-tuned the teacher, which trains the missing part from random weights. "
        f"The tensors used without fine-tuning have {len(hashes)} hash(es)."
    )


def seed_spread_html(records: Sequence[Summary], metrics: Sequence[Metric]) -> Markup:
    """Standard deviation over seeds where two or more can be compared, beside the tolerance."""
    rows: list[dict[str, object]] = [{"Where": "tolerance"} | {METRICS[m]: TOLERANCES[m] for m in metrics}]
    for method in METHODS:
        clean = comparable(select(records, method))
        for category in CATEGORIES:
            group = [r for r in clean if r.category == category]
            if len(group) > 1:
                where = f"{METHOD_NAMES[method]}, {category}, {len(group)} seeds"
                rows.append({"Where": where} | {METRICS[m]: _spread(group, m) for m in metrics})
    return to_html(plain(rows), "Standard deviation over seeds")


def _spread(group: Sequence[Summary], metric: Metric) -> float | None:
    values = [r.metrics[metric] for r in group if metric in r.metrics]
    return stdev(values) if len(values) > 1 else None


def precisions(records: Sequence[Summary]) -> Text:
    """In which arithmetic the runs trained, and how many pairs show what that changes."""
    runs = _finished(records)
    counts = ", ".join(
        f"{count} in {name}" for name, count in sorted(Counter(r.precision for r in runs).items())
    )
    text = f"Trained on MVTec AD: {counts or 'no run'}. "
    lines = [
        f"- {METHOD_NAMES[method]}, {profile} schedule, {METRICS[metric]}: {_change(found.difference)}"
        for method in METHODS
        for profile in PROFILES
        for pairs in [couples(runs, method, profile)]
        for metric in ("image_auroc", "pixel_auroc", "pixel_ap")
        if (found := rounding(pairs, metric))
    ]
    text += "Pairs of runs that differ in nothing else, fp32 minus bf16: "
    return Text(text + ("\n\n" + "\n".join(lines) if lines else "**not run**."))


def _change(mean: PairedDifference) -> str:
    return f"{signed(mean.difference)} ({interval(mean.low, mean.high)}), {mean.category}"


def sizes(records: Sequence[Summary]) -> Text:
    """The sides of the images that the runs saw."""
    found = Counter(r.dataset.image_size for r in _finished(records))
    told = ", ".join(f"{count} at {side} x {side}" for side, count in sorted(found.items()))
    return Text(f"Runs on MVTec AD: {told or 'none'}.")


def short_runs(records: Sequence[Summary]) -> Text:
    """How many runs of the methods with a short schedule there are, how long, and how many are full."""
    lines = []
    for method in METHODS:
        runs = [r for r in _finished(records) if r.method == method]
        short = [r for r in runs if r.profile == "short"]
        steps = ", ".join(str(n) for n in sorted({r.history.steps for r in short if r.history}))
        full = sum(r.profile == "paper" for r in runs)
        told = f"{len(short)} short ({steps} steps)" if short else "no short run"
        lines.append(f"- {METHOD_NAMES[method]}: {full} at the paper's schedule, {told}")
    return Text("\n".join(lines))


def judged(records: Sequence[Summary]) -> list[tuple[Metric, ComparisonRow]]:
    """Every line of every comparison that has a verdict, means left out."""
    lines = [
        (m, row)
        for method in METHODS
        for runs in [select(records, method)]
        for m in METRICS
        for row in rows_of(comparison(runs, method, m))[:-1]
    ]
    return [(m, row) for m, row in lines if row.difference is not None]


def tolerances_html(verdicts: Sequence[tuple[Metric, ComparisonRow]]) -> Markup:
    """How many verdicts would be 'agrees' with other tolerances, and which factor just makes all agree."""
    rows: list[dict[str, object]] = []
    for metric in METRICS:
        shares = [abs(row.difference or 0.0) / TOLERANCES[metric] for m, row in verdicts if m == metric]
        if shares:
            within = {f"agree at x {f:g}": sum(share <= f + 1e-9 for share in shares) for f in FACTORS}
            line = {"Metric": METRICS[metric], "Tolerance": TOLERANCES[metric], "Verdicts": len(shares)}
            rows.append(line | within | {"All agree from": f"x {max(shares):.2f}"})
    return to_html(plain(rows), "Verdicts per category if the tolerances were others")


def counted_again(records: Iterable[Record]) -> Text:
    """Image AUROC from the records' image scores, from SciPy's ranks instead of this study's code."""
    differences = []
    for record in (r for one in records for r in _finished([one])):  # one by one: they are many and large
        good, defective = good_and_defective(record)
        if "image_auroc" in record.metrics:
            ranks = rankdata(np.concatenate([defective, good]))[: len(defective)]
            won = ranks.mean() - (len(defective) + 1) / 2  # Mann and Whitney's U, per defective image
            differences.append(abs(float(won / len(good)) - record.metrics["image_auroc"]))
    largest = f"{max(differences):.1g}" if differences else "-"
    return Text(
        f"Image AUROC counted again by SciPy in {len(differences)} records: largest difference {largest}."
    )


def rules(verdicts: Sequence[tuple[Metric, ComparisonRow]], found: Sequence[ClaimResult]) -> Text:
    """How many verdicts and claims there are to be wrong about, and on how little they rest."""
    few = sum(row.provisional for _, row in verdicts)
    means = [item.pairs[-1] for item in found if item.pairs]
    alone = sum(1 in pair.counts for pair in means)
    return Text(
        f"Verdicts per category and metric: {len(verdicts)}, {few} of them provisional. Claims that one "
        f"method beats another: {len(found)}, {len(means)} with paired runs; in {alone} of these a category "
        "has one seed, and its part of the interval leaves out chance in the training."
    )


def provenance(records: Sequence[Summary]) -> Text:
    """From how many commits the runs came, and whether the code was the committed one."""
    runs = _finished(records)
    commits = {r.runtime.commit for r in runs if r.runtime.commit}
    clean = sum(r.runtime.dirty is False for r in runs)
    return Text(
        f"{len(runs)} runs on MVTec AD, made at {len(commits)} commits; in {clean} of them the package's "
        "files were exactly those of the commit."
    )
