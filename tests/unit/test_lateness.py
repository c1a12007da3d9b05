"""How late runs began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.core.lateness import find_lateness

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def late(run_at: datetime, **fields: Any) -> float | None:
    """Return the lateness in seconds, of a run of an entry unless the fields say otherwise."""
    given = {"trigger": "schedule", "due_at": None, "schedule": "0 12 * * *", "zone": "GMT", **fields}
    found = find_lateness(run_at, **given)
    return None if found is None else found.total_seconds()


def test_a_run_that_an_entry_fired_is_late_by_its_newest_time() -> None:
    """A run counts from the newest fire of its entry, also where that was some minutes before."""
    assert late(NOON + timedelta(seconds=1.5)) == 1.5
    assert late(NOON + timedelta(minutes=7)) == 420
    assert late(NOON + timedelta(minutes=7), schedule="* * * * *") == 0


def test_the_zone_of_the_server_counts() -> None:
    """The schedule is read in pg_cron's zone."""
    assert late(NOON + timedelta(seconds=2), schedule="0 13 * * *", zone="Europe/Oslo") == 2
    assert late(NOON + timedelta(seconds=2), schedule="0 12 * * *", zone="Europe/Oslo") is None


@pytest.mark.parametrize(
    ("run_at", "fields"),
    [
        (NOON, {"trigger": "manual"}),
        (NOON, {"trigger": "dependency"}),
        (NOON, {"schedule": "30 seconds"}),
        (NOON, {"schedule": "@reboot"}),
        (NOON, {"schedule": "no schedule"}),
        (NOON, {"schedule": None}),
        (NOON, {"zone": "Nowhere/Land"}),
        (NOON + timedelta(minutes=61), {}),
        (NOON, {"has_rule": True}),
        (NOON, {"has_rule": True, "fired_at": NOON + timedelta(minutes=1)}),
    ],
)
def test_nothing_is_said_where_no_due_time_is_known(run_at: datetime, fields: dict[str, Any]) -> None:
    """By hand, after another job, by seconds, unreadable, or too long ago: no lateness is made up."""
    assert late(run_at, **fields) is None


def test_what_the_log_knows_counts_first() -> None:
    """A run that makes up for a time is as late as that was ago; a time to come makes it not early."""
    assert late(NOON, trigger="catch_up", due_at=NOON - timedelta(hours=5)) == 18_000
    assert late(NOON, trigger="retry", due_at=NOON + timedelta(seconds=1)) == 0


def test_a_rule_of_the_jobs_own_counts_from_the_time_that_was_taken() -> None:
    """The entry of such a job may fire more often than the job is due."""
    assert late(NOON, has_rule=True, fired_at=NOON - timedelta(seconds=40), schedule="* * * * *") == 40
