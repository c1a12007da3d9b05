"""The command `doctor`: the dangers that a target is in, with remedies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.facts import Facts


@click.command()
@target_options
def doctor(config_path: Path | None, target_name: str | None, dsn: str | None) -> int:
    """Find the dangers that the target is in, each with its remedy; changes nothing.

    Exits with 1 when something does not run or will break.
    """
    from reconciler.cli.render_text import render_finding
    from reconciler.core.identity import find_home_dangers
    from reconciler.core.preflight import find_bad_schedules, find_dangers
    from reconciler.database.health import find_runtime_troubles
    from reconciler.database.migrate import find_pending
    from reconciler.database.observe import observe, require_pg_cron

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        observation = observe(conn)
        facts = observation.state.facts
        click.echo(_describe(facts))
        require_pg_cron(facts)
        pending = find_pending(facts.migrations)
        troubles = () if pending else find_runtime_troubles(conn, facts)
    if pending:
        click.echo(f"migrations  {len(pending)} to run: reconciler apply or reconciler migrate")
    else:
        click.echo(f"migrations  all {len(facts.migrations)} applied")
    findings = (
        *find_home_dangers(facts.identity, owner=session.config.owner, target=session.target.name),
        *find_dangers(facts, observation.dangers),
        *troubles,
        *find_bad_schedules(observation.state),
    )
    click.echo("")
    for finding in findings:
        click.echo(render_finding(finding))
    if not findings:
        click.echo(click.style("Nothing found.", fg="green"))
    return exits.ERROR if any(finding.severity == "error" for finding in findings) else exits.DONE


def _describe(facts: Facts) -> str:
    from reconciler.core.times.dialects import format_version

    mode = {True: "background workers", False: "connections", None: "unknown"}[facts.background_workers]
    launcher = {True: "running", False: "not running", None: "cannot be seen"}[facts.launcher_running]
    version = format_version(facts.pg_cron) + " or later" if facts.extension else "missing"
    major, minor = divmod(facts.server_version, 10_000)
    return "\n".join(
        (
            f"server      PostgreSQL {major}.{minor}, database {facts.database}, role {facts.role}",
            f"pg_cron     {version}, time zone {facts.timezone}",
            f"launcher    {launcher}, jobs run over {mode}",
        )
    )
