"""When jobs are due: what their documents say of it, as rows of reconciler.timings, and what follows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, LiteralString
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.times.local_rules import render_rule
from reconciler.core.times.occurrences import find_runs
from reconciler.core.times.timings import make_timing
from tests.declared import NEVER, Site
from tests.fires import BESIDE_A_DATABASE, NEW_YEAR, ZONES, connect_with_schema
from tests.timed import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    MINUTE,
    build_job,
    declare,
    draw_rule,
    draw_windows,
    find_changes,
    is_open,
    read_timing,
)

if TYPE_CHECKING:
    import psycopg

    from reconciler.core.specs import JobSpec
    from tests.servers import Database

DUE: LiteralString = "SELECT reconciler.next_due(%s, %s, %s, %s)"
OSLO = ZoneInfo("Europe/Oslo")
HALF_HOUR = 30 * MINUTE


@pytest.fixture
def conn(database: Database) -> psycopg.Connection:
    """A connection to a target with the schema."""
    return connect_with_schema(database)


@pytest.fixture
def site(database: Database) -> Site:
    """An empty database, seen by its superuser."""
    return Site(database)


def put(conn: psycopg.Connection, name: str = "a", *, server: str = "GMT", **declared: Any) -> JobSpec:
    """Put a job into the database, as the loader builds it."""
    spec = build_job(name, **declared)
    declare(conn, name, spec.document, server)
    return spec


def follow(
    conn: psycopg.Connection,
    after: datetime,
    count: int,
    *,
    name: str = "a",
    entry: str | None = NEVER,
    server: str = "GMT",
) -> list[datetime]:
    """Ask for one run after the other, until there are no more."""
    found: list[datetime] = []
    while len(found) < count:
        row = conn.execute(DUE, [name, entry, after, server]).fetchone()
        if row is None or row[0] is None:
            break
        after = row[0].astimezone(UTC)
        found.append(after)
    return found


def show(instants: list[datetime], place: ZoneInfo = OSLO) -> list[str]:
    """Show instants on the clocks of a place."""
    return [at.astimezone(place).strftime("%a %m-%d %H:%M") for at in instants]


# --- rows ---

BOTH = {"ambiguous": "both", "nonexistent": "skip"}


DOCUMENTS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    ({"schedule": "0 8 * * 1-5", "timezone": "Europe/Oslo"}, "GMT",
     {"schedule": "0 8 * * 1-5", "zone": "Europe/Oslo"}),
    ({"schedule": "0 8 * * *", "ambiguous": "last"}, "GMT",
     {"schedule": "0 8 * * *", "ambiguous": "last"}),
    ({"schedule": "0 8 * * *", "end_at": "2030-01-01T00:00:00Z"}, "GMT",
     {"end_at": "2030-01-01T00:00:00+00:00"}),
    ({"schedule": "0 8 * * *"}, "Europe/Oslo", {}),
    ({"daily": "02:30"}, "Etc/UTC", {}),
    ({"daily": "02:30"}, "Europe/Oslo", {"schedule": "30 2 * * *"}),
    ({"daily": "02:05", "timezone": "UTC"}, "GMT", {"schedule": "5 2 * * *", "zone": "UTC"}),
    ({"weekly": {"on": ["sat", "mon"], "at": "00:00"}, "nonexistent": "skip"}, "GMT",
     {"schedule": "0 0 * * 1,6", "nonexistent": "skip"}),
    ({"monthly": {"day": 31, "at": "9:00"}}, "GMT", {}),
    ({"monthly": {"day": 31, "at": "9:00"}}, "Asia/Tokyo", {"schedule": "0 9 31 * *"}),
    ({"monthly": {"day": "last", "at": "9:00"}}, "GMT", {"schedule": "0 9 $ * *"}),
    ({"monthly": {"day": "second tue", "at": "9:00"}}, "GMT", {"schedule": "0 9 * * 2#2"}),
    ({"monthly": {"day": "fifth sun", "at": "9:00"}}, "GMT", {"schedule": "0 9 * * 0#5"}),
    ({"monthly": {"day": "last sat", "at": "9:00"}}, "GMT", {"schedule": "0 9 * * 6L"}),
    ({"every": "15m"}, "Europe/Oslo", {}),
    ({"every": "30s"}, "GMT", {}),
    ({"every": "90m"}, "GMT", {"every": "01:30:00", "anchor": "1970-01-01T00:00:00+00:00"}),
    ({"every": "366d"}, "GMT", {"every": "8784:00:00", "anchor": "1970-01-01T00:00:00+00:00"}),
    ({"every": "15m", "start_at": "2027-01-01T00:05:00Z"}, "GMT",
     {"every": "00:15:00", "anchor": "2027-01-01T00:05:00+00:00",
      "start_at": "2027-01-01T00:05:00+00:00"}),
    ({"every": "30s", "start_at": "2027-01-01T00:05:00Z"}, "GMT",
     {"start_at": "2027-01-01T00:05:00+00:00"}),
    ({"every": "15m", "blackout": [{"on": ["sun", "sat"]}], "timezone": "Asia/Tokyo"}, "GMT",
     {"zone": "Asia/Tokyo", "blackout": [{"on": ["sun", "sat"]}]}),
    ({"after": ["b"], "end_at": "2030-01-01T00:00:00Z"}, "GMT", {"end_at": "2030-01-01T00:00:00+00:00"}),
    ({"once": "2027-01-01T08:00", "timezone": "Europe/Oslo"}, "GMT", {}),
)  # fmt: skip
"""What is declared, the server's zone, and the row without its name and what is empty; {} for no row."""


