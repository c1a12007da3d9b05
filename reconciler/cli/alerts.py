"""The commands `reconciler alerts list|test|deliver`: what somebody has to hear of, and telling them.

Only parses arguments and prints; what is done lies in `reconciler.runtime.delivery`.
"""

from __future__ import annotations

import json
import os
import random
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import exits
from reconciler.cli.session import open_session, target_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    import psycopg

    from reconciler.cli.session import Session
    from reconciler.database.alerts import Channel, ListedAlert
    from reconciler.errors import ConnectError
    from reconciler.runtime.delivery import Deliverer, Outcome

_WIDTH = 160


@click.group()
def alerts() -> None:
    """List, test and deliver alerts."""


@alerts.command("list")
@target_options
@click.option("--all", "everything", is_flag=True, help="The last hundred, also those that are over.")
@click.option("--json", "as_json", is_flag=True, help="Show them as JSON.")
def list_(
    config_path: Path | None, target_name: str | None, dsn: str | None, everything: bool, as_json: bool
) -> int:
    """Show open alerts, and those that a channel was not told of, with what became of their messages."""
    from reconciler.database.alerts import list_alerts, require_outbox

    session = open_session(config_path, target_name, dsn)
    with session.connect() as conn:
        require_outbox(conn)
        found = list_alerts(conn, everything=everything)
    if as_json:
        click.echo(json.dumps([_alert_to_json(alert) for alert in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo("No alerts." if everything else "No open alerts.")
    else:
        click.echo("\n".join(line for alert in found for line in _render_alert(alert)))
    return exits.DONE


@alerts.command()
@target_options
@click.argument("channel")
def test(config_path: Path | None, target_name: str | None, dsn: str | None, channel: str) -> int:
    """Send a test message to CHANNEL now: exit code 1 with the reason if it cannot be sent."""
    from reconciler.database.alerts import put_test, require_outbox
    from reconciler.runtime.delivery import LEASE, send_test

    session = open_session(config_path, target_name, dsn)
    text = f"This is a test of the channel {channel}. All is well."
    with session.connect() as conn:
        require_outbox(conn)
        found = _find_channel(conn, channel)
        if found.deliver == "database":
            put_test(conn, found, message=text, claim=False, lease=LEASE)
            click.echo(f"Queued for {channel}, which the database serves: see reconciler alerts list --all.")
            return exits.DONE
        outcome = send_test(_make_deliverer(session), conn, found, message=text)
    if outcome.status != "sent":
        click.echo(f"Not sent to {channel}: {_clean(outcome.error)}", err=True)
        return exits.ERROR
    click.echo(f"Sent a test message to {channel}.")
    return exits.DONE


@alerts.command()
@target_options
@click.option("--watch", "is_watching", is_flag=True, help="Go on, and deliver alerts as they come.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def deliver(
    config_path: Path | None, target_name: str | None, dsn: str | None, is_watching: bool, as_json: bool
) -> int:
    """Send what is due to the channels: exit code 1 when a message could not be sent."""
    from reconciler.runtime.delivery import deliver_due, watch

    session = open_session(config_path, target_name, dsn)
    deliverer = _make_deliverer(session)
    outcomes: list[str] = []

    def report(outcome: Outcome) -> None:
        if not is_watching:
            outcomes.append(outcome.status)
        click.echo(json.dumps(_outcome_to_json(outcome)) if as_json else _render_outcome(outcome))

    is_stopping = _stop_on_signals()
    if is_watching:
        watch(
            deliverer,
            session.connect,
            report=report,
            complain=_complain,
            chance=random.random,
            is_stopping=is_stopping,
        )
        return exits.DONE
    with session.connect() as conn:
        deliver_due(deliverer, conn, report=report, is_stopping=is_stopping)
    if not outcomes and not as_json:
        click.echo("Nothing to deliver.")
    return exits.ERROR if {"retry", "failed"} & set(outcomes) else exits.DONE


def _make_deliverer(session: Session) -> Deliverer:
    from reconciler.runtime.delivery import Deliverer
    from reconciler.runtime.notifying import load_sender
    from reconciler.runtime.secret_values import SecretStores

    return Deliverer(
        owner=session.config.owner,
        target=session.target.name,
        stores=SecretStores(config=session.config, environment=os.environ),
        sender=load_sender(),
        chance=random.random,
    )


def _find_channel(conn: psycopg.Connection, name: str) -> Channel:
    from reconciler.core.names import find_nearest
    from reconciler.database.alerts import find_channels
    from reconciler.errors import ConfigError

    channels = find_channels(conn)
    if name in channels:
        return channels[name]
    nearest = find_nearest(name, channels)
    raise ConfigError(
        f"there is no channel {name} on the target",
        remedy=f"did you mean {nearest}?"
        if nearest
        else "declare it below channels: and run reconciler apply",
    )


def _stop_on_signals() -> Callable[[], bool]:
    """End in order on the first signal: what is on its way is written down. The second one ends at once."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return lambda: bool(received)


def _complain(error: ConnectError, wait: timedelta) -> None:
    click.echo(f"{_clean(error.message)}; the next try comes in {wait.total_seconds():.0f} s", err=True)


def _render_outcome(outcome: Outcome) -> str:
    delivery = outcome.delivery
    what = f"{delivery.channel}: {delivery.alert.kind} {delivery.alert.job_name}"
    why = _clean(outcome.error)
    if outcome.status == "sent":
        return f"{click.style('sent', fg='green')}     {what}"
    if outcome.status == "retry" and outcome.due_at is not None:
        return f"{click.style('not sent', fg='red')} {what}: {why} (again at {_instant(outcome.due_at)})"
    if outcome.status == "failed":
        return f"{click.style('gave up', fg='red')}  {what}: {why} (after {delivery.attempts} tries)"
    return f"{click.style('late', fg='yellow')}     {what}: another process has taken it over"


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    delivery = outcome.delivery
    return {
        "status": outcome.status,
        "channel": delivery.channel,
        "kind": delivery.alert.kind,
        "job_name": delivery.alert.job_name,
        "attempts": delivery.attempts,
        "error": outcome.error or None,
        "due_at": outcome.due_at.isoformat() if outcome.due_at else None,
    }


def _alert_to_json(alert: ListedAlert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "job_name": alert.job_name,
        "run_id": alert.run_id,
        "message": alert.message,
        "details": alert.details,
        "occurrences": alert.occurrences,
        "opened_at": alert.opened_at.isoformat(),
        "last_seen_at": alert.last_seen_at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "deliveries": alert.deliveries,
    }


def _render_alert(alert: ListedAlert) -> list[str]:
    from reconciler.core.alerts import TONES

    colour = {"failure": "red", "warning": "yellow", "success": "green"}.get(TONES.get(alert.kind, "failure"))
    state = "open" if alert.resolved_at is None else f"over {_instant(alert.resolved_at)}"
    if alert.kind in ("recovered", "test"):
        state = ""
    times = (
        f"seen {alert.occurrences} times, last {_instant(alert.last_seen_at)}"
        if alert.occurrences > 1
        else ""
    )
    notes = ", ".join(note for note in (state, times) if note)
    kind = click.style(alert.kind, fg=colour, bold=True)
    head = f"{_instant(alert.opened_at)}  {kind} {_clean(alert.job_name)}"
    lines = [f"{head}  ({notes})" if notes else head]
    message = _clean(alert.message).splitlines()
    lines.append("  " + (message[0][:_WIDTH] if message else ""))
    lines += [
        f"  {_clean(delivery['channel'])}: {_render_delivery(delivery)}" for delivery in alert.deliveries
    ]
    if not alert.deliveries:
        lines.append("  nobody was told: the job names no channel")
    return lines


def _render_delivery(delivery: dict[str, Any]) -> str:
    status, attempts = delivery["status"], delivery["attempts"]
    what = f"reminder {delivery['reminder']}, " if delivery["reminder"] else ""
    why = f": {_clean(delivery['last_error'])}" if delivery["last_error"] else ""
    tries = f"{attempts} {'try' if attempts == 1 else 'tries'}"
    if status == "sent":
        return f"{what}sent {_instant(datetime.fromisoformat(delivery['sent_at']))}"
    if status == "failed":
        return click.style(f"{what}gave up after {tries}{why}", fg="red")
    if not attempts:
        return f"{what}waiting to be sent"
    return f"{what}not sent in {tries}, again at {_instant(datetime.fromisoformat(delivery['due_at']))}{why}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _clean(text: str) -> str:
    from reconciler.cli.render_text import clean

    return clean(text)
