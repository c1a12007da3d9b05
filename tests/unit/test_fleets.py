"""Many targets at once: which are meant, in what order, what they share, and the one exit code."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.cli import exits
from reconciler.core.changes import Change, FieldChange, Obstacle, Snapshot
from reconciler.core.config import Target
from reconciler.core.fleets import (
    WORST_FIRST,
    Group,
    Outcome,
    choose_targets,
    group_plans,
    has_pattern,
    make_plan_key,
    order_waves,
    pick_worst,
)
from reconciler.core.plan import Plan
from reconciler.core.preflight import Finding
from reconciler.core.state import Entry, Notice
from reconciler.runtime.fleets import run_waves

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["staging", "tenant-1", "tenant-10", "tenant-2"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["tenant-2", "tenant-1"], ("tenant-1", "tenant-2")),
        (["tenant-*"], ("tenant-1", "tenant-10", "tenant-2")),
        (["*-1*", "tenant-1", "staging"], ("staging", "tenant-1", "tenant-10")),
        (["*"], tuple(NAMES)),
    ],
)
def test_targets_are_chosen_by_name_and_pattern(patterns: list[str], expected: tuple[str, ...]) -> None:
    """Each target is chosen once, whatever fits it, and a name is no pattern."""
    assert choose_targets(patterns, reversed(NAMES)) == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["tenant-*", "stagign*"], "no target fits 'stagign*'; did you mean 'staging'?"),
        (["zzzzzzzz"], "no target fits 'zzzzzzzz'; known are staging, tenant-1, tenant-10, tenant-2"),
    ],
)
def test_a_pattern_that_fits_none_is_an_error(patterns: list[str], message: str) -> None:
    """Also where other patterns fit, since somebody meant it."""
    with pytest.raises(ValueError, match=r"no target") as caught:
        choose_targets(patterns, NAMES)
    assert str(caught.value) == message


def test_hundreds_of_names_are_not_all_listed() -> None:
    """Eight names and how many more there are."""
    with pytest.raises(ValueError, match=r"known are a0, .*, a104 and 192 more$"):
        choose_targets(["zzzzzzzz"], [f"a{number}" for number in range(200)])


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), False), (("one",), False), (("one", "two"), True), (("one", "one"), True), (("o*",), True)],
)
def test_a_fleet_is_what_was_asked_for(names: tuple[str, ...], *, expected: bool) -> None:
    """A pattern is a fleet however many targets it fits, so that output has one form."""
    assert has_pattern(names) is expected


def test_waves_come_by_their_numbers() -> None:
    """Numbers that no target has are no waves, and names are in order."""
    targets = [Target(name=name, wave=wave) for name, wave in (("c", 7), ("b", 0), ("a", 7), ("d", 12))]
    assert order_waves(targets) == (("b",), ("a", "c"), ("d",))
    assert order_waves([]) == ()


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((), 0),
        ((0, 0), 0),
        ((0, 3, 0), 3),
        ((7, 3), 7),
        ((6, 7), 6),
        ((5, 6, 3), 5),
        ((4, 5), 4),
        ((0, 4, 1), 1),
    ],
)
def test_the_worst_exit_code_is_that_of_all(codes: tuple[int, ...], expected: int) -> None:
    """Errors are worst, then refusals, stale plans, locks, drift and changes."""
    assert pick_worst(codes) == expected


def test_every_exit_code_has_its_rank() -> None:
    """A code that the command line gets later cannot be forgotten; usage ends before any target."""
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert codes - {exits.USAGE} == set(WORST_FIRST)


def _entry(**fields: Any) -> Entry:
    usual: dict[str, Any] = {"name": "a", "schedule": "* * * * *", "command": "x", "active": True}
    return Entry(**{**usual, "database": "app", "username": "deploy", "jobid": 1, **fields})


def _change(**fields: Any) -> Change:
    before = Snapshot(document="{}", entry=_entry())
    after = Snapshot(document='{"a":1}', entry=_entry(jobid=None, active=False))
    usual: dict[str, Any] = {"action": "update", "kind": "job", "name": "a", "reason": "edited"}
    return Change(**{**usual, "before": before, "after": after, "source": "jobs.d/a.yaml:3", **fields})


def _plan(*changes: Change, **fields: Any) -> Plan:
    return Plan(**{"target": "one", "owner": "shop", "changes": changes, "resources": 3, **fields})


def _key(plan: Plan, database: str = "app", role: str = "deploy") -> str:
    return make_plan_key(plan, database=database, role=role)


@pytest.mark.parametrize(
    ("other", "database", "role"),
    [
        (_plan(_change(), target="two"), "app", "deploy"),
        (_plan(_change(source="jobs.d/b.yaml:9")), "app", "deploy"),
        (_plan(_change(before=Snapshot(document="{}", entry=_entry(jobid=9)))), "app", "deploy"),
        (
            _plan(
                _change(
                    before=Snapshot(document="{}", entry=_entry(database="app-2", username="deploy-2")),
                    after=Snapshot(
                        document='{"a":1}',
                        entry=_entry(database="app-2", username="deploy-2", active=False),
                    ),
                )
            ),
            "app-2",
            "deploy-2",
        ),
    ],
)
def test_what_is_each_targets_own_parts_no_plans(other: Plan, database: str, role: str) -> None:
    """Names of targets, lines, job ids, and the database and role that are connected do not count."""
    assert _key(other, database, role) == _key(_plan(_change()))


@pytest.mark.parametrize(
    "other",
    [
        _plan(),
        _plan(_change(), _change(name="b")),
        _plan(_change(name="b")),
        _plan(_change(reason="drifted")),
        _plan(_change(after=None)),
        _plan(_change(after=Snapshot(document='{"a":2}', entry=_entry(active=False)))),
        _plan(_change(before=Snapshot(document="{}", entry=None))),
        _plan(_change(before=Snapshot(document="{}", entry=_entry(database="other")))),
        _plan(_change(fields=(FieldChange(path="spec.a", before=None, after=1),))),
        _plan(_change(obstacle=Obstacle(kind="refused", why="no", remedy=""))),
        _plan(_change(), kept=("b",)),
        _plan(_change(), migrations=("0001_a",)),
        _plan(_change(), notices=(Notice(code="paused", message="x", names=("a",)),)),
        _plan(_change(), findings=(Finding(code="x", severity="error", message="x", remedy="x"),)),
        _plan(_change(), closed=Obstacle(kind="refused", why="frozen", remedy="")),
        _plan(_change(), resources=4),
    ],
)
def test_every_difference_parts_plans(other: Plan) -> None:
    """What would be done, or said, otherwise is shown by itself."""
    assert _key(other) != _key(_plan(_change()))


def test_changed_fields_count_but_for_the_own_database_and_role() -> None:
    """A field that leads from one's own database elsewhere is alike on all; other values are not."""

    def make(path: str, before: str, after: str, database: str) -> str:
        return _key(_plan(_change(fields=(FieldChange(path=path, before=before, after=after),))), database)

    alike = make("entry.database", "app", "other", "app")
    entry_apart = _plan(_change(fields=(FieldChange(path="entry.database", before="two", after="other"),)))
    assert alike != _key(entry_apart)
    own = _change(before=None, after=None)

    def bare(path: str, before: str, database: str) -> str:
        field = FieldChange(path=path, before=before, after="other")
        return _key(_plan(replace(own, fields=(field,))), database)

    assert bare("entry.database", "one", "one") == bare("entry.database", "two", "two")
    assert bare("entry.schedule", "one", "one") != bare("entry.schedule", "two", "two")
    assert bare("spec.database", "one", "one") != bare("spec.database", "two", "two")


