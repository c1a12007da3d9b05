"""The outbox of alerts: claim what is due, write down how it went, list what is open.

Knows nothing of how a message is sent. Every statement is a transaction of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row, dict_row

from reconciler.core.alerts import Alert, RunFacts
from reconciler.errors import MigrationError

from .queries import load_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    import psycopg

MAX_ATTEMPTS = 20
"""Tries after which a message is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message to one channel that is ours until its lease ends.

    Attributes:
        id: Of the row in the outbox.
        attempts: Which try this is, from 1; the fence against those who claimed it before.
        channel: Where it goes.
        secret: Name of the secret that holds the channel's address; None for a channel nobody declares.
        reminder: 0 for the first message of an alert.
        database: The name of the target's database.
        alert: What to tell.
        run: The run that it is about, where there is one.
    """

    id: int
    attempts: int
    channel: str
    secret: str | None
    reminder: int
    database: str
    alert: Alert
    run: RunFacts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel as applied.

    Attributes:
        name: Of the channel.
        owner: Whose it is.
        deliver: `process`, or `database` where the database itself sends.
        secret: The name of the secret that holds its address.
    """

    name: str
    owner: str
    deliver: str
    secret: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAlert:
    """An alert with what became of its messages.

    Attributes:
        id: Of the alert.
        kind: failed, missed, slow, lost, recovered, drift or test.
        job_name: Of the job; of the channel for a test.
        run_id: The last run that it is about.
        message: What is told.
        details: More, by name.
        occurrences: How often it was seen.
        opened_at: When it was first seen.
        last_seen_at: When it was last seen.
        resolved_at: When it was over; None while it is open.
        deliveries: Each with channel, reminder, status, attempts, due_at, last_error, sent_at; times as text.
    """

    id: int
    kind: str
    job_name: str
    run_id: int | None
    message: str
    details: dict[str, Any]
    occurrences: int
    opened_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None
    deliveries: list[dict[str, Any]]


def require_outbox(conn: psycopg.Connection) -> None:
    """Make sure that the target has the tables of this module.

    Args:
        conn: To the target.

    Raises:
        MigrationError: Nothing was applied to it yet, or an earlier release did it.
    """
    row = conn.execute(load_queries("alerts")["find_outbox"]).fetchone()
    if row == (True, True):
        return
    if row == (False, False):
        raise MigrationError(
            "nothing was applied to this target yet, so it has no alerts", remedy="run reconciler apply"
        )
    raise MigrationError(
        "the schema reconciler on this target is of an earlier release and has no alerts",
        remedy="run reconciler migrate",
    )


def read_clock(conn: psycopg.Connection) -> datetime:
    """Read the clock of the target, the one that all times of the outbox come from.

    Args:
        conn: To the target.
    """
    row = conn.execute(load_queries("alerts")["read_clock"]).fetchone()
    assert row is not None  # noqa: S101 - it is one row
    now: datetime = row[0]
    return now


def listen(conn: psycopg.Connection) -> None:
    """Ask to be woken when an alert gets a message.

    Args:
        conn: In autocommit mode.
    """
    conn.execute(load_queries("alerts")["listen"])


def wait_for_alert(conn: psycopg.Connection, seconds: float) -> bool:
    """Wait until the target says that there is something to deliver.

    Args:
        conn: That listens.
        seconds: How long at most; 0 only looks.

    Returns:
        Whether it said so.
    """
    return bool(list(conn.notifies(timeout=seconds, stop_after=1)))


def claim_deliveries(
    conn: psycopg.Connection,
    *,
    owner: str,
    lease: timedelta,
    busy: Collection[str] = (),
    due_by: datetime | None = None,
) -> list[Delivery]:
    """Claim the oldest due message of each channel, and give up those that were tried too often.

    Args:
        conn: In autocommit mode.
        owner: Whose channels are served.
        lease: How long the messages are ours; afterwards they are anybody's again.
        busy: Channels to leave alone.
        due_by: Leave what is due later; None for now.

    Returns:
        At most one for each channel; nobody else gets them before the lease ends.
    """
    queries = load_queries("alerts")
    conn.execute(queries["give_up_deliveries"], {"max_attempts": MAX_ATTEMPTS})
    values = {
        "owner": owner,
        "lease": lease,
        "busy": list(busy),
        "due_by": due_by,
        "max_attempts": MAX_ATTEMPTS,
    }
    with conn.cursor(row_factory=dict_row) as cursor:
        return [_read_delivery(row) for row in cursor.execute(queries["claim_deliveries"], values)]


def finish_sent(conn: psycopg.Connection, delivery: Delivery) -> bool:
    """Write down that a message was sent.

    Args:
        conn: In autocommit mode.
        delivery: As claimed.

    Returns:
        Whether it was still ours; if not, nothing was written.
    """
    values = {"id": delivery.id, "attempts": delivery.attempts}
    return conn.execute(load_queries("alerts")["finish_sent"], values).rowcount == 1


