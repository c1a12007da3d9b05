from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.desired import HOLDS, make_desired
from reconciler.core.names import is_name
from reconciler.core.specs import (
    Daily,
    Every,
    HandlerBody,
    HttpBody,
    JobSpec,
    Monthly,
    Once,
    Schedule,
    Spec,
    SqlBody,
    WorkerSpec,
)
from tests.core_builders import PLACE, make_entry, make_facts, make_job, make_other

if TYPE_CHECKING:
    from reconciler.core.facts import Facts
    from reconciler.core.state import DesiredState, Entry

_HTTP = HttpBody(url="https://shop.example/run")
_HANDLER = HandlerBody(handler="mail.welcome", queue="default")


def _make(*specs: Spec, facts: Facts | None = None, role: str = "") -> DesiredState:
    desired, problems = make_desired(specs, facts or make_facts(), owner="shop", role=role)
    assert problems == ()
    return desired


def _entry_of(spec: JobSpec, *, facts: Facts | None = None, role: str = "") -> Entry | None:
    return _make(spec, facts=facts, role=role).resources[spec.name].entry


def _notices(*specs: Spec) -> dict[str, tuple[str, ...]]:
    return {notice.code: notice.names for notice in _make(*specs).notices}


def _problem_of(spec: Spec, facts: Facts | None = None) -> str:
    _, problems = make_desired([spec], facts or make_facts(), owner="shop")
    assert [problem.place for problem in problems] == [PLACE]
    return problems[0].message


def test_a_managed_job_is_one_constant_call() -> None:
    """cron.job holds the call; the body lives in the definition."""
    assert _entry_of(make_job("a")) == make_entry("a", username="")


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"mode": "direct", "body": SqlBody(text="VACUUM")}, {"command": "VACUUM"}),
        (
            {"mode": "direct", "body": SqlBody(text="VACUUM"), "database": "b"},
            {"command": "VACUUM", "database": "b"},
        ),
        ({"mode": "direct", "body": _HANDLER}, {}),
        ({"active": False}, {"active": False}),
        ({"role": "billing"}, {"username": "billing"}),
        ({"trigger": Daily(hour=2, minute=30)}, {"schedule": "30 2 * * *"}),
        ({"timezone": "UTC"}, {}),
        ({"database": "app"}, {}),
    ],
)
def test_an_entry_says_what_was_declared(changed: dict[str, Any], fields: dict[str, Any]) -> None:
    """Each declaration shows in its field of the entry and in no other."""
    assert _entry_of(make_job("a", **changed)) == make_entry("a", **{"username": "", **fields})


def test_the_targets_role_runs_what_names_none() -> None:
    """A job's own role goes before the target's."""
    own = _entry_of(make_job(role="billing"), role="jobs")
    targets = _entry_of(make_job(), role="jobs")
    assert own is not None
    assert targets is not None
    assert (own.username, targets.username) == ("billing", "jobs")


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (make_job("a", body=_HTTP), "http"),
        (make_job("a", timezone="Europe/Oslo"), "timezone"),
        (make_job("a", trigger=Once(at=datetime(2026, 12, 1, tzinfo=UTC))), "once"),
        (make_other("worker", "a"), "worker"),
    ],
)
def test_what_is_not_executed_has_no_entry_and_is_said(spec: Spec, code: str) -> None:
    """A reviewer reads which resources are stored only."""
    desired = _make(spec)
    assert desired.resources["a"].entry is None
    assert [(notice.code, notice.message, notice.names) for notice in desired.notices] == [
        (code, HOLDS[code], ("a",))
    ]


def test_a_one_time_job_is_marked() -> None:
    """One-time jobs are rows of the jobs table; recurring ones are not."""
    desired = _make(make_job("a", trigger=Once(at=datetime(2026, 12, 1, tzinfo=UTC))), make_job("b"))
    assert (desired.resources["a"].once, desired.resources["b"].once) == (True, False)


@pytest.mark.parametrize("kind", ["queue", "channel"])
def test_queues_and_channels_are_stored_without_notice(kind: Any) -> None:
    """They have no entry and nothing to wait for."""
    assert _make(make_other(kind, "a")).resources["a"].entry is None
    assert _notices(make_other(kind, "a")) == {}


@pytest.mark.parametrize(
    ("spec", "codes"),
    [
        (make_job(body=_HANDLER), ["handler"]),
        (make_job(after=("b",)), ["after"]),
        (make_job(document={"sql": "x", "timeout": "5m"}), ["policies"]),
        (make_job(document={"sql": "x", "on_failure": {"retries": 1}}), ["policies"]),
        (make_job(document={"sql": "x", "alert": {}}), ["policies"]),
        (make_job(document={"sql": "x", "catch_up": "once"}), ["policies"]),
        (make_job(document={"sql": "x", "concurrency": "wait"}), ["policies"]),
        (make_job(document={"sql": "x", "concurrency": "skip"}), []),
        (make_job(document={"sql": 'SELECT "timeout"', "payload": {"alert": 1}}), []),
        (make_job(document={"labels": {"why": "timeout"}}), []),
    ],
)
def test_policies_that_are_not_carried_out_are_said(spec: Spec, codes: list[str]) -> None:
    """Only a job's own keys count, not a word in its payload or its SQL."""
    assert list(_notices(spec)) == codes


def test_notices_and_resources_are_sorted_whatever_the_order() -> None:
    """Same input, same bytes."""
    specs: list[Spec] = [
        make_job("b", after=("a",)),
        make_job("a", after=("b",)),
        make_other("worker", "w"),
        make_other("queue", "q"),
        make_other("channel", "c"),
    ]
    assert _make(*specs) == _make(*reversed(specs))
    assert list(_make(*specs).resources) == ["c", "q", "a", "b", "w"]
    assert _notices(*specs) == {"after": ("a", "b"), "worker": ("w",)}


_OLD = make_facts(extension="1.4-1", settings={})


@pytest.mark.parametrize(
    ("spec", "facts", "words"),
    [
        (make_job(trigger=Schedule(text="* * * *")), None, "job a: "),
        (make_job(trigger=Schedule(text="0 0 * * * *")), None, "write "),
        (make_job(trigger=Every(interval=timedelta(seconds=90))), None, "every 1m30s"),
        (make_job(trigger=Monthly(day="last", hour=0, minute=0)), _OLD, "pg_cron 1.6"),
        (
            make_job(database="other"),
            None,
            "a managed job runs in the target's own database, app; write 'mode: direct'",
        ),
        (make_job(trigger=Schedule(text="nonsense"), body=_HTTP), None, "job a: "),
        (
            WorkerSpec(name="a", place=PLACE, document="{}", schedule="30 seconds", queue="q"),
            _OLD,
            "worker a: ",
        ),
    ],
)
def test_what_the_server_cannot_take_is_a_problem_with_its_place(
    spec: Spec, facts: Facts | None, words: str
) -> None:
    """The message names the resource, what is wrong and, where there is one, the right text."""
    assert words in _problem_of(spec, facts)


def test_a_schedule_that_cannot_be_taken_makes_no_entry() -> None:
    """A problem is never half applied."""
    desired, _ = make_desired([make_job(trigger=Schedule(text="x"))], make_facts(), owner="shop")
    assert desired.resources["a"].entry is None


def test_a_place_is_written_as_editors_read_it() -> None:
    """Path, line and column."""
    assert str(PLACE) == "jobs.d/a.yaml:3:5"


def test_no_name_needs_quoting_in_a_call() -> None:
    """The command is built from a name, whose grammar has no quote and no backslash."""
    assert not is_name("a'b")
    assert not is_name("a\\b")
