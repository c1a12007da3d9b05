"""Probes without a token, and how the target fares."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from reconciler.runtime.shared_answers import SharedAnswers
from tests.declared import Site, job
from tests.served import Served, serve
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_server

RUNTIME_TICK = "SELECT cron.schedule('tick', '* * * * *', 'CALL reconciler.tick()')"


class Clock:
    """The clock of kept answers: each look at it is an hour later, so that none is kept."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        self.now += 3600
        return self.now


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    """The service of a database with the schema, which keeps no answers."""
    with serve(site, answers=SharedAnswers(Clock())) as made:
        yield made


def faults(served: Served, path: str = "/ready") -> str:
    """Ask whether the service is ready; "" where it is, and what it warns of after `ready, but`."""
    reply = served.get(path, scopes=())
    if reply.status_code == 200:
        assert reply.json()["status"] == "ready"
        warnings = "; ".join(reply.json()["warnings"])
        assert "postgres" not in warnings
        return f"ready, but {warnings}" if warnings else ""
    assert reply.status_code == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["Retry-After"] == "5"
    for secret in (served.site.database.server.dsn, "postgres", "port", "/tmp", "reconciler-"):
        assert secret not in reply.text
    text: str = reply.json()["detail"]
    return text


def test_a_process_that_lives_says_so(site: Site) -> None:
    """Without a token, and without a database."""
    site.apply()
    with serve(site) as served:
        served.site.database.server.stop()
        for path in ("/health", "/api/v1/health"):
            assert served.get(path, scopes=()).json()["status"] == "alive"


def test_a_database_that_fits_is_ready(served: Served) -> None:
    """A target with the schema of this release is, without a token."""
    assert [faults(served, path) for path in ("/ready", "/api/v1/ready")] == ["", ""]


def test_each_thing_that_is_wrong_is_told(served: Served, site: Site) -> None:
    """One after the other, in words that name neither role nor place."""
    site.run("DELETE FROM reconciler.migrations WHERE number = 26")
    assert faults(served) == "the schema reconciler is of an earlier release"
    site.run("INSERT INTO reconciler.migrations (number, name, checksum) VALUES (9999, 'x', 'x')")
    assert faults(served) == "ready, but the schema reconciler is of a later release"
    site.run("ALTER SCHEMA reconciler RENAME TO away")
    assert faults(served) == "the schema reconciler is not there"
    site.run("ALTER SCHEMA away RENAME TO reconciler")
    site.run("DROP EXTENSION pg_cron CASCADE")
    assert faults(served) == ("pg_cron is not in this database; the schema reconciler is of a later release")


def test_a_copy_is_told(served: Served, site: Site) -> None:
    """Nothing runs in it until somebody claims it."""
    site.run("UPDATE reconciler.identity SET system_identifier = system_identifier + 1, table_oids = '{1}'")
    assert (
        faults(served) == "ready, but the database is a copy that nobody has claimed, so nothing runs in it"
    )


def test_a_tick_that_stopped_is_told(served: Served, site: Site) -> None:
    """One that is inactive, and one that has not run for long; a new one gets its time."""
    site.run(RUNTIME_TICK)
    assert faults(served) == ""
    site.run(
        "INSERT INTO cron.job_run_details (jobid, runid, job_pid, status, start_time, end_time)"
        " SELECT jobid, 1, 1, 'succeeded', now() - interval '1 hour', now() FROM cron.job"
    )
    assert faults(served) == "ready, but the tick does not run"
    site.run("UPDATE cron.job SET active = false")
    assert faults(served) == "ready, but the entry that calls the tick is inactive"


def test_a_launcher_that_is_gone_is_told(served: Served, site: Site) -> None:
    """Nothing starts any job then; where the server brings it back, that is told no more."""
    told = []

    def is_told() -> bool:
        site.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
        )
        told.append(faults(served))
        return told[-1] != ""

    wait_until(is_told, seconds=20, what="the launcher is seen to be gone")
    assert told[-1] == "ready, but pg_cron's launcher is not running"
    wait_until(lambda: faults(served) == "", seconds=20, what="it is back")


def test_a_role_without_rights_is_not_ready(site: Site) -> None:
    """It is told that it lacks one, and not which role it is."""
    site.apply()
    site.run("CREATE ROLE nobody LOGIN")
    with serve(Site(site.database, "nobody")) as served:
        assert faults(served) == "the role of the service lacks a right"


def test_a_database_that_is_away_is_told_at_once(served: Served, site: Site) -> None:
    """And it is ready by itself when it is back."""
    site.database.server.stop(immediate=True)
    assert faults(served) == "the database cannot be reached"
    site.database.server.start()
    assert faults(served) == ""


def test_a_database_that_hangs_is_told_within_two_seconds(site: Site) -> None:
    """By as many probes as there are at once, of which one asks the database."""
    site.apply()
    with serve(site) as served, site.database.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE reconciler.migrations")
        told: list[str] = []
        began = time.monotonic()
        threads = [threading.Thread(target=lambda: told.append(faults(served))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert set(told) == {"the database does not answer within 2 s"}
        assert time.monotonic() - began < 6
        waiting = site.rows(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND application_name = 'reconciler service'"
        )
        assert waiting == [(1,)]


def test_the_status_is_that_of_the_command(served: Served, site: Site) -> None:
    """Launcher, tick, and how many jobs fare how; for readers alone."""
    site.apply(job("a"), job("b"), job("c", active=False))
    site.run("INSERT INTO reconciler.pauses (job_name) VALUES ('b')")
    site.run(RUNTIME_TICK)
    reply = served.get("/api/v1/status")
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["target"], found["launcher"], found["tick"]) == ("test", "running", "not_yet")
    assert (found["tick_age_seconds"], found["deliveries_waiting"]) == (None, 0)
    assert (found["timezone"], found["now"][-1], found["postgresql"][:3]) == ("GMT", "Z", "17.")
    assert {state: count for state, count in found["jobs"].items() if count} == {
        "ok": 2,
        "paused": 1,
        "inactive": 1,
    }
    assert served.get("/api/v1/status", scopes=()).status_code == 401
    assert served.get("/api/v1/status", scopes=("trigger",)).status_code == 403
