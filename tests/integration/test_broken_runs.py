"""A run that was broken off between its body and its end, in a session that lives on."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from tests.declared import Site, job

STATUSES: LiteralString = "SELECT status FROM reconciler.cron_execution_log ORDER BY id"
BREAK: LiteralString = (
    "ALTER TABLE reconciler.job_states ADD CONSTRAINT broken CHECK (total_runs < 0) NOT VALID"
)
MEND: LiteralString = "ALTER TABLE reconciler.job_states DROP CONSTRAINT broken"


def test_the_next_run_of_the_session_holds_the_lock(site: Site) -> None:
    """Where an end could not be written, the next run in the same session finds it lost, and is alone."""
    site.run("CREATE TABLE public.held (locks bigint)")
    site.apply(
        job(
            "a",
            "INSERT INTO public.held SELECT count(*) FROM pg_locks l JOIN reconciler.definitions d ON"
            " l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND d.name = 'a'"
            " AND l.classid::bigint = (d.lock_key >> 32) & 4294967295"
            " AND l.objid::bigint = d.lock_key & 4294967295",
        )
    )
    conn = site.database.connect()
    site.run(BREAK)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("CALL reconciler.run_job('a')")
    assert site.rows(STATUSES) == [("running",)]
    site.run(MEND)
    conn.execute("CALL reconciler.run_job('a')")
    assert site.rows(STATUSES) == [("lost",), ("succeeded",)]
    assert site.rows("SELECT locks FROM public.held") == [(1,)]
    assert site.rows(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s", conn.info.backend_pid
    ) == [(0,)]
