"""Rounds of `drift --watch` and `reconcile` on a real database: what each of them does and tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.cli.drift_looks import DriftWatch
from reconciler.cli.planning import make_request
from reconciler.cli.reconciling import Rounds
from reconciler.cli.session import open_session
from reconciler.cli.watching import Journal, connect_warily
from reconciler.database.migrate import take_apply_lock
from reconciler.errors import ApplyLockError, ConnectError, InvalidInputError, ReconcilerError
from tests.integration.test_apply_rights import PLAIN
from tests.servers import Database, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reconciler.cli.session import Session

pytestmark = pytest.mark.one_server

CONFIG = "owner: shop\ntargets:\n  test: {{dsn: '{dsn}', prune: {prune}, runtime: false{more}}}\n"
JOBS = """\
jobs:
  tidy: {schedule: "0 0 29 2 *", sql: SELECT 1}
  count: {schedule: "0 0 29 2 *", sql: SELECT 2}
"""
DRIFT: LiteralString = "UPDATE cron.job SET active = false WHERE jobname = 'tidy'"
REVISIONS: LiteralString = "SELECT actor, changes -> 0 ->> 'name' FROM reconciler.revisions ORDER BY id"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder of files for a database."""

    folder: Path
    database: Database

    def configure(self, *, prune: str = "auto", more: str = "", dsn: str = "") -> None:
        """Write the configuration."""
        text = CONFIG.format(dsn=dsn or self.database.dsn, prune=prune, more=more)
        (self.folder / "reconciler.yaml").write_text(text)

    def declare(self, text: str) -> None:
        """Write the only spec file."""
        (self.folder / "jobs.d" / "shop.yaml").write_text(text)

    def open_session(self) -> Session:
        """Read the configuration."""
        return open_session(self.folder / "reconciler.yaml", None)

    def rounds(self, *, as_json: bool = False) -> Rounds:
        """Make the rounds of `reconcile`; files settle at once."""
        journal = Journal("test", as_json=as_json)
        return Rounds(open_session=self.open_session, journal=journal, settle=0)

    def watch(self, *, as_json: bool = False, tell: bool = False) -> DriftWatch:
        """Make the looks of `drift --watch`."""
        return DriftWatch(
            open_session=self.open_session,
            make_request=make_request,
            connect=connect_warily,
            journal=Journal("test", as_json=as_json),
            tell=tell,
        )

    def run(self, statement: LiteralString) -> None:
        """Do something by hand."""
        self.database.connect().execute(statement)

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """Ask the database."""
        return self.database.connect().execute(query).fetchall()

    @contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command beside the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", *args],
            cwd=self.folder,
            env={**os.environ, "USER": "sam"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def project(tmp_path: Path, database: Database) -> Project:
    """Two jobs that nobody applied yet."""
    (tmp_path / "jobs.d").mkdir()
    made = Project(tmp_path, database)
    made.configure()
    made.declare(JOBS)
    return made


class Told:
    """What was printed since the last look, without the times."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self) -> list[str]:
        """Return the lines of standard output, then of standard error."""
        out, err = self._capsys.readouterr()
        return [line.partition("  test: ")[2] or line for line in (out + err).splitlines()]

    def documents(self) -> list[dict[str, Any]]:
        """Return the JSON documents."""
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """What was printed."""
    return Told(capsys)


def test_reconcile_applies_what_is_to_do_and_then_is_silent(project: Project, told: Told) -> None:
    """A revision for each apply; that nothing is to change is said once at the most."""
    rounds = project.rounds()
    assert rounds.turn() == 0
    (line,) = told()
    assert line.startswith("migrated 0001")
    assert line.endswith("applied revision 1: create count, tidy")
    assert (rounds.turn(), rounds.turn()) == (0, 0)
    assert told() == []
    project.declare(JOBS.replace("SELECT 2", "SELECT 3"))
    rounds.turn()
    project.run(DRIFT)
    rounds.turn()
    assert told() == ["applied revision 2: update count", "applied revision 3: update tidy"]
    assert project.rows("SELECT bool_and(active) FROM cron.job") == [(True,)]
    actors = {actor for actor, _ in project.rows(REVISIONS)}
    assert all(actor.startswith("reconcile") for actor in actors)
    assert project.rounds().turn() == 0
    assert told() == ["nothing to change: 2 resources are as declared"]


def test_reconcile_records_the_database_anew_after_pg_upgrade(project: Project) -> None:
    """A round that has nothing else to do is enough, as an apply is."""
    project.rounds().turn()
    project.run("UPDATE reconciler.identity SET system_identifier = 1, server_major = 1")
    assert project.rounds().turn() == 0
    assert project.rows("SELECT server_major > 1 FROM reconciler.identity") == [(True,)]


@pytest.mark.parametrize(("prune", "code"), [("auto", 0), ("confirm", 4), ("never", 0)])
def test_reconcile_deletes_under_prune_auto_alone(
    project: Project, told: Told, prune: str, code: int
) -> None:
    """Under confirm somebody is to look: nothing of the plan is done, and it is said once."""
    project.rounds().turn()
    told()
    project.configure(prune=prune)
    project.declare("jobs:\n  tidy: {schedule: '1 0 29 2 *', sql: SELECT 1}\n")
    rounds = project.rounds()
    assert (rounds.turn(), rounds.turn()) == (code, code)
    names = [name for (name,) in project.rows("SELECT jobname FROM cron.job ORDER BY 1")]
    assert names == (["tidy"] if prune == "auto" else ["count", "tidy"])
    schedules = project.rows("SELECT schedule FROM cron.job WHERE jobname = 'tidy'")
    assert schedules == [("0 0 29 2 *" if code else "1 0 29 2 *",)]
    lines = told()
    assert len(lines) == 1
    assert lines[0].startswith("refused: nothing was changed: the plan deletes 1" if code else "applied")


def test_reconcile_keeps_within_the_limits_of_deletions(project: Project, told: Told) -> None:
    """More than limits.deletes is refused as a whole, until the files are right again."""
    project.declare("jobs:\n" + "".join(f"  j{n}: {{every: 1h, sql: SELECT 1}}\n" for n in range(8)))
    rounds = project.rounds()
    rounds.turn()
    project.declare("jobs:\n  j0: {every: 1h, sql: SELECT 1}\n")
    assert rounds.turn() == 4
    assert project.rows("SELECT count(*) FROM cron.job") == [(8,)]
    assert "more than limits.deletes (5)" in told()[-1]


def test_reconcile_waits_for_a_window(project: Project, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so once with what waits, though the reason tells the time, and applies when it is over."""
    minutes = count()
    monkeypatch.setattr(
        "reconciler.cli.watching.describe_error", lambda error: f"{error.message} {next(minutes)}"
    )
    project.rounds().turn()
    told()
    freeze = "{first: 2020-01-01, last: 2090-01-01, because: Audit}"
    project.configure(more=f", windows: {{apply: {{freeze: [{freeze}]}}}}")
    project.declare(JOBS.replace("SELECT 2", "SELECT 3"))
    rounds = project.rounds(as_json=True)
    assert (rounds.turn(), rounds.turn()) == (4, 4)
    (document,) = told.documents()
    assert (document["event"], document["waiting"]) == ("closed", ["count"])
    assert "Audit" in document["message"]
    project.configure()
    assert rounds.turn() == 0
    (document,) = told.documents()
    assert (document["event"], document["revision"]) == ("applied", 2)
    assert document["changes"] == [{"action": "update", "kind": "job", "name": "count", "reason": "edited"}]


def test_reconcile_leaves_what_nobody_may_take_over(project: Project, told: Told) -> None:
    """An entry of this name that differs is refused, and stays as it is."""
    project.run("SELECT cron.schedule('tidy', '5 5 29 2 *', 'SELECT 5')")
    assert project.rounds().turn() == 4
    assert project.rows("SELECT command FROM cron.job") == [("SELECT 5",)]
    assert told()[0].startswith("refused: ")


def test_reconcile_applies_nothing_while_the_files_change(
    project: Project, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is away for a moment is no reason to delete what it declares."""
    rounds = project.rounds()
    rounds.turn()
    project.declare("jobs:\n  tidy: {schedule: '0 0 29 2 *', sql: SELECT 1}\n")
    monkeypatch.setattr("reconciler.cli.reconciling.time.sleep", lambda _: project.declare(JOBS))
    with pytest.raises(ReconcilerError, match="changed while they were read"):
        rounds.turn()
    monkeypatch.undo()
    project.declare("jobs:\n  tidy: {schedule: '0 0 29 2 *', sql: SELECT 1}\n")
    (project.folder / ".git").mkdir()
    lock = project.folder / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(ReconcilerError, match="git is changing the files"):
        rounds.turn()
    assert project.rows("SELECT count(*) FROM cron.job") == [(2,)]
    lock.unlink()
    assert rounds.turn() == 0
    assert told()[-1] == "applied revision 2: delete count"


def test_reconcile_gives_way_to_another_apply(project: Project) -> None:
    """Where another one holds the lock, the round fails and the next one tries again."""
    rounds = project.rounds()
    rounds.turn()
    project.run(DRIFT)
    with project.database.server.connect() as other:
        other.execute("BEGIN")
        take_apply_lock(other)
        with pytest.raises(ApplyLockError):
            rounds.turn()
        other.execute("ROLLBACK")
    assert rounds.turn() == 0


def test_reconcile_tells_once_what_the_role_may_not_do(project: Project, told: Told) -> None:
    """The rest is done; what is left is no reason for a revision each round."""
    project.run(PLAIN)
    project.configure(dsn=project.database.dsn_for("alice"))
    project.declare(JOBS.replace("SELECT 2", "SELECT 2, active: false"))
    rounds = project.rounds()
    assert (rounds.turn(), rounds.turn(), rounds.turn()) == (1, 1, 1)
    first, second = told()
    assert first.endswith("applied revision 1: create tidy")
    assert second == "not done, for lack of rights: count"


def test_watch_tells_when_drift_appears_changes_and_ends(project: Project, told: Told) -> None:
    """Once each, with what differs; edits of the files are none."""
    project.rounds().turn()
    told()
    watch = project.watch()
    watch.look()
    assert told() == ["no drift"]
    project.declare(JOBS.replace("SELECT 2", "SELECT 3"))
    watch.look()
    assert told() == []
    project.run(DRIFT)
    watch.look()
    watch.look()
    lines = told()
    assert lines[0] == "drift appeared: tidy (1 drift now)"
    assert lines[1].startswith("  ~ job tidy  (drifted, ")
    assert lines[2] == "      entry.active: false → true"
    project.run("UPDATE cron.job SET schedule = '7 7 29 2 *' WHERE jobname = 'tidy'")
    watch.look()
    assert told()[0] == "drift changed: tidy (1 drift now)"
    project.rounds().turn()
    told()
    watch.look()
    watch.look()
    assert told() == ["drift ended: tidy (no drift now)"]


def test_watch_prints_a_document_a_line(project: Project, told: Told) -> None:
    """With the names for programs, and each new change as in the JSON of a plan."""
    project.rounds().turn()
    project.run(DRIFT)
    told()
    watch = project.watch(as_json=True)
    watch.look()
    project.run("UPDATE cron.job SET active = true")
    watch.look()
    first, second = told.documents()
    assert (first["event"], first["target"], first["appeared"], first["drifting"]) == (
        "drift", "test", ["tidy"], ["tidy"],
    )  # fmt: skip
    assert first["at"].endswith("+00:00")
    assert first["changes"][0]["fields"] == [{"path": "entry.active", "before": False, "after": True}]
    assert (second["ended"], second["drifting"], second["changes"]) == (["tidy"], [], [])


def test_watch_compares_nothing_while_a_file_is_wrong(project: Project, told: Told) -> None:
    """Each round says so, and what was known before counts on when it is right again."""
    project.rounds().turn()
    project.run(DRIFT)
    watch = project.watch()
    watch.look()
    told()
    project.declare("jobs: [")
    with pytest.raises(InvalidInputError) as raised:
        watch.look()
    for _ in range(2):
        watch.journal.complain(raised.value, timedelta(seconds=7))
    (line,) = told()
    assert "shop.yaml:" in line
    assert line.endswith("(the next try comes in 7 s)")
    project.declare(JOBS)
    watch.look()
    watch.look()
    assert told() == ["looks again: 1 drift: tidy"]
    watch.journal.beat(12)
    assert told() == ["alive after 12 rounds: looks again: 1 drift: tidy"]


def test_watch_loses_the_database_and_comes_back(project: Project) -> None:
    """A server that is away is an error of the round, and what drifted stays known."""
    project.rounds().turn()
    project.run(DRIFT)
    watch = project.watch()
    watch.look()
    project.configure(dsn="host=127.0.0.1 port=9 dbname=x")
    with pytest.raises(ConnectError):
        watch.look()
    assert watch.known is not None
    assert [change.name for change in watch.known] == ["tidy"]


def test_watch_opens_one_alert_and_tells_of_its_end(project: Project) -> None:
    """Seen twice it is told once; when it is over, those who want recoveries hear of it."""
    (project.folder / "url").write_text("json://localhost")
    with (project.folder / "reconciler.yaml").open("a") as file:
        file.write("secrets: {ops: {file: url}}\n")
    project.declare(
        "defaults: {alert: {channels: [ops], on: [drift]}}\njobs:\n"
        "  tidy: {schedule: '0 0 29 2 *', sql: SELECT 1, alert: {channels: [ops], on: [drift, recovered]}}\n"
        "  count: {schedule: '0 0 29 2 *', sql: SELECT 1}\n"
        "channels: {ops: {url: {secret: ops}}}\n"
    )
    project.rounds().turn()
    watch = project.watch(tell=True)
    project.run("UPDATE cron.job SET active = false")
    watch.look()
    watch.look()
    alerts: LiteralString = (
        "SELECT a.job_name, a.kind, a.occurrences, a.resolved_at IS NULL, count(d)"
        "  FROM reconciler.alerts a LEFT JOIN reconciler.alert_deliveries d ON d.alert_id = a.id"
        " GROUP BY a.id ORDER BY a.id"
    )
    assert project.rows(alerts) == [("count", "drift", 2, True, 1), ("tidy", "drift", 2, True, 1)]
    project.run("UPDATE cron.job SET active = true")
    watch.look()
    watch.look()
    assert project.rows(alerts) == [
        ("count", "drift", 2, False, 1),
        ("tidy", "drift", 2, False, 1),
        ("tidy", "recovered", 1, False, 1),
    ]
    told = project.rows("SELECT message FROM reconciler.alerts WHERE kind = 'recovered'")
    assert told[0][0].startswith("tidy is as declared again (drift since 2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_watch_at_once(project: Project, number: signal.Signals) -> None:
    """With exit code 0 and nothing on standard error, in the middle of a long wait."""
    project.rounds().turn()
    with project.running("drift", "--watch", "--interval", "1h") as process:
        assert process.stdout is not None
        assert "no drift" in process.stdout.readline()
        began = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert time.monotonic() - began < 5


def test_reconcile_ends_after_the_apply_that_goes_on(project: Project) -> None:
    """A signal in the middle of it lets it come to its end, which is told; then the process ends."""
    project.rounds().turn()
    project.run(DRIFT)
    waiting: LiteralString = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'reconciler' AND wait_event_type = 'Lock'"
    )
    watcher = project.database.connect()
    with (
        psycopg.connect(project.database.dsn) as other,
        project.running("reconcile", "--interval", "5s", "--format", "json") as process,
    ):
        other.execute("SELECT FROM cron.job WHERE jobname = 'tidy' FOR UPDATE")
        wait_until(lambda: watcher.execute(waiting).fetchone() == (1,), seconds=30, what="the apply to wait")
        process.send_signal(signal.SIGTERM)
        threading.Timer(0.5, other.rollback).start()
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["applied"]
    assert project.rows(REVISIONS)[1:] == [("reconcile (sam)", "tidy")]


def test_one_round_has_the_exit_code_of_apply(project: Project) -> None:
    """Done, then refused."""
    for text, code, event in (
        (JOBS, 0, "applied"),
        ("jobs: {tidy: {every: 1h, sql: SELECT 1}}\n", 4, "refused"),
    ):
        project.configure(prune="confirm")
        project.declare(text)
        with project.running("reconcile", "--once", "--format", "json") as process:
            out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (code, "")
        assert json.loads(out)["event"] == event


def test_usage(cli: Any) -> None:
    """What does not go together, or is too quick, is said before anything is read."""
    for args, words in (
        (["drift", "--interval", "1m"], "--interval goes with --watch"),
        (["drift", "--watch", "--interval", "4s"], "too short: at least 5s"),
        (["drift", "--watch", "--exit-code"], "not for --watch"),
        (["drift", "--watch", "--format", "markdown"], "not for --watch"),
        (["reconcile", "--interval", "soon"], "no duration"),
        (["reconcile", "--once", "--interval", "1m"], "--once is one"),
    ):
        result = cli(*args)
        assert result.exit_code == 2, args
        assert words in result.stderr


@pytest.mark.slow
def test_a_watch_outlives_its_server(project: Project) -> None:
    """One line says that the server is away, however often it is tried; then it looks again."""
    project.rounds().turn()
    with project.running("drift", "--watch", "--interval", "5s") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "no drift" in process.stdout.readline()
        server = project.database.server
        server.stop(immediate=True)
        assert "cannot connect to " in process.stderr.readline()
        time.sleep(6)
        server.start()
        assert "looks again: no drift" in process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
