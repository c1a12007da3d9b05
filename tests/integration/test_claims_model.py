"""Everything that can happen in queues, in any order, beside a model: states and answers are the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.declared import Site, queue
from tests.queue_model import Model, Row, Settings
from tests.queued import (
    Claimed,
    cancel,
    claim,
    complete,
    end_cancelled,
    enqueue,
    fail,
    give_back,
    pass_time,
    renew,
    rescue,
    retry,
    snooze,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Database

pytestmark = pytest.mark.one_server

QUEUES = {
    "plain": Settings(),
    "few": Settings(concurrency=3, held_by=()),
    "line": Settings(mode="blocking"),
    "strict": Settings(mode="blocking", held_by=("retry", "failed", "future")),
    "turning": Settings(held_by=("failed",)),
}
LEASE = 15
"""Seconds. Time passes by tens, jobs are put off by fives: nothing depends on how long a test takes."""

names = st.sampled_from(sorted(QUEUES))
delays = st.sampled_from([0, 0, 0, 5, 25])


def test_queues_do_what_the_model_does(database: Database) -> None:
    """Put, claim, end, lose, renew, cancel, revive jobs, switch a queue and let time pass in any order."""
    site = Site(database)
    backoff = {"initial": "9s", "factor": 1, "max": "9s"}
    site.apply(
        *(
            queue(
                name,
                mode=one.mode,
                held_by=list(one.held_by),
                max_attempts=one.max_attempts,
                lease=f"{LEASE}s",
                backoff=backoff,
                **({"concurrency": one.concurrency} if one.concurrency < 9 else {}),
            )
            for name, one in QUEUES.items()
        )
    )

    class Beside(Queues):
        conn = database.connect()

    run_state_machine_as_test(
        Beside,
        settings=settings(
            max_examples=70,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Queues(RuleBasedStateMachine):
    """The functions in the database and the model, step by step."""

    conn: ClassVar[psycopg.Connection]

    def __init__(self) -> None:
        super().__init__()
        self.conn.execute("TRUNCATE reconciler.jobs, reconciler.queue_states RESTART IDENTITY")
        self.conn.execute("UPDATE reconciler.queues SET mode = 'standard' WHERE name = 'turning'")
        self.model = Model(settings=dict(QUEUES))
        self.claims: list[Claimed] = []

    @property
    def now(self) -> float:
        """The server's time."""
        row = self.conn.execute("SELECT extract(epoch FROM clock_timestamp())::float").fetchone()
        assert row is not None
        return float(row[0])

    def look(self) -> None:
        """Take over the times that the database chose."""
        for job, *times in self.conn.execute(
            "SELECT id, extract(epoch FROM run_at)::float, extract(epoch FROM completed_at)::float"
            "  FROM reconciler.jobs"
        ):
            row = self.model.rows[job]
            row.run_at, row.completed_at = times[0], times[1] or 0

    @invariant()
    def states_are_the_same(self) -> None:
        """Each job is in the database as it is in the model."""
        self.look()
        rows = self.conn.execute(
            "SELECT id, status, attempts, losses, cancelled_by IS NOT NULL, ordering_key,"
            "       started_at IS NOT NULL, status = 'running' AND lease_until IS NULL"
            "  FROM reconciler.jobs ORDER BY id"
        ).fetchall()
        assert rows == [
            (r.id, r.status, r.attempts, r.losses, r.is_cancelled, r.key, r.is_begun, False)
            for r in self.model.rows.values()
        ]

    @initialize(keys=st.lists(st.sampled_from([None, "a", "b"]), max_size=5), name=names)
    def begin_with_some(self, keys: list[str | None], name: str) -> None:
        """Some jobs wait, and some have begun."""
        for key in keys:
            self.put(name, 0, 0, key, None, None)
        self.take(name, 3)

    @rule(
        name=names,
        priority=st.integers(0, 1),
        after=delays,
        key=st.sampled_from([None, None, "a", "b"]),
        unique=st.sampled_from([None, None, None, "u"]),
        max_attempts=st.sampled_from([None, 1, 9]),
    )
    def put(
        self,
        name: str,
        priority: int,
        after: int,
        key: str | None,
        unique: str | None,
        max_attempts: int | None,
    ) -> None:
        """A job is put, or the one that has its unique key is the answer."""
        job = enqueue(
            self.conn,
            name,
            priority=priority,
            after=after or None,
            ordering_key=key,
            unique_key=unique,
            max_attempts=max_attempts,
        )
        holder = self.model.holder(name, unique)
        if holder is not None:
            assert job == holder.id
            return
        assert job not in self.model.rows
        self.model.rows[job] = Row(
            id=job,
            queue=name,
            priority=priority,
            key=self.model.order_key(name, key),
            unique=unique,
            max_attempts=max_attempts,
        )
        self.model.rows = dict(sorted(self.model.rows.items()))

    @rule(name=names, limit=st.integers(1, 4), seconds=st.sampled_from([0, 0, 0, 10, 40]))
    def take_later(self, name: str, limit: int, seconds: int) -> None:
        """A worker claims, now or after some time."""
        self.wait(seconds)
        self.take(name, limit)

    def take(self, name: str, limit: int) -> None:
        """Heads of orders begin, then the others in their order, as many as there is room for."""
        heads, others = self.model.may_begin(name, self.now)
        room = min(limit, self.model.room(name))
        claimed = claim(self.conn, name, limit)
        ordered = {one.id for one in claimed if one.ordering_key is not None}
        assert ordered <= {row.id for row in heads}
        assert len(ordered) == min(room, len(heads))
        free = [one.id for one in claimed if one.ordering_key is None]
        assert free == [row.id for row in others[: room - len(ordered)]]
        self.begin(claimed)

    @rule(name=names, limit=st.integers(1, 3))
    def take_dead(self, name: str, limit: int) -> None:
        """Dead jobs are taken up, the longest dead first, as many as there is room for."""
        if self.model.settings[name].mode == "blocking":
            self.model.may_begin(name, self.now)
        expected = self.model.may_revive(name, min(limit, self.model.room(name)))
        claimed = claim(self.conn, name, limit, status="failed")
        assert {one.id for one in claimed} == {row.id for row in expected}
        self.begin(claimed)

    def begin(self, claimed: list[Claimed]) -> None:
        """Note what was claimed."""
        for one in claimed:
            row = self.model.rows[one.id]
            self.model.begin(row, self.now + LEASE)
            assert (one.token, one.attempt) == (row.token, row.attempts)
        self.claims += claimed

    def end(self, data: Any, do: Callable[[Claimed], object], then: Callable[[Row], object]) -> None:
        """Do something with a claim, old or new; a stale one does nothing, and the answer says so."""
        if self.claims:
            # Mostly one of the last, since the others are over.
            one = self.claims[-data.draw(st.integers(1, min(len(self.claims), 6)))]
            row = self.model.own(one.id, one.token)
            answer = do(one)
            assert answer == (None if row is None else then(row) or True), (answer, row)

    @rule(data=st.data())
    def complete_one(self, data: st.DataObject) -> None:
        """A try ends well."""
        self.end(
            data,
            lambda one: complete(self.conn, [one]) == [one.id] or None,
            lambda row: row.end("completed", 0) and None,
        )

    @rule(data=st.data(), final=st.booleans(), after=st.sampled_from([None, 5]))
    def fail_one(self, data: st.DataObject, final: bool, after: float | None) -> None:
        """A try fails: the next one waits as long as it was asked for, or by the backoff."""
        began = self.now
        self.end(
            data,
            lambda one: fail(self.conn, one, final=final, retry_in=after),
            lambda row: self.model.fail(row, 0, final=final),
        )
        before = {job: row.run_at for job, row in self.model.rows.items()}
        self.look()
        for job, row in self.model.rows.items():
            if row.status == "pending" and row.run_at != before[job]:
                assert row.run_at >= began + (5 if after else 4.5)
                assert row.run_at <= self.now + (5 if after else 9)

    @rule(data=st.data())
    def snooze_one(self, data: st.DataObject) -> None:
        """A job is put off."""
        self.end(data, lambda one: snooze(self.conn, one, 25) or None, lambda row: self.model.snooze(row, 0))

    @rule(data=st.data())
    def give_one_back(self, data: st.DataObject) -> None:
        """A job is given back."""
        self.end(
            data,
            lambda one: give_back(self.conn, one) == [one.id] or None,
            lambda row: self.model.give_back(row, 0),
        )

    @rule(data=st.data())
    def end_one_as_cancelled(self, data: st.DataObject) -> None:
        """A job is ended by its worker."""
        self.end(
            data,
            lambda one: end_cancelled(self.conn, one) or None,
            lambda row: row.end("cancelled", 0) and None,
        )

    @rule()
    def renew_all(self) -> None:
        """The leases of all claims that hold are renewed, and it is told which are to end."""
        held = [row for one in self.claims if (row := self.model.own(one.id, one.token)) is not None]
        told = renew(self.conn, *self.claims[::-1])
        assert {job: who is not None for job, who in told.items()} == {r.id: r.is_cancelled for r in held}
        for row in held:
            row.lease_until = self.now + LEASE

    @rule(limit=st.sampled_from([1, 100]), seconds=st.sampled_from([0, 20]))
    def rescue_some(self, limit: int, seconds: int) -> None:
        """Jobs whose leases are over are taken back, as many as were asked for."""
        self.wait(seconds)
        now = self.now
        over = [r for r in self.model.rows.values() if r.status == "running" and r.lease_until < now]
        assert rescue(self.conn, limit) == min(limit, len(over))
        losses: dict[int, int] = dict(self.conn.execute("SELECT id, losses FROM reconciler.jobs").fetchall())
        lost = [row for row in over if losses[row.id] == row.losses + 1]
        assert len(lost) == min(limit, len(over))
        for row in lost:
            self.model.lose(row, now)

    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        """A job is cancelled, or told to end."""
        if self.model.rows:
            row = self.model.rows[data.draw(st.sampled_from(sorted(self.model.rows)))]
            assert cancel(self.conn, row.id) == self.model.cancel(row, 0)

    @rule(data=st.data())
    def retry_one(self, data: st.DataObject) -> None:
        """A dead or cancelled job begins anew, if its unique key is free."""
        if self.model.rows:
            row = self.model.rows[data.draw(st.sampled_from(sorted(self.model.rows)))]
            try:
                answer = retry(self.conn, row.id)
            except psycopg.errors.UniqueViolation:
                answer = None
            assert answer == self.model.retry(row)

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        pass_time(self.conn, seconds)
        for row in self.model.rows.values():
            row.lease_until -= seconds
        self.look()

    @rule(mode=st.sampled_from(["standard", "blocking"]))
    def turn(self, mode: str) -> None:
        """A queue becomes blocking, or is no more."""
        self.conn.execute("UPDATE reconciler.queues SET mode = %s WHERE name = 'turning'", [mode])
        self.model.switch("turning", replace(self.model.settings["turning"], mode=mode))
