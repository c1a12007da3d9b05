"""The command `next`: the runs to come of all jobs, in one list."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_instant
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from reconciler.cli.session import Session
    from reconciler.core.specs import Spec
    from reconciler.core.times.timetable import Scheduled
    from reconciler.core.times.upcoming import Idle, Upcoming

_DAY = timedelta(days=1)
_FAR = timedelta(days=3660)
_LINES = 50
_HEAD = ("when", "UTC", "name", "runs")
_WHY = {
    "inactive": "inactive",
    "paused": "paused",
    "ended": "ended: no run is left",
    "no_entry": "without an entry on this target",
    "start": "whenever pg_cron's launcher starts",
    "later": "not by then",
}


@click.command("next")
@target_options
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--until", metavar="WHEN", help="An instant, a time of pg_cron's zone, or how long, such as 7d [24h]."
)
@click.option("--count", type=click.IntRange(1, 10_000), help="How many runs, also later [50 of a day].")
@click.option("--after", type=read_instant, metavar="INSTANT", help="Look from then on instead of from now.")
@click.option("--offline", is_flag=True, help="By the files alone; pg_cron's zone is taken for GMT.")
@click.option("--all", "everything", is_flag=True, help="The tool's own entries too.")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def next_(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    names: tuple[str, ...],
    until: str | None,
    count: int | None,
    after: datetime | None,
    offline: bool,
    everything: bool,
    as_json: bool,
) -> int:
    """List the runs to come, of all jobs or of those that are named, by time.

    What the files declare runs as they say, applied or not; what others declared, and entries that nobody
    did, as the database has them. What comes every five minutes or oftener is summed up, unless it is named.
    """
    from reconciler.core.names import OWN_PREFIX
    from reconciler.core.times.upcoming import find_upcoming

    session = open_session(config_path, target_name, "" if offline else dsn)
    specs = session.load_specs()
    table, zone = _tabulate(session, specs, offline=offline)
    followers = _list_followers(specs)
    _refuse_unknown(names, {*(each.name for each in table), *followers})
    now = after or datetime.now(UTC)
    end = _read_end(until, now, zone) if until else now + (_FAR if count else _DAY)
    shown = [
        each
        for each in table
        if (each.name in names if names else everything or not each.name.startswith(OWN_PREFIX))
    ]
    found = find_upcoming(
        shown,
        now=now,
        end=end,
        count=count or _LINES,
        counts_more=until is not None or count is None,
        lists_all=bool(names),
    )
    if as_json:
        from reconciler.cli.tables import render_json_rows

        click.echo(render_json_rows(_list_objects(found)))
    else:
        texts = {name: words for name, words in followers.items() if not names or name in names}
        click.echo("\n".join(_render(found, end, texts)))
    return exits.DONE


def _tabulate(
    session: Session, specs: Collection[Spec], *, offline: bool
) -> tuple[tuple[Scheduled, ...], str]:
    """Make the timetable, and say in which zone pg_cron reads schedules."""
    from reconciler.core.times.dialects import ANY_DIALECT, dialect_for
    from reconciler.core.times.timetable import make_timetable

    observed, zone = None, "GMT"
    version = session.target.pg_cron
    dialect = dialect_for(version) if version else ANY_DIALECT
    if not offline:
        from reconciler.cli.observing import observe_server

        server, observed = observe_server(session, specs)
        zone, dialect = server.zone, server.dialect
    table = make_timetable(
        specs, owner=session.config.owner, server_zone=zone, dialect=dialect, observed=observed
    )
    return table, zone


def _list_followers(specs: Collection[Spec]) -> dict[str, str]:
    """Say of jobs that only others start when that is."""
    from reconciler.core.specs import JobSpec, Succeeded

    return {
        spec.name: f"after {', '.join(spec.after)}"
        for spec in specs
        if isinstance(spec, JobSpec) and isinstance(spec.trigger, Succeeded)
    }


def _refuse_unknown(names: tuple[str, ...], known: Collection[str]) -> None:
    from reconciler.core.names import find_nearest
    from reconciler.errors import ConfigError

    for name in names:
        if name not in known:
            nearest = find_nearest(name, known)
            raise ConfigError(
                f"nothing that runs at times has the name {name!r}",
                remedy=f"did you mean {nearest!r}?" if nearest else "reconciler next lists what there is",
            )


def _read_end(text: str, now: datetime, zone: str) -> datetime:
    """Read until when: an instant, a local time or date, or a duration from now on."""
    from reconciler.core.durations import parse_duration
    from reconciler.core.times.clocks import find_zone
    from reconciler.loader.instants import read_moment

    try:
        end = now + parse_duration(text)
    except ValueError:
        try:
            end = read_moment(text, find_zone(zone), takes_date=True)
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is neither a time nor a duration: write one such as 7d, 2026-12-01T08:00 or "
                "2026-12-01T08:00Z",
                param_hint="--until",
            ) from error
    if end <= now:
        raise click.BadParameter(f"{text} is not in the future", param_hint="--until")
    return end


def _render(found: Upcoming, end: datetime, followers: dict[str, str]) -> Iterator[str]:
    from reconciler.cli.render_text import clean
    from reconciler.cli.render_times import render_when
    from reconciler.cli.tables import render_table
    from reconciler.cli.times import render_instant
    from reconciler.core.times.upcoming import COUNTED
    from reconciler.core.times.words import describe_timing

    if found.runs:
        rows = [
            (*render_when(at, each.timing.zone), clean(each.name), describe_timing(each.timing))
            for at, each in found.runs
        ]
        yield render_table(_HEAD, rows)
    else:
        yield f"No runs until {render_instant(end, fine=False)}."
    if found.more:
        yield f"... and {'more than ' if found.more == COUNTED else ''}{found.more} more"
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for each in found.frequent:
        groups[describe_timing(each.timing)].append(each.name)
    for idle in found.idle:
        groups[_describe_idle(idle)].append(idle.scheduled.name)
    for name, words in followers.items():
        groups[words].append(name)
    if groups:
        yield ""
    for words, names in groups.items():
        yield f"{words}: {', '.join(map(clean, names))}"


def _describe_idle(idle: Idle) -> str:
    from reconciler.cli.times import render_instant, render_local

    until = idle.scheduled.paused_until
    if idle.why == "paused" and until is not None:
        return f"paused until {render_instant(until)}"
    if idle.why == "later" and idle.runs_at is not None:
        return f"not before {render_local(idle.runs_at, idle.scheduled.timing.zone)}"
    return _WHY[idle.why]


def _list_objects(found: Upcoming) -> Iterator[dict[str, Any]]:
    for at, each in found.runs:
        yield _to_json(each, "due", at)
    for each in found.frequent:
        yield _to_json(each, "frequent", None)
    for idle in found.idle:
        yield _to_json(idle.scheduled, idle.why, idle.runs_at)


def _to_json(each: Scheduled, state: str, at: datetime | None) -> dict[str, Any]:
    from reconciler.core.times.words import describe_timing

    return {
        "name": each.name,
        "kind": each.kind,
        "owner": each.owner or None,
        "state": state,
        "at": at.isoformat().replace("+00:00", "Z") if at else None,
        "timezone": each.timing.zone,
        "words": describe_timing(each.timing),
        "paused_until": each.paused_until.isoformat().replace("+00:00", "Z") if each.paused_until else None,
    }
