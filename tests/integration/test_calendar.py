"""The command `calendar`: maps in the terminal, as JSON and as SVG; herds and what parts them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import click
import pytest
from click.testing import CliRunner

from reconciler.cli.calendars import calendar as command
from reconciler.cli.render_heat import pick_step, render_calendar
from reconciler.cli.render_svg import render_svg
from reconciler.core.times.calendars import make_calendar
from reconciler.core.times.herds import Capacity
from reconciler.core.times.timetable import Scheduled
from reconciler.core.times.timings import make_entry_timing
from tests.core_builders import PLACE
from tests.declared import Site, job

if TYPE_CHECKING:
    from reconciler.core.times.calendars import Calendar
    from tests.conftest import Cli
    from tests.servers import Database

pytestmark = pytest.mark.one_server


SVG = "{http://www.w3.org/2000/svg}"
MONDAY = date(2026, 11, 23)
HOSTILE = "<script>alert('&\"]]>\x00\x1b\ud800\ufffe</title>"


def scheduled(name: str, text: str, *, zone: str = "GMT", paused: bool = False) -> Scheduled:
    """Make a job that a clock starts."""
    return Scheduled(
        name=name, kind="job", timing=make_entry_timing(text, zone), schedule=text, paused=paused
    )


def make(
    *jobs: Scheduled, first: date = MONDAY, zone: str = "GMT", step: int = 60, limit: int = 3
) -> Calendar:
    """Make a calendar of jobs without a database."""
    return make_calendar(
        jobs,
        target="test",
        first=first,
        zone=zone,
        step=step,
        capacity=Capacity(limit=limit, known=True),
        places={each.name: PLACE for each in jobs},
    )


def herd(count: int = 5, text: str = "0 3 * * *") -> list[Scheduled]:
    """Make jobs that come together."""
    return [scheduled(f"night-{number}", text) for number in range(count)]


def show(calendar: Calendar, **options: Any) -> list[str]:
    """Render a calendar without colours, as lines."""
    return click.unstyle(render_calendar(calendar, **options)).splitlines()


def test_a_week_fits_into_80_columns() -> None:
    """Hours below days, with shades that say few and many without colour, and a mark for a herd."""
    lines = show(make(*herd(), scheduled("hourly", "*/20 * * * *")))
    assert lines[0] == "test: 539 starts of 6 jobs, Mon 2026-11-23 to Sun 2026-11-29, GMT"
    assert lines[2].split()[::2] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert lines[2].split()[1::2] == [str(day) for day in range(23, 30)]
    assert lines[3].split() == ["00:00", *["░░░░░░", "3"] * 7]
    assert lines[6].split() == ["03:00", *["██████", "8!"] * 7]
    assert "░ 1-3  ▒ 4  ▓ 5-6  █ 7-8 starts in the hour  ! more than 3 in one minute" in lines
    assert max(map(len, lines[:30])) <= 80


def test_ascii_has_shades_of_its_own() -> None:
    """For pipes and old terminals."""
    lines = show(make(*herd(), scheduled("c", "0 0 * * *")), plain=True)
    assert "".join(lines).isascii()
    assert lines[3].split()[:3] == ["00:00", "::::::", "1"]
    assert lines[4].split()[:2] == ["01:00", "."]


@pytest.mark.parametrize("width", [10, 30, 44, 60, 80, 132])
@pytest.mark.parametrize("step", [60, 15, 5])
def test_narrow_terminals_leave_the_numbers_out(width: int, step: int) -> None:
    """The map keeps to the width where that is possible, and its columns stay below their heads."""
    lines = show(make(*herd(120), step=step), width=width)
    rows = lines[3:27]
    columns = 7 if step == 60 else 60 // step
    assert max(map(len, rows)) <= max(width, 7 + 2 * columns)
    assert "!" in rows[3]
    assert ("120" in rows[3]) == ((width - 7) // columns >= 6)


def test_the_parts_of_a_day_follow_the_width() -> None:
    """5 minutes at 80 columns, 10 or 15 below."""
    assert [pick_step(width) for width in (132, 80, 60, 40)] == [5, 5, 10, 15]


def test_a_day_has_parts_of_the_hour() -> None:
    """Each column is five minutes of each hour."""
    lines = show(make(scheduled("a", "1,7 8 * * *"), step=5))
    assert lines[0] == "test: 2 starts of 1 job, Mon 2026-11-23, GMT"
    assert lines[2].split() == [f":{minute:02d}" for minute in range(0, 60, 5)]
    assert lines[11].split() == ["08:00", "░░", "1", "░░", "1", *"·" * 10]


def test_hours_that_the_clocks_skip_or_repeat_are_said() -> None:
    """No number where there is no such hour, and a row for the second one."""
    spring = show(make(scheduled("a", "0 * * * *"), first=date(2026, 3, 27), zone="Europe/Oslo"))
    assert spring[5].split() == ["02:00", *["░░░░░░", "1"] * 2, "--", *["░░░░░░", "1"] * 4]
    assert "-- the clocks skip this time" in spring
    autumn = show(make(scheduled("a", "0 * * * *"), first=date(2026, 10, 24), zone="Europe/Oslo"))
    assert autumn[5].split()[0] == "02:00"
    assert autumn[6].split() == ["again", "--", "░░░░░░", "1", *["--"] * 5]
    assert "again: the clocks show this hour a second time" in autumn
    assert "-- the clocks skip this time" not in autumn


def test_busiest_minutes_and_herds_are_listed() -> None:
    """With their names, the smallest spread, and what to paste."""
    lines = show(make(*herd(7), scheduled("fast", "5 seconds")))
    assert "Not counted, since they start every few seconds: fast" in lines
    assert "  2026-11-23 03:00Z    7  night-0, night-1, night-2 and 4 more (7 times)" in lines
    start = lines.index("Herds within 35 days; the server runs 3 at once (cron.max_running_jobs)")
    assert lines[start + 1] == "  ! each day at 03:00: 8 start, fast, night-0, night-1, night-2 and 4 more"
    assert re.fullmatch(r"    spread: \w+ in 7 jobs leaves [23] at most", lines[start + 2])
    assert lines[start + 3] == "      jobs:"
    assert re.fullmatch(rf"        night-0: {{spread: \w+}}  # {PLACE}", lines[start + 4])
    assert len(lines) == start + 11


def test_no_herds_are_said_with_the_most() -> None:
    """So that one sees how near it is."""
    lines = show(make(*herd(3)))
    assert lines[-1] == (
        "No herds: at most 3 start in one minute of 35 days; "
        "the server runs 3 at once (cron.max_running_jobs)"
    )


def test_nothing_at_all() -> None:
    """An empty target has an empty map."""
    lines = show(make())
    assert "Nothing starts." in lines
    assert "Busiest minutes" not in lines


def test_long_advice_is_cut() -> None:
    """A herd of hundreds does not push the map off the screen."""
    lines = show(make(*herd(60), limit=30))
    assert "      # and 41 more: --json has them all" in lines


def test_paused_jobs_are_said() -> None:
    """Their entries fire all the same."""
    assert "Paused, and counted all the same: 1" in show(make(scheduled("a", "0 0 * * *", paused=True)))


def test_names_cannot_write_to_the_terminal() -> None:
    """Entries of nobody have any name."""
    assert "\x1b" not in click.unstyle(render_calendar(make(scheduled("\x1b[2Ja", "0 0 * * *"))))


def test_a_load_that_hardly_changes_is_of_one_shade() -> None:
    """One start more among many is no heat; twice as many are."""
    lines = show(make(scheduled("a", "* * * * *"), scheduled("b", "0 3 * * *")))
    assert "░ 1-61 starts in the hour" in lines
    lines = show(make(scheduled("a", "*/10 * * * *"), scheduled("b", "*/10 3 * * *")))
    assert "░ 1-7  ▒ 8-9  ▓ 10-11  █ 12 starts in the hour" in lines


def draw(calendar: Calendar) -> ET.Element:
    """Draw a calendar, and read the picture as XML."""
    return ET.fromstring(render_svg(calendar))


def test_the_picture_has_a_field_for_each_cell() -> None:
    """Each tells its numbers and names, and a herd shows."""
    root = draw(make(*herd()))
    assert root.tag == f"{SVG}svg"
    assert root.attrib["role"] == "img"
    named = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert set(root.attrib["aria-labelledby"].split()) <= named
    fields = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    assert len(fields) == 7 * 24
    assert fields[0] == "Mon 2026-11-23 00:00: none"
    assert fields[21] == (
        "Mon 2026-11-23 03:00: 5 starts; at most 5 in one minute, more than the server runs at once: "
        "night-0, night-1, night-2, night-3, night-4"
    )
    over = [rect for rect in root.iter(f"{SVG}rect") if "over" in rect.attrib["class"].split()]
    assert len(over) == 7 + 1
    desc = root.findtext(f"{SVG}desc") or ""
    assert "In the busiest minute 5 start: night-0" in desc
    assert "Herd each day at 03:00: 5 start in one minute; spread: " in desc


def test_all_of_the_picture_lies_within_it() -> None:
    """In a day of 25 hours too."""
    root = draw(make(*herd(), first=date(2026, 10, 25), zone="Europe/Oslo", step=5))
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {width} {height}"
    for element in root.iter():
        if "x" in element.attrib:
            assert 0 <= int(element.attrib["x"]) + int(element.attrib.get("width", 0)) <= width
            assert 0 <= int(element.attrib["y"]) + int(element.attrib.get("height", 0)) <= height
    fields = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    assert len(fields) == 25 * 12
    assert sum(" again: " in field for field in fields) == 12


def test_a_skipped_hour_is_drawn_as_such() -> None:
    """It has no field, and says why."""
    root = draw(make(scheduled("a", "0 * * * *"), first=date(2026, 3, 27), zone="Europe/Oslo"))
    fields = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    assert [field for field in fields if "skip" in field] == [
        "Sun 2026-03-29 02:00: the clocks skip this time"
    ]


def test_the_picture_needs_nothing_and_runs_nothing() -> None:
    """One file without scripts, links and references; light and dark; the same bytes each time."""
    text = render_svg(make(*herd()))
    assert text == render_svg(make(*herd()))
    assert text.count("http") == 1  # its own namespace
    assert not re.search(r"<script|<image|<use|<foreignObject|href|url\(|@import|\son\w+=", text)
    assert text.count("prefers-color-scheme:dark") == 1
    style = draw(make(*herd())).findtext(f"{SVG}style") or ""
    light, dark = style.split("@media (prefers-color-scheme:dark){")
    for level in range(5):
        assert f".l{level}{{" in light
        assert f".l{level}{{" in dark
    assert style.count("{") == style.count("}")


def test_hostile_names_stay_text() -> None:
    """Whatever an entry is called, the picture is XML, and the name is no part of its structure."""
    calendar = make(scheduled(HOSTILE, "0 0 * * *"), scheduled("5s" + HOSTILE, "5 seconds"), limit=9)
    calendar = replace(calendar, target=HOSTILE)
    root = draw(calendar)
    render_svg(calendar).encode()
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        *("svg", "title", "desc", "style", "rect", "text", "g")
    }
    fields = [group.findtext(f"{SVG}title") or "" for group in root.iter(f"{SVG}g")]
    assert any("<script>alert('&\"]]>" in field for field in fields)


CONFIG = 'owner: shop\ntargets:\n  test: {{dsn: "{dsn}"}}\n'
NIGHTS = "".join(f'  night-{number}: {{daily: "03:00", sql: SELECT 1}}\n' for number in range(40))


def declare(directory: Path, jobs: str, dsn: str = "") -> None:
    """Write a configuration and a spec file."""
    (directory / "reconciler.yaml").write_text(CONFIG.format(dsn=dsn))
    (directory / "jobs.d").mkdir()
    (directory / "jobs.d" / "a.yaml").write_text(f"jobs:\n{jobs}")


def read_json(cli: Cli, *args: str) -> dict[str, Any]:
    """Call the command, and read what it prints."""
    result = cli("calendar", "--json", *args)
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_files_alone_are_enough(cli: Cli) -> None:
    """Offline there is no database to ask: GMT, and pg_cron's usual limit."""
    declare(cli.directory, NIGHTS)
    result = cli("calendar", "--offline", "--week", "2026-11-23")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "test: 280 starts of 40 jobs, Mon 2026-11-23 to Sun 2026-11-29, GMT"
    assert "taken for 32" in result.stdout
    assert "each day at 03:00: 40 start" in result.stdout
    assert result.stdout.isascii()
    assert cli("calendar", "--offline", "--day", "today").exit_code == 0
    assert len(cli("calendar", "--offline", "--week").stdout.splitlines()[2].split()) == 14