def test_what_a_document_says(conn: psycopg.Connection) -> None:
    """Only jobs whose entry alone cannot say it have a row; it holds what was meant, in few forms."""
    conn.execute("SET TimeZone = 'UTC'")
    for number, (declared, server, expected) in enumerate(DOCUMENTS):
        put(conn, f"job-{number}", server=server, **declared)
        assert read_timing(conn, f"job-{number}") == expected, declared
    rows = conn.execute("SELECT count(*) FROM reconciler.timings").fetchone()
    assert rows == (sum(bool(expected) for _, _, expected in DOCUMENTS),)


def test_a_spread_moves_what_pg_cron_would_fire(conn: psycopg.Connection) -> None:
    """The schedule without it becomes the rule, as pg_cron reads it, and a part of the spread is added."""
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"schedule": "0 8 * * 1-5"}, "0 8 * * 1-5"),
        ({"every": "15m"}, "*/15 * * * *"),
        ({"every": "1h"}, "0 */1 * * *"),
        ({"every": "6h"}, "0 */6 * * *"),
        ({"every": "1d"}, "0 0 * * *"),
    )
    for number, (declared, rule) in enumerate(cases):
        name = f"job-{number}"
        put(conn, name, spread="4h", **declared)
        minutes = int.from_bytes(sha256(name.encode()).digest()[:8]) % 240
        row = conn.execute(
            "SELECT schedule, ambiguous, nonexistent, shift FROM reconciler.timings WHERE name = %s", [name]
        ).fetchone()
        assert row == (rule, "both", "skip", minutes * MINUTE)
        (first,) = follow(conn, NEW_YEAR, 1, name=name)
        assert (first - minutes * MINUTE).minute in {0, 15, 30, 45}


def test_the_shift_of_any_name(conn: psycopg.Connection) -> None:
    """A shift is the hash of the name, without a sign, modulo the minutes of the spread."""
    names = [f"job-{number}" for number in range(200)]
    rows = conn.execute(
        "SELECT reconciler.find_shift(name, make_interval(mins => 2 + number::integer * 7))"
        "  FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, number) ORDER BY number",
        [names],
    ).fetchall()
    assert [row[0] // MINUTE for row in rows] == [
        int.from_bytes(sha256(name.encode()).digest()[:8]) % (2 + number * 7)
        for number, name in enumerate(names, 1)
    ]


