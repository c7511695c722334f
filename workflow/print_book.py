"""The book as a PDF file: Chromium prints the single page that Sphinx writes. Called by `make pdf`.

Usage: python workflow/print_book.py build/_build/singlehtml/book/intro.html build/book.pdf
"""

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def print_book(page: Path, pdf: Path) -> None:
    """Print `page`, formulas drawn, with bookmarks and with tags for screen readers."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM") or None)
        book = browser.new_page(color_scheme="light")
        book.goto(page.resolve().as_uri())
        book.evaluate("MathJax.startup.promise")
        margin = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
        book.pdf(path=pdf, format="A4", margin=margin, outline=True, tagged=True)
        browser.close()


if __name__ == "__main__":
    print_book(Path(sys.argv[1]), Path(sys.argv[2]))
