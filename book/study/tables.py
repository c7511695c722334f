"""Tables and sentences as plain HTML that reads well without styles, scripts or sight. Imports no torch."""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd


class Markup(str):
    """HTML that must not be escaped again."""

    __slots__ = ()

    def __add__(self, other: str) -> "Html":
        return Html(str(self) + (other if isinstance(other, Markup) else escape(other)))


class Html(Markup):
    """Markup that a notebook shows as it is, such as a table or a cell of one."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


class Text(Markup):
    """A sentence. Shown as Markdown: other HTML gets a light card from the theme in dark mode."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)


NOT_RUN = Text('<span class="verdict-notrun">not run</span>')
"""Shown in the place of a table or a number without runs."""


def to_html(frame: pd.DataFrame, caption: str) -> Html:
    """`frame` as an accessible table; the first column heads the rows, the index is not shown.

    Cells are shown as text, `Markup` cells as they are, missing ones as a dash. The wrapper scrolls sideways
    and can be reached with the keyboard.
    """
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    body = "".join(_row(values) for values in frame.itertuples(index=False, name=None))
    return Html(
        f'<div class="table-scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="dataframe"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def plain(content: list[dict[str, object]] | dict[str, object]) -> pd.DataFrame:
    """Rows or columns as a frame that keeps its cells; pandas would turn `Markup` into plain text."""
    return pd.DataFrame(content, dtype=object)


def _row(values: Sequence[object]) -> str:
    head, *cells = map(_cell, values)
    return f'<tr><th scope="row">{head}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _cell(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return score(value) if isinstance(value, float) else escape(str(value))


def score(value: float | None) -> str:
    """A fraction with three decimals, a dash for nothing.

    >>> score(0.98765), score(None)
    ('0.988', '-')
    """
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign; what rounds to nothing has none.

    >>> signed(0.0124), signed(-0.0124), signed(-0.0001)
    ('+0.012', '-0.012', '0.000')
    """
    if value is None or np.isnan(value):
        return "-"
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def interval(low: float | None, high: float | None) -> str:
    """The ends of a difference; four decimals where three would hide on which side of zero an end lies.

    >>> interval(-0.0124, 0.002), interval(0.0002, 0.0121)
    ('-0.012 to +0.002', '+0.0002 to +0.0121')
    """
    close = any(end is not None and 0 < abs(end) < 0.0005 for end in (low, high))
    digits = 4 if close else 3
    return f"{signed(low, digits)} to {signed(high, digits)}"
