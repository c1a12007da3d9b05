"""The commands `alerts list|test|deliver` against real servers and a real HTTP endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import pytest

from tests.endpoint import Endpoint, run_endpoint
from tests.servers import Database, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli, CliResult

pytestmark = pytest.mark.one_server

CONFIG = """\
owner: shop
targets:
  test: {{dsn: "{dsn}", runtime: false}}
secrets:
  ops: {{env: OPS_URL}}
  mail: {{file: mail.secret}}
"""
JOBS = """\
jobs:
  tidy: {schedule: "0 3 * * *", sql: SELECT 1/0, alert: {channels: [ops, mail]}}
channels:
  ops: {url: {secret: ops}}
  mail: {url: {secret: mail}}
"""
ROWS: LiteralString = "SELECT channel, status, attempts FROM reconciler.alert_deliveries ORDER BY id"


@dataclass(frozen=True, slots=True)
class Shop:
    """A project that was applied, and the service that its channels lead to."""

    cli: Cli
    database: Database
    endpoint: Endpoint

    @property
    def env(self) -> dict[str, str]:
        """Return the environment with the address of the channel ops."""
        return {"OPS_URL": self.endpoint.address("ops", "?rto=30")}

    def __call__(self, *args: str) -> CliResult:
        """Run `reconciler alerts …`."""
        return self.cli("alerts", *args, env=self.env)

    def alert(self, *channels: str, kind: str = "failed", message: str = "tidy failed: no") -> None:
        """Put an open alert of the job tidy into the outbox, as a failed run does."""
        self.database.connect().execute(
            "SELECT reconciler.open_alert('tidy', %s, NULL, %s, '{}', %s, '1 day')",
            (kind, message, list(channels)),
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """Return channel, status and attempts of each message."""
        return self.database.connect().execute(ROWS).fetchall()

    @contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run `reconciler alerts …` beside the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "reconciler", "alerts", *args],
            cwd=self.cli.directory,
            env={**os.environ, **self.env},
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
def shop(cli: Cli, database: Database) -> Iterator[Shop]:
    """Two channels and a job, applied."""
    with run_endpoint() as endpoint:
        (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=database.dsn))
        (cli.directory / "jobs.d").mkdir()
        (cli.directory / "jobs.d" / "shop.yaml").write_text(JOBS)
        (cli.directory / "mail.secret").write_text(endpoint.address("mail") + "\n")
        applied = cli("apply", "--yes")
        assert applied.exit_code == 0, applied.stderr
        yield Shop(cli, database, endpoint)


def test_alerts_are_delivered_and_listed(shop: Shop) -> None:
    """What is due goes out to both channels, once; the list tells when."""
    assert shop("deliver").stdout == "Nothing to deliver.\n"
    assert shop("list").stdout == "No open alerts.\n"
    shop.alert("ops", "mail")
    assert "ops: waiting to be sent" in shop("list").stdout
    delivered = shop("deliver")
    assert (delivered.exit_code, delivered.stderr) == (0, "")
    assert sorted(delivered.stdout.splitlines()) == [
        "sent     mail: failed tidy",
        "sent     ops: failed tidy",
    ]
    assert shop("deliver").stdout == "Nothing to deliver.\n"
    assert [shop.endpoint.count(name) for name in ("ops", "mail")] == [1, 1]
    listed = shop("list").stdout
    assert "failed tidy  (open)\n  tidy failed: no\n" in listed
    assert "  ops: sent 2" in listed


def test_a_failure_is_told_with_its_reason_and_the_next_try(shop: Shop) -> None:
    """Exit code 1; the other channel has got its message; the list says the same as the command."""
    shop.endpoint.answers["mail"] = 503
    shop.alert("ops", "mail")
    result = shop("deliver")
    assert result.exit_code == 1
    assert "sent     ops: failed tidy\n" in result.stdout
    assert "not sent mail: failed tidy: Failed to send" in result.stdout
    assert "503" in result.stdout
    assert "(again at 2" in result.stdout
    assert "mail: not sent in 1 try, again at 2" in shop("list").stdout


def test_what_was_given_up_stays_listed(shop: Shop) -> None:
    """After twenty tries the list says so, also when the alert is over."""
    shop.endpoint.answers["ops"] = 500
    shop.alert("ops")
    shop.database.connect().execute(
        "UPDATE reconciler.alert_deliveries SET attempts = 19;"
        "UPDATE reconciler.alerts SET resolved_at = now()"
    )
    result = shop("deliver")
    assert (result.exit_code, "(after 20 tries)" in result.stdout) == (1, True)
    assert "ops: gave up after 20 tries: Failed to send" in shop("list").stdout


def test_a_test_message_is_sent_now(shop: Shop) -> None:
    """It arrives; where it cannot, the exit code is 1 and the reason is told."""
    assert shop("test", "ops").stdout == "Sent a test message to ops.\n"
    assert shop.endpoint.get("ops")[0]["title"] == "[test] Test of ops"
    (shop.cli.directory / "mail.secret").unlink()
    failed = shop("test", "mail")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Not sent to mail: the secret mail has no value: ")
    unknown = shop("test", "obs")
    assert unknown.exit_code == 1
    assert "there is no channel obs on the target\n  did you mean ops?" in unknown.stderr
    assert [row[1] for row in shop.rows()] == ["sent", "failed"]


def test_a_test_of_a_channel_of_the_database_is_queued(shop: Shop) -> None:
    """This process does not send what the database sends."""
    shop.database.connect().execute(
        'UPDATE reconciler.definitions SET spec = \'{"deliver": "database", "url": {"secret": "ops"}}\''
        " WHERE name = 'ops'"
    )
    assert "Queued for ops, which the database serves" in shop("test", "ops").stdout
    assert shop.rows() == [("ops", "pending", 0)]
    assert shop.endpoint.count("ops") == 0


def test_json_is_for_programs(shop: Shop) -> None:
    """The list is one array, a delivery one object a line; both hold all that the text says."""
    shop.endpoint.answers["mail"] = 500
    shop.alert("mail")
    line = json.loads(shop("deliver", "--json").stdout)
    assert (line["status"], line["channel"], line["attempts"]) == ("retry", "mail", 1)
    [alert] = json.loads(shop("list", "--json").stdout)
    assert (alert["job_name"], alert["kind"], alert["resolved_at"]) == ("tidy", "failed", None)
    assert [(one["channel"], one["last_error"]) for one in alert["deliveries"]] == [("mail", line["error"])]
    assert shop("deliver", "--json").stdout == ""


def test_a_deliverer_that_is_killed_loses_nothing(shop: Shop) -> None:
    """Killed between sending and writing it down, the message goes out again when the lease is over."""
    shop.endpoint.answers["ops"] = None
    shop.alert("ops")
    with shop.running("deliver") as process:
        wait_until(lambda: shop.endpoint.count("ops") == 1, seconds=20, what="the message is out")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    shop.endpoint.release.set()
    assert shop.rows() == [("ops", "pending", 1)]
    assert shop("deliver").stdout == "Nothing to deliver.\n"
    shop.database.connect().execute(
        "UPDATE reconciler.alert_deliveries SET claimed_until = claimed_until - interval '90 seconds'"
    )
    assert shop("deliver").stdout == "sent     ops: failed tidy\n"
    assert shop.endpoint.count("ops") == 2
    assert shop.rows() == [("ops", "sent", 2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_watching_delivers_at_once_and_ends_in_order(shop: Shop, number: signal.Signals) -> None:
    """A new alert wakes it before its next poll; a signal ends it with exit code 0 and no error."""
    with shop.running("deliver", "--watch") as process:
        listens: LiteralString = "SELECT FROM pg_stat_activity WHERE application_name = 'reconciler'"
        conn = shop.database.connect()
        wait_until(lambda: conn.execute(listens).rowcount == 1, seconds=20, what="it is connected")
        time.sleep(1)
        began = time.monotonic()
        shop.alert("ops")
        wait_until(lambda: shop.rows() == [("ops", "sent", 1)], seconds=9, what="the message is sent")
        assert time.monotonic() - began < 5
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
    assert (process.returncode, stdout, stderr) == (0, "sent     ops: failed tidy\n", "")


def test_nothing_was_applied_yet(cli: Cli, database: Database) -> None:
    """Each command says what to do first."""
    (cli.directory / "reconciler.yaml").write_text(CONFIG.format(dsn=database.dsn))
    (cli.directory / "jobs.d").mkdir()
    for args in (("list",), ("test", "ops"), ("deliver",), ("deliver", "--watch")):
        result = cli("alerts", *args)
        assert result.exit_code == 1
        assert "nothing was applied to this target yet" in result.stderr
        assert "run reconciler apply" in result.stderr


def test_the_library_is_asked_for_where_it_is_missing(shop: Shop) -> None:
    """Without apprise nothing is claimed; the command to install it is told, and the list still works."""
    shop.alert("ops")
    missing = shop.cli.directory / "apprise.py"
    missing.write_text("raise ImportError('not here')\n")
    env = {**shop.env, "PYTHONPATH": str(shop.cli.directory)}
    for args in (("deliver",), ("deliver", "--watch"), ("test", "ops")):
        result = shop.cli("alerts", *args, env=env)
        assert result.exit_code == 1
        assert 'pip install "reconciler[alerts]"' in result.stderr
    assert shop.cli("alerts", "list", env=env).exit_code == 0
    assert shop.rows() == [("ops", "pending", 0)]


def test_no_address_is_printed(shop: Shop) -> None:
    """Neither a refused nor an unreachable nor a senseless address appears in any output."""
    path = shop.cli.directory / "mail.secret"
    shop.endpoint.answers["CanaryPath"] = 500
    for number, address in enumerate(
        [
            f"json://CanaryUser:CanaryPass@127.0.0.1:{shop.endpoint.port}/CanaryPath",
            "json://canary.invalid:9/CanaryPath",
            "canary-no-address",
        ]
    ):
        path.write_text(address)
        shop.alert("mail", kind=["failed", "missed", "lost"][number])
        for args in (("deliver",), ("deliver", "--json"), ("test", "mail"), ("list", "--all")):
            result = shop(*args)
            assert "canary" not in (result.stdout + result.stderr).lower(), (args, result)
    assert [row[1] for row in shop.rows()].count("failed") == 3
