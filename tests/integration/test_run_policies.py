"""How runs behave as declared: beside each other, after a failure, and after other jobs."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from reconciler.core.retries import next_wait
from tests.declared import Site, after, job
from tests.runs import (
    Beside,
    call,
    fire,
    hold,
    log,
    make_due,
    run_retries,
    runner,
    running,
    starts,
    statuses,
    tick,
)
from tests.servers import wait_until

if TYPE_CHECKING:
    from reconciler.core.specs import JobSpec

pytestmark = pytest.mark.one_server

THIRD_TIME = "DO $$ BEGIN IF nextval('public.tries') < 3 THEN RAISE 'not yet'; END IF; END $$"
SLEEPS: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"


def failing(name: str = "a", *, sql: str = "SELECT 1/0", **on_failure: Any) -> JobSpec:
    """Declare a job that fails, and what happens then."""
    return job(name, sql, on_failure=on_failure)


# ---------------------------------------------------------------------------------------------- concurrency


def test_a_start_is_skipped_while_the_job_runs(site: Site) -> None:
    """A run that somebody asked for is skipped as a scheduled one is, and names who runs the job."""
    site.apply(job("a", hold()))
    with running(site) as run:
        site.run("SELECT reconciler.request_run('a')")
        runner(site)
        assert log(site, "a", "status", "trigger", "error_message")[1:] == [
            ("skipped", "manual", f"already running in backend {run.pid}")
        ]
    assert starts(site) == []
    assert statuses(site) == ["succeeded", "skipped"]


def test_a_run_waits_for_the_one_before(site: Site) -> None:
    """With `wait` a run begins when the one before has ended, and writes nothing until then."""
    site.apply(job("a", hold(), concurrency="wait"))
    with running(site) as first:
        second = Beside(site, "CALL reconciler.run_job('a')")
        wait_until(lambda: site.rows(SLEEPS, second.pid) == [(1,)], seconds=5, what="the second run waits")
        assert statuses(site) == ["running"]
        assert (first.end(), second.end()) == (None, None)
    assert log(site, "a", "status", "backend_pid") == [("succeeded", first.pid), ("succeeded", second.pid)]


def test_a_run_does_not_wait_for_ever(site: Site) -> None:
    """With `wait` a run gives up after the job's time limit, and its row says for whom it waited."""
    site.apply(job("a", hold(), concurrency="wait", timeout="300ms"))
    with running(site) as run:
        assert call(site) is None
        assert log(site, "a", "status", "error_message")[1:] == [
            ("skipped", f"already running in backend {run.pid}")
        ]


def test_a_start_that_waits_does_not_hold_up_the_runner(site: Site) -> None:
    """With `wait` a start keeps its turn until the job is free, while the runner goes on with others."""
    site.apply(job("a", hold(), concurrency="wait"), job("b"))
    with running(site):
        site.run("SELECT reconciler.request_run('a'), reconciler.request_run('b')")
        runner(site)
        assert starts(site) == [("a", "manual", 1)]
        assert statuses(site, "b") == ["succeeded"]
    make_due(site)
    runner(site)
    assert log(site, "a", "status", "trigger") == [("succeeded", "manual")] * 2


def test_two_runs_at_once(site: Site) -> None:
    """With `allow` runs go on beside each other, and the tick takes neither for lost while it lives."""
    site.apply(job("a", hold(), concurrency="allow"))
    with running(site) as first, running(site, gate=2) as second:
        tick(site)
        assert statuses(site) == ["running", "running"]
        site.run("SELECT pg_terminate_backend(%s, 5000)", first.pid)
        tick(site)
        assert statuses(site) == ["lost", "running"]
        first.end()
        assert second.end() is None
    assert log(site, "a", "status", "backend_pid") == [("lost", first.pid), ("succeeded", second.pid)]


# -------------------------------------------------------------------------------------------------- retries


def test_the_attempts_of_one_chain(site: Site) -> None:
    """A failed run is tried again until it succeeds; its attempts are counted and name the first."""
    site.run("CREATE SEQUENCE public.tries")
    site.apply(failing(sql=THIRD_TIME, retries=5))
    assert fire(site) is not None
    run_retries(site)
    first = log(site, "a", "id")[0][0]
    assert log(site, "a", "status", "trigger", "attempt", "chain_id") == [
        ("failed", "schedule", 1, None),
        ("failed", "retry", 2, first),
        ("succeeded", "retry", 3, first),
    ]
    assert starts(site) == []


@pytest.mark.parametrize("retries", [0, 2])
def test_no_more_attempts_than_declared(site: Site, retries: int) -> None:
    """After so many retries a run has failed for good."""
    site.apply(failing(retries=retries))
    fire(site)
    run_retries(site, 4)
    assert statuses(site) == ["failed"] * (retries + 1)
    assert starts(site) == []


