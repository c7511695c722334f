"""Columns, captions and cells that several pages and notebooks show, for `study.tables`."""

from stlib.protocol import METRICS
from study.analysis.ablation import COLUMNS

SEEDS = (
    "seed{{ 's' if made.seeds|length > 1 }} {{ made.seeds|join(', ') }}"
    "{% for category, seeds in made.more.items() %}, on {{ category }} also {{ seeds|join(', ') }}"
    "{% endfor %}"
)
"""The seeds of `runs.made` in words."""

MADE = (
    "{% if not made.runs %}No run has finished yet.{% else %}{{ made.runs }} run{{ 's' if made.runs != 1 }}; "
    + SEEDS
    + "; training in {{ made.precisions|join(', ') }}; teacher {{ made.teachers|join(', ') }}; "
    "on {{ made.devices|join(' and ') }}.{% endif %}"
)
"""`runs.made` in words."""

SUMMARY = """
{% set told = answers|selectattr("status")|list %}
{% macro are(status) %}{% set n = told|selectattr("status", "eq", status)|list|length %}
{{ n }} {{ "is" if n == 1 else "are" }} {{ status }}{% endmacro %}
{% set setting, few, unproven = [], [], [] %}
{% for a in told if a.status == "open" %}
{% set _ = (setting if a.labels or a.here is none else few if a.seeds < 3 else unproven).append(a) %}
{% endfor %}
{% if told %}
**Of {{ told|length }} headline claims {{ are("supported") }}, {{ are("contradicted") }}, {{ are("open") }}**
{%- for why, found in (("with fewer than three seeds", few), ("not in the paper's setting", setting),
    ("not proven either way", unproven)) if found %}
{{ ":" if loop.first else "," }} {{ found|length }} {{ why|safe }}
{%- endfor %}.
{% endif %}
"""
"""The statuses of `answers.answers`, counted; and why claims are open."""

ANSWERS = """
{% set one = {"supported": "is supported", "contradicted": "is contradicted", "open": "is open"} %}
{% set several = {"supported": "are supported", "contradicted": "are contradicted", "open": "are open"} %}
{% macro seeds_of(counts) %}{{ counts|span }} seed{{ "s" if counts|max > 1 }}{% endmacro %}
{% macro claimed(a) %}
{% set both = a.printed is not none and a.printed_all is not none %}
{% set both = both and (a.printed - a.printed_all)|abs >= 0.005 %}
{{ (a.printed_all if both or a.printed is none else a.printed)|signed }}
{{- " over 15 categories" if both or a.printed is none }}{{ ", " ~ a.printed|signed ~ " on these" if both }}
{% endmacro %}
{% macro gain(told, status) %}
Its gain over {{ told[0].rival|named }}{{ " (here PFADSeg with no modules)" if told[0].baseline }} {# -#}
{{ one[status] }}:
{%- for a in told %} {{ a.metric|named }} {{ a.here|signed }} (printed {{ claimed(a)|trim }})
{{- "," if not loop.last }}{% endfor %}.
{%- for a in told if a.last is not none and a.last * a.here < 0 %} Tested at the last epoch, {# -#}
the gain in {{ a.metric|named }} is {{ a.last|signed }}, {# -#}
on {{ a.last_extreme[0] }} {{ a.last_extreme[1]|signed }}.
{%- endfor %}
{%- for a in told if a.long_gain is not none %}
{% set counts = told|rejectattr("long_gain", "none")|map(attribute="long_seeds")|map("length")|unique|sort %}
{% set places = "category" if counts == [1] else "categories" %}
{{- " If both train for 200 epochs (%s %s, %s):"|safe|format(
    counts|join(" or "), places, seeds_of(a.long_seeds)) if loop.first else "," }} {{ a.metric|named }} {# -#}
{{ a.long_gain|signed }}{{ "." if loop.last }}
{%- endfor %}
{% endmacro %}
{% macro level(told, status) %}
{% set off = told|rejectattr("difference", "none")|list if status != "supported" else [] %}
Its {{ told|map(attribute="metric")|map("named")|join(" and ") }} {# -#}
{{ (one if told|length == 1 else several)[status] }}
{%- for a in off %}{{ ":" if loop.first else " and" }} {{ a.difference|signed }}
{%- if loop.last %} from the printed {{ "one" if off|length == 1 else "ones" }}{% endif %}
{%- endfor %}
{%- for a in off if a.farthest and a.categories > 1 %}
{{- " (" if loop.first else ", " }}{{ a.metric|named ~ " " if off|length > 1 }}on {{ a.farthest[0] }} {# -#}
{{ a.farthest[1]|signed }}{{ ")" if loop.last }}
{%- endfor %}.
{%- for a in off if a.longer is not none %}
{{- " After 200 epochs instead of the paper's 100, as its authors' command says (%s):"|safe|format(
    seeds_of(a.longer_seeds)) if loop.first else "," }} {{ a.longer|signed }}{{ "." if loop.last }}
{%- endfor %}
{% endmacro %}
{% for method in methods %}
{% set own = answers|of_method(method)|selectattr("status")|list %}
- **{{ method|named }}** {# -#}
{%- if own %}
{% set counts = own|map(attribute="counts")|sum(start=()) %}
({{ own|map(attribute="categories")|unique|sort|join(" or ") }} of 15 categories
{%- if counts %}, {{ seeds_of(counts) }}{% endif %}
{%- if own|selectattr("labels")|list %}, {# -#}
{{ "in part " if own|rejectattr("labels")|list }}not the paper's setting
{%- endif %}).
{%- for kind in ("gain", "level") %}
{% for status in one %}
{% set told = own|selectattr("kind", "eq", kind)|selectattr("status", "eq", status)|list %}
{% if told %} {{ (gain if kind == "gain" else level)(told, status)|trim|replace("\n", " ") }}{% endif %}
{% endfor %}
{% endfor %}
{% else %}has not run at its paper's schedule.
{%- endif %}

{% endfor %}
"""
"""`answers.answers` in sentences, a line per method; the first page's table has every number."""

