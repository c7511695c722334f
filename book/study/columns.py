"""Columns, captions and cells that several pages and notebooks show, for `study.tables`. Imports no torch."""

from collections.abc import Iterable

from stlib.protocol import METRICS, Metric

MADE = (
    "{% if not made.runs %}No run has finished yet.{% else %}{{ made.runs }} run{{ 's' if made.runs != 1 }}; "
    "seed{{ 's' if made.seeds|length > 1 }} {{ made.seeds|join(', ') }}; "
    "training in {{ made.precisions|join(', ') }}; teacher {{ made.teachers|join(', ') }}; "
    "on {{ made.devices|join(', ') }}.{% endif %}"
)
"""`runs.made` in words."""

ANSWERS = """
{% macro told(a) %}
{% set words = {"supported": "holds", "contradicted": "does not hold", "open": "is open"}[a.status] %}
{% if a.kind == "level" %}
its {{ a.metric|named }} {{ words }}
{%- if a.here is not none %} ({{ a.difference|signed }} of ±{{ a.tolerance|score }}){% endif %}
{% elif a.kind == "gain" %}
its gain over {{ a.rival|named }} in {{ a.metric|named }} {{ words }} ({{ a.here|signed }} measured,
{{ (a.printed if a.printed is not none else a.printed_all)|signed }} printed
{%- if a.last is not none %}; {{ a.last|signed }} at the last epoch{% endif %})
{% else %}
in its own table its {{ a.metric|named }} is above {{ a.rival|named }}'s in {{ a.higher }} categories and
below in {{ a.lower }}
{% endif %}
{% endmacro %}
{% for method in methods %}
{% set own = answers|selectattr("method", "eq", method)|selectattr("status")|list %}
{% set run = own|rejectattr("kind", "eq", "rows")|list %}
- **{{ method|named }}**: {% if not run %}not run at its paper's schedule{{ "; " if own }}{% endif %}
{% for a in own %}{{ told(a)|trim|replace("\n", " ") }}{{ "; " if not loop.last }}{% endfor %}.
{%- for a in run[-1:] %} {{ a.categories }} of 15 categories, {{ a.seeds }} seed{{ "s" if a.seeds != 1 }}
{%- if a.labels %}, not the paper's setting{% endif %}.{% endfor %}

{% endfor %}
"""
"""`answers.answers` in a sentence per method, for the first page and the README."""

RECORDS = (
    '{% for path in records %}<a href="{{ RECORDS_URL }}{{ path }}" download aria-label="record {{ path }}">'
    "{{ path.rpartition('-s')[2].removesuffix('.json') }}</a>{{ ', ' if not loop.last }}"
    "{% else %}{{ seeds or '-' }}{% endfor %}"
)
"""The seeds behind a `ComparisonRow`, each a link to its record."""

COMPARISON = {
    "Status": "judged(verdict, difference, tolerance, provisional, note)",
    "Reported": '{% if reported is not missing %}<span title="{{ source }}">{{ reported }}</span>{% endif %}',
    "Reproduced": "{{ reproduced|score }}{{ sd|plus_minus }}",
    "Seeds": RECORDS,
    "One more run, 95 %": "{% if low is not missing %}{{ low|score }} to {{ high|score }}{% endif %}",
    "Could it tell the rival apart?": "{% if gap is not missing %}"
    "{{ 'yes' if gap|abs > tolerance else 'no' }}: {{ rival|named }} {{ gap|signed }}{% endif %}",
}
"""Of `comparison.comparison`, behind a first column of the page's own.

The interval is where one more run, such as the published one, has to be expected; the last column compares
the tolerance with the distance to the printed score of the method's rival.
"""

COMPACT = (
    "{% if cell.verdict == 'not run' %}{{ NOT_RUN }}"
    "{% if cell.reported %}<br><small>reported {{ cell.reported }}</small>{% endif %}"
    "{% else %}{{ cell.reproduced|score }}"
    "{% if cell.category.startswith('mean') %} ({{ cell.category.removeprefix('mean of ') }}){% endif %}"
    "{% if cell.verdict != 'not reported' %}<br>"
    "{% if cell.reported %}<small>reported {{ cell.reported }}</small><br>{% endif %}"
    "{{ judged(cell.verdict, cell.difference, cell.tolerance, cell.provisional) }}{% endif %}{% endif %}"
)
"""A `ComparisonRow` in one cell of `comparison.side_by_side`."""

