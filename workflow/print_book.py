"""The book as a PDF file: all pages of the built site as one, printed by Chromium. Called by `make pdf`.

Usage: python workflow/print_book.py build/_build/html build/book.pdf
"""

import os
import sys
import tempfile
from html import escape
from pathlib import Path
from posixpath import join, normpath
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import sync_playwright

FIRST = "book/intro.html"
NOT_PRINTED = "details.hide, a.headerlink, .table-tools"
"""Code of cells, and what only a click can use."""


def place(page: str, fragment: str = "") -> str:
    """The id in the whole book of a place in a page: several pages may use the same one."""
    return f"{page}:{fragment}"


def from_root(page: str, target: str) -> str:
    """A relative address in `page`, seen from the root of the site."""
    return normpath(join(page, "..", target))


def chapter(site: Path, page: str, titles: dict[str, str]) -> Tag:
    """The text of a page; its links lead to places of the book, to the web, or are no links any more."""
    article = BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser").select_one("article")
    assert article, f"{page} holds no text"
    for tag in article.select(NOT_PRINTED):
        tag.decompose()
    for tag in article.select("[id]"):
        tag["id"] = place(page, str(tag["id"]))
    for image in article.select("img[src]"):
        image["src"] = from_root(page, str(image["src"]))
    for link in article.select("a[href]"):
        address = urlsplit(str(link["href"]))
        target = from_root(page, address.path) if address.path else page
        if target in titles and not address.scheme:
            link["href"] = "#" + place(target, address.fragment)
        elif address.scheme in ("", "data"):
            del link["href"]  # a file of the site or of the page, such as a record: not in the PDF
    if heading := article.select_one("h1"):
        heading.string = titles[page]  # executed notebooks share one heading
    article["id"] = place(page)
    return article


def whole_book(site: Path) -> str:
    """All pages as one, in the order of the table of contents."""
    book = BeautifulSoup((site / FIRST).read_text(encoding="utf-8"), "html.parser")
    listed = {from_root(FIRST, str(a["href"])): a.get_text() for a in book.select("nav.bd-links a.internal")}
    assert book.html is not None
    assert book.head is not None
    assert book.body is not None
    assert book.title is not None
    book.html["data-theme"] = "light"
    book.title.string = title = book.title.get_text().rpartition(" \u2014 ")[2]
    titles = {FIRST: title} | {page: text for page, text in listed.items() if page.endswith(".html")}
    for tag in book.head.select("[src], [href]"):
        name = "src" if tag.has_attr("src") else "href"
        tag[name] = from_root(FIRST, str(tag[name]))
    for script in book.head.select("script"):
        if "mathjax" not in (str(script.get("src")) + script.get_text()).lower():
            script.decompose()
    book.body.clear()
    lines = "".join(f'<li><a href="#{place(page)}">{escape(text)}</a></li>' for page, text in titles.items())
    book.body.append(BeautifulSoup(f"<nav><h2>Contents</h2><ol>{lines}</ol></nav>", "html.parser"))
    book.body.extend(chapter(site, page, titles) for page in titles)
    return str(book)


def print_book(site: Path, pdf: Path) -> None:
    """Print the whole book, formulas drawn, with tags for screen readers.

    No `outline`: Chromium 156 writes the headings that start a sheet twice into it.
    """
    with (
        sync_playwright() as playwright,
        tempfile.NamedTemporaryFile(suffix=".html", dir=site) as single,  # beside its pictures
    ):
        single.write(whole_book(site).encode())
        single.flush()
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM") or None)
        page = browser.new_page(color_scheme="light")
        page.goto(Path(single.name).resolve().as_uri())
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        page.pdf(
            path=pdf,
            format="A4",
            scale=0.8,
            margin={"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            tagged=True,
        )
        browser.close()


if __name__ == "__main__":
    print_book(Path(sys.argv[1]), Path(sys.argv[2]))