COMPACT = (
    "{% if cell.reproduced is not none %}{{ cell.reproduced|score }}"
    "{% if cell.verdict not in ('not reported', 'not comparable') %}{{ judged(cell.verdict, cell.difference, "
    "cell.tolerance)|below }}{% elif cell.verdict == 'not comparable' %}\u2020{% endif %}"
    "{% endif %}"
)
"""A `ComparisonRow` in one cell of `comparison.side_by_side`; blank without a run."""

SYSTEM = (
    "{% if cell is not none %}{{ cell.reproduced|score }}{{ '\u2020' if cell.verdict == 'not comparable' }}"
    "{{ cell.sd|plus_minus|trim|note }}{% endif %}"
)
"""A `ComparisonRow` in one cell of `comparators.systems`."""

LABELS = "{% if labels %}. Labels of the runs: {{ labels|join('; ') }}{% endif %}"
"""The end of a caption of `PAIRED`."""

MODULE_GAINS = "{{ metric|named }}, {{ profile }} schedule: gain by module" + LABELS
"""Caption of `ablation.steps` in a `paired.frame`."""

EPOCH_CHANGES = "{{ metric|named }}: ET-STPM minus STPM, same seeds, {{ profile }} schedule" + LABELS
"""Caption of `teacher_epochs.changes` in a `paired.frame`."""

PAIRED = {
    "Comparison": "name",
    "Difference": "difference|signed",
    "95 % interval": "interval(low, high, seeds if seeds is defined else (), "
    "counts if counts is defined else ())",
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
    "Printed scores of the categories, both sides from {{ tables }}. p: Wilcoxon's signed rank test"
    "{{ ', adjusted for the number of lines (Holm)' if holm }}"
)

ABLATION = {
    "Row": "label|named",
    "Trained parameters, M": "(parameters / 1e6)|number('.1f')",
    **{METRICS[metric]: metric for metric in COLUMNS},
    "Runs": "{% for r in runs %}{{ r.category }} s{{ r.seed }}{{ ', ' if not loop.last }}{% endfor %}",
}
"""Of `ablation.rows`."""

ABLATION_CAPTION = (
    "Ablation of PFADSeg, {{ profile }} schedule; "
    "{{ 'means over the runs named' if profile == 'paper' else 'compared with no paper' }}"
    "{% for label, runs in beside.items() %}"
    "{{ '; not in them, as not all rows have them: ' if loop.first else '; ' }}{{ label|named }}"
    "{% for r in runs %}, {{ r.category }} s{{ r.seed }}{% endfor %}{% endfor %}"
    "{% for category, seed in left_out %}{{ '; without ' if loop.first else ', ' }}{{ category }} s{{ seed }}"
    "{{ ', as its rows trained in two precisions' if loop.last }}{% endfor %}"
    "{% if remarks %}; {{ remarks|join(', ') }}{% endif %}"
)

RERUN = {
    "Runs": "{{ method|named }}{{ ', ' ~ variant|named if variant }}, {{ category }}"
    "{{ ', ' ~ profile if profile != 'paper' }}",
    "Records, by seed": '{% for r in records %}<a href="{{ RECORDS_URL }}{{ r.path.as_posix() }}" download '
    'aria-label="record {{ r.path.as_posix() }}">{{ r.seed }}</a>{{ ", " if not loop.last }}{% endfor %}',
    # the class brings a copy button
    "Command of the first": '<div class="highlight"><pre style="white-space: pre-wrap; overflow-wrap: '
    'anywhere">{{ command(records[0]) }}</pre></div>',
}
"""Of `runs.families`; `command` is `runs.rerun_command`."""

RERUN_CAPTION = "Records, and the command that repeats the first; another --seed repeats the others"
