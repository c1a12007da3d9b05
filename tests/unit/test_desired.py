from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.config import Runtime, Target
from reconciler.core.desired import HOLDS, make_desired
from reconciler.core.names import is_name
from reconciler.core.runtime_jobs import Neighbours
from reconciler.core.specs import (
    Blackout,
    ChannelSpec,
    Daily,
    Every,
    HandlerBody,
    HttpBody,
    JobSpec,
    Monthly,
    NthWeekday,
    Once,
    Schedule,
    Spec,
    SqlBody,
    Succeeded,
    WorkerSpec,
)
from reconciler.core.times.clocks import Clock
from tests.core_builders import PLACE, SETTINGS, make_entry, make_facts, make_job, make_other

if TYPE_CHECKING:
    from reconciler.core.facts import Facts
    from reconciler.core.state import DesiredState, Entry

_HTTP = HttpBody(url="https://shop.example/run")
_HANDLER = HandlerBody(handler="mail.welcome", queue="default")
_AT = datetime(2026, 12, 1, tzinfo=UTC)
_EIGHT = Daily(hour=8, minute=0)
_ONCE = Once(at=datetime(2026, 12, 1, tzinfo=UTC))
_SENDING = make_facts(extensions=frozenset({"http"}))
_WORKER = WorkerSpec(name="w", place=PLACE, document="{}", schedule="* * * * *", queue="default")
_QUEUEING = make_facts(extensions=frozenset({"pg_net"}))


def _target(role: str = "", *, runtime: bool = False) -> Target:
    return Target(name="test", role=role, runtime=Runtime() if runtime else None)


def _make(*specs: Spec, facts: Facts | None = None, role: str = "", runtime: bool = False) -> DesiredState:
    target = _target(role, runtime=runtime)
    desired, problems = make_desired(specs, facts or make_facts(), owner="shop", target=target)
    assert problems == ()
    return desired


def _entry_of(spec: JobSpec, *, facts: Facts | None = None, role: str = "") -> Entry | None:
    return _make(spec, facts=facts, role=role).resources[spec.name].entry


def _notices(*specs: Spec, facts: Facts | None = None, runtime: bool = False) -> dict[str, tuple[str, ...]]:
    return {notice.code: notice.names for notice in _make(*specs, facts=facts, runtime=runtime).notices}


def _problem_of(spec: Spec, facts: Facts | None = None) -> str:
    _, problems = make_desired([spec], facts or make_facts(), owner="shop", target=_target())
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
        ({"trigger": _EIGHT, "timezone": "Asia/Kolkata"}, {"schedule": "30 2 * * *"}),
        ({"trigger": _EIGHT, "timezone": "Europe/Oslo"}, {"schedule": "0 6,7 * * *"}),
        ({"trigger": _EIGHT, "timezone": "Europe/Moscow"}, {"schedule": "0 5 * * *"}),
        ({"trigger": Every(interval=timedelta(days=2))}, {"schedule": "0 0 * * *"}),
        ({"trigger": _EIGHT, "start_at": _AT, "end_at": _AT}, {"schedule": "0 8 * * *"}),
        ({"start_at": _AT, "blackout": (Blackout(days=(0, 6)),)}, {}),
        ({"spread": timedelta(minutes=30)}, {"schedule": "10 * * * *"}),
        ({"ambiguous": "first", "timezone": "Europe/Oslo"}, {}),
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
        (make_job("a", body=_HTTP, trigger=_ONCE), "http"),
        (make_job("a", body=_HTTP, trigger=Succeeded()), "http"),
        (make_other("worker", "a"), "http"),
        (ChannelSpec(name="a", place=PLACE, document="{}", deliver="database"), "http"),
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
    desired = _make(make_job("a", trigger=_ONCE), make_job("b"))
    assert (desired.resources["a"].once, desired.resources["b"].once) == (True, False)


@pytest.mark.parametrize("kind", ["queue", "channel"])
def test_queues_and_channels_are_stored_without_notice(kind: Any) -> None:
    """They have no entry and nothing to wait for."""
    assert _make(make_other(kind, "a")).resources["a"].entry is None
    assert _notices(make_other(kind, "a")) == {}


@pytest.mark.parametrize("facts", [_SENDING, _QUEUEING])
def test_requests_are_sent_where_an_extension_can(facts: Facts) -> None:
    """A request has its entry where the database has http or pg_net; a channel that it serves is fine too."""
    channel = ChannelSpec(name="c", place=PLACE, document="{}", deliver="database")
    desired = _make(make_job("a", body=_HTTP), channel, facts=facts, runtime=True)
    assert desired.resources["a"].entry == make_entry("a", username="")
    assert desired.notices == ()


