"""Ask the database when a schedule fires, answer as Python does, and draw what to ask."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings

from reconciler.core.schedules import Dialect, dialect_for, next_runs
from reconciler.database.migrate import migrate_target
from tests.schedule_texts import sound_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    import psycopg

    from tests.servers import Database

# Odd offsets, odd shifts (Lord Howe by 30 minutes, Apia by a day), changes at midnight and on Fridays.
ZONES = (
    "GMT",
    "UTC",
    "Europe/Oslo",
    "Europe/London",
    "America/New_York",
    "America/Havana",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Amman",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
)
FIRST = datetime(1990, 1, 1, tzinfo=UTC)
LAST = datetime(2026, 12, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)

BESIDE_A_DATABASE = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Question(NamedTuple):
    """When does a schedule fire?"""

    schedule: str
    after: datetime
    zone: str


def connect_with_schema(database: Database) -> psycopg.Connection:
    """Open a connection to a target with the schema reconciler."""
    conn = database.connect()
    migrate_target(conn)
    return conn


def ask(conn: psycopg.Connection, questions: Iterable[Question]) -> list[datetime | None]:
    """Ask all questions in one round trip."""
    schedules, instants, zones = (list(column) for column in zip(*questions, strict=True))
    return [
        row[0]
        for row in conn.execute(
            "SELECT reconciler.next_fire(schedule, after, zone)"
            "  FROM unnest(%s::text[], %s::timestamptz[], %s::text[])"
            "       WITH ORDINALITY AS question (schedule, after, zone, place)"
            " ORDER BY place",
            [schedules, instants, zones],
        )
    ]


def ask_one(
    conn: psycopg.Connection, schedule: str, after: datetime = NEW_YEAR, zone: str = "GMT"
) -> datetime | None:
    """Ask one question."""
    (fire,) = ask(conn, [Question(schedule, after, zone)])
    return fire


def follow(conn: psycopg.Connection, schedule: str, after: datetime, zone: str, count: int) -> list[str]:
    """Ask for one instant after another, and show them on the clocks of the zone."""
    found = []
    for _ in range(count):
        fire = ask_one(conn, schedule, after, zone)
        assert fire is not None
        found.append(fire.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z"))
        after = fire
    return found


def dialect_of(database: Database) -> Dialect:
    """Give what the server's pg_cron reads, and the newer forms too, which next_fire reads everywhere."""
    return replace(dialect_for(database.server.pg_cron), seconds=True, last_day=True)


def expect(question: Question, dialect: Dialect) -> datetime | None:
    """Answer a question about a schedule without problems as Python does."""
    runs = next_runs(question.schedule, after=question.after, count=1, zone=question.zone, dialect=dialect)
    # In UTC: Python takes a time that comes twice for different from every time in another zone.
    return runs[0].astimezone(UTC) if runs else None


@lru_cache
def find_clock_changes(zone: str) -> tuple[datetime, ...]:
    """Find the instants between FIRST and LAST at which the clocks of a zone change."""
    place = ZoneInfo(zone)

    def offset(instant: datetime) -> timedelta | None:
        return instant.astimezone(place).utcoffset()

    found = []
    day = FIRST
    while day < LAST:
        early, late = day, day + timedelta(days=1)
        if offset(early) != offset(late):
            while late - early > MINUTE:
                middle = early + (late - early) // MINUTE // 2 * MINUTE
                if offset(middle) == offset(early):
                    early = middle
                else:
                    late = middle
            found.append(late)
        day += timedelta(days=1)
    return tuple(found)


def draw_question(chance: Random) -> Question:
    """Draw a question; half of those about zones with summer time lie near a change of their clocks."""
    zone = chance.choice(ZONES)
    changes = find_clock_changes(zone)
    if not changes or chance.random() < 0.5:
        after = FIRST + chance.random() * (LAST - FIRST)
        return Question(sound_text(chance), after, zone)
    change = chance.choice(changes)
    after = change + chance.choice((1, 30, 500)) * timedelta(hours=chance.uniform(-2, 1))
    # The time that a clock would show which nobody had changed: skipped times are among them.
    wall = (change - MINUTE).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    return Question(pointed_text(chance, wall + chance.randint(-180, 180) * MINUTE), after, zone)


def pointed_text(chance: Random, wall: datetime) -> str:
    """Make five fields that a given time fits."""
    return " ".join(
        (
            chance.choice(("*", f"{wall.minute}", f"*/15,{wall.minute}")),
            chance.choice(("*", f"{wall.hour}", f"{wall.hour}-23", f"0-{wall.hour}")),
            chance.choice(("*", "*", f"{wall.day}", f"{wall.day}-31", f"*/3,{wall.day}", "$")),
            chance.choice(("*", "*", f"{wall.month}", f"{wall:%b}-12")),
            chance.choice(("*", "*", f"{wall:%a}", "*/2", "5-7")),
        )
    )