def test_the_waits_grow_up_to_their_maximum(site: Site) -> None:
    """Without jitter each retry is due after the whole wait, which grows by the factor and is bounded."""
    site.apply(failing(retries=4, backoff={"initial": "10s", "factor": 3, "max": "50s"}, jitter=False))
    fire(site)
    waits = []
    for _ in range(4):
        waits += site.rows(
            "SELECT round(extract(epoch FROM s.due_at - l.completed_at))::integer"
            "  FROM reconciler.starts s, reconciler.cron_execution_log l ORDER BY l.id DESC LIMIT 1"
        )
        run_retries(site, 1)
    assert waits == [(10,), (30,), (50,), (50,)]


def test_jitter_takes_away_half_of_the_wait_at_the_most(site: Site) -> None:
    """With jitter, which is usual, retries are due between half of the wait and all of it."""
    names = [f"a{number}" for number in range(20)]
    site.apply(*(failing(name, retries=1, backoff={"initial": "100s"}) for name in names))
    for name in names:
        fire(site, name)
    waits = [
        row[0]
        for row in site.rows(
            "SELECT extract(epoch FROM s.due_at - l.completed_at)::float"
            "  FROM reconciler.starts s JOIN reconciler.cron_execution_log l USING (job_name)"
        )
    ]
    assert len(waits) == 20
    assert all(49.9 < wait < 100.1 for wait in waits)
    assert max(waits) - min(waits) > 5


def test_the_database_waits_as_python_does(site: Site) -> None:
    """For all that can be declared both compute the same wait, to the microsecond or a billionth of it."""
    site.apply()
    cases = list(
        product(
            (1, 2, 3, 10, 50, 101),
            (timedelta(milliseconds=1), timedelta(seconds=7), timedelta(days=3)),
            (1, 1.5, 2, 100),
            (timedelta(milliseconds=500), timedelta(hours=1), timedelta(days=365)),
            (0, 0.25, 0.999, 1),
        )
    )
    attempts, initials, factors, maxima, chances = zip(*cases, strict=True)
    computed = site.rows(
        "SELECT extract(epoch FROM reconciler.next_wait(a, i, f, m, c))::float"
        "  FROM unnest(%s::int[], %s::interval[], %s::numeric[], %s::interval[], %s::float[])"
        "       AS t (a, i, f, m, c)",
        list(attempts),
        list(initials),
        [Decimal(str(factor)) for factor in factors],
        list(maxima),
        [float(chance) for chance in chances],
    )
    assert [row[0] for row in computed] == [
        pytest.approx(
            next_wait(a, initial=i, factor=f, maximum=m, chance=c).total_seconds(), rel=1e-9, abs=1.5e-6
        )
        for a, i, f, m, c in cases
    ]


def test_a_cancelled_run_is_not_tried_again(site: Site) -> None:
    """Who cancels a run does not want it."""
    site.apply(failing(sql=hold(), retries=5))
    with running(site) as run:
        site.run("SELECT reconciler.cancel_run(%s)", run.run)
        assert run.end() is not None
    assert statuses(site) == ["cancelled"]
    assert starts(site) == []


def test_a_lost_run_is_tried_again(site: Site) -> None:
    """A run whose backend went away has failed like others."""
    site.apply(failing(sql=hold(), retries=5))
    with running(site) as run:
        site.run("SELECT pg_terminate_backend(%s, 5000)", run.pid)
    tick(site)
    assert statuses(site) == ["lost"]
    run_retries(site, 1)
    assert log(site, "a", "status", "attempt") == [("lost", 1), ("succeeded", 2)]


def test_a_scheduled_run_takes_the_place_of_a_retry(site: Site) -> None:
    """A new scheduled run is the new try, and begins a chain of its own."""
    site.apply(failing(retries=5))
    fire(site)
    fire(site)
    assert starts(site) == [("a", "retry", 2)]
    run_retries(site, 1)
    assert log(site, "a", "attempt", "trigger") == [(1, "schedule"), (1, "schedule"), (2, "retry")]
    second = log(site, "a", "id")[1]
    assert log(site, "a", "chain_id")[2] == second


def test_nothing_is_tried_again_after_it_succeeded(site: Site) -> None:
    """When somebody's own run succeeds, the waiting retry is not needed any more."""
    site.run("CREATE SEQUENCE public.tries")
    site.apply(failing(sql=THIRD_TIME.replace("3", "2"), retries=5))
    fire(site)
    assert starts(site) == [("a", "retry", 2)]
    assert call(site) is None
    assert starts(site) == []


# --------------------------------------------------------------------------------------------- dependencies


