"""The operator's commands against real servers: run, follow, rehearse, look, pause, cancel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from reconciler.database.migrate import load_migrations
from tests.servers import Database, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli, CliResult

CONFIG = """\
owner: shop
targets:
  test: {{dsn: "{dsn}", prune: auto, runtime: {runtime}}}
secrets:
  hook: {{env: HOOK}}
"""

JOBS = """\
jobs:
  tidy:
    schedule: "0 0 29 2 *"
    sql: |
      -- what is old; goes
      DELETE FROM things WHERE old;
      INSERT INTO things VALUES (false)
  broken:
    schedule: "0 0 29 2 *"
    sql: SELECT 1/0
    on_failure: {retries: 1, backoff: {initial: 1h, max: 1h}}
  slow:
    schedule: "0 0 29 2 *"
    sql: SELECT pg_sleep(60)
  vacuum:
    weekly: {on: [sun], at: "03:00"}
    sql: VACUUM things
    mode: direct
  later:
    after: [tidy]
    sql: SELECT 1
  hello:
    schedule: "0 0 29 2 *"
    http: {url: "https://app.test/hello", token: {secret: hook}, body: {a: 1}, timeout: 5s}
  mail:
    schedule: "0 0 29 2 *"
    handler: mail.send
    payload: {to: all}
"""


@pytest.fixture
def project(cli: Cli, database: Database) -> Cli:
    """A folder with jobs for the database, where nothing fires by itself, and a table of three old things."""
    write(cli, database)
    database.connect().execute("CREATE TABLE things (old boolean)")
    database.connect().execute("INSERT INTO things SELECT true FROM generate_series(1, 3)")
    return cli


def write(cli: Cli, database: Database, *, runtime: str = "false", jobs: str = JOBS) -> None:
    """Write the configuration and the spec file."""
    (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=database.dsn, runtime=runtime))
    (cli.directory / "jobs.d").mkdir(exist_ok=True)
    (cli.directory / "jobs.d" / "shop.yaml").write_text(jobs)


def check(result: CliResult, exit_code: int, *texts: str) -> None:
    """Check an outcome: its code, its words on either stream, and that no traceback is shown."""
    output = result.stdout + result.stderr
    assert result.exit_code == exit_code, result
    assert "Traceback" not in output
    for text in texts:
        assert text in output, output


def apply(project: Cli) -> None:
    """Apply the files."""
    applied = project("apply", "--yes", env={"HOOK": "sesame-canary"})
    assert applied.exit_code == 0, applied


def log(database: Database, name: str) -> list[tuple[int, str]]:
    """Return id and status of a job's runs, oldest first."""
    query = "SELECT id, status FROM reconciler.cron_execution_log WHERE job_name = %s ORDER BY id"
    return database.connect().execute(query, [name]).fetchall()


def find_running(database: Database, name: str) -> int:
    """Wait until a run of a job goes on, and return its id."""
    wait_until(
        lambda: any(status == "running" for _, status in log(database, name)),
        seconds=30,
        what=f"{name} runs",
    )
    return next(run for run, status in log(database, name) if status == "running")


