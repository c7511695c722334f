"""What holds for every page. The page is loaded once; see `visit` in conftest.py."""

import gzip
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

PAGE_WEIGHT = 1_500_000
"""Bytes that a page may make a reader load, galleries included, from a host that compresses, as most do."""

SMALL = ({"width": 360, "height": 800}, {"width": 768, "height": 1024})
DESKTOP = {"width": 1440, "height": 900}

NOT_OURS = {
    ("aria-required-children", ".citation-list"): "docutils writes the bibliography's roles",
}
"""Rule and selector of what cannot be mended from here, each with its reason."""

AXE = {"resultTypes": ["violations"], "preload": False}  # preloading asks wrong addresses for style sheets
RULES = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}  # the rest does not change with the theme


@cache
def compressed(file: Path) -> int:
    """Bytes of a file on its way through the net."""
    return len(gzip.compress(file.read_bytes()))


def test_nothing_fails(visit):
    assert not visit.problems


def test_no_other_site_is_asked(visit):
    assert not visit.elsewhere


def test_the_page_is_light(visit, site, url):
    parts = visit.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    loaded = {visit.page.url, *parts}
    sizes = {name: compressed(site / urlsplit(name.removeprefix(url)).path) for name in loaded}
    assert sum(sizes.values()) < PAGE_WEIGHT, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_images_have_a_text(visit):
    texts = visit.page.locator("main img").evaluate_all("images => images.map((i) => [i.src, i.alt])")
    assert [source for source, text in texts if len(text.split()) < 3] == []


def test_every_formula_is_set(visit):
    assert visit.page.locator("mjx-merror").count() == 0
    assert visit.page.locator("main .math:not(:has(mjx-container))").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    found = [
        (rule["id"], node["target"][0], node["failureSummary"])
        for rule in Axe().run(visit.page, options=AXE | RULES[scheme]).response["violations"]
        for node in rule["nodes"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert [item for item in found if item[:2] not in NOT_OURS] == []


CUT = """captions => captions.filter(caption => {
    const box = caption.closest('.table-scroll').getBoundingClientRect();
    return caption.getBoundingClientRect().right > box.right + 1;
}).map(caption => caption.textContent)"""

HIDDEN = """boxes => boxes.filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => box.querySelector('caption')?.textContent ?? box.textContent.slice(0, 80))"""


@pytest.mark.parametrize("size", [*SMALL, DESKTOP], ids=["phone", "tablet", "desktop"])
def test_the_page_fits_the_screen_and_the_captions_their_boxes(visit, size):
    visit.page.set_viewport_size(size)
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    cut = visit.page.locator(".table-scroll caption").evaluate_all(CUT)
    visit.page.set_viewport_size(DESKTOP)
    assert wide <= size["width"]
    assert cut == []


def test_on_a_desktop_no_column_is_hidden_but_in_the_papers_own_tables(visit):
    hidden = visit.page.locator(".table-scroll").evaluate_all(HIDDEN)
    assert [caption for caption in hidden if "printed, and reproduced in bold" not in caption] == []