def test_a_job_starts_after_another(site: Site) -> None:
    """A job whose only trigger is another starts once each time that one has succeeded."""
    site.apply(job("a"), after("b", "a"))
    for number in (1, 2):
        fire(site)
        assert starts(site) == [("b", "dependency", 1)]
        runner(site)
        runner(site)
        assert log(site, "b", "status", "trigger") == [("succeeded", "dependency")] * number
    assert starts(site) == []


def test_a_job_starts_after_all_others(site: Site) -> None:
    """A job starts when all that it waits for have succeeded since its own last run, in whatever order."""
    site.apply(job("a"), job("b"), after("c", "a", "b"))
    for first, second in (("a", "b"), ("b", "a")):
        fire(site, first)
        fire(site, first)
        assert starts(site) == []
        fire(site, second)
        assert starts(site) == [("c", "dependency", 1)]
        runner(site)
    assert statuses(site, "c") == ["succeeded", "succeeded"]


def test_each_dependent_starts(site: Site) -> None:
    """All that wait for a job start after it, and what waits for them after them; inactive ones do not."""
    site.apply(job("a"), after("b", "a"), after("c", "a"), after("d", "b"), after("e", "a", active=False))
    fire(site)
    assert starts(site) == [("b", "dependency", 1), ("c", "dependency", 1)]
    runner(site)
    assert site.rows("SELECT job_name FROM reconciler.cron_execution_log ORDER BY id") == [
        ("a",),
        ("b",),
        ("c",),
        ("d",),
    ]


def test_nothing_starts_after_a_failure(site: Site) -> None:
    """A failed, a skipped and a lost run start nobody; the retry that succeeds does."""
    site.run("CREATE SEQUENCE public.tries")
    site.apply(failing(sql=THIRD_TIME, retries=5), after("b", "a"))
    fire(site)
    site.run("SELECT reconciler.pause_job('a')")
    fire(site)
    site.run("SELECT reconciler.resume_job('a')")
    run_retries(site, 1)
    assert statuses(site) == ["failed", "skipped", "failed"]
    assert starts(site) == [("a", "retry", 3)]
    run_retries(site, 1)
    assert statuses(site, "b") == ["succeeded"]


def test_a_dependent_is_tried_again(site: Site) -> None:
    """Its retry does not wait for the others to succeed anew."""
    site.run("CREATE SEQUENCE public.tries")
    site.apply(job("a"), after("b", "a", sql=THIRD_TIME, on_failure={"retries": 5}))
    fire(site)
    run_retries(site, 3)
    assert log(site, "b", "status", "trigger") == [
        ("failed", "dependency"),
        ("failed", "retry"),
        ("succeeded", "retry"),
    ]


def test_a_scheduled_job_waits_for_others(site: Site) -> None:
    """With a schedule too, a job whose time has come runs once when the others have succeeded."""
    site.apply(job("a"), job("b"), job("c", after=["a", "b"]))
    for done in (1, 2):
        fire(site, "c")
        fire(site, "c")
        fire(site, "a")
        fire(site, "c")
        assert log(site, "c", "status", "error_message")[-2:] == [
            ("skipped", "waits for a, b"),
            ("skipped", "waits for b"),
        ]
        runner(site)
        assert statuses(site, "c").count("succeeded") == done - 1
        fire(site, "b")
        runner(site)
        runner(site)
        assert log(site, "c", "status", "trigger")[-1] == ("succeeded", "dependency")
        assert statuses(site, "c").count("succeeded") == done


def test_a_scheduled_job_does_not_start_by_others_alone(site: Site) -> None:
    """With a schedule too, a job does not run before its time, also where the target has no entry for it."""
    site.apply(job("a"), job("b", after=["a"]), job("c", http={"url": "https://app.test"}, after=["a"]))
    fire(site)
    assert starts(site) == []
    assert fire(site, "b") is None
    assert log(site, "b", "status", "trigger") == [("succeeded", "schedule")]


def test_somebody_need_not_wait(site: Site) -> None:
    """Who runs a job by hand does not wait for other jobs."""
    site.apply(job("a"), job("b", after=["a"]))
    call(site, "b")
    site.run("SELECT reconciler.request_run('b')")
    runner(site)
    assert statuses(site, "b") == ["succeeded", "succeeded"]


def test_a_start_that_begins_to_wait_too_late_is_woken(site: Site) -> None:
    """A job that begins to wait while the other one is just succeeding is started by the next tick."""
    site.apply(job("a"), job("b", after=["a"]))
    with site.database.connect(autocommit=False) as conn:
        found = conn.execute("SELECT verdict, reason FROM reconciler.start_run('b', 'schedule')").fetchone()
        assert found == ("skip", "waits for a")
        fire(site, "a")
    runner(site)
    assert statuses(site, "b") == ["skipped"]
    tick(site)
    runner(site)
    assert statuses(site, "b") == ["skipped", "succeeded"]
