"""Deliver alerts: claim a message, send it, write down how it went. At least once, each channel for itself.

A crash between sending and writing lets the message go out again when its lease has ended. Each send has a
thread and a time limit of its own, so that a channel that is down or hangs holds up no other. Prints nothing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from reconciler.core.alerts import Message, make_message
from reconciler.core.retries import next_wait
from reconciler.database.alerts import (
    MAX_ATTEMPTS,
    Delivery,
    claim_deliveries,
    finish_failed,
    finish_retry,
    finish_sent,
    listen,
    put_test,
    read_clock,
    require_outbox,
    wait_for_alert,
)
from reconciler.database.identity import require_home
from reconciler.database.watchdog import tell_of_tick
from reconciler.errors import ConfigError, ConnectError, ReconcilerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    import psycopg

    from reconciler.core.hidden import Hidden
    from reconciler.database.alerts import Channel
    from reconciler.runtime.notifying import Sender
    from reconciler.runtime.secret_values import SecretStores

SEND_LIMIT = 20.0
"""Seconds after which a send counts as failed."""
LEASE = timedelta(seconds=90)
"""How long a claimed message is one's own; longer than a send and a reconnection may take."""
_FIRST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(hours=1)
_POLL_SECONDS = 10.0
_LOOK_SECONDS = 60.0
# How long it may take until a wish to stop is seen: while messages are on their way, and otherwise.
_BUSY_SECONDS = 0.25
_IDLE_SECONDS = 1.0
# A channel that fails so often in a row rests for a while: its other messages would fail the same way.
_FAILURES_UNTIL_REST = 3
_REST_SECONDS = 30.0
# Threads cannot be ended from outside: no more than these may hang on one channel.
_HANGING_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one try.

    Attributes:
        status: sent; retry, to be tried again; failed, given up; stale, taken over by another process.
        delivery: The message.
        error: Why it was not sent, without the channel's address.
        due_at: When it is tried again.
    """

    status: Literal["sent", "retry", "failed", "stale"]
    delivery: Delivery
    error: str = ""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """A send that goes on."""

    delivery: Delivery
    thread: threading.Thread
    deadline: float


class Deliverer:
    """Sends claimed messages in threads and writes down how it went; used by one thread.

    Args:
        owner: Whose channels are served.
        target: The target's name, for the messages.
        stores: Where the channels' addresses are kept.
        sender: What sends.
        chance: Gives a number from 0 to 1, evenly distributed, for the waits.
        send_limit: Seconds after which a send counts as failed.
        lease: How long a claimed message is one's own.
    """

    def __init__(
        self,
        *,
        owner: str,
        target: str,
        stores: SecretStores,
        sender: Sender,
        chance: Callable[[], float],
        send_limit: float = SEND_LIMIT,
        lease: timedelta = LEASE,
    ) -> None:
        self._owner = owner
        self._target = target
        self._stores = stores
        self._sender = sender
        self._chance = chance
        self._send_limit = send_limit
        self._lease = lease
        self._flights: dict[str, _Flight] = {}
        self._results: queue.SimpleQueue[tuple[Delivery, str]] = queue.SimpleQueue()
        self._unwritten: deque[tuple[Delivery, str]] = deque()
        self._hanging: dict[str, list[threading.Thread]] = {}
        self._failures: dict[str, int] = {}
        self._rests: dict[str, float] = {}

    @property
    def owner(self) -> str:
        """Return whose channels are served."""
        return self._owner

    @property
    def is_busy(self) -> bool:
        """Whether messages are on their way, or what became of them is not written down yet."""
        return bool(self._flights or self._unwritten)

    def start_due(self, conn: psycopg.Connection, *, due_by: datetime | None = None) -> int:
        """Claim what is due and begin to send it.

        Args:
            conn: To the target, in autocommit mode.
            due_by: Leave what is due later; None for now.

        Returns:
            How many messages were claimed.
        """
        claimed = claim_deliveries(
            conn, owner=self._owner, lease=self._lease, busy=self._find_busy(), due_by=due_by
        )
        for delivery in claimed:
            self.start(conn, delivery)
        return len(claimed)

    def start(self, conn: psycopg.Connection, delivery: Delivery) -> None:
        """Begin to send one claimed message.

        Args:
            conn: To the target, where the vault is.
            delivery: As claimed.
        """
        try:
            address = self._resolve(conn, delivery)
        except ReconcilerError as error:
            self._unwritten.append((delivery, str(error).replace("\n  ", "; ")))
            return
        message = make_message(
            delivery.alert,
            delivery.run,
            target=self._target,
            database=delivery.database,
            reminder=delivery.reminder,
        )
        thread = threading.Thread(
            target=self._send, args=(delivery, address, message), name=f"send-{delivery.id}", daemon=True
        )
        self._flights[delivery.channel] = _Flight(
            delivery=delivery, thread=thread, deadline=time.monotonic() + self._send_limit
        )
        thread.start()

    def collect(self, conn: psycopg.Connection, *, seconds: float = 0.0, once: bool = False) -> list[Outcome]:
        """Write down how sends went.

        When the connection is lost meanwhile, what is not written yet is kept for the next call.

        Args:
            conn: To the target, in autocommit mode.
            seconds: How long to wait for the first.
            once: Give up what fails instead of trying it again later.

        Returns:
            What became of each.
        """
        self._gather(seconds)
        outcomes = []
        while self._unwritten:
            delivery, error = self._unwritten[0]
            outcomes.append(self._write(conn, delivery, error, once=once))
            self._unwritten.popleft()
            self._count(delivery.channel, failed=bool(error))
        return outcomes

    def _resolve(self, conn: psycopg.Connection, delivery: Delivery) -> Hidden:
        if delivery.secret is None:
            raise ConfigError(
                f"there is no channel {delivery.channel} on the target", remedy="declare it and apply"
            )
        return self._stores.resolve(delivery.secret, conn)

    def _send(self, delivery: Delivery, address: Hidden, message: Message) -> None:
        self._results.put((delivery, self._sender.send(address, message)))

    def _find_busy(self) -> list[str]:
        now = time.monotonic()
        hanging: dict[str, list[threading.Thread]] = {}
        for channel, threads in self._hanging.items():
            if alive := [thread for thread in threads if thread.is_alive()]:
                hanging[channel] = alive
        self._hanging = hanging
        self._rests = {channel: until for channel, until in self._rests.items() if until > now}
        stuck = {channel for channel, threads in hanging.items() if len(threads) >= _HANGING_LIMIT}
        unwritten = {delivery.channel for delivery, _ in self._unwritten}
        return sorted({*self._flights, *self._rests, *stuck, *unwritten})

    def _gather(self, seconds: float) -> None:
        """Take what the threads have finished, and what has taken too long."""
        timeout = 0.0 if self._unwritten else seconds
        while True:
            try:
                delivery, error = (
                    self._results.get(timeout=timeout) if timeout else self._results.get_nowait()
                )
            except queue.Empty:
                break
            timeout = 0.0
            flight = self._flights.get(delivery.channel)
            if flight is not None and flight.delivery is delivery:
                del self._flights[delivery.channel]
                self._unwritten.append((delivery, error))
            elif not error:
                # It counted as failed and went out after all: it need not go again, if nobody claimed it.
                self._unwritten.append((delivery, ""))
        now = time.monotonic()
        for channel, flight in list(self._flights.items()):
            if flight.deadline <= now:
                del self._flights[channel]
                self._hanging.setdefault(channel, []).append(flight.thread)
                self._unwritten.append((flight.delivery, f"no answer within {self._send_limit:g} s"))

    def _write(self, conn: psycopg.Connection, delivery: Delivery, error: str, *, once: bool) -> Outcome:
        if not error:
            return Outcome(status="sent" if finish_sent(conn, delivery) else "stale", delivery=delivery)
        if once or delivery.attempts >= MAX_ATTEMPTS:
            written = finish_failed(conn, delivery, error=error)
            return Outcome(status="failed" if written else "stale", delivery=delivery, error=error)
        wait = next_wait(
            delivery.attempts, initial=_FIRST_WAIT, factor=2, maximum=_LONGEST_WAIT, chance=self._chance()
        )
        due_at = finish_retry(conn, delivery, error=error, wait=wait)
        return Outcome(
            status="stale" if due_at is None else "retry", delivery=delivery, error=error, due_at=due_at
        )

    def _count(self, channel: str, *, failed: bool) -> None:
        self._failures[channel] = self._failures.get(channel, 0) + 1 if failed else 0
        if self._failures[channel] >= _FAILURES_UNTIL_REST:
            self._rests[channel] = time.monotonic() + _REST_SECONDS


def deliver_due(
    deliverer: Deliverer,
    conn: psycopg.Connection,
    *,
    report: Callable[[Outcome], None],
    is_stopping: Callable[[], bool],
) -> None:
    """Try everything once that is due now, and wait until it is sent or refused.

    Args:
        deliverer: What sends.
        conn: To the target, in autocommit mode.
        report: Gets what became of each message.
        is_stopping: Whether to begin nothing more; what is on its way is waited for.

    Raises:
        ReconcilerError: The target has no outbox, or it cannot be read or written.
    """
    _prepare(conn)
    tell_of_tick(conn, owner=deliverer.owner)
    due_by = read_clock(conn)
    while True:
        started = 0 if is_stopping() else deliverer.start_due(conn, due_by=due_by)
        outcomes = deliverer.collect(conn, seconds=_BUSY_SECONDS if deliverer.is_busy else 0)
        for outcome in outcomes:
            report(outcome)
        # After each message the next one of its channel may go.
        if not started and not outcomes and not deliverer.is_busy:
            return


def send_test(deliverer: Deliverer, conn: psycopg.Connection, channel: Channel, *, message: str) -> Outcome:
    """Send a test message through the outbox, now and once.

    Args:
        deliverer: What sends.
        conn: To the target, in autocommit mode.
        channel: That is not served by the database.
        message: What to tell.

    Returns:
        sent or failed.
    """
    deliverer.start(conn, put_test(conn, channel, message=message, claim=True, lease=LEASE))
    while True:
        for outcome in deliverer.collect(conn, seconds=_BUSY_SECONDS, once=True):
            return outcome


def watch(
    deliverer: Deliverer,
    connect: Callable[[], AbstractContextManager[psycopg.Connection]],
    *,
    report: Callable[[Outcome], None],
    complain: Callable[[ConnectError, timedelta], None],
    chance: Callable[[], float],
    is_stopping: Callable[[], bool],
) -> None:
    """Deliver alerts as they come, until somebody wants it to stop; come back when the connection is lost.

    Args:
        deliverer: What sends.
        connect: Opens a connection to the target in autocommit mode.
        report: Gets what became of each message.
        complain: Gets why the connection was lost, and how long it takes until the next try.
        chance: Gives a number from 0 to 1, evenly distributed, for the waits.
        is_stopping: Whether to begin nothing more; what is on its way is waited for.

    Raises:
        ReconcilerError: The first connection failed, or the target has no outbox, or refuses to be written.
    """
    losses = 0
    was_there = False
    while not is_stopping():
        try:
            with connect() as conn:
                _prepare(conn)
                listen(conn)
                was_there, losses = True, 0
                _serve(deliverer, conn, report=report, is_stopping=is_stopping)
        except ConnectError as error:
            if not was_there:
                raise
            losses += 1
            wait = next_wait(
                losses,
                initial=timedelta(seconds=2),
                factor=2,
                maximum=timedelta(seconds=30),
                chance=chance(),
            )
            complain(error, wait)
            over_at = time.monotonic() + wait.total_seconds()
            while time.monotonic() < over_at and not is_stopping():
                time.sleep(_BUSY_SECONDS)


def _prepare(conn: psycopg.Connection) -> None:
    # Statements that are prepared on the server do not survive a pooler in transaction mode.
    conn.prepare_threshold = None
    require_outbox(conn)
    require_home(conn)


def _serve(
    deliverer: Deliverer,
    conn: psycopg.Connection,
    *,
    report: Callable[[Outcome], None],
    is_stopping: Callable[[], bool],
) -> None:
    is_woken, poll_at, look_at = True, 0.0, 0.0
    while not is_stopping():
        if time.monotonic() >= look_at:
            is_woken = tell_of_tick(conn, owner=deliverer.owner) or is_woken
            look_at = time.monotonic() + _LOOK_SECONDS
        if is_woken or time.monotonic() >= poll_at:
            deliverer.start_due(conn)
            poll_at = time.monotonic() + _POLL_SECONDS
        outcomes = deliverer.collect(conn, seconds=_BUSY_SECONDS if deliverer.is_busy else 0)
        for outcome in outcomes:
            report(outcome)
        # After each message the next one of its channel may go.
        seconds = 0 if outcomes or deliverer.is_busy else _IDLE_SECONDS
        is_woken = wait_for_alert(conn, seconds) or bool(outcomes)
    while deliverer.is_busy:
        for outcome in deliverer.collect(conn, seconds=_BUSY_SECONDS):
            report(outcome)
