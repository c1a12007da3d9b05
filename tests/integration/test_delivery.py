"""Delivery of alerts: at least once, each channel for itself, over real HTTP and a real outbox."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from reconciler.core.config import Config, Secret
from reconciler.database.alerts import (
    MAX_ATTEMPTS,
    Delivery,
    claim_deliveries,
    find_channels,
    finish_failed,
    finish_retry,
    finish_sent,
    list_alerts,
    open_drift_alerts,
    put_test,
    require_outbox,
)
from reconciler.database.connect import connect
from reconciler.errors import MigrationError, RightsError
from reconciler.runtime.delivery import Deliverer, Outcome, deliver_due, send_test, watch
from reconciler.runtime.notifying import load_sender
from reconciler.runtime.secret_values import SecretStores
from tests.declared import OWNER, Site, channel, job
from tests.endpoint import Endpoint, run_endpoint
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.errors import ConnectError
    from tests.servers import Database

LEASE = timedelta(seconds=90)
ROWS: LiteralString = (
    "SELECT channel, status, attempts, last_error FROM reconciler.alert_deliveries ORDER BY id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A site with channels that lead to a local service.

    Attributes:
        site: The database.
        endpoint: The service.
        environment: The variables that hold the channels' addresses.
    """

    site: Site
    endpoint: Endpoint
    environment: dict[str, str] = field(default_factory=dict)

    def declare(self, *names: str, owner: str = OWNER, **fields: Any) -> None:
        """Apply channels, each with a path of its own as its address."""
        self.site.apply(*(channel(name, **fields) for name in names), owner=owner)
        for name in names:
            self.environment[variable(name)] = self.endpoint.address(name)

    def alert(self, *names: str, kind: str = "failed", job_name: str = "tidy", **fields: Any) -> int:
        """Put an alert with one message to each channel."""
        values = {"message": f"{job_name} {kind}", "run_id": None, "resolved_at": None, **fields}
        [(found,)] = self.site.rows(
            "INSERT INTO reconciler.alerts (job_name, kind, message, run_id, resolved_at)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING id",
            *(job_name, kind, values["message"], values["run_id"], values["resolved_at"]),
        )
        for name in names:
            self.site.run(
                "INSERT INTO reconciler.alert_deliveries (alert_id, channel) VALUES (%s, %s)",
                *(found, name),
            )
        return int(found)

    def deliverer(self, **options: Any) -> Deliverer:
        """Make what sends."""
        return Deliverer(
            **{
                "owner": OWNER,
                "target": "test",
                "stores": self.stores(),
                "sender": load_sender(),
                "chance": lambda: 0.0,
                **options,
            }
        )

    def stores(self) -> SecretStores:
        """Return where the addresses are: each in a variable named after its channel."""
        names = [name for (name,) in self.site.rows("SELECT name FROM reconciler.definitions")]
        secrets = {name: Secret(name=name, store="env", key=variable(name)) for name in names}
        config = Config(
            path="reconciler.yaml",
            owner=OWNER,
            jobs=(),
            targets={},
            default_target="test",
            secrets=secrets,
        )
        return SecretStores(config=config, environment=self.environment)

    def deliver(self, **options: Any) -> list[Outcome]:
        """Try everything that is due, and return what became of it."""
        outcomes: list[Outcome] = []
        with connect(self.site.dsn) as conn:
            deliver_due(self.deliverer(**options), conn, report=outcomes.append, is_stopping=lambda: False)
        return outcomes

    def make_due(self) -> None:
        """Let the time of all waits and leases be over."""
        self.site.run(
            "UPDATE reconciler.alert_deliveries SET due_at = now(),"
            " claimed_until = claimed_until - interval '1 hour' WHERE status = 'pending'"
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the outbox: channel, status, attempts and error of each message."""
        return self.site.rows(ROWS)


def variable(name: str) -> str:
    """Name the variable with a channel's address."""
    return f"{name.upper()}_URL"


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Return channel and status of each, sorted."""
    return sorted((outcome.delivery.channel, outcome.status) for outcome in outcomes)


@pytest.fixture
def post(database: Database) -> Iterator[Post]:
    """An empty database and a service."""
    with run_endpoint() as endpoint:
        yield Post(site=Site(database), endpoint=endpoint)


def test_a_message_is_delivered_once(post: Post) -> None:
    """It arrives with what, where and why; a second pass sends nothing."""
    post.declare("ops")
    [(run_id,)] = post.site.rows(
        "INSERT INTO reconciler.cron_execution_log (job_name, status, completed_at, error_sqlstate,"
        " error_message, role, backend_pid) VALUES ('tidy', 'failed', clock_timestamp(), '22012',"
        " 'division by zero', 'me', 1) RETURNING id"
    )
    post.alert("ops", message="tidy failed", run_id=run_id)
    assert statuses(post.deliver()) == [("ops", "sent")]
    assert post.deliver() == []
    [body] = post.endpoint.get("ops")
    assert (body["title"], body["type"]) == ("[test] tidy failed", "failure")
    [(name,)] = post.site.rows("SELECT current_database()")
    for text in (
        f"target    test, database {name}",
        "division by zero",
        "22012",
        f"run       {run_id}, failed",
    ):
        assert text in body["message"]
    assert post.rows() == [("ops", "sent", 1, None)]


def test_the_tone_follows_the_kind(post: Post) -> None:
    """A recovery is a success, slowness a warning."""
    post.declare("ops")
    post.alert("ops", kind="slow")
    post.alert("ops", kind="recovered", resolved_at=datetime.now(UTC))
    post.deliver()
    assert [body["type"] for body in post.endpoint.get("ops")] == ["warning", "success"]


def test_a_channel_that_is_down_is_tried_again_later(post: Post) -> None:
    """Nobody listens: the message waits half a minute at first, and arrives when the service is back."""
    post.declare("ops")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        post.environment["OPS_URL"] = f"json://127.0.0.1:{taken.getsockname()[1]}/ops"
        post.alert("ops")
        [outcome] = post.deliver(chance=lambda: 1.0)
    assert outcome.status == "retry"
    assert outcome.due_at is not None
    assert timedelta(seconds=20) < outcome.due_at - datetime.now(UTC) < timedelta(seconds=40)
    assert "onnection error" in outcome.error
    assert post.deliver() == []
    post.environment["OPS_URL"] = post.endpoint.address("ops")
    post.make_due()
    assert statuses(post.deliver()) == [("ops", "sent")]
    assert post.rows() == [("ops", "sent", 2, None)]


def test_an_answer_of_500_is_tried_again(post: Post) -> None:
    """Only a 2xx counts as delivered; the answer is told."""
    post.declare("ops")
    post.endpoint.answers["ops"] = 500
    post.alert("ops")
    [outcome] = post.deliver()
    assert outcome.status == "retry"
    assert "500" in outcome.error
    assert post.rows() == [("ops", "pending", 1, outcome.error)]


def test_a_hanging_channel_holds_up_no_other(post: Post) -> None:
    """While one service does not answer, all messages of the other go out; the hanging send is given up."""
    post.declare("hangs", "ops")
    post.environment["HANGS_URL"] += "?rto=30"
    post.endpoint.answers["hangs"] = None
    for number in range(5):
        post.alert("hangs", "ops", job_name=f"job-{number}")
    outcomes = post.deliver(send_limit=2.0)
    # All of one channel before the first try of the other has ended.
    assert [outcome.delivery.channel for outcome in outcomes] == ["ops"] * 5 + ["hangs"] * 3
    hanging = [row for row in post.rows() if row[0] == "hangs" and row[2]]
    assert hanging == [("hangs", "pending", 1, "no answer within 2 s")] * 3


def test_a_late_success_is_not_sent_again(post: Post) -> None:
    """A send that goes through after its limit is written down as sent, while nobody else has claimed it."""
    post.declare("hangs")
    post.environment["HANGS_URL"] += "?rto=30"
    post.endpoint.answers["hangs"] = None
    post.alert("hangs")
    deliverer = post.deliverer(send_limit=0.3)
    with connect(post.site.dsn) as conn:
        assert deliverer.start_due(conn) == 1
        time.sleep(0.4)
        assert statuses(deliverer.collect(conn)) == [("hangs", "retry")]
        post.endpoint.release.set()
        assert statuses(deliverer.collect(conn, seconds=5)) == [("hangs", "sent")]
    assert [row[:3] for row in post.rows()] == [("hangs", "sent", 1)]


def test_no_more_than_three_sends_hang_on_one_channel(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads cannot be ended: a channel with three that hang is left alone until one of them ends."""
    post.declare("hangs")
    post.environment["HANGS_URL"] += "?rto=30"
    post.endpoint.answers["hangs"] = None
    for number in range(5):
        post.alert("hangs", job_name=f"job-{number}")
    deliverer = post.deliverer(send_limit=0.05)
    monkeypatch.setattr("reconciler.runtime.delivery._REST_SECONDS", 0)
    with connect(post.site.dsn) as conn:
        started = 0
        for _ in range(8):
            started += deliverer.start_due(conn)
            time.sleep(0.1)
            deliverer.collect(conn)
        assert started == 3
        post.endpoint.release.set()
        wait_until(lambda: deliverer.start_due(conn) == 1, seconds=5, what="a thread has ended")


def test_a_channel_that_fails_three_times_in_a_row_rests(post: Post) -> None:
    """The rest of its messages is left for the next pass, without a try that would fail as well."""
    post.declare("ops")
    post.endpoint.answers["ops"] = 500
    for number in range(5):
        post.alert("ops", job_name=f"job-{number}")
    assert len(post.deliver()) == 3
    assert [row[2] for row in post.rows()] == [1, 1, 1, 0, 0]
    post.endpoint.answers.clear()
    assert statuses(post.deliver()) == [("ops", "sent")] * 2


def test_one_bad_message_does_not_stop_its_channel(post: Post) -> None:
    """What is refused waits for itself; what comes after it goes out in the same pass."""
    post.declare("ops")
    post.alert("ops", job_name="a")
    post.alert("ops", job_name="b")
    sender = load_sender()
    refused: list[str] = []

    @dataclass(frozen=True)
    class Picky:
        def send(self, address: Any, message: Any) -> str:
            if " a " in message.title:
                refused.append(message.title)
                return "too long"
            return sender.send(address, message)

    assert [outcome.status for outcome in post.deliver(sender=Picky())] == ["retry", "sent"]
    assert len(refused) == 1


def test_a_missing_secret_is_named_and_the_others_go_on(post: Post) -> None:
    """The error says which secret and which variable; another channel gets its message."""
    post.declare("mail", "ops")
    del post.environment["MAIL_URL"]
    post.alert("mail", "ops")
    assert statuses(post.deliver()) == [("mail", "retry"), ("ops", "sent")]
    assert post.rows()[0][3] == (
        "the secret mail has no value: the variable MAIL_URL is not set;"
        " set MAIL_URL in the environment of this process"
    )


def test_a_secret_that_is_no_address_is_told(post: Post) -> None:
    """The error says so without the value."""
    post.declare("ops")
    for value in ("canary", "canary://x", "json://"):
        post.environment["OPS_URL"] = value
        post.make_due()
        post.alert("ops", job_name=value)
        post.deliver()
    errors = [row[3] for row in post.rows()]
    assert all("holds no address that apprise" in error for error in errors), errors
    assert "canary" not in str(errors)


def test_a_channel_that_is_gone_is_told(post: Post) -> None:
    """Its messages are tried and say what is wrong, so that they do not wait in silence."""
    post.declare("ops")
    post.alert("nobody")
    assert statuses(post.deliver()) == [("nobody", "retry")]
    assert post.rows()[0][3] == "there is no channel nobody on the target; declare it and apply"


def test_channels_of_the_database_and_of_other_owners_are_left_alone(post: Post) -> None:
    """The database sends the one itself, and the other's secrets are not ours to know."""
    post.declare("theirs", owner="kitchen")
    post.declare("inside")
    post.site.run(
        'UPDATE reconciler.definitions SET spec = \'{"deliver": "database", "url": {"secret": "x"}}\''
        " WHERE name = 'inside'"
    )
    post.alert("inside", "theirs")
    assert post.deliver() == []
    assert statuses(post.deliver(owner="kitchen")) == [("theirs", "sent")]
    assert post.rows()[0] == ("inside", "pending", 0, None)


def test_a_message_is_given_up_after_twenty_tries(post: Post) -> None:
    """The twentieth failure is the last."""
    post.declare("ops")
    post.endpoint.answers["ops"] = 500
    post.alert("ops")
    post.site.run("UPDATE reconciler.alert_deliveries SET attempts = 18")
    assert statuses(post.deliver()) == [("ops", "retry")]
    post.make_due()
    assert statuses(post.deliver()) == [("ops", "failed")]
    assert post.rows()[0][1:3] == ("failed", MAX_ATTEMPTS)
    assert post.deliver() == []


def test_a_message_whose_deliverers_all_died_is_given_up(post: Post) -> None:
    """A message that kills who sends it does not do so forever."""
    post.declare("ops")
    post.alert("ops")
    post.site.run(
        "UPDATE reconciler.alert_deliveries SET attempts = 20, claimed_until = now() - interval '1 minute'"
    )
    assert post.deliver() == []
    assert post.rows() == [("ops", "failed", 20, "the deliverer was gone during the last try")]


def test_two_deliverers_send_each_message_once(post: Post) -> None:
    """Four at once share sixty messages of three channels."""
    post.declare("a", "b", "c")
    for number in range(20):
        post.alert("a", "b", "c", job_name=f"job-{number}")
    post.deliverer()  # loads the library before the race
    threads = [threading.Thread(target=post.deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {row[1:] for row in post.rows()} == {("sent", 1, None)}
    titles = sorted((path, body["title"]) for path, body in post.endpoint.received)
    assert len(titles) == len(set(titles)) == 60


def claim(conn: psycopg.Connection) -> list[Delivery]:
    """Claim what is due."""
    return claim_deliveries(conn, owner=OWNER, lease=LEASE)


def test_a_late_finish_does_not_overwrite_another_claim(post: Post) -> None:
    """Whoever lost its lease writes nothing, whatever it has to say; the new holder does."""
    post.declare("ops")
    post.alert("ops")
    with connect(post.site.dsn) as conn:
        [first] = claim(conn)
        assert claim(conn) == []
        post.make_due()
        [second] = claim(conn)
        assert (first.attempts, second.attempts) == (1, 2)
        before = post.site.rows("SELECT d::text FROM reconciler.alert_deliveries d")
        assert not finish_sent(conn, first)
        assert finish_retry(conn, first, error="late", wait=LEASE) is None
        assert not finish_failed(conn, first, error="late")
        assert post.site.rows("SELECT d::text FROM reconciler.alert_deliveries d") == before
        assert finish_sent(conn, second)
        assert not finish_failed(conn, second, error="twice")
    assert post.rows() == [("ops", "sent", 2, None)]


def test_a_stale_outcome_is_reported_as_such(post: Post) -> None:
    """A send whose message was taken over meanwhile ends without an error."""
    post.declare("ops")
    post.alert("ops")
    deliverer = post.deliverer()
    with connect(post.site.dsn) as conn:
        deliverer.start_due(conn)
        post.site.run("UPDATE reconciler.alert_deliveries SET attempts = 7")
        assert statuses(deliverer.collect(conn, seconds=5)) == [("ops", "stale")]
    assert [row[1:3] for row in post.rows()] == [("pending", 7)]


def test_what_was_sent_is_written_down_after_a_lost_connection(post: Post) -> None:
    """The outcome of a send outlives the connection: the message does not go out twice."""
    post.declare("ops")
    post.alert("ops")
    deliverer = post.deliverer()
    conn = post.site.database.connect()
    deliverer.start_due(conn)
    wait_until(lambda: post.endpoint.count("ops") == 1, seconds=5, what="the message is out")
    post.site.run("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)
    with pytest.raises(psycopg.OperationalError):
        deliverer.collect(conn, seconds=5)
    assert deliverer.is_busy
    with connect(post.site.dsn) as again:
        assert statuses(deliverer.collect(again)) == [("ops", "sent")]
    assert not deliverer.is_busy


def test_watching_survives_the_server(post: Post) -> None:
    """After a restart of the server the next alert is delivered; a notification wakes it before the poll."""
    post.declare("ops")
    outcomes: list[Outcome] = []
    losses: list[ConnectError] = []
    stop: list[bool] = []
    deliverer = post.deliverer()
    thread = threading.Thread(
        target=lambda: watch(
            deliverer,
            lambda: connect(post.site.dsn),
            report=outcomes.append,
            complain=lambda error, _: losses.append(error),
            chance=lambda: 0.0,
            is_stopping=lambda: bool(stop),
        )
    )
    thread.start()
    try:
        listening: LiteralString = (
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN reconciler_alerts' OR"
            " query LIKE '%%alert_deliveries%%' AND pid <> pg_backend_pid()"
        )
        wait_until(lambda: post.site.rows(listening)[0][0] > 0, seconds=10, what="it listens")
        time.sleep(0.5)
        began = time.monotonic()
        post.alert("ops", job_name="one")
        post.site.run("NOTIFY reconciler_alerts")
        wait_until(lambda: len(outcomes) == 1, seconds=8, what="the message is sent")
        assert time.monotonic() - began < 5
        post.site.database.server.stop(immediate=True)
        wait_until(lambda: bool(losses), seconds=10, what="the loss is seen")
        post.site.database.server.start()
        post.alert("ops", job_name="two")
        wait_until(lambda: len(outcomes) == 2, seconds=15, what="the next message is sent")
    finally:
        stop.append(True)
        thread.join(10)
    assert not thread.is_alive()
    assert [outcome.status for outcome in outcomes] == ["sent", "sent"]


def test_watching_ends_with_what_is_on_its_way(post: Post) -> None:
    """Who is asked to stop while a message is out still writes down that it was sent."""
    post.declare("hangs")
    post.endpoint.answers["hangs"] = None
    post.alert("hangs")
    outcomes: list[Outcome] = []

    def is_stopping() -> bool:
        if post.endpoint.count("hangs"):
            threading.Timer(0.5, post.endpoint.release.set).start()
            return True
        return False

    watch(
        post.deliverer(),
        lambda: connect(post.site.dsn),
        report=outcomes.append,
        complain=lambda *_: None,
        chance=lambda: 0.0,
        is_stopping=is_stopping,
    )
    assert statuses(outcomes) == [("hangs", "sent")]


def test_no_address_leaves_its_store(
    post: Post, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong, no part of a secret address is in a table, in a log or on the terminal."""
    caplog.set_level(logging.DEBUG)
    post.declare("wrong", "down", "hangs", "odd")
    canary = "Canary"
    port = post.endpoint.port
    post.endpoint.answers.update({f"{canary}Path": 500, f"{canary}Slow": None})
    post.environment["WRONG_URL"] = (
        f"json://{canary}User:{canary}%2FPass@127.0.0.1:{port}/{canary}Path?+X-Token={canary}Head&-q={canary}Get"
    )
    post.environment["DOWN_URL"] = f"json://{canary}.invalid:9/{canary}?cto=2"
    post.environment["HANGS_URL"] = f"json://127.0.0.1:{port}/{canary}Slow?rto=0.5"
    post.environment["ODD_URL"] = f"{canary}://{canary}/{canary}"
    post.alert("wrong", "down", "hangs", "odd")
    outcomes = post.deliver()
    assert statuses(outcomes) == [(name, "retry") for name in ("down", "hangs", "odd", "wrong")]
    with connect(post.site.dsn) as conn:
        listed = list_alerts(conn, everything=True)
        send_test(post.deliverer(), conn, find_channels(conn)["wrong"], message="test")
    printed = capfd.readouterr()
    seen = [outcomes, listed, caplog.text, printed, post.site.everything(), post.stores(), post.deliverer()]
    assert canary.lower() not in repr(seen).lower()


def test_an_alert_that_is_over_says_so(post: Post) -> None:
    """A message that could not be sent in time does not wake people for nothing."""
    post.declare("ops")
    post.alert("ops", resolved_at=datetime.now(UTC))
    post.deliver()
    assert post.endpoint.get("ops")[0]["title"] == "[test] Over: tidy failed"


def test_a_test_is_sent_through_the_outbox(post: Post) -> None:
    """It is claimed from the beginning, so that nobody else sends it too, and is not tried again."""
    post.declare("ops")
    with connect(post.site.dsn) as conn:
        ops = find_channels(conn)["ops"]
        assert send_test(post.deliverer(), conn, ops, message="All is well.").status == "sent"
        post.endpoint.answers["ops"] = 404
        outcome = send_test(post.deliverer(), conn, ops, message="All is well.")
        assert (outcome.status, "404" in outcome.error) == ("failed", True)
        put_test(conn, ops, message="claimed", claim=True, lease=LEASE)
        assert claim(conn) == []
    assert [row[1:3] for row in post.rows()] == [("sent", 1), ("failed", 1), ("pending", 1)]
    assert post.endpoint.get("ops")[0]["title"] == "[test] Test of ops"


def test_open_alerts_and_undelivered_ones_are_listed(post: Post) -> None:
    """What is over and delivered is only among all; the newest comes first."""
    post.declare("ops")
    now = datetime.now(UTC)
    over = post.alert("ops", job_name="over", resolved_at=now)
    post.deliver()
    untold = post.alert("ops", job_name="untold", resolved_at=now)
    still = post.alert(job_name="open")
    with connect(post.site.dsn) as conn:
        assert [alert.id for alert in list_alerts(conn)] == [still, untold]
        assert [alert.id for alert in list_alerts(conn, everything=True)] == [still, untold, over]
        assert [alert.id for alert in list_alerts(conn, everything=True, limit=1)] == [still]
        [told] = list_alerts(conn, everything=True)[2].deliveries
    assert (told["channel"], told["status"], told["attempts"]) == ("ops", "sent", 1)


def test_a_target_without_the_outbox_says_what_to_do(post: Post) -> None:
    """Neither an empty target nor one of an earlier release gives a bare SQL error."""
    with connect(post.site.dsn) as conn:
        with pytest.raises(MigrationError, match=r"nothing was applied .*\n  run reconciler apply"):
            require_outbox(conn)
        conn.execute("CREATE SCHEMA reconciler")
        with pytest.raises(MigrationError, match=r"earlier release .*\n  run reconciler migrate"):
            require_outbox(conn)


def test_the_rights_that_the_documentation_names_are_enough(post: Post) -> None:
    """An ordinary role delivers with four grants, and without them gets an error that says so."""
    post.declare("ops")
    post.alert("ops")
    post.site.run("CREATE ROLE postman LOGIN")
    postman = Post(
        site=Site(post.site.database, "postman"), endpoint=post.endpoint, environment=post.environment
    )
    with pytest.raises(RightsError):
        postman.deliver()
    post.site.run(
        "GRANT SELECT ON reconciler.definitions, reconciler.alerts, reconciler.cron_execution_log TO postman;"
        "GRANT SELECT, UPDATE ON reconciler.alert_deliveries TO postman"
    )
    assert statuses(postman.deliver()) == [("ops", "sent")]


def test_drift_is_told_to_those_who_want_it(post: Post) -> None:
    """One alert for each drifted job that has drift among its reasons; seen again it is only counted."""
    post.declare("ops")
    wants = {"channels": ["ops"], "on": ["drift"]}
    post.site.apply(job("a", alert=wants), job("b", alert={"channels": ["ops"]}), channel("ops"))
    with connect(post.site.dsn) as conn:
        for _ in range(2):
            assert open_drift_alerts(conn, {"a": "inactive", "b": "gone", "zzz": "?"}, owner=OWNER) == []
        alerts = list_alerts(conn)
        assert [(alert.job_name, alert.kind, alert.occurrences) for alert in alerts] == [("a", "drift", 2)]
        assert len(post.rows()) == 1
        assert open_drift_alerts(conn, {}, owner="kitchen") == []
        assert open_drift_alerts(conn, {"b": "gone"}, owner=OWNER) == ["a"]
        assert list_alerts(conn)[0].resolved_at is not None
    post.deliver()
    assert post.endpoint.get("ops")[0]["title"] == "[test] Over: a was changed behind the files' back"
