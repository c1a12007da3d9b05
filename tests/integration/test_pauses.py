"""Pauses: for a while what is not asked for by hand is skipped, and says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg
import pytest

from tests.declared import Site, after, job, queue
from tests.runs import attempt, call, fire, log, make_due, run_retries, runner, starts, statuses, tick
from tests.servers import wait_until

pytestmark = pytest.mark.one_server

PAUSES: LiteralString = "SELECT job_name, until IS NULL, reason, paused_by FROM reconciler.pauses"


def test_a_paused_job_is_skipped_and_says_why(site: Site) -> None:
    """Its row tells who paused it, until when, and why."""
    site.apply(job("a"), job("b"))
    site.run("CREATE ROLE anna LOGIN SUPERUSER")
    attempt(site, "SELECT reconciler.pause_job('a', '2099-01-02 03:04Z', 'the vendor is down')", user="anna")
    site.run("SELECT reconciler.pause_job('b')")
    assert (fire(site, "a"), fire(site, "b")) == (None, None)
    assert log(site, "a", "status", "error_message") == [
        ("skipped", "paused until 2099-01-02 03:04:00 UTC by anna: the vendor is down")
    ]
    assert log(site, "b", "status", "error_message") == [("skipped", "paused by postgres")]


def test_a_pause_ends_by_itself(site: Site) -> None:
    """From its time on runs are carried out, also before a tick has cleared it away."""
    site.apply(job("a"))
    site.run("SELECT reconciler.pause_job('a', clock_timestamp() + interval '300 milliseconds')")
    fire(site)
    assert statuses(site) == ["skipped"]
    wait_until(lambda: fire(site) is None and "succeeded" in statuses(site), seconds=5, what="it runs again")
    assert len(site.rows(PAUSES)) == 1
    tick(site)
    assert site.rows(PAUSES) == []


def test_a_pause_is_ended(site: Site) -> None:
    """To resume a job says whether it was paused; to pause it again changes the pause."""
    site.apply(job("a"))
    site.run("SELECT reconciler.pause_job('a', clock_timestamp() + interval '1 hour', 'first')")
    site.run("SELECT reconciler.pause_job('a', reason => 'second')")
    assert site.rows(PAUSES) == [("a", True, "second", "postgres")]
    assert site.rows("SELECT reconciler.resume_job('a')") == [(True,)]
    assert site.rows("SELECT reconciler.resume_job('a')") == [(False,)]
    fire(site)
    assert statuses(site) == ["succeeded"]


def test_a_paused_job_runs_when_somebody_asks_for_it(site: Site) -> None:
    """By hand, at once or through the runner, it runs all the same."""
    site.apply(job("a"))
    site.run("SELECT reconciler.pause_job('a')")
    assert call(site) is None
    site.run("SELECT reconciler.request_run('a')")
    runner(site)
    assert log(site, "a", "status", "trigger") == [("succeeded", "manual")] * 2


def test_nothing_of_a_paused_job_is_started(site: Site) -> None:
    """Its retries are skipped, and its starts after other jobs and for missed runs too."""
    site.apply(
        job("a", "SELECT 1/0", on_failure={"retries": 3}), after("b", "c"), job("c"), job("d", catch_up="all")
    )
    fire(site)
    fire(site, "c")
    site.run("UPDATE reconciler.job_states SET next_due_at = '2024-02-29Z' WHERE name = 'd'")
    tick(site)
    assert sorted(starts(site)) == [("a", "retry", 2), ("b", "dependency", 1), ("d", "catch_up", 1)]
    site.run("SELECT reconciler.pause_job(name) FROM unnest('{a,b,d}'::text[]) AS name")
    make_due(site)
    runner(site)
    assert starts(site) == []
    assert log(site, "a", "status", "trigger")[1:] == [("skipped", "retry")]
    assert log(site, "b", "status", "trigger") == [("skipped", "dependency")]
    assert log(site, "d", "status", "trigger") == [("skipped", "catch_up")]


def test_a_paused_job_misses_nothing(site: Site) -> None:
    """What is skipped for a pause is no missed run."""
    site.apply(job("a", schedule="* * * * *"))
    site.run("SELECT reconciler.pause_job('a')")
    at = datetime.now(UTC).replace(second=0, microsecond=0)
    site.run("UPDATE reconciler.job_states SET next_due_at = %s", at)
    fire(site)
    site.run("SELECT reconciler.find_missed(%s)", at + timedelta(seconds=59))
    assert site.rows("SELECT missed_runs, next_due_at FROM reconciler.job_states") == [
        (0, at + timedelta(minutes=1))
    ]


def test_a_pause_outlives_an_apply(site: Site) -> None:
    """It stays when the job is changed or renamed, and goes with the job."""
    site.apply(job("a"), job("z"))
    site.run("SELECT reconciler.pause_job('a')")
    site.apply(job("a", "SELECT 2", timeout="1m"), job("z"))
    fire(site, "a")
    site.apply(job("b", renamed_from="a"), job("z"))
    fire(site, "b")
    assert (statuses(site, "a"), statuses(site, "b")) == (["skipped"], ["skipped"])
    site.apply(job("z"), prune="auto", allow_deletes=1)
    assert site.rows(PAUSES) == []


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("SELECT reconciler.pause_job('nope')", psycopg.errors.UndefinedObject, "no job nope is declared"),
        ("SELECT reconciler.pause_job('q')", psycopg.errors.UndefinedObject, "no job q is declared"),
        ("SELECT reconciler.resume_job('nope')", psycopg.errors.UndefinedObject, "no job nope is declared"),
        (
            "SELECT reconciler.pause_job('plain')",
            psycopg.errors.FeatureNotSupported,
            "active: false in its file stops it",
        ),
        ("SELECT reconciler.resume_job('plain')", psycopg.errors.FeatureNotSupported, "mode: direct"),
        (
            "SELECT reconciler.pause_job('a', '2020-01-01Z')",
            psycopg.errors.InvalidParameterValue,
            "a pause ends in the future",
        ),
    ],
)
def test_what_cannot_be_paused(
    site: Site, statement: LiteralString, error: type[psycopg.Error], words: str
) -> None:
    """The error says which job, and what to do instead."""
    site.apply(job("a"), job("plain", mode="direct"), queue("q"))
    caught = attempt(site, statement)
    assert isinstance(caught, error)
    assert words in f"{caught} {caught.diag.message_hint}"
    assert site.rows(PAUSES) == []


@pytest.mark.parametrize("call_", ["pause_job('a')", "resume_job('a')", "request_run('a')"])
def test_who_may_control_a_job(site: Site, call_: str) -> None:
    """The job's role, its members and the owner may; others learn as whom it runs."""
    site.run("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN IN ROLE alice")
    site.apply(job("a", role="alice"))
    refused = attempt(site, f"SELECT reconciler.{call_}", user="bob")
    assert isinstance(refused, psycopg.errors.InsufficientPrivilege)
    assert refused.diag.message_primary == "the role bob may not control the job a"
    assert refused.diag.message_hint == "It runs as alice."
    assert (site.rows(PAUSES), starts(site)) == ([], [])
    for user in ("alice", "carol", None):
        assert attempt(site, f"SELECT reconciler.{call_}", user=user) is None


def test_retries_go_on_after_a_pause(site: Site) -> None:
    """What was skipped is not made up for; the next scheduled run is tried again as ever."""
    site.apply(job("a", "SELECT 1/0", on_failure={"retries": 1}))
    site.run("SELECT reconciler.pause_job('a')")
    fire(site)
    site.run("SELECT reconciler.resume_job('a')")
    run_retries(site, 2)
    assert statuses(site) == ["skipped"]
    fire(site)
    run_retries(site, 2)
    assert statuses(site) == ["skipped", "failed", "failed"]
