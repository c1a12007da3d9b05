"""Say when a local time comes, slowly and surely: day by day, minute by minute, with the clocks of Python."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from psycopg import sql

from reconciler.core.config import Config, Target
from reconciler.core.specs import JobSpec, Place
from reconciler.loader.builder import SpecBuilder
from reconciler.loader.declarations import Declaration, merge
from reconciler.loader.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from random import Random

    import psycopg

    from tests.declared import Site

FIRST = datetime(1990, 1, 1, tzinfo=UTC)
LAST = datetime(2038, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TURNS = (None, "first", "last", "both")
GAPS = (None, "next", "skip")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CONFIG = Config(
    path="", owner="shop", jobs=(), targets={"t": Target(name="t")}, default_target="t", secrets={}
)


class Rule(NamedTuple):
    """A rule of local time, as a text and as what it means."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    fits: Callable[[date], bool]


class Wish(NamedTuple):
    """When is a rule wanted next?"""

    rule: Rule
    after: datetime
    zone: str
    ambiguous: str | None
    nonexistent: str | None

    def choices(self) -> tuple[str, str]:
        """Say what clock changes do to it."""
        paced = len(self.rule.hours) == 24
        return (
            self.ambiguous or ("both" if paced else "first"),
            self.nonexistent or ("skip" if paced else "next"),
        )


# --- draw ---


def draw_rule(chance: Random, wall: datetime) -> Rule:
    """Draw a rule; a given local time often fits it."""
    minutes = chance.choice((range(60), {wall.minute}, {wall.minute, chance.randrange(60)}, {0}))
    hours = chance.choice(
        (range(24), {wall.hour}, {wall.hour}, {wall.hour, (wall.hour + 1) % 24}, {wall.hour, 12})
    )
    days, fits = _draw_days(chance, wall.date())
    text = f"{_spell(minutes, 60)} {_spell(hours, 24)} {days}"
    return Rule(text, frozenset(minutes), frozenset(hours), fits)


def _draw_days(chance: Random, day: date) -> tuple[str, Callable[[date], bool]]:
    weekday, nth = day.isoweekday() % 7, (day.day - 1) // 7 + 1
    other = chance.randint(1, 31)
    numbers, months = {day.day, other}, {day.month, chance.randint(1, 12)}
    return chance.choice(
        (
            ("* * *", lambda _: True),
            ("* * *", lambda _: True),
            (f"{_spell(numbers)} * *", lambda on: on.day in numbers),
            (f"{day.day} {_spell(months)} *", lambda on: on.day == day.day and on.month in months),
            (f"* * {weekday}", lambda on: on.isoweekday() % 7 == weekday),
            (f"{other} * {weekday}", lambda on: on.day == other or on.isoweekday() % 7 == weekday),
            ("$ * *", lambda on: (on + DAY).day == 1),
            (
                f"* * {weekday}#{nth}",
                lambda on: on.isoweekday() % 7 == weekday and (on.day - 1) // 7 + 1 == nth,
            ),
            (
                f"* * {weekday}L",
                lambda on: on.isoweekday() % 7 == weekday and (on + 7 * DAY).month != on.month,
            ),
        )
    )


def _spell(values: Iterable[int], every: int = 0) -> str:
    chosen = sorted(values)
    return "*" if len(chosen) == every else ",".join(map(str, chosen))


@lru_cache
def find_changes(zone: str) -> tuple[datetime, ...]:
    """Find the instants between FIRST and LAST at which the clocks of a zone are set."""
    place, found, day = ZoneInfo(zone), [], FIRST
    while day < LAST:
        if _offset(day, place) != _offset(day + DAY, place):
            early, late = day, day + DAY
            while late - early > MINUTE:
                middle = early + (late - early) // MINUTE // 2 * MINUTE
                if _offset(middle, place) == _offset(day, place):
                    early = middle
                else:
                    late = middle
            found.append(late)
        day += DAY
    return tuple(found)


def _offset(at: datetime, place: ZoneInfo) -> timedelta:
    return at.astimezone(place).utcoffset() or timedelta()


# --- answer, minute by minute ---


@lru_cache(maxsize=4)
def list_minutes(zone: str, change: datetime) -> list[tuple[datetime, list[datetime], str]]:
    """List the minutes of the hours around a change: the local times that they stand for, and which pass."""
    place, found = ZoneInfo(zone), []
    before = (change - 6 * HOUR - MINUTE).astimezone(place)
    for number in range(12 * 60):
        at = change - 6 * HOUR + number * MINUTE
        local = at.astimezone(place)
        wall = local.replace(tzinfo=None, fold=0)
        skipped = []
        missing = before.replace(tzinfo=None, fold=0) + MINUTE
        while missing < wall:
            skipped.append(missing)
            missing += MINUTE
        twin = local.replace(fold=1).utcoffset()
        again = twin is not None and twin < (local.replace(fold=0).utcoffset() or twin)
        found.append((at, [wall, *skipped], ("second" if local.fold else "first") if again else ""))
        before = local
    return found


def answer_nearby(wish: Wish, change: datetime) -> datetime | None:
    """Answer from the minutes around a change; None for none of them."""
    turn, gap = wish.choices()
    rejected = {"first": "second", "last": "first", "both": "never"}[turn]
    for at, (wall, *skipped), which in list_minutes(wish.zone, change):
        if at <= wish.after:
            continue
        if which != rejected and _is_wanted(wish.rule, wall):
            return at
        if gap == "next" and any(_is_wanted(wish.rule, missing) for missing in skipped):
            return at
    return None


def _is_wanted(rule: Rule, wall: datetime) -> bool:
    return wall.minute in rule.minutes and wall.hour in rule.hours and rule.fits(wall.date())