@pytest.mark.parametrize("facts", [_SENDING, _QUEUEING])
def test_a_worker_is_one_constant_call_like_any_job(facts: Facts) -> None:
    """Where requests can be sent, a worker has its entry, as its own role or the target's."""
    named = replace(_WORKER, name="b", role="billing", active=False)
    desired = _make(_WORKER, named, facts=facts, role="jobs", runtime=True)
    assert desired.resources["w"].entry == make_entry("w", schedule="* * * * *", username="jobs")
    assert desired.resources["b"].entry == make_entry(
        "b", schedule="* * * * *", username="billing", active=False
    )
    assert desired.notices == ()


def test_a_worker_that_waits_long_in_a_slot_of_pg_cron_is_said() -> None:
    """Without pg_net a call of over a minute holds a slot and a snapshot; with it nothing is held."""
    long = replace(_WORKER, timeout=timedelta(minutes=1, seconds=1))
    just = replace(_WORKER, name="just", timeout=timedelta(minutes=1))
    assert _notices(long, just, facts=_SENDING) == {"waiting": ("w",)}
    assert _notices(long, just, facts=_QUEUEING, runtime=True) == {}


def test_a_worker_that_is_answered_later_needs_the_runtime() -> None:
    """The tick reads the answers that pg_net has; http answers at once."""
    assert _notices(_WORKER, facts=_QUEUEING) == {"runtime": ("w",)}
    assert _notices(_WORKER, facts=_SENDING) == {}


@pytest.mark.parametrize("body", [SqlBody(text="SELECT 1"), _HANDLER])
@pytest.mark.parametrize("trigger", [_ONCE, Succeeded()])
def test_what_no_schedule_fires_has_no_entry_and_needs_no_notice(
    trigger: Once | Succeeded, body: SqlBody | HandlerBody
) -> None:
    """What runs once, or after others, is started by a runner or taken by a worker."""
    desired = _make(make_job("a", trigger=trigger, body=body), runtime=True)
    assert desired.resources["a"].entry is None
    assert desired.notices == ()


@pytest.mark.parametrize(
    ("document", "needs"),
    [
        ({"timeout": "5m"}, True),
        ({"alert": {}}, True),
        ({"after": ["b"]}, True),
        ({"catch_up": "one"}, True),
        ({"catch_up": "none"}, False),
        ({"on_failure": {"retries": 1}}, True),
        ({"on_failure": {"retries": 0}}, False),
        ({"on_failure": {"backoff": {"initial": "1s"}}}, False),
        ({"concurrency": "wait"}, False),
        ({"once": "2026-12-01T00:00:00Z"}, True),
        ({"once": "2026-12-01T00:00:00Z", "handler": "x"}, False),
        ({"handler": "x", "timeout": "5m", "on_failure": {"retries": 1}}, False),
        ({"handler": "x", "concurrency": "skip"}, False),
        ({"handler": "x", "concurrency": "wait"}, True),
        ({"handler": "x", "alert": {}}, True),
        ({"payload": {"alert": 1}, "labels": {"timeout": "x"}}, False),
    ],
)
def test_what_nobody_carries_out_is_said_where_the_runtime_is_switched_off(
    document: dict[str, Any], needs: bool
) -> None:
    """runtime: false leaves policies without effect; a reviewer reads for which jobs."""
    spec = make_job(document=document)
    assert _notices(spec) == ({"runtime": ("a",)} if needs else {})
    assert _notices(spec, runtime=True) == {}


def test_a_request_that_is_answered_later_needs_the_runtime() -> None:
    """pg_net queues requests, and the tick reads their answers; http answers at once."""
    spec = make_job(body=_HTTP)
    assert _notices(spec, facts=_QUEUEING) == {"runtime": ("a",)}
    assert _notices(spec, facts=_SENDING) == {}


def test_the_tools_own_entries_are_part_of_the_desired_state() -> None:
    """They are resources of the owner like all others, and run as the target's role."""
    desired = _make(make_job("a"), role="jobs", runtime=True)
    assert list(desired.resources) == ["a", "reconciler-runner", "reconciler-tick"]
    tick = desired.resources["reconciler-tick"].entry
    assert tick == make_entry(
        "reconciler-tick",
        schedule="15 seconds",
        command="CALL reconciler.tick(stay => '15 seconds')",
        username="jobs",
    )