def test_wording_parts_no_plans() -> None:
    """Notices and findings name databases and times; their codes and names decide."""
    one, two = (
        _plan(
            _change(),
            notices=(Notice(code="paused", message=text, names=("a",)),),
            findings=(Finding(code="x", severity="error", message=text, remedy=text),),
        )
        for text in ("until 10:00", "until 11:00")
    )
    assert _key(one) == _key(two)


def test_equal_plans_are_grouped_the_largest_first() -> None:
    """Groups keep the order of the outcomes, and a target without a plan is in none."""
    keys = {"a": "x", "b": "y", "c": "", "d": "y", "e": "z"}
    outcomes = [Outcome(target=name, wave=0, result="done", key=key) for name, key in keys.items()]
    assert group_plans(outcomes) == (
        Group(targets=("b", "d"), key="y"),
        Group(targets=("a",), key="x"),
        Group(targets=("e",), key="z"),
    )


def _run(
    waves: list[list[str]], work: Callable[[str], bool], *, parallel: int = 1, keep_going: bool = False
) -> tuple[dict[str, bool], bool]:
    return run_waves(waves, work, parallel=parallel, goes_on=lambda good: good or keep_going)


def test_a_wave_begins_when_the_one_before_is_over() -> None:
    """The canary is through before anything else begins, and each wave is announced."""
    seen: list[str] = []

    def work(name: str) -> bool:
        seen.append(f"{name} begins")
        time.sleep(0.01)
        seen.append(f"{name} ends")
        return True

    found, _ = run_waves(
        [["canary"], ["a", "b"]],
        work,
        parallel=8,
        goes_on=bool,
        begin=lambda number: seen.append(f"wave {number}"),
    )
    assert seen[:4] == ["wave 0", "canary begins", "canary ends", "wave 1"]
    assert found == {"canary": True, "a": True, "b": True}


