"""Write what a reader sees of every built page as text, so that `diff -r` compares two builds of the book.

    python workflow/page_texts.py build/_build/html texts

A line per text node, whitespace folded, code left out. An image is named by its file, whose name is a hash of
its content, and its alternative text.
"""

import sys
from pathlib import Path

from bs4 import BeautifulSoup


def page_text(html: str) -> str:
    """The article of one page, a line per text node and image."""
    article = BeautifulSoup(html, "html.parser").find("article")
    if article is None:  # the search page, the index
        return ""
    for code in article.select(".cell_input, .headerlink, script, style"):
        code.decompose()
    for image in article.find_all("img"):
        image.replace_with(f"[{Path(str(image.get('src'))).name}: {image.get('alt', '')}]")
    lines = (" ".join(text.split()) for text in article.strings)
    return "".join(f"{line}\n" for line in lines if line)


def write_texts(site: Path, target: Path) -> None:
    """The texts of all pages under `site`, at the same places under `target`."""
    for page in sorted(site.rglob("*.html")):
        if text := page_text(page.read_text(encoding="utf-8")):
            path = (target / page.relative_to(site)).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_texts(Path(sys.argv[1]), Path(sys.argv[2]))