@contextmanager
def started(cli: Cli, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command and leave it running; killed at the end where it still is."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("RECONCILER_", "PG"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "reconciler", *args],
        cwd=cli.directory,
        env=outside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.firing
def test_from_declaration_to_a_run_by_pg_cron(project: Cli, database: Database) -> None:
    """Declared, applied and asked for, a job is run by the runner that the tool declares, and followed."""
    if database.server.pg_cron < (1, 5, 0):
        pytest.skip("a runner every second needs pg_cron 1.5")
    write(project, database, runtime="{every: 1s}")
    apply(project)
    done = project("run", "tidy", "--wait", "--timeout", "30s")
    check(done, 0, "Requested tidy", "a runner takes it within 1 s", "succeeded in", "1 row")
    assert database.connect().execute("SELECT old FROM things").fetchall() == [(False,)]
    failed = project("run", "broken", "--wait", "--timeout", "30s")
    check(failed, 1, "failed in", "division by zero (SQLSTATE 22012)", "Attempt 2 is due")
    assert "division by zero" in failed.stderr
    late = project("run", "slow", "--wait", "--timeout", "4s")
    run = find_running(database, "slow")
    check(late, 1, f"Run {run} still goes on", f"reconciler cancel {run}")
    busy = project("run", "tidy", "--wait", "--timeout", "1s")
    check(busy, 1, "No runner took request", "reconciler runs --status running")
    check(project("run", "slow", "--here"), 1, "skipped", "already running in backend")
    check(project("cancel", str(run), "--wait"), 0, f"Told run {run} of slow to end", "cancelled")
    check(project("status"), 0, "tick ", "1 failing")
    check(project("doctor"), 0, "Nothing found.")


def test_a_request_that_nobody_takes(project: Cli, database: Database) -> None:
    """Without a runner the request waits, the reason and the way out are told, and --wait ends in time."""
    apply(project)
    check(project("run", "tidy"), 0, "Requested tidy", "Nobody takes it", "runtime is false for test")
    late = project("run", "tidy", "--wait", "--timeout", "1s")
    check(late, 1, "No runner took request 1 in time", "It still waits")
    assert log(database, "tidy") == []
    with started(project, "run", "tidy", "--wait") as process:
        assert process.stdout is not None
        assert "request 1" in process.stdout.readline()
        database.connect().execute("CALL reconciler.runner()")
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "succeeded in" in output
    write(project, database, runtime="{every: 30s}")
    check(project("run", "tidy"), 0, "Nobody takes it", "reconciler apply declares one")


def test_a_request_that_is_withdrawn(project: Cli, database: Database) -> None:
    """A request goes with its job, and whoever waits for it is told."""
    apply(project)
    with started(project, "run", "tidy", "--wait") as process:
        assert process.stdout is not None
        process.stdout.readline()
        database.connect().execute("DELETE FROM reconciler.starts")
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was withdrawn" in errors


def test_stopping_to_wait_stops_nothing(project: Cli, database: Database) -> None:
    """Ctrl-C while waiting leaves request and run as they are, and says so."""
    apply(project)
    with started(project, "run", "slow", "--wait") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Request 1 stays" in errors
    assert database.connect().execute("SELECT count(*) FROM reconciler.starts").fetchone() == (1,)


def test_running_here(project: Cli, database: Database) -> None:
    """A job runs at once in our own connection; its outcome is the exit code."""
    apply(project)
    check(project("run", "tidy", "--here"), 0, "Running tidy here, as postgres", "Run 1: succeeded in")
    check(project("run", "broken", "--here"), 1, "Run 2: failed", "division by zero")
    assert database.connect().execute("SELECT old FROM things").fetchall() == [(False,)]
    database.connect().execute("CREATE ROLE alice LOGIN")
    write(project, database, jobs=JOBS.replace("  tidy:\n", "  tidy:\n    role: alice\n"))
    apply(project)
    check(project("run", "tidy", "--here"), 1, "tidy runs as the role alice", "--dsn")


def test_ctrl_c_cancels_the_run_here(project: Cli, database: Database) -> None:
    """An interrupt ends the run as cancelled, within moments."""
    apply(project)
    with started(project, "run", "slow", "--here") as process:
        run = find_running(database, "slow")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"Run {run}: cancelled" in output
    assert "Traceback" not in errors
    assert log(database, "slow") == [(run, "cancelled")]


def test_dry_run_before_anything_is_applied(project: Cli, database: Database) -> None:
    """What the files declare is executed with its plans, and nothing is left of it, not even a log."""
    done = project("run", "tidy", "--dry-run")
    check(done, 0, "jobs.d/shop.yaml:2", "as the role postgres", "1. DELETE  3 rows", "2. INSERT  1 row")
    check(done, 0, "Delete on things", "Seq Scan on things", "What no rollback undoes", "nothing was changed")
    conn = database.connect()
    assert conn.execute("SELECT count(*) FROM things WHERE old").fetchone() == (3,)
    assert conn.execute("SELECT to_regnamespace('reconciler')").fetchone() == (None,)
    check(project("run", "broken", "--dry-run"), 1, "division by zero", "nothing was changed")
    check(project("run", "vacuum", "--dry-run"), 1, "VACUUM cannot run inside a transaction block")


def test_dry_run_of_what_is_sent(project: Cli) -> None:
    """A request and a queued job are shown, with the token's name alone."""
    (project.directory / "reconciler.yaml").write_text(
        CONFIG.format(dsn="host=127.0.0.1 port=1", runtime="{}")
    )
    request = project("run", "hello", "--dry-run", env={"HOOK": "sesame-canary"})
    check(request, 0, "POST https://app.test/hello", "Bearer *** (the secret hook)", '"a": 1', "within 5s")
    assert "sesame" not in request.stdout
    check(project("run", "mail", "--dry-run"), 0, "mail.send", "default", '{"to": "all"}')


def test_dry_run_of_what_was_applied(project: Cli, database: Database) -> None:
    """With --applied the target's text counts, otherwise that of the files."""
    apply(project)
    write(project, database, jobs=JOBS.replace("DELETE FROM things WHERE old;", "SELECT 1;"))
    check(project("run", "tidy", "--dry-run"), 0, "1. SELECT  1 row")
    check(project("run", "tidy", "--dry-run", "--applied"), 0, "as last applied", "1. DELETE  3 rows")
    assert log(database, "tidy") == []


def test_runs(project: Cli) -> None:
    """Runs are listed, chosen, and shown in full."""
    check(project("runs"), 1, "nothing was applied")
    apply(project)
    check(project("runs"), 0, "No runs yet.")
    project("run", "tidy", "--here")
    project("run", "broken", "--here")
    listed = project("runs").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["run", "job"], ["2", "broken"], ["1", "tidy"]]
    check(project("runs", "--status", "succeeded", "--since", "1h"), 0, "tidy")
    assert "broken" not in project("runs", "--status", "succeeded", "--since", "1h").stdout
    check(project("runs", "tidy", "--status", "lost"), 0, "No such runs.")
    check(
        project("runs", "--id", "2"), 0, "Run 2 of broken", "SQLSTATE 22012", "SELECT 1/0", "Attempt 2 is due"
    )
    runs = json.loads(project("runs", "--json").stdout)
    assert [list(run) for run in runs] == [RUN_KEYS, RUN_KEYS]
    run = json.loads(project("runs", "--id", "2", "--json").stdout)
    assert list(run)[: len(RUN_KEYS)] == RUN_KEYS
    assert (run["status"], run["waiting"][0]["attempt"]) == ("failed", 2)


