"""The landing page's table: every headline claim of the papers, and what was found. Imports no torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from stlib.protocol import CATEGORIES, METRICS, Metric, Precision
from stlib.records.reported import METHOD_NAMES, reported
from stlib.records.schema import Summary
from study.analysis.claims import ClaimResult, reservations
from study.analysis.comparison import METHODS, comparable, comparison, rows_of, select
from study.pages.results import verdict_html
from study.tables import NOT_RUN, Html, Markup, Text, interval, plain, score, signed, to_html

PRECISION_NAMES: dict[Precision, str] = {"bf16": "bfloat16", "fp32": "float32", "tf32": "TF32"}

HEADLINE_SCORES: tuple[tuple[str, Metric], ...] = (
    ("stpm", "image_auroc"),
    ("stpm", "pixel_auroc"),
    ("et_stpm", "image_auroc"),
    ("et_stpm", "pixel_auroc"),
    ("destseg", "image_auroc"),
    ("destseg", "pixel_ap"),
    ("destseg", "iap"),
    ("pfadseg", "image_auroc"),
    ("pfadseg", "pixel_ap"),
    ("pfadseg", "iap"),
)
"""The scores that the papers' abstracts state."""


def so_far(records: Iterable[Summary]) -> Text:
    """What has been run at the paper's schedule, method by method, in one sentence each."""
    everything = list(records)
    told, missing = [], []
    for method in METHODS:
        runs = [r for r in select(everything, method) if r.status == "finished"]
        clean = comparable(runs)
        seeds = sorted(Counter(r.category for r in clean).values())
        if clean:
            span = str(seeds[0]) if seeds[0] == seeds[-1] else f"{seeds[0]} to {seeds[-1]}"
            each = f"{span} seed{'s' * (span != '1')} each"
            told.append(f"{METHOD_NAMES[method]} on {len(seeds)} of {len(CATEGORIES)} categories, {each}")
        elif runs:
            count = len({r.category for r in runs})
            told.append(f"{METHOD_NAMES[method]} on {count} categories, in a setting that is not the paper's")
        else:
            missing.append(METHOD_NAMES[method])
    none = [f"not yet {' and '.join(missing)}"] if missing else []
    kinds = Counter(
        PRECISION_NAMES[r.precision] for r in everything if (r.profile, r.status) == ("paper", "finished")
    )
    counted = ", ".join(f"{name} in {count} runs" for name, count in sorted(kinds.items()))
    arithmetic = f" Arithmetic of the training: {counted}." if kinds else ""
    return Text(f"**So far, at the papers' schedules:** {'; '.join(told + none)}.{arithmetic}")


def headlines_html(records: Sequence[Summary], results: Sequence[ClaimResult]) -> Markup:
    """Levels first, then the claims that one method beats another (`claims.claim_results`)."""
    rows = [_level(records, *level) for level in HEADLINE_SCORES] + [_gain(item) for item in results]
    return to_html(plain(rows), "The papers' claims and what paired, recorded runs show")


def _level(records: Sequence[Summary], method: str, metric: Metric) -> dict[str, object]:
    """A method reaches a score, as a mean over the categories."""
    printed = reported(method, metric)
    row = rows_of(comparison(records, method, metric))[-1]
    runs = [r for r in select(records, method) if r.status == "finished"]
    line: dict[str, object] = {
        "Claim": f"{METHOD_NAMES[method]} reaches, {METRICS[metric]}",
        "Verdict": NOT_RUN,
        "Printed": _with_notes(score(printed.number), printed.source) if printed else "-",
    }
    if not runs:
        return line
    if row.reproduced is None:
        told = ["not the paper's setting", f"labelled runs: {len(runs)}"]
        return line | {"Verdict": _with_notes("not comparable", *told)}
    behind = f"{row.category.removeprefix('mean of ')} categories, {len(comparable(runs))} runs"
    return line | {
        "Verdict": verdict_html(row),
        "Printed, same categories": score(row.reported_number),
        "Reproduced": _with_notes(score(row.reproduced), f"{score(row.low)} to {score(row.high)}", behind),
    }


def _gain(item: ClaimResult) -> dict[str, object]:
    """One method beats another."""
    line: dict[str, object] = {
        "Claim": item.claim.name,
        "Verdict": NOT_RUN,
        "Printed": signed(item.reported_all),
    }
    if not item.pairs:
        return line
    pair = item.pairs[-1]
    behind = f"{len(item.pairs) - 1} categories, {sum(len(p.seeds) for p in item.pairs[:-1])} pairs of runs"
    return line | {
        "Verdict": _with_notes(pair.decision, reservations(pair)),
        "Printed, same categories": signed(item.reported_here),
        "Reproduced": _with_notes(signed(pair.difference), interval(pair.low, pair.high), behind),
    }


def _with_notes(value: str, *notes: str) -> Markup:
    return Html(value + "".join(f"<br><small>{escape(note)}</small>" for note in notes))
