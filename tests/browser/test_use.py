"""What a reader does: look up, sort, filter, copy, change the theme, follow a number to its record."""

import csv
import io
import json

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from stlib.paths import RECORDS, ROOT

CHAPTER = "book/stpm.html"
"""Has a table with a row per category, links to records and a mean row."""


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def table(page: Page, url: str) -> Locator:
    """The first comparison of the chapter."""
    page.goto(url + CHAPTER)
    return page.locator("table.dataframe", has_text="One more run, 95 %").first


def rows(table: Locator) -> list[list[str]]:
    """The visible body rows as shown."""
    return [
        [" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()]
        for row in table.locator("tbody tr").all()
        if row.is_visible()
    ]


def tools(page: Page, table: Locator) -> Locator:
    """The filter and the buttons below the table."""
    return table.locator("xpath=../following-sibling::*[1]")


def record_of(link: Locator) -> bytes:
    """The committed file behind a link to a record."""
    return (RECORDS / link.get_attribute("href").removeprefix("../records/")).read_bytes()


def test_the_address_alone_leads_to_the_first_chapter(page, url):
    page.goto(url)
    page.wait_for_url("**/book/intro.html")


def test_a_column_sorts_both_ways_and_the_mean_stays_last(table):
    head = table.get_by_role("columnheader", name="Reproduced")
    column = head.get_by_role("button")
    position = table.locator("thead th").all_inner_texts().index("Reproduced")

    def scores() -> list[float]:
        cells = [row[position] for row in rows(table)[:-1]]
        words = [cell for cell in cells if not cell]
        assert cells[len(cells) - len(words) :] == words, "rows without a score come last"
        return [float(cell.split()[0]) for cell in cells if cell]

    column.click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    rising = scores()
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    assert rows(table)[-1][0].startswith("mean")
    column.click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert scores() == rising[::-1]
    assert rows(table)[-1][0].startswith("mean")


@pytest.fixture
def long_table(page: Page, url: str) -> Locator:
    """A table of a paper, with a row per category."""
    page.goto(url + "book/tables.html")
    return page.locator("table.dataframe", has_text="AnoGAN")


def test_the_filter_keeps_what_matches(page, long_table):
    table = long_table
    everything = rows(table)
    tools(page, table).get_by_role("searchbox").fill("BOTTLE")
    assert rows(table) == [row for row in everything if row[0] == "bottle"]
    tools(page, table).get_by_role("searchbox").fill("")
    assert rows(table) == everything


def test_a_table_is_copied_as_csv(page, long_table, context, url):
    table = long_table
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    tools(page, table).get_by_role("searchbox").fill("bottle")
    tools(page, table).get_by_role("button", name="Copy CSV").click()
    expect(tools(page, table).get_by_role("status")).to_have_text("CSV copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    head, *body = csv.reader(io.StringIO(copied))
    assert head[0] == "Row"
    assert body == rows(table)


def test_without_a_clipboard_the_text_is_shown_for_copying(page, url):
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(url + CHAPTER)
    table = page.locator("table.dataframe", has_text="One more run, 95 %").first
    tools(page, table).get_by_role("button", name="Copy LaTeX").click()
    text = tools(page, table).get_by_role("textbox", name="LaTeX")
    expect(text).to_be_focused()
    assert text.input_value().startswith("\\begin{tabular}{l")
    assert text.input_value().count(" \\\\\n") == len(rows(table)) + 1
    assert page.evaluate("getSelection().toString()") == text.input_value()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("LayerScale", "PFADSeg and DeSTSeg"),
        ("own images", "Your own parts"),
        ("threshold", "Your own parts"),
        ("licence", "Your own parts"),
        ("PatchCore", "The papers"),
        ("JupyterLab", "Run it"),
    ],
)
def test_the_search_finds_the_right_page_first(page, url, asked, found):
    page.goto(url + "book/intro.html")
    page.get_by_role("button", name="Search").first.click()
    page.locator("#pst-search-dialog input").fill(asked)
    page.keyboard.press("Enter")
    page.locator("#search-results .search-summary", has_text="found").wait_for()
    page.locator("#search-results li a").first.click()
    expect(page.locator("h1:visible")).to_contain_text(found)


def test_the_switch_shows_one_number_of_a_cell(page, long_table, url):
    cell = long_table.locator("td", has=page.locator(".reproduced")).first
    numbers = [cell.locator(f".{name}") for name in ("reported", "reproduced", "difference")]

    def shown() -> list[bool]:
        return [number.is_visible() for number in numbers]

    assert shown() == [True, True, False]
    for name, wanted in (
        ("reported", [True, False, False]),
        ("reproduced", [False, True, False]),
        ("difference", [False, False, True]),
    ):
        page.get_by_role("radio", name=name).check()
        assert shown() == wanted


def test_a_papers_table_is_downloaded_as_plain_numbers(page, url):
    page.goto(url + "book/tables.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="et_stpm-table-iii.csv").click()
    lines = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    row = next(line for line in lines if (line["row"], line["method"]) == ("grid", "stpm"))
    assert float(row["difference"]) == pytest.approx(float(row["reproduced"]) - float(row["reported"]))
    assert all((RECORDS / name).is_file() for name in row["records"].split())


def test_the_theme_can_be_changed_and_stays(page, url):
    page.emulate_media(color_scheme="light")
    page.goto(url + "book/intro.html")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(3):  # auto, light, dark
        if page.evaluate("document.documentElement.dataset.mode") != "dark":
            page.get_by_role("button", name="Color mode").click()
    assert page.evaluate("document.documentElement.dataset.mode") == "dark"
    assert page.evaluate(background) != light
    page.goto(url + CHAPTER)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_number_leads_to_its_record(page, table):
    row = table.locator("tbody tr", has=page.locator("a[download]")).first
    link = row.locator("a[download]").first
    link.click()
    summary = page.get_by_role("dialog")
    expect(summary).to_contain_text(row.get_by_role("rowheader").inner_text())
    with page.expect_download() as download:
        summary.get_by_role("link").click()
    content = download.value.path().read_bytes()
    record = json.loads(content)
    assert record["category"] == row.get_by_role("rowheader").inner_text()
    assert content == record_of(link)
    assert f"{record['metrics']['image_auroc']:.3f}" in summary.inner_text()
    page.keyboard.press("Escape")
    expect(summary).to_have_count(0)


def test_a_run_is_repeated_by_the_command_beside_its_record(page, context, url):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    page.goto(url + CHAPTER)
    row = page.locator("#rerun-it tbody tr").first
    row.hover()
    row.get_by_role("button").click()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command == row.locator("pre").inner_text().strip()
    record = json.loads(record_of(row.get_by_role("link").first))
    assert command.startswith(f"stlib run {record['method']} {record['category']} --seed {record['seed']} ")


def test_a_chapter_hands_out_its_notebook(page, url):
    page.goto(url + CHAPTER)
    with page.expect_download() as download:
        page.locator("#rerun-it").get_by_role("link", name="run.ipynb").click()
    assert download.value.path().read_bytes() == (ROOT / "notebooks" / "run.ipynb").read_bytes()
