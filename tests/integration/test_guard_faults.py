"""The guard when things go wrong: many starts at once, clocks that are set, broken rows, lost backends."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from tests.declared import Site, job
from tests.runs import Beside, attempt, call, fire, log, runner, statuses, tick
from tests.servers import wait_until
from tests.timed import DAY, HOUR, MINUTE, aim, spell_moment

if TYPE_CHECKING:
    from tests.servers import Database

pytestmark = pytest.mark.one_server

TAKE: LiteralString = "SELECT reconciler.take_fire('a')"
FIRED: LiteralString = "SELECT fired_at FROM reconciler.job_states WHERE name = 'a'"
WAITS: LiteralString = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"


@pytest.fixture
def site(database: Database) -> Site:
    """A database with a job that is wanted in the minute in which a test begins."""
    site = Site(database)
    site.apply(job("a"))
    aim(site, schedule=spell_moment(now(site)))
    return site


def now(site: Site) -> datetime:
    """Look at the database's clock."""
    at: datetime = site.rows("SELECT clock_timestamp()")[0][0]
    return at.astimezone(UTC)


def take(site: Site) -> bool:
    """Ask the guard."""
    return bool(site.rows(TAKE)[0][0])


# --- at once ---


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_of_two_at_once_one_takes_it(site: Site, end: LiteralString) -> None:
    """Who asks while another one is asking waits, and gets it only where that one gave it back."""
    first, second = site.database.connect(), site.database.connect()
    first.execute("BEGIN")
    assert first.execute(TAKE).fetchone() == (True,)
    answers: list[object] = []
    other = threading.Thread(target=lambda: answers.append(second.execute(TAKE).fetchone()))
    other.start()
    wait_until(lambda: site.rows(WAITS, second.info.backend_pid) == [(1,)], seconds=5, what="it waits")
    first.execute(end)
    other.join(5)
    assert answers == [(end == "ROLLBACK",)]


def test_who_takes_it_and_is_killed_gives_it_back(site: Site) -> None:
    """Until the taking is committed it is nobody's."""
    first = site.database.connect()
    first.execute("BEGIN")
    assert first.execute(TAKE).fetchone() == (True,)
    site.run("SELECT pg_terminate_backend(%s, 5000)", first.info.backend_pid)
    assert take(site)
    assert not take(site)


def test_ten_starts_at_once_are_one_run(site: Site) -> None:
    """However many connections start a job at one moment, it runs once and nobody gets an error."""
    site.apply(job("a", concurrency="allow"))
    aim(site, schedule=spell_moment(now(site)))
    others = [Beside(site, "CALL reconciler.run_job('a', 'schedule')") for _ in range(10)]
    assert [other.end() for other in others] == [None] * 10
    assert statuses(site) == ["succeeded"]


def test_a_stricter_isolation_gets_an_answer_too(site: Site) -> None:
    """Also a role whose transactions are serializable is passed over and not refused."""
    site.run("CREATE ROLE strict LOGIN; ALTER ROLE strict SET default_transaction_isolation = 'serializable'")
    site.run("UPDATE reconciler.definitions SET username = 'strict'")
    first = site.database.connect("strict")
    first.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    assert first.execute(TAKE).fetchone() == (True,)
    second = Beside(site, "CALL reconciler.run_job('a', 'schedule')", user="strict")
    wait_until(lambda: site.rows(WAITS, second.pid) == [(1,)], seconds=5, what="it waits")
    first.execute("COMMIT")
    assert second.end() is None
    assert log(site) == []


def test_the_tick_and_the_guard_agree(site: Site) -> None:
    """A start that comes while the tick notes its run as missed waits, and leaves it to the runner."""
    at = now(site).replace(second=0, microsecond=0) - 20 * MINUTE
    site.apply(job("a", schedule="* * * * *", catch_up="one"))
    aim(site, schedule=spell_moment(at))
    site.run("UPDATE reconciler.job_states SET next_due_at = %s", at)
    tick_beside = site.database.connect()
    tick_beside.execute("BEGIN")
    tick_beside.execute("SELECT reconciler.find_missed()")
    late = Beside(site, "CALL reconciler.run_job('a', 'schedule')")
    wait_until(lambda: site.rows(WAITS, late.pid) == [(1,)], seconds=5, what="it waits")
    tick_beside.execute("COMMIT")
    assert late.end() is None
    runner(site)
    assert log(site, "a", "trigger") == [("catch_up",)]


# --- broken off ---


def test_a_backend_that_dies_before_its_run_leaves_a_missed_one(site: Site) -> None:
    """What was taken and never begun is in no log: the tick finds it, and it is made up for."""
    site.apply(job("a", schedule="* * * * *", catch_up="one"))
    at = now(site).replace(second=0, microsecond=0) - 20 * MINUTE
    aim(site, schedule=spell_moment(at))
    assert take(site)
    site.run("UPDATE reconciler.job_states SET next_due_at = %s", at)
    tick(site)
    runner(site)
    assert log(site, "a", "trigger", "due_at") == [("catch_up", at)]


