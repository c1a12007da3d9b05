"""The command `calendar`: when how many jobs start, as a map of a day or a week, and where too many do."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import Session, open_session, target_options
from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.specs import Spec
    from reconciler.core.state import ObservedState
    from reconciler.core.times.calendars import Calendar
    from reconciler.core.times.timetable import Scheduled

_WORDS = {"today": timedelta(0), "tomorrow": timedelta(days=1)}


class _Day(click.ParamType["date | timedelta"]):
    """A date, or a word for one."""

    name = "date"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> date | timedelta:
        """Read a date; a word gives how far it is from today, whose zone is not known yet."""
        if isinstance(value, date | timedelta):
            return value
        if value in _WORDS:
            return _WORDS[value]
        try:
            day = date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date: write one such as 2026-12-01, or today.", param, ctx)
        if not 1970 < day.year < 2099:
            self.fail(f"{value} is too far away: clocks are known from 1971 to 2098.", param, ctx)
        return day


@click.command()
@target_options
@click.option(
    "--week",
    type=_Day(),
    is_flag=False,
    flag_value="today",
    metavar="[DATE]",
    help="Seven days, from today or from this day on [the default].",
)
@click.option("--day", type=_Day(), metavar="DATE", help="One day, in parts of the hour.")
@click.option("--zone", metavar="ZONE", help="By whose clocks [those of pg_cron].")
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write the map as a picture as well."
)
@click.option("--offline", is_flag=True, help="What the files say alone, in GMT, without a database.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this job; can be given again.")
@click.option("--ascii", "plain", is_flag=True, help="No characters beyond ASCII.")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def calendar(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    week: date | timedelta | None,
    day: date | timedelta | None,
    zone: str | None,
    svg: Path | None,
    offline: bool,
    only: tuple[str, ...],
    plain: bool,
    as_json: bool,
) -> int:
    """Show when how many jobs start, which minutes are the busiest, and where too many start at once.

    Everything counts that pg_cron starts on the target: what the files declare, what others declared, and
    entries of nobody. For each herd, more jobs in one minute than the server runs at once, the smallest
    `spread` is named that parts it.
    """
    from reconciler.cli.render_heat import pick_step, render_calendar
    from reconciler.cli.sparkline import is_plain

    if week is not None and day is not None:
        raise click.UsageError("--week and --day are two views: give one of them.")
    session = open_session(config_path, target_name, "" if offline else dsn)
    width = shutil.get_terminal_size().columns
    made = _make_calendar(
        session,
        observed=None if offline else _observe(session),
        first=day if day is not None else week,
        step=60 if day is None else 5 if as_json or svg else pick_step(width),
        zone=zone,
        only=only,
    )
    if svg is not None:
        _write_svg(svg, made)
    if as_json:
        import json

        click.echo(json.dumps(_to_json(made), indent=2, ensure_ascii=False))
        return exits.DONE
    plain = plain or is_plain(
        encoding=sys.stdout.encoding, is_terminal=sys.stdout.isatty(), term=os.environ.get("TERM", "")
    )
    text = render_calendar(made, width=width, plain=plain)
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
    return exits.DONE


def _observe(session: Session) -> ObservedState:
    from reconciler.database.observe import observe, require_pg_cron

    with session.connect() as conn:
        observed = observe(conn).state
    require_pg_cron(observed.facts)
    return observed


def _make_calendar(
    session: Session,
    *,
    observed: ObservedState | None,
    first: date | timedelta | None,
    step: int,
    zone: str | None,
    only: tuple[str, ...],
) -> Calendar:
    from reconciler.core.times.calendars import make_calendar
    from reconciler.core.times.herds import find_capacity, list_spreadable

    specs = session.load_specs()
    facts = None if observed is None else observed.facts
    server_zone = _check_zone("GMT" if facts is None else facts.timezone, "the server's cron.timezone")
    scheduled = _list_scheduled(session, specs, observed, server_zone)
    zone = server_zone if zone is None else _check_zone(zone, "--zone")
    _refuse_unknown(scheduled, only)
    try:
        return make_calendar(
            scheduled,
            target=session.target.name,
            first=_find_first(first, zone),
            zone=zone,
            capacity=find_capacity(facts),
            step=step,
            places=list_spreadable(specs),
            only=only,
        )
    except ValueError as error:
        raise ConfigError(str(error), remedy="give another day") from error


def _check_zone(zone: str, where: str) -> str:
    from reconciler.core.times.occurrences import clock_of

    try:
        clock_of(zone)
    except ValueError as error:
        raise ConfigError(
            f"{where}: {error} on this machine", remedy="give --zone a name such as Europe/Oslo or UTC"
        ) from error
    return zone


def _find_first(first: date | timedelta | None, zone: str) -> date:
    """Give the first day that is shown; words are meant by the clocks that are shown."""
    if isinstance(first, date):
        return first
    from reconciler.core.times.clocks import find_zone
    from reconciler.core.times.occurrences import UTC_NAMES

    now = datetime.now(UTC if zone in UTC_NAMES else find_zone(zone))
    return now.date() + (first or timedelta(0))


def _list_scheduled(
    session: Session, specs: tuple[Spec, ...], observed: ObservedState | None, server_zone: str
) -> tuple[Scheduled, ...]:
    from reconciler.core.times.dialects import ANY_DIALECT, dialect_for
    from reconciler.core.times.timetable import make_timetable

    if observed is not None:
        dialect = observed.facts.dialect
    else:
        version = session.target.pg_cron
        dialect = ANY_DIALECT if version is None else dialect_for(version)
    try:
        return make_timetable(
            specs,
            owner=session.config.owner,
            server_zone=server_zone,
            dialect=dialect,
            observed=observed,
        )
    except ValueError as error:
        raise ConfigError(f"a job's timezone: {error} on this machine", remedy="install tzdata") from error


def _refuse_unknown(scheduled: tuple[Scheduled, ...], only: tuple[str, ...]) -> None:
    from reconciler.core.names import find_nearest

    names = {each.name for each in scheduled}
    for name in only:
        if name not in names:
            nearest = find_nearest(name, names)
            raise ConfigError(
                f"nothing named {name} is started by a clock on this target",
                remedy=f"did you mean {nearest}?" if nearest else "look at reconciler status",
            )


def _write_svg(path: Path, made: Calendar) -> None:
    from reconciler.cli.render_svg import render_svg

    try:
        path.write_text(render_svg(made), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {path}.", err=True)


def _to_json(made: Calendar) -> dict[str, Any]:
    from reconciler.core.times.herds import render_spreads

    heat = made.heat
    return {
        "target": made.target,
        "zone": heat.zone,
        "days": [day.isoformat() for day in heat.days],
        "jobs": made.jobs,
        "starts": heat.starts,
        "every_few_seconds": list(made.load.base),
        "limit": made.capacity.limit,
        "limit_known": made.capacity.known,
        "cells": list(_list_cells(made)),
        "busiest": [
            {
                "at": busy.at.isoformat(),
                "starts": busy.count,
                "minutes": busy.alike,
                "names": list(busy.names),
            }
            for busy in made.busiest
        ],
        "herds": [
            {
                "when": herd.when,
                "first_at": herd.first_at.isoformat(),
                "minutes": herd.times,
                "starts": herd.most,
                "names": list(herd.names),
                "advice": herd.advice,
                "spread_seconds": herd.spread.total_seconds() or None,
                "spread_names": list(herd.moved),
                "yaml": render_spreads(herd, made.places) if herd.spread else None,
            }
            for herd in made.herds
        ],
    }


def _list_cells(made: Calendar) -> Iterator[dict[str, Any]]:
    heat = made.heat
    for row in heat.rows:
        for number, cell in enumerate(row.cells):
            if cell is not None:
                yield {
                    "day": heat.days[number if heat.step == 60 else 0].isoformat(),
                    "hour": row.hour,
                    "minute": 0 if heat.step == 60 else number * heat.step,
                    "again": row.again,
                    "starts": cell.starts,
                    "most": cell.most,
                    "most_at": cell.most_at.isoformat() if cell.most else None,
                    "crowded": cell.crowded,
                }