LABELS = "{% if labels %}. Labels of the runs: {{ labels|join('; ') }}{% endif %}"
"""The end of a caption of `PAIRED`."""

MODULE_GAINS = "{{ metric|named }}, {{ profile }} schedule: gain by module" + LABELS
"""Caption of `ablation.steps` in a `paired.frame`."""

EPOCH_CHANGES = "{{ metric|named }}: ET-STPM minus STPM, same seeds, {{ profile }} schedule" + LABELS
"""Caption of `teacher_epochs.changes` in a `paired.frame`."""

PAIRED = {
    "Comparison": "name",
    "Difference": "{{ NOT_RUN if difference is missing else difference|signed }}",
    "95 % interval": "interval(low, high)",
    "Answer": "decision",
    "Category, seeds": "{% if difference is not missing %}{{ category }}, {{ told_seeds(seeds, counts) }}"
    "{% endif %}",
    "First, second": "{% if first is not missing %}{{ first|score }}, {{ second|score }}{% endif %}",
}
"""Of `paired.frame`."""

WINS = {
    "Claim": "name",
    "Higher, equal, lower in": "{{ higher }}, {{ equal }}, {{ lower }}",
    "Mean": "mean|signed(4)",
    "Textures, objects": "{{ textures|signed }}, {{ objects|signed }}",
    "Without the best category": "{{ without_best|signed }} (without {{ best }}, {{ best_gain|signed }})",
    "Worst category": "{{ worst }}, {{ worst_gain|signed }}",
    "p": "p_value|number('.2g')",
}
"""Of `claims.printed_wins`."""

WINS_CAPTION = (
    "Printed scores of the categories, both sides from the claiming paper. p: Wilcoxon's signed rank test, "
    "adjusted for the number of lines (Holm)"
)

ABLATION = {
    "Row": "label",
    "Parameters, M": "(parameters / 1e6)|number('.1f')",
    **{
        METRICS[
            metric
        ]: "{% if profile == 'paper' %}<small>reported {{ METRIC.printed or '-' }}</small><br>{% endif %}"
        "{{ METRIC.reproduced|score if METRIC.reproduced is not none else 'not run' }}".replace(
            "METRIC", metric
        )
        for metric in ("image_auroc", "pixel_ap", "iap")
    },
    "Runs": "{% for r in runs %}{{ r.category }} s{{ r.seed }}{{ ', ' if not loop.last }}"
    "{% else %}not run{% endfor %}",
    "Step, s": "step_seconds|number('.2f')",
}
"""Of `ablation.rows`."""

ABLATION_CAPTION = (
    "Ablation of PFADSeg, {{ profile }} schedule; "
    "{{ 'reported: means over 15 categories' if profile == 'paper' else 'compared with no paper' }}"
    "{% if remarks %}; {{ remarks|join(', ') }}{% endif %}"
)

RERUN = {
    "Record": '<a href="{{ RECORDS_URL }}{{ row.path.as_posix() }}" download>'
    "{{ variant ~ ' ' if variant }}{{ category }}, seed {{ seed }}</a>",
    # the class brings a copy button
    "Command": '<div class="highlight"><pre style="white-space: pre-wrap; overflow-wrap: anywhere">'
    "{{ command(row) }}</pre></div>",
}
"""Of records; `command` is `runs.rerun_command`."""

RERUN_CAPTION = "Records, and the commands that repeat them"

RUNTIMES = {
    "Method, profile": "{{ method }}{{ ' ' ~ variant if variant }}, {{ profile }}",
    "Device": "{{ device }}, {{ threads }} thread{{ 's' if threads != 1 }}",
    "Precision": "precision",
    "Runs": "runs",
    "Training, min": "(training / 60)|number('.1f')",
    "Evaluation, min": "(evaluation / 60)|number('.1f')",
    "Memory, GiB": "(memory / 1024)|number('.1f')",
}
"""Of `runs.runtimes`."""


def scores(metrics: Iterable[Metric]) -> dict[str, str]:
    """Of records: the run, its scores, its labels. For runs that no table compares."""
    run = "{{ method|named }}{{ ' (variant ' ~ variant ~ ')' if variant }}, {{ category }}, seed {{ seed }}"
    columns = {METRICS[metric]: f"row.metrics.get('{metric}')|score" for metric in metrics}
    labels = "(row.labels() + row.remarks())|join('; ') or 'none'"
    return {"Run": run} | columns | {"Labels and remarks": labels}