def test_a_body_that_fails_is_not_begun_again(site: Site) -> None:
    """An instant is taken also where its run failed; retries are what makes up for that."""
    site.apply(job("a", "SELECT 1/0"))
    aim(site, schedule=spell_moment(now(site)))
    assert isinstance(fire(site), psycopg.errors.DivisionByZero)
    assert fire(site) is None
    assert statuses(site) == ["failed"]


# --- clocks ---


def test_a_clock_that_is_set_back_a_little_repeats_nothing(site: Site) -> None:
    """What was begun by the clock before counts: nothing up to then is begun again."""
    aim(site, schedule="* * * * *")
    site.run("UPDATE reconciler.job_states SET fired_at = %s", now(site) + 10 * MINUTE)
    assert not take(site)


def test_a_clock_that_was_far_ahead_stops_nothing(site: Site) -> None:
    """A clock that was wrong by more than an hour leaves no job waiting until that time has come."""
    aim(site, schedule="* * * * *")
    site.run("UPDATE reconciler.job_states SET fired_at = %s", now(site) + 400 * DAY)
    assert take(site)
    at = now(site)
    ((fired,),) = site.rows(FIRED)
    assert at - 2 * MINUTE < fired <= at


def test_a_clock_that_jumps_forward_begins_one_run(site: Site) -> None:
    """After hours without a start, one stands for the newest instant, and the others are left to the tick."""
    aim(site, schedule="* * * * *")
    site.run("UPDATE reconciler.job_states SET fired_at = %s", now(site) - 30 * DAY)
    fire(site)
    ((fired,),) = site.rows(FIRED)
    assert fired > now(site) - 2 * MINUTE
    assert statuses(site) == ["succeeded"]


# --- broken rows ---


def test_a_job_without_a_state_runs(site: Site) -> None:
    """Where the state was deleted by hand, the guard makes it anew."""
    site.run("DELETE FROM reconciler.job_states")
    assert take(site)
    assert not take(site)


def test_what_is_no_rule_is_never_wanted(site: Site) -> None:
    """A rule that somebody spoilt by hand starts nothing, and raises nothing; plan shows it as drift."""
    for rule in ("garbage", "", "* * * *", "60 * * * *", "@reboot", "0 0 31 2 *"):
        aim(site, schedule=rule)
        assert fire(site) is None, rule
    assert log(site) == []


def test_a_zone_that_the_server_does_not_know_is_gmt(site: Site) -> None:
    """As for pg_cron itself."""
    aim(site, schedule=spell_moment(now(site)), zone="Mars/Olympus")
    assert take(site)


def test_a_blackout_is_a_list(site: Site) -> None:
    """Nothing else can be written into the row."""
    for wrong in ("null", "{}", '"x"'):
        assert isinstance(
            attempt(site, "UPDATE reconciler.timings SET blackout = %s::jsonb", wrong),
            psycopg.errors.CheckViolation,
        )


def test_nobody_else_writes_timings(site: Site) -> None:
    """A role that runs jobs reads and writes neither timings nor states, also through the guard."""
    site.run("CREATE ROLE weak LOGIN; UPDATE reconciler.definitions SET username = 'weak'")
    for statement in (
        "SELECT * FROM reconciler.timings",
        "UPDATE reconciler.timings SET end_at = now()",
        "SELECT * FROM reconciler.job_states",
    ):
        error = attempt(site, statement, user="weak")
        assert isinstance(error, psycopg.errors.InsufficientPrivilege), statement
    assert call(site, user="weak", trigger="schedule") is None
    assert statuses(site) == ["succeeded"]


def test_a_hostile_session_changes_nothing(site: Site) -> None:
    """Functions that somebody puts first in the search path, and settings of time, are without effect."""
    aim(site, schedule=spell_moment(now(site), "Asia/Kathmandu"), zone="Asia/Kathmandu",
        windows=[{"from": "00:00", "to": "24:00", "last": "2020-01-01"}], every=None)  # fmt: skip
    site.run(
        "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;"
        "CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz"
        " LANGUAGE sql AS 'SELECT now() + interval ''1 d''';"
        "CREATE FUNCTION evil.is_later(timestamptz, timestamptz) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT true';"
        "CREATE OPERATOR evil.> (FUNCTION = evil.is_later, LEFTARG = timestamptz, RIGHTARG = timestamptz)"
    )
    conn = site.database.connect()
    conn.execute(
        "SET search_path = evil, pg_catalog; SET TimeZone = 'Pacific/Apia'; SET DateStyle = 'German'"
    )
    conn.execute("SET IntervalStyle = 'sql_standard'")
    conn.execute("CALL reconciler.run_job('a', 'schedule')")
    conn.execute("CALL reconciler.run_job('a', 'schedule')")
    assert statuses(site) == ["succeeded"]


def test_an_apply_begins_anew(site: Site) -> None:
    """What a new timing would have wanted before it was applied is not begun by an entry that comes later."""
    fields = {"start_at": f"{now(site) - HOUR:%Y-%m-%dT%H:%M:00Z}"}
    site.apply(job("a", schedule="* * * * *", start_at=fields["start_at"]))
    site.run("UPDATE reconciler.timings SET every = '7 h', anchor = %s", now(site) - MINUTE)
    assert not take(site)
    site.run("UPDATE reconciler.job_states SET fired_at = NULL")
    assert take(site)