# --- answer, day by day ---


def answer_by_days(wish: Wish, years: int = 2) -> datetime | None:
    """Answer from the next days; None for none of them."""
    place = ZoneInfo(wish.zone)
    day = wish.after.astimezone(place).date() - 2 * DAY
    best: datetime | None = None
    for number in range(366 * years):
        today = day + number * DAY
        if best is not None and best.astimezone(place).date() + 2 * DAY < today:
            break
        if not wish.rule.fits(today):
            continue
        for hour, minute in product(wish.rule.hours, wish.rule.minutes):
            wall = datetime.combine(today, time(hour, minute))
            for at in _list_instants(wall, place, *wish.choices()):
                if at > wish.after and (best is None or at < best):
                    best = at
    return best


def _list_instants(wall: datetime, place: ZoneInfo, turn: str, gap: str) -> Iterator[datetime]:
    once, again = (wall.replace(tzinfo=place, fold=fold).astimezone(UTC) for fold in (0, 1))
    if once == again:
        yield once
    elif once < again:
        yield from {"first": [once], "last": [again], "both": [once, again]}[turn]
    elif gap == "next":
        # Such a time does not exist, and the clocks are set between the two instants that it might have been.
        early, late = again, once
        while late - early > MINUTE:
            middle = early + (late - early) // MINUTE // 2 * MINUTE
            if _offset(middle, place) == _offset(again, place):
                early = middle
            else:
                late = middle
        yield late


# --- blackouts ---


def draw_windows(chance: Random, day: date) -> list[dict[str, Any]]:
    """Draw windows in canonical form, some of them around a day."""
    windows = []
    for _ in range(chance.randint(1, 4)):
        window: dict[str, Any] = {}
        if chance.random() < 0.7:
            since, till = chance.sample(range(48), 2)
            window |= {"from": _render(since * 30), "to": _render(till * 30 or 1440)}
        if chance.random() < 0.5:
            days = set(chance.choices(_DAYS, k=chance.randint(1, 6)))
            window["on"] = [name for name in _DAYS if name in days]
        first, length = day + chance.randint(-20, 10) * DAY, chance.randint(0, 20) * DAY
        if chance.random() < 0.4 or not window:
            window["first"] = first.isoformat()
        if chance.random() < 0.6:
            window["last"] = (first + length).isoformat()
        windows.append(window)
    return windows


def _render(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def is_open(wall: datetime, windows: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a local time is in one of the windows."""
    for window, begins in product(windows, (wall.date() - DAY, wall.date())):
        if _DAYS[begins.isoweekday() % 7] not in window.get("on", _DAYS):
            continue
        if not window.get("first", "") <= begins.isoformat() <= window.get("last", "9"):
            continue
        midnight = datetime.combine(begins, time())
        since, till = (
            midnight + int(text[:2]) * HOUR + int(text[3:]) * MINUTE
            for text in (window.get("from", "00:00"), window.get("to", "24:00"))
        )
        if since <= wall < (till if till > since else till + DAY):
            return True
    return False


# --- jobs ---


def build_job(name: str, **declared: Any) -> JobSpec:
    """Build a job as the loader does."""
    declaration = Declaration(
        kind="job",
        name=name,
        place=Place(path="jobs.d/shop.yaml", line=3, column=3),
        source=Source(path=""),
        section="jobs",
        own={"sql": "SELECT 1", **declared},
        target="t",
    )
    merge(declaration, {})
    builder = SpecBuilder(_CONFIG, Target(name="t"))
    spec = builder.build(declaration)
    assert isinstance(spec, JobSpec), [problem.message for problem in builder.problems]
    return spec


def declare(conn: psycopg.Connection, name: str, document: str, zone: str = "GMT") -> None:
    """Put a definition into the database as an apply would, with its policy and its timing."""
    conn.execute(
        "INSERT INTO reconciler.definitions (name, kind, owner, spec, digest, lock_key)"
        " VALUES (%s, 'job', 'shop', %s::json, '', reconciler.make_lock_key(%s))",
        [name, document, name],
    )
    conn.execute(
        "INSERT INTO reconciler.policies"
        " SELECT p.*, %s, '' FROM reconciler.declared_policies p WHERE name = %s",
        [zone, name],
    )
    conn.execute(
        "INSERT INTO reconciler.timings SELECT * FROM reconciler.declared_timings WHERE name = %s", [name]
    )


def read_timing(conn: psycopg.Connection, name: str) -> dict[str, Any]:
    """Return what a job's timing says: its columns without the empty ones."""
    row = conn.execute(
        "SELECT jsonb_strip_nulls(to_jsonb(t) - 'name') FROM reconciler.timings t WHERE name = %s", [name]
    ).fetchone()
    found: dict[str, Any] = json.loads(json.dumps(row[0])) if row else {}
    return {key: value for key, value in found.items() if value not in ("00:00:00", [])}


def aim(site: Site, name: str = "a", **columns: Any) -> None:
    """Write the timing of a job that was applied, and let nothing of it be taken."""
    values = {"blackout": "[]", **columns}
    if "windows" in values:
        values["blackout"] = json.dumps(values.pop("windows"))
    with site.database.server.connect() as conn:
        conn.execute("DELETE FROM reconciler.timings WHERE name = %s", [name])
        conn.execute("UPDATE reconciler.job_states SET fired_at = NULL WHERE name = %s", [name])
        conn.execute(
            sql.SQL("INSERT INTO reconciler.timings (name, {}) VALUES (%s, {})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
            ),
            [name, *values.values()],
        )


def spell_moment(at: datetime, zone: str = "GMT") -> str:
    """Spell the rule of one local minute of each day."""
    return f"{at.astimezone(ZoneInfo(zone)):%-M %-H} * * *"
