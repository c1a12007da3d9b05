"""The command `explain`: when a schedule or a job runs, in words and in instants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.parameters import read_instant, read_version, read_zone
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from reconciler.cli.session import Session
    from reconciler.core.specs import JobSpec, WorkerSpec
    from reconciler.core.state import ObservedState
    from reconciler.core.times.explanations import Explanation, Server
    from reconciler.errors import ConfigError

_COLUMNS = range(5, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What explanations stand on.

    Attributes:
        server: The pg_cron that is meant.
        specs: What is declared to run at times, by name.
        session: With the configuration; None where none was needed.
        observed: What the target holds; None where nobody looked.
    """

    server: Server
    specs: Mapping[str, JobSpec | WorkerSpec] = field(default_factory=dict)
    session: Session | None = None
    observed: ObservedState | None = None


@click.command()
@target_options
@click.argument("texts", nargs=-1, required=True, metavar="[SCHEDULE | NAME]...")
@click.option("--timezone", "zone", type=read_zone, default=None, help="The zone of a schedule [pg_cron's].")
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="Next runs.")
@click.option("--after", type=read_instant, metavar="INSTANT", help="Look from then on instead of from now.")
@click.option("--pg-cron", "version", type=read_version, metavar="VERSION", help="For it, such as 1.4.")
@click.option("--json", "as_json", is_flag=True, help="Show it as JSON.")
def explain(
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    texts: tuple[str, ...],
    zone: str | None,
    count: int,
    after: datetime | None,
    version: tuple[int, int, int] | None,
    as_json: bool,
) -> int:
    """Say when schedules, and jobs of the files, run; changes nothing.

    A SCHEDULE needs neither files nor a database. The zone and the version of pg_cron are asked of the
    database where --target or --dsn is given, and --pg-cron is not; else they are GMT and what the
    configuration names. The exit code is 1 where something cannot be so.
    """
    from reconciler.cli.render_times import render_explanations, to_json
    from reconciler.cli.tables import render_json_rows

    texts = _join_fields(texts)
    moment = after or datetime.now(UTC)
    ground = _prepare(texts, config_path, target_name, dsn, version)
    found = [_explain(text, ground, zone=zone or "", after=moment, count=count) for text in texts]
    if as_json:
        click.echo(render_json_rows(map(to_json, found)))
    else:
        click.echo(render_explanations(found, ground.server, observed=ground.observed))
    return exits.ERROR if any(each.problem for each in found) else exits.DONE


def _join_fields(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Take words that can be no names for one schedule that somebody wrote without quotes."""
    joined = " ".join(texts)
    is_interval = len(texts) == 2 and texts[0].isdigit() and texts[1].lower().startswith("second")
    is_fields = len(texts) in _COLUMNS and "*" in texts and not any(" " in text for text in texts)
    return (joined,) if is_interval or is_fields else texts


def _can_be_name(text: str) -> bool:
    from reconciler.core.names import is_name

    return is_name(text)


def _is_meant_as_schedule(text: str) -> bool:
    """Tell whether a text is a schedule, or was meant as one: `daily`, `5m`, `08:00`."""
    from reconciler.core.schedules import ANY_DIALECT, find_problem

    found = find_problem(text, ANY_DIALECT)
    return not _can_be_name(text) or found is None or bool(found.suggestion)


def _prepare(
    texts: tuple[str, ...],
    config_path: Path | None,
    target_name: str | None,
    dsn: str | None,
    version: tuple[int, int, int] | None,
) -> _Ground:
    """Load what is needed for these texts, and no more."""
    from reconciler.core.specs import JobSpec, WorkerSpec
    from reconciler.core.times.dialects import ANY_DIALECT, dialect_for
    from reconciler.core.times.explanations import Server
    from reconciler.errors import ConfigError

    asks = bool(target_name or dsn) and version is None
    has_names = any(map(_can_be_name, texts))
    session: Session | None = None
    if asks or has_names or target_name or config_path:
        try:
            session = open_session(config_path, target_name, dsn if asks else "")
        except ConfigError:
            if asks or target_name or config_path or not all(map(_is_meant_as_schedule, texts)):
                raise
    specs = session.load_specs() if session and has_names else ()
    timed = {spec.name: spec for spec in specs if isinstance(spec, JobSpec | WorkerSpec)}
    if asks and session is not None:
        from reconciler.cli.observing import observe_server

        server, observed = observe_server(session, timed.values())
        return _Ground(server=server, specs=timed, session=session, observed=observed)
    version = version or (session.target.pg_cron if session else None)
    dialect = dialect_for(version) if version else ANY_DIALECT
    return _Ground(server=Server(zone="GMT", dialect=dialect), specs=timed, session=session)


def _explain(text: str, ground: _Ground, *, zone: str, after: datetime, count: int) -> Explanation:
    from reconciler.core.times.explanations import explain_schedule, explain_spec

    spec = ground.specs.get(text)
    if spec is not None:
        return explain_spec(spec, ground.server, after=after, count=count)
    if ground.session is not None and _can_be_name(text) and not _is_meant_as_schedule(text):
        raise _refuse(text, ground)
    found = explain_schedule(text, ground.server, zone=zone, after=after, count=count)
    if found.problem:
        from reconciler.core.times.foreign_cron import read_foreign

        found = replace(found, elsewhere=read_foreign(text, after=after, count=min(count, 3)))
    return found


def _refuse(name: str, ground: _Ground) -> ConfigError:
    from reconciler.core.names import find_nearest
    from reconciler.core.retirement import render_instant
    from reconciler.errors import ConfigError

    retired = None if ground.observed is None else ground.observed.definitions.get(name)
    if retired is not None and retired.retired_until is not None:
        return ConfigError(
            f"{name} is no longer declared and runs no more: it is retired until "
            f"{render_instant(retired.retired_until)}",
            remedy=f"reconciler restore {name} brings it back",
        )
    nearest = find_nearest(name, ground.specs)
    return ConfigError(
        f"nothing that runs at times is declared as {name!r}, and it is no schedule",
        remedy=f"did you mean {nearest!r}?" if nearest else "reconciler next lists what there is",
    )
