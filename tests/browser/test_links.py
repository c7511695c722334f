"""Links within the site, read from the files: what works here works without a server too."""

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from stlib.paths import ROOT


class Links(HTMLParser):
    """The ids of a page, and what it links to or loads."""

    def __init__(self, page: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.nowhere: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids |= {value for name, value in attrs if name == "id" or (tag, name) == ("a", "name")}
        self.targets += [value for name, value in attrs if name in ("href", "src") and value]
        if tag == "a" and not named.get("href") and not named.keys() & {"id", "name"}:
            self.nowhere.append(str(named))


@cache
def links(page: Path) -> Links:
    return Links(page)


def broken(site: Path, page: Path) -> Iterator[str]:
    """Targets of a page that are neither a file of the site nor a place in it."""
    for target in links(page).targets:
        address = urlsplit(target)
        if address.scheme or address.netloc:
            continue
        file = (page.parent / unquote(address.path)).resolve() if address.path else page
        if not file.is_file() or not file.is_relative_to(site.resolve()):
            yield f"{target}: no such file"
        elif address.fragment and file.suffix == ".html" and unquote(address.fragment) not in links(file).ids:
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
    assert {name: links(site / name).nowhere for name in pages if links(site / name).nowhere} == {}