RUN_KEYS = [
    *("id", "source", "name", "run_at", "completed_at", "duration_seconds", "status", "trigger", "attempt"),
    *("chain_id", "rows_affected", "error_message", "error_sqlstate", "role", "backend_pid", "note"),
]


def test_status(project: Cli, database: Database) -> None:
    """Each job shows its state, its schedule, its last runs and the next one."""
    check(project("status"), 0, "Nothing was applied")
    apply(project)
    project("run", "broken", "--here")
    project("run", "tidy", "--here")
    project("pause", "mail", "--until", "2099-01-01T00:00Z")
    shown = project("status").stdout
    assert shown.startswith("7 jobs; 1 failing; 1 paused; launcher alive; no tick; 0 deliveries waiting\n")
    rows = {line.split()[0]: line for line in shown.splitlines()[2:]}
    assert "failing x1" in rows["broken"]
    assert "failed: division by zero" in rows["broken"]
    assert "paused until 2099-01-01 00:00:00Z" in rows["mail"]
    assert "no entry" in rows["hello"]
    assert "after tidy" in rows["later"]
    assert "ago, succeeded" in rows["tidy"] or "now, succeeded" in rows["tidy"]
    assert shown.isascii()
    assert [line.split()[0] for line in project("status", "--failing").stdout.splitlines()[3:]] == ["broken"]
    assert [line.split()[0] for line in project("status", "tidy").stdout.splitlines()[3:]] == ["tidy"]
    check(project("status", "tidi"), 1, "no job tidi", "did you mean tidy?")
    database.connect().execute("SELECT cron.unschedule('vacuum')")
    check(project("status", "--failing"), 0, "entry missing")


