"""How the study shows numbers: one table, one sentence, the formats of both.

A cell, a caption and a sentence are Jinja2 templates over the fields of rows. So words stand in the pages and
numbers come from the analysis, which knows neither. HTML here reads well without styles, scripts or sight.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sized
from functools import cache

import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from study.analysis.ablation import ROW_NAMES
from study.analysis.answers import of_method
from study.analysis.comparison import Verdict
from study.analysis.reported import METHOD_NAMES, REPORTED_METRICS
from study.analysis.status import Status, of_gain, of_score, of_statement

OUTCOMES = {
    "inside, not proven": "inside, not proven",
    "outside, not proven": "outside, not proven",
    "not comparable": "not the paper's setting",
}
"""What a status alone leaves out."""


class Html(Markup):
    """Markup that a notebook shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(self))  # as the committed notebooks have it

    def _repr_html_(self) -> str:
        return str(self)


class Text(Markup):
    """Sentences. Shown as Markdown: other HTML gets a light card in dark mode. '' shows nothing."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self) or "<!-- nothing was run -->"


RECORDS_URL = "../records/"
"""From a page of the book to the records: the site serves `results/` at its root (`html_extra_path`)."""


NAMES = METHOD_NAMES | REPORTED_METRICS | ROW_NAMES | {
    "mean": "mean, all", "mean_texture": "mean, textures", "mean_object": "mean, objects"
}  # fmt: skip
"""Of methods, metrics, printed averages and the ends of an ablation, as readers know them."""


def table(
    rows: pd.DataFrame | Iterable[object],
    caption: str,
    columns: Mapping[str, str] | None = None,
    /,
    *,
    cell: str = "{{ cell }}",
    **context: object,
) -> Html | Text:
    """An accessible table; the first column heads the rows, and the wrapper scrolls with the keyboard too.

    `rows`: a frame, or mappings or dataclasses. `columns`: heading -> Jinja2 expression or template over the
    fields of a row (the row itself is `row`); without it, every column, its value as `cell` through the
    template of that name but for the first. `context` and the frame's `attrs` are known to all of
    them. Text is escaped, floats have three decimals, nothing is blank. Without rows there is no table.
    """
    if isinstance(rows, pd.DataFrame):
        context |= {str(name): value for name, value in rows.attrs.items()}
        rows = rows.set_axis(rows.columns.map(str), axis=1).to_dict("records")
    lines = [{**(row if isinstance(row, Mapping) else vars(row)), "row": row} for row in rows]
    if not lines:
        return Text()
    if columns is None:
        first, *others = lines[0]["row"]
        columns = {first: "row[head]"} | dict.fromkeys(others, f"{{% set cell = row[head] %}}{cell}")
    body = [[_cell(columns[head], context | line | {"head": head}) for head in columns] for line in lines]
    return Html(_TABLE.render(caption=Html(_template(caption).render(context)), heads=columns, body=body))


def download(frame: pd.DataFrame, name: str, words: str) -> Html:
    """A link that hands out `frame` as the CSV file `name`; the file is in the page, nothing is asked for."""
    data = b64encode(frame.to_csv(index=False).encode()).decode()
    link = Html('<a class="csv" download="{}" href="data:text/csv;charset=utf-8;base64,{}">{}</a>')
    return Html(link.format(name, data, words))


def say(template: str, **context: object) -> Text:
    """Sentences as Markdown from a Jinja2 template, with the formats of `table`."""
    return Text(_template(template).render(context).strip())


def _cell(template: str, context: Mapping[str, object]) -> Html:
    text = _template(template if "{" in template else f"{{{{ {template} }}}}").render(context)
    return Html(text.strip())


def score(value: float | None) -> str:
    """A fraction with three decimals, blank for nothing.

    >>> score(0.98765), score(None)
    ('0.988', '')
    """
    return "" if _missing(value) else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign, a true minus; what rounds to nothing has none.

    >>> signed(0.0124), signed(-0.0124), signed(-0.0001)
    ('+0.012', '\u22120.012', '0.000')
    """
    if _missing(value):
        return ""
    text = f"{value:+.{digits}f}"
    return _minus(text if float(text) else text[1:])


