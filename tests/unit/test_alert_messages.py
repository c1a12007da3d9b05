from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from reconciler.core.alerts import TONES, Alert, Message, RunFacts, make_message

AT = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def alert(**fields: Any) -> Alert:
    """Make an alert that is open."""
    return Alert(
        **{
            "kind": "failed",
            "job_name": "tidy",
            "message": "tidy failed 3 times in a row: division by zero",
            "occurrences": 1,
            "opened_at": AT,
            "last_seen_at": AT,
            "resolved_at": None,
            **fields,
        }
    )


def run(**fields: Any) -> RunFacts:
    """Make a failed run."""
    return RunFacts(
        **{
            "run_id": 17,
            "run_at": AT - MINUTE,
            "completed_at": AT,
            "status": "failed",
            "trigger": "schedule",
            "attempt": 1,
            "error_sqlstate": "22012",
            "error_message": "division by zero",
            "error_detail": None,
            **fields,
        }
    )


def make(about: Alert, of: RunFacts | None = None, **options: Any) -> Message:
    """Make the message for the target `production`."""
    return make_message(about, of, target="production", database="app", **options)


def test_a_failure_says_what_where_when_and_how_to_look() -> None:
    """Everything that somebody needs at night is there, in plain text."""
    message = make(alert(occurrences=4, last_seen_at=AT + 3 * MINUTE), run(attempt=2, trigger="retry"))
    assert message.title == "[production] tidy failed"
    assert message.tone == "failure"
    assert (
        message.body
        == """\
tidy failed 3 times in a row: division by zero

job       tidy
target    production, database app
since     2026-11-21 03:00:00 UTC
seen      4 times, last 2026-11-21 03:03:00 UTC
run       17, failed after 0:01:00, trigger retry, attempt 2
began     2026-11-21 02:59:00 UTC
sqlstate  22012

look       reconciler runs tidy --target production
run again  reconciler run tidy --target production"""
    )


def test_an_error_that_the_message_lacks_is_added() -> None:
    """The error's first lines follow the facts, with its detail."""
    body = make(alert(message="tidy failed"), run(error_message="no\nway", error_detail="at all")).body
    assert "\n\nno\nway\nat all\n\n" in body


def test_a_run_that_goes_on_has_no_duration() -> None:
    """A slow run is told while it runs."""
    body = make(alert(kind="slow"), run(status="running", completed_at=None, error_sqlstate=None)).body
    assert "\nrun     17, running, trigger schedule\n" in body


def test_a_short_run_is_told_in_seconds() -> None:
    """Below a minute tenths count."""
    body = make(alert(), run(completed_at=AT - MINUTE + timedelta(seconds=2.34), status="timed_out")).body
    assert "17, timed out after 2.3 s" in body


def test_a_forgotten_run_leaves_the_rest() -> None:
    """An alert whose run is gone from the log says all else."""
    body = make(alert()).body
    assert "\nrun  " not in body
    assert "look       reconciler runs tidy" in body


def test_what_is_over_meanwhile_is_told_as_over() -> None:
    """A message that comes late does not wake people for what is over."""
    message = make(alert(resolved_at=AT + MINUTE), reminder=2)
    assert message.title == "[production] Over: tidy failed"
    assert "It was over at 2026-11-21 03:01:00 UTC, before this message could be sent." in message.body


def test_a_recovery_is_no_late_message() -> None:
    """It is closed from the beginning, and nobody has to run anything."""
    message = make(alert(kind="recovered", message="tidy succeeded again", resolved_at=AT))
    assert (message.title, message.tone) == ("[production] tidy recovered", "success")
    assert "over at" not in message.body
    assert "reconciler run " not in message.body


def test_a_reminder_says_which_it_is() -> None:
    """The third message of one alert is the second reminder."""
    assert make(alert(), reminder=2).title == "[production] Reminder 2: tidy failed"


def test_drift_is_looked_at_with_drift() -> None:
    """Running the job again would not help."""
    body = make(alert(kind="drift", message="entry.active: false, declared true")).body
    assert body.endswith("\n\nlook  reconciler drift --target production")


def test_a_test_says_that_it_is_one() -> None:
    """It names the channel and the target and nothing to do."""
    message = make(alert(kind="test", job_name="ops", message="All is well.", resolved_at=AT))
    assert message == Message(
        title="[production] Test of ops",
        body="All is well.\n\ntarget  production, database app",
        tone="info",
    )


def test_long_errors_are_cut() -> None:
    """Five lines of at most 300 characters."""
    text = "\r\n".join(["x" * 400, *"abcdefg"])
    body = make(alert(message=text)).body
    assert body.split("\n\n")[0].split("\n") == ["x" * 299 + "…", "a", "b", "c", "d", "…"]


def test_nothing_steers_the_reader_s_terminal() -> None:
    """Control and direction characters are written as question marks; tabs stay."""
    body = make(alert(message="a\x1b[2Jb\u202ec\x07\td")).body
    assert body.startswith("a?[2Jb?c?\td\n\n")


def test_an_empty_message_leaves_no_gap() -> None:
    """The facts come first then."""
    assert make(alert(message=" \n")).body.startswith("job ")


def test_times_are_told_in_utc() -> None:
    """Whatever zone the connection has."""
    oslo = timezone(timedelta(hours=1))
    assert "since   2026-11-21 02:00:00 UTC" in make(alert(opened_at=AT.replace(tzinfo=oslo))).body


@pytest.mark.parametrize("kind", sorted(TONES))
def test_every_kind_has_a_text(kind: str) -> None:
    """The name is in the title, whatever the kind."""
    assert "tidy" in make(alert(kind=kind), run()).title


def test_a_kind_of_a_later_release_is_told_too() -> None:
    """Its own word stands for what this release has no text for."""
    message = make(alert(kind="melted"))
    assert (message.title, message.tone) == ("[production] tidy melted", "failure")