def test_status_json_is_stable(project: Cli) -> None:
    """The keys and their order are what is documented; nothing applied is an empty list."""
    assert json.loads(project("status", "--json").stdout) == []
    apply(project)
    project("run", "tidy", "--here")
    jobs = {job["name"]: job for job in json.loads(project("status", "--json").stdout)}
    assert {tuple(job) for job in jobs.values()} == {STATUS_KEYS}
    assert jobs["tidy"]["state"] == "ok"
    assert jobs["tidy"]["next_run_at"].endswith("-02-29T00:00:00+00:00")
    (run,) = jobs["tidy"]["recent_runs"]
    assert run["status"] == "succeeded"
    assert run["duration_seconds"] == jobs["tidy"]["last_duration_seconds"]


STATUS_KEYS = (
    *("name", "kind", "owner", "scheduled", "schedule", "active", "last_status", "last_run_at", "last_error"),
    *("last_duration_seconds", "next_run_at", "state", "after", "once_at", "consecutive_failures"),
    *("running_since", "paused", "paused_until", "pause_reason", "paused_by", "retired_until", "open_alerts"),
    "recent_runs",
)


def test_the_tools_own_entries_are_hidden(project: Cli, database: Database) -> None:
    """They are no jobs of anybody's, and shown on demand."""
    write(project, database, runtime="{every: 59s}")
    apply(project)
    assert "reconciler-" not in project("status").stdout
    check(project("status"), 0, "7 jobs", "tick not seen yet")
    check(project("status", "--all"), 0, "reconciler-tick", "reconciler-runner")
    check(project("status", "reconciler-tick"), 0, "reconciler-tick")


@pytest.mark.parametrize(
    "command",
    [("status",), ("runs",), ("run", "tidy"), ("pause", "tidy"), ("resume", "tidy"), ("cancel", "1")],
)
def test_a_schema_of_an_earlier_release(project: Cli, database: Database, command: tuple[str, ...]) -> None:
    """Every command says that the schema has to be migrated, and nothing breaks."""
    conn = database.connect()
    for migration in load_migrations()[:2]:
        conn.execute(migration.text)
    check(project(*command), 1, "of an earlier release", "run reconciler migrate")


def test_pause_and_resume(project: Cli, database: Database) -> None:
    """A paused job skips its runs with the reason, and runs again when it is resumed."""
    apply(project)
    check(project("pause", "tidy", "slow", "--for", "2h", "--why", "moving"), 0, "Paused tidy until 2")
    conn = database.connect()
    conn.execute("CALL reconciler.run_job('tidy', 'schedule')")
    check(project("runs", "tidy"), 0, "skipped", "by postgres: moving")
    check(project("plan", "--exit-code"), 0)
    check(project("resume", "tidy", "slow", "later"), 0, "Resumed tidy.", "later was not paused.")
    check(project("pause", "tidy"), 0, "Paused tidy until reconciler resume tidy.")
    assert conn.execute("SELECT job_name, until FROM reconciler.pauses").fetchall() == [("tidy", None)]


def test_pausing_refuses_before_it_does_anything(project: Cli, database: Database) -> None:
    """With one wrong name or a direct job among them, no job is paused."""
    apply(project)
    check(
        project("pause", "tidy", "slwo", "nothing-like-it"),
        1,
        "no job slwo, nothing-like-it",
        "slow for slwo",
    )
    check(project("pause", "tidy", "vacuum"), 1, "vacuum is handed to pg_cron as it is", "active: false")
    assert database.connect().execute("SELECT count(*) FROM reconciler.pauses").fetchone() == (0,)


