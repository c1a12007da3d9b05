from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.specs import Daily, Every, HttpBody, Monthly, Once, Succeeded, WorkerSpec
from reconciler.core.state import Pause
from reconciler.core.times.dialects import dialect_for
from reconciler.core.times.local_rules import render_rule
from reconciler.core.times.timetable import Scheduled, make_timetable
from tests.core_builders import (
    PLACE,
    make_definition,
    make_document,
    make_entry,
    make_facts,
    make_job,
    make_observed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.core.specs import Spec
    from reconciler.core.state import ObservedState

_WORKER = WorkerSpec(name="w", place=PLACE, document="{}", schedule="* * * * *", queue="default")
_OLD, _NEW = dialect_for((1, 4, 2)), dialect_for((1, 6, 5))
_SOON = datetime(2026, 12, 1, 8, tzinfo=UTC)


def _tabulate(
    specs: Iterable[Spec] = (), observed: ObservedState | None = None, **options: Any
) -> dict[str, Scheduled]:
    fields: dict[str, Any] = {"owner": "shop", "server_zone": "GMT", "dialect": _NEW, **options}
    found = make_timetable(specs, observed=observed, **fields)
    assert [each.name for each in found] == sorted({each.name for each in found})
    return {each.name: each for each in found}


def test_declared_jobs_have_the_entry_that_an_apply_makes() -> None:
    """A job in a zone of its own has its superset, a worker has what was written."""
    found = _tabulate(
        [
            make_job("b", trigger=Daily(hour=8, minute=0), timezone="Europe/Oslo"),
            make_job("a", trigger=Every(interval=timedelta(minutes=5))),
            replace(_WORKER, name="c", schedule="30 seconds"),
        ]
    )
    assert [(name, each.kind, each.schedule, each.owner) for name, each in found.items()] == [
        ("a", "job", "*/5 * * * *", "shop"),
        ("b", "job", "0 6,7 * * *", "shop"),
        ("c", "worker", "30 seconds", "shop"),
    ]
    assert found["b"].timing.zone == "Europe/Oslo"


def test_what_this_pg_cron_cannot_take_has_no_entry() -> None:
    """An interval of seconds has no text in pg_cron 1.4, and is wanted all the same."""
    specs = [make_job("a", trigger=Every(interval=timedelta(seconds=30)))]
    assert _tabulate(specs, dialect=_OLD)["a"].schedule == ""
    assert _tabulate(specs)["a"].schedule == "30 seconds"


def test_a_last_day_has_another_entry_on_an_older_pg_cron() -> None:
    """The dialect decides about the text, and not about the timing."""
    specs = [make_job("a", trigger=Monthly(day="last", hour=1, minute=0))]
    old, new = _tabulate(specs, dialect=_OLD)["a"], _tabulate(specs)["a"]
    assert (old.schedule, new.schedule) == ("0 1 28-31 * *", "0 1 $ * *")
    assert old.timing == new.timing


def test_one_time_jobs_have_a_time_and_no_entry() -> None:
    """A job that comes once is there; one that others start is not, since no clock starts it."""
    found = _tabulate([make_job("a", trigger=Once(at=_SOON)), make_job("b", trigger=Succeeded())])
    assert [(each.name, each.schedule, each.timing.once) for each in found.values()] == [("a", "", _SOON)]


def test_inactive_jobs_are_there_and_say_so() -> None:
    """What is declared not to fire is no less declared."""
    assert not _tabulate([make_job("a", active=False)])["a"].active


def test_a_one_time_job_that_has_run_is_over() -> None:
    """Also where it was run before its time."""
    specs = [make_job("a", trigger=Once(at=_SOON)), make_job("b", trigger=Once(at=_SOON))]
    found = _tabulate(specs, make_observed(settled=frozenset({"a"})))
    assert (found["a"].active, found["b"].active) == (False, True)


def test_what_sends_requests_has_no_entry_where_nothing_sends() -> None:
    """Without http and pg_net, a worker and a job with a request are stored only."""
    specs: list[Spec] = [
        replace(_WORKER, name="a"),
        make_job("b", body=HttpBody(url="https://app.test")),
        make_job("c"),
    ]
    without = _tabulate(specs, make_observed())
    assert [bool(each.schedule) for each in without.values()] == [False, False, True]
    within = _tabulate(specs, make_observed(facts=make_facts(extensions=frozenset({"pg_net"}))))
    assert all(each.schedule for each in within.values())


def test_an_entry_switched_off_by_hand_does_not_fire() -> None:
    """The files say active and the database does not: nothing starts it until somebody repairs the drift."""
    observed = make_observed(
        make_definition("a", entry=make_entry("a", 1)),
        entries=(make_entry("a", 1, active=False),),
    )
    assert not _tabulate([make_job("a")], observed)["a"].active


def test_an_entry_that_was_applied_inactive_is_as_the_files_say() -> None:
    """A job that the files now switch on is going to fire."""
    entry = make_entry("a", 1, active=False)
    observed = make_observed(make_definition("a", entry=entry), entries=(entry,))
    assert _tabulate([make_job("a")], observed)["a"].active


def test_a_definition_without_an_entry_switches_nothing_off() -> None:
    """A job that was only stored so far is as active as it is declared."""
    assert _tabulate([make_job("a")], make_observed(make_definition("a")))["a"].active


def test_pauses_are_said() -> None:
    """Of declared jobs and of others' jobs, with their end where they have one."""
    entry = make_entry("b", 1)
    pause = Pause(until=_SOON, reason="", paused_by="anna")
    pauses = {"a": pause, "b": Pause(until=None, reason="", paused_by="anna")}
    observed = replace(
        make_observed(make_definition("b", owner="kitchen", entry=entry), entries=(entry,)), pauses=pauses
    )
    found = _tabulate([make_job("a"), make_job("c")], observed)
    assert [(each.paused, each.paused_until) for each in found.values()] == [
        (True, _SOON),
        (True, None),
        (False, None),
    ]


def test_others_jobs_are_as_they_were_applied() -> None:
    """The declared rule of another owner's job is its timing, and its entry's text its schedule."""
    document = make_document(daily="08:00", timezone="Europe/Oslo", sql="SELECT 1")
    entry = make_entry("a", 1, schedule="0 6,7 * * *", active=False)
    observed = make_observed(
        make_definition("a", owner="kitchen", entry=entry, document=document), entries=(entry,)
    )
    found = _tabulate([], observed)["a"]
    assert (found.kind, found.owner, found.schedule, found.active) == ("job", "kitchen", "0 6,7 * * *", False)
    assert found.timing.rule is not None
    assert (found.timing.zone, render_rule(found.timing.rule)) == ("Europe/Oslo", "0 8 * * *")


def test_a_zone_that_is_unknown_here_is_no_error() -> None:
    """Who declared the job may have newer data; what cannot be read is left out."""
    document = make_document(daily="08:00", timezone="Mars/Olympus", sql="SELECT 1")
    entry = make_entry("a", 1)
    observed = make_observed(
        make_definition("a", owner="kitchen", entry=entry, document=document), entries=(entry,)
    )
    assert _tabulate([], observed) == {}


def test_one_time_jobs_of_others_are_there_until_they_ran() -> None:
    """They have no entry; what else has lost its entry is started by nothing and left out."""
    document = make_document(once="2026-12-01T08:00:00Z", sql="SELECT 1")
    observed = make_observed(
        make_definition("a", owner="kitchen", document=document),
        make_definition("b", owner="kitchen", document=document),
        make_definition("c", owner="kitchen"),
        make_definition("d", owner="kitchen", kind="queue"),
        make_definition("e", owner="kitchen", document=make_document(after=["a"], sql="SELECT 1")),
        settled=frozenset({"b"}),
    )
    found = _tabulate([], observed)
    assert [(name, each.active, each.timing.once) for name, each in found.items()] == [
        ("a", True, _SOON),
        ("b", False, _SOON),
    ]


def test_the_old_name_of_a_job_is_not_there_beside_the_new_one() -> None:
    """A rename moves the entry, so that it fires once."""
    entry = make_entry("old", 1)
    observed = make_observed(make_definition("old", entry=entry), entries=(entry,))
    assert list(_tabulate([make_job("new", renamed_from="old")], observed)) == ["new"]


def test_entries_that_nobody_declared_are_there() -> None:
    """Under their names, or their numbers; what cannot be read is left out, and what would be adopted too."""
    observed = make_observed(
        entries=(
            make_entry("", 7, schedule="30 seconds"),
            make_entry("b", 8, schedule="no schedule"),
            make_entry("c", 9),
            make_entry("d", 10, active=False),
        )
    )
    found = _tabulate([make_job("c")], observed, server_zone="Europe/Oslo")
    assert [(each.name, each.kind, each.owner, each.schedule, each.active) for each in found.values()] == [
        ("c", "job", "shop", "0 * * * *", True),
        ("d", "entry", "", "0 * * * *", False),
        ("jobid 7", "entry", "", "30 seconds", True),
    ]
    assert found["d"].timing.zone == "Europe/Oslo"


def test_the_tool_s_own_entries_are_there() -> None:
    """They are no part of the files, and fire like all others."""
    entry = make_entry("reconciler-tick", 1, schedule="15 seconds")
    document = make_document(schedule="15 seconds", sql="SELECT reconciler.tick()")
    observed = make_observed(
        make_definition("reconciler-tick", entry=entry, document=document), entries=(entry,)
    )
    assert _tabulate([], observed)["reconciler-tick"].timing.seconds == 15
