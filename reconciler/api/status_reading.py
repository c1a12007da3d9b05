"""How the target fares as a whole, as the service tells it: for probes, for programs, for pages."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, get_args

from reconciler.core.times.dialects import format_version
from reconciler.database.job_pages import count_jobs
from reconciler.database.observe import observe_facts
from reconciler.database.readiness import find_unready, make_unreachable
from reconciler.database.status import State, TickState, read_summary
from reconciler.errors import BusyError, ConnectError, DatabaseError
from reconciler.runtime.endpoint_answers import render_cause

if TYPE_CHECKING:
    from reconciler.core.preflight import Finding

    from .context import Service

_log: Final = logging.getLogger("reconciler.service")

LauncherState = Literal["running", "not_running", "unknown"]

READY_PATIENCE: Final = 2.0
"""Seconds in which a database has to answer that is ready."""
_READY_AGE: Final = 1.0
_STATUS_AGE: Final = 2.0
_PATIENCE: Final = 15.0
_LAUNCHER: Final[dict[bool | None, LauncherState]] = {True: "running", False: "not_running", None: "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What holds for all jobs together.

    Attributes:
        now: By the database's clock, aware.
        postgresql: Its version, such as 17.2.
        pg_cron: The lowest version that it can be; "" where it is not there.
        timezone: In which pg_cron reads schedules.
        launcher: Whether pg_cron's launcher is there.
        tick: Whether the tick goes on.
        tick_age: Seconds since it last began; None where nothing is known of it.
        counts: Jobs, workers and entries that nobody declared, without the tool's own, in each state.
        deliveries_waiting: Messages that no channel got yet.
    """

    now: datetime
    postgresql: str
    pg_cron: str
    timezone: str
    launcher: LauncherState
    tick: TickState
    tick_age: float | None
    counts: dict[State, int]
    deliveries_waiting: int


def read_overview(service: Service) -> Overview:
    """Read how the target fares; call it in a thread.

    Args:
        service: Of the request.

    Returns:
        What was so two seconds ago at the most.

    Raises:
        DatabaseError: It cannot be read.
    """
    return service.answers.find(
        "status", partial(_read_overview, service), max_age=_STATUS_AGE, patience=_PATIENCE
    ).value


def _read_overview(service: Service) -> Overview:
    with service.connections.connection() as conn:
        facts = observe_facts(conn)
        _, counts = count_jobs(conn)
        summary = read_summary(conn)
    major, minor = divmod(facts.server_version, 10_000)
    return Overview(
        now=summary.now,
        postgresql=f"{major}.{minor}",
        pg_cron=format_version(facts.pg_cron) if facts.extension else "",
        timezone=facts.timezone,
        launcher=_LAUNCHER[facts.launcher_running],
        tick=summary.judge_tick(sees_all=facts.rights.sees_all),
        tick_age=summary.tick_age,
        counts={state: counts.get(state, 0) for state in get_args(State)},
        deliveries_waiting=summary.deliveries_waiting,
    )


async def find_faults(service: Service) -> tuple[Finding, ...]:
    """Find out why the service cannot serve, within `READY_PATIENCE`; takes no thread of those of requests.

    Args:
        service: Of the request.

    Returns:
        What is wrong, in texts for anybody; none where all is well. A second old at the most.
    """
    try:
        kept = await service.answers.find_async(
            "ready", partial(_find_faults, service), max_age=_READY_AGE, patience=READY_PATIENCE
        )
    except BusyError:
        return (make_unreachable(f"the database does not answer within {READY_PATIENCE:g} s"),)
    return kept.value


def _find_faults(service: Service) -> tuple[Finding, ...]:
    try:
        with service.connections.connection() as conn:
            return find_unready(conn)
    except DatabaseError as error:
        if isinstance(error, ConnectError):
            return (make_unreachable("the database cannot be reached"),)
        _log.warning("not ready: %s", render_cause(error))
        return (make_unreachable("the database does not answer as it should"),)