def interval(
    low: float | None, high: float | None, seeds: Sized | int = 0, counts: Iterable[int] = ()
) -> str:
    """The ends of a difference. Never more than three decimals; the sign tells the side of zero.

    `seeds`, or their number, or of a mean their `counts` by category: with one seed, chance in the training
    is not in the interval, which then says so. Blank where no replicate differs, as at a score of 1.

    >>> interval(-0.0124, 0.002), interval(0.0002, 0.0121), interval(0.01, 0.02, seeds=[0])
    ('\u22120.012 to +0.002', '+0.000 to +0.012', 'images only: +0.010 to +0.020')
    >>> interval(0.01, 0.02, seeds=[0], counts=[3, 1])
    'in part images only: +0.010 to +0.020'
    """
    if _missing(low) or _missing(high) or low == high:
        return ""
    ends = " to ".join(_minus(f"{end:+.3f}") if end else "0.000" for end in (low, high))
    alone = [count == 1 for count in counts] or [(seeds if isinstance(seeds, int) else len(seeds)) == 1]
    return f"{'in part ' if not all(alone) else ''}images only: {ends}" if any(alone) else ends


def number(value: float | None, form: str) -> str:
    """`value` in a format of Python, blank for nothing.

    >>> number(1234.5, ",.0f"), number(None, ".1%")
    ('1,234', '')
    """
    return "" if _missing(value) else _minus(format(value, form))


def named(key: object) -> str:
    """What readers call it (`NAMES`).

    >>> named("et_stpm"), named("iap90"), named("AFF")
    ('ET-STPM', 'IAP@90', 'AFF')
    """
    return NAMES.get(str(key), str(key))


def badge(status: Status) -> Markup:
    """A status in its colour; nothing where nothing was run."""
    return Markup('<span class="status-{0}">{0}</span>').format(status) if status else Markup()


def note(text: str) -> Markup:
    """Small print below a number."""
    return Markup("<br><small>{}</small>").format(text) if text else Markup()


def below(markup: Markup) -> Markup:
    """Markup on a line of its own."""
    return Markup("<br>{}").format(markup)


def plus_minus(deviation: float | None) -> str:
    """A standard deviation behind a mean.

    >>> plus_minus(0.0124), plus_minus(0.0001)
    (' \u00b1 0.012', ' \u00b1 < 0.0005')
    """
    if _missing(deviation) or deviation is None:
        return ""
    return f" \u00b1 {deviation:.3f}" if deviation >= 0.0005 else " \u00b1 < 0.0005"


def span(numbers: Iterable[int]) -> str:
    """The smallest and the largest number, or the one that there is.

    >>> span([3, 1, 2]), span([2, 2])
    ('1 to 3', '2')
    """
    low, *_, high = sorted(numbers) * 2
    return f"{low} to {high}" if low != high else str(low)


def judged(verdict: Verdict, difference: float | None, tolerance: float, remark: str = "") -> Markup:
    """The status of a score, and below it the difference beside its tolerance and what must be known."""
    told = "" if _missing(difference) else f"{signed(difference)} of \u00b1{tolerance:.3f}"
    words = "; ".join(filter(None, [OUTCOMES.get(verdict, ""), remark]))
    long = Markup('<br><small class="long">{}</small>').format(words) if words else Markup()
    return badge(of_score(verdict)) + note(told) + long


def told_seeds(seeds: Iterable[int], counts: Iterable[int]) -> str:
    """Which seeds a paired difference has, or how many each category of a mean."""
    return f"{span(counts)} each" if counts else ", ".join(map(str, seeds))


def _minus(text: str) -> str:
    return "\u2212" + text[1:] if text.startswith("-") else text


def _missing(value: object) -> bool:
    return value is None or value != value


def _shown(value: object) -> object:
    return score(value) if value is None or isinstance(value, float) else value


ENVIRONMENT = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
)
for _format in (score, signed, number, named, badge, note, below, plus_minus, span, of_method, of_statement):
    ENVIRONMENT.filters[_format.__name__] = _format
for _function in (interval, judged, told_seeds, of_gain, of_score):
    ENVIRONMENT.globals[_function.__name__] = _function
ENVIRONMENT.globals["RECORDS_URL"] = RECORDS_URL
ENVIRONMENT.tests["missing"] = _missing


@cache
def _template(source: str) -> Template:
    return ENVIRONMENT.from_string(source)


_TABLE = _template(
    '<div class="table-scroll" role="region" tabindex="0" aria-label="{{ caption|striptags }}">'
    '<table class="dataframe"><caption>{{ caption }}</caption>'
    '<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead><tbody>'
    '{% for cells in body %}<tr><th scope="row">{{ cells[0] }}</th>'
    "{% for cell in cells[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>"
)
