"""What runs cost, from the records. Imports no torch."""

from collections.abc import Iterable, Sequence
from statistics import median

from stlib.records.reported import METHOD_NAMES
from stlib.records.schema import Summary
from study.plan.estimate import estimate, held_seconds, seconds
from study.plan.grid import Cell
from study.tables import Markup, Text, plain, to_html


def study_html(cells: Sequence[Cell], records: Sequence[Summary]) -> Markup:
    """What the whole grid costs on GPUs or on CPUs, as far as there are records to tell."""
    rows: list[dict[str, object]] = [
        {
            "Method": METHOD_NAMES[cost.method],
            "Runs": cost.runs,
            "On": cost.processor,
            "Minutes a run": "-" if cost.seconds is None else f"{cost.seconds / 60:.1f}",
            "Hours in all": "unknown" if cost.hours is None else f"{cost.hours:,.0f}",
            "From": cost.source,
        }
        for cost in estimate(cells, records)
    ]
    return to_html(
        plain(rows), f"All {len(cells)} runs of the paper's grid: hours of one core, or of one GPU."
    )


def spent(records: Iterable[Summary]) -> Text:
    """Core hours and GPU hours in the records."""
    runs = [r for r in records if r.profile != "demo"]
    hours = {
        kind: sum(held_seconds(r) for r in runs if r.runtime.processor == kind) / 3600
        for kind in ("CPU", "GPU")
    }
    share = median(r.runtime.evaluate_seconds / seconds(r) for r in runs) if runs else 0.0
    return Text(
        f"The {len(runs)} recorded runs on MVTec AD took {hours['CPU']:.1f} hours of one CPU core and "
        f"{hours['GPU']:.1f} GPU hours; evaluation (maps, metrics, bootstrap and every other reading "
        f"of the same model) is {share:.0%} of a run in the median."
    )
