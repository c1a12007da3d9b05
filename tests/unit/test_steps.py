from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.changes import Change, Obstacle, Snapshot
from reconciler.core.steps import AlterEntry, RenameEntry, ScheduleEntry, Steps, find_obstacles, make_steps
from tests.core_builders import ALL_RIGHTS, SUPERUSER, make_document, make_entry, make_facts

if TYPE_CHECKING:
    from reconciler.core.facts import Rights
    from reconciler.core.state import Entry

_A = make_entry("a", 1)
_ALTER = AlterEntry(jobid=1, schedule=None, command=None, database=None, username=None, active=None)
_NO_ALTER = replace(ALL_RIGHTS, alter_job=False)
_PLAIN = replace(ALL_RIGHTS, alter_job=False, schedule_in_database=False)
_OLD_SUPERUSER = replace(SUPERUSER, alter_job=False, schedule_in_database=False)
_NO_UPDATE = replace(ALL_RIGHTS, update_entries=False)


def _change(before: Entry | None, after: Entry | None, name: str = "a") -> Change:
    document = make_document()
    return Change(
        action="update",
        kind="job",
        name=name,
        reason="edited",
        before=Snapshot(document=document, entry=before),
        after=Snapshot(document=document, entry=after),
    )


def _to(**changed: Any) -> Entry:
    return replace(_A, jobid=None, **changed)


def _steps(*changes: Change, rights: Rights = ALL_RIGHTS) -> Steps:
    steps = make_steps(changes, make_facts(rights))
    assert steps.changes == changes
    return steps


def _obstacle(change: Change, rights: Rights) -> Obstacle:
    facts = make_facts(rights)
    (marked,) = find_obstacles([change], facts)
    steps = make_steps([change], facts)
    assert (steps.changes, steps.unschedule, steps.rename, steps.alter, steps.schedule) == (
        (),
        (),
        (),
        (),
        (),
    )
    assert marked.obstacle is not None
    assert marked.obstacle.kind == "rights"
    assert marked.obstacle.remedy
    return marked.obstacle


def _made(entry: Entry, *, plain: bool = False, username: str | None = None) -> ScheduleEntry:
    return ScheduleEntry(entry=entry, username=username, plain=plain)


@pytest.mark.parametrize(
    ("after", "alter"),
    [
        (_to(schedule="1 * * * *"), replace(_ALTER, schedule="1 * * * *")),
        (_to(command="SELECT 2"), replace(_ALTER, command="SELECT 2")),
        (_to(database="other"), replace(_ALTER, database="other")),
        (_to(active=False), replace(_ALTER, active=False)),
        (_to(active=False, command=""), replace(_ALTER, active=False, command="")),
    ],
)
def test_alter_job_is_given_what_changed_and_nothing_else(after: Entry, alter: AlterEntry) -> None:
    """The jobid, and with it pg_cron's run history, stays."""
    steps = _steps(_change(_A, after))
    assert (steps.alter, steps.rename, steps.schedule, steps.unschedule) == ((alter,), (), (), ())


def test_an_entry_is_made_with_all_that_was_declared() -> None:
    """`schedule_in_database` takes database and active too; naming a role needs a superuser."""
    after = _to(active=False, database="other")
    assert _steps(_change(None, after)).schedule == (_made(after),)


def test_a_superuser_makes_and_moves_entries_of_others() -> None:
    """Only a superuser may name a role."""
    after = _to(username="bob")
    assert _steps(_change(None, after), rights=SUPERUSER).schedule == (_made(after, username="bob"),)
    moved = _steps(_change(_A, after), rights=SUPERUSER)
    assert moved.alter == (replace(_ALTER, username="bob"),)


def test_an_entry_goes_by_its_jobid() -> None:
    """`unschedule` by name would only find the connected role's own."""
    steps = _steps(_change(_A, None))
    assert (steps.unschedule, steps.alter, steps.schedule) == ((1,), (), ())


@pytest.mark.parametrize(("before", "after"), [(None, None), (_A, replace(_A, jobid=None))])
@pytest.mark.parametrize("rights", [ALL_RIGHTS, replace(ALL_RIGHTS, use_cron=False)])
def test_what_leaves_cron_job_alone_needs_no_right_there(
    before: Entry | None, after: Entry | None, rights: Rights
) -> None:
    """A queue, or a job of which only the body changed, has its definition written and no step."""
    steps = _steps(_change(before, after), rights=rights)
    assert (steps.unschedule, steps.rename, steps.alter, steps.schedule) == ((), (), (), ())


def test_a_document_of_an_entry_of_another_role_may_change() -> None:
    """cron.job stays as it is, so that no superuser is needed."""
    theirs = replace(_A, username="bob")
    assert _steps(_change(theirs, replace(theirs, jobid=None))).alter == ()


def test_without_alter_job_schedule_updates_in_place() -> None:
    """`cron.schedule` on the name keeps the jobid where active, role and database stay."""
    after = _to(schedule="1 * * * *", command="x")
    assert _steps(_change(_A, after), rights=_PLAIN).schedule == (_made(after, plain=True),)
    assert _steps(_change(_A, after), rights=_NO_ALTER).schedule == (_made(after, plain=True),)


