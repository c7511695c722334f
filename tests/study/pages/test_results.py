from html.parser import HTMLParser

import pytest

from stlib.protocol import CATEGORIES, METRICS
from study import tables
from study.analysis.comparison import comparison, means, state_of_study
from study.analysis.sensitivity import readings
from study.pages import results

VOID = {"br"}


class Page(HTMLParser):
    """Collects tags, and fails on markup that is not balanced."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(str(html))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def runs(make_record):
    return [
        *(make_record("bottle", seed, 0.988 + seed / 1000) for seed in range(3)),
        make_record("pill", value=0.80),
        make_record("toothbrush", gaps=["test/good: 0 of 12 images"]),
    ]


def test_a_comparison_has_words_signs_and_links(runs):
    page = Page(results.comparison_html(comparison(runs, "stpm", "pixel_auroc"), "c"))
    assert [a["href"] for a in page.all("a")] == [
        *(f"../records/paper/stpm/bottle-s{seed}.json" for seed in range(3)),
        "../records/paper/stpm/pill-s0.json",
        "../records/paper/stpm/toothbrush-s0.json",
    ]
    for words in (
        "lower -0.178",
        "provisional",
        "agrees +0.001",
        "0.989 \u00b1 0.001",
        "not comparable",
        "not run",
    ):
        assert words in page.text
    assert "incomplete dataset: test/good: 0 of 12 images" in page.text
    classes = {attrs.get("class") for attrs in page.all("span")}
    assert {"verdict-agree", "verdict-lower", "badge-partial", "verdict-notrun"} <= classes


@pytest.mark.parametrize("given", ["runs", "nothing"])
def test_every_table_is_sound_with_and_without_records(given, runs):
    records = runs if given == "runs" else []
    scores = ("pixel_ap", "pixel_f1", "iap")
    tables = [
        results.comparison_html(comparison(records, "stpm", "image_auroc"), "c"),
        results.comparison_html(means(records, "stpm", list(METRICS)), "c", first="Mean"),
        results.metrics_html(records, "stpm", scores),
        results.sensitivity_html(readings(records, "pixel_auroc"), "c"),
        results.scores_html(records, scores, "c"),
        results.rerun_html(records),
        results.state_html(state_of_study(records)),
        results.tolerances_html(),
        results.profiles_html(),
    ]
    for table in tables:
        page = Page(table)
        assert "nan" not in page.text.lower()
        assert "None" not in page.text
        if given == "nothing" and table not in tables[-2:]:
            assert "not run" in page.text


def test_the_state_has_a_row_per_category_and_a_column_per_method(runs):
    page = Page(results.state_html(state_of_study(runs, ["stpm", "pfadseg"])))
    assert [attrs["scope"] for attrs in page.all("th")].count("row") == len(CATEGORIES)
    assert "3 seeds" in page.text


def test_only_lines_that_differ_are_listed(runs):
    frames = [comparison(runs, "stpm", metric) for metric in ("image_auroc", "pixel_auroc")]
    page = Page(results.differing_html(frames))
    assert "pill, image AUROC" in page.text
    assert "pill, pixel AUROC" in page.text
    assert "bottle, pixel AUROC" not in page.text
    assert "mean of" not in page.text
    assert "No measured category" in results.differing_html([comparison([], "stpm", "iap")])


def test_the_rerun_table_names_command_and_record(runs):
    page = Page(results.rerun_html(runs[:1]))
    assert "stlib run stpm bottle --seed 0" in page.text
    assert page.all("a")[0]["href"] == "../records/paper/stpm/bottle-s0.json"


def test_a_method_without_runs_is_one_line():
    assert (
        results.metrics_html([], "pfadseg", ["iap"]) == f"PFADSeg at the paper's schedule: {tables.NOT_RUN}"
    )
