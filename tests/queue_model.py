"""A model of queues in memory: what each function of a queue has to do, said without a database.

It knows nothing of time but what is said to it, and nothing of chance: what the database chooses by chance is
looked at and believed within bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OPEN = ("pending", "running")
LOSSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A queue's settings, as far as they decide what is claimed."""

    mode: str = "standard"
    max_attempts: int = 3
    concurrency: int = 1_000_000
    held_by: tuple[str, ...] = ("retry",)


@dataclass(slots=True, kw_only=True)
class Row:
    """A queued job."""

    id: int
    queue: str
    priority: int
    key: str | None
    unique: str | None
    max_attempts: int | None
    status: str = "pending"
    attempts: int = 0
    losses: int = 0
    token: int = 0
    is_begun: bool = False
    is_cancelled: bool = False
    run_at: float = 0
    lease_until: float = 0
    completed_at: float = 0

    @property
    def is_open(self) -> bool:
        """Tell whether it is not finished."""
        return self.status in OPEN

    def end(self, status: str, now: float) -> str:
        """Finish it; what somebody cancelled is cancelled, unless it was completed."""
        self.status = "cancelled" if self.is_cancelled and status != "completed" else status
        self.completed_at = now
        return self.status


@dataclass(kw_only=True)
class Model:
    """Some queues and all their jobs by id."""

    settings: dict[str, Settings]
    rows: dict[int, Row] = field(default_factory=dict)

    def order_key(self, queue: str, key: str | None) -> str | None:
        """Return the key that a job of a queue gets."""
        return "" if self.settings[queue].mode == "blocking" else key or None

    def holder(self, queue: str, unique: str | None) -> Row | None:
        """Return the open job that has a unique key."""
        if unique is None:
            return None
        return next((r for r in self.of(queue) if r.is_open and r.unique == unique), None)

    def of(self, queue: str, *statuses: str) -> list[Row]:
        """Return the jobs of a queue, by id."""
        return [r for r in self.rows.values() if r.queue == queue and (not statuses or r.status in statuses)]

    def own(self, job: int, token: int) -> Row | None:
        """Return a job if it runs under this token."""
        row = self.rows[job]
        return row if row.status == "running" and row.token == token else None

    def room(self, queue: str) -> int:
        """Return how many of a queue may begin."""
        settings = self.settings[queue]
        running = len(self.of(queue, "running"))
        if settings.mode == "blocking":
            return 0 if running else 1
        return max(settings.concurrency - running, 0)

    def head(self, queue: str, key: str, now: float) -> Row | None:
        """Return which job of an order may begin."""
        held_by = self.settings[queue].held_by
        line = [r for r in self.of(queue) if r.key == key]
        if any(r.status == "running" for r in line):
            return None
        if "failed" in held_by and any(r.status == "failed" for r in line):
            return None
        waiting = [r for r in line if r.status == "pending"]
        for row in (r for r in waiting if r.is_begun):
            if row.run_at <= now:
                return row
            if "retry" in held_by:
                return None
        if "future" not in held_by:
            waiting.sort(key=lambda r: (r.run_at, r.id))
        return waiting[0] if waiting and waiting[0].run_at <= now else None

    def may_begin(self, queue: str, now: float) -> tuple[list[Row], list[Row]]:
        """Return the heads of all orders, of which any may begin, and the other jobs in their order."""
        if self.settings[queue].mode == "blocking":
            for row in self.of(queue, "pending"):
                row.key = ""
        waiting = self.of(queue, "pending")
        keys = {r.key for r in waiting if r.key is not None}
        heads = [head for key in keys if (head := self.head(queue, key, now)) is not None]
        others = [r for r in waiting if r.key is None and r.run_at <= now]
        return heads, sorted(others, key=lambda r: (-r.priority, r.run_at, r.id))

    def may_revive(self, queue: str, room: int) -> list[Row]:
        """Return the dead jobs that are taken up, the longest dead first."""
        taken: list[Row] = []
        is_blocking = self.settings[queue].mode == "blocking"
        for row in sorted(self.of(queue, "failed"), key=lambda r: (r.completed_at, r.id)):
            if len(taken) == room:
                break
            running = {r.key for r in [*self.of(queue, "running"), *taken]} - {None}
            uniques = {r.unique for r in [*self.of(queue, *OPEN), *taken]} - {None}
            if row.unique not in uniques and row.key not in running:
                taken.append(row)
                if is_blocking:
                    row.key = ""
        return taken

    def begin(self, row: Row, lease_until: float) -> None:
        """Note that a job was claimed."""
        if row.status == "failed":
            row.losses, row.is_cancelled = 0, False
        row.status, row.token, row.is_begun = "running", row.token + 1, True
        row.attempts += 1
        row.lease_until = lease_until

    def is_last(self, row: Row) -> bool:
        """Tell whether a job has no more tries."""
        return row.attempts >= (row.max_attempts or self.settings[row.queue].max_attempts)

    def fail(self, row: Row, now: float, *, final: bool) -> str:
        """End a try that failed."""
        if row.is_cancelled or final or self.is_last(row):
            return row.end("failed", now)
        row.status = "pending"
        return row.status

    def snooze(self, row: Row, now: float) -> None:
        """Put a job off."""
        if row.is_cancelled:
            row.end("cancelled", now)
        else:
            row.status, row.attempts = "pending", row.attempts - 1

    def give_back(self, row: Row, now: float) -> None:
        """Give a job back."""
        if row.is_cancelled:
            row.end("cancelled", now)
            return
        row.is_begun = row.attempts > 1 or row.losses > 0 or row.key is not None
        row.status, row.attempts = "pending", row.attempts - 1

    def lose(self, row: Row, now: float) -> None:
        """Take a job from a worker that is gone."""
        row.losses, row.token = row.losses + 1, row.token + 1
        if row.is_cancelled or row.losses >= LOSSES or self.is_last(row):
            row.end("failed", now)
        else:
            row.status = "pending"

    def cancel(self, row: Row, now: float) -> str:
        """Cancel a job."""
        if row.status == "pending":
            return row.end("cancelled", now)
        if row.status == "running":
            row.is_cancelled = True
            return "cancelling"
        return row.status

    def retry(self, row: Row) -> str | None:
        """Revive a job; None where its unique key is taken."""
        if row.status not in {"failed", "cancelled"}:
            return row.status
        if self.holder(row.queue, row.unique) is not None:
            return None
        row.status, row.attempts, row.losses, row.is_cancelled = "pending", 0, 0, False
        row.key = self.order_key(row.queue, row.key)
        return "pending"

    def switch(self, queue: str, settings: Settings) -> None:
        """Change the settings of a queue; those that wait get in line, or leave it."""
        self.settings[queue] = settings
        for row in self.of(queue, "pending"):
            row.key = "" if settings.mode == "blocking" else row.key or None