@pytest.mark.parametrize(
    ("before", "after", "rights", "plain"),
    [
        (_A, _to(active=False), _NO_ALTER, False),
        (_A, _to(database="other"), _NO_ALTER, False),
        (replace(_A, database="other"), _to(database="other", command="x"), _NO_ALTER, False),
        (replace(_A, active=False), _to(), _PLAIN, True),
        (_A, _to(name="b"), _NO_UPDATE, False),
        (_A, _to(name="b", command="x"), replace(_PLAIN, update_entries=False), True),
    ],
)
def test_what_nothing_else_can_do_is_unscheduled_and_scheduled_anew(
    before: Entry, after: Entry, rights: Rights, plain: bool
) -> None:
    """`schedule` changes neither active nor the database, and nothing but UPDATE renames."""
    steps = _steps(_change(before, after), rights=rights)
    assert (steps.unschedule, steps.schedule) == ((1,), (_made(after, plain=plain),))
    assert (steps.rename, steps.alter) == ((), ())


def test_a_rename_keeps_the_jobid() -> None:
    """UPDATE renames; what else changed is altered after it, under the new name."""
    rename = RenameEntry(jobid=1, name="b")
    alone = _steps(_change(_A, _to(name="b")))
    assert (alone.rename, alone.alter, alone.unschedule) == ((rename,), (), ())
    more = _steps(_change(_A, _to(name="b", command="x")))
    assert (more.rename, more.alter) == ((rename,), (replace(_ALTER, command="x"),))
    plain = _steps(_change(_A, _to(name="b", command="x")), rights=_PLAIN)
    assert (plain.rename, plain.schedule) == ((rename,), (_made(_to(name="b", command="x"), plain=True),))


def _renames(*moves: tuple[int, str, str]) -> list[tuple[int, str]]:
    changes = [
        _change(make_entry(before, jobid, command="x"), make_entry(after, command="x"), after)
        for jobid, before, after in moves
    ]
    return [(step.jobid, step.name) for step in _steps(*changes).rename]


def test_renames_make_room_for_each_other() -> None:
    """pg_cron's key is checked at each rename, so the one that frees a name goes first."""
    assert _renames((1, "a", "b"), (2, "b", "c"), (3, "x", "y")) == [(2, "c"), (3, "y"), (1, "b")]


def test_a_circle_of_renames_is_opened_by_a_name_that_no_resource_has() -> None:
    """Two entries that swapped their names by hand get them back."""
    assert _renames((1, "a", "b"), (2, "b", "a")) == [(1, "~1"), (2, "a"), (1, "b")]


@pytest.mark.parametrize(
    ("before", "after", "rights", "why", "remedy"),
    [
        (None, _to(), replace(ALL_RIGHTS, use_cron=False), "may not use pg_cron", "USAGE ON SCHEMA cron"),
        (
            _A,
            None,
            replace(ALL_RIGHTS, schedule=False),
            "may not use pg_cron",
            "cron.schedule(text, text, text)",
        ),
        (None, _to(username="bob"), ALL_RIGHTS, "runs as bob", "connect as bob, or as a superuser"),
        (replace(_A, username="bob"), None, ALL_RIGHTS, "runs as bob", "connect as bob, or as a superuser"),
        (_A, _to(username="bob"), ALL_RIGHTS, "(bob, deploy)", "connect as a superuser"),
        (None, _to(active=False), _PLAIN, "active entries alone", "cron.schedule_in_database"),
        (None, _to(database="x"), _PLAIN, "schedules for app alone", "cron.schedule_in_database"),
        (None, _to(username="bob"), _OLD_SUPERUSER, "entries of its own alone", "cron.schedule_in_database"),
        (_A, _to(active=False), _PLAIN, "active entries alone", "cron.schedule_in_database"),
        (replace(_A, username="bob"), _to(username="bob", command="x"), _OLD_SUPERUSER, "its own", "GRANT"),
    ],
)
def test_what_the_role_cannot_do_is_an_obstacle_and_no_step(
    before: Entry | None, after: Entry | None, rights: Rights, why: str, remedy: str
) -> None:
    """The obstacle says who lacks what and how to get it; nothing is done by half."""
    obstacle = _obstacle(_change(before, after), rights)
    assert why in obstacle.why
    assert remedy in obstacle.remedy


def test_an_obstacle_that_is_there_already_stays() -> None:
    """A refusal is not replaced by a lack of rights."""
    refused = Obstacle(kind="refused", why="x", remedy="y")
    change = replace(_change(None, _to(username="bob")), obstacle=refused)
    assert find_obstacles([change], make_facts()) == (change,)


def test_what_another_change_cannot_clear_stays_in_the_way() -> None:
    """What b cannot leave, a cannot take, nor can c take what a has; f is free to go."""
    rights = replace(_PLAIN, update_entries=False)
    changes = [
        _change(make_entry("a", 1), make_entry("b", active=False), "b"),
        _change(make_entry("c", 2), make_entry("a"), "a"),
        _change(make_entry("d", 3), make_entry("c"), "c"),
        _change(make_entry("e", 4), make_entry("f"), "f"),
    ]
    marked = find_obstacles(changes, make_facts(rights))
    assert [change.obstacle and change.obstacle.kind for change in marked] == ["rights"] * 3 + [None]
    assert marked[1].obstacle is not None
    assert marked[1].obstacle.remedy == "see b"
    assert make_steps(changes, make_facts(rights)).changes == (changes[3],)