def test_the_advice_can_be_pasted(cli: Cli) -> None:
    """With the lines of the herd in the files there is no herd any more."""
    declare(cli.directory, NIGHTS)
    found = read_json(cli, "--offline", "--week", "2026-11-23")
    (crowd,) = found["herds"]
    assert (crowd["when"], crowd["starts"], crowd["minutes"]) == ("each day at 03:00", 40, 35)
    pasted = re.sub(r"\{spread: (\w+)\}  # .*", r'{daily: "03:00", sql: SELECT 1, spread: \1}', crowd["yaml"])
    (cli.directory / "jobs.d" / "a.yaml").write_text(pasted + "\n")
    found = read_json(cli, "--offline", "--week", "2026-11-23")
    assert found["starts"] == 280
    assert found["herds"] == []


def test_json_has_everything(cli: Cli) -> None:
    """Cells of a day of 25 hours, busiest minutes, herds."""
    declare(
        cli.directory,
        '  a: {schedule: "30 2 * * *", timezone: Europe/Oslo, ambiguous: both, sql: SELECT 1}\n',
    )
    found = read_json(cli, "--offline", "--day", "2026-10-25", "--zone", "Europe/Oslo")
    assert len(found["cells"]) == 25 * 12
    hot = [cell for cell in found["cells"] if cell["starts"]]
    assert [(cell["hour"], cell["minute"], cell["again"], cell["most_at"]) for cell in hot] == [
        (2, 30, False, "2026-10-25T00:30:00+00:00"),
        (2, 30, True, "2026-10-25T01:30:00+00:00"),
    ]
    assert found["busiest"] == [
        {"at": "2026-10-25T00:30:00+00:00", "starts": 1, "minutes": 2, "names": ["a"]}
    ]
    assert (found["zone"], found["limit"], found["limit_known"], found["herds"]) == (
        *("Europe/Oslo", 32, False, []),
    )