def test_direct_jobs_have_none(conn: psycopg.Connection) -> None:
    """What is handed to pg_cron as it is has no guard."""
    put(conn, schedule="0 8 * * *", timezone="UTC", mode="direct")
    assert conn.execute("SELECT count(*) FROM reconciler.timings").fetchone() == (0,)


# --- beside the core ---


def draw_job(chance: Random, after: datetime) -> dict[str, Any]:
    """Draw when a job runs; half of them shortly after an instant."""
    zone = chance.choice(ZONES)
    wall = (after + chance.random() * 3 * DAY).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    at = f"{wall:%H:%M}"
    kind = chance.choice(("schedule", "schedule", "daily", "weekly", "monthly", "every", "even", "seconds"))
    declared: Any
    if kind == "schedule":
        texts = (draw_rule(chance, wall).text for _ in range(100))
        declared = {"schedule": next(text for text in texts if not {"#", "L"} & set(text))}
    else:
        declared = {
            "daily": {"daily": at},
            "weekly": {"weekly": {"on": chance.sample(("sun", "mon", "wed", "sat"), 2), "at": at}},
            "monthly": {"monthly": {
                "day": chance.choice((wall.day, 31, "last", "second tue", "last sun")), "at": at}},
            "every": {"every": chance.choice(("7m", "90m", "5h", "36h", "10d"))},
            "even": {"every": chance.choice(("1m", "20m", "1h", "8h", "1d"))},
            "seconds": {"every": chance.choice(("1s", "45s"))},
        }[kind]  # fmt: skip
    if kind not in {"every", "even", "seconds"}:
        declared |= chance.choice(({}, {"timezone": zone}))
        declared |= chance.choice(({}, {"ambiguous": chance.choice(("first", "last", "both"))}))
        declared |= chance.choice(({}, {"nonexistent": chance.choice(("next", "skip"))}))
    # A start is what other intervals than seconds count from.
    if kind not in {"even", "seconds"} and chance.random() < 0.2:
        declared["start_at"] = f"{after + chance.uniform(-2, 20) * DAY:%Y-%m-%dT%H:%M:00Z}"
    elif kind != "seconds" and chance.random() < 0.3:
        declared["spread"] = chance.choice(("5m", "2h", "24h"))
    if chance.random() < 0.3:
        declared["end_at"] = f"{after + chance.uniform(21, 500) * DAY:%Y-%m-%dT%H:%M:00Z}"
    if kind != "seconds" and chance.random() < 0.5:
        declared["blackout"] = draw_windows(chance, wall.date())
    job_fields: dict[str, Any] = declared
    return job_fields


def test_as_the_core_says(conn: psycopg.Connection) -> None:
    """The runs of any job are the same here and in Python, from its document on."""
    compared = 0

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        nonlocal compared
        chance = Random(seed)
        for number in range(8):
            name, server = f"job-{seed}-{number}", chance.choice(ZONES)
            after = FIRST + chance.random() * (LAST - FIRST - 1000 * DAY)
            changes = find_changes(chance.choice(ZONES))
            if changes and chance.random() < 0.6:
                after = min(chance.choice(changes), LAST - 1000 * DAY) - chance.uniform(0, 60) * HOUR
            after = after.replace(microsecond=0)
            declared = draw_job(chance, after)
            try:
                spec = put(conn, name, server=server, **declared)
            except AssertionError:
                continue  # such windows leave no moment, say
            timing = make_timing(spec, server)
            assert timing is not None
            entry = NEVER
            if timing.rule is not None:
                entry = timing.text or render_rule(timing.rule)
            elif timing.seconds:
                entry = f"{timing.seconds} seconds"
            expected = find_runs(timing, after=after, count=3)
            assert tuple(follow(conn, after, 3, name=name, entry=entry, server=server)) == expected, declared
            compared += 1

    compare()
    assert compared > 100


