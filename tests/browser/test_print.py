"""The single page behind `make pdf`: every page's text, and links that stay inside or lead to the web."""

from collections import Counter

import pytest
from bs4 import BeautifulSoup
from print_book import whole_book


@pytest.fixture(scope="module")
def book(site) -> BeautifulSoup:
    return BeautifulSoup(whole_book(site), "html.parser")


def test_every_page_is_in_the_book(book, pages):
    chapters = [article["id"].removesuffix(":") for article in book.select("body > article")]
    assert chapters[0] == "book/intro.html"
    assert sorted(chapters) == [page for page in pages if page not in ("genindex.html", "search.html")]


def test_links_stay_inside_or_lead_to_the_web(book):
    places = Counter(str(tag["id"]) for tag in book.select("[id]"))
    assert {name for name, times in places.items() if times > 1} == set()
    addresses = [str(link["href"]) for link in book.select("body a[href]")]
    assert len([address for address in addresses if address.startswith("#")]) > 20
    elsewhere = [address for address in addresses if address.removeprefix("#") not in places]
    assert [address for address in elsewhere if not address.startswith("https://")] == []


def test_pictures_and_styles_are_found(book, site):
    files = [str(tag["src"]) for tag in book.select("[src]")]
    files += [str(tag["href"]) for tag in book.select("head link[rel=stylesheet]")]
    assert len(files) > 20
    assert [name for name in files if not (site / name.partition("?")[0]).is_file()] == []
