"""The dashboard's map of starts: what it shows, what it says, and that a table has the same numbers."""

from __future__ import annotations

import re
from datetime import date

from reconciler.api.pages.heat_maps import describe_heat, draw_heat, draw_scale, draw_table
from reconciler.core.times.calendars import Calendar, make_calendar
from reconciler.core.times.herds import Capacity
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import make_entry_timing
from tests.pages import read_page

MONDAY = date(2026, 11, 23)
HOSTILE = "<script>alert(1)</script>\u202e"


def make(
    *jobs: tuple[str, str], first: date = MONDAY, zone: str = "GMT", step: int = 60, limit: int = 3
) -> Calendar:
    """Make a calendar of jobs by name and schedule."""
    scheduled = [
        Scheduled(name=name, kind="job", timing=make_entry_timing(text, zone), schedule=text)
        for name, text in jobs
    ]
    return make_calendar(
        scheduled,
        target="test",
        first=first,
        zone=zone,
        step=step,
        capacity=Capacity(limit=limit, known=True),
    )


NIGHT = tuple((f"night-{number}", "0 3 * * *") for number in range(5))


def test_each_field_tells_its_numbers_and_names() -> None:
    """What is crowded has a border and a sign, and lies above its neighbours."""
    page = read_page(draw_heat(make(*NIGHT, ("hourly", "*/20 * * * *"))))
    said = [title.text for title in page.find_all("title")]
    assert len(said) == 7 * 24
    assert "Mon 2026-11-23 00:00: 3 starts; at most 1 in one minute: hourly" in said
    assert said[-7] == (
        "Mon 2026-11-23 03:00: 8 starts; at most 6 in one minute, more than the server runs at once: "
        "hourly, night-0, night-1, night-2, night-3 and 1 more"
    )
    assert [field.text.split()[-1] for field in page.find_all("g")][-7:] == ["!"] * 7
    assert len(list(page.find_all("rect", class_="over"))) == 7
    assert [span.text for span in page.find_all("span")][:2] == ["00:00", "01:00"]


def test_nothing_of_it_is_wider_than_its_place() -> None:
    """Places are hundredths of the width, and rows follow each other; also in a day of 25 hours."""
    picture = draw_heat(make(*NIGHT, first=date(2026, 10, 25), zone="Europe/Oslo", step=5))
    page = read_page(picture)
    tall = float(page.find("svg").attributes["height"])
    assert len(list(page.find_all("rect"))) == 25 * 12
    for rect in page.find_all("rect"):
        x, y, width, height = (
            float(rect.attributes[key].rstrip("%")) for key in ("x", "y", "width", "height")
        )
        assert 0 <= x <= x + width <= 100.01
        assert 0 <= y <= y + height <= tall


def test_it_says_in_words_what_it_shows() -> None:
    """How many, and where the most are; nothing more where nothing starts."""
    assert describe_heat(make(*NIGHT)) == (
        "Mon 2026-11-23 to Sun 2026-11-29: 35 starts of 5 jobs, "
        "the most of them from Mon 2026-11-23 03:00 on with 5; a table below has all numbers"
    )
    assert describe_heat(make(step=5)) == "Mon 2026-11-23: 0 starts of 0 jobs; a table below has all numbers"


def test_its_scale_has_the_levels_that_there_are() -> None:
    """And what is crowded; an empty one says so."""
    scale = read_page(draw_scale(make(*NIGHT, ("hourly", "*/20 * * * *")))).text
    assert scale == "1-3 4 5-6 7-8 starts in an hour ! more than 3 in one minute"
    assert read_page(draw_scale(make(("a", "1 8 * * *"), step=5))).text == "1 starts in 5 minutes"
    assert draw_scale(make()) == "<span>Nothing starts.</span>"


def test_a_table_has_the_same_numbers() -> None:
    """With heads of rows and columns; times that the clocks skip or repeat are told."""
    page = read_page(draw_table(make(*NIGHT)))
    rows = list(page.find("tbody").find_all("tr"))
    assert rows[3].text == "03:00" + " 5 !" * 7
    assert [head.attributes["scope"] for head in page.find_all("th")] == ["col"] * 8 + ["row"] * 24
    spring = draw_table(make(("a", "0 * * * *"), first=date(2026, 3, 27), zone="Europe/Oslo"))
    assert "<td>1</td><td>1</td><td>skipped</td><td>1</td>" in spring
    assert "the clocks skip this time" in draw_heat(
        make(("a", "0 * * * *"), first=date(2026, 3, 27), zone="Europe/Oslo")
    )
    autumn = draw_table(make(("a", "0 * * * *"), first=date(2026, 10, 24), zone="Europe/Oslo"))
    assert '<th scope="row">again</th><td></td><td>1</td><td></td>' in autumn


def test_names_are_only_text() -> None:
    """Whatever an entry is called, and what nobody could see of it is written out."""
    picture = draw_heat(make((HOSTILE, "0 3 * * *")))
    assert "<script" not in picture
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;U+202E&gt;" in picture
    assert not re.search(r'style="|<style', picture)


def test_large_numbers_are_shortened() -> None:
    """So that they fit on a telephone; the table has them in full."""
    calendar = make(*((f"job-{number}", "* * * * *") for number in range(200)), limit=1000)
    assert ">12k</text>" in draw_heat(calendar)
    assert "<td>12,000</td>" in draw_table(calendar)