def test_only_some_jobs(cli: Cli) -> None:
    """The map is of those that are named, and herds are those that they are part of."""
    declare(cli.directory, NIGHTS + '  noon: {daily: "12:00", sql: SELECT 1}\n')
    noon = read_json(cli, "--offline", "--only", "noon")
    assert (noon["starts"], noon["herds"]) == (7, [])
    both = read_json(cli, "--offline", "--only", "noon", "--only", "night-3")
    assert both["starts"] == 14
    assert len(both["herds"][0]["names"]) == 40
    result = cli("calendar", "--offline", "--only", "nigth-3")
    assert result.exit_code == 1
    assert "did you mean night-3?" in result.stderr


@pytest.mark.parametrize(
    ("args", "exit_code", "told"),
    [
        (("--day", "2026-02-30"), 2, "'2026-02-30' is no date"),
        (("--day", "0001-01-01"), 2, "too far away"),
        (("--week", "--day", "today"), 2, "give one of them"),
        (("--zone", "Europe/Olso"), 1, "there is no time zone 'Europe/Olso'"),
        (("--svg", "no/where.svg"), 1, "no/where.svg cannot be written"),
    ],
)
def test_wrong_input_is_told(cli: Cli, args: tuple[str, ...], exit_code: int, told: str) -> None:
    """What is wrong, and no traceback."""
    declare(cli.directory, NIGHTS)
    result = cli("calendar", "--offline", *args)
    assert result.exit_code == exit_code
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_the_picture_is_written_beside_the_map(cli: Cli) -> None:
    """And said on standard error, so that JSON stays JSON."""
    declare(cli.directory, NIGHTS)
    args = ("calendar", "--offline", "--week", "2026-11-23", "--svg", "map.svg")
    result = cli(*args)
    assert result.stderr == "Wrote map.svg.\n"
    first = (cli.directory / "map.svg").read_bytes()
    assert ET.fromstring(first).tag == f"{SVG}svg"
    assert json.loads(cli(*args, "--json").stdout)["starts"] == 280
    assert (cli.directory / "map.svg").read_bytes() == first