@pytest.mark.parametrize(
    ("keep_going", "reached"),
    [(False, ["a", "b"]), (True, ["a", "b", "c", "d"])],
    ids=["stops", "keeps going"],
)
def test_a_failure_stops_the_wave_and_all_later_ones(*, keep_going: bool, reached: list[str]) -> None:
    """No further target begins, unless the person said so."""
    found, _ = _run([["a", "b", "c"], ["d"]], lambda name: name != "b", keep_going=keep_going)
    assert list(found) == reached


def test_those_at_work_come_to_their_end() -> None:
    """While one fails its neighbour goes on, and its result counts."""
    failed = threading.Event()

    def work(name: str) -> bool:
        if name == "bad":
            failed.set()
            return False
        assert failed.wait(5)
        time.sleep(0.02)
        return True

    found, _ = _run([["slow", "bad", "late"]], work, parallel=2)
    assert found == {"slow": True, "bad": False}


def test_no_more_are_at_work_than_allowed() -> None:
    """The number of threads bounds the number of connections."""
    lock, at_work, most = threading.Lock(), 0, 0

    def work(_name: str) -> bool:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.005)
        with lock:
            at_work -= 1
        return True

    _run([[str(number) for number in range(20)]], work, parallel=3)
    assert most == 3


def test_an_interrupt_lets_those_at_work_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C begins no further target, loses no result, and is told; a second one ends at once."""
    real, calls = concurrent.futures.wait, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr("reconciler.runtime.fleets.wait", interrupted)
    assert _run([["a", "b"], ["c"]], lambda _: True) == ({"a": True}, True)
    monkeypatch.setattr("reconciler.runtime.fleets.wait", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        _run([["a", "b"]], lambda _: True)


def _interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_the_collector_comes_back_after_the_last_thread() -> None:
    """Pauses of several threads overlap, and none of them leaves the collector off."""
    import gc

    from reconciler.collector import paused_collector

    inside, leave = threading.Event(), threading.Event()

    def pause() -> None:
        with paused_collector():
            inside.set()
            leave.wait(5)

    assert gc.isenabled()
    thread = threading.Thread(target=pause)
    with paused_collector():
        thread.start()
        assert inside.wait(5)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()