@pytest.mark.parametrize("trigger", [_ONCE, Succeeded()])
def test_no_job_runs_as_the_role_of_another_owners_runner(trigger: Once | Succeeded) -> None:
    """Without an entry and without a role a job would be that runner's; it has to name its role."""
    neighbours = Neighbours(entries={"reconciler-runner": "theirs"})
    for spec, role, count in (
        (make_job(trigger=trigger), "jobs", 1),
        (make_job(trigger=trigger), "theirs", 0),
        (make_job(trigger=trigger), "", 0),
        (make_job(trigger=trigger, role="jobs"), "jobs", 0),
        (make_job(trigger=trigger, body=_HANDLER), "jobs", 0),
        (make_job(), "jobs", 0),
    ):
        _, problems = make_desired(
            [spec], make_facts(), owner="shop", target=_target(role), neighbours=neighbours
        )
        assert ["would run as theirs" in problem.message for problem in problems] == [True] * count
        assert ["write 'role: jobs'" in problem.message for problem in problems] == [True] * count


def test_notices_and_resources_are_sorted_whatever_the_order() -> None:
    """Same input, same bytes."""
    specs: list[Spec] = [
        make_job("b", body=_HTTP),
        make_job("a", timezone="Europe/Oslo"),
        make_other("worker", "w"),
        make_other("queue", "q"),
        make_other("channel", "c"),
    ]
    assert _make(*specs) == _make(*reversed(specs))
    assert list(_make(*specs).resources) == ["c", "q", "a", "b", "w"]
    assert _notices(*specs) == {"http": ("b", "w")}


_OLD = make_facts(extension="1.4-1", settings={})


@pytest.mark.parametrize(
    ("spec", "facts", "words"),
    [
        (make_job(trigger=Schedule(text="* * * *")), None, "job a: "),
        (make_job(trigger=Schedule(text="0 0 * * * *")), None, "write "),
        (make_job(trigger=Every(interval=timedelta(seconds=30))), _OLD, "pg_cron 1.5"),
        (make_job(timezone="Mars/Olympus"), None, "job a: the server knows no time zone 'Mars/Olympus'"),
        (
            make_job(database="other"),
            None,
            "a managed job runs in the target's own database, app; write 'mode: direct'",
        ),
        (make_job(trigger=_ONCE, database="other"), None, "runs in the target's own database, app"),
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


@pytest.mark.parametrize(
    ("changed", "zone", "schedule"),
    [
        ({"trigger": _EIGHT, "timezone": "Asia/Kolkata"}, "GMT", "30 2 * * *"),
        ({"trigger": _EIGHT, "timezone": "Europe/Oslo"}, "Europe/Oslo", "0 8 * * *"),
        ({"trigger": _EIGHT, "timezone": "Europe/Oslo"}, "GMT", ""),
        ({"trigger": Every(interval=timedelta(minutes=7))}, "GMT", ""),
        ({"trigger": Monthly(day=NthWeekday(weekday=1, nth=1), hour=8, minute=0)}, "GMT", ""),
        ({"start_at": _AT}, "GMT", ""),
    ],
)
def test_a_direct_job_needs_a_schedule_that_says_just_that(
    changed: dict[str, Any], zone: str, schedule: str
) -> None:
    """Nobody stands between pg_cron and it who could pass over a fire."""
    spec = make_job(mode="direct", **changed)
    facts = make_facts(settings={**SETTINGS, "timezone": zone})
    desired, problems = make_desired([spec], facts, owner="shop", target=_target())
    entry = desired.resources["a"].entry
    assert (entry.schedule if entry else "") == schedule
    assert ["write 'mode: managed'" in problem.message for problem in problems] == [True] * (not schedule)


def test_the_servers_own_clocks_decide_where_they_are_known() -> None:
    """Its time zone data may be older or newer than this machine's."""
    clocks = {"Europe/Oslo": Clock(offsets=(7200,))}
    spec = make_job(trigger=_EIGHT, timezone="Europe/Oslo")
    desired, _ = make_desired([spec], make_facts(), owner="shop", target=_target(), clocks=clocks)
    entry = desired.resources["a"].entry
    assert entry is not None
    assert entry.schedule == "0 6 * * *"


def test_a_schedule_that_cannot_be_taken_makes_no_entry() -> None:
    """A problem is never half applied."""
    spec = make_job(trigger=Schedule(text="x"))
    desired, _ = make_desired([spec], make_facts(), owner="shop", target=_target())
    assert desired.resources["a"].entry is None


def test_a_place_is_written_as_editors_read_it() -> None:
    """Path, line and column."""
    assert str(PLACE) == "jobs.d/a.yaml:3:5"


def test_no_name_needs_quoting_in_a_call() -> None:
    """The command is built from a name, whose grammar has no quote and no backslash."""
    assert not is_name("a'b")
    assert not is_name("a\\b")
