"""Delivering alerts: what is sent, what is tried again, what is given up."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.database.alerts import (
    MAX_ATTEMPTS,
)
from reconciler.database.connect import connect
from reconciler.runtime.notifying import load_sender
from tests.declared import Site
from tests.endpoint import run_endpoint
from tests.posting import Post, statuses
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Database

pytestmark = pytest.mark.one_server


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