def test_cancel(project: Cli, database: Database) -> None:
    """A run that goes on is ended, one that is over is left, and an unknown one stops the command first."""
    apply(project)
    project("run", "tidy", "--here")
    with started(project, "run", "slow", "--here") as process:
        run = find_running(database, "slow")
        check(project("cancel", str(run), "99"), 1, "there is no run 99")
        assert log(database, "slow") == [(run, "running")]
        done = project("cancel", "1", str(run), "--wait")
        check(done, 0, "Run 1 of tidy is over already: succeeded.", f"Run {run}: cancelled in")
        assert process.wait(timeout=10) == 1
    check(project("runs", "--id", str(run)), 0, "stopped   cancelled by postgres")


def test_doctor_tells_of_the_runtime(project: Cli, database: Database) -> None:
    """A start that nobody takes is an error of doctor's."""
    apply(project)
    check(project("doctor"), 0, "Nothing found.")
    project("run", "tidy")
    database.connect().execute("UPDATE reconciler.starts SET due_at = now() - interval '1 hour'")
    check(project("doctor"), 1, "overdue_starts", "1 start, due for up to 60 minutes: tidy")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), "NAME"),
        (("run", "tidy", "--wait", "--here"), "three ways"),
        (("run", "tidy", "--timeout", "5m"), "--wait"),
        (("run", "tidy", "--wait", "--timeout", "soon"), "is no duration"),
        (("run", "tidy", "--applied"), "--dry-run"),
        (("runs", "--status", "good"), "timed_out"),
        (("runs", "--since", "-1"), "is no duration"),
        (("runs", "--limit", "0"), "--limit"),
        (("runs", "--id", "x"), "is no run"),
        (("runs", "tidy", "--id", "1"), "leave NAME"),
        (("pause",), "NAME"),
        (("pause", "tidy", "--for", "2h", "--until", "2099-01-01T00:00Z"), "give one of them"),
        (("pause", "tidy", "--for", "2 hours"), "is no duration"),
        (("pause", "tidy", "--until", "2020-01-01T00:00Z"), "a pause ends in the future"),
        (("pause", "tidy", "--until", "2099-01-01T00:00"), "offset"),
        (("pause", "tidy", "--until", "0001-01-01T00:00+14:00"), "is no instant"),
        (("cancel",), "RUN"),
        (("cancel", "x"), "RUN"),
        (("cancel", "99999999999999999999"), "RUN"),
        (("cancel", "1", "--timeout", "5s"), "--wait"),
    ],
)
def test_wrong_usage(cli: Cli, args: tuple[str, ...], words: str) -> None:
    """Wrong options are told in words with exit code 2, before anything is read or connected to."""
    check(cli(*args), 2, words)


def test_wrong_names(project: Cli) -> None:
    """Names and numbers that are not there are told with the nearest right ones, by every command."""
    apply(project)
    check(project("run", "nope"), 1, "no job nope on the target", "reconciler status --all")
    check(project("run", "tdiy"), 1, "no job tdiy on the target", "did you mean tidy?")
    check(project("run", "vacuum"), 1, "handed to pg_cron as it is")
    check(project("run", "tdiy", "--dry-run"), 1, "the files declare no job tdiy", "did you mean tidy?")
    check(project("run", "nope", "--dry-run"), 1, "--applied takes what is on the target")
    check(project("run", "nope", "--dry-run", "--applied"), 1, "no job nope on the target")
    check(project("runs", "tdiy"), 1, "did you mean tidy?")
    check(project("runs", "--id", "77"), 1, "there is no run 77")
    check(project("runs", "--id", "c77"), 1, "there is no run c77")
    check(project("resume", "tdiy"), 1, "did you mean tidy?")
    check(project("cancel", "77", "78"), 1, "there is no run 77, 78")
