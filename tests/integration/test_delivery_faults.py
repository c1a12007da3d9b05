"""Delivering alerts while deliverers, servers and connections come and go; what else the outbox tells."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest

from reconciler.database.alerts import (
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
from reconciler.runtime.delivery import Outcome, send_test, watch
from tests.declared import OWNER, Site, channel, job
from tests.endpoint import run_endpoint
from tests.posting import LEASE, Post, statuses
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.errors import ConnectError
    from tests.servers import Database

pytestmark = pytest.mark.one_server


@pytest.fixture
def post(database: Database) -> Iterator[Post]:
    """An empty database and a service."""
    with run_endpoint() as endpoint:
        yield Post(site=Site(database), endpoint=endpoint)


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