# --- intervals, windows, blackouts ---


def test_an_interval_counts_from_its_anchor(conn: psycopg.Connection) -> None:
    """Each 90 minutes of all time, or from a start on, whatever the clocks of the session's zone do."""
    conn.execute("SET TimeZone = 'Europe/Oslo'")
    put(conn, every="90m")
    after = datetime(2026, 10, 24, 23, tzinfo=UTC)
    assert all((at.timestamp() % 5400) == 0 for at in follow(conn, after, 40))
    put(conn, "b", every="36h", start_at="2026-10-24T00:00:20Z")
    start = datetime(2026, 10, 24, 0, 0, 20, tzinfo=UTC)
    assert follow(conn, FIRST, 4, name="b") == [start + number * 36 * HOUR for number in range(4)]
    assert follow(conn, start, 1, name="b") == [start + 36 * HOUR]
    assert follow(conn, start + 36 * HOUR - MINUTE / 60, 1, name="b") == [start + 36 * HOUR]


def test_the_window_holds_its_start_and_not_its_end(conn: psycopg.Connection) -> None:
    """The first run may be at the start itself; none is at the end or later, and then there is no other."""
    put(conn, schedule="0 8 * * *", timezone="UTC",
        start_at="2027-03-01T08:00:00Z", end_at="2027-03-04T08:00:00Z")  # fmt: skip
    first = datetime(2027, 3, 1, 8, tzinfo=UTC)
    assert follow(conn, NEW_YEAR, 9) == [first, first + DAY, first + 2 * DAY]
    assert follow(conn, first + 3 * DAY, 1) == []


def test_a_shift_is_judged_where_it_leads(conn: psycopg.Connection) -> None:
    """Window and blackout are compared with the moment at which a run would really start."""
    put(conn, schedule="0 * * * *", timezone="UTC", blackout=[{"from": "00:00", "to": "05:30"}])
    conn.execute("UPDATE reconciler.timings SET shift = '40 min'")
    assert [f"{at:%H:%M}" for at in follow(conn, NEW_YEAR, 2)] == ["05:40", "06:40"]


def test_runs_in_a_blackout_fall_out(conn: psycopg.Connection) -> None:
    """They are not put off: the next one is the first that is wanted after the windows."""
    put(conn, schedule="*/20 8-17 * * *", timezone="Europe/Oslo", blackout=[
        {"on": ["sat", "sun"]}, {"from": "08:10", "to": "16:40"},
        {"from": "16:40", "to": "17:10", "on": ["tue"]},
    ])  # fmt: skip
    # From Friday, 1 January 2027.
    assert show(follow(conn, NEW_YEAR, 9)) == [
        "Fri 01-01 08:00", "Fri 01-01 16:40", "Fri 01-01 17:00", "Fri 01-01 17:20", "Fri 01-01 17:40",
        "Mon 01-04 08:00", "Mon 01-04 16:40", "Mon 01-04 17:00", "Mon 01-04 17:20",
    ]  # fmt: skip


def test_the_entry_decides_where_nothing_else_is_said(conn: psycopg.Connection) -> None:
    """With a window or blackouts alone a job is due when its entry is, by the server's clocks."""
    put(conn, schedule="0 3 * * *", blackout=[{"on": ["sat", "sun"]}], server="Asia/Tokyo")
    found = follow(conn, NEW_YEAR, 2, entry="0 3 * * *", server="Asia/Tokyo")
    assert show(found, ZoneInfo("Asia/Tokyo")) == ["Mon 01-04 03:00", "Tue 01-05 03:00"]


