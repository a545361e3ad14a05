"""Fixtures with Chromium, uvicorn, and the test's database and broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Literal, TypeAlias

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    ViewportSize,
    expect,
)

from chordwise.settings import Settings
from chordwise.web.server import Served, serve
from tests.fakes.pipeline import close_all

Theme: TypeAlias = Literal["light", "dark"]
VisitWith: TypeAlias = "Callable[[Settings], AbstractContextManager[Visit]]"
# The themes differ only in colors.
_RULES: dict[Theme, dict[str, list[str]]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}
_AXE = Axe().axe_script
_VIOLATIONS = "async rules => (await axe.run(rules)).violations"
_PHONE: ViewportSize = {"width": 390, "height": 844}
_DESK: ViewportSize = {"width": 1280, "height": 860}
# Chromium's messages about refusals that tests provoke.
_REFUSALS = (
    "the server responded with a status of 400",
    "the server responded with a status of 403",
)
_SERIOUS = {"serious", "critical"}


# Chromium renders a page in separate processes, which start slowly on a busy machine.
_TIMEOUT_MS = 90_000
expect.set_options(timeout=_TIMEOUT_MS)


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Close all connections after the test."""
    yield
    close_all()


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    """Serve the pages over the test's database and broker, in a thread."""
    with serving(settings) as server:
        yield server


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    """Serve the pages with these settings until the end of the block."""
    ready: Queue[Served] = Queue()
    thread = threading.Thread(target=serve, args=(settings, ready.put), name="pages")
    thread.start()
    server = ready.get(timeout=30)
    try:
        yield server
    finally:
        server.stop()
        thread.join(30)
    assert not thread.is_alive()


@dataclass(slots=True, kw_only=True)
class Visit:
    """A browser session that opens pages, and checks them in both themes and at phone size."""

    page: Page
    base: str
    pictures: Path | None

    def open(self, path: str) -> Page:
        """Open a page."""
        self.page.goto(f"{self.base}{path}")
        return self.page

    def follow(self, link: Locator) -> None:
        """Click a link, and wait until the scripts of the page have loaded."""
        with self.page.expect_navigation():
            link.click()

    def confirm(self, button: str) -> None:
        """Press a button, and confirm its dialog."""
        self.page.get_by_role("button", name=button, exact=True).click()
        self.page.locator("#confirm [value=yes]").click()

    def look(self, name: str) -> None:
        """Take screenshots of the page; axe must find no serious violation in either theme."""
        self.page.evaluate(_AXE)
        for theme, rules in _RULES.items():
            self.page.emulate_media(color_scheme=theme)
            violations = self.page.evaluate(_VIOLATIONS, rules)
            serious = [
                (violation["id"], node["html"], node["failureSummary"])
                for violation in violations
                if violation["impact"] in _SERIOUS
                for node in violation["nodes"]
            ]
            assert serious == [], theme
            self._picture(f"{name}-{theme}")
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size(_PHONE)
        width = self.page.evaluate("document.documentElement.scrollWidth")
        self._picture(f"{name}-phone")
        self.page.set_viewport_size(_DESK)
        assert width <= _PHONE["width"], "the page is wider than a phone"

    def _picture(self, name: str) -> None:
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)


@pytest.fixture
def visit(request: pytest.FixtureRequest, browser: Browser, served: Served) -> Iterator[Visit]:
    """Sign in by the link; errors of the pages' scripts fail the test."""
    with visiting(browser, served, request.config.getoption("--screenshots")) as visitor:
        yield visitor


@pytest.fixture
def visit_with(request: pytest.FixtureRequest, browser: Browser) -> VisitWith:
    """Return a function that serves the pages with other settings, and signs in by the link."""

    @contextmanager
    def opened(settings: Settings) -> Iterator[Visit]:
        pictures = request.config.getoption("--screenshots")
        with serving(settings) as server, visiting(browser, server, pictures) as visitor:
            yield visitor

    return opened


@contextmanager
def visiting(browser: Browser, served: Served, pictures: Path | None = None) -> Iterator[Visit]:
    """Sign a browser in by the link; errors of the pages' scripts fail the test."""
    complaints: list[str] = []
    context = browser.new_context(viewport=_DESK)
    context.set_default_timeout(_TIMEOUT_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def note(said: ConsoleMessage) -> None:
        if said.type == "error" and not any(refusal in said.text for refusal in _REFUSALS):
            complaints.append(said.text)

    page.on("console", note)
    page.goto(served.link)
    yield Visit(page=page, base=served.link.partition("/?")[0], pictures=pictures)
    context.close()
    assert complaints == []
