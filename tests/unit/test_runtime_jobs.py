"""The tool's own entries: which there are, when they fire, and as whom."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.config import Runtime, Target
from reconciler.core.names import is_name
from reconciler.core.runtime_jobs import (
    RUNNER,
    TICK,
    Neighbours,
    find_neighbours,
    make_runtime_specs,
    render_call,
)
from reconciler.core.schedules import find_problem
from reconciler.core.specs import HandlerBody, SqlBody, WorkerSpec
from tests.core_builders import PLACE, make_definition, make_entry, make_facts, make_job, make_other

if TYPE_CHECKING:
    from reconciler.core.facts import Facts
    from reconciler.core.specs import JobSpec, Spec

_OLD: dict[str, Any] = {"extension": "1.4-1", "settings": {"use_background_workers": "off"}}
_OLD_WORKERS: dict[str, Any] = {"extension": "1.4-1", "settings": {"use_background_workers": "on"}}


def _make(
    *specs: Spec,
    role: str = "",
    facts: Facts | None = None,
    neighbours: Neighbours | None = None,
    **runtime: Any,
) -> dict[str, JobSpec]:
    target = Target(name="test", role=role, runtime=Runtime(**runtime))
    made = make_runtime_specs(specs or [make_job()], facts or make_facts(), target, neighbours)
    assert [spec.name for spec in made] == sorted(spec.name for spec in made)
    return {spec.name: spec for spec in made}


def _commands(**options: Any) -> tuple[str, str]:
    made = _make(**options)
    tick, runner = made[TICK].body, made[RUNNER].body
    assert isinstance(tick, SqlBody)
    assert isinstance(runner, SqlBody)
    return tick.text, runner.text


def _schedules(**options: Any) -> set[str]:
    return {json.loads(spec.document)["schedule"] for spec in _make(**options).values()}


def test_one_tick_and_one_runner_serve_managed_jobs() -> None:
    """They are direct jobs with a description, since nothing of ours may wrap the runtime itself."""
    made = _make()
    assert list(made) == [RUNNER, TICK]
    assert {spec.mode for spec in made.values()} == {"direct"}
    assert _commands() == ("CALL reconciler.tick(stay => '15 seconds')", "CALL reconciler.runner()")
    assert str(made[TICK].place) == "reconciler.yaml:1:1"
    document = json.loads(made[TICK].document)
    assert document.keys() == {"description", "mode", "schedule", "sql"}


def test_workers_are_managed_jobs() -> None:
    """A worker alone has the tick and a runner of its role too."""
    worker = WorkerSpec(
        name="w", place=PLACE, document="{}", schedule="* * * * *", queue="default", role="billing"
    )
    assert set(_make(make_other("worker", "a"), worker)) == {TICK, RUNNER, f"{RUNNER}-billing"}


def test_a_queue_has_the_tick_alone() -> None:
    """Its old jobs are to go, and nothing of it is to be started."""
    assert set(_make(make_other("queue", "q"))) == {TICK}
    assert set(_make(make_other("queue", "q"), make_job())) == {TICK, RUNNER}


@pytest.mark.parametrize("spec", [make_other("channel", "c"), make_job(mode="direct"), None])
def test_without_a_managed_job_there_is_nothing_to_serve(spec: Spec | None) -> None:
    """No entry of ours is made for what pg_cron does alone."""
    target = Target(name="test", runtime=Runtime())
    assert make_runtime_specs([spec] if spec else [], make_facts(), target) == ()


def test_a_target_can_go_without() -> None:
    """runtime: false declares none."""
    assert make_runtime_specs([make_job()], make_facts(), Target(name="test")) == ()


def test_each_role_has_its_own_runners() -> None:
    """An entry runs as one role; the first names serve jobs that name none."""
    specs = [
        make_job("a"),
        make_job("b", role="billing"),
        make_job("c", role="jobs", body=HandlerBody(handler="x", queue="q")),
        make_job("d", role="vacuum", mode="direct"),
    ]
    made = _make(*specs, role="jobs", runners=2)
    assert {name: spec.role for name, spec in made.items()} == {
        TICK: "",
        RUNNER: "",
        f"{RUNNER}-2": "",
        f"{RUNNER}-billing": "billing",
        f"{RUNNER}-billing-2": "billing",
    }
    assert json.loads(made[f"{RUNNER}-billing"].document)["role"] == "billing"


def test_roles_that_are_all_named_leave_no_runner_without_work() -> None:
    """Where each job names its role, nobody runs those that name none."""
    assert set(_make(make_job(role="a"), make_job("b", role="b"))) == {TICK, f"{RUNNER}-a", f"{RUNNER}-b"}


@pytest.mark.parametrize("role", ["2", "billing-8", "Billing", "bill ing", "é", "x" * 44, "a1b2c3d4", "_"])
def test_a_role_whose_name_does_not_fit_is_marked_by_a_hash(role: str) -> None:
    """A further runner or another role never has the same name."""
    (name,) = _make(make_job(role=role)).keys() - {TICK}
    assert name != f"{RUNNER}-{role}"
    assert is_name(f"{name}-8")
    assert len(name.rpartition("-")[2]) == 8


@given(st.sets(st.text(min_size=1, max_size=63), min_size=2, max_size=6))
def test_whatever_roles_are_called_each_has_a_name_of_its_own(roles: set[str]) -> None:
    """Names fit ours, are not over 63 bytes, and never collide."""
    specs = [make_job(f"j{number}", role=role) for number, role in enumerate(roles)]
    made = _make(*specs, runners=8)
    assert len(made) == 8 * len(roles) + 1
    assert all(map(is_name, made))


@pytest.mark.parametrize(
    ("every", "facts", "schedule", "tick", "runner"),
    [
        (timedelta(seconds=1), {}, "1 second", "stay => '1 second'", ""),
        (timedelta(seconds=30), {}, "30 seconds", "stay => '30 seconds'", ""),
        (timedelta(minutes=1), {}, "* * * * *", "stay => '50 seconds'", ""),
        (timedelta(hours=1), {}, "0 * * * *", "stay => '50 seconds'", ""),
        (timedelta(seconds=15), _OLD, "* * * * *", "stay => '50 seconds'", "stay => '50 seconds'"),
        (timedelta(seconds=15), {**_OLD, "settings": {}}, "* * * * *", "stay => '50 seconds'",
         "stay => '50 seconds'"),
        (timedelta(minutes=5), _OLD, "*/5 * * * *", "stay => '50 seconds'", ""),
        (timedelta(seconds=15), _OLD_WORKERS, "* * * * *", "stay => '1 hour'", ""),
        (timedelta(minutes=5), _OLD_WORKERS, "*/5 * * * *", "stay => '1 hour'", ""),
    ],
)  # fmt: skip
def test_they_look_as_often_as_the_server_can(
    every: timedelta, facts: dict[str, Any], schedule: str, tick: str, runner: str
) -> None:
    """Where pg_cron knows no seconds a call stays; in its old background workers only the tick may."""
    server = make_facts(**facts)
    assert _schedules(every=every, facts=server) == {schedule}
    assert find_problem(schedule, server.dialect) is None
    expected = (f"CALL reconciler.tick({tick})", f"CALL reconciler.runner({runner})")
    assert _commands(every=every, facts=server) == expected


@pytest.mark.parametrize(
    ("runtime", "arguments"),
    [
        ({"keep_runs": timedelta(days=30), "keep_details": timedelta(days=7)}, ""),
        ({"keep_runs": timedelta(days=14)}, "keep_runs => '14 days', "),
        ({"keep_details": timedelta(days=1, hours=12)}, "keep_details => '1 day 12 hours', "),
        (
            {"keep_runs": timedelta(minutes=1), "keep_details": timedelta(seconds=2, milliseconds=500)},
            "keep_runs => '1 minute', keep_details => '2 seconds 500 milliseconds', ",
        ),
    ],
)
def test_the_tick_is_told_what_differs_from_its_defaults(runtime: dict[str, Any], arguments: str) -> None:
    """A short call while all is as usual."""
    assert _commands(**runtime)[0] == f"CALL reconciler.tick({arguments}stay => '15 seconds')"


def test_arguments_stand_in_one_order() -> None:
    """Same input, same bytes."""
    commands = _commands(
        facts=make_facts(**_OLD), keep_runs=timedelta(days=1), keep_details=timedelta(days=2)
    )
    assert commands[0] == (
        "CALL reconciler.tick(keep_runs => '1 day', keep_details => '2 days', stay => '50 seconds')"
    )


def test_what_another_owner_declared_is_there_already() -> None:
    """Of two owners in one database one has the tick; each has the runners that the other lacks."""
    neighbours = Neighbours(entries={TICK: "jobs", RUNNER: "jobs"})
    specs = [make_job("a"), make_job("b", role="billing")]
    assert set(_make(*specs, role="jobs", neighbours=neighbours)) == {f"{RUNNER}-billing"}
    assert set(_make(*specs, neighbours=neighbours)) == {f"{RUNNER}-billing"}
    assert set(_make(*specs, role="jobs", neighbours=neighbours, runners=2)) == {
        f"{RUNNER}-2",
        f"{RUNNER}-billing",
        f"{RUNNER}-billing-2",
    }


def test_a_runner_of_another_role_serves_nobody_of_ours() -> None:
    """Where another owner's first runner runs as another role, ours has the role in its name."""
    neighbours = Neighbours(entries={TICK: "theirs", RUNNER: "theirs"})
    made = _make(role="jobs", neighbours=neighbours)
    assert {name: spec.role for name, spec in made.items()} == {f"{RUNNER}-jobs": ""}


