"""The dashboard in a real browser, served as it is, of a real database: what people do with it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from reconciler.runtime.spec_files import WatchedSpecFiles
from tests.browsing import DESKTOP, PHONE, browse, visiting
from tests.calling import serve as serve_app
from tests.queued import claim_one, connect, enqueue, fail
from tests.runs import call, runner
from tests.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.declared import Site

pytestmark = pytest.mark.one_server
expect.set_options(timeout=15_000)  # news come every five seconds

SPECS = """\
jobs:
  bill-orders:
    description: Write the bills of the day
    schedule: "0 1 29 2 *"
    labels: {team: billing}
    sql: SELECT 1 / 0
    alert: {after: 1, channels: [ops]}
  mail-orders:
    schedule: "0 2 29 2 *"
    sql: |
      SELECT 1;
      SELECT 2;
    timeout: 30s
  night-0: {schedule: "0 3 * * *", sql: SELECT 1}
  night-1: {schedule: "0 3 * * *", sql: SELECT 1}
  send-reminders: {schedule: "0 4 29 2 *", handler: mail.send, queue: mails}
queues:
  mails: {max_attempts: 2}
channels:
  ops: {url: {secret: ops}, deliver: process}
"""
CONFIG = """\
owner: shop
targets: {{test: {{dsn: "{dsn}"}}}}
secrets: {{ops: {{env: OPS}}}}
"""
EVERY_PAGE = (
    *("/", "/?q=nothing", "/jobs/bill-orders", "/jobs/mail-orders", "/runs/1", "/runs/2", "/calendar"),
    *("/queues", "/queues/mails", "/drift", "/revisions", "/revisions/2", "/alerts", "/alerts?state=all"),
    *("/calendar?day={today}", "/queued/{dead}", "/nothing/here"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all of these tests."""
    with browse() as started:
        yield started


class Shop:
    """A target with two revisions, a job that fails, a dead queued job, and an entry changed by hand."""

    def __init__(self, site: Site, folder: Path) -> None:
        """Make it.

        Args:
            site: An empty database.
            folder: For the spec files.
        """
        self.site = site
        (folder / "reconciler.yaml").write_text(CONFIG.format(dsn=site.dsn))
        (folder / "jobs.d").mkdir()
        specs = folder / "jobs.d" / "shop.yaml"
        files = WatchedSpecFiles(
            folder / "reconciler.yaml", environment={**os.environ, "OPS": "json://127.0.0.1:9/"}
        )
        for text in (SPECS.replace("SELECT 2;", "SELECT 3;"), SPECS):
            specs.write_text(text)
            site.apply(*files.load()[2])
        call(site, "bill-orders")
        call(site, "mail-orders")
        worker = connect(site)
        self.dead = enqueue(worker, "mails", payload={"to": "nora"})
        fail(worker, claim_one(worker, "mails"), "the mail server says no", final=True)
        site.run("UPDATE cron.job SET schedule = '5 5 * * *' WHERE jobname = 'mail-orders'")
        self.served = Served(site, files=files)
        self.token = self.served.token("read", "trigger", "write")
        self.address = ""


@pytest.fixture
def shop(site: Site, tmp_path: Path) -> Iterator[Shop]:
    """The shop, served on a port of this machine."""
    made = Shop(site, tmp_path)
    with serve_app(made.served.app) as client:
        made.address = f"http://127.0.0.1:{client.port}"
        yield made


def test_somebody_finds_a_job_that_fails_and_deals_with_it(browser: Browser, shop: Shop) -> None:
    """From the first page to its error; it is run now, paused with a reason, and resumed."""
    with visiting(browser, shop.address) as visitor:
        visitor.sign_in(shop.token)
        page = visitor.page
        expect(page.locator("#head")).to_contain_text("1 failing")
        row = page.locator("#job-bill-orders")
        expect(row).to_contain_text("failing")
        row.get_by_role("link", name="bill-orders").click()
        expect(page.get_by_role("heading", name="The last run did not succeed")).to_be_visible()
        expect(page.locator(".said").first).to_have_text("division by zero")
        page.get_by_role("link", name="1", exact=True).first.click()
        expect(page.get_by_text("SQLSTATE 22012")).to_be_visible()
        page.go_back()
        page.get_by_text("Run now").click()
        page.get_by_role("button", name="Yes, run it").click()
        expect(page.locator("#told")).to_contain_text("A run was asked for")
        runner(shop.site)
        # Nobody loads the page anew.
        expect(page.locator("#told")).to_contain_text("came of your request")
        expect(page.get_by_role("heading", name="The last 2 runs did not succeed")).to_be_visible()
        page.get_by_text("Pause", exact=True).click()
        page.get_by_label("For how long").select_option("1 day")
        page.get_by_label("Why").fill("the bank is closed")
        page.get_by_role("button", name="Pause it").click()
        expect(page.get_by_text(": the bank is closed")).to_be_visible()
        assert shop.site.rows("SELECT reason FROM reconciler.pauses") == [("the bank is closed",)]
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#told")).to_contain_text("Resumed")
        assert shop.site.rows("SELECT count(*) FROM reconciler.pauses") == [(0,)]


