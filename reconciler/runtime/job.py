"""One try of a queued job as its handler sees it, and what the handler may raise to say how it goes on."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from reconciler.database.claims import ClaimedJob


class Snooze(Exception):  # noqa: N818 - a wish, no error
    """Raised by a handler: do the job later; this counts no try.

    Args:
        delay: How much later; a number is seconds.
    """

    def __init__(self, delay: timedelta | float) -> None:
        super().__init__(delay)
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)


class Retry(Exception):  # noqa: N818 - the same
    """Raised by a handler: the try failed, and the next one is to come after a time of its own choice.

    Args:
        delay: In place of the queue's backoff; a number is seconds.
        reason: What went wrong.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        super().__init__(reason or "the handler wants another try")
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)


class Fail(Exception):  # noqa: N818 - the same
    """Raised by a handler: the job failed for good, and another try would do nothing.

    Args:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class Job:
    """One try of a queued job, as its handler sees it.

    Args:
        claimed: As the claim handed it out.
    """

    __slots__ = ("claimed", "interrupt", "is_late", "stop_reason", "stop_text")

    def __init__(self, claimed: ClaimedJob) -> None:
        self.claimed = claimed
        self.stop_reason = ""
        self.stop_text = ""
        self.is_late = False
        self.interrupt: Callable[[str], object] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.handler} on {self.queue}, try {self.attempt}>"

    @property
    def id(self) -> int:
        """Return its id."""
        return self.claimed.id

    @property
    def handler(self) -> str:
        """Return the handler's name."""
        return self.claimed.handler

    @property
    def queue(self) -> str:
        """Return the queue that it is from."""
        return self.claimed.queue

    @property
    def payload(self) -> Any:
        """Return its payload, a copy each time."""
        text = self.claimed.payload
        return {} if text == "{}" else json.loads(text)

    @property
    def attempt(self) -> int:
        """Return which try this is, from 1."""
        return self.claimed.attempt

    @property
    def max_attempts(self) -> int:
        """Return how many tries it gets."""
        return self.claimed.max_attempts

    @property
    def run_at(self) -> datetime:
        """Return when it was due."""
        return self.claimed.run_at

    @property
    def created_at(self) -> datetime:
        """Return when it was queued."""
        return self.claimed.created_at

    @property
    def type(self) -> str:
        """Return its type."""
        return self.claimed.type

    @property
    def key(self) -> str:
        """Return a key of this try, for others that have to be called at most once by it."""
        return f"{self.claimed.id}-{self.claimed.token}"

    def is_cancelled(self) -> bool:
        """Tell whether the handler is to end: it was cancelled, took too long, or its lease was lost.

        A coroutine is cancelled besides; a function in a thread has to ask here now and then.
        """
        return bool(self.stop_reason)

    def stop(self, reason: str, text: str) -> None:
        """Ask the handler to end; for who runs it, in the thread of the event loop.

        Args:
            reason: cancelled, lost, timed_out or stopping; the first one is what it is told.
            text: The same for people.
        """
        if not self.stop_reason:
            self.stop_reason, self.stop_text = reason, text
        if self.interrupt is not None:
            self.interrupt(reason)
