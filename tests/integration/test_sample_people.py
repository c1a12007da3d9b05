"""The SQL of jobs.d/mentoring.yaml and jobs.d/events.yaml: the right rows change, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import pytest

from tests.sample import Sample, open_sample

if TYPE_CHECKING:
    from tests.servers import Database

THIS_DAY: LiteralString = "date_trunc('day', now(), 'UTC')"
LAST_DAY: LiteralString = "date_trunc('day', now(), 'UTC') - interval '24 hours'"
THIS_MONTH: LiteralString = "date_trunc('month', now(), 'UTC')"
LAST_MONTH: LiteralString = (
    "date_trunc('month', date_trunc('month', now(), 'UTC') - interval '1 hour', 'UTC')"
)

ADD_ASSIGNMENTS = """
WITH active AS (INSERT INTO mentors (name) VALUES ('active') RETURNING id),
    paused AS (INSERT INTO mentors (name, status) VALUES ('paused', 'paused') RETURNING id)
INSERT INTO assignments (mentor_id, participant, status, created_at, last_contact_at)
SELECT
    CASE participant WHEN 'paused' THEN paused.id ELSE active.id END,
    participant, status, now() - made::interval, now() - met::interval
FROM active, paused, (VALUES
    ('never met', 'open', '14 days', NULL),
    ('new', 'open', '13 days', NULL),
    ('long ago', 'open', '90 days', '14 days'),
    ('met', 'open', '90 days', '13 days'),
    ('done', 'done', '90 days', '60 days'),
    ('paused', 'open', '90 days', '60 days'),
    ('reminded', 'open', '90 days', '60 days'),
    ('last week', 'open', '90 days', NULL)
) AS example (participant, status, made, met)
"""

ADD_REMINDERS = """
INSERT INTO reminders (assignment_id, created_at)
SELECT id, now() - CASE participant WHEN 'reminded' THEN interval '6 days' ELSE interval '6 days 23 hours' END
FROM assignments
WHERE participant IN ('reminded', 'last week')
"""


@pytest.fixture
def sample(database: Database) -> Sample:
    """The sample schema without its rows about people, in an open transaction."""
    sample = open_sample(database)
    sample.empty()
    return sample


def certify(sample: Sample, mentor: str, *certifications: tuple[str, int | None]) -> None:
    """Insert a mentor with certifications, each with the days that are left of it."""
    mentor_id = sample.add("INSERT INTO mentors (name) VALUES (%s) RETURNING id", mentor)
    for name, days in certifications:
        sample.conn.execute(
            "INSERT INTO certifications (mentor_id, name, expires_on)"
            " VALUES (%s, %s, (now() AT TIME ZONE 'UTC')::date + %s::int)",
            [mentor_id, name, days],
        )


def add_event(sample: Sample, title: str, begin: LiteralString) -> int:
    """Insert an event, whose reminder is due 15 minutes before, and two attendees of whom one comes."""
    event = sample.add(
        "INSERT INTO events (title, starts_at) VALUES (%s, " + begin + ") RETURNING id",
        title,
    )
    sample.conn.execute(
        "INSERT INTO event_registrations VALUES (%(id)s, 'ann', true), (%(id)s, 'bob', false)", {"id": event}
    )
    return event


def test_an_expired_certification_pauses_its_mentor(sample: Sample) -> None:
    """Only active mentors whose newest row of a certification has ended are paused."""
    certify(sample, "expired", ("a", -1), ("b", 400), ("c", -9))
    certify(sample, "last day", ("a", 0))
    certify(sample, "renewed", ("a", -10), ("a", 200))
    certify(sample, "for ever", ("a", -10), ("a", None))
    certify(sample, "uncertified")
    certify(sample, "paused", ("a", -1))
    sample.conn.execute("UPDATE mentors SET status = 'paused', pause_reason = 'leave' WHERE name = 'paused'")
    sample.run("nightly-certification-check")
    assert sample.rows(
        "SELECT name, pause_reason, paused_at = now() FROM mentors WHERE status = 'paused' ORDER BY name"
    ) == [("expired", "Certification expired: a, c", True), ("paused", "leave", None)]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_last_day_ends_at_midnight_utc(sample: Sample, zone: str) -> None:
    """The day is the one of UTC, whatever the zone of the session."""
    sample.conn.execute("SELECT set_config('TimeZone', %s, true)", [zone])
    certify(sample, "last day", ("a", 0))
    certify(sample, "over", ("a", -1))
    sample.run("nightly-certification-check")
    assert sample.rows("SELECT name FROM mentors WHERE status = 'paused'") == [("over",)]


def test_a_certification_near_its_end_is_noted_once(sample: Sample) -> None:
    """Active mentors' certifications that end within 30 days are noted, and again only for a new end."""
    certify(sample, "today", ("a", 0))
    certify(sample, "soon", ("a", 30), ("b", 31), ("c", None))
    certify(sample, "renewed", ("a", 5), ("a", 400))
    certify(sample, "expired", ("a", -1), ("b", 5))
    query: LiteralString = (
        "SELECT mentors.name, certification FROM certification_warnings"
        " JOIN mentors ON mentors.id = mentor_id ORDER BY 1, 2"
    )
    sample.run("nightly-certification-check")
    assert sample.rows(query) == [("soon", "a"), ("today", "a")]
    sample.conn.execute("UPDATE certifications SET expires_on = expires_on + 1")
    certify(sample, "new", ("b", 1))
    sample.run("nightly-certification-check")
    assert sample.rows(query) == [("new", "b"), ("soon", "a"), ("today", "a"), ("today", "a")]


