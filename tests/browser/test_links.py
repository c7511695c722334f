"""Links within the site, read from the files: what works here works without a server too."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

from stlib.paths import ROOT


@cache
def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def places(page: Path) -> set[str]:
    """What a link can lead to in a page."""
    named = [tag["name"] for tag in parsed(page).select("a[name]")]
    return {*named, *(tag["id"] for tag in parsed(page).select("[id]"))}


def broken(site: Path, page: Path) -> Iterator[str]:
    """Targets of a page that are neither a file of the site nor a place in it."""
    tags = parsed(page).select("[href], [src]")
    for target in filter(None, (tag.get(name) for tag in tags for name in ("href", "src"))):
        address = urlsplit(target)
        if address.scheme or address.netloc:
            continue
        file = (page.parent / unquote(address.path)).resolve() if address.path else page
        if not file.is_file() or not file.is_relative_to(site.resolve()):
            yield f"{target}: no such file"
        elif address.fragment and file.suffix == ".html" and unquote(address.fragment) not in places(file):
            yield f"{target}: no such place"


def test_every_page_of_the_contents_is_built(pages):
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_bytes())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    listed = [toc["root"]]
    listed += [entry["file"] for chapter in chapters for entry in (chapter, *chapter.get("sections", []))]
    assert {f"{name}.html" for name in listed} <= set(pages)


def test_links_lead_somewhere(site, pages):
    found = {name: list(broken(site, site / name)) for name in pages}
    assert {name: targets for name, targets in found.items() if targets} == {}


def test_no_link_is_empty(site, pages):
    empty = "a:not([href], [id], [name]), a[href='']:not([id], [name])"
    found = {name: parsed(site / name).select(empty) for name in pages}
    assert {name: tags for name, tags in found.items() if tags} == {}