def test_seconds_begin_at_once_where_they_may(conn: psycopg.Connection) -> None:
    """An interval of seconds counts from its start, or from the end of a blackout."""
    put(conn, every="45s", start_at="2027-01-02T00:00:10Z", blackout=[{"from": "01:00", "to": "02:00"}])
    start = datetime(2027, 1, 2, 0, 0, 10, tzinfo=UTC)
    assert follow(conn, NEW_YEAR, 2, entry="45 seconds") == [start, start + 0.75 * MINUTE]
    at_two = datetime(2027, 1, 2, 2, tzinfo=UTC)
    assert follow(conn, at_two - 61 * MINUTE + 50 * MINUTE / 60, 1, entry="45 seconds") == [at_two]


def test_a_blackout_that_never_ends_leaves_no_time(conn: psycopg.Connection) -> None:
    """Null, and soon, where windows follow each other for ever, and where each single run is in one."""
    put(conn, "b", schedule="* * * * *", timezone="UTC", blackout=[{"first": "2027-01-05"}])
    assert len(follow(conn, datetime(2027, 1, 4, 23, 57, tzinfo=UTC), 9, name="b")) == 2
    put(conn, "c", schedule="0 3 * * *", timezone="UTC", blackout=[{"from": "02:30", "to": "03:30"}])
    assert follow(conn, NEW_YEAR, 1, name="c") == []
    put(conn, "d", schedule="* * * * *", timezone="UTC")
    conn.execute(
        "UPDATE reconciler.timings SET blackout = %s::jsonb WHERE name = 'd'",
        ['[{"on": ["sun", "mon", "tue", "wed"]}, {"on": ["wed", "thu", "fri", "sat"]}]'],
    )
    assert follow(conn, NEW_YEAR, 1, name="d") == []


def test_a_blackout_on_the_days_of_clock_changes(conn: psycopg.Connection) -> None:
    """A repeated time is in a window twice; one that ends at a skipped time ends when the clocks go on."""
    put(conn, schedule="*/30 * * * *", timezone="Europe/Oslo", blackout=[{"from": "01:00", "to": "02:30"}])
    autumn, spring = datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2027, 3, 28, 0, tzinfo=UTC)
    assert [f"{at:%H:%M}" for at in follow(conn, autumn, 3)] == ["00:30", "01:30", "02:00"]
    assert [f"{at:%H:%M}" for at in follow(conn, spring, 2)] == ["01:00", "01:30"]


def test_even_intervals_count_by_the_server_s_clocks(conn: psycopg.Connection) -> None:
    """Also with a spread, and where the blackout is meant in another zone."""
    put(conn, every="2h", spread="2m", timezone="Asia/Tokyo", blackout=[{"from": "10:00", "to": "24:00"}],
        server="Asia/Kathmandu")  # fmt: skip
    conn.execute("UPDATE reconciler.timings SET shift = '7 min'")
    found = follow(conn, NEW_YEAR, 2, server="Asia/Kathmandu")
    assert show(found, ZoneInfo("Asia/Kathmandu")) == ["Fri 01-01 06:07", "Fri 01-01 22:07"]
    assert show(found, ZoneInfo("Asia/Tokyo")) == ["Fri 01-01 09:22", "Sat 01-02 01:22"]


def test_the_end_of_windows(conn: psycopg.Connection) -> None:
    """Any windows are over when somebody who walks on by half hours has left the last of them."""

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        chance = Random(seed)
        for _ in range(15):
            wall = datetime(2027, 1, 1) + chance.randrange(365 * 48) * HALF_HOUR  # noqa: DTZ001 - on a wall
            windows = draw_windows(chance, wall.date())
            row = conn.execute("SELECT reconciler.find_blackout_end(%s, %s::jsonb)::text",
                               [wall, json.dumps(windows)]).fetchone()  # fmt: skip
            assert row is not None
            later, patience = wall, 3 * 7 * 48
            while is_open(later, windows) and patience:
                later, patience = later + HALF_HOUR, patience - 1
            if patience == 0:
                assert row[0] == "infinity" or datetime.fromisoformat(row[0]) >= later
                assert row[0] != "infinity" or is_open(later + 3000 * DAY, windows)
            else:
                assert row[0] == (None if later == wall else str(later)), (wall, windows)

    compare()
