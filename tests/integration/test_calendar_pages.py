"""The calendar as a page: what was applied and what nobody declared, of a week or of a day to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.database import observe as observing
from tests.declared import job
from tests.pages import Browser
from tests.served import serve

if TYPE_CHECKING:
    from tests.declared import Site
    from tests.pages import Node
    from tests.served import Served

pytestmark = pytest.mark.one_server

HOSTILE = "<script>alert('1')</script>\u202e\"&"


def read_numbers(page: Node) -> dict[str, list[str]]:
    """Return the rows of the table by their hours."""
    return {
        row.find("th").text: [cell.text for cell in row.find_all("td")]
        for row in page.find("table", class_="numbers").find("tbody").find_all("tr")
    }


def test_a_week_shows_what_was_applied_and_what_nobody_declared(site: Site) -> None:
    """As a picture and as a table; herds and busiest minutes name jobs, with links where they have a page."""
    site.apply(
        *(job(f"night-{number:02}", schedule="0 3 * * *") for number in range(40)),
        job("off", schedule="0 4 * * *", active=False),
        job("quiet", schedule="0 5 * * *"),
    )
    site.run("SELECT cron.schedule(%s, '0 3 * * *', 'SELECT 1')", HOSTILE)
    site.run("SELECT reconciler.pause_job('quiet')")
    with serve(site) as served:
        page = Browser(served, "read").look("/calendar")
        assert page.find(id="map-title").text == "294 starts of 42 jobs"
        numbers = read_numbers(page)
        assert (numbers["03:00"], numbers["04:00"], numbers["05:00"]) == (["41 !"] * 7, ["0"] * 7, ["1"] * 7)
        assert "Paused, and counted all the same: 1" in page.text
        assert page.find("svg", role="img").attributes["aria-label"].endswith("a table below has all numbers")
        herds = page.find(class_="two").find("section")
        assert "Each day at 03:00: 41 start in one minute" in herds.text
        assert "night-00" in [link.text for link in herds.find_all("a")]
        assert "<script>alert('1')</script><U+202E>\"&" in herds.text
        assert not any("script" in link.attributes["href"] for link in page.find_all("a"))
        assert "(cron.max_running_jobs)" in herds.text


def test_a_day_has_parts_of_the_hour_and_neighbours(site: Site) -> None:
    """Of today and 34 days more; any other is not there."""
    site.apply(job("a", schedule="7 8 * * *"))
    with serve(site) as served:
        reader = Browser(served, "read")
        today = datetime.now(UTC).date()
        page = reader.look(f"/calendar?day={today}")
        assert read_numbers(page)["08:00"][:3] == ["0", "1", "0"]
        links = {
            link.text: link.attributes["href"] for link in page.find("nav", class_="pager").find_all("a")
        }
        assert links.keys() == {"Day after"}
        page = reader.look(links["Day after"])
        assert page.find(id=f"day-{today + timedelta(days=1)}").attributes["aria-current"] == "true"
        last = reader.look(f"/calendar?day={today + timedelta(days=34)}")
        assert [link.text for link in last.find("nav", class_="pager").find_all("a")] == ["Day before"]
        wrong = (
            "x",
            "2026-13-01",
            "9999-12-31",
            str(today - timedelta(days=2)),
            str(today + timedelta(days=36)),
        )
        for day in wrong:
            assert "shows days from" in reader.look(f"/calendar?day={day}", 404).text


def test_it_is_made_once_for_all_who_look(
    site: Site, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a minute; and who has it open hears that nothing is new."""
    site.apply(job("a"))
    looks = []

    def observe(conn: object) -> object:
        looks.append(conn)
        return observing.observe(conn)  # type: ignore[arg-type]

    monkeypatch.setattr("reconciler.api.pages.calendar_pages.observe", observe)
    reader = Browser(served, "read")
    etag = reader.get("/calendar").headers["etag"]
    reader.look(f"/calendar?day={datetime.now(UTC).date()}")
    reader.get("/calendar", 304, HX_Request="true", If_None_Match=etag)
    assert len(looks) == 1


def test_nothing_at_all_is_said(served: Served) -> None:
    """But for what comes every few seconds, which has no place on the map."""
    served.site.run("SELECT cron.schedule('every-second', '1 second', 'SELECT 1')")
    page = Browser(served, "read").look("/calendar")
    assert "Nothing starts." in page.text
    assert "since they start every few seconds: every-second" in page.text
    assert "No herds" in page.text