def test_somebody_looks_at_what_changed_and_what_comes(browser: Browser, shop: Shop) -> None:
    """Drift made by hand, the lines of a revision, an alert that is open, the calendar."""
    with visiting(browser, shop.address) as visitor:
        visitor.sign_in(shop.token)
        page = visitor.page
        page.get_by_role("link", name="Drift").click()
        drift = page.locator("#drift-job-mail-orders")
        expect(drift.locator("del")).to_have_text('- entry.schedule: "5 5 * * *"')
        expect(drift.locator("ins")).to_have_text('+ entry.schedule: "0 2 29 2 *"')
        page.get_by_role("link", name="Revisions").click()
        page.get_by_role("link", name="2", exact=True).click()
        expect(page.locator("#change-job-mail-orders del")).to_contain_text("SELECT 3;")
        expect(page.locator("#change-job-mail-orders ins")).to_contain_text("SELECT 2;")
        page.get_by_role("link", name="Alerts", exact=True).click()
        expect(page.locator("tbody tr")).to_contain_text(["division by zero"])
        page.get_by_role("link", name="Calendar").click()
        expect(page.get_by_role("img", name=re.compile("21 starts of 3 jobs"))).to_be_visible()
        page.get_by_text("As a table").click()
        expect(page.get_by_role("row", name="03:00").get_by_role("cell", name="2")).to_have_count(7)


def test_somebody_lets_a_dead_job_begin_anew(browser: Browser, shop: Shop) -> None:
    """From the list of queues to what it failed with, and back on its queue."""
    with visiting(browser, shop.address, size=PHONE) as visitor:
        visitor.sign_in(shop.token)
        page = visitor.page
        page.get_by_role("link", name="Queues").click()
        page.locator("#queue-mails td[data-label=Dead] a").click()
        page.locator("tbody").get_by_role("link", name=str(shop.dead)).click()
        expect(page.locator(".said")).to_have_text("the mail server says no")
        page.get_by_text("Try again", exact=True).click()
        page.get_by_role("button", name="Yes, try it again").click()
        expect(page.locator("#told")).to_have_text("It begins anew.")
        assert claim_one(connect(shop.site), "mails").id == shop.dead


def test_keys_lead_everywhere_and_news_leave_the_focus(browser: Browser, shop: Shop) -> None:
    """Search, list, help, theme; a change in the database shows within seconds, without a new page."""
    with visiting(browser, shop.address) as visitor:
        visitor.sign_in(shop.token)
        page = visitor.page
        page.keyboard.press("/")
        page.keyboard.type("orders")
        expect(page.locator("tbody tr")).to_have_count(2)
        assert page.url == f"{shop.address}/?q=orders"
        expect(page.get_by_label("Search")).to_be_focused()
        page.keyboard.press("Escape")
        for key, name in (
            ("j", "bill-orders"),
            ("j", "mail-orders"),
            ("k", "bill-orders"),
            ("j", "mail-orders"),
        ):
            page.keyboard.press(key)
            expect(page.get_by_role("link", name=name)).to_be_focused()
        page.evaluate("window.isTheSamePage = true")
        call(shop.site, "mail-orders")
        shop.site.run("SELECT reconciler.pause_job('mail-orders')")
        expect(page.locator("#job-mail-orders")).to_contain_text("paused")
        expect(page.get_by_role("link", name="mail-orders")).to_be_focused()
        assert page.evaluate("window.isTheSamePage")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="mail-orders")).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
        page.keyboard.press("t")
        page.keyboard.press("t")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        paper = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(paper) == "rgb(17, 21, 19)"
        page.keyboard.press("g")
        page.keyboard.press("q")
        page.wait_for_url(f"{shop.address}/queues")
        assert page.evaluate(paper) == "rgb(17, 21, 19)"
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate(paper) == "rgb(246, 247, 245)"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_is_for_everybody(browser: Browser, shop: Shop, size: tuple[int, int]) -> None:
    """Light and dark: no barrier that axe knows, nothing wider than the window, nothing on the console."""
    with visiting(browser, shop.address, size=size) as visitor:
        visitor.open("/login")
        found = {"/login": (visitor.find_overflow(), visitor.find_barriers())}
        visitor.sign_in(shop.token)
        today = shop.site.rows("SELECT (now() AT TIME ZONE 'UTC')::date")[0][0]
        for path in EVERY_PAGE:
            visitor.open(path.format(today=today, dead=shop.dead))
            visitor.unfold()
            found[path] = (visitor.find_overflow(), visitor.find_barriers())
        assert ["/nothing/here" in one for one in visitor.complaints] == [True]
        visitor.complaints.clear()
    assert {path: what for path, what in found.items() if what != ([], [])} == {}


def test_it_works_without_scripts(browser: Browser, shop: Shop) -> None:
    """Looking, searching and running a job are links and forms."""
    with visiting(browser, shop.address, has_scripts=False) as visitor:
        visitor.sign_in(shop.token)
        page = visitor.page
        page.get_by_label("Search").fill("team=billing")
        page.get_by_role("button", name="Search").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="bill-orders").click()
        page.get_by_text("Run now").click()
        page.get_by_role("button", name="Yes, run it").click()
        expect(page.locator("#told")).to_contain_text("A run was asked for")
        assert shop.site.rows("SELECT job_name, trigger FROM reconciler.starts") == [
            ("bill-orders", "manual")
        ]
        expect(page.get_by_role("button", name="Live")).to_be_hidden()
