"""When a job runs, in words and in instants, of what was applied; pure but for the zones of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reconciler.core.declared_times import read_timing
from reconciler.core.times.occurrences import find_runs
from reconciler.core.times.rule_times import join_words
from reconciler.core.times.words import describe_clock_changes, describe_timing

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.database.control import AppliedJob
    from reconciler.database.job_pages import ListedJob

_RUNS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """When a job runs.

    Attributes:
        words: One clause; "" where nothing can be said.
        zone: Of its times.
        clock_changes: What it does where clocks are set; "" where that cannot matter.
        runs: The next ones; none where it is not to run.
        after: Jobs that have to succeed first.
    """

    words: str
    zone: str
    clock_changes: str = ""
    runs: tuple[datetime, ...] = ()
    after: tuple[str, ...] = ()


def find_outlook(job: ListedJob, applied: AppliedJob, *, server_zone: str, now: datetime) -> Outlook:
    """Find out when a job runs.

    Args:
        job: As it stands.
        applied: As it was declared.
        server_zone: In which pg_cron reads schedules.
        now: Runs are later.
    """
    after = tuple(job.after)
    kind: Any = job.kind
    timing = read_timing(
        applied.document, job.schedule or "", name=job.name, kind=kind, server_zone=server_zone
    )
    if timing is None:
        succeeded = "has" if len(after) == 1 else "have"
        words = f"whenever {join_words(after)} {succeeded} succeeded since its last run" if after else ""
        return Outlook(words=words, zone=server_zone, after=after)
    is_over = job.retired_until is not None or job.active is False or job.is_entry_missing
    try:
        return Outlook(
            words=describe_timing(timing),
            zone=timing.zone,
            clock_changes=describe_clock_changes(timing, since=now),
            runs=() if is_over else find_runs(timing, after=now, count=_RUNS),
            after=after,
        )
    except ValueError:  # a zone that this machine does not know
        return Outlook(words=job.schedule or "", zone=server_zone, after=after)
