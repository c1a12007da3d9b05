"""The database says when a rule of local time is meant: reconciler.next_time beside clocks of Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from tests.fires import BESIDE_A_DATABASE, ZONES, connect_with_schema
from tests.timed import (
    FIRST,
    GAPS,
    HOUR,
    LAST,
    MINUTE,
    TURNS,
    Wish,
    answer_by_days,
    answer_nearby,
    draw_rule,
    find_changes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from tests.servers import Database

# Two in the Antarctic, whose clocks are set back by two and three hours.
CHANGING = (*(zone for zone in ZONES if zone not in {"GMT", "UTC"}), "Antarctica/Troll", "Antarctica/Casey")


def ask(conn: psycopg.Connection, wishes: Sequence[Wish]) -> list[datetime | None]:
    """Ask for all of them in one round trip."""
    columns = list(zip(*((wish.rule.text, *wish[1:]) for wish in wishes), strict=True))
    return [
        row[0] and row[0].astimezone(UTC)
        for row in conn.execute(
            "SELECT reconciler.next_time(rule, after, zone, turn, gap)"
            "  FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::text[])"
            "       WITH ORDINALITY AS wish (rule, after, zone, turn, gap, place)"
            " ORDER BY place",
            [list(column) for column in columns],
        )
    ]


def follow(
    conn: psycopg.Connection,
    rule: str,
    after: datetime,
    count: int,
    *,
    zone: str = "Europe/Oslo",
    turn: str | None = None,
    gap: str | None = None,
) -> list[str]:
    """Ask for one instant after another, and show them on the clocks of the zone."""
    found = []
    for _ in range(count):
        row = conn.execute(
            "SELECT reconciler.next_time(%s, %s, %s, %s, %s)", [rule, after, zone, turn, gap]
        ).fetchone()
        assert row is not None
        after = row[0]
        found.append(after.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z"))
    return found


# --- beside the clocks of Python ---


def test_each_change_of_the_clocks_from_1990_to_2037(database: Database) -> None:
    """Around each change of the zones' clocks the answers are those of somebody who watches each minute."""
    conn = connect_with_schema(database)
    changes = [(zone, change) for zone in CHANGING for change in find_changes(zone)]
    chance = Random(1)
    wrong = []
    for zone, change in changes:
        wishes = []
        for _ in range(6):
            # The time that a clock would show which nobody had set: skipped times are among them.
            wall = (change - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            rule = draw_rule(chance, wall + chance.randint(-70, 100) * MINUTE)
            after = change + chance.choice((0, 1, chance.randint(-300, 240))) * MINUTE
            after -= chance.choice((0, 0, 1, 30, 60)) * timedelta(seconds=1)
            wishes.append(Wish(rule, after, zone, chance.choice(TURNS), chance.choice(GAPS)))
        for wish, answer in zip(wishes, ask(conn, wishes), strict=True):
            expected = answer_nearby(wish, change)
            if answer != expected and (expected or (answer and answer < change + 6 * HOUR)):
                wrong.append((wish, answer, expected))
    assert wrong == []
    assert len(changes) > 800


def test_any_instant_of_any_zone(database: Database) -> None:
    """Also far from changes, and over months, the answers are those of a calendar and the zone's clocks."""
    conn = connect_with_schema(database)

    @BESIDE_A_DATABASE
    @given(st.integers(0, 2**32))
    def compare(seed: int) -> None:
        chance = Random(seed)
        wishes = []
        for _ in range(40):
            zone = chance.choice(ZONES)
            after = FIRST + chance.random() * (LAST - FIRST)
            if find_changes(zone) and chance.random() < 0.6:
                after = chance.choice(find_changes(zone))
                after -= chance.choice((1, 30, 300)) * timedelta(hours=chance.uniform(-3, 24))
            after = min(after, LAST - timedelta(days=800))
            near = after + timedelta(days=chance.choice((0, 1, 40)), hours=chance.uniform(0, 24))
            rule = draw_rule(chance, near.astimezone(ZoneInfo(zone)).replace(tzinfo=None))
            wishes.append(Wish(rule, after, zone, chance.choice(TURNS), chance.choice(GAPS)))
        for wish, answer in zip(wishes, ask(conn, wishes), strict=True):
            expected = answer_by_days(wish)
            assert answer == expected or (
                expected is None and (answer is None or answer > wish.after + timedelta(days=700))
            ), wish

    compare()


# --- the choices ---

AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)
SPRING = datetime(2027, 3, 27, 12, tzinfo=UTC)


def test_a_time_that_comes_twice(database: Database) -> None:
    """The first run, the last one or both, as is asked for; the first unless somebody asks."""
    conn = connect_with_schema(database)
    first, last, tomorrow = "2026-10-25 02:30 +0200", "2026-10-25 02:30 +0100", "2026-10-26 02:30 +0100"
    expected = {
        None: [first, tomorrow],
        "first": [first, tomorrow],
        "last": [last, tomorrow],
        "both": [first, last],
    }
    assert {turn: follow(conn, "30 2 * * *", AUTUMN, 2, turn=turn) for turn in TURNS} == expected


