"""The built site on a local server, and Chromium to read it with. Run by `make browser`."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from stlib.paths import BUILD

SITE = BUILD / "_build" / "html"
PAGES = sorted(
    path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts
)
if not PAGES:
    raise pytest.UsageError(f"no site in {SITE}: run make book")
PAGES.remove("index.html")  # only sends the reader on; test_use.py follows it


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silence: the tests say what went wrong."""


@dataclass(frozen=True)
class Visit:
    """A page as the browser shows it, and what went wrong since it was opened."""

    name: str
    page: Page
    problems: list[str] = field(default_factory=list)  # errors of scripts, of the console, failed requests
    elsewhere: list[str] = field(default_factory=list)  # requests to another host


@pytest.fixture(scope="session")
def site() -> Path:
    return SITE


@pytest.fixture(scope="session")
def pages() -> list[str]:
    return PAGES


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Address of the site, with a slash at its end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium that the variable CHROMIUM names, otherwise the one that playwright downloaded."""
    with sync_playwright() as playwright:
        # no name but the server's resolves: a page that asks another site fails at once
        offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        program = os.environ.get("CHROMIUM") or None
        browser = playwright.chromium.launch(executable_path=program, args=[offline])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A reader without a past: no cache, no stored theme."""
    context = browser.new_context(reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture(scope="module", params=PAGES)
def visit(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Visit]:
    """Every page in turn, loaded once for all the tests of a file."""
    # reduced motion: colours are compared, and must not be on their way from one theme to the other
    context = browser.new_context(reduced_motion="reduce", color_scheme="light")
    seen = Visit(request.param, context.new_page())
    page = seen.page
    page.on("console", lambda said: said.type == "error" and seen.problems.append(said.text))
    page.on("pageerror", lambda error: seen.problems.append(str(error)))
    page.on("requestfailed", lambda asked: seen.problems.append(f"failed: {asked.url}"))
    page.on("response", lambda got: got.status >= 400 and seen.problems.append(f"{got.status}: {got.url}"))
    page.on("request", lambda asked: asked.url.startswith((url, "data:")) or seen.elsewhere.append(asked.url))
    page.goto(url + seen.name, wait_until="networkidle")
    yield seen
    context.close()