def test_an_assignment_without_contact_gets_a_reminder(sample: Sample) -> None:
    """Open assignments of active mentors, two weeks without contact, get one reminder a week."""
    sample.conn.execute(ADD_ASSIGNMENTS)
    sample.conn.execute(ADD_REMINDERS)
    sample.run("reminder-daily")
    assert sample.rows(
        "SELECT participant FROM reminders JOIN assignments ON assignments.id = assignment_id"
        " WHERE reminders.created_at = now() ORDER BY participant"
    ) == [("last week",), ("long ago",), ("never met",)]
    assert sample.rows("SELECT trigger_reminders()") == [(0,)]


def test_an_event_is_announced_before_it_begins(sample: Sample) -> None:
    """Everyone registered is reminded from minutes_before until the event begins, not before or after."""
    add_event(sample, "due", "now() + interval '15 minutes'")
    add_event(sample, "early", "now() + interval '15 minutes 1 second'")
    add_event(sample, "begun", "now()")
    cancelled = add_event(sample, "cancelled", "now() + interval '5 minutes'")
    sample.conn.execute("UPDATE events SET is_cancelled = true WHERE id = %s", [cancelled])
    longest = add_event(sample, "longest", "now() + interval '24 hours'")
    sample.conn.execute("UPDATE events SET minutes_before = 1440 WHERE id = %s", [longest])
    sample.run("event-reminders")
    assert sample.rows("SELECT attendee, message FROM event_reminders ORDER BY 2, 1") == [
        ("ann", "due begins in 15 minutes"),
        ("bob", "due begins in 15 minutes"),
        ("ann", "longest begins in 1440 minutes"),
        ("bob", "longest begins in 1440 minutes"),
    ]


def test_a_moved_event_is_announced_again(sample: Sample) -> None:
    """A new beginning means a new reminder; a late registration gets the one that the others had."""
    query: LiteralString = "SELECT attendee, message FROM event_reminders ORDER BY created_at, starts_at, 1"
    event = add_event(sample, "class", "now() + interval '5 minutes'")
    sample.run("event-reminders")
    sample.conn.execute("INSERT INTO event_registrations VALUES (%s, 'cleo')", [event])
    sample.run("event-reminders")
    everyone = ("ann", "bob", "cleo")
    first = [(attendee, "class begins in 5 minutes") for attendee in everyone]
    assert sample.rows(query) == first
    sample.conn.execute("UPDATE events SET starts_at = starts_at + interval '4 minutes 30 seconds'")
    sample.run("event-reminders")
    second = [(attendee, "class begins in 10 minutes") for attendee in everyone]
    assert sample.rows(query) == [*first, *second]


@pytest.mark.parametrize(
    ("job", "report", "span"),
    [
        ("daily_report", "event_reports", (LAST_DAY, THIS_DAY)),
        ("monthly-event-report", "monthly_event_reports", (LAST_MONTH, THIS_MONTH)),
    ],
    ids=["day", "month"],
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_a_report_counts_the_time_that_is_over(
    sample: Sample, job: str, report: LiteralString, span: tuple[LiteralString, LiteralString], zone: str
) -> None:
    """The day or month (UTC) before this one is counted without cancelled events; nothing is a zero."""
    sample.conn.execute("SELECT set_config('TimeZone', %s, true)", [zone])
    begin, end = span
    query: LiteralString = (
        "SELECT key = ((" + begin + ") AT TIME ZONE 'UTC')::date, events, registrations, attended"
        " FROM " + report + " AS report (key, events, registrations, attended)"
    )
    sample.run(job)
    assert sample.rows(query) == [(True, 0, 0, 0)]
    add_event(sample, "first", begin)
    add_event(sample, "last", end + " - interval '1 second'")
    add_event(sample, "before", begin + " - interval '1 second'")
    add_event(sample, "after", end)
    cancelled = add_event(sample, "cancelled", begin)
    sample.conn.execute("UPDATE events SET is_cancelled = true WHERE id = %s", [cancelled])
    sample.add("INSERT INTO events (title, starts_at) VALUES ('empty', " + begin + ") RETURNING id")
    sample.run(job)
    assert sample.rows(query) == [(True, 3, 4, 2)]