def test_a_time_that_is_skipped(database: Database) -> None:
    """Once at the first moment after it, or not at all, as is asked for; once unless somebody asks."""
    conn = connect_with_schema(database)
    once = ["2027-03-28 03:00 +0200", "2027-03-29 02:30 +0200"]
    expected = {None: once, "next": once, "skip": ["2027-03-29 02:30 +0200", "2027-03-30 02:30 +0200"]}
    assert {gap: follow(conn, "30 2 * * *", SPRING, 2, gap=gap) for gap in GAPS} == expected


def test_many_skipped_times_are_one(database: Database) -> None:
    """However many times of a rule the clocks skip, and also where the next one is itself meant: once."""
    conn = connect_with_schema(database)
    after = datetime(2027, 3, 28, 0, 50, tzinfo=UTC)
    assert follow(conn, "*/10 1-3 * * *", after, 2) == ["2027-03-28 03:00 +0200", "2027-03-28 03:10 +0200"]


def test_what_comes_every_hour_keeps_its_pace(database: Database) -> None:
    """A rule of all hours takes repeated times both times and skipped ones never, unless somebody asks."""
    conn = connect_with_schema(database)
    after = datetime(2026, 10, 25, 0, 40, tzinfo=UTC)
    assert follow(conn, "30 * * * *", after, 2) == ["2026-10-25 02:30 +0100", "2026-10-25 03:30 +0100"]
    assert follow(conn, "30 * * * *", after, 1, turn="first") == ["2026-10-25 03:30 +0100"]
    after = datetime(2027, 3, 28, 0, 40, tzinfo=UTC)
    assert follow(conn, "30 * * * *", after, 1) == ["2027-03-28 03:30 +0200"]
    assert follow(conn, "30 * * * *", after, 1, gap="next") == ["2027-03-28 03:00 +0200"]


def test_a_whole_day_that_is_skipped(database: Database) -> None:
    """Apia had no 30 December 2011: what was meant for it comes at the first moment of the 31st."""
    conn = connect_with_schema(database)
    after = datetime(2011, 12, 29, 23, tzinfo=UTC)
    assert follow(conn, "0 12 * * *", after, 2, zone="Pacific/Apia") == [
        "2011-12-31 00:00 +1400",
        "2011-12-31 12:00 +1400",
    ]


# --- our own forms ---


def test_the_nth_and_the_last_weekday(database: Database) -> None:
    """1#2 is the second Monday, 5L the last Friday; a month without a fifth one is left out."""
    conn = connect_with_schema(database)
    after = datetime(2027, 1, 1, tzinfo=UTC)
    days = {
        "0 8 * * 1#2": ["2027-01-11", "2027-02-08", "2027-03-08"],
        "0 8 * * 0#1": ["2027-01-03", "2027-02-07", "2027-03-07"],
        "0 8 * * 0#5": ["2027-01-31", "2027-05-30", "2027-08-29"],
        "0 8 * * 5L": ["2027-01-29", "2027-02-26", "2027-03-26"],
        "0 8 * feb 0L": ["2027-02-28", "2028-02-27", "2029-02-25"],
    }
    found = {rule: [run[:10] for run in follow(conn, rule, after, 3)] for rule in days}
    assert found == days


def test_our_own_forms_are_not_for_pg_cron(database: Database) -> None:
    """next_fire has no time for them, since pg_cron reads them as something else; odd ones nobody has."""
    conn = connect_with_schema(database)
    for text in ("0 8 * * 1#2", "0 8 * * 5L"):
        assert conn.execute("SELECT reconciler.next_fire(%s, now(), 'GMT')", [text]).fetchone() == (None,)
    odd = ("1#6", "1#0", "7#1", "1#22", "#1", "L", "8L", "1-5L", "mon#2", "5LL", "5l")
    for text in [*(f"0 8 * * {day}" for day in odd), "0 8 1 * 1#2", "0 8 $ * 5L", "0 8 */2 * 1#2"]:
        row = conn.execute("SELECT reconciler.next_time(%s, now(), 'GMT')", [text]).fetchone()
        assert row == (None,), text


def test_null_and_nonsense_have_no_time(database: Database) -> None:
    """Without a rule, an instant or a zone there is no answer, and never an error."""
    conn = connect_with_schema(database)
    for arguments in (
        (None, "2027-01-01Z", "GMT"),
        ("* * * * *", None, "GMT"),
        ("* * * * *", "infinity", "GMT"),
        ("garbage", "2027-01-01Z", "GMT"),
        ("0 0 31 2 *", "2027-01-01Z", "Europe/Oslo"),
    ):
        row = conn.execute("SELECT reconciler.next_time(%s, %s::timestamptz, %s)", arguments).fetchone()
        assert row == (None,), arguments
