"""Policies on specs that have no such thing, or whose times somebody else complains about."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.policies import SpecPolicy
from reconciler.core.spec_policies import SpecJudge
from reconciler.core.specs import Blackout, Place, Schedule, WorkerSpec
from tests.core_builders import PLACE, make_job

if TYPE_CHECKING:
    from reconciler.core.specs import Spec

WRITTEN = Place(path="reconciler.yaml", line=9, column=5)


def faults(spec: Spec, *, runs_per_hour: int | None = None, retries: int | None = None) -> list[str]:
    """Judge one spec by one policy."""
    rule = SpecPolicy(
        name="p", because="Experience", place=WRITTEN, runs_per_hour=runs_per_hour, retries=retries
    )
    return [violation.fault for violation in SpecJudge([rule], role="").judge([spec])]


def test_a_schedule_that_cannot_be_read_breaks_no_policy() -> None:
    """Somebody else says what is wrong with it."""
    assert faults(make_job(trigger=Schedule(text="61 * * * *")), runs_per_hour=1) == []
    assert faults(make_job(trigger=Schedule(text="1,2 * * * *")), runs_per_hour=1) != []


def test_how_far_a_spread_puts_a_job_off_changes_no_verdict() -> None:
    """The name decides that, and a policy is about what people wrote."""
    evening = Blackout(start=9 * 60, end=24 * 60)
    fault = "it runs 6 times within an hour, more than 5: let it run less often"
    for name in "abc":
        job = make_job(name, trigger=Schedule(text="*/10 8 * * *"), blackout=(evening,))
        assert faults(job, runs_per_hour=5) == [fault]
        assert faults(replace(job, spread=timedelta(hours=1)), runs_per_hour=5) == [fault]


def test_a_worker_has_no_retries() -> None:
    """What its queue does is the queue's."""
    worker = WorkerSpec(name="w", place=PLACE, document="{}", schedule="* * * * *", queue="default")
    assert faults(worker, retries=0) == []
