"""Jobs as values: what is sent of them, and every reason why one cannot be."""

from __future__ import annotations

import dataclasses
import json
from collections import ChainMap
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest

from reconciler.core.payloads import find_payload_faults
from reconciler.core.queued_jobs import NewJob, QueuedJob, check_instant, encode_jobs
from reconciler.errors import InvalidInputError

BYTES = " is of the class bytes, which JSON cannot hold: write it as text, such as base64"
NO_TEXT = "a character that PostgreSQL cannot keep: NUL, or half of a pair of surrogates"
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


class Level(IntEnum):
    """A number with a name."""

    HIGH = 7


def encode(*jobs: NewJob, now: datetime | None = None) -> list[dict[str, Any]]:
    """Encode jobs, and read what would be sent."""
    found: list[dict[str, Any]] = json.loads(encode_jobs(jobs, now))
    return found


def problems(*jobs: Any) -> tuple[str, ...]:
    """Return what is wrong with jobs."""
    with pytest.raises(InvalidInputError) as caught:
        encode_jobs(jobs, None)
    return caught.value.problems


def make_job(**fields: Any) -> QueuedJob:
    """Make a row of the jobs table."""
    names = {one.name: None for one in dataclasses.fields(QueuedJob)}
    values = {"id": 1, "queue": "default", "status": "pending", "run_at": NOW, **fields}
    return QueuedJob(**{**names, **values})


def test_what_is_as_usual_is_not_sent() -> None:
    """The server has the same defaults."""
    assert encode(NewJob("mail.send")) == [{"handler": "mail.send", "payload": {}}]
    assert encode(NewJob("mail.send", None)) == [{"handler": "mail.send"}]
    assert encode() == []


def test_everything_that_is_said_is_sent() -> None:
    """Each argument under its own name; times with their offset, durations to the microsecond."""
    job = NewJob(
        "mail.send",
        {"to": ["anna", None, 1, 1.5, True], "text": "kø"},
        queue="outreach",
        run_at=datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=1))),
        priority=Level.HIGH,
        unique_key="anna",
        ordering_key="",
        max_attempts=3,
        timeout=timedelta(days=2, microseconds=1),
        type="email",
    )
    assert encode(job) == [
        {
            "handler": "mail.send",
            "payload": {"to": ["anna", None, 1, 1.5, True], "text": "kø"},
            "queue": "outreach",
            "run_at": "2026-12-01T09:00:00+01:00",
            "priority": 7,
            "unique_key": "anna",
            "ordering_key": "",
            "max_attempts": 3,
            "timeout": "172800000001 microseconds",
            "type": "email",
        }
    ]


@pytest.mark.parametrize("payload", [[1], "text", 0, False, 2.5])
def test_a_payload_is_any_json(payload: object) -> None:
    """Not only objects."""
    assert encode(NewJob("a", payload))[0]["payload"] == payload


def test_some_time_from_now_counts_from_the_servers_clock() -> None:
    """As long as that is not known, nothing is said of it."""
    job = NewJob("a", run_at=timedelta(minutes=10))
    assert "run_at" not in encode(job)[0]
    assert encode(job, now=NOW)[0]["run_at"] == "2026-11-22T08:10:00+00:00"


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (NewJob(""), "handler is empty"),
        (NewJob(" "), "handler is empty"),
        (NewJob(test_a_payload_is_any_json), "handler is of the class function: give the function's name"),  # type: ignore[arg-type]
        (NewJob(7), "handler is of the class int: give a text"),  # type: ignore[arg-type]
        (NewJob(None), "handler is of the class NoneType: give a text"),  # type: ignore[arg-type]
        (NewJob("a\0b"), "handler has a character that PostgreSQL cannot keep: NUL, or half of a pair"),
        (NewJob("a", queue=""), "queue is empty"),
        (NewJob("a", type=""), "type is empty"),
        (NewJob("a", unique_key=12), "unique_key is of the class int: give a text"),  # type: ignore[arg-type]
        (NewJob("a", ordering_key="\ud800"), "ordering_key has a character"),
        (NewJob("a", run_at=datetime(2026, 12, 1)), "run_at has no time zone"),  # noqa: DTZ001 - that is the point
        (
            NewJob("a", run_at=date(2026, 12, 1)),  # type: ignore[arg-type]
            "run_at is of the class date: give a datetime with a time zone, or",
        ),
        (NewJob("a", run_at="now"), "run_at is of the class str"),  # type: ignore[arg-type]
        (NewJob("a", run_at=timedelta(days=4000)), "run_at is more than ten years away"),
        (
            NewJob("a", priority=2**31),
            "priority is 2147483648: give a whole number from -2147483648 to 2147483647",
        ),
        (NewJob("a", priority=None), "priority is None"),  # type: ignore[arg-type]
        (NewJob("a", priority=True), "priority is True"),
        (NewJob("a", max_attempts=0), "max_attempts is 0: give a whole number from 1"),
        (NewJob("a", timeout=60), "timeout is 60: give a timedelta"),  # type: ignore[arg-type]
        (NewJob("a", timeout=timedelta()), "timeout is no time"),
        (NewJob("a", timeout=timedelta(days=4000)), "timeout is longer than ten years"),
    ],
)
def test_what_no_job_can_have_is_told(job: NewJob, problem: str) -> None:
    """Before anything is sent."""
    [found] = problems(job)
    assert found.startswith(problem)