def test_what_others_rely_on_stays_without_jobs_of_our_own() -> None:
    """The last managed job of the owner that has the tick takes nothing from the others."""
    ours = {TICK: "jobs", RUNNER: "jobs", f"{RUNNER}-billing": "billing", f"{RUNNER}-x": "x"}
    left = make_job(mode="direct")
    neighbours = Neighbours(ours=ours, roles=frozenset({"jobs", "billing"}))
    made = _make(left, role="jobs", neighbours=neighbours)
    assert {name: spec.role for name, spec in made.items()} == {
        TICK: "",
        RUNNER: "",
        f"{RUNNER}-billing": "billing",
    }
    assert set(_make(left, neighbours=Neighbours(ours=ours, has_queues=True))) == {TICK}
    assert _make(left, neighbours=Neighbours(ours=ours)) == {}
    assert _make(left, neighbours=Neighbours(has_queues=True)) == {}
    assert _make(left, neighbours=Neighbours(roles=frozenset({"jobs"}))) == {}


def test_neighbours_are_the_owners_of_other_definitions() -> None:
    """What others run under our lock counts; what pg_cron runs as it is does not."""
    definitions = [
        make_definition("a", entry=make_entry("a", 1, username="mine")),
        make_definition("b", owner="crm", entry=make_entry("b", 2, username="theirs")),
        make_definition("c", owner="crm", entry=make_entry("c", 3, username="other", command="VACUUM")),
        make_definition("d", owner="crm"),
        make_definition(RUNNER, entry=make_entry(RUNNER, 4, username="mine")),
        make_definition(f"{RUNNER}-2"),
        make_definition(TICK, owner="crm", entry=make_entry(TICK, 5, username="theirs")),
    ]
    assert find_neighbours({one.name: one for one in definitions}, "shop") == Neighbours(
        entries={TICK: "theirs"}, roles=frozenset({"theirs"}), ours={RUNNER: "mine", f"{RUNNER}-2": ""}
    )
    queue = make_definition("q", kind="queue", owner="crm")
    assert find_neighbours({"q": queue}, "shop") == Neighbours(has_queues=True)
    assert find_neighbours({"q": queue}, "crm") == Neighbours()


def test_a_call_names_its_job() -> None:
    """The one command of all managed entries."""
    assert render_call("a.b-c") == "CALL reconciler.run_job('a.b-c')"
