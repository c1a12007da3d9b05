"""When how many jobs start: a week or a day to come, its busiest minutes and its herds, as it was applied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Query, Response
from markupsafe import Markup

from reconciler.api.problems import ProblemError
from reconciler.core.times.calendars import WEEK, describe_limit, has_gaps, make_calendar, name_some
from reconciler.core.times.clocks import find_zone
from reconciler.core.times.heat import make_load
from reconciler.core.times.herd_times import DAYS
from reconciler.core.times.herds import find_capacity
from reconciler.core.times.occurrences import UTC_NAMES, clock_of
from reconciler.core.times.timetable import make_timetable
from reconciler.database.observe import observe, require_pg_cron
from reconciler.errors import ConfigError

from .heat_maps import draw_heat, draw_scale, draw_table
from .page_answers import PageRouter
from .visits import VisitDep

if TYPE_CHECKING:
    from reconciler.api.context import Service
    from reconciler.core.times.calendars import Calendar
    from reconciler.core.times.herds import Capacity
    from reconciler.core.times.timetable import Scheduled

router: Final = PageRouter()

_FRESH: Final = 60.0
_STALE: Final = 300.0
_PATIENCE: Final = 20.0
_PART: Final = 5
"""Minutes of a column of a day."""
_HERDS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """What pg_cron starts.

    Attributes:
        scheduled: Jobs, workers and entries.
        zone: In which pg_cron reads schedules.
        capacity: How many jobs it runs at once.
        at: When that was so, aware.
        today: The day then, by the clocks of that zone.
    """

    scheduled: tuple[Scheduled, ...]
    zone: str
    capacity: Capacity
    at: datetime
    today: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A calendar as the page shows it, so that it is drawn once for all who look.

    Attributes:
        calendar: What there is, without the load that it was made of, which is large.
        base: The names of those that start every few seconds.
        at: When that was so.
        picture: The map.
        scale: What its shades mean.
        table: The same as a table.
        digest: Of all of it but the instant.
    """

    calendar: Calendar
    base: tuple[str, ...]
    at: datetime
    picture: Markup
    scale: Markup
    table: Markup
    digest: str


@router.get("/calendar")
def show_calendar(visit: VisitDep, day: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Show seven days from today on, or one of the days to come."""
    with visit.connection():
        pass  # who looks hears first of a database that is away
    service = visit.service
    table = _read_timetable(service)
    number = None if not day else _read_day(day, table.today)
    drawn = service.answers.find(
        # As many names as there are days to look at, however many come.
        "calendar week" if number is None else f"calendar day {number}",
        partial(_draw, service, number),
        max_age=_FRESH,
        patience=_PATIENCE,
        stale=_STALE,
    ).value
    calendar = drawn.calendar
    return visit.show(
        "calendar.html",
        seen=(drawn.digest, table.today),
        drawn=drawn,
        calendar=calendar,
        is_week=number is None,
        days=[table.today + timedelta(days=ahead) for ahead in range(7)],
        shown=calendar.heat.days[0],
        last=table.today + timedelta(days=DAYS - 1),
        one_day=timedelta(days=1),
        herds=calendar.herds[:_HERDS],
        more_herds=max(len(calendar.herds) - _HERDS, 0),
        herd_days=DAYS,
        limit=describe_limit(calendar.capacity),
        names=name_some,
        gaps=has_gaps(calendar.heat),
        pages=frozenset(each.name for each in table.scheduled if each.kind != "entry"),
    )


def _read_day(text: str, today: date) -> int:
    try:
        number = (date.fromisoformat(text) - today).days
    except ValueError:
        number = -1
    if not 0 <= number < DAYS:
        raise ProblemError(
            404,
            f"the calendar has no day {text[:20]!r}",
            f"it shows days from {today} to {today + timedelta(days=DAYS - 1)}; "
            "reconciler calendar --day shows any other",
        )
    return number


def _read_timetable(service: Service) -> Timetable:
    return service.answers.find(
        "timetable", partial(_observe, service), max_age=_FRESH, patience=_PATIENCE, stale=_STALE
    ).value


def _observe(service: Service) -> Timetable:
    with service.connections.connection() as conn:
        observed = observe(conn).state
    require_pg_cron(observed.facts)
    zone = observed.facts.timezone
    at = observed.now or service.now()
    try:
        clock_of(zone)
    except ValueError as error:
        raise ConfigError(
            f"the server's cron.timezone: {error} where this service runs", remedy="install tzdata there"
        ) from error
    return Timetable(
        scheduled=make_timetable(
            (), owner="", server_zone=zone, dialect=observed.facts.dialect, observed=observed
        ),
        zone=zone,
        capacity=find_capacity(observed.facts),
        at=at,
        today=at.astimezone(UTC if zone in UTC_NAMES else find_zone(zone)).date(),
    )


def _draw(service: Service, number: int | None) -> Drawn:
    table = _read_timetable(service)
    calendar = make_calendar(
        table.scheduled,
        target=service.target,
        first=table.today + timedelta(days=number or 0),
        zone=table.zone,
        capacity=table.capacity,
        step=WEEK if number is None else _PART,
    )
    picture, scale, numbers = draw_heat(calendar), draw_scale(calendar), draw_table(calendar)
    told = (picture, scale, numbers, calendar.herds, calendar.busiest, calendar.paused, calendar.load.base)
    return Drawn(
        calendar=replace(calendar, load=make_load((), calendar.load.stretch)),
        base=calendar.load.base,
        at=table.at,
        picture=picture,
        scale=scale,
        table=numbers,
        digest=sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest(),
    )
