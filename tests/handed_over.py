"""Jobs with a handler whose runs go on with their queued job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.declared import channel, job
from tests.queued import claim_one, fail
from tests.runs import fire, log

if TYPE_CHECKING:
    import psycopg

    from tests.declared import Site
    from tests.queued import Claimed


def declare(site: Site, *others: Any, **fields: Any) -> None:
    """Declare the job a with a handler, and a channel that hears of it."""
    options = {"handler": "work.do", "alert": {"channels": ["ops"]}, **fields}
    site.apply(channel("ops"), job("a", **options), *others)


def begin(site: Site, name: str = "a") -> int:
    """Fire a job with a handler; return its queued job."""
    assert fire(site, name) is None
    row = log(site, name, "status", "handed_over", "queued_job_id")[-1]
    assert row[:2] == ("running", True)
    return int(row[2])


def give_up(worker: psycopg.Connection, error: str = "no") -> Claimed:
    """Claim the next job and fail it for good."""
    claimed = claim_one(worker)
    assert fail(worker, claimed, error, final=True) == "failed"
    return claimed