def test_all_problems_of_all_jobs_are_told_at_once() -> None:
    """Each with its place."""
    found = problems(
        NewJob("a"), NewJob("", {"b": {1}}), NewJob("c", {"d": [date(2026, 1, 1), b""]}), {"handler": "e"}
    )
    assert found == (
        "jobs[1].handler is empty",
        "jobs[2].payload.d[0] is of the class date, which JSON cannot hold: write its .isoformat()",
        f"jobs[2].payload.d[1]{BYTES}",
        "jobs[3] is of the class dict: make a NewJob of it",
    )


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (
            {"at": datetime(2026, 1, 1, tzinfo=UTC)},
            "payload.at is of the class datetime, which JSON cannot hold: write its .isoformat()",
        ),
        (
            {"at": timedelta(1)},
            "payload.at is of the class timedelta, which JSON cannot hold: write its .total_seconds()",
        ),
        (
            {"id": UUID(int=1)},
            "payload.id is of the class UUID, which JSON cannot hold: write str(...) of it",
        ),
        (
            [{"sum": Decimal(1)}],
            "payload[0].sum is of the class Decimal, which JSON cannot hold: write str(...) of it",
        ),
        (
            {"ids": frozenset({1})},
            "payload.ids is of the class frozenset, which JSON cannot hold: write sorted(...) of it",
        ),
        (ChainMap(), "payload is of the class ChainMap, which JSON cannot hold: write dict(...) of it"),
        ({"x": object()}, "payload.x is of the class object, which JSON cannot hold"),
        ((float("nan"),), "payload[0] is nan, which JSON cannot hold: write null"),
        ({"x": float("-inf")}, "payload.x is -inf, which JSON cannot hold: write null"),
        (
            {"x": "a\0"},
            f"payload.x has {NO_TEXT}",
        ),
        (
            {"x": "\udfff"},
            f"payload.x has {NO_TEXT}",
        ),
        (
            {"a\0": 1},
            f"payload has a key with {NO_TEXT}",
        ),
        ({"x": {(1, 2): 3}}, "payload.x has a key of the class tuple: keys are texts"),
        ({float("inf"): 1}, "payload has the key inf, which JSON cannot hold"),
        ({"x": 10**5000}, "payload.x has too many digits"),
    ],
)
def test_what_json_cannot_hold_is_told_with_its_place(payload: object, fault: str) -> None:
    """And with what to do about it where that is known."""
    assert problems(NewJob("a", payload)) == (fault,)


def test_a_payload_that_holds_itself_is_refused() -> None:
    """Whether in a list or in an object; twice the same thing beside itself is fine."""
    around: dict[str, Any] = {"in": []}
    around["in"].append(around)
    assert problems(NewJob("a", around)) == ("payload.in[0] holds itself",)
    same = [1]
    assert encode(NewJob("a", [same, same]))[0]["payload"] == [[1], [1]]


def test_a_payload_that_is_nested_too_deeply_is_refused() -> None:
    """It is no crash."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert problems(NewJob("a", deep)) == ("payload is nested more than 1000 deep",)


def test_a_written_out_nul_is_a_text_like_any_other() -> None:
    """A backslash and u0000 are six characters, and no NUL."""
    assert encode(NewJob("a", {"x": "\\u0000"}))[0]["payload"] == {"x": "\\u0000"}


def test_only_the_first_faults_of_a_payload_are_told() -> None:
    """Ten are enough to see what is wrong."""
    assert len(problems(NewJob("a", [{1}] * 50))) == 10


def test_what_the_search_does_not_find_is_told_as_json_tells_it() -> None:
    """A value may have ways of its own."""

    class Strange(dict[str, Any]):
        def items(self) -> Any:
            raise ValueError("no items today")

    assert problems(NewJob("a", Strange(a=1))) == ("payload: JSON cannot hold this: no items today",)


def test_only_what_is_wrong_is_told() -> None:
    """Whatever stands beside it."""
    good = {"a": [None, True, 1, -1.5, "b", {1: 2, 2.5: 3, None: 4}]}
    assert list(find_payload_faults(good, "payload")) == []
    assert problems(NewJob("a", [good, b""])) == (f"payload[1]{BYTES}",)


def test_an_instant_has_a_time_zone() -> None:
    """None is fine, where now is meant."""
    check_instant(None, "run_at")
    check_instant(NOW, "run_at")
    with pytest.raises(InvalidInputError, match="run_at has no time zone"):
        check_instant(NOW.replace(tzinfo=None), "run_at")
    with pytest.raises(
        InvalidInputError, match="run_at is of the class timedelta: give a datetime with a time zone"
    ):
        check_instant(timedelta(1), "run_at")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "run_at", "is_scheduled", "is_finished"),
    [
        ("pending", NOW + timedelta(seconds=1), True, False),
        ("pending", NOW, False, False),
        ("running", NOW + timedelta(seconds=1), False, False),
        ("completed", NOW, False, True),
        ("failed", NOW, False, True),
        ("cancelled", NOW + timedelta(days=1), False, True),
    ],
)
def test_a_pending_job_that_is_not_due_is_scheduled(
    status: str, run_at: datetime, *, is_scheduled: bool, is_finished: bool
) -> None:
    """No other one is."""
    job = make_job(status=status, run_at=run_at)
    assert (job.is_scheduled(NOW), job.is_finished) == (is_scheduled, is_finished)
