"""A real browser that looks at the dashboard, and everything that it complains about."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page

DESKTOP, PHONE = (1280, 800), (390, 844)


_FIND_OVERFLOW = """
(() => {
  const width = window.innerWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const sticks = (element) => element.getBoundingClientRect().right > width;
  return [...document.querySelectorAll("*")].filter(sticks).map((one) => one.cloneNode().outerHTML);
})()
"""


@contextmanager
def browse() -> Iterator[Browser]:
    """Start Debian's chromium.

    Yields:
        The browser.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("chromium is missing: script/bootstrap --tests installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(slots=True)
class Visitor:
    """Somebody with a window.

    Attributes:
        page: What they see.
        address: Of the service.
        complaints: What the browser wrote on its console as an error, broken policies among it.
    """

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Open a page of the service."""
        self.page.goto(self.address + path)

    def sign_in(self, token: str) -> None:
        """Sign in as people do."""
        self.open("/login")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.address}/")

    def hear(self, said: ConsoleMessage) -> None:
        """Keep what is said on the console, if it is an error."""
        if said.type == "error":
            self.complaints.append(f"{said.text} {said.location['url']}")

    def unfold(self) -> None:
        """Open whatever can be."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")

    def find_overflow(self) -> list[str]:
        """Return what sticks out of the window where the page is wider than it; the innermost come last."""
        found: list[str] = self.page.evaluate(_FIND_OVERFLOW)
        return found

    def find_barriers(self) -> list[str]:
        """Return what keeps people from using the page, by the rules of axe; colours light and dark."""
        axe = Axe()
        found = axe.run(self.page).response["violations"]
        self.page.emulate_media(color_scheme="dark")
        found += axe.run(self.page, options={"runOnly": ["color-contrast"]}).response["violations"]
        self.page.emulate_media(color_scheme="light")
        return [_describe(one) for one in found]


def _describe(violation: dict[str, Any]) -> str:
    nodes = "; ".join(f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:3])
    return f"{violation['id']} in {len(violation['nodes'])} places: {nodes}"


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    *,
    size: tuple[int, int] = DESKTOP,
    has_scripts: bool = True,
) -> Iterator[Visitor]:
    """Open a window of its own, with no memory of others.

    Args:
        browser: Which.
        address: Of the service.
        size: Of the window, in pixels.
        has_scripts: Whether pages may run their scripts.

    Yields:
        The window. At its end the browser has to have had nothing to complain about.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="light",
        reduced_motion="reduce",
        java_script_enabled=has_scripts,
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    visitor = Visitor(page, address)
    page.on("console", lambda said: visitor.hear(said))  # noqa: PLW0108 - it writes upon what it is given
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    try:
        yield visitor
    finally:
        context.close()
    assert visitor.complaints == []