def test_colours_are_left_out_where_they_are_not_wanted(cli: Cli) -> None:
    """NO_COLOR decides also on a terminal; the shades stay."""
    declare(cli.directory, NIGHTS)
    args = ["--config", str(cli.directory / "reconciler.yaml"), "--offline", "--week", "2026-11-23"]
    coloured = CliRunner().invoke(command, args, color=True, env={"NO_COLOR": ""}).output
    plain = CliRunner().invoke(command, args, color=True, env={"NO_COLOR": "1"}).output
    assert "\x1b[" in coloured
    assert plain == click.unstyle(coloured)
    assert "40!" in plain


DOCS = Path(__file__).parents[2] / "docs"
SAMPLE = "".join(
    [
        *(
            f'  night-{number:02d}: {{daily: "03:00", timezone: Europe/Oslo, sql: SELECT 1}}\n'
            for number in range(36)
        ),
        "  refresh: {every: 5m, sql: SELECT 1}\n  sync: {every: 15m, sql: SELECT 1}\n",
        '  office: {schedule: "*/10 8-16 * * 1-5", timezone: Europe/Oslo, sql: SELECT 1}\n',
        '  invoices: {weekly: {on: [mon], at: "08:00"}, timezone: Europe/Oslo, sql: SELECT 1}\n',
        '  vacuum: {schedule: "*/2 22,23 * * 6", timezone: Europe/Oslo, sql: SELECT 1}\n',
    ]
)


