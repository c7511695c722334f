"""The one table and the one sentence: what is escaped, formatted, left blank, and readable without sight."""

from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml
from IPython.core.formatters import DisplayFormatter
from jinja2 import UndefinedError

from stlib.paths import ROOT
from study.tables import RECORDS_URL, say, table


class Page(HTMLParser):
    """Collects tags and texts, and fails on markup that is not balanced."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(str(html))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_a_table_can_be_read_without_sight():
    page = Page(table(pd.DataFrame({"a": ["<b>"], "b": [1]}), 'the "caption"'))
    assert [attrs["scope"] for attrs in page.all("th")] == ["col", "col", "row"]
    (box,) = page.all("div")
    assert box == {
        "class": "table-scroll", "role": "region", "tabindex": "0", "aria-label": 'the "caption"'
    }  # fmt: skip
    assert page.all("caption")
    assert not page.all("b")
    assert page.texts == ['the "caption"', "a", "b", "<b>", "1"]


def test_cells_are_templates_over_the_fields_of_a_row():
    frame = pd.DataFrame({"method": ["stpm", "<i>"], "change": [-0.0004, None]})
    both = "{{ method }}<br>{{ unit }}{{ change }}"
    columns = {"Method": "method|named", "Change": "change|signed", "Both": both}
    page = Page(table(frame, "{{ unit }}", columns, unit="%"))
    assert page.texts == ["%", *columns, "STPM", "0.000", "stpm", "%-0.000", "<i>", "<i>", "%"]
    with pytest.raises(UndefinedError, match="'chance' is undefined"):
        table(frame, "", {"Change": "chance|signed"})


def test_every_cell_but_the_first_may_share_a_template():
    frame = pd.DataFrame({"Category": ["pill"], "AP": [0.5], "IAP": [None]})
    assert Page(table(frame, "c", cell="{{ cell|number('.0%') }}")).texts[-2:] == ["pill", "50%"]


def test_without_rows_there_is_no_table():
    nothing = table([], "Runs of {{ who }}.", {"A": "a"}, who="A&B")
    assert nothing == ""
    assert nothing._repr_markdown_().startswith("<!--")  # otherwise the page would show its repr


def test_a_notebook_gets_tables_as_html_and_sentences_as_markdown():
    formatter = DisplayFormatter()
    assert set(formatter.format(table([{"a": 1}], "c"))[0]) == {"text/plain", "text/html"}
    assert set(formatter.format(say("{{ x }}", x=0.5))[0]) == {"text/plain", "text/markdown"}
    assert say("- {{ x }}, {{ y }}\n", x=0.5, y="<b>") == "- 0.500, &lt;b&gt;"


def test_the_site_serves_the_folder_that_the_links_name():
    config = yaml.safe_load((ROOT / "_config.yml").read_bytes())["sphinx"]["config"]
    (folder,) = config["html_extra_path"]  # its content lands at the root of the site
    site = (ROOT / folder).resolve()
    assert site / RECORDS_URL.removeprefix("../") == ROOT / "results" / "records"
