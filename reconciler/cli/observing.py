"""Look at a target for commands that say when jobs run: its pg_cron, and all that it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.specs import JobSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.cli.session import Session
    from reconciler.core.specs import Spec
    from reconciler.core.state import ObservedState
    from reconciler.core.times.explanations import Server


def observe_server(session: Session, specs: Iterable[Spec]) -> tuple[Server, ObservedState]:
    """Look at a target; changes nothing.

    Args:
        session: With the target.
        specs: Whose zones matter.

    Returns:
        Its pg_cron, and all that it holds.

    Raises:
        ReconcilerError: There is no connection, or no pg_cron.
    """
    from reconciler.core.times.clocks import make_clock
    from reconciler.core.times.explanations import Server
    from reconciler.core.times.occurrences import clock_of
    from reconciler.database.observe import observe, require_pg_cron
    from reconciler.errors import ConfigError

    zones = {spec.timezone for spec in specs if isinstance(spec, JobSpec)} - {""}
    with session.connect() as conn:
        observed = observe(conn, zones).state
    require_pg_cron(observed.facts)
    clocks = {zone: make_clock(offsets) for zone, offsets in observed.clocks.items()}
    facts = observed.facts
    try:
        clock_of(facts.timezone)
    except ValueError as error:
        raise ConfigError(
            f"pg_cron reads schedules in {facts.timezone} (cron.timezone), and {error} on this machine",
            remedy="let cron.timezone name a zone such as Europe/Oslo, or update the tzdata here",
        ) from error
    return Server(zone=facts.timezone, dialect=facts.dialect, clocks=clocks), observed