def test_the_documents_show_what_is_drawn(cli: Cli) -> None:
    """docs/calendar.svg is the picture of this sample, and docs/calendar.md has its text."""
    declare(cli.directory, SAMPLE)
    args = ("--week", "2026-10-19", "--zone", "Europe/Oslo", "--svg", "calendar.svg")
    result = cli("calendar", "--offline", *args)
    assert result.exit_code == 0, result.stderr
    drawn = cli.directory / "calendar.svg"
    assert drawn.read_bytes() == (DOCS / "calendar.svg").read_bytes(), f"copy {drawn} there if it is right"
    text = (DOCS / "calendar.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    for part in shown.split("...\n"):
        assert part in result.stdout, f"the command says:\n{result.stdout}"


def test_the_server_says_its_zone_and_its_limit(cli: Cli, database: Database) -> None:
    """With a database there are its limit, others' jobs, entries of nobody, and the tool's own ones."""
    site = Site(database)
    site.apply(job("theirs", schedule="0 3 * * *"), owner="kitchen")
    site.run("SELECT cron.schedule('stray', '0 3 * * *', 'SELECT 1')")
    site.run("SELECT cron.schedule('off', '0 3 * * *', 'SELECT 1')")
    site.run("UPDATE cron.job SET active = false WHERE jobname = 'off'")
    declare(cli.directory, NIGHTS, site.dsn)
    found = read_json(cli, "--week", "2026-11-23")
    row = site.rows("SELECT setting FROM pg_settings WHERE name = 'cron.max_running_jobs'")
    assert (found["limit"], found["limit_known"]) == (int(row[0][0]), True)
    assert found["starts"] == 42 * 7
    (crowd,) = found["herds"]
    assert {"theirs", "stray"} < set(crowd["names"])
    assert "off" not in crowd["names"]
    assert set(crowd["spread_names"]) == {f"night-{number}" for number in range(40)}


def test_a_role_that_may_only_look(cli: Cli, database: Database) -> None:
    """It cannot see the limit, and is told so."""
    site = Site(database)
    site.run("CREATE ROLE alice LOGIN; GRANT USAGE ON SCHEMA cron TO alice")
    declare(cli.directory, NIGHTS, Site(database, "alice").dsn)
    result = cli("calendar")
    assert result.exit_code == 0, result.stderr
    assert "the server's cron.max_running_jobs cannot be seen and is taken for 32" in result.stdout


def test_a_plan_tells_of_a_herd(cli: Cli, database: Database) -> None:
    """Before it is there."""
    declare(cli.directory, NIGHTS, Site(database).dsn)
    result = cli("plan", "--format", "json")
    assert result.exit_code == 0, result.stderr
    notices = {notice["code"]: notice for notice in json.loads(result.stdout)["notices"]}
    assert len(notices["herd"]["names"]) == 40
    assert notices["herd"]["message"].startswith("each day at 03:00 (GMT) ")


def test_today_is_that_of_the_zone(cli: Cli) -> None:
    """On Kiritimati it is tomorrow for most of the day."""
    declare(cli.directory, NIGHTS)
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        before = datetime.now(UTC)
        found = read_json(cli, "--offline", "--day", "today", "--zone", zone)
        hours = {"Pacific/Kiritimati": 14, "Pacific/Pago_Pago": -11}[zone]
        days = {(moment.timestamp() + hours * 3600) // 86400 for moment in (before, datetime.now(UTC))}
        assert {
            date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal() for day in found["days"]
        } <= days