def finish_retry(
    conn: psycopg.Connection, delivery: Delivery, *, error: str, wait: timedelta
) -> datetime | None:
    """Write down that a message could not be sent, and when to try again.

    Args:
        conn: In autocommit mode.
        delivery: As claimed.
        error: Why, without the channel's address.
        wait: From now to the next try.

    Returns:
        When it is due again; None where it was no longer ours and nothing was written.
    """
    values = {"id": delivery.id, "attempts": delivery.attempts, "error": error, "wait": wait}
    row = conn.execute(load_queries("alerts")["finish_retry"], values).fetchone()
    return None if row is None else row[0]


def finish_failed(conn: psycopg.Connection, delivery: Delivery, *, error: str) -> bool:
    """Write down that a message is given up.

    Args:
        conn: In autocommit mode.
        delivery: As claimed.
        error: Why, without the channel's address.

    Returns:
        Whether it was still ours; if not, nothing was written.
    """
    values = {"id": delivery.id, "attempts": delivery.attempts, "error": error}
    return conn.execute(load_queries("alerts")["finish_failed"], values).rowcount == 1


def find_channels(conn: psycopg.Connection) -> dict[str, Channel]:
    """Read the channels of all owners.

    Args:
        conn: To a target with the schema reconciler.

    Returns:
        By name.
    """
    with conn.cursor(row_factory=class_row(Channel)) as cursor:
        channels = cursor.execute(load_queries("alerts")["find_channels"]).fetchall()
    return {channel.name: channel for channel in channels}


def put_test(
    conn: psycopg.Connection, channel: Channel, *, message: str, claim: bool, lease: timedelta
) -> Delivery:
    """Put a test message for a channel into the outbox.

    Args:
        conn: In autocommit mode.
        channel: Where it goes.
        message: What to tell.
        claim: Claim it in the same step, to send it oneself.
        lease: How long it is ours then.

    Returns:
        The message.
    """
    values = {"channel": channel.name, "message": message, "claim": claim, "lease": lease}
    row = conn.execute(load_queries("alerts")["put_test"], values).fetchone()
    assert row is not None  # noqa: S101 - an INSERT of one row returns it
    return Delivery(
        id=row[0],
        attempts=int(claim),
        channel=channel.name,
        secret=channel.secret,
        reminder=0,
        database=row[2],
        alert=Alert(
            kind="test",
            job_name=channel.name,
            message=message,
            occurrences=1,
            opened_at=row[1],
            last_seen_at=row[1],
            resolved_at=row[1],
        ),
        run=None,
    )


def list_alerts(
    conn: psycopg.Connection,
    *,
    everything: bool = False,
    limit: int = 100,
    before: tuple[datetime, int] | None = None,
    job_name: str | None = None,
) -> list[ListedAlert]:
    """List alerts, the newest first.

    Args:
        conn: To a target with the outbox.
        everything: Closed ones too; else those that are open, and those of the last seven days that some
            channel has not been told of.
        limit: How many at most.
        before: When the last one of the page before was opened, and its id; None for the first page.
        job_name: Only those of this job, or channel of a test.

    Returns:
        The alerts with what became of their messages.
    """
    opened_at, alert_id = before or (None, None)
    with conn.cursor(row_factory=class_row(ListedAlert)) as cursor:
        values = {
            "all": everything,
            "limit": limit,
            "before": opened_at,
            "before_id": alert_id,
            "job_name": job_name,
        }
        return cursor.execute(load_queries("alerts")["list_alerts"], values).fetchall()


def open_drift_alerts(
    conn: psycopg.Connection,
    drifted: Mapping[str, str],
    *,
    owner: str,
    among: Collection[str] | None = None,
) -> list[str]:
    """Tell of what drifted, where the job's policy wants that, and close what drifts no longer.

    Args:
        conn: In autocommit mode.
        drifted: What drifted, by name, each with a message; everything of this owner that drifted now.
        owner: Whose resources were looked at; alerts of others stay as they are.
        among: What was looked at of it; alerts of others stay as they are. None for everything.

    Returns:
        Names whose alerts were closed. Those who are told of a job's drift and of its recoveries are told
        that it is as declared again.
    """
    queries = load_queries("alerts")
    values = {
        "owner": owner,
        "names": list(drifted),
        "messages": list(drifted.values()),
        "among": None if among is None else sorted(among),
    }
    with conn.transaction():
        conn.execute(queries["open_drift_alerts"], values)
        return [name for name, _ in conn.execute(queries["resolve_drift_alerts"], values)]


def _read_delivery(row: dict[str, Any]) -> Delivery:
    alert = Alert(**{name: row[name] for name in Alert.__slots__})
    run = RunFacts(**{name: row[name] for name in RunFacts.__slots__}) if row["run_id"] is not None else None
    own = ("id", "attempts", "channel", "secret", "reminder", "database")
    return Delivery(**{name: row[name] for name in own}, alert=alert, run=run)
