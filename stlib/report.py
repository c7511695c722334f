"""The report of an inspection: one HTML file of all images, the worst first."""

import base64
import io
import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from jinja2 import Environment
from PIL import Image

from stlib.inspection import Inspected

PICTURES = 100
"""Of a report, the worst images first; the others have a line without a picture."""
THUMBNAIL = 360
"""Longest side of a report's pictures in pixels."""
REPORT_MARK = b"<th>Image and map</th>"
"""By which a report is known among other pages."""


@dataclass
class Row:
    """One image of a report."""

    score: float
    decision: str
    path: str
    picture: str
    """A small JPEG in base64; empty for an image that is not among the worst PICTURES."""

    @property
    def place(self) -> float:
        """By which rows are sorted, the worst first: so is a score that is no number."""
        return -math.inf if math.isnan(self.score) else -self.score


@dataclass
class Report:
    """One HTML file: the decision, score and picture of every image, the worst first."""

    title: str
    about: str
    """Which threshold the decisions rest on."""
    images: int
    """How many it is to hold; with fewer it says that it was broken off."""
    rows: list[Row] = field(default_factory=list)
    """The images so far, the worst first."""
    failed: list[str] = field(default_factory=list)
    """Why images could not be read."""
    left_out: list[str] = field(default_factory=list)
    """Which files were not looked at, and why."""

    def add(self, found: Inspected) -> None:
        """Take note of one image, and of its picture if it is among the worst so far."""
        row = Row(found.score, found.decision, str(found.path), picture="")
        index = bisect_right(self.rows, row.place, key=lambda other: other.place)
        self.rows.insert(index, row)
        if index < PICTURES:
            row.picture = base64.b64encode(_picture(found)).decode()
        if len(self.rows) > PICTURES:
            self.rows[PICTURES].picture = ""

    def html(self) -> bytes:
        """The page."""
        page = Environment(autoescape=True).from_string(_PAGE)
        return page.render(
            report=self,
            decided=Counter(row.decision for row in self.rows),
            reached=len(self.rows) + len(self.failed),
        ).encode(errors="backslashreplace")  # the name of a file may be no UTF-8


def _picture(found: Inspected) -> bytes:
    """The image and its overlay side by side, a small JPEG."""
    both = Image.new("RGB", (2 * found.image.width, found.image.height))
    both.paste(found.image)
    both.paste(found.overlay(), (found.image.width, 0))
    both.thumbnail((2 * THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ report.title }}</title>
<style>
body { font-family: sans-serif; margin: 1.5em; } td, th { padding: .3em .8em; text-align: left; }
.anomalous td:nth-child(2) { color: #b00020; font-weight: bold; }
</style>
<h1>{{ report.title }}</h1><p>{{ report.rows|length }} images
{%- for name in ("anomalous", "good") if decided[name] %}, {{ decided[name] }} {{ name }}{% endfor %}
{%- if reached < report.images %}; broken off after {{ reached }} of {{ report.images }}{% endif %}
{{- "; " }}{{ report.failed|length }} could not be read. {{ report.about }}</p>
<p>The redder a place, the less it is like the good images that the detector learnt from.</p>
<table><tr><th>Score</th><th>Decision</th><th>Image</th><th>Image and map</th></tr>
{% for row in report.rows -%}
<tr class="{{ row.decision }}"><td>{{ "%.6g"|format(row.score) }}</td><td>{{ row.decision }}</td>
{{- "" }}<td>{{ row.path }}</td><td>
{%- if row.picture %}<img alt="" src="data:image/jpeg;base64,{{ row.picture }}">{% endif %}</td></tr>
{% endfor -%}
</table>
{%- for heading, texts in (("Not read", report.failed), ("Left out", report.left_out)) if texts -%}
<h2>{{ heading }}</h2><ul>{% for text in texts %}<li>{{ text }}</li>{% endfor %}</ul>
{%- endfor %}
</html>
"""
